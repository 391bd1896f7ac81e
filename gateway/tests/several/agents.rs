//! Updates of several components with real agents: a Linux board that installs its own image and its child's, as one.

use std::time::Duration;

use crate::support::bundle::{Image, add, sign};
use crate::support::{BOARD, Bench, random_bytes};
use dialhome_gateway::demo::relay::{Action, Direction, Faults};
use serde_json::{Value, json};

const ID: &str = "lamp-1";

/// The child beside component 0: its flash is a file.
const CHILD: &str = r#"
[[component]]
number = 1
name = "child"
slot_size = 1048576

[component.install]
command = ["sh", "-c", "cp \"$DIALHOME_IMAGE\" FOLDER/child.new && mv FOLDER/child.new FOLDER/child"]

[component.running]
command = ["sh", "-c", "[ ! -e FOLDER/child ] || sha256sum <FOLDER/child"]

[component.check]
command = ["sh", "-c", "[ ! -e FOLDER/child-is-bad ]"]
"#;

/// A gateway, and an agent that runs a first image of both components.
struct Lamp {
    bench: Bench,
    old: Image,
}

impl Lamp {
    async fn start() -> Self {
        Self::start_with(CHILD).await
    }

    async fn start_with(child: &str) -> Self {
        let mut bench = Bench::start().await;
        let main = BOARD.replace("\"cmp ", "\"[ ! -e FOLDER/main-is-bad ] && cmp ");
        let settings = [&main, child].concat();
        bench.board(ID, Faults::default(), &settings).await;
        let payloads = [random_bytes(1, 20_000), random_bytes(2, 30_000)];
        let old = sign(&bench, ("1.0", "1.0"), payloads, 1).await;
        add(&bench, &old).await;
        let update = bench.push(ID, &old.name, &[]).await.confirmed();
        assert_eq!(update["committed"], old.size(), "{update}");
        let lamp = Self { bench, old };
        lamp.runs([&lamp.old, &lamp.old]).await;
        lamp
    }

    async fn next(&self) -> Image {
        self.image(2, 200_000, 300_000).await
    }

    /// An image of this version and counter, with payloads of these sizes.
    async fn image(&self, number: u64, child: usize, main: usize) -> Image {
        let payloads = [
            random_bytes(2 * number, child),
            random_bytes(2 * number + 1, main),
        ];
        let version = format!("{number}.0");
        let image = sign(&self.bench, (&version, &version), payloads, number).await;
        add(&self.bench, &image).await;
        image
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.bench.path().join("boards").join(ID).join(name)
    }

