//! Acknowledged requests a second through gRPC and mTLS, on the durable store, and etcd's own puts in the same run.
//!
//! `cargo bench -p plat-master --bench requests [SECONDS]`. A real server on loopback with its data in a temporary folder,
//! clients with a connection each, one request in flight on each; every request creates an instance. etcd, if it is
//! on the PATH, runs alone on loopback with its data beside, without TLS, with values of the size of an instance.

use plat_link::{Address, Credentials, DialSettings, Key, ServeSettings, Trust};
use plat_master::Master;
use plat_master::clock::{Clock, SystemClock};
use plat_master::init::{Init, first_records};
use plat_master::pki::Serial;
use plat_master::pki::ca::Ca;
use plat_master::pki::csr::RequestedKey;
use plat_master::store::{self, EngineKind};
use plat_model::id::{GridName, UserName};
use plat_model::identity::Identity;
use plat_wire::v1;
use std::error::Error;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const CLIENTS: [usize; 4] = [1, 32, 64, 256];
/// About the bytes of one instance as a record.
const VALUE: usize = 512;

fn main() -> Outcome<()> {
    let seconds = std::env::args().filter_map(|text| text.parse().ok()).next().unwrap_or(5);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(compare(Duration::from_secs(seconds)))
}

async fn compare(length: Duration) -> Outcome<()> {
    let mut rows: Vec<(String, Vec<f64>)> = Vec::new();
    for kind in EngineKind::ALL {
        rows.push((format!("plat ({kind})"), plat(kind, length).await?));
    }
    let found = Command::new("etcd").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if found {
        rows.push(("etcd".into(), etcd(length).await?));
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

/// Counts how often `call` completes, with one call at a time in each of `clients`.
async fn measure<C, F>(clients: Vec<C>, length: Duration, call: fn(C, String) -> F) -> Outcome<f64>
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
                    call(client.clone(), format!("c{many}-{n}-{done}")).await?;
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

async fn plat(kind: EngineKind, length: Duration) -> Outcome<Vec<f64>> {
    let folder = tempfile::tempdir()?;
    let (url, operator) = serve(folder.path(), kind).await?;
    let dial = || plat_link::dial(&url, Trust::Credentials(operator.clone()), DialSettings::default(), plat_link::tcp);
    let mut admin = plat_wire::ends::grid_client(dial()?);
    let document = "version: 1\nname: web\nservices:\n  web:\n    command: [\"/bin/true\"]\n";
    admin.add_release(v1::AddReleaseRequest { name: String::new(), document: document.into() }).await?;
    let mut rates = Vec::new();
    for many in CLIENTS {
        let mut clients = Vec::new();
        for _ in 0..many {
            let mut client = plat_wire::ends::grid_client(dial()?);
            client.who_am_i(v1::WhoAmIRequest {}).await?;
            clients.push(client);
        }
        let request = |mut client: plat_wire::ends::GridClient, name: String| async move {
            let ask = v1::RequestRequest { project: "bench".into(), name, release: "web".into(), ..Default::default() };
            client.request(ask).await?;
            Ok(())
        };
        rates.push(measure(clients, length, request).await?);
    }
    Ok(rates)
}

async fn serve(folder: &Path, kind: EngineKind) -> Outcome<(Address, Arc<Credentials>)> {
    let grid = GridName::parse("bench")?;
    let ca = Ca::create(&folder.join("ca"), &grid, SystemClock.now())?;
    let (key, serial, name) = (Key::generate()?, Serial::random()?, UserName::parse("bench")?);
    let csr = RequestedKey::parse(&key.csr_der()?)?;
    let validity = ca.validity(SystemClock.now(), Duration::from_secs(3600));
    let chain = ca.sign_client(&grid, &Identity::User(name.clone()), &csr, &serial, validity)?;
    let operator = Credentials::new(grid.clone(), key, chain, vec![ca.root_der().to_vec()])?;
    let store = store::open(&folder.join("store"), Some(kind))?;
    let ask = Init {
        data: folder.into(),
        config: None,
        grid,
        url: Address::parse("https://localhost:1")?,
        listen: Vec::new(),
        operator: name,
        profile: folder.into(),
        store: kind,
    };
    first_records(&ask, store.clone(), &serial, &SystemClock).await?;
    let master = Master::new(store, Arc::new(SystemClock), ca, vec!["localhost".into()])?;
    let (connections, bound) = plat_link::listen("127.0.0.1:0".parse()?).await?;
    tokio::spawn(master.serve(connections, ServeSettings::default(), std::future::pending()));
    Ok((Address::parse(&format!("https://{bound}"))?, operator))
}

/// The one message of etcd's API that a put needs, by its field numbers.
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// Ended with the bench.
struct Etcd(Child);

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn etcd(length: Duration) -> Outcome<Vec<f64>> {
    let folder = tempfile::tempdir()?;
    let free = || std::net::TcpListener::bind("127.0.0.1:0")?.local_addr();
    let (client, peer) = (format!("http://{}", free()?), format!("http://{}", free()?));
    let _etcd = Etcd(
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
    let mut rates = Vec::new();
    for many in CLIENTS {
        let mut clients = Vec::new();
        for _ in 0..many {
            clients.push(endpoint.connect().await?);
        }
        rates.push(measure(clients, length, put).await?);
    }
    Ok(rates)
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
