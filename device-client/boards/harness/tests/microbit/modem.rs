//! A modem that misbehaves in the middle of an update.

use dialhome_board_harness::Error;
use dialhome_board_harness::firmware::Behaviour;
use dialhome_board_harness::microbit::rig::{BOARD, Rig, quick_modem, report};
use dialhome_board_harness::microbit::{Pace, Settings};
use dialhome_board_harness::site::PATIENCE;
use dialhome_modem::{Config, Options};
use serde_json::Value;
use tokio::time::Instant;

use super::{confirmed, update};

/// A line that is slow enough for several faults in one update.
const BAUD: u32 = 230_400;
/// Committed bytes between two faults.
const BETWEEN: u64 = 8192;

fn modem(baud: u32) -> Options {
    let quick = quick_modem();
    Options {
        config: Config {
            baud,
            ..quick.config
        },
        ..quick
    }
}

fn committed(update: &Value) -> u64 {
    update["committed"].as_u64().unwrap_or(0)
}

fn is_over(update: &Value) -> bool {
    ["confirmed", "declined", "failed", "reverted"]
        .iter()
        .any(|end| update["state"] == *end)
}

/// Gives one order after the other while an image is on its way, and sees the update
/// confirmed.
async fn faults(orders: &[&str]) -> Result<(), Error> {
    let rig = Rig::start(&Settings::QUICK, modem(BAUD)).await?;
    let image = rig.image("2.0.0", 2, Behaviour::Good, &[]).await?;
    let id = rig.bench.push_no_wait(BOARD, &image.name, &[]).await?;
    let show = ["update", "show", &id];
    let mut from = 0;
    for order in orders {
        let reached = |update: &Value| committed(update) > from || is_over(update);
        let update = rig.bench.until(&show, reached).await?;
        assert!(!is_over(&update), "over before `{order}`: {update:#}");
        from = committed(&update) + BETWEEN;
        let answer = rig.modem.order(order);
        assert!(answer.starts_with("ok"), "`{order}`: {answer}");
    }
    let update = rig.bench.ends(&id).await?;
    confirmed(&rig, &update);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_line_costs_only_time() -> Result<(), Error> {
    faults(&[
        "garbage 300",
        "lose_urcs 5",
        "error 2",
        "rubbish 2",
        "lose 60",
    ])
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_network_costs_only_time() -> Result<(), Error> {
    faults(&[
        "close_socket",
        "stall 2000",
        "drop_registration 2000",
        "drop_context",
    ])
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_modem_is_restarted() -> Result<(), Error> {
    faults(&["freeze 3000", "cut_power 500", "mute"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_modem_that_hangs_is_waited_for_in_words() -> Result<(), Error> {
    let mut rig = Rig::start(&Settings::QUICK, modem(BAUD)).await?;
    let image = rig.image("2.0.0", 2, Behaviour::Good, &[]).await?;
    let id = rig.bench.push_no_wait(BOARD, &image.name, &[]).await?;
    let show = ["update", "show", &id];
    rig.bench
        .until(&show, |update| committed(update) > BETWEEN)
        .await?;
    let answer = rig.modem.order("hang");
    assert!(answer.starts_with("ok"), "{answer}");
    // The board gives up the connection; the gateway says what it misses.
    rig.machine()?.says("Receiving, online", PATIENCE).await?;
    rig.machine()?.says(", offline", PATIENCE).await?;
    let update = rig.bench.cli().json(&show).await?;
    let words = update["waiting_for"].as_str().unwrap_or_default();
    report(&format!("meanwhile: {words}"));
    assert!(words.contains(BOARD), "{update:#}");
    // Somebody pulls its plug.
    let answer = rig.modem.order("cut_power 200");
    assert!(answer.starts_with("ok"), "{answer}");
    let update = rig.bench.ends(&id).await?;
    confirmed(&rig, &update);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_goes_through_at_the_speed_of_chip_and_line() -> Result<(), Error> {
    let mut rig = Rig::make(&Settings::QUICK, modem(115_200)).await?;
    rig.pace = Pace::Chip;
    rig.switch_on().await?;
    rig.online().await?;
    let began = Instant::now();
    update(&rig, "2.0.0", 2).await?;
    report(&format!(
        "microbit: an update at 115200 baud, with a core of 16 MHz, took {} s",
        began.elapsed().as_secs()
    ));
    Ok(())
}
