//! Slots that are too small, flash that wears out, and the contracts of what stores.

use std::time::Duration;

use dialhome_board_harness::Error;
use dialhome_board_harness::firmware::Behaviour;
use dialhome_board_harness::microbit::rig::{BOARD, Rig, dice, quick_modem, report};
use dialhome_board_harness::microbit::{CONFORMANCE, Settings, map};
use dialhome_board_harness::site::PATIENCE;
use rand::RngExt as _;
use tokio::time::sleep;

use super::{ended, first_is_back};

/// Time that the checks write and erase before the power is cut, at most.
const CHURN_MAX: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_above_the_slot_is_declined() -> Result<(), Error> {
    let settings = Settings {
        image_max: Some(16 * 1024),
        ..Settings::QUICK
    };
    let mut rig = Rig::start(&settings, quick_modem()).await?;
    let image = rig.image("2.0.0", 2, Behaviour::Good, &[]).await?;
    let id = rig.bench.push_no_wait(BOARD, &image.name, &[]).await?;
    let update = rig.bench.reaches(&id, "declined").await?;
    ended(&rig, &update, "declined", "too_big");
    rig.online().await?;
    first_is_back(&mut rig).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_does_not_keep_its_bytes_ends_the_update() -> Result<(), Error> {
    let settings = Settings {
        worn_page: Some(map::DOWNLOAD.start + 9 * map::PAGE),
        ..Settings::QUICK
    };
    let mut rig = Rig::start(&settings, quick_modem()).await?;
    let image = rig.image("2.0.0", 2, Behaviour::Good, &[]).await?;
    let id = rig.bench.push_no_wait(BOARD, &image.name, &[]).await?;
    let update = rig.bench.ends(&id).await?;
    ended(&rig, &update, "failed", "bad_flash");
    rig.online().await?;
    first_is_back(&mut rig).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn storage_boot_side_and_modem_keep_their_contracts() -> Result<(), Error> {
    let mut dice = dice("microbit, conformance");
    let mut rig = Rig::make(&Settings::QUICK, quick_modem()).await?;
    rig.load(CONFORMANCE)?;
    rig.switch_on().await?;
    let (mut passed, mut skipped, mut cuts) = (0, Vec::new(), 0);
    loop {
        let line = rig.machine()?.says("", PATIENCE).await?;
        assert!(!line.contains("broken"), "{}", rig.tail());
        if line.starts_with("passed") {
            passed += 1;
        } else if let Some(check) = line.strip_prefix("skipped ") {
            skipped.push(check.to_owned());
        } else if line == "cut the power now" {
            sleep(CHURN_MAX.mul_f64(dice.random_range(0.0..1.0))).await;
            rig.cut().await?;
            cuts += 1;
            rig.switch_on().await?;
        } else if line == "conforms" {
            break;
        }
    }
    report(&format!(
        "microbit conforms: {passed} checks passed, {cuts} cuts, not made: {skipped:?}"
    ));
    assert!(passed >= 40 && cuts == 3, "{passed} checks, {cuts} cuts");
    Ok(())
}
