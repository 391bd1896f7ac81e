//! How long after an operator's command the first byte of it is at the board.

use super::Setup;
use super::clients::mqtt::Mqtt;
use super::clients::{Clients, Kind, Roll, SHARED_TOPIC, Seat, Topics, seats, topic};
use super::crews::{Company, Crews};
use super::dialhome::{Dialhome, Running};
use super::figures::{DIALHOME, Figures, Goal};
use super::peers::mosquitto::Mosquitto;
use crate::Error;
use crate::fleet::words::Link;
use crate::measure::{clock, stats};
use crate::site;
use hyper::Method;
use std::time::Duration;

const MOSQUITTO: &str = "mosquitto, QoS 1";
/// Pushes of each case and round.
const PUSHES: usize = 600;
/// A quiet moment between two pushes.
const PAUSE: Duration = Duration::from_millis(2);
/// Downloads beside the pushes, most.
const DOWNLOADS: usize = 1_000;
/// Bits per second of each download: a 3G link. All of them together leave the machine
/// time for what is measured.
const DOWNLOAD_BITS_PER_S: u64 = 256_000;
/// Clients that dial beside the pushes, most: each comes again and again, no gateway takes one
/// more than some times a minute.
const STORM: usize = 4_000;
/// Handshakes of them under way at a time: more than the gateway can take.
const STORM_AT_ONCE: usize = 64;
/// As long as the downloads must last, in seconds.
const DOWNLOAD_S: usize = 60;
/// Bytes of a message of mosquitto's: an Offer has as many.
const MESSAGE: usize = 300;
/// Messages of downloads by MQTT, in bytes.
const PIECE: usize = 4096;

/// Keys of a case's p50 and p99.
struct Case {
    p50: &'static str,
    p99: &'static str,
    ratio: &'static str,
}

const ONE: Case = Case {
    p50: "push to first byte, N = 1, p50",
    p99: "push to first byte, N = 1, p99",
    ratio: "",
};
const MANY: Case = Case {
    p50: "push to first byte, N idle, p50",
    p99: "push to first byte, N idle, p99",
    ratio: "p99, N idle over own N = 1",
};
const BUSY: Case = Case {
    p50: "push to first byte, N idle and 1,000 that download, p50",
    p99: "push to first byte, N idle and 1,000 that download, p99",
    ratio: "p99, N idle and 1,000 that download over own N = 1",
};
const STORMY: Case = Case {
    p50: "push to first byte, N idle and a storm of handshakes, p50",
    p99: "push to first byte, N idle and a storm of handshakes, p99",
    ratio: "p99, N idle and a storm of handshakes over the same without it",
};
const STORM_RATE: &str = "handshakes beside the pushes";

pub(super) async fn measure(setup: &Setup, figures: &mut Figures) -> Result<(), Error> {
    let fitting = fitting(setup);
    if fitting < setup.sessions {
        figures.notes.push(format!(
            "N is {fitting} and not {}: a process may have {} open files here, and the server needs them for {DOWNLOADS} downloads as well",
            setup.sessions,
            open_files()
        ));
    }
    let setup = &Setup {
        sessions: fitting,
        ..setup.clone()
    };
    let downloads = setup.sessions.min(DOWNLOADS);
    let own = Dialhome::new(
        setup.sessions + storm(setup) + downloads * setup.rounds,
        &[site::image(1, 64), download()],
    )
    .await?;
    figures.notes.push(format!(
        "N = {}, {} pushes of each case and round, each to the next of all idle boards; {downloads} downloads of {} kbit/s each; or {} others that dial, {STORM_AT_ONCE} at a time, as fast as they are answered, and leave: the processes of both run when no other wants to. Dialhome records each push on tmpfs before it sends it, mosquitto keeps nothing",
        setup.sessions,
        pushes(setup),
        DOWNLOAD_BITS_PER_S / 1000,
        storm(setup)
    ));
    for round in 0..setup.rounds {
        setup.says("push", round, DIALHOME);
        dialhome(setup, &own, round, figures).await?;
        setup.says("push", round, MOSQUITTO);
        mosquitto(setup, figures).await?;
    }
    for (case, bound) in [(MANY, 1.2), (BUSY, 2.0), (STORMY, 2.0)] {
        let ratio = figures.median(DIALHOME, case.ratio);
        figures.goals.push(Goal::at_most(case.ratio, ratio, bound));
    }
    let ratio = figures.median(DIALHOME, MANY.p99) / figures.median(MOSQUITTO, MANY.p99);
    let what = "p99, N idle over mosquitto's";
    figures.goals.push(Goal::at_most(what, ratio, 1.0));
    Ok(())
}

