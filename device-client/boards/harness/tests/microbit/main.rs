//! The microbit behind its modem, against a real gateway: updates to the end, bad images
//! that go back, power cuts, a bad modem, bad flash.

mod cuts;
mod modem;
mod storage;
mod trials;

use dialhome_board_harness::Error;
use dialhome_board_harness::firmware::Behaviour;
use dialhome_board_harness::microbit::rig::{BOARD, Rig};
use serde_json::Value;

/// Deepest stack of the whole client that is allowed, in bytes.
const STACK_MAX: u32 = 10 * 1024;

/// Pushes a good image and waits for the end of it; gives the image's bytes.
async fn update(rig: &Rig, version: &str, counter: u64) -> Result<Vec<u8>, Error> {
    let image = rig.image(version, counter, Behaviour::Good, &[]).await?;
    let id = rig.bench.push_no_wait(BOARD, &image.name, &[]).await?;
    let update = rig.bench.ends(&id).await?;
    confirmed(rig, &update);
    Ok(image.bytes)
}

/// The update came to its good end.
#[track_caller]
fn confirmed(rig: &Rig, update: &Value) {
    assert_eq!(update["state"], "confirmed", "{update:#}\n{}", rig.tail());
}

/// The update came to another end, for this reason.
#[track_caller]
fn ended(rig: &Rig, update: &Value, state: &str, reason: &str) {
    assert_eq!(
        (&update["state"], &update["reason"]),
        (&state.into(), &reason.into()),
        "{update:#}\n{}",
        rig.tail()
    );
}

/// The first image lies in the active slot, byte for byte.
async fn first_is_back(rig: &mut Rig) -> Result<(), Error> {
    let flash = rig.look().await?;
    assert!(flash.runs(&rig.first), "another image is in the slot");
    Ok(())
}

/// The deepest stack that the board has reported, in bytes.
fn deepest_stack(rig: &mut Rig) -> Result<u32, Error> {
    let lines = rig.machine()?.lines();
    let numbers = lines
        .iter()
        .filter_map(|line| line.rsplit_once(" stack "))
        .filter_map(|(_, number)| number.parse().ok());
    Ok(numbers.max().unwrap_or(u32::MAX))
}
