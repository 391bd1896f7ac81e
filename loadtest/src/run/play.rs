//! Plays a scenario: a gateway, crews, steps, and what is seen meanwhile.

use super::console::Progress;
use super::crews::Crew;
use super::gauge::{self, Process, Sampler, Status};
use super::record::{Event, Record, Waited};
use super::scenario::Scenario;
use super::{room, seats};
use crate::Error;
use crate::fleet::words::{Gang, GangCount, Link, Roll, Seat, Tick, Word};
use crate::measure::clock::now_ns;
use crate::measure::process::CpuTime;
use crate::site::gateway::Gateway;
use crate::site::{self, Device, Site, leash};
use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, Interval, MissedTickBehavior};

mod end;
mod go;
mod hear;
mod see;

/// Longest time for everything that comes before the begin.
const PREPARATION: Duration = Duration::from_secs(300);
/// Between two looks at what no word tells: the deadline, the gateway's process.
const LOOK: Duration = Duration::from_millis(25);

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The scenario.
    pub scenario: Scenario,
    /// Boards, the scenario's number or the command line's.
    pub boards: usize,
    /// Begins the random numbers.
    pub seed: u64,
    /// The gateway's program.
    pub program: PathBuf,
}

/// What the tasks of a run tell it.
#[derive(Debug)]
pub(super) enum Heard {
    /// A crew's word.
    Crew(usize, Box<Word>),
    /// A crew closed its output.
    Silent(usize),
    Process(Process),
    Status(Status),
    /// The gateway did not say how it stands, in words.
    Unanswered(String),
    /// An image is pushed to this board now.
    Push {
        id: String,
        at_ns: u64,
    },
    /// The run is to end, for this reason.
    Signal(&'static str),
}

/// Why a run does not go on.
#[derive(Debug)]
pub(super) enum Stop {
    /// It has failed; what was seen until then counts.
    Unfinished(String),
    /// It could not be played.
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Plays it.
///
/// # Errors
/// It could not be played: something does not fit, a process could not be started or a crew
/// ended before the run did, or the run was interrupted.
pub(super) async fn play(setup: Setup) -> Result<Record, Error> {
    let scenario = &setup.scenario;
    let limit = room::raise();
    let crews = room::crews(scenario, setup.boards);
    room::check(setup.boards, crews, scenario.abusive_connections(), limit)?;
    let (tell, heard) = unbounded_channel();
    let asked = tell.clone();
    leash::interrupts(move |name| asked.send(Heard::Signal(name)).is_ok())?;
    let mut run = Run::prepare(setup, crews, tell, heard).await?;
    let played = run.all().await;
    let ended = run.end().await;
    match played {
        Ok(()) => ended?,
        Err(Stop::Unfinished(why)) => run.record.unfinished = Some(why),
        Err(Stop::Failed(error)) => return Err(error),
    }
    Ok(run.record)
}

/// Milliseconds between two points of the series, and between two ticks of a crew.
const fn point_ms(boards: usize) -> u64 {
    if boards <= 2_000 { 250 } else { 1_000 }
}

/// A run under way.
pub(super) struct Run {
    pub(super) setup: Setup,
    site: Site,
    listen: SocketAddr,
    never_readers: Vec<Device>,
    pub(super) gateway: Option<Gateway>,
    sampler: Option<Sampler>,
    cpu: Option<Arc<CpuTime>>,
    /// CPU seconds and refusals of gateway processes that have ended.
    spent_s: f64,
    refused: BTreeMap<String, u64>,
    /// The gateway was asked and did not answer, and has not answered since.
    unanswered: bool,
    crews: Vec<Crew>,
    crew_of: HashMap<String, usize>,
    ticks: Vec<Option<Tick>>,
    ready: usize,
    ended: usize,
    ending: bool,
    pub(super) tell: UnboundedSender<Heard>,
    heard: UnboundedReceiver<Heard>,
    look: Interval,
    began: Option<Instant>,
    began_ns: u64,
    last_point: Instant,
    status: Option<Status>,
    process: Option<Process>,
    /// Waits for acknowledgement since the last point, a sample, and how many there were.
    acks: Vec<Waited>,
    acked: u64,
    pushed_at: HashMap<String, u64>,
    watched: bool,
    steps_begun: usize,
    /// What was seen before these does not count for `online` and `settled`.
    disturbed_ns: u64,
    pushed_ns: u64,
    /// When the gateway went, until all boards are back.
    away_ns: Option<u64>,
    /// The images' files, for crews.
    files: Vec<PathBuf>,
    /// What became of abusive peers, by the number of their crew.
    gangs: HashMap<usize, Vec<GangCount>>,
    progress: Progress,
    pub(super) waiting_for: String,
    pub(super) record: Record,
}

impl Run {
    async fn prepare(
        setup: Setup,
        crews: usize,
        tell: UnboundedSender<Heard>,
        heard: UnboundedReceiver<Heard>,
    ) -> Result<Self, Error> {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let site = Site::new()?;
        let listen = free_address()?;
        let boards = setup.boards;
        let mut run = Self {
            progress: Progress::new(&setup, crews),
            record: Record {
                boards: boards as u64,
                ..Record::default()
            },
            setup,
            site,
            listen,
            never_readers: Vec::new(),
            gateway: None,
            sampler: None,
            cpu: None,
            spent_s: 0.0,
            refused: BTreeMap::new(),
            unanswered: false,
            crews: Vec::with_capacity(crews),
            crew_of: HashMap::with_capacity(boards),
            ticks: vec![None; crews],
            ready: 0,
            ended: 0,
            ending: false,
            tell,
            heard,
            look,
            began: None,
            began_ns: 0,
            last_point: Instant::now(),
            status: None,
            process: None,
            acks: Vec::new(),
            acked: 0,
            pushed_at: HashMap::new(),
            watched: false,
            steps_begun: 0,
            disturbed_ns: 0,
            pushed_ns: 0,
            away_ns: None,
            files: Vec::new(),
            gangs: HashMap::new(),
            waiting_for: "the preparations".into(),
        };
        let prepared = tokio::time::timeout(PREPARATION, run.get_ready(crews)).await;
        match prepared {
            Ok(Ok(())) => Ok(run),
            Ok(Err(Stop::Failed(error))) => Err(error),
            Ok(Err(Stop::Unfinished(why))) => Err(Error::new(why)),
            Err(_) => Err(Error::new(format!(
                "the run was not prepared within {} s: {boards} devices, {crews} crews and a gateway are too much for this machine at the moment.",
                PREPARATION.as_secs()
            ))),
        }
    }