/// Open files that a process may have.
fn open_files() -> usize {
    use rustix::process::{Resource, getrlimit};
    getrlimit(Resource::Nofile)
        .maximum
        .and_then(|most| usize::try_from(most).ok())
        .unwrap_or(usize::MAX)
}

/// Idle sessions for which a server has open files beside the downloads and what else it opens.
fn fitting(setup: &Setup) -> usize {
    const SPARE: usize = 256;
    let most = open_files().saturating_sub(setup.sessions.min(DOWNLOADS) + SPARE);
    setup.sessions.min(most).max(1)
}

/// Clients that dial beside the pushes.
fn storm(setup: &Setup) -> usize {
    setup.sessions.min(STORM)
}

/// What is downloaded: long enough for the pushes beside it.
fn download() -> Vec<u8> {
    let per_s = usize::try_from(DOWNLOAD_BITS_PER_S / 8).unwrap_or(0);
    site::image(2, per_s * DOWNLOAD_S)
}

const fn pushes(setup: &Setup) -> usize {
    if setup.is_small() { 20 } else { PUSHES }
}

/// Adds a case's percentiles, in microseconds; gives its p99.
fn add(
    figures: &mut Figures,
    who: &'static str,
    case: &Case,
    mut times: Vec<f64>,
    one: Option<f64>,
) -> Result<f64, Error> {
    times.sort_by(f64::total_cmp);
    let of = |share| stats::percentile(&times, share).ok_or_else(|| Error::new("no pushes"));
    let p99 = of(0.99)?;
    figures.add(who, case.p50, "us", of(0.5)?);
    figures.add(who, case.p99, "us", p99);
    if let Some(one) = one {
        figures.add(who, case.ratio, "times", p99 / one);
    }
    Ok(p99)
}

