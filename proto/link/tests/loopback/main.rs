//! Real TLS over loopback: who is let in, who is taken for the master, and what a bad caller can do to the others.

mod grid;

use grid::{TestGrid, UP, check, health, health_of, wait};
use plat_link::tls::RootPin;
use plat_link::{DialSettings, Key, Most, ServeSettings, Trust, dial};
use plat_model::problem::codes;
use std::time::Duration;
use tokio::net::TcpStream;
use tonic_health::pb::HealthCheckRequest;

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_node_of_the_grid_calls_the_master_and_is_recognised() {
    let grid = TestGrid::new("campus");
    let server = grid.serve("master", ServeSettings::default()).await;
    check(&grid.channel("node/n1", &server)).await.unwrap();
    let peer = server.last_peer().unwrap();
    assert_eq!(peer.identity.unwrap().identity.to_string(), "node/n1");
}

#[tokio::test]
async fn a_caller_without_a_certificate_is_anonymous_and_checks_the_pinned_ca() {
    let (grid, other) = (TestGrid::new("campus"), TestGrid::new("campus"));
    let server = grid.serve("master", ServeSettings::default()).await;
    let pinned = |grid: &TestGrid| Trust::Pin(RootPin::of(&grid.root_der()));
    let open = |trust| dial(&server.address, trust, DialSettings::default(), plat_link::tcp).unwrap();
    check(&open(pinned(&grid))).await.unwrap();
    assert_eq!(server.last_peer().unwrap().identity, None);
    assert_eq!(check(&open(pinned(&other))).await.unwrap_err().code, codes::WRONG_CA);
}

#[tokio::test]
async fn a_master_of_another_ca_is_not_trusted() {
    let (grid, other) = (TestGrid::new("campus"), TestGrid::new("campus"));
    let server = other.serve("master", ServeSettings::default()).await;
    assert_eq!(check(&grid.channel("node/n1", &server)).await.unwrap_err().code, codes::TLS);
}

#[tokio::test]
async fn a_caller_whose_certificate_is_of_another_ca_is_refused_and_told_so() {
    let (grid, other) = (TestGrid::new("campus"), TestGrid::new("campus"));
    let server = grid.serve("master", ServeSettings::default()).await;
    let stranger = other.credentials_trusting("node/n1", vec![grid.root_der()]);
    let channel = dial(&server.address, Trust::Credentials(stranger), DialSettings::default(), plat_link::tcp).unwrap();
    let problem = check(&channel).await.unwrap_err();
    assert_eq!(problem.code, codes::TLS);
    assert!(problem.why.contains("refused this side's certificate"), "{problem}");
}

#[tokio::test]
async fn a_caller_whose_certificate_has_expired_is_refused() {
    let grid = TestGrid::new("campus");
    let server = grid.serve("master", ServeSettings::default()).await;
    let channel =
        dial(&server.address, Trust::Credentials(grid.expired("node/n1")), DialSettings::default(), plat_link::tcp);
    assert_eq!(check(&channel.unwrap()).await.unwrap_err().code, codes::TLS);
}

#[tokio::test]
async fn a_node_that_poses_as_the_master_is_refused() {
    let grid = TestGrid::new("campus");
    let server = grid.serve("node/n2", ServeSettings::default()).await;
    let problem = check(&grid.channel("node/n1", &server)).await.unwrap_err();
    assert_eq!(problem.code, codes::TLS);
    assert!(problem.why.contains("node/n2"), "{problem}");
    let trust = Trust::Pin(RootPin::of(&grid.root_der()));
    let channel = dial(&server.address, trust, DialSettings::default(), plat_link::tcp).unwrap();
    assert_eq!(check(&channel).await.unwrap_err().code, codes::TLS);
}

#[tokio::test]
async fn a_certificate_is_replaced_while_a_stream_stays_open() {
    let grid = TestGrid::new("campus");
    let server = grid.serve("master", ServeSettings::default()).await;
    let node = grid.credentials("node/n1");
    let open = || dial(&server.address, Trust::Credentials(node.clone()), DialSettings::default(), plat_link::tcp);
    let mut stream =
        health(open().unwrap()).watch(HealthCheckRequest { service: String::new() }).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    let before = server.last_peer().unwrap().identity.unwrap().serial_hex;

    let key = Key::generate().unwrap();
    let chain = grid.sign("node/n1", &key);
    node.replace(key, chain, vec![grid.root_der()]).unwrap();
    check(&open().unwrap()).await.unwrap();

    assert_eq!(server.last_peer().unwrap().identity.unwrap().serial_hex, node.identity().serial_hex);
    assert_ne!(node.identity().serial_hex, before);
    server.reporter.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    let said = tokio::time::timeout(SOON, stream.message()).await.unwrap().unwrap().unwrap();
    assert_ne!(said.status, UP);
}

