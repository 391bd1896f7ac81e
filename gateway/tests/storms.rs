//! Crowds that mean no good, and a process at its limit: memory is bounded, and a good board notices nothing.

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dialhome_gateway::demo::relay::Faults;
use dialhome_proto::code::{self, CloseCode};
use dialhome_proto::frame::GatewayFrame;
use dialhome_proto::link::DeviceKey;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use support::peer::{Peer, first_flight, key_of};
use support::{BOARD, Bench, PATIENCE, random_bytes};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Connections that are opened and say nothing.
const HALF_OPEN: usize = 10_000;
/// Networks that they come from.
const NETWORKS: u8 = 5;
/// What all of it may cost the gateway, in bytes: 2,048 places of some 3 KB are 6 MB
/// (spec/limits.md section 6); four times that leaves the allocator room.
const COST_MAX: u64 = 24 << 20;

/// A connection from an address of this machine's loopback network.
async fn connect(from: Ipv4Addr, gateway: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect(gateway).await
}

fn pid(bench: &mut Bench) -> Pid {
    let id = bench.site.gateway().and_then(|gateway| gateway.id());
    let id = id.expect("the gateway runs");
    Pid::from_raw(id.cast_signed()).expect("an id of a process")
}

/// Anonymous memory of a process, in bytes.
fn memory(pid: Pid) -> u64 {
    let path = format!("/proc/{}/status", pid.as_raw_nonzero());
    let status = std::fs::read_to_string(path).expect("its status");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib: u64 = line
        .and_then(|line| line.split_whitespace().next())
        .and_then(|kib| kib.parse().ok())
        .expect("RssAnon");
    kib * 1024
}

