//! `dialhome device check`: boards that answer, answer late, not at all, or die in the middle.

mod support;

use dialhome_gateway::demo::relay::{Action, Cut, Direction, Faults};
use dialhome_gateway::demo::site::Outcome;
use dialhome_proto::code::ByeReason;
use dialhome_proto::frame::{Bye, GatewayFrame, Pong};
use dialhome_proto::link::DeviceKey;
use serde_json::Value;
use support::peer::{Peer, key_of};
use support::{BOARD, Bench, PATIENCE, Transport, random_bytes};
use tokio::task::JoinHandle;
use tokio::time::timeout;

support::over_both! {
    an_idle_board_answers_every_ping_and_the_check_says_all_that_is_known,
    pings_into_a_mapping_that_has_vanished_are_lost,
    answers_that_come_late_are_lost_and_counted_as_late,
    a_board_that_dies_in_the_middle_ends_the_check_at_once,
    one_check_of_a_device_at_a_time_and_none_of_one_that_sleeps,
    a_check_within_a_transfer_says_so_and_the_transfer_goes_on,
}

/// Says nothing of its own accord for longer than any test takes.
const QUIET: &str = r#"
[agent]
ping_s = 600
link = "lte"
network = "carrier.example"

[reconnect]
first_ms = 20
max_ms = 200
"#;

/// A Ping or a Pong as a record, in bytes.
fn record(transport: Transport) -> u64 {
    match transport {
        Transport::Tcp => 2 + 2 + 16,
        // QUIC has the tag.
        Transport::Quic => 2 + 2,
    }
}

/// A gateway, and the key of a board that only this test plays.
async fn bench(transport: Transport) -> (Bench, DeviceKey) {
    let mut bench = Bench::start_over(transport).await;
    let board = bench.add_board("board", Faults::default(), BOARD).await;
    let key = key_of(&board.config);
    (bench, key)
}

/// Begins a check that the test plays the board for.
fn checking(bench: &Bench, options: &[&str]) -> JoinHandle<Outcome> {
    let cli = bench.cli();
    let mut args = vec!["device", "check", "board"];
    args.extend(options);
    let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
    tokio::spawn(async move { cli.run(&args).await.expect("the command runs") })
}

async fn ended(checking: JoinHandle<Outcome>) -> Outcome {
    let ended = timeout(PATIENCE, checking).await;
    ended.expect("the check ends").expect("the command ends")
}

/// The nonce of the gateway's next Ping.
async fn pinged(peer: &mut Peer) -> u8 {
    let plaintext = peer.next().await.expect("a ping");
    match GatewayFrame::decode(&plaintext) {
        Ok(GatewayFrame::Ping(ping)) => ping.nonce,
        other => panic!("not a ping: {other:?}"),
    }
}

fn refused(outcome: &Outcome, code: &str, words: &str) {
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert_eq!(outcome.json["error"]["code"], code, "{outcome:?}");
    let message = outcome.json["error"]["message"].as_str().unwrap();
    assert!(message.contains(words), "no \"{words}\" in: {message}");
}

async fn an_idle_board_answers_every_ping_and_the_check_says_all_that_is_known(
    transport: Transport,
) {
    let mut bench = Bench::start_over(transport).await;
    bench.add_board("board", Faults::default(), QUIET).await;
    let never = bench.run(&["device", "check", "board"]).await;
    refused(&never, "not_online", "it has never dialed home");
    let nobody = bench.run(&["device", "check", "nobody"]).await;
    refused(&nobody, "not_found", "nobody");
    bench.start_agent("board");
    bench.online("board").await;
    let before = bench.json(&["device", "show", "board"]).await;
    for count in [10, 100] {
        let number = count.to_string();
        let check = bench
            .json(&["device", "check", "board", "--count", &number])
            .await;
        for field in ["pings", "sent", "answered"] {
            assert_eq!(check[field], count, "{field}: {check}");
        }
        assert_eq!((&check["lost"], &check["late"]), (&0.into(), &0.into()));
        let times: Vec<f64> = ["min_ms", "median_ms", "p99_ms", "max_ms"]
            .iter()
            .map(|field| check[field].as_f64().unwrap())
            .collect();
        assert!(times.is_sorted() && times[0] > 0.0, "{check}");
        assert_eq!(check["round_trips_ms"].as_array().unwrap().len(), count);
        let bytes = record(transport) * count as u64;
        assert_eq!(check["air_bytes"]["sent"], bytes);
        assert_eq!(check["air_bytes"]["received"], bytes);
        assert_eq!(check["link"], "lte");
        assert_eq!(check["network"], "carrier.example");
        assert_eq!(check["signal_dbm"], Value::Null);
        assert_eq!(check["peer"], before["peer"]);
        assert_eq!(check["in_transfer"], false);
        assert_eq!(check["ended"], Value::Null);
        assert_eq!(check["last_disconnect"], Value::Null);
    }
    match transport {
        Transport::Tcp => {
            bench.kill_agent("board").await;
            // Offline is seen at once, and recorded after it.
            bench
                .until(&["device", "show", "board"], |device| {
                    device["last_disconnect"]["reason"] == "lost"
                })
                .await;
            let gone = bench.run(&["device", "check", "board"]).await;
            refused(
                &gone,
                "not_online",
                "Device board is offline: its last session ended at ",
            );
            bench.start_agent("board");
            bench.online("board").await;
        }
        // Nobody tells the gateway that the process is no more: the next one takes its place.
        Transport::Quic => drop(bench.restart_agent("board").await),
    }
    let back = bench.json(&["device", "check", "board"]).await;
    // A session whose place another one took has not been disconnected.
    let reason = match transport {
        Transport::Tcp => Value::from("lost"),
        Transport::Quic => Value::Null,
    };
    assert_eq!(back["last_disconnect"]["reason"], reason, "{back}");
    assert_eq!(back["answered"], 10, "{back}");
}