#[tokio::test]
async fn callers_that_never_shake_hands_delay_nobody_and_are_dropped() {
    let grid = TestGrid::new("campus");
    let settings = ServeSettings { handshake_timeout: Duration::from_millis(500), ..ServeSettings::default() };
    let server = grid.serve("master", settings).await;
    let host = (server.address.host().to_string(), server.address.port());
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(host.clone()).await.unwrap());
    }
    check(&grid.channel("node/n1", &server)).await.unwrap();
    for stream in &mut silent {
        wait(SOON, tokio::io::AsyncReadExt::read(stream, &mut [0; 16])).await.unwrap();
    }
}

#[tokio::test]
async fn callers_of_one_address_that_never_shake_hands_keep_out_no_other() {
    let grid = TestGrid::new("campus");
    let settings = ServeSettings {
        handshake_timeout: Duration::from_secs(600),
        handshakes: Most { in_all: 8, from_one: 4 },
        ..ServeSettings::default()
    };
    let server = grid.serve("master", settings).await;
    let host = format!("{}:{}", server.address.host(), server.address.port()).parse().unwrap();
    let mut silent = Vec::new();
    for _ in 0..20 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        silent.push(socket.connect(host).await.unwrap());
    }
    check(&grid.channel("node/n1", &server)).await.unwrap();
    // Those past the limit were hung up on at once.
    for stream in &mut silent[4..] {
        assert_eq!(wait(SOON, tokio::io::AsyncReadExt::read(stream, &mut [0; 16])).await.unwrap_or(0), 0);
    }
}

#[tokio::test]
async fn callers_without_a_certificate_have_few_places_and_not_for_long() {
    let grid = TestGrid::new("campus");
    let settings = ServeSettings {
        anonymous: Most { in_all: 2, from_one: 2 },
        anonymous_life: Duration::from_secs(2),
        ..ServeSettings::default()
    };
    let server = grid.serve("master", settings).await;
    let open = || {
        let pin = Trust::Pin(RootPin::of(&grid.root_der()));
        dial(&server.address, pin, DialSettings::default(), plat_link::tcp).unwrap()
    };
    let request = || HealthCheckRequest { service: String::new() };
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = health(open()).watch(request()).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        held.push(stream);
    }
    assert_eq!(check(&open()).await.unwrap_err().code, codes::UNREACHABLE);
    check(&grid.channel("node/n1", &server)).await.unwrap();
    for stream in &mut held {
        assert!(wait(SOON, stream.message()).await.is_err());
    }
    check(&open()).await.unwrap();
}

#[tokio::test]
async fn hundreds_with_certificates_call_from_one_address_at_once() {
    let grid = TestGrid::new("campus");
    let server = grid.serve("master", ServeSettings::default()).await;
    let channels: Vec<_> = (0..256).map(|_| grid.channel("node/n1", &server)).collect();
    let all = futures_util::future::join_all(channels.iter().map(check)).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
}

#[tokio::test]
async fn a_message_past_the_limit_is_refused_as_too_large() {
    let grid = TestGrid::new("campus");
    let server = grid.serve("master", ServeSettings::default()).await;
    let channel = grid.channel("node/n1", &server);
    let problem = health_of(&channel, "x".repeat(5 << 20)).await.unwrap_err();
    assert_eq!(problem.code, codes::TOO_LARGE, "{problem}");
    check(&channel).await.unwrap();
}

#[tokio::test]
async fn nobody_listening_is_unreachable() {
    let grid = TestGrid::new("campus");
    let server = grid.serve("master", ServeSettings::default()).await;
    let channel = grid.channel("node/n1", &server);
    server.stop().await;
    assert_eq!(check(&channel).await.unwrap_err().code, codes::UNREACHABLE);
}

#[tokio::test]
async fn a_shutdown_ends_even_streams_that_never_end() {
    let grid = TestGrid::new("campus");
    let settings = ServeSettings { drain: Duration::from_millis(200), ..ServeSettings::default() };
    let server = grid.serve("master", settings).await;
    let request = HealthCheckRequest { service: String::new() };
    let mut stream = health(grid.channel("node/n1", &server)).watch(request).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    wait(SOON, server.stop()).await;
    assert!(wait(SOON, stream.message()).await.is_err());
}

#[test]
fn credentials_are_read_back_and_only_their_owner_can_read_them() {
    use std::os::unix::fs::PermissionsExt;
    let (grid, folder) = (TestGrid::new("campus"), tempfile::tempdir().unwrap());
    let path = folder.path().join("credentials.pem");
    let node = grid.credentials("node/n1");
    node.save(&path).unwrap();
    node.save(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let read = plat_link::Credentials::load(grid.name.clone(), &path).unwrap();
    assert_eq!((read.identity(), read.roots_der()), (node.identity(), node.roots_der()));
    std::fs::write(&path, "nonsense").unwrap();
    assert_eq!(plat_link::Credentials::load(grid.name.clone(), &path).unwrap_err().code, codes::KEY_FILE);
}
