//! NodeService: wire → model → one verb of the grid → wire.

use super::{Answers, answers, caller, said, status};
use crate::grid::{CHUNK_LINES_MAX, Chunk, Grid, LogOf, LogText, LogsWanted};
use futures_util::StreamExt;
use plat_model::id::{Digest, NodeId};
use plat_model::problem::codes;
use plat_model::{Generation, Problem};
use plat_wire::IntoModel;
use plat_wire::convert::ReadSync;
use plat_wire::limits::LOG_LINE_MAX;
use plat_wire::v1;
use plat_wire::v1::node_service_server::NodeService;
use std::collections::BTreeMap;
use std::sync::Arc;
use tonic::{Request, Response, Status, Streaming};

pub(super) struct Service(pub Arc<Grid>);

#[tonic::async_trait]
impl NodeService for Service {
    async fn enroll(&self, request: Request<v1::EnrollRequest>) -> Result<Response<v1::EnrollResponse>, Status> {
        let caller = caller(&request)?;
        let ask = request.into_inner();
        let name = said(&ask.name, NodeId::parse).map_err(status)?;
        let admitted = self.0.enroll(&caller, &ask.token, name.as_ref(), &ask.csr_der, &ask.rejoin_csr_der).await;
        let admitted = admitted.map_err(status)?;
        Ok(Response::new(v1::EnrollResponse {
            grid: self.0.name().to_string(),
            node: admitted.node.to_string(),
            chain_der: admitted.chain,
            rejoin_chain_der: admitted.rejoin_chain,
            root_der: admitted.root,
        }))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        let caller = caller(&request)?;
        let ask = request.into_inner();
        let rejoin_csr = (!ask.rejoin_csr_der.is_empty()).then_some(ask.rejoin_csr_der.as_slice());
        let renewed = self.0.renew(&caller, &ask.csr_der, rejoin_csr).await.map_err(status)?;
        Ok(Response::new(v1::RenewResponse {
            chain_der: renewed.chain,
            root_der: renewed.root,
            rejoin_chain_der: renewed.rejoin_chain.unwrap_or_default(),
        }))
    }

    type WatchStream = Answers<v1::Nudge>;
    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let stream = self.0.watch_node(&caller(&request)?).map_err(status)?;
        Ok(Response::new(answers(stream, nudge)))
    }

    async fn sync(&self, request: Request<v1::SyncRequest>) -> Result<Response<v1::SyncResponse>, Status> {
        let caller = caller(&request)?;
        let read = ReadSync::from_wire(request.into_inner());
        let synced = self.0.sync(&caller, &read.report, &read.held.instances, &read.held.releases).await;
        let synced = synced.map_err(status)?;
        let documents = synced.documents.into_iter();
        Ok(Response::new(v1::SyncResponse {
            generation: synced.index.generation.0,
            instances: synced
                .index
                .instances
                .iter()
                .map(|(id, generation)| v1::InstanceIndex { id: id.to_string(), generation: generation.0 })
                .collect(),
            releases: synced.index.releases.iter().map(ToString::to_string).collect(),
            rebuilds: rebuilds(&synced.index.rebuilds),
            bodies: synced.bodies.iter().map(Into::into).collect(),
            documents: documents.map(|(d, document)| v1::ReleaseBody { digest: d.to_string(), document }).collect(),
            refused: read.refused.0.iter().chain(&synced.refused).map(Into::into).collect(),
            now_ms: self.0.now().0,
        }))
    }

    async fn push_usage(
        &self,
        request: Request<v1::PushUsageRequest>,
    ) -> Result<Response<v1::PushUsageResponse>, Status> {
        let caller = caller(&request)?;
        let reports = request.into_inner().into_model().map_err(status)?;
        let booked = self.0.push_usage(&caller, &reports).await.map_err(status)?;
        Ok(Response::new(v1::PushUsageResponse { booked }))
    }

    async fn push_logs(
        &self,
        request: Request<Streaming<v1::LogChunk>>,
    ) -> Result<Response<v1::PushLogsResponse>, Status> {
        let caller = caller(&request)?;
        let chunks =
            request.into_inner().map(|chunk| chunk.map_err(|e| plat_wire::status::to_problem(&e)).and_then(read));
        self.0.push_logs(&caller, chunks).await.map_err(status)?;
        Ok(Response::new(v1::PushLogsResponse {}))
    }

    async fn for_instance(
        &self,
        request: Request<v1::ForInstanceRequest>,
    ) -> Result<Response<v1::ForInstanceResponse>, Status> {
        let caller = caller(&request)?;
        let (instance, ask) = request.into_inner().into_model().map_err(status)?;
        let children = self.0.for_instance(&caller, &instance, ask).await.map_err(status)?;
        Ok(Response::new(v1::ForInstanceResponse { children: children.iter().map(Into::into).collect() }))
    }
}

fn rebuilds(of: &BTreeMap<Digest, u64>) -> Vec<v1::Rebuild> {
    of.iter().map(|(digest, number)| v1::Rebuild { digest: digest.to_string(), number: *number }).collect()
}

fn nudge((generation, logs): (Generation, Vec<LogsWanted>)) -> v1::Nudge {
    let wanted = logs.into_iter().map(|LogsWanted { ticket, of, ask }| {
        let (instance, release) = match of {
            LogOf::Instance(id) => (id.to_string(), String::new()),
            LogOf::Release(digest) => (String::new(), digest.to_string()),
        };
        v1::LogsWanted {
            ticket,
            instance,
            service: ask.service.map_or_else(String::new, |service| service.to_string()),
            lines: ask.lines,
            follow: ask.follow,
            promises: ask.promises,
            hook: ask.hook.map_or_else(String::new, |hook| hook.to_string()),
            release,
        }
    });
    v1::Nudge { generation: generation.0, logs: wanted.collect() }
}

fn read(chunk: v1::LogChunk) -> Result<Chunk, Problem> {
    let lines = chunk.lines;
    let too_long = |line: &v1::LogText| line.text.len() > LOG_LINE_MAX || line.service.len() > plat_model::id::NAME_MAX;
    if lines.len() > CHUNK_LINES_MAX || lines.iter().any(too_long) {
        return Err(Problem::new(codes::TOO_LARGE, "log lines are too many at once or too long")
            .because(format!("{CHUNK_LINES_MAX} lines of {LOG_LINE_MAX} bytes are allowed"))
            .fix("send them in smaller chunks"));
    }
    Ok(Chunk {
        ticket: chunk.ticket,
        lines: lines.into_iter().map(|line| LogText { service: line.service, text: line.text }).collect(),
        problem: chunk.problem.map(IntoModel::into_model).transpose().map_err(plat_model::Problems::into_one)?,
    })
}
