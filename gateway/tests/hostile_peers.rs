//! Peers that break the protocol: each gets the code that names what it did, and
//! nothing else changes, neither for other boards nor for the board whose key it has.

mod support;

use dialhome_device::crypto::HandshakeFault;
use dialhome_gateway::demo::relay::Faults;
use dialhome_gateway::session::RETRY_AFTER_S;
use dialhome_proto::code::{self, CloseCode, Reason, Statement};
use dialhome_proto::frame::{
    Accept, Ack, DeviceFrame, GatewayFrame, Hello, Nack, Ping, RESTART, Report, Unsupported,
};
use dialhome_proto::id::{Digest, UpdateId};
use dialhome_proto::link::DeviceKey;
use serde_json::Value;
use std::net::SocketAddr;
use support::peer::{Peer, accept, component, first_flight, hello, key_of, nothing};
use support::{BOARD, Bench, Image, PATIENCE, random_bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Everything that the gateway answers to these bytes until it closes.
async fn answer_to(gateway: SocketAddr, bytes: &[u8], end: bool) -> Vec<u8> {
    let mut stream = TcpStream::connect(gateway).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    if end {
        stream.shutdown().await.unwrap();
    }
    let mut answer = Vec::new();
    // A reset after the answer is an end, too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .expect("the gateway closes");
    answer
}

/// A gateway, a board of whom the peers have the key, and one that must not notice anything.
async fn bench() -> (Bench, DeviceKey) {
    let mut bench = Bench::start().await;
    bench.board("bystander", Faults::default(), BOARD).await;
    let board = bench.add_board("victim", Faults::default(), BOARD).await;
    let key = key_of(&board.config);
    (bench, key)
}

async fn untouched(bench: &Bench) {
    let device = bench.json(&["device", "show", "bystander"]).await;
    assert_eq!(device["online"], true, "{device}");
    assert_eq!(device["last_disconnect"], Value::Null, "{device}");
}

async fn refused(bench: &Bench) -> u64 {
    bench.json(&["status"]).await["refused"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_before_any_session_and_replays_change_nothing() {
    let (bench, key) = bench().await;
    let gateway = bench.site.listen();
    let refusal = |code: code::Refusal| vec![0xD3, code.0, 1];
    let before = refused(&bench).await;
    let (good, _) = first_flight(&key);

    let mut not_magic = good;
    not_magic[0] ^= 1;
    assert!(answer_to(gateway, &not_magic, false).await.is_empty());
    assert!(
        answer_to(gateway, b"GET / HTTP/1.1\r\n\r\n", false)
            .await
            .is_empty()
    );
    assert!(answer_to(gateway, &good[..40], true).await.is_empty());

    let mut version = good;
    version[4] = 2;
    let answer = answer_to(gateway, &version, false).await;
    assert_eq!(answer[..3], refusal(code::Refusal::VERSION));
    for suite in [0, 2, 9] {
        let mut other = good;
        other[5] = suite;
        let answer = answer_to(gateway, &other, false).await;
        assert_eq!(answer[..3], refusal(code::Refusal::SUITE), "suite {suite}");
    }

    // An unknown handle and a wrong key look the same from outside.
    let stranger = DeviceKey::new([9; 32]);
    let (unknown, initiator) = first_flight(&stranger);
    let unknown = answer_to(gateway, &unknown, false).await;
    assert_eq!(unknown[..3], refusal(code::Refusal::REFUSED));
    assert!(matches!(
        initiator.finish(&unknown),
        Err(HandshakeFault::Refused(_))
    ));
    let (mut wrong_key, _) = first_flight(&stranger);
    wrong_key[6..14].copy_from_slice(&good[6..14]);
    // The same but for the hint when to come back, which is drawn.
    let same = |answer: Vec<u8>| {
        assert_eq!((answer.len(), &answer[..3]), (unknown.len(), &unknown[..3]));
        let hint = u16::from_be_bytes([answer[3], answer[4]]);
        assert!(RETRY_AFTER_S.contains(&hint), "{hint} s");
    };
    same(answer_to(gateway, &wrong_key, false).await);
    let mut flipped = good;
    flipped[50] ^= 0x10;
    same(answer_to(gateway, &flipped, false).await);

    // A first message that was recorded on the way, and is sent again.
    let mut live = Peer::greet(gateway, &key).await;
    let replayed = live.first_flight;
    for _ in 0..3 {
        same(answer_to(gateway, &replayed, false).await);
    }
    live.alive().await;
    let device = bench.json(&["device", "show", "victim"]).await;
    assert_eq!(device["online"], true, "{device}");
    assert_eq!(device["last_disconnect"], Value::Null, "{device}");
    assert_eq!(refused(&bench).await - before, 13);
    untouched(&bench).await;
}

/// One thing that a peer does, and the code that it gets for it.
enum Wrong {
    Plaintext(Vec<u8>),
    Bytes(Vec<u8>),
    /// A record that was changed on the way.
    Flipped,
    /// A record out of its order.
    Swapped,
}

async fn does(peer: &mut Peer, wrong: Wrong) {
    match wrong {
        Wrong::Plaintext(plaintext) => peer.send_plaintext(&plaintext).await,
        Wrong::Bytes(bytes) => peer.send_bytes(&bytes).await,
        Wrong::Flipped => {
            let mut record = peer.seal(&[0x01, 7]);
            record[3] ^= 0x40;
            peer.send_bytes(&record).await;
        }
        Wrong::Swapped => {
            let _first = peer.seal(&[0x01, 7]);
            let second = peer.seal(&[0x01, 8]);
            peer.send_bytes(&second).await;
        }
    }
}

fn encoded<'a>(frame: impl Into<DeviceFrame<'a>>) -> Wrong {
    let mut plaintext = [0; 1024];
    let len = frame.into().encode(&mut plaintext).unwrap();
    Wrong::Plaintext(plaintext[..len].to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_before_hello_or_breaks_a_record_is_closed_with_its_code() {
    let (bench, key) = bench().await;
    let gateway = bench.site.listen();
    // The board's live session stays through all of it: nobody has taken its place.
    let mut live = Peer::greet(gateway, &key).await;
    let with = |change: fn(&mut Hello<'static>)| {
        let mut hello = hello();
        change(&mut hello);
        encoded(hello)
    };
    let cases = [
        (
            encoded(Ping { nonce: 1 }),
            CloseCode::FRAME_NOT_ALLOWED,
            "Ping first",
        ),
        (
            Wrong::Plaintext(vec![0x77, 1]),
            CloseCode::FRAME_NOT_ALLOWED,
            "unknown first",
        ),
        (
            with(|hello| hello.receive_buffer = 831),
            CloseCode::BAD_HELLO,
            "small buffer",
        ),
        (
            with(|hello| hello.components.clear()),
            CloseCode::BAD_HELLO,
            "no component",
        ),
        (
            with(|hello| hello.components.push(component()).unwrap()),
            CloseCode::BAD_HELLO,
            "a component twice",
        ),
        (
            with(|hello| hello.product = "a b"),
            CloseCode::BAD_HELLO,
            "product",
        ),
        (
            with(|hello| hello.components[0].write_unit = 0),
            CloseCode::BAD_HELLO,
            "unit",
        ),
        (
            with(|hello| hello.components[0].window = 100),
            CloseCode::BAD_HELLO,
            "window",
        ),
        (
            Wrong::Plaintext(vec![0x10, 1]),
            CloseCode::BAD_FRAME,
            "half a Hello",
        ),
        (Wrong::Bytes(vec![0, 0]), CloseCode::BAD_RECORD, "length 0"),
        (
            Wrong::Bytes(vec![0, 16, 0]),
            CloseCode::BAD_RECORD,
            "length 16",
        ),
        (
            Wrong::Bytes(vec![4, 1]),
            CloseCode::OVERSIZED,
            "length 1025",
        ),
        (
            Wrong::Bytes(vec![0xFF, 0xFF]),
            CloseCode::OVERSIZED,
            "length 65535",
        ),
        (Wrong::Flipped, CloseCode::BAD_RECORD, "a flipped bit"),
        (
            Wrong::Swapped,
            CloseCode::BAD_RECORD,
            "a record out of order",
        ),
    ];
    for (wrong, code, what) in cases {
        let mut peer = Peer::dial(gateway, &key).await;
        does(&mut peer, wrong).await;
        assert_eq!(peer.closed().await, code, "{what}");
        live.alive().await;
    }
    // Half a record, and then nothing more.
    let mut peer = Peer::dial(gateway, &key).await;
    let record = peer.seal(&[0x01, 7]);
    peer.send_bytes(&record[..10]).await;
    peer.stream.shutdown().await.unwrap();
    while peer.next().await.is_some() {}
    live.alive().await;
    let device = bench.json(&["device", "show", "victim"]).await;
    assert_eq!(device["last_disconnect"], Value::Null, "{device}");
    untouched(&bench).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_hello_unknown_frames_are_answered_and_wrong_ones_closed() {
    let (bench, key) = bench().await;
    let gateway = bench.site.listen();
    let mut peer = Peer::greet(gateway, &key).await;
    // Unknown, kept free, and of the other direction.
    for number in [0x77, 0x18, 0x43, 0x00, 0xFF] {
        peer.send_plaintext(&[number, 1, 2, 3]).await;
        peer.expect(|frame| {
            matches!(frame, GatewayFrame::Unsupported(Unsupported { number: told }) if *told == number)
        })
        .await;
    }
    peer.send(Unsupported { number: 0x40 }).await;
    // Too late for any delivery: nothing to do about it.
    let late = Ack {
        committed: 9,
        limit: 10,
    };
    peer.send(late).await;
    // An outcome of an update that nobody knows is settled all the same.
    peer.send(Report {
        sequence: 7,
        update: UpdateId([7; 8]),
        component: 0,
        state: Statement::CONFIRMED,
        reason: Reason::NONE,
        detail: "",
    })
    .await;
    peer.expect(|frame| matches!(frame, GatewayFrame::Settled(settled) if settled.sequence == 7))
        .await;
    peer.alive().await;

    let cases = [
        (
            encoded(hello()),
            CloseCode::FRAME_NOT_ALLOWED,
            "a second Hello",
        ),
        (
            Wrong::Plaintext(vec![0x01]),
            CloseCode::BAD_FRAME,
            "a Ping without nonce",
        ),
        (
            Wrong::Plaintext(vec![0x01, 1, 1]),
            CloseCode::BAD_FRAME,
            "bytes left over",
        ),
        (Wrong::Bytes(vec![0, 0]), CloseCode::BAD_RECORD, "length 0"),
        (
            Wrong::Bytes(vec![4, 1]),
            CloseCode::OVERSIZED,
            "length 1025",
        ),
        (Wrong::Flipped, CloseCode::BAD_RECORD, "a flipped bit"),
    ];
    drop(peer);
    for (wrong, code, what) in cases {
        let mut peer = Peer::greet(gateway, &key).await;
        does(&mut peer, wrong).await;
        assert_eq!(peer.closed().await, code, "{what}");
        bench
            .until(&["device", "show", "victim"], |device| {
                device["last_disconnect"]["reason"] == code.to_string()
            })
            .await;
    }
    untouched(&bench).await;
}

/// A session in which the gateway has just offered the image.
async fn offered(bench: &Bench, key: &DeviceKey) -> (Peer, UpdateId) {
    let mut peer = Peer::greet(bench.site.listen(), key).await;
    let (update, flags) = peer.offer().await;
    assert_eq!(flags, 0);
    (peer, update)
}

/// A session in which chunks up to 4096 are on their way.
async fn sending(bench: &Bench, key: &DeviceKey) -> (Peer, UpdateId) {
    let (mut peer, update) = offered(bench, key).await;
    peer.send(accept(update, 0, nothing())).await;
    let open = Ack {
        committed: 0,
        limit: 4096,
    };
    peer.send(open).await;
    let mut next = 0;
    while next < 4096 {
        let (offset, len) = peer.chunk().await;
        assert_eq!(offset as usize, next);
        next += len;
    }
    assert_eq!(next, 4096, "the gateway sent beyond the limit");
    (peer, update)
}

fn ack(committed: u32, limit: u32) -> Wrong {
    encoded(Ack { committed, limit })
}

fn nack(offset: u32) -> Wrong {
    encoded(Nack {
        offset,
        reason: Reason::READ_BACK,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_transfer_does_not_allow_ends_the_session_and_never_the_update() {
    let (mut bench, key) = bench().await;
    let image: Image = bench.image("1.0", &random_bytes(1, 60_000)).await;
    let update = bench.push_no_wait("victim", &image.name, &[]).await;

    for (offset, payload) in [(60_001, 60_001), (u32::MAX, u32::MAX), (1024, 2048)] {
        let (mut peer, id) = offered(&bench, &key).await;
        let accept = Accept {
            payload_offset: payload,
            ..accept(id, offset, nothing())
        };
        peer.send(accept).await;
        assert_eq!(peer.closed().await, CloseCode::ACK_BEYOND_SENT, "{offset}");
    }
    let cases = [
        (
            ack(4097, 8192),
            CloseCode::ACK_BEYOND_SENT,
            "ack beyond what was sent",
        ),
        (
            ack(u32::MAX, u32::MAX),
            CloseCode::ACK_BEYOND_SENT,
            "ack of everything",
        ),
        (
            ack(1024, 4095),
            CloseCode::FRAME_NOT_ALLOWED,
            "a limit that shrinks",
        ),
        (
            nack(4097),
            CloseCode::ACK_BEYOND_SENT,
            "nack beyond what was sent",
        ),
    ];
    for (wrong, code, what) in cases {
        let (mut peer, _) = sending(&bench, &key).await;
        does(&mut peer, wrong).await;
        assert_eq!(peer.closed().await, code, "{what}");
    }
    for (wrong, code, what) in [
        (
            ack(1024, 4096),
            CloseCode::FRAME_NOT_ALLOWED,
            "an ack that goes back",
        ),
        (
            nack(1024),
            CloseCode::ACK_BEYOND_SENT,
            "a nack below an ack",
        ),
    ] {
        let (mut peer, _) = sending(&bench, &key).await;
        let half = Ack {
            committed: 2048,
            limit: 4096,
        };
        peer.send(half).await;
        does(&mut peer, wrong).await;
        assert_eq!(peer.closed().await, code, "{what}");
    }

    // Answers about other updates are nobody's.
    let (mut peer, _) = offered(&bench, &key).await;
    peer.send(accept(UpdateId([3; 8]), 0, nothing())).await;
    peer.alive().await;
    drop(peer);

    // A prefix that is not the image's: start over, and not one byte before.
    let (mut peer, id) = offered(&bench, &key).await;
    let wrong_prefix = Digest([5; 32]);
    peer.send(accept(id, 30_000, wrong_prefix)).await;
    assert_eq!(peer.offer().await, (id, RESTART));
    drop(peer);

    // A board that reports on another board's update is settled, and changes nothing.
    let theirs = bench.image("2.0", &random_bytes(2, 2_000_000)).await;
    bench.json(&["hold", "bystander"]).await;
    let other = bench.push_no_wait("bystander", &theirs.name, &[]).await;
    let (mut peer, _) = offered(&bench, &key).await;
    peer.send(Report {
        sequence: 1,
        update: UpdateId::from_hex(&other).unwrap(),
        component: 0,
        state: Statement::FAILED,
        reason: Reason::BAD_FLASH,
        detail: "",
    })
    .await;
    peer.expect(|frame| matches!(frame, GatewayFrame::Settled(settled) if settled.sequence == 1))
        .await;
    drop(peer);
    assert_eq!(
        bench.json(&["update", "show", &other]).await["state"],
        "queued"
    );
    untouched(&bench).await;
    bench.json(&["release", "bystander"]).await;
    bench.reaches(&other, "confirmed").await;

    // After all of it the real board takes the same update.
    bench.start_agent("victim");
    let update = bench.reaches(&update, "confirmed").await;
    assert_eq!(update["digest"], image.digest.as_str(), "{update}");
    assert_eq!(bench.installed("victim").as_deref(), Some(&*image.bytes));
}

/// The word alone is not enough: what runs must be the image.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_board_that_says_confirmed_and_runs_another_image_is_recorded_as_reverted() {
    let (bench, key) = bench().await;
    let image = bench.image("1.0", &random_bytes(1, 5_000)).await;
    let update = bench.push_no_wait("victim", &image.name, &[]).await;
    let (mut peer, id) = offered(&bench, &key).await;
    peer.send(Report {
        sequence: 1,
        update: id,
        component: 0,
        state: Statement::CONFIRMED,
        reason: Reason::NONE,
        detail: "",
    })
    .await;
    peer.expect(|frame| matches!(frame, GatewayFrame::Settled(settled) if settled.sequence == 1))
        .await;
    let ended = bench.json(&["update", "show", &update]).await;
    assert_eq!(
        (ended["state"].as_str(), ended["reason"].as_str()),
        (Some("reverted"), Some("wrong_image_running")),
        "{ended}"
    );
    untouched(&bench).await;
}

/// Two boards with one key: the newest that has proven itself is the device; a flood of
/// handshakes without a record is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_an_authenticated_record_takes_a_session_over() {
    let (bench, key) = bench().await;
    let gateway = bench.site.listen();
    let mut first = Peer::greet(gateway, &key).await;
    let idle = Peer::dial(gateway, &key).await;
    first.alive().await;
    let mut second = Peer::greet(gateway, &key).await;
    assert_eq!(first.closed().await, CloseCode::SUPERSEDED);
    second.alive().await;
    // The one that shook hands long ago and says Hello now is older than the live one.
    let mut idle = idle;
    idle.send(hello()).await;
    assert_eq!(idle.closed().await, CloseCode::SUPERSEDED);
    second.alive().await;
    untouched(&bench).await;
}
