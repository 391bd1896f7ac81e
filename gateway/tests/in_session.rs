//! What changes while a session lasts, with a board played by hand: keys and lists that change twice, limits and
//! holds in the middle of a window, and a connection that takes nothing.

mod support;

use std::time::Duration;

use dialhome_device::crypto::SoftAead;
use dialhome_gateway::demo::relay::Faults;
use dialhome_proto::code::CloseCode;
use dialhome_proto::frame::{
    Ack, DeviceFrame, GatewayFrame, GatewaysStored, Hello, KeyStored, Nack, Ping, RESTART,
};
use dialhome_proto::id::UpdateId;
use dialhome_proto::link::DeviceKey;
use dialhome_proto::statement::GatewaysStatement;
use serde_json::Value;
use support::peer::{Peer, accept, component, hello, key_of, nothing};
use support::{BOARD, Bench, PATIENCE, Transport, random_bytes};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

support::over_both! {
    a_late_hello_under_a_key_that_was_rotated_again_changes_nothing,
    a_late_hello_never_makes_a_newer_pending_key_current,
    key_stored_is_settled_where_the_key_is_in_force_or_unknown_and_only_a_pending_one_rekeys,
    a_second_list_of_gateways_is_told_within_the_same_session,
    a_raised_max_bytes_lets_a_joined_push_go_on_in_the_same_session,
    an_image_whose_file_is_missing_is_said_and_added_again_it_is_offered_in_the_same_session,
}

/// A gateway, and the key of a board that only this test plays.
async fn bench(transport: Transport) -> (Bench, DeviceKey) {
    let mut bench = Bench::start_over(transport).await;
    let board = bench.add_board("board", Faults::default(), BOARD).await;
    let key = key_of(&board.config);
    (bench, key)
}

/// The next frame, which must be NewKey.
async fn new_key(peer: &mut Peer) -> DeviceKey {
    let plaintext = peer.next().await.expect("a new key");
    match GatewayFrame::decode(&plaintext) {
        Ok(GatewayFrame::NewKey(new)) => DeviceKey::new(new.key),
        other => panic!("not a new key: {other:?}"),
    }
}

async fn rotate(bench: &Bench) {
    bench.json(&["device", "rotate-key", "board"]).await;
}

async fn shown(bench: &Bench) -> Value {
    bench.json(&["device", "show", "board"]).await
}

async fn key_stored(peer: &mut Peer, sequence: u32, key: &DeviceKey) {
    peer.send(KeyStored {
        sequence,
        handle: key.handle(),
    })
    .await;
}

async fn settled(peer: &mut Peer, sequence: u32) {
    peer.expect(
        |frame| matches!(frame, GatewayFrame::Settled(settled) if settled.sequence == sequence),
    )
    .await;
}

async fn a_late_hello_under_a_key_that_was_rotated_again_changes_nothing(transport: Transport) {
    let (bench, first_key) = bench(transport).await;
    let gateway = bench.door();
    let mut first = Peer::greet(gateway, &first_key).await;
    rotate(&bench).await;
    let second_key = new_key(&mut first).await;
    // Handshakes under both keys, whose Hello is late.
    let mut late_first = Peer::dial(gateway, &first_key).await;
    let mut late_second = Peer::dial(gateway, &second_key).await;

    let mut second = Peer::greet(gateway, &second_key).await;
    assert_eq!(first.closed().await, CloseCode::SUPERSEDED);
    rotate(&bench).await;
    let third_key = new_key(&mut second).await;
    late_first.send(hello()).await;
    assert_eq!(late_first.closed().await, CloseCode::SUPERSEDED);
    second.alive().await;
    let third = Peer::greet(gateway, &third_key).await;
    assert_eq!(second.closed().await, CloseCode::SUPERSEDED);
    drop(third);
    // Offline is seen at once, and recorded after it.
    let before = bench
        .until(&["device", "show", "board"], |device| {
            device["online"] == false && device["last_disconnect"]["reason"] == "lost"
        })
        .await;
    assert_eq!(before["key_handle"], third_key.handle().to_string());
    assert_eq!(before["key_rotation"], false);
    late_second.send(hello()).await;
    assert_eq!(late_second.closed().await, CloseCode::REKEY);
    let mut after = shown(&bench).await;
    // Its bytes came over the air all the same.
    for field in ["air_bytes", "last_contact"] {
        after[field] = before[field].clone();
    }
    assert_eq!(after, before, "a late Hello changed the record");
}

