//! An image over a slow link with a long round trip, against what the link's rate alone allows.

use super::Setup;
use super::crews::{Company, Crews};
use super::dialhome::Dialhome;
use super::events::Events;
use super::figures::{DIALHOME, Figures, Goal};
use crate::Error;
use crate::fleet::words::Link;
use crate::site;
use std::time::Duration;

const KEY: &str = "first chunk to last ack over size / rate";
const STOP_AND_WAIT: &str = "stop-and-wait, 512 bytes (arithmetic)";
/// The link: rate down and round trip of the preset `2g`.
const BITS_PER_S: u64 = 100_000;
const ROUND_TRIP_MS: u32 = 700;
const PIECE: f64 = 512.0;
const GOAL: f64 = 1.1;

pub(super) async fn measure(setup: &Setup, figures: &mut Figures) -> Result<(), Error> {
    figures.notes.push(format!(
        "{} kbit/s in each direction, {ROUND_TRIP_MS} ms round trip, modelled between client and socket (TCP payload counts, headers of IP do not); {} KiB, chunks of 1 KiB, a window of 32 KiB; all rounds at once, each board on a link of its own",
        BITS_PER_S / 1000,
        setup.image / 1024
    ));
    let image = site::image(1, setup.image);
    let own = Dialhome::new(setup.rounds, std::slice::from_ref(&image)).await?;
    let mut running = own.start(setup, &[]).await?;
    setup.says("slow", 0, "all rounds at once");
    let company = Company {
        site: &own.site,
        gateway: running.address,
        devices: &own.devices,
        image: &image,
        link: Link {
            name: "2g".into(),
            down_bits_per_s: BITS_PER_S,
            up_bits_per_s: BITS_PER_S,
            round_trip_ms: ROUND_TRIP_MS,
            ..Link::default()
        },
        receive_buffer: 1088,
        window: 32 * 1024,
    };
    let mut crews = Crews::start(setup, &company).await?;
    let all = setup.rounds as u64;
    crews
        .until(
            "boards online",
            Duration::from_secs(60),
            |tick| tick.online,
            all,
        )
        .await?;
    let mut events = Events::follow(setup, &own.site)?;
    let mut updates = Vec::new();
    for device in &own.devices {
        updates.push(running.admin.push(&device.id, 0).await?);
    }
    let ideal = setup.image as f64 * 8.0 / BITS_PER_S as f64;
    let most = Duration::from_secs_f64(60.0 + 3.0 * ideal);
    for update in &updates {
        // The window opens, and the first chunk leaves; all is acknowledged.
        let first = events.reached(update, "transferring", most).await?;
        let last = events.reached(update, "verifying", most).await?;
        let took = (last - first).as_secs_f64();
        if took < ideal {
            return Err(Error::new(format!(
                "the link was no link: {took:.1} s for what takes {ideal:.1} s at its rate"
            )));
        }
        figures.add(DIALHOME, KEY, "times", took / ideal);
    }
    let bytes = all * setup.image as u64;
    crews
        .until(
            "bytes on flash",
            Duration::from_secs(10),
            |tick| tick.committed,
            bytes,
        )
        .await?;
    drop(crews);
    running.gateway.stop().await?;
    // Each piece waits for its own round trip, and takes its own time on the link.
    let piece_s = f64::from(ROUND_TRIP_MS) / 1000.0 + PIECE * 8.0 / BITS_PER_S as f64;
    let pieces = (setup.image as f64 / PIECE).ceil();
    figures.add(STOP_AND_WAIT, KEY, "times", pieces * piece_s / ideal);
    figures
        .goals
        .push(Goal::at_most(KEY, figures.median(DIALHOME, KEY), GOAL));
    Ok(())
}
