//! Power cuts at random instants over whole updates.

use std::time::Duration;

use dialhome_board_harness::Error;
use dialhome_board_harness::firmware::Behaviour;
use dialhome_board_harness::microbit::Settings;
use dialhome_board_harness::microbit::rig::{BOARD, Rig, dice, quick_modem};
use rand::RngExt as _;
use tokio::time::{Instant, sleep, timeout_at};

use super::confirmed;

/// Cuts where `CUTS` does not say more: with those of the other board at least 100.
const CUTS: u32 = 50;
/// Longest time between power and the next cut while an image is on its way.
const AWAKE_MAX: Duration = Duration::from_millis(2500);
/// Longest time between a reset of the board's own and the cut: the bootloader swaps then.
const SWAP_MAX: Duration = Duration::from_millis(250);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cuts_lose_no_update() -> Result<(), Error> {
    let wanted = std::env::var("CUTS")
        .ok()
        .and_then(|cuts| cuts.parse().ok());
    let wanted: u32 = wanted.unwrap_or(CUTS);
    let mut dice = dice("power cuts");
    let mut rig = Rig::start(&Settings::QUICK, quick_modem()).await?;
    let (mut cuts, mut updates) = (0, 0);
    while cuts < wanted {
        updates += 1;
        let version = format!("{}.0.0", updates + 1);
        let image = rig
            .image(&version, updates + 1, Behaviour::Good, &[])
            .await?;
        let id = rig.bench.push_no_wait(BOARD, &image.name, &[]).await?;
        loop {
            let show = rig.bench.cli().json(&["update", "show", &id]).await?;
            if ["confirmed", "failed", "reverted"]
                .iter()
                .any(|end| show["state"] == *end)
            {
                break;
            }
            if cuts == wanted {
                break;
            }
            // Any instant; or one soon after the board has reset itself, if it does.
            let at = Instant::now() + AWAKE_MAX.mul_f64(dice.random_range(0.0..1.0));
            if dice.random_bool(0.5) {
                let machine = rig.machine()?;
                if let Ok(Ok(_)) = timeout_at(at, machine.event("RESET", AWAKE_MAX)).await {
                    sleep(SWAP_MAX.mul_f64(dice.random_range(0.0..1.0))).await;
                }
            } else {
                tokio::time::sleep_until(at).await;
            }
            rig.cut().await?;
            cuts += 1;
            rig.switch_on().await?;
        }
        let update = rig.bench.ends(&id).await?;
        confirmed(&rig, &update);
        assert!(rig.look().await?.runs(&image.bytes), "update {updates}");
    }
    eprintln!("microbit: {cuts} power cuts over {updates} updates");
    Ok(())
}
