//! One whole update, and images on trial that are not well.

use dialhome_board_harness::Error;
use dialhome_board_harness::firmware::Behaviour;
use dialhome_board_harness::microbit::Settings;
use dialhome_board_harness::microbit::rig::{BOARD, Rig, quick_modem, report};
use dialhome_board_harness::site::PATIENCE;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::{STACK_MAX, deepest_stack, ended, first_is_back, update};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_is_confirmed_by_the_image_that_runs() -> Result<(), Error> {
    let mut rig = Rig::start(&Settings::QUICK, quick_modem()).await?;
    let bytes = update(&rig, "2.0.0", 2).await?;
    let device = rig.online().await?;
    let component = &device["components"][0];
    assert_eq!(component["boot_reason"], "update", "{device:#}");
    assert_eq!(component["revert"], "swap", "{device:#}");
    assert_eq!(component["version"], "2.0.0", "{device:#}");
    assert!(rig.look().await?.runs(&bytes));
    // Once more, so that the slots have changed places twice.
    let bytes = update(&rig, "3.0.0", 3).await?;
    assert!(rig.look().await?.runs(&bytes));
    let stack = deepest_stack(&mut rig)?;
    report(&format!(
        "microbit: {} bytes of bootloader, {} of image, {stack} of stack at the deepest",
        rig.bootloader_len,
        bytes.len()
    ));
    assert!(stack <= STACK_MAX, "{stack} bytes of stack");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_is_told_and_undoes_nothing() -> Result<(), Error> {
    let mut rig = Rig::start(&Settings::QUICK, quick_modem()).await?;
    let image = rig.image("2.0.0", 2, Behaviour::PanicsOnce, &[]).await?;
    let id = rig.bench.push_no_wait(BOARD, &image.name, &[]).await?;
    let ended = rig.bench.ends(&id).await?;
    super::confirmed(&rig, &ended);
    rig.machine()?.says("panic at", PATIENCE).await?;
    let device = rig
        .bench
        .until(&["device", "show", BOARD], |device| {
            device["online"] == true && device["components"][0]["boot_reason"] == "panic"
        })
        .await?;
    assert_eq!(device["components"][0]["version"], "2.0.0", "{device:#}");
    Ok(())
}

/// Resets the board whenever the new image starts. There is no watchdog in this emulation:
/// this is it.
async fn reset_until_old(rig: &mut Rig) -> Result<(), Error> {
    loop {
        let line = rig.machine()?.says(" starts, reason", PATIENCE).await?;
        if line.starts_with("1.0.0") {
            return Ok(());
        }
        rig.machine()?.reset().await?;
    }
}

/// Pushes a bad image, resets the board whenever it runs for so many times, and sees the
/// first image come back.
async fn goes_back(
    behaviour: Behaviour,
    options: &[&str],
    resets: bool,
    reason: &str,
) -> Result<(), Error> {
    let mut rig = Rig::start(&Settings::QUICK, quick_modem()).await?;
    rig.machine()?.says("1.0.0 starts", PATIENCE).await?;
    let image = rig.image("2.0.0", 2, behaviour, options).await?;
    let id = rig.bench.push_no_wait(BOARD, &image.name, &[]).await?;
    if resets {
        reset_until_old(&mut rig).await?;
    }
    let update = rig.bench.ends(&id).await?;
    ended(&rig, &update, "reverted", reason);
    first_is_back(&mut rig).await?;
    // A good image still goes through.
    super::update(&rig, "3.0.0", 3).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_crashes_goes_back() -> Result<(), Error> {
    goes_back(Behaviour::CrashesAtStart, &[], false, "crashed").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_hangs_goes_back() -> Result<(), Error> {
    goes_back(Behaviour::Hangs, &[], true, "crashed").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_never_dials_goes_back() -> Result<(), Error> {
    let budget = ["--trial-awake", "3s"];
    goes_back(Behaviour::NeverDials, &budget, false, "no_contact").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_whose_self_test_fails_goes_back() -> Result<(), Error> {
    goes_back(Behaviour::FailsSelfTest, &[], false, "self_test").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_program_go_back() -> Result<(), Error> {
    let mut rig = Rig::start(&Settings::QUICK, quick_modem()).await?;
    let mut bytes = vec![0; 30_000];
    StdRng::seed_from_u64(7).fill_bytes(&mut bytes);
    let image = rig.add("2.0.0", 2, bytes, &[]).await?;
    let id = rig.bench.push_no_wait(BOARD, &image.name, &[]).await?;
    let update = rig.bench.ends(&id).await?;
    ended(&rig, &update, "reverted", "crashed");
    first_is_back(&mut rig).await
}
