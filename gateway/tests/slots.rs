//! What the board's slot holds decides, not what its journal or anybody else says: a
//! transfer goes on from a proven prefix or from zero, and no image is ever a mixture.

mod support;

use dialhome_gateway::demo::relay::{Action, Arrivals, Cut, Direction, Faults};
use dialhome_gateway::demo::site::Board;
use serde_json::Value;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use support::{Bench, Image, PATIENCE, random_bytes};
use tokio::time::timeout;

const SIZE: usize = 300_000;
/// Half of it is acknowledged when the link breaks.
const BROKEN_AT: u64 = 180_000;

const SETTINGS: &str =
    "[agent]\nping_s = 5\nwindow = 16384\n\n[reconnect]\nfirst_ms = 20\nmax_ms = 200\n";

/// A board in the middle of a transfer, without power.
struct Broken {
    bench: Bench,
    board: Board,
    image: Image,
    update: String,
}

impl Broken {
    async fn start() -> Self {
        let mut bench = Bench::start().await;
        let board = bench.board("board", Faults::default(), SETTINGS).await;
        let image = bench
            .image_with("1.0", &random_bytes(1, SIZE), &["--counter", "1"])
            .await;
        let relay = bench.relay("board");
        relay.arm(Direction::ToBoard, BROKEN_AT, Action::Cut(Cut::Reset));
        let update = bench.push_no_wait("board", &image.name, &[]).await;
        let relay = bench.relay("board");
        timeout(PATIENCE, relay.wait_until(|stats| stats.resets == 1))
            .await
            .expect("the link breaks");
        relay.set_arrivals(Arrivals::Refuse);
        bench.relay("board").cut_all();
        bench.offline("board").await;
        bench.kill_agent("board").await;
        Self {
            bench,
            board,
            image,
            update,
        }
    }

    /// The file that the transfer writes.
    fn slot(&self) -> PathBuf {
        self.board.state.join("slots/a")
    }