    async fn get_ready(&mut self, crews: usize) -> Result<(), Stop> {
        let scenario = self.setup.scenario.clone();
        let (boards, seed) = (self.setup.boards, self.setup.seed);
        self.progress.say(&format!("making {boards} devices"));
        let mut ids = seats::ids(boards);
        ids.extend((0..scenario.never_readers()).map(|number| format!("never-reader-{number:03}")));
        let images: Vec<Vec<u8>> = (0..scenario.pushes())
            .map(|number| site::image(seed.wrapping_add(number as u64), scenario.image_len()))
            .collect();
        let mut devices = self.site.fill(&ids, &images).await?;
        self.never_readers = devices.split_off(boards);
        for (number, image) in images.iter().enumerate() {
            let file = self.site.folder().join(format!("image-{number}"));
            std::fs::write(&file, image)
                .map_err(|error| Error::of("an image cannot be written", &error))?;
            self.files.push(file);
        }
        drop(images);
        self.progress.say("starting the gateway and the crews");
        self.start_gateway().await?;
        let seats = seats::seats(&scenario, &devices, seed);
        let links: Vec<Link> = scenario
            .links
            .iter()
            .map(|(link, _)| link.clone())
            .collect();
        for (number, mut boards) in deal(seats, crews).into_iter().enumerate() {
            for seat in &mut boards {
                self.crew_of.insert(seat.id.clone(), number);
            }
            let roll = self.roll(number, links.clone(), boards, Vec::new());
            let crew = Crew::start(number, &roll, self.site.folder(), self.tell.clone())?;
            self.crews.push(crew);
        }
        while self.ready < crews {
            let heard = self.next().await;
            self.take(heard)?;
        }
        self.record.rss_before = self.read_process().and_then(|process| process.rss);
        Ok(())
    }

