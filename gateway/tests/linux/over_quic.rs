//! The agent's choice between QUIC and TCP, with a real gateway and nothing between them.

use std::time::{Duration, Instant};

use crate::support::{BOARD, Bench, PATIENCE, random_bytes};

const ID: &str = "board";

/// A board that dials the gateway itself, and has this in `[agent]`; its agent does not run yet.
async fn bench(choice: &str) -> Bench {
    let mut bench = Bench::start().await;
    let settings = BOARD.replace("[agent]\n", &format!("[agent]\nquic = \"{choice}\"\n"));
    let gateway = bench.site.listen().to_string();
    bench.add_board_at(ID, &gateway, &settings).await;
    bench
}

/// The gateway that the board was provisioned for, started again without QUIC.
async fn without_quic(bench: &mut Bench) {
    bench.kill_gateway().await;
    bench.site.serve_with(&["--quic", "off"]);
    bench.start_gateway().await;
}

/// An update from its first byte to its end, over this transport.
async fn updates(bench: &mut Bench, transport: &str) {
    bench.start_agent(ID);
    let device = bench.online(ID).await;
    assert_eq!(device["transport"], transport, "{device}");
    let image = bench.image("1.0", &random_bytes(1, 700_001)).await;
    bench.push(ID, &image.name, &[]).await.confirmed();
    assert_eq!(bench.installed(ID), Some(image.bytes));
    let device = bench.online(ID).await;
    assert_eq!(device["transport"], transport, "{device}");
}

/// Waits until the agent's log says this.
async fn logged(bench: &Bench, text: &str) -> String {
    let end = Instant::now() + PATIENCE;
    loop {
        let log = std::fs::read_to_string(bench.site.log(ID)).unwrap();
        if let Some(line) = log.lines().find(|line| line.contains(text)) {
            return line.to_owned();
        }
        assert!(Instant::now() < end, "no {text:?} in {log}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What the board remembers of its network.
fn remembered(bench: &Bench) -> String {
    let file = bench.path().join("boards").join(ID).join("state/networks");
    std::fs::read_to_string(file).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_over_quic_ends_confirmed() {
    let mut bench = bench("prefer").await;
    updates(&mut bench, "quic").await;
    logged(&bench, "over QUIC").await;
    let text = remembered(&bench);
    assert!(text.lines().nth(1).unwrap().starts_with("0 "), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_without_quic_is_reached_over_tcp() {
    let mut bench = bench("prefer").await;
    without_quic(&mut bench).await;
    updates(&mut bench, "tcp").await;
    logged(
        &bench,
        "QUIC did not come up: nobody listens on that UDP port",
    )
    .await;
    let text = remembered(&bench);
    assert!(text.lines().nth(1).unwrap().starts_with("1 "), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_only_quic_will_do_nothing_else_does() {
    let mut bench = bench("only").await;
    without_quic(&mut bench).await;
    bench.start_agent(ID);
    let line = logged(&bench, "not connected").await;
    assert!(line.contains("QUIC: nobody listens"), "{line}");
    let device = bench.json(&["device", "show", ID]).await;
    assert_eq!(device["online"], false, "{device}");
    assert_eq!(device["transport"], serde_json::Value::Null, "{device}");

    // The gateway has QUIC again, with the key that it had: the board finds it by itself.
    bench.kill_gateway().await;
    bench.site.serve_with(&[]);
    bench.start_gateway().await;
    let device = bench.online(ID).await;
    assert_eq!(device["transport"], "quic", "{device}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_with_another_key_than_the_pinned_is_named_and_reached_over_tcp() {
    let mut bench = bench("prefer").await;
    let config = bench.path().join("boards").join(ID).join("agent.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let line = text.lines().find(|line| line.starts_with("pins = "));
    let line = line.unwrap_or_else(|| panic!("no pins in {text}"));
    let wrong = format!("pins = [\"{}\"]", "5a".repeat(32));
    std::fs::write(&config, text.replace(line, &wrong)).unwrap();
    bench.start_agent(ID);
    let device = bench.online(ID).await;
    assert_eq!(device["transport"], "tcp", "{device}");
    let line = logged(&bench, "wrong_pin").await;
    assert!(line.contains("WARN"), "{line}");
}