async fn a_late_hello_never_makes_a_newer_pending_key_current(transport: Transport) {
    let (bench, first_key) = bench(transport).await;
    let gateway = bench.door();
    let mut first = Peer::greet(gateway, &first_key).await;
    rotate(&bench).await;
    let second_key = new_key(&mut first).await;
    let mut late = Peer::dial(gateway, &second_key).await;
    drop(Peer::greet(gateway, &second_key).await);
    bench.offline("board").await;
    // The key that was pending at the handshake is in force by now, and another one is pending.
    rotate(&bench).await;
    late.send(hello()).await;
    // A session that was dialled later has been here: this one comes too late for any change.
    assert_eq!(late.closed().await, CloseCode::SUPERSEDED);
    let device = shown(&bench).await;
    assert_eq!(device["key_handle"], second_key.handle().to_string());
    assert_eq!(device["key_rotation"], true, "{device}");
    let mut peer = Peer::greet(gateway, &second_key).await;
    let third_key = new_key(&mut peer).await;
    assert_ne!(third_key.handle(), second_key.handle());
    drop(Peer::greet(gateway, &third_key).await);
    let device = shown(&bench).await;
    assert_eq!(device["key_handle"], third_key.handle().to_string());
}

async fn key_stored_is_settled_where_the_key_is_in_force_or_unknown_and_only_a_pending_one_rekeys(
    transport: Transport,
) {
    let (bench, first_key) = bench(transport).await;
    let gateway = bench.door();
    let mut peer = Peer::greet(gateway, &first_key).await;
    // In force all along, and never heard of.
    key_stored(&mut peer, 1, &first_key).await;
    settled(&mut peer, 1).await;
    key_stored(&mut peer, 2, &DeviceKey::new([7; 32])).await;
    settled(&mut peer, 2).await;
    rotate(&bench).await;
    let second_key = new_key(&mut peer).await;
    key_stored(&mut peer, 3, &first_key).await;
    settled(&mut peer, 3).await;
    key_stored(&mut peer, 4, &second_key).await;
    assert_eq!(peer.closed().await, CloseCode::REKEY);

    // Under the new key it is in force: settled however often it is said, and the session lasts.
    let mut peer = Peer::greet(gateway, &second_key).await;
    for sequence in [4, 4, 5] {
        key_stored(&mut peer, sequence, &second_key).await;
        settled(&mut peer, sequence).await;
    }
    // The retired one is one that nobody knows.
    key_stored(&mut peer, 6, &first_key).await;
    settled(&mut peer, 6).await;
    peer.alive().await;
    let device = shown(&bench).await;
    assert_eq!(device["key_handle"], second_key.handle().to_string());
    assert_eq!(device["key_rotation"], false, "{device}");
}

/// The next frame, which must be SetGateways: its epoch and its first gateway.
async fn set_gateways(peer: &mut Peer) -> (u32, String) {
    let plaintext = peer.next().await.expect("a list of gateways");
    let set = match GatewayFrame::decode(&plaintext) {
        Ok(GatewayFrame::SetGateways(set)) => set,
        other => panic!("not a list of gateways: {other:?}"),
    };
    let statement = GatewaysStatement::parse(set.statement).unwrap();
    let first = statement.gateways().next().unwrap().to_owned();
    (statement.epoch(), first)
}