/// First messages under handles that nobody has, one after the other, until nobody counts any more.
async fn flood(from: Ipv4Addr, gateway: SocketAddr, refused: Arc<AtomicU64>) {
    loop {
        let (flight, _) = first_flight(&DeviceKey::new(rand::random()));
        let mut answer = [0; 5];
        let dialed = async {
            let mut stream = connect(from, gateway).await?;
            stream.write_all(&flight).await?;
            stream.read_exact(&mut answer).await
        };
        // A connection that went for others is none that was refused.
        if dialed.await.is_ok() {
            assert_eq!((answer[0], answer[1]), (0xD3, code::Refusal::REFUSED.0));
            refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_that_say_nothing_and_a_flood_of_strangers_cost_little_and_disturb_no_good_board()
 {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("as many files as are allowed");
    let mut bench = Bench::start().await;
    let gateway = bench.site.listen();
    let image = bench.image("1.0", &random_bytes(1, 100_000)).await;
    bench.board("good", Faults::default(), BOARD).await;
    let pid = pid(&mut bench);
    let before = memory(pid);

    let refused = Arc::new(AtomicU64::new(0));
    let floods: Vec<_> = (0..4)
        .map(|n| {
            flood(
                Ipv4Addr::new(127, 0, 20 + n, 1),
                gateway,
                Arc::clone(&refused),
            )
        })
        .map(tokio::spawn)
        .collect();
    let mut silent = Vec::with_capacity(HALF_OPEN);
    for n in 0..HALF_OPEN {
        let network = 10 + u8::try_from(n % usize::from(NETWORKS)).unwrap();
        let host = 1 + u8::try_from(n / usize::from(NETWORKS) % 250).unwrap();
        let from = Ipv4Addr::new(127, 0, network, host);
        let opened = timeout(PATIENCE, connect(from, gateway)).await;
        let opened = opened
            .expect("the gateway accepts")
            .unwrap_or_else(|error| {
                panic!(
                    "connection {n}: {error}; {:?} files may be open",
                    limit.current
                )
            });
        silent.push(opened);
    }
    let crowded = bench.json(&["status"]).await;
    let handshakes = crowded["handshakes"].as_u64().unwrap();
    assert!((1_000..=2_100).contains(&handshakes), "{crowded}");

    // A good board dials anew, is given an update, restarts into it and confirms.
    bench.kill_agent("good").await;
    bench.offline("good").await;
    bench.start_agent("good");
    bench.online("good").await;
    bench.push("good", &image.name, &[]).await.confirmed();
    let cost = memory(pid).saturating_sub(before);
    let answered = refused.load(Ordering::Relaxed);
    eprintln!("{cost} bytes for {HALF_OPEN} half-open connections and {answered} strangers");
    assert!(cost <= COST_MAX, "{cost} bytes");
    assert!(answered > 100, "{answered} strangers were answered");
    for flood in floods {
        assert!(!flood.is_finished(), "a flood found something odd");
        flood.abort();
    }
    let status = bench.json(&["status"]).await;
    let sum: u64 = ["busy", "network_busy", "silent", "key"]
        .iter()
        .map(|reason| status["refused_for"][reason].as_u64().unwrap())
        .sum();
    assert!(sum >= answered + (HALF_OPEN as u64) - 2_100, "{status}");
    drop(silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_file_left_what_is_open_goes_on_and_the_operator_is_told() {
    const FILES: u64 = 120;
    let mut bench = Bench::start().await;
    let image = bench.image("1.0", &random_bytes(2, 100_000)).await;
    bench.board("good", Faults::default(), BOARD).await;
    let few = Rlimit {
        current: Some(FILES),
        maximum: Some(FILES),
    };
    prlimit(Some(pid(&mut bench)), Resource::Nofile, few).expect("a limit");
    let mut crowd = Vec::new();
    for n in 0..FILES * 2 {
        let from = Ipv4Addr::new(127, 0, 30, u8::try_from(n % 200).unwrap() + 1);
        crowd.push(connect(from, bench.site.listen()).await.unwrap());
    }
    let status = bench
        .until(&["status"], |status| {
            status["accept"]["failures"].as_u64() > Some(0)
        })
        .await;
    let problem = status["accept"]["problem"].as_str().unwrap();
    assert!(
        problem.contains("files are open") && problem.contains("ulimit -n"),
        "{status}"
    );
    assert!(
        status["open_files"]["used"].as_u64() < Some(FILES),
        "{status}"
    );
    // The session that is open has its update; it dials again into it, in the middle of the crowd.
    bench.push("good", &image.name, &[]).await.confirmed();
    drop(crowd);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_stops_tells_every_board_when_to_come_back() {
    const BOARDS: usize = 8;
    let mut bench = Bench::start().await;
    let mut peers = Vec::new();
    for n in 0..BOARDS {
        let board = bench
            .add_board(&format!("board-{n}"), Faults::default(), BOARD)
            .await;
        let key = key_of(&board.config);
        peers.push(Peer::greet(bench.site.listen(), &key).await);
    }
    let mut told = Vec::new();
    for mut peer in peers {
        told.push(tokio::spawn(async move {
            let plaintext = peer.next().await.expect("Close");
            match GatewayFrame::decode(&plaintext) {
                Ok(GatewayFrame::Close(close)) if close.code == CloseCode::STOPPING => {
                    close.reconnect_after_s
                }
                other => panic!("not the end: {other:?}"),
            }
        }));
    }
    // Somebody who says nothing is not waited for as long as a handshake may take, 30 s.
    let silent = connect(Ipv4Addr::LOCALHOST, bench.site.listen()).await;
    bench
        .until(&["status"], |status| status["handshakes"] == 1)
        .await;
    let stopped = bench.site.stop_gateway(Duration::from_secs(20)).await;
    let ended = bench.must(stopped);
    assert!(ended.is_some_and(|ended| ended.success()), "{ended:?}");
    for told in told {
        let after = timeout(PATIENCE, told).await.expect("an end").unwrap();
        assert!((2..=3).contains(&after), "{after} s");
    }
    drop(silent);
}
