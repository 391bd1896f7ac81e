//! The same update over TCP and over QUIC, on slow links at the level of IP packets: real
//! agents in network namespaces, and the real gateway.

mod courses;
mod journey;

use super::Setup;
use super::dialhome::Dialhome;
use super::figures::{Figures, Goal};
use super::happenings::Happenings;
use crate::Error;
use crate::ip::{CONGESTION_CONTROL, Field, GATEWAY_PORT};
use crate::site::{self, gateway::Gateway};
use courses::{Course, courses, image_of};
use journey::{Seen, Stage, travel};
use std::net::Ipv4Addr;
use std::sync::Arc;
use tokio::task::JoinSet;

/// The contenders. A ratio is one of the first over the second.
pub(super) const QUIC: &str = "Dialhome over QUIC";
/// See [`QUIC`].
pub(super) const TCP: &str = "the same over TCP";

const REDIALS: &str = "redials of all boards over QUIC because of a blackout";

/// One board's part in a run.
struct Leg {
    course: &'static Course,
    over_quic: bool,
    /// Its board, device and link.
    number: usize,
}

pub(super) async fn measure(setup: &Setup, figures: &mut Figures) -> Result<(), Error> {
    let courses = courses(setup.is_small());
    figures.notes.push(
        "sent again: over TCP the bytes of segments that were there before, as the link sees them in both directions; over QUIC the bytes of packets that the gateway took for lost"
            .to_owned(),
    );
    for course in courses {
        figures.notes.push(format!(
            "{}: {}, image of {} KiB",
            course.name,
            course.about(),
            image_of(setup, course).1 / 1024
        ));
    }
    let mut legs = Vec::new();
    let mut links = Vec::new();
    for round in 0..setup.rounds {
        for course in courses {
            for over_quic in [round % 2 == 0, round % 2 != 0] {
                legs.push(Leg {
                    course,
                    over_quic,
                    number: links.len(),
                });
                // Both of a round have the same luck.
                links.push((course.shape()?, round as u64 + 1));
            }
        }
    }
    let images: Vec<_> = courses::image_sizes(setup)
        .into_iter()
        .enumerate()
        .map(|(number, size)| site::image(number as u64 + 1, size))
        .collect();
    setup.says("transports", 0, "network namespaces");
    let field = Field::new(&links)?;
    figures.notes.push(format!(
        "real agents in network namespaces behind TUN devices, chunks of 4 KiB, a window of {} KiB, TCP with {}; a queue before each bottleneck of one round trip and a second more; bytes of IP packets of both directions from the offer to the last acknowledgement, those lost on the air included",
        journey::WINDOW / 1024,
        CONGESTION_CONTROL,
    ));
    let own = Dialhome::new(legs.len(), &images).await?;
    let listen = (Ipv4Addr::UNSPECIFIED, GATEWAY_PORT).into();
    let within = Some(field.gateway());
    let gateway = Gateway::start(&setup.gateway, &own.site, listen, &[], within).await?;
    let happenings = Happenings::follow(setup, &own.site)?;
    let pin = pin(&gateway).await?;
    let stage = Arc::new(Stage {
        setup: setup.clone(),
        field,
        own,
        gateway,
        happenings,
        pin,
    });
    // Those that take little of the air take much of the processor: one after another.
    let (quick, slow): (Vec<_>, Vec<_>) = legs.into_iter().partition(|leg| leg.course.quick);
    for leg in quick {
        setup.says("transports", leg.number / (2 * courses.len()), &leg.name());
        let seen = travel(&stage, leg.course, leg.over_quic, leg.number).await?;
        add(figures, &leg, &seen);
    }
    setup.says("transports", 0, "all slow links of all rounds at once");
    let mut travels = JoinSet::new();
    for leg in slow {
        let stage = Arc::clone(&stage);
        travels.spawn(async move {
            let seen = travel(&stage, leg.course, leg.over_quic, leg.number).await;
            (leg, seen)
        });
    }
    let mut redials = 0;
    let mut arrived = Vec::new();
    while let Some(done) = travels.join_next().await {
        let (leg, seen) = done.map_err(|error| Error::of("a board's task", &error))?;
        let seen = seen.map_err(|error| Error::of(&leg.name(), &error))?;
        if leg.over_quic && leg.course.dark.is_some() {
            redials += seen.redials;
        }
        arrived.push((leg, seen));
    }
    // In the order of the table, not of arrival.
    arrived.sort_by_key(|(leg, _)| leg.number);
    for (leg, seen) in &arrived {
        add(figures, leg, seen);
    }
    figures
        .goals
        .push(Goal::at_most(REDIALS, redials as f64, 0.0));
    Ok(())
}

impl Leg {
    fn name(&self) -> String {
        let over = if self.over_quic { "QUIC" } else { "TCP" };
        format!("{} over {over}", self.course.name)
    }
}

/// The pin of the gateway's key, in hex.
pub(super) async fn pin(gateway: &Gateway) -> Result<String, Error> {
    let status = gateway.admin().await?.status().await?;
    let pin = status["quic"]["pin"].as_str();
    pin.map(str::to_owned)
        .ok_or_else(|| Error::new("the gateway's status has no pin for QUIC"))
}

fn add(figures: &mut Figures, leg: &Leg, seen: &Seen) {
    let who = if leg.over_quic { QUIC } else { TCP };
    let keys = &leg.course.keys;
    let size = seen.size as f64;
    figures.add(who, keys.welcome, "ms", seen.welcome.as_secs_f64() * 1e3);
    if let Some(recovery) = seen.recovery {
        figures.add(who, keys.recovery, "s", recovery.as_secs_f64());
        figures.add(who, keys.redials, "sessions", seen.redials as f64);
        figures.add(who, keys.twice, "KiB", seen.twice as f64 / 1024.0);
    } else {
        figures.add(who, keys.transfer, "s", seen.transfer.as_secs_f64());
    }
    let beyond = (seen.air as f64 / size - 1.0) * 100.0;
    figures.add(who, keys.air, "%", beyond);
    figures.add(
        who,
        keys.again,
        "% of the image",
        seen.again as f64 / size * 100.0,
    );
}
