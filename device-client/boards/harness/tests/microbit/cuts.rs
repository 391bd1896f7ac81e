//! Power cuts at random instants over whole updates.

use std::time::Duration;

use dialhome_board_harness::Error;
use dialhome_board_harness::firmware::Behaviour;
use dialhome_board_harness::microbit::Settings;
use dialhome_board_harness::microbit::rig::{BOARD, Moment, Rig, dice, quick_modem, report};
use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::time::sleep;

use super::confirmed;

/// Cuts where `CUTS` does not say more: with those of the other board at least 100.
const CUTS: u32 = 50;
/// Longest time between power and the next cut while an image is on its way.
const AWAKE_MAX: Duration = Duration::from_millis(2500);
/// The bootloader goes on with a swap, and the client begins, within so much time.
const START_MAX: Duration = Duration::from_millis(50);
/// Looks at a board that swaps, at most, until the cut.
const SWAP_LOOKS: i32 = 30;
/// Bytes that are sent again after a cut, at most: one interval of the journal, and one
/// window.
const AGAIN_MAX: u64 = 2 * 8192;
/// Where cuts do not end an update, this many more do not come.
const UPDATE_CUTS_MAX: u32 = 30;

/// Cuts the power at any instant; at any while the core is busy; soon after power; or soon
/// after the board has reset itself (the bootloader swaps then), if it does.
async fn cut(rig: &mut Rig, dice: &mut StdRng, swaps_soon: bool) -> Result<Moment, Error> {
    let part: f64 = dice.random_range(0.0..1.0);
    let kind = if swaps_soon && dice.random_bool(0.6) {
        3
    } else {
        dice.random_range(0..4)
    };
    match kind {
        0 => sleep(AWAKE_MAX.mul_f64(part)).await,
        1 => {
            sleep(AWAKE_MAX.mul_f64(part)).await;
            return rig.cut_at(|moment| moment != Moment::Asleep).await;
        }
        2 => sleep(START_MAX.mul_f64(part)).await,
        _ => {
            let machine = rig.machine()?;
            if machine.event("RESET", AWAKE_MAX).await.is_ok() {
                // The bootloader is soon done: each look lets it go on a little.
                let mut looks = dice.random_range(0..SWAP_LOOKS);
                let chosen = |moment| {
                    looks -= 1;
                    looks <= 0 || moment != Moment::Bootloader
                };
                return rig.cut_at(chosen).await;
            }
        }
    }
    rig.cut().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cuts_lose_no_update() -> Result<(), Error> {
    let wanted = std::env::var("CUTS").ok();
    let wanted: u32 = wanted.and_then(|cuts| cuts.parse().ok()).unwrap_or(CUTS);
    let mut dice = dice("microbit, power cuts");
    let mut rig = Rig::start(&Settings::QUICK, quick_modem()).await?;
    let (mut cuts, mut swapping, mut busy, mut updates) = (0, 0, 0, 0);
    while cuts < wanted {
        updates += 1;
        let version = format!("{}.0.0", updates + 1);
        // A cut on trial is a boot on trial: here it is not the image that is judged.
        let budget = ["--trial-boots", "100"];
        let image = rig
            .image(&version, updates + 1, Behaviour::Good, &budget)
            .await?;
        let id = rig.bench.push_no_wait(BOARD, &image.name, &[]).await?;
        let before = cuts;
        let mut swaps_soon = false;
        for _ in 0..UPDATE_CUTS_MAX {
            let moment = cut(&mut rig, &mut dice, swaps_soon).await?;
            if dice.random_bool(0.1) {
                // The modem hangs on the same supply: its connections end without a word.
                let answer = rig.modem.order("cut_power 50");
                assert!(answer.starts_with("ok"), "{answer}");
            }
            cuts += 1;
            match moment {
                Moment::Bootloader => swapping += 1,
                Moment::Busy => busy += 1,
                Moment::Asleep => {}
            }
            rig.switch_on().await?;
            let show = rig.bench.cli().json(&["update", "show", &id]).await?;
            let committed = show["committed"].as_u64().unwrap_or(0);
            swaps_soon = committed > image.bytes.len() as u64 / 2;
            if cuts >= wanted || show["state"] == "confirmed" {
                break;
            }
        }
        let update = rig.bench.ends(&id).await?;
        confirmed(&rig, &update);
        let resent = update["resent"].as_u64().unwrap_or(u64::MAX);
        report(&format!(
            "{version}: {cuts} cuts so far, {resent} bytes sent again"
        ));
        // Never from zero again: what is not in the journal yet, and what was under way.
        assert!(
            resent <= u64::from(cuts - before) * AGAIN_MAX,
            "{resent} bytes were sent again: {update:#}"
        );
        assert!(rig.look().await?.runs(&image.bytes), "update {updates}");
    }
    report(&format!(
        "microbit: {cuts} power cuts over {updates} updates, {swapping} of them in the \
         bootloader and {busy} while the image was busy"
    ));
    Ok(())
}