async fn a_second_list_of_gateways_is_told_within_the_same_session(transport: Transport) {
    let (bench, key) = bench(transport).await;
    let signer = bench.site.key().to_str().unwrap().to_owned();
    let set = async |gateway: &str| {
        bench
            .json(&["device", "set-gateways", "board", gateway, "--key", &signer])
            .await
    };
    let stored = async |peer: &mut Peer, sequence, epoch| {
        peer.send(GatewaysStored { sequence, epoch }).await;
        settled(peer, sequence).await;
    };
    let mut peer = Peer::greet(bench.door(), &key).await;
    set("one.example:1").await;
    let (one, first) = set_gateways(&mut peer).await;
    assert_eq!(first, "one.example:1");
    stored(&mut peer, 1, one).await;
    assert_eq!(shown(&bench).await["gateways_stored"], true);

    set("two.example:2").await;
    let (two, first) = set_gateways(&mut peer).await;
    assert_eq!(first, "two.example:2");
    assert!(two > one, "{two} after {one}");
    assert_eq!(shown(&bench).await["gateways_stored"], false);
    // A third one before the second was answered: only its own answer counts.
    set("three.example:3").await;
    let (three, first) = set_gateways(&mut peer).await;
    assert_eq!(first, "three.example:3");
    stored(&mut peer, 2, two).await;
    assert_eq!(shown(&bench).await["gateways_stored"], false);
    stored(&mut peer, 3, three).await;
    let device = shown(&bench).await;
    assert_eq!(device["gateways_stored"], true);
    assert_eq!(device["gateways"], serde_json::json!(["three.example:3"]));
    assert_eq!(device["gateways_epoch"], three);
    // What is stored is not told again.
    peer.alive().await;
}

/// Bytes of chunks that came before the gateway had nothing more to send: they must follow each other.
async fn drain(peer: &mut Peer, next: &mut u32) -> u32 {
    let before = *next;
    loop {
        let round = *next;
        peer.send(Ping { nonce: 5 }).await;
        loop {
            let plaintext = peer.next().await.expect("a frame");
            match GatewayFrame::decode(&plaintext).expect("a frame that is known") {
                GatewayFrame::Chunk(chunk) => {
                    assert_eq!(chunk.offset, *next, "out of place");
                    *next += u32::try_from(chunk.bytes.len()).unwrap();
                }
                GatewayFrame::Pong(_) => break,
                other => panic!("neither a chunk nor the pong: {other:?}"),
            }
        }
        // A whole round in which there was room, and nothing came.
        if *next == round {
            return *next - before;
        }
    }
}

/// A board with a window of this many bytes, to which an image of `size` bytes has been offered, and which takes
/// all of the window at once.
async fn transfer(
    bench: &Bench,
    mut peer: Peer,
    size: usize,
    window: u32,
    options: &[&str],
) -> (Peer, String) {
    let image = bench.image("1.0", &random_bytes(1, size)).await;
    let update = bench.push_no_wait("board", &image.name, options).await;
    let mut hello: Hello<'static> = hello();
    hello.components.clear();
    let mut wide = component();
    (wide.window, wide.slot_size) = (window, 1 << 24);
    hello.components.push(wide).unwrap();
    peer.hello(hello).await;
    let (offered, flags) = peer.offer().await;
    assert_eq!(flags & RESTART, 0);
    peer.send(accept(UpdateId::from_hex(&update).unwrap(), 0, nothing()))
        .await;
    assert_eq!(offered.to_string(), update);
    peer.send(Ack {
        committed: 0,
        limit: window,
    })
    .await;
    (peer, update)
}

