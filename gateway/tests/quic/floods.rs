//! Floods of first packets and of connections that say nothing: what they cost, and whom they keep out.

use quinn::ConnectionError;
use tokio::task::JoinSet;

use crate::client::{Dial, Peer, endpoint, good_flight};
use crate::raw::{INITIAL_LEN, Kind, Raw, source};
use crate::support::PATIENCE;
use crate::{Scene, memory};
use tokio::time::timeout;

/// Connections that may be half open before an address must prove itself.
const UNPROVEN: u16 = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spoofed_sources_get_three_times_their_bytes_at_most_and_then_only_a_retry() {
    let mut scene = Scene::start().await;
    let gateway = scene.gateway();
    let pid = scene.bench.site.gateway_pid().expect("a gateway");
    let mut sources = Vec::new();
    for n in 0..UNPROVEN {
        let mut raw = Raw::at(source(n), gateway).await;
        let first = raw.first_packet();
        raw.send(&first).await;
        // The handshake has begun before the next one comes.
        let answer = raw.receive().await;
        assert_eq!(raw.open(&answer)[0].0, Kind::Initial, "source {n}");
        sources.push((raw, answer.len()));
    }
    // Above the threshold each is asked to prove its address, with less than it has sent.
    let before = memory(pid);
    for n in 0..1_000 {
        let mut raw = Raw::at(source(UNPROVEN + n), gateway).await;
        let first = raw.first_packet();
        raw.send(&first).await;
        let answer = raw.receive().await;
        assert_eq!(raw.open(&answer)[0].0, Kind::Retry, "source {n}");
        assert!(answer.len() < 256, "{} bytes", answer.len());
        assert!(raw.waiting().is_empty());
    }
    let grown = memory(pid).saturating_sub(before);
    assert!(
        grown < 4 << 20,
        "{grown} bytes for those that had to prove themselves"
    );
    let status = scene.bench.json(&["status"]).await;
    assert_eq!(status["quic"]["retries"], 1_000, "{status}");
    assert_eq!(status["handshakes"], UNPROVEN, "{status}");
    // A good board proves its address on the way, without knowing of it.
    let mut good = Peer::greet(gateway, &scene.key).await;
    good.alive().await;
    good.connection.close(0_u32.into(), b"");
    // They never answer: what they were sent until they were given up is all that they ever get.
    scene.nothing_stays().await;
    for (raw, mut bytes) in sources {
        let rest: Vec<usize> = raw.waiting().iter().map(Vec::len).collect();
        bytes += rest.iter().sum::<usize>();
        assert!(
            bytes <= 3 * INITIAL_LEN,
            "{bytes} bytes to a spoofed source: {rest:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_opens_the_stream_or_stops_within_its_first_flight_is_closed_by_name() {
    let mut scene = Scene::start().await;
    let gateway = scene.gateway();
    let silent = Dial::default().dial(gateway).await.unwrap();
    let half = Dial::default().dial(gateway).await.unwrap();
    let (mut send, _receive) = half.connection.open_bi().await.unwrap();
    let flight = good_flight(&half.connection, &scene.key);
    send.write_all(&flight[..30]).await.unwrap();
    let mute = Peer::dial(gateway, &scene.key).await;
    for connection in [&silent.connection, &half.connection] {
        let closed = timeout(PATIENCE, connection.closed()).await;
        let closed = closed.expect("a close").to_string();
        assert_eq!(closed, "closed by peer: no_handshake (code 272)");
    }
    let (code, closed) = mute.closed().await;
    assert_eq!(code.to_string(), "hello_overdue");
    assert_eq!(closed, "closed by peer: done (code 0)");
    let status = scene.bench.json(&["status"]).await;
    assert_eq!(status["refused_for"]["silent"], 2, "{status}");
    scene.nothing_stays().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_network_has_its_share_of_places_and_their_memory_is_bounded() {
    let mut scene = Scene::start().await;
    let gateway = scene.gateway();
    let pid = scene.bench.site.gateway_pid().expect("a gateway");
    let before = memory(pid);
    let endpoint = endpoint();
    let (config, _) = Dial::default().config();
    let mut dials = JoinSet::new();
    for _ in 0..560 {
        let dial = endpoint.connect_with(config.clone(), gateway, "gateway");
        let dial = dial.unwrap();
        dials.spawn(async move { timeout(PATIENCE, dial).await.expect("an answer") });
    }
    let (mut held, mut refused) = (Vec::new(), 0_u64);
    while let Some(dialed) = dials.join_next().await {
        match dialed.unwrap() {
            Ok(connection) => held.push(connection),
            Err(ConnectionError::ConnectionClosed(_)) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    let grown = memory(pid).saturating_sub(before);
    assert!(
        grown < 48 << 20,
        "{grown} bytes for {} that say nothing",
        held.len()
    );
    // Some may have gone for others when they had been silent for five seconds.
    let open = held.iter().filter(|held| held.close_reason().is_none());
    assert!(open.count() <= 512);
    let status = scene.bench.json(&["status"]).await;
    let busy = status["refused_for"]["network_busy"].as_u64().unwrap();
    // The others of those went for another within their handshake.
    assert!(busy <= refused, "{refused} refused: {status}");
    scene.bystander.alive().await;
    endpoint.close(0_u32.into(), b"");
    scene.nothing_stays().await;
}
