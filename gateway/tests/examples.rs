//! The examples of `dialhome-device`, as anyone would run them: a record from `dialhome
//! device pack`, a real gateway, and an image from push to confirmed.

use std::path::{Path, PathBuf};

use dialhome_gateway::demo::process::Process;
use dialhome_gateway::demo::relay::{Direction, Faults};
use support::{Bench, random_bytes};

mod support;

/// `cargo test --workspace` builds the examples beside the programs.
fn example(name: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_dialhome"));
    let path = program.with_file_name("examples").join(name);
    assert!(
        path.is_file(),
        "there is no {}: run the tests by `cargo test --workspace`, or build it by `cargo build -p dialhome-device --examples`",
        path.display()
    );
    path
}

/// A first update, one over a link that breaks, and one whose board is killed in the middle.
async fn runs_from_push_to_confirmed(name: &str) {
    let mut bench = Bench::start().await;
    let id = format!("{name}-1");
    let board = bench.add_board(&id, Faults::default(), "").await;
    let file = |path: &Path| path.to_str().unwrap().to_owned();
    let record = bench.path().join("record.bin");
    let config = file(&board.config);
    bench
        .json(&["device", "pack", &config, "--out", &file(&record)])
        .await;
    let start = |bench: &Bench| {
        let args = [record.as_os_str(), board.state.as_os_str()];
        Process::spawn(&id, &example(name), args, &bench.site.log(&id)).unwrap()
    };
    let running = start(&bench);
    bench.online(&id).await;
    let first = bench.image("1.0.0", &random_bytes(1, 150_001)).await;
    bench.push(&id, &first.name, &[]).await.confirmed();
    assert_eq!(runs(&board.state), first.bytes);

    let second = bench.image("2.0.0", &random_bytes(2, 300_000)).await;
    bench
        .relay(&id)
        .cut_after_bytes(Direction::ToBoard, 200_000);
    let pushing = bench.push_in_background(&id, &second.name, &[]);
    bench.relay(&id).wait_until(|stats| stats.cuts() > 0).await;
    running.kill9().await.unwrap();
    let _again = start(&bench);
    let update = pushing.await.unwrap().confirmed();
    assert_eq!(runs(&board.state), second.bytes);
    let sent = update["sent"].as_u64().unwrap();
    assert!(
        sent < 2 * 300_000,
        "it did not go on where it was: {sent} bytes"
    );
}

/// The bytes of the image that the board runs, by what its boot record says.
fn runs(state: &Path) -> Vec<u8> {
    let boot = std::fs::read_to_string(state.join("boot")).unwrap();
    let digest = boot.lines().next().unwrap();
    std::fs::read(state.join(format!("image-{digest}"))).unwrap()
}

#[tokio::test]
async fn the_blocking_example_runs_from_push_to_confirmed() {
    runs_from_push_to_confirmed("blocking").await;
}

#[tokio::test]
async fn the_asynchronous_example_runs_from_push_to_confirmed() {
    runs_from_push_to_confirmed("asynchronous").await;
}