async fn a_raised_max_bytes_lets_a_joined_push_go_on_in_the_same_session(transport: Transport) {
    let (bench, key) = bench(transport).await;
    let peer = Peer::dial(bench.door(), &key).await;
    let (mut peer, update) =
        transfer(&bench, peer, 60_000, 65_536, &["--max-bytes", "10000"]).await;
    let mut next = 0;
    drain(&mut peer, &mut next).await;
    assert!((10_000..12_000).contains(&next), "paused at {next}");
    let paused = bench.json(&["update", "show", &update]).await;
    assert_eq!(paused["reason"], "max_bytes", "{paused}");
    let waits = paused["waiting_for"].as_str().unwrap();
    assert!(waits.contains("--max-bytes"), "{waits}");
    // An acknowledgement does not lift the pause, and neither does a limit that is reached already.
    peer.send(Ack {
        committed: next,
        limit: 65_536,
    })
    .await;
    assert_eq!(drain(&mut peer, &mut next).await, 0);
    let push = async |most: &str| {
        let image = format!("{}@1.0", support::PRODUCT);
        bench
            .push_no_wait("board", &image, &["--max-bytes", most])
            .await
    };
    assert_eq!(push("9000").await, update);
    assert_eq!(drain(&mut peer, &mut next).await, 0);
    assert_eq!(push("30000").await, update);
    while next < 30_000 {
        drain(&mut peer, &mut next).await;
    }
    assert!(next < 32_000, "{next}");
    assert_eq!(push("1000000").await, update);
    while next < 60_000 {
        drain(&mut peer, &mut next).await;
    }
    let sent = bench.json(&["update", "show", &update]).await;
    assert_eq!(
        (&sent["sent"], &sent["resent"]),
        (&60_000.into(), &0.into()),
        "{sent}"
    );
    assert_eq!(sent["reason"], Value::Null, "{sent}");
    assert_eq!(sent["sessions"], 1, "{sent}");
}

async fn an_image_whose_file_is_missing_is_said_and_added_again_it_is_offered_in_the_same_session(
    transport: Transport,
) {
    let (bench, key) = bench(transport).await;
    let image = bench.image("1.0", &random_bytes(5, 20_000)).await;
    let images = bench.path().join("data/images");
    let file = images.join(&image.digest[..2]).join(&image.digest);
    let mut peer = Peer::greet(bench.door(), &key).await;
    std::fs::remove_file(&file).unwrap();
    let update = bench.push_no_wait("board", &image.name, &[]).await;
    let waits_for = |words: &'static str| {
        move |doc: &Value| {
            let waiting = doc["waiting_for"].as_str();
            waiting.is_some_and(|waiting| waiting.contains(words))
        }
    };
    let shown = bench
        .until(
            &["update", "show", &update],
            waits_for("cannot read its image testboard@1.0 (its file is missing)"),
        )
        .await;
    assert_eq!(shown["state"], "queued", "{shown}");
    let status = bench.json(&["status"]).await;
    let problem = status["images_problem"].as_str().unwrap();
    assert!(problem.contains("1 update waits"), "{problem}");

    // A file that is not whole is no image either.
    std::fs::write(&file, &image.bytes[..100]).unwrap();
    bench.json(&["hold", "board"]).await;
    bench.json(&["release", "board"]).await;
    bench
        .until(
            &["update", "show", &update],
            waits_for("its file has 100 bytes, and it has 20000"),
        )
        .await;

    let added = bench
        .json(&["image", "add", image.signed.to_str().unwrap()])
        .await;
    assert_eq!(added["existed"], true, "{added}");
    let (offered, _) = peer.offer().await;
    assert_eq!(offered.to_string(), update);
    bench
        .until(&["status"], |status| status["images_problem"].is_null())
        .await;
    bench
        .until(&["update", "show", &update], waits_for("answer the offer"))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_stops_a_delivery_in_the_middle_of_its_window() {
    const SIZE: u32 = 8_000_000;
    let (bench, key) = bench(Transport::Tcp).await;
    // The board reads nothing at first, so that most of its window is still to be sent.
    let peer = Peer::dial_narrow(bench.site.listen(), &key).await;
    let (mut peer, update) = transfer(&bench, peer, SIZE as usize, SIZE, &[]).await;
    let mut next = 0;
    let (offset, len) = peer.chunk().await;
    assert_eq!(offset, 0);
    next += u32::try_from(len).unwrap();
    bench.json(&["hold", "board"]).await;
    drain(&mut peer, &mut next).await;
    assert!(next < SIZE, "the hold stopped nothing");
    let held = bench.json(&["update", "show", &update]).await;
    assert!(
        held["waiting_for"]
            .as_str()
            .unwrap()
            .contains("dialhome release board"),
        "{held}"
    );
    // What the board says is heard, and nothing follows from it.
    let half = next / 2;
    peer.send(Ack {
        committed: half,
        limit: SIZE,
    })
    .await;
    assert_eq!(drain(&mut peer, &mut next).await, 0);
    bench
        .until(&["update", "show", &update], |update| {
            update["committed"] == half
        })
        .await;

    bench.json(&["release", "board"]).await;
    let stopped = next;
    while next == stopped {
        drain(&mut peer, &mut next).await;
    }
    // Held again, and asked for bytes anew: they come when it is released, and are counted.
    bench.json(&["hold", "board"]).await;
    drain(&mut peer, &mut next).await;
    let reached = next;
    peer.send(Nack {
        offset: half,
        reason: dialhome_proto::code::Reason::CRC,
    })
    .await;
    next = half;
    assert_eq!(drain(&mut peer, &mut next).await, 0);
    bench.json(&["release", "board"]).await;
    while next < SIZE {
        drain(&mut peer, &mut next).await;
    }
    let sent = bench
        .until(&["update", "show", &update], |update| {
            update["sent"] == SIZE + reached - half
        })
        .await;
    assert_eq!(sent["resent"], reached - half, "{sent}");
    assert_eq!(
        (&sent["sessions"], &sent["state"]),
        (&1.into(), &"transferring".into())
    );
}

