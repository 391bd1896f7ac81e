//! What it costs the server to deliver an image to many devices.

use super::clients::mqtt::Mqtt;
use super::clients::{Clients, Fetch, Kind, Roll, SHARED_TOPIC, Topics, seats};
use super::crews::{Company, Crews};
use super::dialhome::Dialhome;
use super::figures::{DIALHOME, Figures, Goal};
use super::peers::mosquitto::Mosquitto;
use super::peers::nginx::Nginx;
use super::{Setup, processor_time};
use crate::Error;
use crate::fleet::words::Link;
use crate::measure::process::CpuTime;
use crate::site;
use hyper::Method;
use sha2::{Digest as _, Sha256};
use std::time::Duration;

const COST: &str = "cpu_s_per_gib";
const GIB: f64 = 1024.0 * 1024.0 * 1024.0;
const MOSQUITTO: &str = "mosquitto, plaintext, QoS 1, 4 KiB";
const NGINX: [(&str, bool, u32); 4] = [
    ("nginx, plaintext, whole file", false, 0),
    ("nginx, TLS 1.3, whole file", true, 0),
    ("nginx, plaintext, Range 4 KiB", false, CHUNK),
    ("nginx, TLS 1.3, Range 4 KiB", true, CHUNK),
];
const CHUNK: u32 = 4096;
/// Devices, most.
const DEVICES: usize = 1_000;
/// A delivery takes at most so long, whoever does it.
const PATIENCE: Duration = Duration::from_secs(300);
const GOAL_COST: f64 = 1.25;

pub(super) async fn measure(setup: &Setup, figures: &mut Figures) -> Result<(), Error> {
    let devices = setup.sessions.min(DEVICES);
    figures.notes.push(format!(
        "{} KiB to each of {devices} devices that are connected already; each client checks what came. Dialhome: encrypted, chunks of 4 KiB with CRC, windows of 256 KiB, acknowledged as on flash, recorded; the operator's commands are a figure of their own, what the peers' servers do until they are quiet again is counted",
        setup.image / 1024
    ));
    for round in 0..setup.rounds {
        // Another image each round: nothing is prepared for it.
        let image = site::image(round as u64, setup.image);
        setup.says("deliver", round, DIALHOME);
        dialhome(setup, &image, devices, figures).await?;
        setup.says("deliver", round, MOSQUITTO);
        mosquitto(setup, &image, devices, figures).await?;
        for (who, tls, range) in NGINX {
            setup.says("deliver", round, who);
            nginx(setup, &image, devices, (who, tls, range), figures).await?;
        }
    }
    let own = figures.median(DIALHOME, COST);
    figures
        .goals
        .push(Goal::at_most("CPU seconds per GiB", own, GOAL_COST));
    let [_, (whole, ..), ..] = NGINX;
    for (what, who) in [
        (
            "CPU seconds per GiB over mosquitto's in plaintext",
            MOSQUITTO,
        ),
        (
            "CPU seconds per GiB over nginx's with TLS, whole file",
            whole,
        ),
    ] {
        let ratio = own / figures.median(who, COST);
        figures.goals.push(Goal::at_most(what, ratio, 1.0));
    }
    Ok(())
}