async fn pings_into_a_mapping_that_has_vanished_are_lost(transport: Transport) {
    let mut bench = Bench::start_over(transport).await;
    bench.board("board", Faults::default(), QUIET).await;
    // What the session began with has passed when a ping is answered.
    bench
        .json(&["device", "check", "board", "--count", "1"])
        .await;
    let relay = bench.relay("board");
    // A Ping alone in a datagram has some 25 bytes around it, and so have acknowledgements alone.
    let (third, few) = match transport {
        Transport::Tcp => (3 * record(transport), 2..=3),
        Transport::Quic => (100, 1..=4),
    };
    relay.arm(Direction::ToBoard, third, Action::Cut(Cut::Silent));
    let check = bench
        .json(&["device", "check", "board", "--count", "6", "--within", "1s"])
        .await;
    // The last one that passed may have lost its answer.
    let answered = check["answered"].as_u64().unwrap();
    assert!(few.contains(&answered), "{check}");
    assert_eq!(check["sent"], 6, "{check}");
    assert_eq!(check["lost"], 6 - answered, "{check}");
    let none = bench
        .run(&["device", "check", "board", "--count", "2", "--within", "1s"])
        .await;
    assert_eq!(none.code, Some(1), "{none:?}");
    assert_eq!(none.json["lost"], 2, "{none:?}");
    assert_eq!(none.json["median_ms"], Value::Null, "{none:?}");
}

async fn answers_that_come_late_are_lost_and_counted_as_late(transport: Transport) {
    let (bench, key) = bench(transport).await;
    let mut peer = Peer::greet(bench.door(), &key).await;
    let checking = checking(&bench, &["--count", "3", "--within", "1s"]);
    let first = pinged(&mut peer).await;
    // The second comes when the time of the first is up.
    let second = pinged(&mut peer).await;
    for nonce in [first, second, second.wrapping_add(100)] {
        peer.send(Pong { nonce }).await;
    }
    let third = pinged(&mut peer).await;
    assert_eq!(third, second.wrapping_add(1));
    peer.send(Pong { nonce: third }).await;
    let outcome = ended(checking).await;
    let check = &outcome.json;
    assert_eq!(check["sent"], 3, "{check}");
    assert_eq!(check["answered"], 2, "{check}");
    assert_eq!(check["lost"], 1, "{check}");
    assert!(check["late"].as_u64().unwrap() >= 1, "{check}");
    // Pongs that nobody asked for change nothing.
    for nonce in 0..100 {
        peer.send(Pong { nonce }).await;
    }
    peer.alive().await;
}

async fn a_board_that_dies_in_the_middle_ends_the_check_at_once(transport: Transport) {
    let (bench, key) = bench(transport).await;
    let mut peer = Peer::greet(bench.door(), &key).await;
    let checking = checking(&bench, &["--count", "50", "--within", "30s"]);
    for _ in 0..2 {
        let nonce = pinged(&mut peer).await;
        peer.send(Pong { nonce }).await;
    }
    pinged(&mut peer).await;
    drop(peer);
    let outcome = ended(checking).await;
    let check = &outcome.json;
    assert_eq!(check["ended"], "lost", "{check}");
    assert_eq!((&check["sent"], &check["answered"]), (&3.into(), &2.into()));
    bench.offline("board").await;
}

async fn one_check_of_a_device_at_a_time_and_none_of_one_that_sleeps(transport: Transport) {
    let (bench, key) = bench(transport).await;
    let mut peer = Peer::greet(bench.door(), &key).await;
    let first = checking(&bench, &["--count", "1", "--within", "30s"]);
    let nonce = pinged(&mut peer).await;
    let second = ended(checking(&bench, &[])).await;
    refused(
        &second,
        "asked_already",
        "A check of device board is under way",
    );
    peer.send(Pong { nonce }).await;
    assert_eq!(ended(first).await.json["answered"], 1);
    peer.send(Bye {
        reason: ByeReason::SLEEP,
        back_in_s: 3600,
    })
    .await;
    bench.offline("board").await;
    let asleep = ended(checking(&bench, &[])).await;
    refused(
        &asleep,
        "not_online",
        "Device board is asleep, and back in about 3",
    );
    for wrong in [["--count", "0"], ["--count", "101"], ["--within", "31s"]] {
        let outcome = ended(checking(&bench, &wrong)).await;
        assert!(matches!(outcome.code, Some(1 | 2)), "{outcome:?}");
    }
}

async fn a_check_within_a_transfer_says_so_and_the_transfer_goes_on(transport: Transport) {
    let mut bench = Bench::start_over(transport).await;
    let image = bench.image("1.0", &random_bytes(1, 400_000)).await;
    let faults = Faults {
        rate: Some(200_000),
        ..Faults::default()
    };
    bench.board("board", faults, BOARD).await;
    let update = bench.push_no_wait("board", &image.name, &[]).await;
    bench
        .until(&["update", "show", &update], |update| {
            update["committed"].as_u64() > Some(0)
        })
        .await;
    let check = bench
        .json(&[
            "device", "check", "board", "--count", "3", "--within", "30s",
        ])
        .await;
    assert_eq!(check["in_transfer"], true, "{check}");
    assert_eq!(check["answered"], 3, "{check}");
    let update = bench.reaches(&update, "confirmed").await;
    assert_eq!(update["resent"], 0, "{update}");
    assert_eq!(update["sessions"], 2, "{update}");
}
