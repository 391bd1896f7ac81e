//! What an image costs on the air: IP bytes of both directions over its size.

use super::Setup;
use super::agent::{Agent, Settings};
use super::clients::{Clients, Fetch, Kind, Roll, Topics, seats};
use super::dialhome::Dialhome;
use super::events::Events;
use super::figures::{Figures, Goal};
use super::network::{self, Crossed, Link};
use super::peers::mosquitto::Mosquitto;
use super::peers::nginx::Nginx;
use crate::Error;
use crate::site;
use crate::site::admin::Admin;
use crate::site::gateway::Gateway;
use sha2::{Digest as _, Sha256};
use std::path::Path;
use std::time::{Duration, Instant};

const MOSQUITTO: &str = "mosquitto, plaintext, QoS 1, 1 KiB";
const RANGE: &str = "nginx, plaintext, Range 4 KiB";
const TLS: &str = "nginx, TLS 1.3, whole file";
const IMAGE_MAX: usize = 256 * 1024;
const PATIENCE: Duration = Duration::from_secs(60);

/// What is measured over an open connection, and with all that belongs to it.
struct Keys {
    transfer: &'static str,
    whole: &'static str,
}

const OFF: Keys = Keys {
    transfer: "over an open connection, beyond the image",
    whole: "from the first dial to the end, beyond the image",
};
const ON: Keys = Keys {
    transfer: "the same with TCP timestamps, over an open connection",
    whole: "the same with TCP timestamps, from the first dial",
};

/// A board's buffers.
struct Case {
    who: &'static str,
    receive_buffer: u16,
    window: u32,
}

const FOUR: &str = "Dialhome, chunks of 4 KiB";
const ONE: &str = "Dialhome, chunks of 1 KiB";
const CASES: [Case; 3] = [
    Case {
        who: FOUR,
        receive_buffer: 4126,
        window: 256 * 1024,
    },
    Case {
        who: ONE,
        receive_buffer: 1088,
        window: 256 * 1024,
    },
    Case {
        who: "Dialhome, chunks of 1 KiB, window of 8 KiB",
        receive_buffer: 1088,
        window: 8 * 1024,
    },
];

pub(super) async fn measure(setup: &Setup, figures: &mut Figures) -> Result<(), Error> {
    let link = Link::new()?;
    let image = site::image(3, setup.image.min(IMAGE_MAX));
    figures.notes.push(format!(
        "image of {} KiB, network namespaces, MTU 1500, offloads off; bytes of IP packets of both directions, without the image's own. The whole of Dialhome: dial, offer, image, restart, dial, confirmed; of the others: connect, image, close",
        image.len() / 1024
    ));
    let own = Own::start(setup, &link, &image).await?;
    let broker_seats = seats(1).into_iter().map(|mut seat| {
        seat.source = None;
        seat
    });
    let broker_seats: Vec<_> = broker_seats.collect();
    let at = Some(network::ADDRESS.into());
    let broker = Mosquitto::start(&broker_seats, at, Some(link.gateway.name())).await?;
    let web = Nginx::start(&image, at, Some(link.gateway.name())).await?;
    let file = web.server.folder().join("files/image");
    let mut own = own;
    for round in 0..setup.rounds {
        for (timestamps, keys) in [(false, OFF), (true, ON)] {
            link.timestamps(timestamps)?;
            for (number, case) in CASES.iter().enumerate() {
                setup.says("air", round, case.who);
                let board = (round * 2 + usize::from(timestamps)) * CASES.len() + number;
                own.deliver(setup, &link, board, case, &keys, figures)
                    .await?;
            }
            let fetch = |path: &str, range| Fetch {
                path: path.into(),
                range,
                size: image.len(),
                sha256: Sha256::digest(&image).into(),
            };
            let roll = |server, kind| Roll {
                server,
                kind,
                ping_s: 0,
                seats: broker_seats.clone(),
            };
            let http = |tls: bool| Kind::Http {
                trusted: tls.then(|| web.certificate.clone()),
                first: String::new(),
            };
            setup.says("air", round, MOSQUITTO);
            let topics = |shared| Kind::Mqtt(Topics { own: false, shared });
            let mut publisher = roll(broker.address, topics(false));
            publisher.seats = vec![broker.publisher.clone()];
            let mut publisher = Clients::start(setup, publisher, Some(link.gateway.name())).await?;
            publisher.open(1).await?;
            let client = roll(broker.address, topics(true));
            let source = Some((&mut publisher, file.as_path()));
            peer(
                setup,
                &link,
                client,
                fetch("", 0),
                source,
                (MOSQUITTO, &keys),
                figures,
            )
            .await?;
            for (who, tls, range) in [(RANGE, false, 4096), (TLS, true, 0)] {
                setup.says("air", round, who);
                let client = roll(if tls { web.tls } else { web.plain }, http(tls));
                let fetch = fetch("/image", range);
                peer(setup, &link, client, fetch, None, (who, &keys), figures).await?;
            }
        }
    }
    own.gateway.stop().await?;
    for (what, who, bound) in [
        ("percent beyond the image, chunks of 1 KiB", ONE, 8.0),
        ("percent beyond the image, chunks of 4 KiB", FOUR, 6.0),
    ] {
        let value = figures.median(who, OFF.transfer);
        figures.goals.push(Goal::at_most(what, value, bound));
    }
    Ok(())
}

