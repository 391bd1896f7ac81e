//! Peers that break QUIC or the protocol on it: each hears the name of what it did.

use std::net::Ipv4Addr;

use dialhome_proto::frame::{Ack, GatewayFrame};
use dialhome_proto::link::PREAMBLE_LEN;
use quinn::{TransportConfig, VarInt};
use rand::Rng as _;
use tokio::time::timeout;

use crate::client::{Dial, Peer, endpoint, good_flight};
use crate::raw::{INITIAL_LEN, Raw, datagram, stream};
use crate::support::peer::{accept, component, hello, nothing};
use crate::support::{PATIENCE, random_bytes};
use crate::{Scene, memory};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_stream_one_that_is_one_way_and_datagrams_end_the_connection_by_name() {
    let mut scene = Scene::start().await;
    let gateway = scene.gateway();
    let long = vec![7; 400];
    let (limit, violation, window) = (4, 10, 3);
    let cases = [
        (
            "a second stream",
            [stream(0, &[0xD1]), stream(4, &[1])].concat(),
            limit,
        ),
        ("a second stream first", stream(4, &[1]), limit),
        ("a stream of one way", stream(2, &[1]), limit),
        ("a datagram", datagram(&[1, 2, 3]), violation),
        ("a frame that is none", vec![0x40, 0x77, 1, 2, 3], 7),
        (
            "more than the window",
            [vec![0x0E, 0x00, 0xBF, 0xFF, 0xFF, 0xFF, 0x41, 0x90], long].concat(),
            window,
        ),
    ];
    for (case, frames, code) in cases {
        let mut raw = Raw::at(Ipv4Addr::LOCALHOST, gateway).await;
        raw.connect().await;
        raw.say(&frames).await;
        let (closed, reason, by_application) = raw.closed().await;
        assert_eq!((closed, by_application), (code, false), "{case}: {reason}");
    }
    scene.nothing_stays().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_broken_off_end_the_session_and_nothing_else() {
    let mut scene = Scene::start().await;
    let gateway = scene.gateway();
    // No second stream is to be had, either.
    let mut peer = Peer::greet(gateway, &scene.key).await;
    let second = peer.connection.clone();
    let second = tokio::spawn(async move { second.open_bi().await.map(drop) });
    peer.alive().await;
    assert!(!second.is_finished());
    peer.send.reset(VarInt::from_u32(7)).unwrap();
    assert_eq!(peer.lost().await, "closed by peer: lost (code 15)");
    assert!(second.await.unwrap().is_err());
    // Before the session: a reset in the first flight.
    let dialed = Dial::default().dial(gateway).await.unwrap();
    let flight = good_flight(&dialed.connection, &scene.key);
    let (mut send, _receive) = dialed.connection.open_bi().await.unwrap();
    send.write_all(&flight[..PREAMBLE_LEN]).await.unwrap();
    send.reset(VarInt::from_u32(7)).unwrap();
    let closed = timeout(PATIENCE, dialed.connection.closed()).await;
    let closed = closed.expect("a close").to_string();
    assert_eq!(closed, "closed by peer: no_handshake (code 272)");
    // Who reads no more of what it is told.
    let mut peer = Peer::greet(gateway, &scene.key).await;
    peer.receive.stop(VarInt::from_u32(7)).unwrap();
    peer.send(dialhome_proto::frame::Ping { nonce: 1 }).await;
    assert_eq!(peer.lost().await, "closed by peer: lost (code 15)");
    // Who ends its own direction.
    let mut peer = Peer::greet(gateway, &scene.key).await;
    peer.send.finish().unwrap();
    assert_eq!(peer.lost().await, "closed by peer: lost (code 15)");
    // Who is gone without a word, for the gateway the same as one that is silent, until it is told.
    let peer = Peer::greet(gateway, &scene.key).await;
    peer.connection.close(VarInt::from_u32(0x999), b"whatever");
    scene.nothing_stays().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_never_reads_costs_no_more_than_the_bounds() {
    let mut scene = Scene::start().await;
    let gateway = scene.gateway();
    let image = scene.bench.image("1.0.0", &random_bytes(7, 24 << 20)).await;
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(None)
        .stream_receive_window(VarInt::from_u32(64 * 1024))
        .receive_window(VarInt::MAX);
    let dial = Dial {
        transport,
        ..Dial::default()
    };
    let mut peer = Peer::dial_as(dial, gateway, &scene.key).await;
    let mut huge = hello();
    huge.receive_buffer = 16_384;
    huge.components.clear();
    let mut whole = component();
    whole.window = u32::MAX;
    whole.slot_size = u32::MAX;
    huge.components.push(whole).unwrap();
    peer.hello(huge).await;
    let pid = scene.bench.site.gateway_pid().expect("a gateway");
    let before = memory(pid);
    let id = scene.bench.push_no_wait("victim", &image.name, &[]).await;
    let offer = peer.next().await.expect("an offer");
    let GatewayFrame::Offer(offer) = GatewayFrame::decode(&offer).unwrap() else {
        panic!("not an offer");
    };
    peer.send(accept(offer.update, 0, nothing())).await;
    peer.send(Ack {
        committed: 0,
        limit: u32::MAX,
    })
    .await;
    scene
        .bench
        .until(&["update", "show", &id], |update| {
            update["sent"].as_u64().unwrap() >= 64 * 1024
        })
        .await;
    // Whoever else has a session is served meanwhile.
    for _ in 0..20 {
        scene.bystander.alive().await;
    }
    let grown = memory(pid).saturating_sub(before);
    assert!(grown < 14 << 20, "{grown} bytes for one that never reads");
    let update = scene.bench.json(&["update", "show", &id]).await;
    let sent = update["sent"].as_u64().unwrap();
    assert!(
        sent < 2 << 20,
        "{sent} bytes were sent to one that never reads"
    );
    peer.connection.close(VarInt::from_u32(0), b"");
    scene.nothing_stays().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rubbish_is_answered_by_less_than_it_was_or_not_at_all() {
    let mut scene = Scene::start().await;
    let gateway = scene.gateway();
    let raw = Raw::at(Ipv4Addr::LOCALHOST, gateway).await;
    let mut random = rand::rng();
    let mut spent = 0;
    for n in 0..2_000_usize {
        let mut bytes = vec![0; n % 1_472 + 1];
        random.fill_bytes(&mut bytes);
        spent += bytes.len();
        raw.send(&bytes).await;
    }
    // Versions that nobody speaks: with a whole datagram, and with less.
    let unknown = |len: usize| {
        let mut bytes = vec![0x5A; len];
        bytes[..6].copy_from_slice(&[0xC0, 0x1A, 0x2A, 0x3A, 0x4A, 8]);
        bytes[14] = 8;
        bytes
    };
    raw.send(&unknown(600)).await;
    scene.bystander.alive().await;
    let answered: usize = raw.waiting().iter().map(Vec::len).sum();
    assert!(answered < spent, "{answered} for {spent}");
    let raw = Raw::at(Ipv4Addr::LOCALHOST, gateway).await;
    raw.send(&unknown(INITIAL_LEN)).await;
    let answer = raw.receive().await;
    assert_eq!((answer[0] & 0x80, &answer[1..5]), (0x80, &[0; 4][..]));
    assert!(answer.windows(4).any(|version| version == [0, 0, 0, 1]));
    assert!(answer.len() < 64, "{} bytes", answer.len());
    // A first packet whose connection id is too short, and one that is not what it says.
    let mut raw = Raw::at(Ipv4Addr::LOCALHOST, gateway).await;
    let mut first = raw.first_packet();
    first[300] ^= 1;
    raw.send(&first).await;
    scene.bystander.alive().await;
    scene.nothing_stays().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_can_be_said_before_the_handshake_of_a_second_connection_is_over() {
    let mut scene = Scene::start().await;
    let gateway = scene.gateway();
    let dial = Dial {
        early_data: true,
        ..Dial::default()
    };
    let (config, _) = dial.config();
    let endpoint = endpoint();
    for _ in 0..3 {
        let connecting = endpoint
            .connect_with(config.clone(), gateway, "gateway")
            .unwrap();
        let connecting = connecting.into_0rtt().err().expect("no ticket");
        let connection = timeout(PATIENCE, connecting).await.expect("an answer");
        let connection = connection.unwrap();
        // What a ticket or a token would come with has come by then.
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        let flight = good_flight(&connection, &scene.key);
        send.write_all(&flight).await.unwrap();
        let mut answer = [0; 33];
        receive.read_exact(&mut answer).await.unwrap();
        assert_eq!(connection.stats().frame_rx.new_token, 0);
        connection.close(VarInt::from_u32(0), b"");
    }
    scene.nothing_stays().await;
}
