//! Longer texts: the output of what failed on a board, with its update; and a board's own log.

mod support;

use dialhome_gateway::demo::relay::{Cut, Direction, Faults};
use dialhome_gateway::demo::site::Outcome;
use dialhome_proto::code::{Reason, Statement};
use dialhome_proto::device::TASK_LOG;
use dialhome_proto::frame::{
    DeviceFrame, GatewayFrame, Hello, LogPart, Output, ReadLog, Report, Unsupported,
};
use dialhome_proto::id::UpdateId;
use dialhome_proto::link::DeviceKey;
use serde_json::Value;
use support::peer::{Peer, hello, key_of};
use support::{BOARD, Bench, Events, PATIENCE, Transport, random_bytes};
use tokio::task::JoinHandle;
use tokio::time::timeout;

support::over_both! {
    what_a_failed_command_printed_comes_with_the_outcome_through_cuts_and_kills,
    parts_that_are_missing_repeated_or_nobody_s_end_no_session,
    the_log_of_a_real_board_holds_its_own_lines_and_those_of_its_commands_and_no_key,
    a_log_that_is_read_within_a_transfer_holds_nothing_up,
    a_board_that_does_not_give_its_log_away_is_told_in_words,
    parts_of_a_log_come_in_any_order_once_and_for_one_request_at_a_time,
}

/// Installs nothing: it prints 300 lines, and fails; what the old image was, it brings back.
const FAILING: &str = r#"
[agent]
ping_s = 5
window = 32768

[reconnect]
first_ms = 20
max_ms = 200

[install]
command = ["sh", "-c", "test -z \"$DIALHOME_VERSION\" && exit 0; test \"$DIALHOME_VERSION\" = 1.0 && exit 0; for i in $(seq 300); do echo \"avrdude: line $i of the output, größer als null\"; done; exit 7"]
"#;

/// A gateway, and the key of a board that only this test plays.
async fn bench(transport: Transport) -> (Bench, DeviceKey) {
    let mut bench = Bench::start_over(transport).await;
    let board = bench.add_board("board", Faults::default(), BOARD).await;
    let key = key_of(&board.config);
    (bench, key)
}

/// A board whose configuration allows its log to be read.
fn open_hello() -> Hello<'static> {
    let mut hello = hello();
    hello.tasks = 0b11 | TASK_LOG;
    hello
}

fn checked_output(update: &Value) {
    let output = update["output"]
        .as_str()
        .unwrap_or_else(|| panic!("no output: {update:#}"));
    assert!(output.len() <= 6144, "{} bytes", output.len());
    assert!(output.len() > 4000, "{output}");
    assert!(output.contains("install ended with code 7\n"), "{output}");
    let last: Vec<&str> = output.lines().rev().take(50).collect();
    for (at, line) in (251..=300).rev().zip(last) {
        let expected = format!("avrdude: line {at} of the output, größer als null");
        assert_eq!(line, expected, "{output}");
    }
}

/// The output goes over a link that is cut in the middle of its parts, from an agent that is killed
/// after the outcome, to a gateway that is killed as well.
async fn what_a_failed_command_printed_comes_with_the_outcome_through_cuts_and_kills(
    transport: Transport,
) {
    let mut bench = Bench::start_over(transport).await;
    let first = bench.image("1.0", &random_bytes(1, 20_000)).await;
    let second = bench.image("2.0", &random_bytes(2, 20_000)).await;
    bench.board("board", Faults::default(), FAILING).await;
    bench.push("board", &first.name, &[]).await.confirmed();
    let mut events = Events::follow(&bench.cli());
    let update = bench.push_no_wait("board", &second.name, &[]).await;
    // Hello, Progress, Acks and Reports are some hundreds of bytes, the parts thousands.
    bench
        .until(&["update", "show", &update], |update| {
            update["state"] == "activating" || update["state"] == "reverted"
        })
        .await;
    for bytes in [2_500, 6_000, 9_000] {
        bench
            .relay("board")
            .cut_after_bytes(Direction::ToGateway, bytes);
    }
    let update = bench.reaches(&update, "reverted").await;
    assert_eq!(update["reason"], "install_failed", "{update}");
    checked_output(&update);
    let event = events.wait(|event| event["type"] == "update.output").await;
    assert_eq!(event["update"], update["update"]);
    assert_eq!(
        event["to"],
        "avrdude: line 300 of the output, größer als null"
    );
    bench.relay("board").disarm();
    // The next one fails while the gateway is gone, and the agent with it.
    let third = bench.image("3.0", &random_bytes(3, 20_000)).await;
    bench.relay("board").arm(
        Direction::ToGateway,
        1_500,
        dialhome_gateway::demo::relay::Action::Cut(Cut::Reset),
    );
    let update = bench.push_no_wait("board", &third.name, &[]).await;
    bench
        .until(&["update", "show", &update], |update| {
            update["state"] != "queued" && update["state"] != "offered"
        })
        .await;
    bench.kill_gateway().await;
    bench.kill_agent("board").await;
    bench.start_gateway().await;
    bench.start_agent("board");
    let update = bench.reaches(&update, "reverted").await;
    checked_output(&update);
    let shown = bench.cli();
    let id = update["update"].as_str().unwrap();
    let mut command = shown.command(&["update", "show", id]);
    let printed = command.output().await.unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(
        printed.contains("install ended with code 7"),
        "--json is not the only way: {printed}"
    );
}

