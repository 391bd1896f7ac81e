//! The handshake of both sides: keys, pins and proofs.

use dialhome_gateway::session::RETRY_AFTER_S;
use dialhome_proto::code::{self, ByeReason};
use dialhome_proto::frame::Bye;
use dialhome_proto::link::DeviceKey;
use dialhome_proto::link::quic::SUITE_QUIC_PROOF;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::Scene;
use crate::client::{Dial, Peer, answer_to, flight, good_flight, proofs, refusal};
use crate::support::PATIENCE;
use crate::support::peer::first_flight;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_board_has_a_session_and_the_operator_sees_its_transport_and_the_pin() {
    let mut scene = Scene::start().await;
    let gateway = scene.gateway();
    let dialed = Dial::default().dial(gateway).await.unwrap();
    assert_eq!(dialed.key.len(), 44);
    let pin: String = Sha256::digest(&dialed.key)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let status = scene.bench.json(&["status"]).await;
    assert_eq!(status["quic"]["pin"], pin.as_str(), "{status}");
    assert_eq!(status["quic"]["listen"], gateway.to_string().as_str());
    let config = scene.bench.path().join("boards/victim/board.toml");
    let given = std::fs::read_dir(config.parent().unwrap())
        .unwrap()
        .filter_map(|file| std::fs::read_to_string(file.unwrap().path()).ok())
        .any(|text| text.contains(&format!("pins = [\"{pin}\"]")));
    assert!(given, "the provisioning file has the pin");
    dialed.connection.close(0_u32.into(), b"");

    let mut peer = Peer::greet(gateway, &scene.key).await;
    peer.alive().await;
    let device = scene.device("victim").await;
    assert_eq!(device["transport"], "quic", "{device}");
    let address = peer.endpoint.local_addr().unwrap().to_string();
    assert_eq!(device["peer"], address.as_str(), "{device}");
    assert_eq!(device["quic"]["address_changes"], 0, "{device}");

    // Another address, and the same session.
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let elsewhere = socket.local_addr().unwrap().to_string();
    peer.endpoint.rebind(socket).unwrap();
    peer.alive().await;
    let device = scene.device("victim").await;
    assert_eq!(device["peer"], elsewhere.as_str(), "{device}");
    assert_eq!(device["quic"]["address_changes"], 1, "{device}");
    assert_eq!(device["last_disconnect"], serde_json::Value::Null);

    peer.send(Bye {
        reason: ByeReason::STOPPING,
        back_in_s: 0,
    })
    .await;
    let closed = peer.lost().await;
    assert_eq!(closed, "closed by peer: done (code 0)");
    scene.nothing_stays().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_prove_the_key_on_this_very_connection_is_refused_in_the_same_words() {
    let mut scene = Scene::start().await;
    let gateway = scene.gateway();
    let key = scene.key.clone();
    let stranger = DeviceKey::new([9; 32]);
    let handle = key.handle();

    // What another connection proves, nothing here, and a proof with another key.
    let elsewhere = Dial::default().dial(gateway).await.unwrap();
    let replayed = *proofs(&elsewhere.connection, &key).board();
    let mut hints = Vec::new();
    for case in [
        "unknown handle",
        "replayed",
        "wrong key",
        "a bit",
        "the gateway's",
    ] {
        let dialed = Dial::default().dial(gateway).await.unwrap();
        let connection = &dialed.connection;
        let own = proofs(connection, &key);
        let strangers = proofs(connection, &stranger);
        let (handle, proof) = match case {
            "unknown handle" => (stranger.handle(), *strangers.board()),
            "replayed" => (handle, replayed),
            "wrong key" => (handle, *strangers.board()),
            "a bit" => {
                let mut flipped = *own.board();
                flipped[31] ^= 1;
                (handle, flipped)
            }
            _ => (handle, *own.gateway()),
        };
        let bytes = flight(handle, SUITE_QUIC_PROOF, &proof);
        let (answer, closed) = answer_to(connection, &bytes).await;
        let refusal = refusal(&answer);
        assert_eq!(refusal.code, code::Refusal::REFUSED, "{case}");
        assert!(RETRY_AFTER_S.contains(&refusal.retry_after_s), "{case}");
        assert_eq!(closed, "closed by peer: done (code 0)", "{case}");
        hints.push(refusal.retry_after_s);
    }
    elsewhere.connection.close(0_u32.into(), b"");
    let status = scene.bench.json(&["status"]).await;
    assert_eq!(status["refused_for"]["key"], hints.len(), "{status}");
    scene.nothing_stays().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suites_and_versions_of_another_transport_are_refused_by_code() {
    let mut scene = Scene::start().await;
    let gateway = scene.gateway();
    for suite in [0, 1, 2, 9] {
        let dialed = Dial::default().dial(gateway).await.unwrap();
        let proof = *proofs(&dialed.connection, &scene.key).board();
        let bytes = flight(scene.key.handle(), suite, &proof);
        let (answer, closed) = answer_to(&dialed.connection, &bytes).await;
        assert_eq!(refusal(&answer).code, code::Refusal::SUITE, "{suite}");
        assert_eq!(closed, "closed by peer: done (code 0)");
    }
    let dialed = Dial::default().dial(gateway).await.unwrap();
    let mut bytes = good_flight(&dialed.connection, &scene.key);
    bytes[4] = 2;
    let (answer, _) = answer_to(&dialed.connection, &bytes).await;
    assert_eq!(refusal(&answer).code, code::Refusal::VERSION);

    // Suite 3 over TCP, with a proof's length behind it.
    let (mut tcp, _) = first_flight(&scene.key);
    tcp[5] = SUITE_QUIC_PROOF;
    let mut stream = TcpStream::connect(gateway).await.unwrap();
    stream.write_all(&tcp).await.unwrap();
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    read.expect("an answer").expect("no reset");
    assert_eq!(refusal(&answer).code, code::Refusal::SUITE);
    scene.nothing_stays().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_protocol_is_refused_by_tls_and_a_stranger_by_what_it_says_first() {
    let mut scene = Scene::start().await;
    let gateway = scene.gateway();
    for alpn in [vec![], vec![b"h3".to_vec()], vec![b"dialhome/2".to_vec()]] {
        let dial = Dial {
            alpn,
            ..Dial::default()
        };
        let refused = dial.dial(gateway).await.err().expect("no connection");
        let refused = refused.to_string();
        assert!(
            refused.contains("120"),
            "no_application_protocol: {refused}"
        );
    }
    let dialed = Dial::default().dial(gateway).await.unwrap();
    let (answer, closed) = answer_to(&dialed.connection, b"GET / HTTP/1.1\r\n\r\n").await;
    assert!(answer.is_empty());
    assert_eq!(closed, "closed by peer: no_handshake (code 272)");
    // Half a first flight, and no more will come.
    let dialed = Dial::default().dial(gateway).await.unwrap();
    let half = good_flight(&dialed.connection, &scene.key);
    let (mut send, _receive) = dialed.connection.open_bi().await.unwrap();
    send.write_all(&half[..30]).await.unwrap();
    send.finish().unwrap();
    let closed = timeout(PATIENCE, dialed.connection.closed()).await;
    let closed = closed.expect("a close").to_string();
    assert_eq!(closed, "closed by peer: no_handshake (code 272)");
    scene.nothing_stays().await;
}