    /// Power and link are back.
    async fn power(&mut self) {
        self.bench.relay("board").set_arrivals(Arrivals::Relay);
        self.bench.start_agent("board");
        self.bench.online("board").await;
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.bench.site.log("gateway")).unwrap()
    }

    /// Confirmed, on the bytes that were signed.
    async fn whole(&self, update: &str, image: &Image) -> Value {
        let update = self.bench.reaches(update, "confirmed").await;
        let current = std::fs::read(self.board.state.join("current")).unwrap();
        assert!(
            current == image.bytes,
            "the image is not the one that was signed"
        );
        update
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn untouched_it_goes_on_from_what_was_committed() {
    let mut broken = Broken::start().await;
    broken.power().await;
    let update = broken.whole(&broken.update, &broken.image).await;
    let sent = update["sent"].as_u64().unwrap();
    assert!(sent < SIZE as u64 + 2 * 16_384, "{update}");
    assert!(!broken.log().contains("starts over"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_claims_more_than_the_slot_holds_starts_from_zero() {
    let mut broken = Broken::start().await;
    let file = std::fs::File::options()
        .write(true)
        .open(broken.slot())
        .unwrap();
    file.set_len(1_000).unwrap();
    broken.power().await;
    let update = broken.whole(&broken.update, &broken.image).await;
    let resent = update["resent"].as_u64().unwrap();
    assert!(resent > 100_000, "it did not start from zero: {update}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_is_gone_starts_from_zero() {
    let mut broken = Broken::start().await;
    std::fs::remove_file(broken.slot()).unwrap();
    broken.power().await;
    let update = broken.whole(&broken.update, &broken.image).await;
    assert!(update["resent"].as_u64().unwrap() > 100_000, "{update}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_byte_changed_behind_the_journals_back_starts_from_zero() {
    for at in [0, 70_000] {
        let mut broken = Broken::start().await;
        let file = std::fs::File::options()
            .write(true)
            .open(broken.slot())
            .unwrap();
        file.write_all_at(&[broken.image.bytes[at] ^ 1], at as u64)
            .unwrap();
        broken.power().await;
        let update = broken.whole(&broken.update, &broken.image).await;
        assert!(update["resent"].as_u64().unwrap() > 100_000, "{update}");
        assert!(broken.log().contains("starts over"), "{at}");
    }
}

/// Bytes behind the claim are nobody's promise: they are written again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_changed_beyond_the_claim_do_no_harm() {
    let mut broken = Broken::start().await;
    let file = std::fs::File::options()
        .write(true)
        .open(broken.slot())
        .unwrap();
    file.write_all_at(&random_bytes(9, 50_000), 250_000)
        .unwrap();
    broken.power().await;
    broken.whole(&broken.update, &broken.image).await;
    assert!(!broken.log().contains("starts over"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_image_takes_the_place_from_zero_and_none_is_mixed() {
    let mut broken = Broken::start().await;
    // It begins with the very bytes that the slot holds already.
    let mut bytes = broken.image.bytes[..150_000].to_vec();
    bytes.extend(random_bytes(2, 100_000));
    let other = broken
        .bench
        .image_with("2.0", &bytes, &["--counter", "2"])
        .await;
    let second = broken
        .bench
        .push_no_wait("board", &other.name, &["--replace"])
        .await;
    broken.power().await;
    let update = broken.whole(&second, &other).await;
    assert_eq!(update["sent"], 250_000, "{update}");
    let first = broken.bench.reaches(&broken.update, "canceled").await;
    assert_eq!(first["reason"], "canceled", "{first}");
}

/// The claim is the manifest's, not the update's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_update_of_the_same_image_goes_on_where_the_last_one_stopped() {
    let mut broken = Broken::start().await;
    let canceled = ["update", "cancel", &broken.update.clone()];
    broken.bench.json(&canceled).await;
    broken.power().await;
    broken.bench.reaches(&broken.update, "canceled").await;
    let again = broken
        .bench
        .push_no_wait("board", &broken.image.name, &[])
        .await;
    assert_ne!(again, broken.update);
    let update = broken.whole(&again, &broken.image).await;
    let sent = update["sent"].as_u64().unwrap();
    assert!(sent < SIZE as u64 - 100_000, "{update}");
}

/// A board that lost its journal, not its slot: nothing is proven, so nothing is kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_journal_starts_from_zero() {
    let mut broken = Broken::start().await;
    std::fs::remove_dir_all(broken.board.state.join("journal")).unwrap();
    broken.power().await;
    let update = broken.whole(&broken.update, &broken.image).await;
    assert!(update["resent"].as_u64().unwrap() > 100_000, "{update}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_medium_that_takes_nothing_is_named_and_the_board_still_dials_home() {
    let mut bench = Bench::start().await;
    let board = bench.board("board", Faults::default(), SETTINGS).await;
    let image = bench.image("1.0", &random_bytes(1, SIZE)).await;
    bench.online("board").await;
    // Where the slot's file should be there is something else.
    let slot = board.state.join("slots/a");
    std::fs::create_dir_all(&slot).unwrap();
    let pushed = bench.push("board", &image.name, &[]).await;
    let said = pushed.outcome.stderr.clone();
    let failed = pushed.ended("failed", 1);
    assert_eq!(failed["reason"], "storage", "{failed}");
    let detail = failed["detail"].as_str().unwrap();
    assert!(
        detail.contains("medium failed, or is not there"),
        "{failed}"
    );
    assert!(
        said.contains(detail) && said.contains("may be written"),
        "{said}"
    );
    let update = failed["update"].as_str().unwrap();
    let shown = bench.json(&["update", "show", update]).await;
    assert_eq!(shown["detail"], detail, "{shown}");

    // It is still there, and takes an image when it can.
    std::fs::remove_dir(&slot).unwrap();
    bench.online("board").await;
    let good = bench.push("board", &image.name, &[]).await.confirmed();
    assert_eq!(good["detail"], Value::Null, "{good}");
}