/// Dialhome's side: one gateway, and a board for each measurement.
struct Own {
    data: Dialhome,
    gateway: Gateway,
    admin: Admin,
    events: Events,
    size: usize,
}

impl Own {
    async fn start(setup: &Setup, link: &Link, image: &[u8]) -> Result<Self, Error> {
        let boards = setup.rounds * 2 * CASES.len();
        let data = Dialhome::new(boards, &[image.to_vec()]).await?;
        let listen = (network::ADDRESS, 7040).into();
        let within = Some(link.gateway.name());
        let gateway = Gateway::start(&setup.gateway, &data.site, listen, &[], within).await?;
        Ok(Self {
            admin: gateway.admin().await?,
            events: Events::follow(setup, &data.site)?,
            data,
            gateway,
            size: image.len(),
        })
    }

    /// One board, from its first dial to `confirmed`.
    async fn deliver(
        &mut self,
        setup: &Setup,
        link: &Link,
        board: usize,
        case: &Case,
        keys: &Keys,
        figures: &mut Figures,
    ) -> Result<(), Error> {
        let Some(device) = self.data.devices.get(board) else {
            return Err(Error::new("there are too few devices"));
        };
        // The gateway closes an admin connection that was silent for 30 s.
        self.admin = self.gateway.admin().await?;
        let before = link.crossed()?;
        let settings = Settings {
            gateway: (network::ADDRESS, 7040).into(),
            receive_buffer: case.receive_buffer,
            window: case.window,
            pin: None,
        };
        let agent = Agent::start(
            setup,
            &self.data.site,
            device,
            &settings,
            Some(link.board.name()),
        )?;
        sessions(&mut self.admin, 1).await?;
        quiet(setup, link).await?;
        let online = link.crossed()?;
        let update = self.admin.push(&device.id, 0).await?;
        self.events.reached(&update, "verifying", PATIENCE).await?;
        let acknowledged = link.crossed()?;
        self.events.reached(&update, "confirmed", PATIENCE).await?;
        quiet(setup, link).await?;
        let whole = link.crossed()? - before;
        drop(agent);
        sessions(&mut self.admin, 0).await?;
        figures.add(
            case.who,
            keys.transfer,
            "%",
            percent(acknowledged - online, self.size),
        );
        figures.add(case.who, keys.whole, "%", percent(whole, self.size));
        Ok(())
    }
}

/// Waits until so many sessions are open.
async fn sessions(admin: &mut Admin, count: u64) -> Result<(), Error> {
    let until = Instant::now() + PATIENCE;
    while admin.status().await?["sessions"] != count {
        if Instant::now() > until {
            return Err(Error::new(format!("there are not {count} sessions")));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// A client of a peer that connects, takes the file and leaves.
async fn peer(
    setup: &Setup,
    link: &Link,
    roll: Roll,
    fetch: Fetch,
    source: Option<(&mut Clients, &Path)>,
    (who, keys): (&'static str, &Keys),
    figures: &mut Figures,
) -> Result<(), Error> {
    let mut client = Clients::start(setup, roll, Some(link.board.name())).await?;
    let before = link.crossed()?;
    client.open(1).await?;
    quiet(setup, link).await?;
    let connected = link.crossed()?;
    client.fetch(&fetch).await?;
    if let Some((publisher, file)) = source {
        publisher.publish(file.to_owned(), 1024).await?;
    }
    client.fetched(fetch.size as u64).await?;
    quiet(setup, link).await?;
    let fetched = link.crossed()?;
    drop(client);
    quiet(setup, link).await?;
    let whole = link.crossed()? - before;
    figures.add(
        who,
        keys.transfer,
        "%",
        percent(fetched - connected, fetch.size),
    );
    figures.add(who, keys.whole, "%", percent(whole, fetch.size));
    Ok(())
}

/// What crossed beyond the image, in percent of it.
fn percent(crossed: Crossed, size: usize) -> f64 {
    (crossed.bytes as f64 / size as f64 - 1.0) * 100.0
}

/// Waits until nothing has crossed for a while: TCP acknowledges late.
async fn quiet(setup: &Setup, link: &Link) -> Result<(), Error> {
    let pause = Duration::from_millis(if setup.is_small() { 100 } else { 300 });
    let until = Instant::now() + PATIENCE;
    let mut last = link.crossed()?;
    loop {
        tokio::time::sleep(pause).await;
        let now = link.crossed()?;
        if now.packets == last.packets {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(Error::new("the link does not become quiet"));
        }
        last = now;
    }
}
