//! One board's update, from its first dial to `confirmed`.

use super::courses::{Course, image_of};
use crate::Error;
use crate::compare::Setup;
use crate::compare::agent::{Agent, Settings};
use crate::compare::dialhome::Dialhome;
use crate::compare::happenings::Happenings;
use crate::ip::{Count, Field};
use crate::site::gateway::Gateway;
use hyper::Method;
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;

/// Bytes on their way to a board, most: as the client of a board on such links would ask for.
pub(super) const WINDOW: u32 = 32 * 1024;
/// What has not happened after so long will not.
const PATIENCE: Duration = Duration::from_secs(300);

/// What all boards of a run have in common. What it has started ends with it.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) setup: Setup,
    pub(super) gateway: Gateway,
    pub(super) happenings: Happenings,
    pub(super) field: Field,
    pub(super) own: Dialhome,
    /// Of the gateway's key, in hex.
    pub(super) pin: String,
}

/// What was seen of a board's update.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// The image's size in bytes.
    pub(super) size: usize,
    /// From its first packet to the Welcome that it read.
    pub(super) welcome: Duration,
    /// From the first chunk to the last acknowledgement.
    pub(super) transfer: Duration,
    /// IP bytes of both directions from the push to the last acknowledgement.
    pub(super) air: u64,
    /// Bytes that the transport sent again.
    pub(super) again: u64,
    /// From the end of the blackout to the next acknowledged byte.
    pub(super) recovery: Option<Duration>,
    /// Sessions of the transfer but its first.
    pub(super) redials: u64,
    /// Bytes of the image that were sent twice.
    pub(super) twice: u64,
}

/// A board's whole update over one transport.
pub(super) async fn travel(
    stage: &Stage,
    course: &'static Course,
    over_quic: bool,
    number: usize,
) -> Result<Seen, Error> {
    let (namespace, gateway) = stage.field.board(number)?;
    let Some(device) = stage.own.devices.get(number) else {
        return Err(Error::new("there are too few devices"));
    };
    let settings = Settings {
        gateway,
        receive_buffer: 4126,
        window: WINDOW,
        pin: over_quic.then_some(stage.pin.as_str()),
    };
    let within = Some(namespace);
    let mut agent = Agent::start(&stage.setup, &stage.own.site, device, &settings, within)?;
    let online = agent.online(PATIENCE).await?;
    let dialed = stage.field.first_packet(number).ok_or_else(|| {
        Error::new("a board was welcomed, and no packet of it has crossed its link")
    })?;
    quiet(stage, course, number).await?;
    let before = stage.field.count(number)?;
    let (image, size) = image_of(&stage.setup, course);
    if let Some(dark) = course.dark {
        stage.field.darken_after(number, size as u64 / 2, dark)?;
    }
    let update = stage.gateway.admin().await?.push(&device.id, image).await?;
    let events = &stage.happenings;
    let first = events.reached(&update, "transferring", PATIENCE).await?;
    let recovery = match course.dark {
        None => None,
        Some(_) => Some(recovery(stage, number, &update).await?),
    };
    let last = events.reached(&update, "verifying", PATIENCE).await?;
    let after = stage.field.count(number)?;
    let shown = get(stage, &format!("/v1/updates/{update}")).await?;
    let again = if over_quic {
        let shown = get(stage, &format!("/v1/devices/{}", device.id)).await?;
        whole(&shown["quic"], "lost_bytes")?
    } else {
        both(before, after, |count| count.tcp_repeated)
    };
    events.reached(&update, "confirmed", PATIENCE).await?;
    drop(agent);
    Ok(Seen {
        size,
        welcome: online - Instant::from_std(dialed),
        transfer: last - first,
        air: both(before, after, |count| count.bytes),
        again,
        recovery,
        redials: whole(&shown, "sessions")?.saturating_sub(1),
        twice: whole(&shown, "resent")?,
    })
}

/// Waits for the blackout's end, and for the next byte that is acknowledged: how long that took.
async fn recovery(stage: &Stage, number: usize, update: &str) -> Result<Duration, Error> {
    let by = Instant::now() + PATIENCE;
    let end = loop {
        if let Some(end) = stage.field.dark_until(number) {
            break Instant::from_std(end);
        }
        if Instant::now() > by {
            return Err(Error::new("the blackout did not begin"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    tokio::time::sleep_until(end).await;
    let shown = get(stage, &format!("/v1/updates/{update}")).await?;
    let known = whole(&shown, "committed")?;
    let next = stage
        .happenings
        .acknowledged(update, known, end, PATIENCE)
        .await?;
    Ok(next - end)
}

/// Waits until nothing has crossed the link for two round trips.
async fn quiet(stage: &Stage, course: &Course, number: usize) -> Result<(), Error> {
    let trips = Duration::from_millis(u64::from(course.shape()?.round_trip_ms) * 2);
    let pause = trips.max(Duration::from_millis(200));
    let by = Instant::now() + PATIENCE;
    let packets = || {
        let [down, up] = stage.field.count(number)?;
        Ok::<_, Error>(down.packets + up.packets)
    };
    let mut last = packets()?;
    loop {
        tokio::time::sleep(pause).await;
        let now = packets()?;
        if now == last {
            return Ok(());
        }
        if Instant::now() > by {
            return Err(Error::new("the link does not become quiet"));
        }
        last = now;
    }
}

/// An answer of the admin API.
async fn get(stage: &Stage, path: &str) -> Result<Value, Error> {
    // The gateway closes an admin connection that is silent for 30 s.
    let mut admin = stage.gateway.admin().await?;
    admin.call(Method::GET, path, None).await
}

fn whole(document: &Value, key: &str) -> Result<u64, Error> {
    document[key]
        .as_u64()
        .ok_or_else(|| Error::new(format!("there is no number `{key}` in {document}")))
}

fn both(before: [Count; 2], after: [Count; 2], of: impl Fn(Count) -> u64) -> u64 {
    let each = after.into_iter().zip(before);
    each.map(|(after, before)| of(after - before)).sum()
}
