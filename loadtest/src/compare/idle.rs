//! What a session costs that is authenticated and silent, and whether many cost more each.

use super::clients::{Clients, Kind, Roll, Topics, seats};
use super::dialhome::{Dialhome, Running};
use super::figures::{DIALHOME, Figures, Goal};
use super::peers::mosquitto::Mosquitto;
use super::peers::nginx::Nginx;
use super::peers::user_bytes;
use super::{Setup, processor_time};
use crate::Error;
use crate::site;
use std::net::SocketAddr;
use std::time::Duration;

/// The key of the first figure.
pub(super) const USER_BYTES: &str = "user_bytes_per_idle_session";
const MICROS: &str = "cpu_us_per_session_and_s";
const MOSQUITTO: &str = "mosquitto, password";
const NGINX: &str = "nginx, keep-alive";
const NGINX_TLS: &str = "nginx, keep-alive, TLS 1.3";
/// Seconds between pings, as short as a board takes them as advice.
const PING_S: u32 = 60;
/// The goal, in bytes, with everything.
const GOAL_BYTES: f64 = 900.0;
/// What a session of the upper half may cost over one of the lower half.
const FLAT: [f64; 2] = [0.9, 1.1];
/// Allocators give back what handshakes used only a while later: jemalloc within ten
/// seconds, while it is called now and then.
const SETTLE_S: usize = 12;

pub(super) async fn measure(setup: &Setup, figures: &mut Figures) -> Result<(), Error> {
    let own = Dialhome::new(setup.sessions, &[]).await?;
    figures.notes.push(format!(
        "{} sessions, pings every {PING_S} s (nginx: none), RssAnon of all the server's processes above what it was without sessions; the kernel's sockets are not in it; \"1,000\" and \"10,000\" are 1 and 10 of 19 parts of the sessions",
        setup.sessions
    ));
    figures.notes.push(
        "nginx makes its tables for 20,000 connections when it starts: they are in what it was without sessions"
            .to_owned(),
    );
    let mut growth = [const { Vec::new() }; 2];
    for round in 0..setup.rounds {
        setup.says("idle", round, DIALHOME);
        let grown = dialhome(setup, &own, figures).await?;
        for (all, one) in growth.iter_mut().zip(grown) {
            all.push(one);
        }
        setup.says("idle", round, MOSQUITTO);
        mosquitto(setup, figures).await?;
        setup.says("idle", round, NGINX);
        nginx(setup, false, figures).await?;
        setup.says("idle", round, NGINX_TLS);
        nginx(setup, true, figures).await?;
    }
    figures.goals.push(Goal::at_most(
        "user-space bytes per idle session",
        figures.median(DIALHOME, USER_BYTES),
        GOAL_BYTES,
    ));
    figures.goals.push(Goal::at_most(
        "user-space bytes per idle session over mosquitto's",
        figures.median(DIALHOME, USER_BYTES) / figures.median(MOSQUITTO, USER_BYTES),
        1.0,
    ));
    figures.goals.push(Goal::at_most(
        "user-space bytes per idle session over nginx's without TLS",
        figures.median(DIALHOME, USER_BYTES) / figures.median(NGINX, USER_BYTES),
        1.0,
    ));
    let [least, most] = FLAT;
    for (what, values) in GROWTH.into_iter().zip(&growth) {
        let median = crate::measure::stats::Median::of(values);
        let value = median.map_or(f64::NAN, |median| median.value);
        figures.goals.push(Goal::between(what, value, least, most));
    }
    Ok(())
}

/// What a session more costs: memory, and processor time at idle.
const GROWTH: [&str; 2] = [
    "memory of each session from 10,000 on over that of each from 1,000 to 10,000",
    "idle processor time of each session from 10,000 on over that of each from 1,000 to 10,000",
];