async fn dialhome(
    setup: &Setup,
    own: &Dialhome,
    round: usize,
    figures: &mut Figures,
) -> Result<(), Error> {
    let limits = ["--transfers-max", "--network-transfers"]
        .map(|limit| [limit.to_owned(), (2 * DOWNLOADS).to_string()])
        .concat();
    let mut running = own.start(setup, &limits).await?;
    let mut idle = own.seats();
    idle.truncate(setup.sessions);
    let roll = Roll {
        server: running.address,
        kind: Kind::Board,
        ping_s: 600,
        seats: idle.clone(),
    };
    let mut clients = Clients::start(setup, roll, None).await?;
    clients.open_first().await?;
    clients.idle().await?;
    running.sessions(1).await?;
    let times = push_all(setup, &mut running, &mut clients, &idle[..1]).await?;
    let one = add(figures, DIALHOME, &ONE, times, None)?;
    clients.open(setup.sessions - 1).await?;
    clients.idle().await?;
    running.sessions(setup.sessions).await?;
    let times = push_all(setup, &mut running, &mut clients, &idle).await?;
    let many = add(figures, DIALHOME, &MANY, times, Some(one))?;

    let mut stormers = own.seats().split_off(setup.sessions);
    stormers.truncate(storm(setup));
    let roll = Roll {
        server: running.address,
        kind: Kind::Handshake,
        ping_s: 0,
        seats: stormers,
    };
    let stormers = Clients::start(setup, roll, None).await?;
    let pushes = push_all(setup, &mut running, &mut clients, &idle);
    let (times, rate) = beside_storm(stormers, storm(setup), pushes).await?;
    add(figures, DIALHOME, &STORMY, times, Some(many))?;
    figures.add(DIALHOME, STORM_RATE, "1/s", rate);
    running.sessions(setup.sessions).await?;

    let downloads = setup.sessions.min(DOWNLOADS);
    let first = setup.sessions + storm(setup) + round * downloads;
    let devices = own
        .devices
        .get(first..first + downloads)
        .ok_or_else(|| Error::new("there are too few devices"))?;
    let image = download();
    let size = image.len();
    let company = Company {
        site: &own.site,
        gateway: running.address,
        devices,
        image: &image,
        link: Link {
            name: "3g".into(),
            down_bits_per_s: DOWNLOAD_BITS_PER_S,
            up_bits_per_s: DOWNLOAD_BITS_PER_S,
            round_trip_ms: 200,
            ..Link::default()
        },
        receive_buffer: 1088,
        window: 32 * 1024,
    };
    let mut crews = Crews::start(setup, &company).await?;
    crews.give_way().await?;
    let all = downloads as u64;
    let patience = Duration::from_secs(120);
    crews
        .until("boards online", patience, |tick| tick.online, all)
        .await?;
    running.sessions(setup.sessions + downloads).await?;
    running.admin.call(Method::POST, "/v1/hold", None).await?;
    for device in devices {
        running.admin.push(&device.id, 1).await?;
    }
    running
        .admin
        .call(Method::POST, "/v1/release", None)
        .await?;
    let some = all * 1024;
    crews
        .until("bytes on flash", patience, |tick| tick.committed, some)
        .await?;
    let before = crews.now(|tick| tick.committed)?;
    let began = tokio::time::Instant::now();
    let times = push_all(setup, &mut running, &mut clients, &idle).await?;
    let took = began.elapsed().as_secs_f64();
    let moved = crews.now(|tick| tick.committed)? - before;
    if moved == 0 || moved + before >= all * size as u64 {
        return Err(Error::new(
            "the downloads did not last as long as the pushes",
        ));
    }
    add(figures, DIALHOME, &BUSY, times, Some(one))?;
    figures.add(
        DIALHOME,
        "downloads beside the pushes",
        "MiB/s",
        moved as f64 / took / 1024.0 / 1024.0,
    );
    clients.check()?;
    drop((clients, crews));
    running.gateway.stop().await
}

