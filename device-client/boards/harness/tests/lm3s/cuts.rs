//! Power cuts: `kill -9` of the machine at random instants over whole updates, and cuts
//! within the boot stage's own steps.

use crate::{ID, Rig, ended};
use dialhome_board_harness::firmware::Behaviour;
use dialhome_board_harness::lm3s::Running;
use dialhome_board_harness::sdu::Cut;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;
use tokio::time::timeout;

/// Cuts at random instants, unless `CUTS=` says otherwise.
const CUTS: u32 = 50;
/// Cuts in one update; then it may come to its end.
const CUTS_PER_UPDATE: u32 = 6;
/// An update takes about two seconds: a cut comes within this time of the start.
const CUT_WITHIN_MS: u64 = 1500;

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cuts_at_random_instants_cost_time_and_nothing_else() {
    let seed = from_env("SEED").unwrap_or_else(rand::random);
    let cuts = from_env("CUTS").map_or(CUTS, |cuts| u32::try_from(cuts).unwrap());
    println!("lm3s6965evb: cuts by SEED={seed} CUTS={cuts}");
    let mut random = StdRng::seed_from_u64(seed);
    let rig = Rig::new().await;
    let mut board: Running = rig.online().await;
    let (mut done, mut number, mut flashed) = (0, 1, 0);
    while done < cuts {
        number += 1;
        // Each start of a trial counts, and here each start may be a cut's.
        let options = ["--trial-boots", "100"];
        let (image, name) = rig.image(number, Behaviour::Good, &options).await;
        let update = rig.bench.push_no_wait(ID, &name, &[]).await.unwrap();
        for _ in 0..CUTS_PER_UPDATE.min(cuts - done) {
            let instant = Duration::from_millis(random.random_range(0..CUT_WITHIN_MS));
            if let Ok(end) = timeout(instant, rig.bench.ends(&update)).await {
                end.unwrap();
                break;
            }
            let mut off = board.cut_power().await.unwrap();
            done += 1;
            // Where the boot stage has something to do next, half of the cuts go on there.
            off.sdu_cut = match random.random_range(0..10) {
                0 => Some(Cut::Erased),
                1 => Some(Cut::Written(random.random_range(0..100_000))),
                2 => Some(Cut::BeforeDelete),
                3 => Some(Cut::WithinDelete),
                4 => Some(Cut::AfterDelete),
                _ => None,
            };
            flashed = off.flashed;
            board = off.start().await.unwrap();
        }
        let update = rig.bench.ends(&update).await.unwrap();
        ended(&update, "confirmed", None);
        let off = board.cut_power().await.unwrap();
        done += 1;
        assert!(off.holds(&image), "another image is in flash: {update:#}");
        board = off.start().await.unwrap();
    }
    println!(
        "lm3s6965evb: {done} power cuts over {} updates, the boot stage wrote flash {flashed} times",
        number - 1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_in_any_step_of_the_boot_stage_is_made_good_at_the_next_start() {
    let rig = Rig::new().await;
    let mut board = rig.online().await.off().await.unwrap();
    let steps = [
        Cut::Erased,
        Cut::Written(0),
        Cut::Written(70_000),
        Cut::BeforeDelete,
        Cut::WithinDelete,
        Cut::AfterDelete,
    ];
    for (step, number) in steps.into_iter().zip(2..) {
        board.sdu_cut = Some(step);
        let before = board.flashed;
        let running = board.start().await.unwrap();
        rig.bench.online(ID).await.unwrap();
        let (image, name) = rig.image(number, Behaviour::Good, &[]).await;
        ended(&rig.push(&name).await, "confirmed", None);
        board = running.off().await.unwrap();
        assert!(board.holds(&image), "{step:?}");
        assert_eq!(board.sdu_cut, None, "{step:?}");
        let again = !matches!(step, Cut::WithinDelete | Cut::AfterDelete);
        assert_eq!(board.flashed - before, 1 + u32::from(again), "{step:?}");
    }
}
