//! Acknowledged requests a second through gRPC and mTLS, on the durable store, and etcd's own puts in the same run.
//!
//! `cargo bench -p plat-master --bench requests -- [SECONDS] [ENGINE...]`. The real `plat-master` on loopback, one for
//! each engine, with its data in a temporary folder; clients with a connection each, one request in flight on each; every
//! request creates an instance. etcd, if it is on the PATH, has its data beside, no TLS, and values of the size of an
//! instance. All servers are up from the start and take turns, [`ROUNDS`] times; medians are printed.

use plat_link::{Address, Credentials, DialSettings, Trust};
use plat_master::store::EngineKind;
use plat_model::id::GridName;
use plat_wire::v1;
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const CLIENTS: [usize; 4] = [1, 32, 64, 256];
/// Turns of each server with each number of clients.
const ROUNDS: usize = 3;
/// About the bytes of one instance as a record.
const VALUE: usize = 512;

fn main() -> Outcome<()> {
    let seconds = std::env::args().filter_map(|text| text.parse().ok()).next().unwrap_or(3);
    let mut kinds: Vec<_> = std::env::args().filter_map(|text| EngineKind::parse(&text)).collect();
    if kinds.is_empty() {
        kinds = EngineKind::ALL.into();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(compare(&kinds, Duration::from_secs(seconds)))
}

/// What is measured: a server and how it is called.
enum Server {
    Plat(Plat),
    Etcd(Box<Etcd>),
}

async fn compare(kinds: &[EngineKind], length: Duration) -> Outcome<()> {
    let mut servers = Vec::new();
    for kind in kinds {
        servers.push((format!("plat ({kind})"), Server::Plat(Plat::start(*kind).await?)));
    }
    let found = Command::new("etcd").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if found {
        servers.push(("etcd".into(), Server::Etcd(Box::new(Etcd::start().await?))));
    }
    let mut rows: Vec<(String, Vec<f64>)> = servers.iter().map(|(name, _)| (name.clone(), Vec::new())).collect();
    for many in CLIENTS {
        let mut rates = vec![Vec::new(); servers.len()];
        for round in 0..ROUNDS {
            for ((_, server), rates) in servers.iter().zip(&mut rates) {
                rates.push(match server {
                    Server::Plat(plat) => measure(plat.clients(many).await?, round, length, request).await?,
                    Server::Etcd(etcd) => measure(etcd.clients(many).await?, round, length, put).await?,
                });
            }
        }
        rows.iter_mut().zip(rates).for_each(|((_, row), rates)| row.push(median(rates)));
    }
    print!("{:<14}", "clients");
    CLIENTS.iter().for_each(|clients| print!("{clients:>10}"));
    println!("   (acknowledged a second)");
    for (name, rates) in &rows {
        print!("{name:<14}");
        rates.iter().for_each(|rate| print!("{rate:>10.0}"));
        println!();
    }
    if let (true, Some((_, etcd))) = (found, rows.last()) {
        for (name, rates) in &rows[..rows.len() - 1] {
            print!("{:<14}", format!("{name}/etcd"));
            rates.iter().zip(etcd).for_each(|(rate, of)| print!("{:>10.2}", rate / of));
            println!();
        }
    } else {
        println!("etcd is not on the PATH: no comparison");
    }
    Ok(())
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// Counts how often `call` completes, with one call at a time in each of `clients`.
async fn measure<C, F>(clients: Vec<C>, round: usize, length: Duration, call: fn(C, String) -> F) -> Outcome<f64>
where
    C: Clone + Send + 'static,
    F: Future<Output = Outcome<()>> + Send + 'static,
{
    let start = Instant::now();
    let many = clients.len();
    let tasks: Vec<_> = clients
        .into_iter()
        .enumerate()
        .map(|(n, client)| {
            tokio::spawn(async move {
                let mut done = 0u64;
                while start.elapsed() < length {
                    call(client.clone(), format!("c{many}-{round}-{n}-{done}")).await?;
                    done += 1;
                }
                Outcome::Ok(done)
            })
        })
        .collect();
    let mut done = 0;
    for task in tasks {
        done += task.await??;
    }
    Ok(done as f64 / start.elapsed().as_secs_f64())
}

/// A process that ends with the bench.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Plat {
    url: Address,
    operator: Arc<Credentials>,
    // The process first, so that nothing writes in the folder when it is removed.
    _process: Running,
    _folder: tempfile::TempDir,
}

impl Plat {
    async fn start(kind: EngineKind) -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let (data, profile) = (folder.path().join("data"), folder.path().join("profile"));
        let made = Command::new(env!("CARGO_BIN_EXE_plat-master"))
            .args(["init", "--grid", "bench", "--store", kind.name(), "--listen", "127.0.0.1:0"])
            .args(["--url", "https://127.0.0.1:7443"])
            .args([Path::new("--data"), &data, Path::new("--profile"), &profile])
            .stdout(Stdio::null())
            .status()?;
        if !made.success() {
            return Err("plat-master init failed".into());
        }
        let mut process = Command::new(env!("CARGO_BIN_EXE_plat-master"))
            .args([Path::new("run"), Path::new("--config"), &data.join("master.toml")])
            .env("PLAT_LOG", "warn")
            .stdout(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take();
        let process = Running(process);
        let mut line = String::new();
        BufReader::new(output.ok_or("no output")?).read_line(&mut line)?;
        let address = line.trim().strip_prefix("ready ").ok_or("plat-master is not ready")?;
        let url = Address::parse(&format!("https://{address}"))?;
        let operator = Credentials::load(GridName::parse("bench")?, &profile.join("credentials.pem"))?;
        let plat = Self { url, operator, _process: process, _folder: folder };
        let document = "version: 1\nname: web\nservices:\n  web:\n    command: [\"/bin/true\"]\n";
        let ask = v1::AddReleaseRequest { name: String::new(), document: document.into() };
        plat.client()?.add_release(ask).await?;
        Ok(plat)
    }

    fn client(&self) -> Outcome<plat_wire::ends::GridClient> {
        let trust = Trust::Credentials(self.operator.clone());
        Ok(plat_wire::ends::grid_client(plat_link::dial(&self.url, trust, DialSettings::default(), plat_link::tcp)?))
    }

    async fn clients(&self, many: usize) -> Outcome<Vec<plat_wire::ends::GridClient>> {
        let mut clients = Vec::new();
        for _ in 0..many {
            let mut client = self.client()?;
            client.who_am_i(v1::WhoAmIRequest {}).await?;
            clients.push(client);
        }
        Ok(clients)
    }
}

async fn request(mut client: plat_wire::ends::GridClient, name: String) -> Outcome<()> {
    let ask = v1::RequestRequest { project: "bench".into(), name, release: "web".into(), ..Default::default() };
    client.request(ask).await?;
    Ok(())
}

/// The one message of etcd's API that a put needs, by its field numbers.
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

struct Etcd {
    endpoint: Endpoint,
    _process: Running,
    _folder: tempfile::TempDir,
}

impl Etcd {
    async fn start() -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let free = || std::net::TcpListener::bind("127.0.0.1:0")?.local_addr();
        let (client, peer) = (format!("http://{}", free()?), format!("http://{}", free()?));
        let process = Running(
            Command::new("etcd")
                .arg("--data-dir")
                .arg(folder.path())
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .args(["--initial-cluster", &format!("default={peer}")])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?,
        );
        let endpoint = Endpoint::from_shared(client)?;
        let start = Instant::now();
        while let Err(error) = try_put(&endpoint).await {
            if start.elapsed() > Duration::from_secs(20) {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(Self { endpoint, _process: process, _folder: folder })
    }

    async fn clients(&self, many: usize) -> Outcome<Vec<Channel>> {
        let mut clients = Vec::new();
        for _ in 0..many {
            clients.push(self.endpoint.connect().await?);
        }
        Ok(clients)
    }
}

async fn try_put(endpoint: &Endpoint) -> Outcome<()> {
    put(endpoint.connect().await?, "first".into()).await
}

async fn put(channel: Channel, key: String) -> Outcome<()> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await?;
    let codec = tonic_prost::ProstCodec::<PutRequest, ()>::default();
    let ask = PutRequest { key: key.into_bytes(), value: vec![7; VALUE] };
    client.unary(tonic::Request::new(ask), PathAndQuery::from_static("/etcdserverpb.KV/Put"), codec).await?;
    Ok(())
}