/// Gives what a session more costs when there are many, over what it costs when there are
/// fewer: memory and processor time. What the first thousand bring with them (tables, pools,
/// the allocator's own) is in neither: over it, every further session would look cheap.
async fn dialhome(setup: &Setup, own: &Dialhome, figures: &mut Figures) -> Result<[f64; 2], Error> {
    let few = (setup.sessions / 19).max(1);
    let half = (setup.sessions * 10 / 19).max(few);
    let mut running = own.start(setup, &[]).await?;
    let mut clients = start(setup, running.address, Kind::Board, own.seats()).await?;
    let none = watch(setup, &mut running, 2).await?;
    let mut at = Vec::new();
    let mut opened = 0;
    for count in [few, half, setup.sessions] {
        clients.open(count - opened).await?;
        clients.idle().await?;
        opened = count;
        running.sessions(count).await?;
        at.push(watch(setup, &mut running, SETTLE_S).await?);
        running.sessions(count).await?;
        clients.check()?;
    }
    drop(clients);
    running.gateway.stop().await?;
    let [at_few, at_half, at_all] = &at[..] else {
        return Err(Error::new("three counts of sessions were to be measured"));
    };
    let of_first = at_few.more_than(&none, few);
    let of_lower = at_half.more_than(at_few, half - few);
    let of_upper = at_all.more_than(at_half, setup.sessions - half);
    let of_all = at_all.more_than(&none, setup.sessions);
    for (seen, bytes, micros) in [
        (&of_all, USER_BYTES, MICROS),
        (
            &of_first,
            "user_bytes_per_session_of_the_first_1000",
            "cpu of the first 1,000, each",
        ),
        (
            &of_lower,
            "user_bytes_per_session_from_1000_to_10000",
            "cpu from 1,000 to 10,000, each",
        ),
        (
            &of_upper,
            "user_bytes_per_session_from_10000_on",
            "cpu from 10,000 on, each",
        ),
    ] {
        figures.add(DIALHOME, bytes, "bytes", seen.bytes);
        figures.add(DIALHOME, micros, "us/s", seen.cpu * 1e6);
    }
    Ok([of_upper.bytes / of_lower.bytes, of_upper.cpu / of_lower.cpu])
}

/// A gateway's memory, in bytes, and its processor time in a second.
pub(super) struct Seen {
    pub(super) bytes: f64,
    pub(super) cpu: f64,
}

impl Seen {
    /// What each of so many sessions more has added since `before`.
    pub(super) fn more_than(&self, before: &Self, sessions: usize) -> Self {
        Self {
            bytes: (self.bytes - before.bytes) / sessions as f64,
            cpu: (self.cpu - before.cpu) / sessions as f64,
        }
    }
}

/// What the gateway takes, `settle_s` seconds from now.
pub(super) async fn watch(
    setup: &Setup,
    running: &mut Running,
    settle_s: usize,
) -> Result<Seen, Error> {
    running.renew().await?;
    for _ in 0..if setup.is_small() { 1 } else { settle_s } {
        running.admin.status().await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let pids = vec![running.gateway.id()];
    Ok(Seen {
        bytes: user_bytes(&pids)? as f64,
        cpu: idle_time(setup, pids).await?,
    })
}

/// Processor seconds of a second.
async fn idle_time(setup: &Setup, pids: Vec<u32>) -> Result<f64, Error> {
    let time = crate::measure::process::CpuTime::of(pids);
    let before = time.seconds();
    tokio::time::sleep(setup.window()).await;
    Ok((time.seconds() - before) / setup.window().as_secs_f64())
}

async fn mosquitto(setup: &Setup, figures: &mut Figures) -> Result<(), Error> {
    let seats = seats(setup.sessions);
    let broker = Mosquitto::start(&seats, None, None).await?;
    // What a device needs to be called: one topic of its own.
    let topics = Topics {
        own: true,
        shared: false,
    };
    let mut clients = start(setup, broker.address, Kind::Mqtt(topics), seats).await?;
    peer(
        setup,
        figures,
        MOSQUITTO,
        broker.server.pids(),
        &mut clients,
    )
    .await
}

async fn nginx(setup: &Setup, tls: bool, figures: &mut Figures) -> Result<(), Error> {
    let server = Nginx::start(&site::image(1, 1024), None, None).await?;
    // A connection counts as idle from its first answer on.
    let kind = Kind::Http {
        trusted: tls.then(|| server.certificate.clone()),
        first: "/hash".into(),
    };
    let (who, address) = if tls {
        (NGINX_TLS, server.tls)
    } else {
        (NGINX, server.plain)
    };
    let mut clients = start(setup, address, kind, seats(setup.sessions)).await?;
    peer(setup, figures, who, server.server.pids(), &mut clients).await
}

async fn start(
    setup: &Setup,
    server: SocketAddr,
    kind: Kind,
    seats: Vec<super::clients::Seat>,
) -> Result<Clients, Error> {
    let roll = Roll {
        server,
        kind,
        ping_s: PING_S,
        seats,
    };
    Clients::start(setup, roll, None).await
}

async fn peer(
    setup: &Setup,
    figures: &mut Figures,
    who: &'static str,
    pids: Vec<u32>,
    clients: &mut Clients,
) -> Result<(), Error> {
    // It has done what a start brings with it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let none = user_bytes(&pids)? as f64;
    let idle_without = idle_time(setup, pids.clone()).await?;
    let opening = async {
        clients.open(setup.sessions).await?;
        clients.idle().await
    };
    processor_time(pids.clone(), opening).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let full = user_bytes(&pids)? as f64;
    let idle = idle_time(setup, pids).await? - idle_without;
    clients.check()?;
    let sessions = setup.sessions as f64;
    figures.add(who, USER_BYTES, "bytes", (full - none) / sessions);
    figures.add(who, MICROS, "us/s", idle / sessions * 1e6);
    Ok(())
}