    /// Component 1 runs the one of these images, component 0 the other, and the gateway knows it.
    async fn runs(&self, images: [&Image; 2]) {
        for (place, name) in ["child", "installed"].into_iter().enumerate() {
            let runs = std::fs::read(self.file(name)).unwrap();
            assert!(runs == images[place].payloads[place], "{name}");
        }
        let wanted = [1, 0].map(|place: usize| images[place].digest(place).to_string());
        self.bench
            .until(&["device", "show", ID], |device| {
                let of = |at: usize| &device["components"][at];
                (0..2)
                    .all(|at| of(at)["digest"] == wanted[at].as_str() && of(at)["trial"].is_null())
            })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_linux_board_and_its_child_are_updated_as_one() {
    let lamp = Lamp::start().await;
    let new = lamp.next().await;
    let update = lamp.bench.push(ID, &new.name, &[]).await.confirmed();
    assert_eq!(
        (&update["sent"], &update["resent"]),
        (&json!(new.size()), &json!(0))
    );
    lamp.runs([&new, &new]).await;
    // The same again: nothing is sent.
    let again = lamp.bench.push(ID, &new.name, &[]).await.confirmed();
    assert_eq!(
        (&again["reason"], &again["sent"]),
        (&json!("already_running"), &json!(0))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_that_fails_its_check_brings_all_old_images_back() {
    let lamp = Lamp::start().await;
    let new = lamp.next().await;
    std::fs::write(lamp.file("child-is-bad"), b"").unwrap();
    let update = lamp
        .bench
        .push(ID, &new.name, &[])
        .await
        .ended("reverted", 1);
    assert_eq!(update["reason"], "self_test", "{update}");
    let detail = update["detail"].as_str().unwrap();
    assert_eq!(detail.matches("component").count(), 1, "{detail}");
    lamp.runs([&lamp.old, &lamp.old]).await;
    // On a child that is well the same images stay.
    std::fs::remove_file(lamp.file("child-is-bad")).unwrap();
    lamp.bench.push(ID, &new.name, &[]).await.confirmed();
    lamp.runs([&new, &new]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_lost_in_the_second_component_costs_nothing_of_the_first() {
    let mut lamp = Lamp::start().await;
    let new = lamp.next().await;
    lamp.bench
        .relay(ID)
        .cut_after_bytes(Direction::ToBoard, 400_000);
    let update = lamp.bench.push(ID, &new.name, &[]).await.confirmed();
    assert_eq!(update["sessions"], 3, "{update}");
    // At most what was under way is sent again, and the claim is coarse: less than what the first component has.
    let resent = update["resent"].as_u64().unwrap();
    assert!(resent < 150_000, "{update}");
    assert_eq!(update["sent"], new.size() as u64 + resent, "{update}");
    lamp.runs([&new, &new]).await;

    // Killed between the two, the agent proves the first and goes on.
    let next = lamp.image(3, 200_000, 300_000).await;
    let update = lamp
        .bench
        .push_no_wait(ID, &next.name, &["--max-bytes", "250000"])
        .await;
    let paused = |update: &Value| update["reason"] == "max_bytes";
    lamp.bench.until(&["update", "show", &update], paused).await;
    lamp.bench.kill_agent(ID).await;
    lamp.bench.offline(ID).await;
    lamp.bench
        .push_no_wait(ID, &next.name, &["--max-bytes", "1000000"])
        .await;
    lamp.bench.start_agent(ID);
    let ended = lamp.bench.reaches(&update, "confirmed").await;
    assert!(ended["resent"].as_u64().unwrap() < 150_000, "{ended}");
    lamp.runs([&next, &next]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_cannot_go_back_is_named_and_the_others_go_back() {
    let child = CHILD.replace("slot_size", "rollback = \"none\"\nslot_size");
    let lamp = Lamp::start_with(&child).await;
    let new = lamp.next().await;
    std::fs::write(lamp.file("main-is-bad"), b"").unwrap();
    let pushed = lamp.bench.push(ID, &new.name, &[]).await;
    let warning = "Warning: Component 1 of lamp-1 keeps no older image";
    let warnings = pushed.outcome.stderr.matches("Warning: ").count();
    assert!(pushed.outcome.stderr.contains(warning) && warnings == 1);
    let update = pushed.ended("failed", 1);
    assert_eq!(update["reason"], "revert_failed", "{update}");
    assert!(
        update["detail"].as_str().unwrap().contains("component 1"),
        "{update}"
    );
    lamp.runs([&new, &lamp.old]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_canceled_in_the_second_component_changes_nothing_and_what_was_sent_counts_later()
{
    let lamp = Lamp::start().await;
    let new = lamp.next().await;
    let some = ["--max-bytes", "350000"];
    let update = lamp.bench.push_no_wait(ID, &new.name, &some).await;
    let paused = |update: &Value| update["reason"] == "max_bytes";
    let paused = lamp.bench.until(&["update", "show", &update], paused).await;
    assert_eq!(paused["entries"][0]["committed"], 200_000, "{paused}");
    lamp.bench.json(&["update", "cancel", &update]).await;
    lamp.bench.reaches(&update, "canceled").await;
    lamp.runs([&lamp.old, &lamp.old]).await;
    let again = lamp.bench.push(ID, &new.name, &[]).await.confirmed();
    let sent = again["sent"].as_u64().unwrap();
    // All of the first component, and of the second what was claimed, are there already.
    assert!((150_000..=300_000).contains(&sent), "{again}");
    lamp.runs([&new, &new]).await;
}

/// The link cut, or a side killed, at another byte of one small update after the other: from the first offer to the
/// last receipt. Each ends confirmed, on a board that runs both images.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_of_two_components_cut_or_killed_at_any_step_ends_confirmed() {
    let mut lamp = Lamp::start().await;
    let mut struck = 0;
    // Offer, Resume, chunks, Activate, handshakes and Confirm; accepts, acks, reports and Hello.
    let places = [
        (Direction::ToBoard, 640, 90),
        (Direction::ToGateway, 1_000, 125),
    ];
    let places = places
        .into_iter()
        .flat_map(|(direction, end, step)| (1..end).step_by(step).map(move |at| (direction, at)));
    let blows = places.zip(["cut", "agent", "gateway"].into_iter().cycle());
    for (number, ((direction, at), blow)) in (2..).zip(blows) {
        let image = lamp.image(number, 64, 64).await;
        let stalls = lamp.bench.relay(ID).stats().stalls;
        // Holds the mapping for longer than any test: only the blow ends it.
        let held = Action::Stall(Duration::from_secs(3600));
        lamp.bench.relay(ID).arm(direction, at, held);
        let update = lamp.bench.push_no_wait(ID, &image.name, &[]).await;
        let ended = lamp.bench.reaches(&update, "confirmed");
        let reached = tokio::select! {
            _ = lamp.bench.relay(ID).wait_until(|stats| stats.stalls > stalls) => true,
            _ = ended => false,
        };
        lamp.bench.relay(ID).disarm();
        struck += u32::from(reached);
        match blow {
            _ if !reached => {}
            "cut" => lamp.bench.relay(ID).cut_all(),
            "agent" => {
                lamp.bench.kill_agent(ID).await;
                lamp.bench.start_agent(ID);
            }
            _ => {
                lamp.bench.kill_gateway().await;
                // The held relay would hide its end.
                lamp.bench.relay(ID).cut_all();
                lamp.bench.start_gateway().await;
            }
        }
        lamp.bench.reaches(&update, "confirmed").await;
        lamp.runs([&image, &image]).await;
    }
    assert!(struck > 12, "only {struck} blows fell");
}
