//! Plays a scenario: a gateway, crews, steps, and what is seen meanwhile.

use super::console::Progress;
use super::crews::Crew;
use super::gauge::{self, Process, Sampler, Status};
use super::record::{BROKEN_MAX, Counts, Event, Idle, Point, Record, percentiles};
use super::scenario::{Abuse, After, Scenario};
use super::{room, seats};
use crate::Error;
use crate::fleet::words::{Gang, GangCount, Link, Order, Roll, Seat, Tick, Word};
use crate::measure::clock::now_ns;
use crate::measure::process::CpuTime;
use crate::site::gateway::Gateway;
use crate::site::{self, Device, Site, leash};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, Interval, MissedTickBehavior};

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
    refused: u64,
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
    acks: Vec<f64>,
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
            refused: 0,
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
        let admin = gateway.admin().await?;
        self.sampler = Some(Sampler::start(
            gateway.id(),
            Arc::clone(&cpu),
            admin,
            Duration::from_millis(point_ms(self.setup.boards)),
            self.tell.clone(),
        ));
        self.cpu = Some(cpu);
        self.gateway = Some(gateway);
        Ok(())
    }

    /// Takes the gateway out of the run, for its end.
    pub(super) fn part_with_gateway(&mut self) -> Option<Gateway> {
        self.read_process();
        self.sampler = None;
        if let Some(cpu) = self.cpu.take() {
            self.spent_s += cpu.seconds();
        }
        self.refused += self.status.take().map_or(0, |status| status.refused);
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

    /// From the begin to the end.
    async fn all(&mut self) -> Result<(), Stop> {
        self.began = Some(Instant::now());
        self.began_ns = now_ns();
        self.last_point = Instant::now();
        for crew in &self.crews {
            crew.order(&Order::Begin)?;
        }
        self.note("the boards are switched on");
        let steps = self.setup.scenario.steps();
        for (number, (after, wait_s, action)) in steps.into_iter().enumerate() {
            self.wait(after, wait_s, &format!("step {}", number + 1))
                .await?;
            self.steps_begun += 1;
            self.note(&action.words());
            self.step(number, action).await?;
        }
        let (after, wait_s) = {
            let end = self.setup.scenario.end();
            (end.after, end.wait_s)
        };
        self.wait(after, wait_s, "the end").await?;
        self.note("the end");
        Ok(())
    }

    /// Waits for what a step waits for.
    async fn wait(&mut self, after: After, wait_s: f64, before: &str) -> Result<(), Stop> {
        let awaited = match after {
            After::Step | After::Begin => "its time",
            After::Online => "every board having a session",
            After::Settled => "every update having ended",
            After::AtRest => "every update having ended and every board having a session",
        };
        self.waiting_for = format!("{awaited}, before {before}");
        loop {
            let holds = match after {
                After::Step | After::Begin => true,
                After::Online => self.is_online(),
                After::Settled => self.is_settled(),
                After::AtRest => self.is_settled() && self.is_online(),
            };
            if holds {
                break;
            }
            let heard = self.next().await;
            self.take(heard)?;
        }
        let from = match (after, self.began) {
            (After::Begin, Some(began)) => began,
            _ => Instant::now(),
        };
        self.waiting_for = format!("{wait_s} s to pass, before {before}");
        let until = from + Duration::from_secs_f64(wait_s);
        while Instant::now() < until {
            let heard = self.next().await;
            self.take(heard)?;
        }
        Ok(())
    }

    /// Hears and sees while this is done.
    pub(super) async fn during<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::pin!(work);
        loop {
            let heard = tokio::select! {
                done = &mut work => return Ok(done),
                heard = self.next() => heard,
            };
            self.take(heard)?;
        }
    }

    /// The next thing heard; None where it is time to look round.
    async fn next(&mut self) -> Option<Heard> {
        tokio::select! {
            heard = self.heard.recv() => heard,
            _ = self.look.tick() => None,
        }
    }

    fn take(&mut self, heard: Option<Heard>) -> Result<(), Stop> {
        match heard {
            None => return self.look_round(),
            Some(Heard::Crew(number, word)) => self.word(number, *word)?,
            Some(Heard::Silent(number)) => {
                if !self.ending {
                    return Err(Stop::Failed(Error::new(format!(
                        "crew {number} ended before the run did. It said: {}",
                        self.crews.get(number).map(Crew::said).unwrap_or_default()
                    ))));
                }
                self.ended += 1;
            }
            Some(Heard::Process(process)) => {
                self.record.peak_bytes = self.record.peak_bytes.max(process.peak.unwrap_or(0));
                self.process = Some(process);
            }
            Some(Heard::Status(status)) => {
                self.status = Some(status);
                self.see_status();
            }
            Some(Heard::Push { id, at_ns }) => {
                self.pushed_at.insert(id, at_ns);
            }
            Some(Heard::Signal(name)) => {
                return Err(Stop::Failed(Error::new(format!(
                    "the run was interrupted ({name})."
                ))));
            }
        }
        Ok(())
    }

    fn word(&mut self, number: usize, word: Word) -> Result<(), Stop> {
        let is_abusive = number >= self.ticks.len();
        match word {
            Word::Tick(tick) if is_abusive => {
                self.gangs.insert(number, tick.gangs);
            }
            // What a board that never reads misses is no promise broken.
            Word::Ready | Word::Broken { .. } if is_abusive => {}
            Word::Ready => self.ready += 1,
            Word::Tick(mut tick) => {
                let acks = std::mem::take(&mut tick.ack_ms);
                self.acks.extend(acks.into_iter().map(f64::from));
                let at_ns = tick.at_ns;
                if let Some(place) = self.ticks.get_mut(number) {
                    *place = Some(*tick);
                }
                self.record.last = self.counts();
                if self.record.online_after_s.is_none()
                    && self.record.last.online == self.record.boards
                {
                    self.record.online_after_s = Some(self.seconds_at(at_ns));
                }
                self.see_return();
            }
            Word::FirstByte { id, at_ns } => {
                if let Some(pushed) = self.pushed_at.remove(&id)
                    && self.watched
                {
                    let wait_ns = at_ns.saturating_sub(pushed);
                    self.record.push_ms.push(wait_ns as f64 / 1e6);
                }
            }
            Word::Broken { id, how } => {
                self.record.broken_count += 1;
                if self.record.broken.len() < BROKEN_MAX {
                    self.record.broken.push(format!("{id}: {how}"));
                }
            }
            Word::Failed { why } => {
                return Err(Stop::Failed(Error::new(format!(
                    "crew {number} cannot go on: {why}"
                ))));
            }
            Word::Ended => {}
        }
        Ok(())
    }

    /// Looks at what no word tells.
    fn look_round(&mut self) -> Result<(), Stop> {
        if let Some(gateway) = &mut self.gateway
            && let Some(status) = gateway.ended()
        {
            let said = gateway.said();
            let last: Vec<&str> = said.lines().rev().take(3).collect();
            return Err(Stop::Unfinished(format!(
                "The gateway ended by itself ({status}). Its last words: {}",
                last.into_iter().rev().collect::<Vec<_>>().join(" / ")
            )));
        }
        let Some(began) = self.began else {
            return Ok(());
        };
        let every = Duration::from_millis(point_ms(self.setup.boards));
        if self.last_point.elapsed() >= every && !self.ending {
            self.last_point = Instant::now();
            self.point();
        }
        let within_s = self.setup.scenario.end().within_s;
        if began.elapsed() > Duration::from_secs_f64(within_s) && !self.ending {
            return Err(Stop::Unfinished(format!(
                "The run did not reach its end within {within_s} s: it was waiting for {}. {}",
                self.waiting_for,
                self.standing()
            )));
        }
        Ok(())
    }

    /// How it stands, in a sentence.
    fn standing(&self) -> String {
        let status = self.status.clone().unwrap_or_default();
        let states: Vec<String> = status
            .updates
            .iter()
            .map(|(state, count)| format!("{count} {state}"))
            .collect();
        format!(
            "{} of {} boards were online, the gateway had {} sessions, and of {} updates: {}.",
            self.record.last.online,
            self.record.boards,
            status.sessions,
            self.record.pushed,
            if states.is_empty() {
                "none known".to_owned()
            } else {
                states.join(", ")
            }
        )
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

    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for tick in self.ticks.iter().flatten() {
            counts.add(tick);
        }
        counts
    }

    /// Every crew said so after the last disturbance, and the gateway as well.
    fn is_online(&self) -> bool {
        let later = |at_ns: u64| at_ns > self.disturbed_ns;
        let heard = self
            .ticks
            .iter()
            .all(|tick| tick.as_ref().is_some_and(|tick| later(tick.at_ns)));
        let status = self.status.as_ref();
        heard
            && self.record.last.online == self.record.boards
            && status
                .is_some_and(|status| later(status.at_ns) && status.sessions >= self.record.boards)
    }

    fn is_settled(&self) -> bool {
        self.status.as_ref().is_some_and(|status| {
            status.at_ns > self.pushed_ns && status.ended() >= self.record.pushed
        })
    }

    fn see_status(&mut self) {
        let Some(status) = &self.status else {
            return;
        };
        let at_s = self.seconds_at(status.at_ns);
        let idle = self.steps_begun == 0
            && status.sessions >= self.record.boards
            && status.transfers == 0
            && status.handshakes == 0;
        if let (true, Some(rss)) = (idle, self.process.as_ref().and_then(|process| process.rss)) {
            self.record.idle = Some(Idle {
                rss,
                sessions: status.sessions,
                t_s: at_s,
            });
        }
        self.record.updates.clone_from(&status.updates);
        if self.record.pushed > 0 && self.record.settled_s.is_none() && self.is_settled() {
            self.record.settled_s = Some(at_s);
        }
        self.see_return();
    }

    fn see_return(&mut self) {
        if let Some(away_ns) = self.away_ns
            && self.gateway.is_some()
            && self.is_online()
        {
            let took = now_ns().saturating_sub(away_ns) as f64 / 1e9;
            let longest = self.record.back_after_s.unwrap_or(0.0);
            self.record.back_after_s = Some(longest.max(took));
            self.away_ns = None;
            self.note("every board is back");
        }
    }

    /// Notes a point of the series.
    fn point(&mut self) {
        let counts = &self.record.last;
        let status = self.status.as_ref();
        let process = self.process.as_ref();
        let mut acks = std::mem::take(&mut self.acks);
        let point = Point {
            t_s: self.seconds(),
            online: counts.online,
            sessions: status.map(|status| status.sessions),
            handshakes: status.map_or(0, |status| status.handshakes),
            transfers: status.map_or(0, |status| status.transfers),
            refused: self.refused + status.map_or(0, |status| status.refused),
            confirmed: self.record.updates.get("confirmed").copied().unwrap_or(0),
            dials: counts.dials,
            failed_dials: counts.failed_dials.values().sum(),
            ended: counts.ended.values().sum(),
            bytes_up: counts.bytes_up,
            bytes_down: counts.bytes_down,
            committed: counts.committed,
            again: counts.again,
            ack_ms: percentiles(&mut acks),
            acks: acks.len(),
            rss: process.and_then(|process| process.rss),
            cpu_s: self.spent_s + process.map_or(0.0, |process| process.cpu_s),
            files: process.and_then(|process| process.files),
            threads: process.and_then(|process| process.threads),
        };
        self.record.ack_ms.append(&mut acks);
        self.progress.point(&self.record, &point, &self.waiting_for);
        self.record.points.push(point);
    }

    /// Boards to be pushed to, told to their crews.
    pub(super) async fn watch(&mut self, ids: &[String]) -> Result<(), Stop> {
        self.watched = true;
        for (number, crew) in self.crews.iter().enumerate() {
            let of_crew = ids
                .iter()
                .filter(|id| self.crew_of.get(*id) == Some(&number));
            crew.order(&Order::WatchFirstBytes {
                ids: of_crew.cloned().collect(),
            })?;
        }
        // A crew reads its orders before it ticks twice.
        let sent_ns = now_ns();
        let later = sent_ns + 2 * point_ms(self.setup.boards) * 1_000_000;
        let heard = |ticks: &[Option<Tick>]| {
            ticks
                .iter()
                .all(|tick| tick.as_ref().is_some_and(|tick| tick.at_ns > later))
        };
        while !heard(&self.ticks) {
            let next = self.next().await;
            self.take(next)?;
        }
        Ok(())
    }

    /// An order to all crews.
    pub(super) fn order(&self, order: &Order) -> Result<(), Stop> {
        for crew in &self.crews {
            crew.order(order)?;
        }
        Ok(())
    }

    /// From so many seconds on, what is seen counts for `online` again.
    pub(super) fn disturb(&mut self, for_s: f64) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "nanoseconds of a day at most, checked with the scenario"
        )]
        let for_ns = (for_s * 1e9) as u64;
        self.disturbed_ns = self.disturbed_ns.max(now_ns() + for_ns);
    }

    /// So many more updates were pushed, from `began_s` until now.
    pub(super) fn pushed(&mut self, count: u64, began_s: f64) {
        self.pushed_ns = now_ns();
        self.record.pushed += count;
        self.record.pushes += 1;
        self.record.settled_s = None;
        self.record.first_push_s.get_or_insert(began_s);
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

    /// Abusive peers are a crew of their own, which begins at once.
    pub(super) fn abuse(&mut self, abuse: &Abuse) -> Result<(), Stop> {
        let boards = seats::never_readers(abuse, &mut self.never_readers);
        let number = self.crews.len();
        let links = vec![Link::default()];
        let roll = self.roll(number, links, boards, seats::gangs(abuse));
        let crew = Crew::start(number, &roll, self.site.folder(), self.tell.clone())?;
        crew.order(&Order::Begin)?;
        self.crews.push(crew);
        Ok(())
    }

    /// What became of the abusive peers, in words.
    fn abused(&self) -> Option<String> {
        let counts = || self.gangs.values().flatten();
        let opened: u64 = counts().map(|gang| gang.opened).sum();
        let refused: u64 = counts().map(|gang| gang.refused).sum();
        let closed: u64 = counts().map(|gang| gang.closed).sum();
        (opened > 0).then(|| {
            format!(
                "abusive peers had opened {opened} connections, of which the gateway refused {refused} and closed {closed}"
            )
        })
    }

    /// Ends everything in order. After it no process is left.
    async fn end(&mut self) -> Result<(), Error> {
        self.progress.say("ending");
        self.record.online_at_end = self.record.last.online;
        if let Some(abused) = self.abused() {
            self.note(&abused);
        }
        if self.began.is_some() {
            self.ask_a_last_time().await;
            self.read_process();
            self.point();
        }
        self.record.seconds = self.seconds();
        self.ending = true;
        let at_end = self.record.last.clone();
        let mut first = Ok(());
        for crew in &self.crews {
            first = first.and(crew.order(&Order::End));
        }
        for crew in std::mem::take(&mut self.crews) {
            first = first.and(crew.end().await);
        }
        // What they said last, such as a promise that was broken.
        while let Ok(heard) = self.heard.try_recv() {
            if let Heard::Crew(number, word) = heard
                && let Err(Stop::Failed(error)) = self.word(number, *word)
            {
                first = first.and(Err(error));
            }
        }
        // What the end itself does to sessions is not what happened in the run; who had confirmed
        // an image when it came is best told by the last tick.
        let last = std::mem::replace(&mut self.record.last, at_end);
        self.record.last.confirmed = last.confirmed.max(self.record.last.confirmed);
        self.record.ack_ms.append(&mut self.acks);
        self.record.ack_ms.sort_by(f64::total_cmp);
        self.record.push_ms.sort_by(f64::total_cmp);
        if let Some(mut gateway) = self.part_with_gateway()
            && gateway.ended().is_none()
        {
            first = first.and(gateway.stop().await);
        }
        self.progress.end();
        first
    }

    /// The states of the updates at the very end.
    async fn ask_a_last_time(&mut self) {
        let Some(gateway) = &self.gateway else {
            return;
        };
        // One that has died does not answer; what it said last counts then.
        if let Ok(mut admin) = gateway.admin().await
            && let Ok(status) = gauge::status(&mut admin).await
        {
            self.status = Some(status);
            self.see_status();
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

/// An address of loopback and a port of it that nobody has. The address is drawn: a gateway
/// that is restarted finds its port again, because no other run and no dial uses the address.
fn free_address() -> Result<SocketAddr, Error> {
    let [a, b] = rand::random::<[u8; 2]>();
    let address = Ipv4Addr::new(127, 64 + a % 32, b, 1);
    std::net::TcpListener::bind((address, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(|error| Error::of("no port is free for the gateway", &error))
}