fn output(sequence: u32, part: u8, parts: u8, text: &str) -> Output<'_> {
    Output {
        sequence,
        part,
        parts,
        text,
    }
}

fn failed(sequence: u32, update: UpdateId) -> Report<'static> {
    Report {
        sequence,
        update,
        component: 0,
        state: Statement::FAILED,
        reason: Reason::INSTALL_FAILED,
        detail: "no such part",
    }
}

async fn settled(peer: &mut Peer, sequence: u32) {
    peer.expect(
        |frame| matches!(frame, GatewayFrame::Settled(settled) if settled.sequence == sequence),
    )
    .await;
}

async fn parts_that_are_missing_repeated_or_nobody_s_end_no_session(transport: Transport) {
    let (bench, key) = bench(transport).await;
    let image = bench.image("1.0", &random_bytes(1, 20_000)).await;
    let mut peer = Peer::greet(bench.door(), &key).await;
    let id = bench.push_no_wait("board", &image.name, &[]).await;
    let (update, _) = peer.offer().await;
    let long = "x".repeat(900);
    for (sequence, part, parts, text) in [
        (4, 1, 1, "of a sequence that never comes"),
        (5, 0, 3, "no part"),
        (5, 9, 9, "too many"),
        (5, 200, 255, "far too many"),
        (5, 3, 4, "three\n"),
        (5, 1, 4, "wrong\n"),
        (5, 1, 4, "one\x1b[2J\n"),
        (5, 4, 4, &*long),
        (6, 0, 0, ""),
    ] {
        // The last one puts all of it aside, and is nobody's either.
        peer.send(output(sequence, part, parts, text)).await;
        peer.alive().await;
    }
    for part in [3, 1, 4, 4] {
        let text = format!("part {part}\n");
        peer.send(output(5, part, 4, &text)).await;
    }
    peer.send(failed(5, update)).await;
    settled(&mut peer, 5).await;
    let shown = bench.json(&["update", "show", &id]).await;
    assert_eq!(shown["state"], "failed");
    assert_eq!(shown["detail"], "no such part");
    let expected = "part 1\n\n[part 2 of 4 is missing]\npart 3\npart 4\n";
    assert_eq!(shown["output"], expected);
    // Restated, it is settled again; an output that comes now takes the old one's place.
    peer.send(output(5, 1, 1, "all of it\n")).await;
    peer.send(failed(5, update)).await;
    settled(&mut peer, 5).await;
    let shown = bench.json(&["update", "show", &id]).await;
    assert_eq!(shown["output"], "all of it\n");
    // Without an output, and for an update that nobody knows, or of another device.
    peer.send(failed(5, update)).await;
    settled(&mut peer, 5).await;
    peer.send(output(6, 1, 1, "of an unknown update")).await;
    peer.send(failed(6, UpdateId([0xAB; 8]))).await;
    settled(&mut peer, 6).await;
    let shown = bench.json(&["update", "show", &id]).await;
    assert_eq!(shown["output"], "all of it\n");
    let listed = bench.json(&["device", "log", "board"]).await;
    let outputs = listed["items"].as_array().unwrap().iter();
    assert_eq!(
        outputs
            .filter(|event| event["type"] == "update.output")
            .count(),
        2,
        "{listed:#}"
    );
    peer.alive().await;
}

/// Begins to read the log of a board that the test plays.
fn reading(bench: &Bench) -> JoinHandle<Outcome> {
    let cli = bench.cli();
    tokio::spawn(async move {
        let args = ["logs", "board", "--lines", "7"];
        cli.run(&args).await.expect("the command runs")
    })
}

async fn ended(reading: JoinHandle<Outcome>) -> Outcome {
    let ended = timeout(PATIENCE, reading).await;
    ended.expect("it ends").expect("the command ends")
}

async fn asked(peer: &mut Peer) -> ReadLog {
    let plaintext = peer.next().await.expect("a request");
    match GatewayFrame::decode(&plaintext) {
        Ok(GatewayFrame::ReadLog(read)) => read,
        other => panic!("not a request for the log: {other:?}"),
    }
}

fn refused(outcome: &Outcome, code: &str) {
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert_eq!(outcome.json["error"]["code"], code, "{outcome:?}");
}

