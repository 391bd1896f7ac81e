//! What the gateway pays for sessions over QUIC and over TCP: memory while they are silent, and
//! processor time for what real agents fetch on loopback.

use super::agent::{Agent, Settings};
use super::clients::{Clients, Kind, Roll};
use super::dialhome::{Dialhome, Running};
use super::figures::{Figures, Goal};
use super::happenings::Happenings;
use super::idle::{Seen, watch};
use super::transports::{QUIC, TCP, pin};
use super::{Setup, processor_time};
use crate::Error;
use crate::site;
use std::time::Duration;

const BYTES: &str = "user_bytes_per_idle_session";
const MICROS: &str = "cpu_us_per_session_and_s";
const DIAL: &str = "cpu of a dial, up to Welcome";
const COST: &str = "cpu_s_per_gib";
const GIB: f64 = 1024.0 * 1024.0 * 1024.0;
/// Idle sessions, most: of a transport.
const SESSIONS: usize = 2_000;
/// Seconds between pings.
const PING_S: u32 = 60;
/// Seconds in which allocators give back what handshakes used.
const SETTLE_S: usize = 12;
/// The goal for a session over QUIC, in bytes: what quinn alone takes is 29 to 39 KB.
const GOAL_BYTES: f64 = 20_000.0;
/// Agents that fetch at a time.
const AGENTS: usize = 4;
/// Their image is so many times the run's.
const TIMES: usize = 32;
/// What has not happened after so long will not.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) async fn measure(setup: &Setup, figures: &mut Figures) -> Result<(), Error> {
    let sessions = setup.sessions.min(SESSIONS);
    let image = setup.image * TIMES;
    figures.notes.push(format!(
        "idle: {sessions} sessions, pings every {PING_S} s, RssAnon of the gateway above what it was without sessions; the kernel's sockets are not in it"
    ));
    figures.notes.push(format!(
        "for a GiB: {AGENTS} agents fetch {} KiB each over loopback (its packets are larger than a network's, for QUIC by segmentation in the kernel), chunks of 4 KiB, windows of 256 KiB, from the push to the last acknowledgement",
        image / 1024
    ));
    let own = Dialhome::new(sessions, &[]).await?;
    for round in 0..setup.rounds {
        for over_quic in [round % 2 == 0, round % 2 != 0] {
            let who = if over_quic { QUIC } else { TCP };
            setup.says("transport-costs, idle", round, who);
            idle(setup, &own, over_quic, figures).await?;
        }
        // Another image each round: nothing is prepared for it.
        let image = site::image(round as u64, image);
        for over_quic in [round % 2 == 0, round % 2 != 0] {
            let who = if over_quic { QUIC } else { TCP };
            setup.says("transport-costs, for a GiB", round, who);
            deliver(setup, &image, over_quic, figures).await?;
        }
    }
    figures.goals.push(Goal::at_most(
        "user-space bytes per idle session over QUIC",
        figures.median(QUIC, BYTES),
        GOAL_BYTES,
    ));
    Ok(())
}

async fn idle(
    setup: &Setup,
    own: &Dialhome,
    over_quic: bool,
    figures: &mut Figures,
) -> Result<(), Error> {
    let who = if over_quic { QUIC } else { TCP };
    let mut running = own.start(setup, &[]).await?;
    let kind = if over_quic {
        let pin = pin(&running.gateway).await?;
        Kind::Quic { pin }
    } else {
        Kind::Board
    };
    let roll = Roll {
        server: running.address,
        kind,
        ping_s: PING_S,
        seats: own.seats(),
    };
    let mut clients = Clients::start(setup, roll, None).await?;
    let none = watch(setup, &mut running, 2).await?;
    let count = own.devices.len();
    let pids = vec![running.gateway.id()];
    let dialing = async {
        clients.open(count).await?;
        running.sessions(count).await?;
        are_over(&mut running, if over_quic { count } else { 0 }).await
    };
    let (dials, ()) = processor_time(pids, dialing).await?;
    clients.idle().await?;
    let all = watch(setup, &mut running, SETTLE_S).await?;
    running.sessions(count).await?;
    clients.check()?;
    drop(clients);
    running.gateway.stop().await?;
    let Seen { bytes, cpu } = all.more_than(&none, count);
    figures.add(who, BYTES, "bytes", bytes);
    figures.add(who, MICROS, "us/s", cpu * 1e6);
    figures.add(who, DIAL, "us", dials / count as f64 * 1e6);
    Ok(())
}

/// Checks that so many of the sessions are over QUIC.
async fn are_over(running: &mut Running, wanted: usize) -> Result<(), Error> {
    let status = running.admin.status().await?;
    let sessions = &status["quic"]["sessions"];
    if sessions == wanted {
        return Ok(());
    }
    Err(Error::new(format!(
        "{sessions} sessions are over QUIC, not {wanted}"
    )))
}

async fn deliver(
    setup: &Setup,
    image: &[u8],
    over_quic: bool,
    figures: &mut Figures,
) -> Result<(), Error> {
    let own = Dialhome::new(AGENTS, &[image.to_vec()]).await?;
    let mut running = own.start(setup, &[]).await?;
    let pin = pin(&running.gateway).await?;
    let settings = Settings {
        gateway: running.address,
        receive_buffer: 4126,
        window: 256 * 1024,
        pin: over_quic.then_some(pin.as_str()),
    };
    let mut agents = Vec::new();
    for device in &own.devices {
        let mut agent = Agent::start(setup, &own.site, device, &settings, None)?;
        agent.online(PATIENCE).await?;
        agents.push(agent);
    }
    running.renew().await?;
    are_over(&mut running, if over_quic { AGENTS } else { 0 }).await?;
    let happenings = Happenings::follow(setup, &own.site)?;
    let fetching = async {
        let mut updates = Vec::new();
        for device in &own.devices {
            updates.push(running.admin.push(&device.id, 0).await?);
        }
        for update in &updates {
            happenings.reached(update, "verifying", PATIENCE).await?;
        }
        Ok(())
    };
    let pids = vec![running.gateway.id()];
    let time = crate::measure::process::CpuTime::of(pids);
    let before = time.seconds();
    fetching.await?;
    let seconds = time.seconds() - before;
    drop(agents);
    running.gateway.stop().await?;
    let who = if over_quic { QUIC } else { TCP };
    let bytes = (AGENTS * image.len()) as f64;
    figures.add(who, COST, "s", seconds * GIB / bytes);
    Ok(())
}