async fn dialhome(
    setup: &Setup,
    image: &[u8],
    devices: usize,
    figures: &mut Figures,
) -> Result<(), Error> {
    let own = Dialhome::new(devices, &[image.to_vec()]).await?;
    let mut running = own.start(setup, &[]).await?;
    let company = Company {
        site: &own.site,
        gateway: running.address,
        devices: &own.devices,
        image,
        link: Link {
            name: "loopback".into(),
            ..Link::default()
        },
        receive_buffer: 4126,
        window: 256 * 1024,
    };
    let mut crews = Crews::start(setup, &company).await?;
    let all = devices as u64;
    crews
        .until("boards online", PATIENCE, |tick| tick.online, all)
        .await?;
    running.sessions(devices).await?;
    let time = CpuTime::of(vec![running.gateway.id()]);
    running.admin.call(Method::POST, "/v1/hold", None).await?;
    let before = time.seconds();
    for device in &own.devices {
        running.admin.push(&device.id, 0).await?;
    }
    let commands = time.seconds() - before;
    let bytes = all * image.len() as u64;
    let delivering = async {
        let before = time.seconds();
        running
            .admin
            .call(Method::POST, "/v1/release", None)
            .await?;
        crews
            .until("bytes on flash", PATIENCE, |tick| tick.committed, bytes)
            .await?;
        Ok(time.seconds() - before)
    };
    let (whole, until_acknowledged) =
        processor_time(vec![running.gateway.id()], delivering).await?;
    running.renew().await?;
    let states = running.admin.status().await?["updates"].clone();
    let done: u64 = ["verifying", "staged", "activating"]
        .iter()
        .filter_map(|state| states[state].as_u64())
        .sum();
    if done != all {
        return Err(Error::new(format!(
            "{done} of {devices} boards have the image: {states}"
        )));
    }
    drop(crews);
    running.gateway.stop().await?;
    let per = GIB / bytes as f64;
    figures.add(DIALHOME, COST, "s", until_acknowledged * per);
    figures.add(
        DIALHOME,
        "the same until all are staged and restart",
        "s",
        whole * per,
    );
    figures.add(
        DIALHOME,
        "the operator's commands before it, one a device",
        "s",
        commands * per,
    );
    Ok(())
}

fn fetch(image: &[u8], path: &str, range: u32) -> Fetch {
    Fetch {
        path: path.into(),
        range,
        size: image.len(),
        sha256: Sha256::digest(image).into(),
    }
}

async fn mosquitto(
    setup: &Setup,
    image: &[u8],
    devices: usize,
    figures: &mut Figures,
) -> Result<(), Error> {
    let seats = seats(devices);
    let broker = Mosquitto::start(&seats, None, None).await?;
    let topics = Topics {
        own: false,
        shared: true,
    };
    let roll = Roll {
        server: broker.address,
        kind: Kind::Mqtt(topics),
        ping_s: 0,
        seats,
    };
    let mut clients = Clients::start(setup, roll, None).await?;
    clients.open(devices).await?;
    let mut publisher = Mqtt::publisher(broker.address, &broker.publisher).await?;
    let delivering = async {
        clients.fetch(&fetch(image, "", 0)).await?;
        // One publication reaches all: the cheapest way that there is.
        publisher
            .publish_file(SHARED_TOPIC, image, CHUNK as usize)
            .await?;
        clients.fetched((devices * image.len()) as u64).await
    };
    let (seconds, ()) = processor_time(broker.server.pids(), delivering).await?;
    figures.add(
        MOSQUITTO,
        COST,
        "s",
        seconds * GIB / (devices * image.len()) as f64,
    );
    Ok(())
}

async fn nginx(
    setup: &Setup,
    image: &[u8],
    devices: usize,
    (who, tls, range): (&'static str, bool, u32),
    figures: &mut Figures,
) -> Result<(), Error> {
    let server = Nginx::start(image, None, None).await?;
    let roll = Roll {
        server: if tls { server.tls } else { server.plain },
        kind: Kind::Http {
            trusted: tls.then(|| server.certificate.clone()),
            first: "/hash".into(),
        },
        ping_s: 0,
        seats: seats(devices),
    };
    let mut clients = Clients::start(setup, roll, None).await?;
    clients.open(devices).await?;
    let delivering = async {
        clients.fetch(&fetch(image, "/image", range)).await?;
        clients.fetched((devices * image.len()) as u64).await
    };
    let (seconds, ()) = processor_time(server.server.pids(), delivering).await?;
    figures.add(
        who,
        COST,
        "s",
        seconds * GIB / (devices * image.len()) as f64,
    );
    Ok(())
}