async fn the_log_of_a_real_board_holds_its_own_lines_and_those_of_its_commands_and_no_key(
    transport: Transport,
) {
    let mut bench = Bench::start_over(transport).await;
    let image = bench.image("1.0", &random_bytes(1, 20_000)).await;
    let settings = FAILING.replace(
        "exit 0; for i",
        "echo installs 1.0 && cat FOLDER/agent.toml && exit 0; for i",
    );
    assert_ne!(settings, FAILING);
    let board = bench.board("board", Faults::default(), &settings).await;
    bench.push("board", &image.name, &[]).await.confirmed();
    let logs = bench.json(&["logs", "board", "--lines", "1000"]).await;
    assert_eq!(logs["whole"], true, "{logs:#}");
    let lines: Vec<&str> = logs["lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line.as_str().unwrap())
        .collect();
    let has = |words: &str| lines.iter().any(|line| line.contains(words));
    assert!(has("session online=true"), "{lines:#?}");
    assert!(has("installs 1.0"), "{lines:#?}");
    let text = std::fs::read_to_string(&board.config).unwrap();
    let key = text
        .lines()
        .find_map(|line| line.strip_prefix("key = \""))
        .unwrap();
    assert!(!has(key.trim_end_matches('"')), "{lines:#?}");
    let two = bench.json(&["logs", "board", "--lines", "2"]).await;
    assert_eq!(two["lines"].as_array().unwrap().len(), 2, "{two:#}");
    // Over a link that is cut in the middle it says so, and the next request is answered. QUIC goes on.
    let relay = bench.relay("board");
    relay.cut_after_bytes(Direction::ToGateway, 900);
    let cut = bench.run(&["logs", "board", "--lines", "1000"]).await;
    let whole = cut.json["whole"] == Value::Bool(true);
    assert_eq!(whole, transport == Transport::Quic, "{cut:?}");
    bench.online("board").await;
    bench.json(&["logs", "board"]).await;
}

async fn a_log_that_is_read_within_a_transfer_holds_nothing_up(transport: Transport) {
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
    for _ in 0..3 {
        let logs = bench.json(&["logs", "board"]).await;
        assert_eq!(logs["whole"], true, "{logs:#}");
    }
    let update = bench.reaches(&update, "confirmed").await;
    assert_eq!(update["resent"], 0, "{update}");
    assert_eq!(update["sessions"], 2, "{update}");
}

async fn a_board_that_does_not_give_its_log_away_is_told_in_words(transport: Transport) {
    let (mut bench, key) = bench(transport).await;
    // Its Hello does not allow it: nothing is asked.
    let mut peer = Peer::greet(bench.door(), &key).await;
    let refusal = ended(reading(&bench)).await;
    refused(&refusal, "log_not_allowed");
    peer.alive().await;
    drop(peer);
    bench.offline("board").await;
    refused(&ended(reading(&bench)).await, "not_online");
    // It allows it, and does not know the frame.
    let mut peer = Peer::greet_as(bench.door(), &key, open_hello()).await;
    let unknown = reading(&bench);
    let read = asked(&mut peer).await;
    let number = GatewayFrame::from(read).number();
    peer.send(Unsupported { number }).await;
    refused(&ended(unknown).await, "log_not_allowed");
    drop(peer);
    let settings = BOARD.replace("[agent]", "[agent]\nremote_log = false");
    bench.board("silent", Faults::default(), &settings).await;
    let silent = bench.run(&["logs", "silent"]).await;
    refused(&silent, "log_not_allowed");
}

async fn parts_of_a_log_come_in_any_order_once_and_for_one_request_at_a_time(transport: Transport) {
    let (bench, key) = bench(transport).await;
    let mut peer = Peer::greet_as(bench.door(), &key, open_hello()).await;
    let first = reading(&bench);
    let read = asked(&mut peer).await;
    assert_eq!((read.lines, read.bytes), (7, 6144));
    let second = ended(reading(&bench)).await;
    refused(&second, "asked_already");
    let part = |request: u8, part: u8, parts: u8, text: &'static str| LogPart {
        request,
        part,
        parts,
        text,
    };
    for log in [
        part(read.request.wrapping_add(1), 1, 1, "of another request\n"),
        part(read.request, 9, 9, "too many\n"),
        part(read.request, 2, 2, "two\n"),
        part(read.request, 2, 2, "two\n"),
        part(read.request, 1, 2, "one\n"),
    ] {
        peer.send(DeviceFrame::from(log)).await;
    }
    let outcome = ended(first).await;
    assert_eq!(outcome.json["lines"], serde_json::json!(["one", "two"]));
    assert_eq!(outcome.json["whole"], true);
    // Nothing is an answer; what comes unasked is nobody's.
    let third = reading(&bench);
    let read = asked(&mut peer).await;
    peer.send(part(read.request, 0, 0, "")).await;
    let outcome = ended(third).await;
    assert_eq!(outcome.json["lines"], serde_json::json!([]), "{outcome:?}");
    for _ in 0..50 {
        peer.send(part(read.request, 1, 1, "unasked\n")).await;
    }
    peer.alive().await;
    // Half of it, and then nobody: what came is shown, and that it is not all.
    let fourth = reading(&bench);
    let read = asked(&mut peer).await;
    peer.send(part(read.request, 1, 2, "one\n")).await;
    peer.alive().await;
    drop(peer);
    let outcome = ended(fourth).await;
    assert_eq!(outcome.json["whole"], false, "{outcome:?}");
    assert_eq!(outcome.json["ended"], "lost", "{outcome:?}");
    assert_eq!(outcome.json["lines"][0], "one", "{outcome:?}");
}