/// Does `work` while clients dial, authenticate and leave, as fast as they are answered; gives
/// what it gave, and connections in a second. All of them have dialed once before it begins, and
/// dials are under way as long as it lasts.
async fn beside_storm<T>(
    mut clients: Clients,
    count: usize,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<(T, f64), Error> {
    clients.give_way().await?;
    clients.dial(count, STORM_AT_ONCE).await?;
    let began = tokio::time::Instant::now();
    let (mut dialed, mut done) = (0, None);
    tokio::pin!(work);
    while done.is_none() {
        let dialing = clients.dial(count, STORM_AT_ONCE);
        tokio::pin!(dialing);
        loop {
            tokio::select! {
                gave = &mut work, if done.is_none() => done = Some(gave?),
                dialed = &mut dialing => break dialed?,
            }
        }
        dialed += count;
    }
    let rate = dialed as f64 / began.elapsed().as_secs_f64();
    done.map(|gave| (gave, rate))
        .ok_or_else(|| Error::new("nothing was done beside the storm"))
}

/// Pushes to one after the other of these, and gives the microseconds that each took.
async fn push_all(
    setup: &Setup,
    running: &mut Running,
    clients: &mut Clients,
    seats: &[Seat],
) -> Result<Vec<f64>, Error> {
    let mut times = Vec::new();
    for number in 0..pushes(setup) {
        let Some(seat) = pick(seats, number) else {
            break;
        };
        let began = clock::now_ns();
        let update = running.admin.push(&seat.id, 0).await?;
        let heard = clients.heard(&seat.id, began).await?;
        times.push((heard - began) as f64 / 1000.0);
        // The board declines it; then the next may come.
        let path = format!("/v1/updates/{update}");
        let until = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            let state = running.admin.call(Method::GET, &path, None).await?["state"].clone();
            if state == "declined" {
                break;
            }
            if tokio::time::Instant::now() > until {
                return Err(Error::new(format!(
                    "a push was not declined but is {state}"
                )));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(times)
}

/// Seats all over the list, none soon again.
fn pick(seats: &[Seat], number: usize) -> Option<&Seat> {
    seats.get((number * 7_919) % seats.len().max(1))
}

async fn mosquitto(setup: &Setup, figures: &mut Figures) -> Result<(), Error> {
    let downloads = setup.sessions.min(DOWNLOADS);
    let idle = seats(setup.sessions + downloads + storm(setup));
    let broker = Mosquitto::start(&idle, None, None).await?;
    let (idle, others) = idle.split_at(setup.sessions);
    let (loading, stormers) = others.split_at(downloads);
    let roll = |seats: &[Seat], own| Roll {
        server: broker.address,
        kind: Kind::Mqtt(Topics { own, shared: !own }),
        ping_s: 600,
        seats: seats.to_vec(),
    };
    let mut clients = Clients::start(setup, roll(idle, true), None).await?;
    let mut publisher = Mqtt::publisher(broker.address, &broker.publisher).await?;
    clients.open_first().await?;
    clients.idle().await?;
    let times = publish_all(setup, &mut publisher, &mut clients, &idle[..1]).await?;
    let one = add(figures, MOSQUITTO, &ONE, times, None)?;
    clients.open(setup.sessions - 1).await?;
    clients.idle().await?;
    let times = publish_all(setup, &mut publisher, &mut clients, idle).await?;
    let many = add(figures, MOSQUITTO, &MANY, times, Some(one))?;

    let mut dialers = roll(stormers, true);
    dialers.kind = Kind::Mqtt(Topics {
        own: false,
        shared: false,
    });
    let dialers = Clients::start(setup, dialers, None).await?;
    let pushes = publish_all(setup, &mut publisher, &mut clients, idle);
    let (times, rate) = beside_storm(dialers, stormers.len(), pushes).await?;
    add(figures, MOSQUITTO, &STORMY, times, Some(many))?;
    figures.add(MOSQUITTO, STORM_RATE, "1/s", rate);

    let mut downloaders = Clients::start(setup, roll(loading, false), None).await?;
    downloaders.open(downloads).await?;
    downloaders.idle().await?;
    downloaders.give_way().await?;
    // One publication reaches all that download, so many times a second.
    let mut source = Mqtt::publisher(broker.address, &broker.other_publisher).await?;
    let every = Duration::from_secs_f64(PIECE as f64 * 8.0 / DOWNLOAD_BITS_PER_S as f64);
    let downloading = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(every);
        loop {
            ticks.tick().await;
            source.publish(SHARED_TOPIC, 1, &[0; PIECE]).await?;
            source.acknowledged(1).await?;
        }
        #[expect(unreachable_code, reason = "names the type of the errors above")]
        Ok::<(), Error>(())
    });
    let times = publish_all(setup, &mut publisher, &mut clients, idle).await?;
    add(figures, MOSQUITTO, &BUSY, times, Some(one))?;
    if downloading.is_finished() {
        return Err(Error::new("mosquitto's downloads ended before the pushes"));
    }
    downloading.abort();
    clients.check()?;
    downloaders.check()
}

async fn publish_all(
    setup: &Setup,
    publisher: &mut Mqtt,
    clients: &mut Clients,
    seats: &[Seat],
) -> Result<Vec<f64>, Error> {
    let mut times = Vec::new();
    for number in 0..pushes(setup) {
        let Some(seat) = pick(seats, number) else {
            break;
        };
        let began = clock::now_ns();
        publisher
            .publish(&topic(&seat.id), 1, &[0; MESSAGE])
            .await?;
        let heard = clients.heard(&seat.id, began).await?;
        times.push((heard - began) as f64 / 1000.0);
        publisher.acknowledged(1).await?;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(times)
}
