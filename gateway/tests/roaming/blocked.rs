//! A network that lets no UDP through: the agent falls back to TCP, remembers it, and tries again when that is old.

use serde_json::Value;

use crate::moves::Roaming;
use crate::support::random_bytes;

/// QUIC has two fifths of the time for a dial before TCP is tried.
const SETTINGS: &str =
    "[agent]\nquic = \"prefer\"\nconnect_ms = 5000\n\n[reconnect]\nfirst_ms = 20\nmax_ms = 200\n";

async fn device(roaming: &Roaming) -> Value {
    roaming.bench.online("board").await
}

/// What the agent has noted of networks, all of it made so many seconds older.
fn grow_older(roaming: &Roaming, seconds: u64) {
    let file = roaming.bench.path().join("boards/board/state/networks");
    let text = std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let (header, entries) = text.split_once('\n').expect("a header");
    let mut older = format!("{header}\n");
    for entry in entries.lines() {
        // FAILURES SECONDS GATEWAY NETWORK
        let (failures, rest) = entry.split_once(' ').expect("an entry");
        let (noted, rest) = rest.split_once(' ').expect("when it was noted");
        let noted: u64 = noted.parse().expect("a number");
        assert_ne!(failures, "0", "no failure was noted: {text}");
        older.push_str(&format!("{failures} {} {rest}\n", noted - seconds));
    }
    std::fs::write(file, older).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_udp_the_agent_falls_back_to_tcp_remembers_it_and_tries_again_a_day_later() {
    let mut roaming = Roaming::prepare(SETTINGS).await;
    roaming.network.block_udp();
    roaming.bench.start_agent("board");
    assert_eq!(device(&roaming).await["transport"], "tcp");
    let tried = roaming.network.udp_tried();
    assert!(tried > 0, "QUIC was not tried");
    let image = roaming.bench.image("1.0", &random_bytes(1, 100_000)).await;
    roaming
        .bench
        .push("board", &image.name, &[])
        .await
        .confirmed();

    // Neither the restart into the image nor that of the agent forgets it.
    let device_again = roaming.bench.restart_agent("board").await;
    assert_eq!(device_again["transport"], "tcp");
    assert_eq!(roaming.network.udp_tried(), tried, "QUIC was tried again");

    // UDP passes again. The memory is still young: nothing changes. Then it is old.
    roaming.network.pass();
    assert_eq!(
        roaming.bench.restart_agent("board").await["transport"],
        "tcp"
    );
    assert_eq!(roaming.network.udp_tried(), tried, "QUIC was tried again");
    roaming.bench.kill_agent("board").await;
    roaming.bench.offline("board").await;
    grow_older(&roaming, 2 * 24 * 3600);
    roaming.bench.start_agent("board");
    let device = device(&roaming).await;
    assert_eq!(device["transport"], "quic", "{device}");
    assert!(roaming.network.udp_tried() > tried);
    let image = roaming.bench.image("2.0", &random_bytes(2, 100_000)).await;
    roaming
        .bench
        .push("board", &image.name, &[])
        .await
        .confirmed();

    // It worked, and so it is tried first again; UDP that is gone costs nothing but the wait.
    roaming.network.block_udp();
    let before = roaming.network.udp_tried();
    assert_eq!(
        roaming.bench.restart_agent("board").await["transport"],
        "tcp"
    );
    assert!(roaming.network.udp_tried() > before);
}
