//! Connections that are authenticated, per second of the server's processor time.

use super::clients::{Clients, Kind, Roll, Seat, Topics, seats};
use super::dialhome::Dialhome;
use super::figures::{DIALHOME, Figures, Goal};
use super::peers::mosquitto::Mosquitto;
use super::peers::nginx::Nginx;
use super::{Setup, processor_time};
use crate::Error;
use crate::site;
use std::net::SocketAddr;

const RATE: &str = "connections_per_core_second";
const WELCOMED: &str = "Dialhome, with Hello and Welcome";
const MOSQUITTO: &str = "mosquitto, password, no secrecy";
const NGINX_TLS: &str = "nginx, TLS 1.3 ECDSA, no device";
/// Connections of a round, most.
const MOST: usize = 10_000;
/// Handshakes under way at a time.
const AT_ONCE: usize = 64;
const GOAL_RATE: f64 = 10_000.0;

pub(super) async fn measure(setup: &Setup, figures: &mut Figures) -> Result<(), Error> {
    let count = setup.sessions.min(MOST);
    let own = Dialhome::new(setup.sessions, &[]).await?;
    figures.notes.push(format!(
        "{count} connections a round, {AT_ONCE} at a time, each of another of {} devices, each closed again; processor time until the server is quiet",
        setup.sessions
    ));
    for round in 0..setup.rounds {
        for (who, kind) in [(DIALHOME, Kind::Handshake), (WELCOMED, Kind::Board)] {
            setup.says("connect", round, who);
            let running = own.start(setup, &[]).await?;
            let pids = vec![running.gateway.id()];
            let rate = rate(setup, count, pids, running.address, kind, own.seats()).await?;
            figures.add(who, RATE, "1/s", rate);
            running.gateway.stop().await?;
        }
        setup.says("connect", round, MOSQUITTO);
        let seats = seats(setup.sessions);
        let broker = Mosquitto::start(&seats, None, None).await?;
        let topics = Topics {
            own: false,
            shared: false,
        };
        let pids = broker.server.pids();
        let kind = Kind::Mqtt(topics);
        let value = rate(setup, count, pids, broker.address, kind, seats.clone()).await?;
        figures.add(MOSQUITTO, RATE, "1/s", value);
        drop(broker);
        setup.says("connect", round, NGINX_TLS);
        let server = Nginx::start(&site::image(1, 1024), None, None).await?;
        let kind = Kind::Http {
            trusted: Some(server.certificate.clone()),
            first: String::new(),
        };
        let pids = server.server.pids();
        let value = rate(setup, count, pids, server.tls, kind, seats).await?;
        figures.add(NGINX_TLS, RATE, "1/s", value);
    }
    figures.goals.push(Goal::at_least(
        "handshakes answered per second and core",
        figures.median(DIALHOME, RATE),
        GOAL_RATE,
    ));
    for (what, who) in [
        (
            "handshakes answered over mosquitto's connections",
            MOSQUITTO,
        ),
        ("handshakes answered over nginx's", NGINX_TLS),
    ] {
        let ratio = figures.median(DIALHOME, RATE) / figures.median(who, RATE);
        figures.goals.push(Goal::at_least(what, ratio, 1.0));
    }
    // A broker's CONNACK is the end of its work, as Welcome is.
    let ratio = figures.median(WELCOMED, RATE) / figures.median(MOSQUITTO, RATE);
    let what = "boards welcomed over mosquitto's connections";
    figures.goals.push(Goal::at_least(what, ratio, 1.0));
    Ok(())
}

async fn rate(
    setup: &Setup,
    count: usize,
    pids: Vec<u32>,
    server: SocketAddr,
    kind: Kind,
    seats: Vec<Seat>,
) -> Result<f64, Error> {
    let roll = Roll {
        server,
        kind,
        ping_s: 60,
        seats,
    };
    let mut clients = Clients::start(setup, roll, None).await?;
    let (seconds, ()) = processor_time(pids, clients.dial(count, AT_ONCE)).await?;
    Ok(count as f64 / seconds)
}