/// Nothing has moved for so long: the gateway has stopped to listen. A machine that only stands still makes the
/// test weaker, never wrong.
const QUIET: Duration = Duration::from_secs(3);

/// More than all buffers of two sockets together.
const FLOOD: usize = 64 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_board_that_never_reads_is_not_heard_and_costs_little() {
    let (mut bench, key) = bench(Transport::Tcp).await;
    bench.board("bystander", Faults::default(), BOARD).await;
    bench.online("bystander").await;
    let memory = |bench: &mut Bench| {
        let gateway = bench.site.gateway().and_then(|gateway| gateway.id());
        let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.unwrap()));
        let status = status.unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let mut peer = Peer::dial_narrow(bench.site.listen(), &key).await;
    peer.hello(hello()).await;
    let before = memory(&mut bench);

    let (mut pings, mut written) = (0_usize, 0);
    let mut pending = Vec::new();
    let blocked = 'flood: loop {
        while pending.len() < 16 * 1024 {
            let mut plaintext = [0; 8];
            let ping = DeviceFrame::from(Ping {
                nonce: pings.to_le_bytes()[0],
            });
            let len = ping.encode(&mut plaintext).unwrap();
            pending.extend(peer.seal(&plaintext[..len]));
            pings += 1;
        }
        while !pending.is_empty() {
            if timeout(QUIET, peer.stream.tcp().writable()).await.is_err() {
                break 'flood true;
            }
            if let Ok(len) = peer.stream.tcp().try_write(&pending) {
                pending.drain(..len);
                written += len;
            }
        }
        if written > FLOOD {
            break false;
        }
    };
    assert!(
        blocked,
        "{written} bytes were heard, and no answer was read"
    );
    let grown = memory(&mut bench).saturating_sub(before);
    assert!(
        grown < 8 * 1024,
        "{written} bytes cost the gateway {grown} KiB"
    );
    // Others are served meanwhile.
    let image = bench.image("1.0", &random_bytes(1, 30_000)).await;
    bench.push("bystander", &image.name, &[]).await.confirmed();

    // Nothing is lost: once it reads, each ping has its pong, in order.
    let (mut read, mut write) = peer.stream.tcp().split();
    let records = &mut peer.records;
    let answers = async {
        for ping in 0..pings {
            let mut record = [0; 20];
            timeout(PATIENCE, read.read_exact(&mut record))
                .await
                .expect("a pong in time")
                .expect("a pong");
            let plaintext = records.open(&mut SoftAead, &mut record[2..]).unwrap();
            let nonce = ping.to_le_bytes()[0];
            assert!(
                matches!(GatewayFrame::decode(plaintext), Ok(GatewayFrame::Pong(pong)) if pong.nonce == nonce),
                "pong {ping}"
            );
        }
    };
    let (rest, ()) = tokio::join!(write.write_all(&pending), answers);
    rest.unwrap();
    eprintln!("{pings} pings, {written} bytes before it stopped, {grown} KiB");
    peer.alive().await;
}