    pub(super) async fn start_gateway(&mut self) -> Result<(), Stop> {
        let args = self.setup.scenario.gateway_args();
        let program = &self.setup.program;
        let gateway = Gateway::start(program, &self.site, self.listen, &args, None).await?;
        let cpu = Arc::new(CpuTime::of(vec![gateway.id()]));
        self.sampler = Some(Sampler::start(
            gateway.id(),
            Arc::clone(&cpu),
            gateway.socket().to_owned(),
            Duration::from_millis(point_ms(self.setup.boards)),
            self.tell.clone(),
        ));
        self.cpu = Some(cpu);
        self.gateway = Some(gateway);
        Ok(())
    }

    /// Takes the gateway out of the run, for its end.
    pub(super) fn part_with_gateway(&mut self) -> Option<Gateway> {
        self.return_ends();
        self.read_process();
        self.sampler = None;
        if let Some(cpu) = self.cpu.take() {
            self.spent_s += cpu.seconds();
        }
        self.refused = self.all_refused();
        self.status = None;
        self.unanswered = false;
        self.process = None;
        self.away_ns = Some(now_ns());
        self.gateway.take()
    }

    /// What `/proc` says of the gateway now.
    fn read_process(&mut self) -> Option<Process> {
        let (gateway, cpu) = (self.gateway.as_ref()?, self.cpu.as_ref()?);
        let process = gauge::process(gateway.id(), cpu);
        self.record.peak_bytes = self.record.peak_bytes.max(process.peak.unwrap_or(0));
        self.process = Some(process.clone());
        Some(process)
    }

    /// Seconds since the begin.
    pub(super) fn seconds(&self) -> f64 {
        self.seconds_at(now_ns())
    }

    fn seconds_at(&self, at_ns: u64) -> f64 {
        at_ns.saturating_sub(self.began_ns) as f64 / 1e9
    }

    /// Something happened.
    pub(super) fn note(&mut self, what: &str) {
        let t_s = self.seconds();
        self.progress.event(t_s, what);
        self.record.events.push(Event {
            t_s,
            what: what.to_owned(),
        });
    }

    fn roll(&self, number: usize, links: Vec<Link>, boards: Vec<Seat>, gangs: Vec<Gang>) -> Roll {
        Roll {
            seed: self.setup.seed.wrapping_add(number as u64),
            gateway: self.listen,
            trust: seats::hex(&self.site.trusted()),
            product: site::PRODUCT.into(),
            links,
            images: self.files.clone(),
            client: self.setup.scenario.client(),
            boards,
            gangs,
            tick_ms: u32::try_from(point_ms(self.setup.boards)).unwrap_or(1_000),
        }
    }
}

/// Deals the seats out to so many crews, one after the other.
fn deal(seats: Vec<Seat>, crews: usize) -> Vec<Vec<Seat>> {
    let mut dealt: Vec<Vec<Seat>> = (0..crews).map(|_| Vec::new()).collect();
    for (number, seat) in seats.into_iter().enumerate() {
        if let Some(crew) = dealt.get_mut(number % crews.max(1)) {
            crew.push(seat);
        }
    }
    dealt
}

/// Counts by their names, in words.
fn listed(counts: &BTreeMap<&str, u64>) -> String {
    if counts.is_empty() {
        return "none".to_owned();
    }
    let each: Vec<String> = counts
        .iter()
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    each.join(", ")
}

/// An address of loopback and a port of it that nobody has. The address is drawn: a gateway
/// that is restarted finds its port again, because no other run and no dial uses the address.
fn free_address() -> Result<SocketAddr, Error> {
    let [a, b] = rand::random::<[u8; 2]>();
    let address = Ipv4Addr::new(127, 64 + a % 32, b, 1);
    std::net::TcpListener::bind((address, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(|error| Error::of("no port is free for the gateway", &error))
}
