//! Slots that are too small, flash that wears out, and the contracts of what stores.

use dialhome_board_harness::Error;
use dialhome_board_harness::firmware::Behaviour;
use dialhome_board_harness::microbit::rig::{BOARD, Rig, quick_modem};
use dialhome_board_harness::microbit::{Settings, map};

use super::{ended, first_is_back};

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
