//! One board: the client, started again after each restart and each power cut.

use super::exchange::{Exchange, micros};
use super::flash::{Flash, Images, Medium, Stopwatch};
use super::link::Model;
use super::tally::{Tally, one_more};
use super::wire::{Ending, Line, Wire};
use super::words::{Link, RECEIVE_BUFFERS, Seat, Word};
use dialhome_device::client::{Client, Parts, Provision, Wake};
use dialhome_device::rng::Rng;
use dialhome_device::transport::Transport;
use dialhome_proto::code::{BootReason, CloseCode, Reason, Statement};
use dialhome_proto::device::{ComponentConfig, Config, LinkState, Machine, Said};
use dialhome_proto::limits::RECORD_HEADER;
use dialhome_proto::link::DeviceKey;
use dialhome_proto::time::Millis;
use dialhome_proto::trust::TrustSet;
use rand::rngs::SmallRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep_until};

/// No deadline: the board waits for its link alone.
const LONG: Duration = Duration::from_secs(86_400);
/// A board that could not say Bye within this time is not waited for.
const LEAVE: Duration = Duration::from_secs(5);

/// What all boards of a crew share.
pub(super) struct Crew {
    pub(super) exchange: Rc<Exchange>,
    pub(super) tally: Rc<Tally>,
    pub(super) images: Rc<Images>,
    pub(super) links: Vec<Link>,
    pub(super) trust: TrustSet,
    pub(super) product: String,
    pub(super) components: [ComponentConfig; 1],
    pub(super) ping_s: u32,
    pub(super) redial_ms: [u32; 2],
    pub(super) restart: Duration,
    pub(super) receive_buffer: u16,
    pub(super) seed: u64,
    /// Boards are switched on at their time after this.
    pub(super) began: Instant,
}

/// An order to one board.
#[derive(Default)]
pub(super) struct Switch {
    waker: RefCell<Option<Waker>>,
    /// The power is cut for so long.
    cut: Cell<Option<Duration>>,
    /// The link is gone until then.
    dark: Cell<Option<Instant>>,
    /// Its next first byte is announced.
    watched: Cell<bool>,
    ending: Cell<bool>,
}

impl Switch {
    pub(super) fn cut(&self, off: Duration) {
        self.cut.set(Some(off));
        self.wake();
    }

    pub(super) fn darken(&self, until: Instant) {
        self.dark.set(Some(until));
        self.wake();
    }

    pub(super) fn watch(&self) {
        self.watched.set(true);
        self.wake();
    }

    pub(super) fn end(&self) {
        self.ending.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Whether there is an order; if not, the task is woken for the next one.
    fn has_order(&self, left: bool, waker: &Waker) -> bool {
        let ordered = {
            let (cut, dark) = (self.cut.take(), self.dark.take());
            self.cut.set(cut);
            self.dark.set(dark);
            cut.is_some() || dark.is_some()
        };
        if ordered || self.watched.get() || (self.ending.get() && !left) {
            return true;
        }
        self.register(waker);
        false
    }

    fn register(&self, waker: &Waker) {
        let mut held = self.waker.borrow_mut();
        if !held.as_ref().is_some_and(|held| held.will_wake(waker)) {
            *held = Some(waker.clone());
        }
    }
}

/// The board's noise: of a run's seed, so that the run can be repeated.
struct Noise(SmallRng);

impl Rng for Noise {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
}

/// Plays a board in a task of its own until the crew ends. A task is as large as its board's
/// buffer asks for, and no larger.
pub(super) fn play(
    tasks: &mut JoinSet<()>,
    crew: Rc<Crew>,
    seat: Seat,
    key: [u8; 32],
    switch: Rc<Switch>,
) {
    match crew.receive_buffer {
        1088 => tasks.spawn_local(live::<{ 1088 + RECORD_HEADER }>(crew, seat, key, switch)),
        4126 => tasks.spawn_local(live::<{ 4126 + RECORD_HEADER }>(crew, seat, key, switch)),
        _ => tasks.spawn_local(live::<{ 16_384 + RECORD_HEADER }>(crew, seat, key, switch)),
    };
}
const _: () = assert!(
    RECEIVE_BUFFERS[0] == 1088 && RECEIVE_BUFFERS[1] == 4126 && RECEIVE_BUFFERS[2] == 16_384
);

type Board<'b, const RX: usize> =
    Client<'b, Line<'b>, Medium<'b>, Medium<'b>, Medium<'b>, Noise, RX>;

/// How the client's time in one boot ended.
enum End {
    Restart,
    Cut(Duration),
    Ordered,
}

async fn live<const RX: usize>(crew: Rc<Crew>, seat: Seat, key: [u8; 32], switch: Rc<Switch>) {
    let mut sleep = pin!(sleep_until(
        crew.began + Duration::from_millis(seat.on_at_ms)
    ));
    if rest(&switch, sleep.as_mut()).await {
        return;
    }
    let id: Rc<str> = seat.id.as_str().into();
    let watch = Rc::new(Stopwatch::default());
    let flash = RefCell::new(Flash::new(
        Rc::clone(&crew.images),
        Rc::clone(&crew.tally),
        Rc::clone(&watch),
    ));
    let mut seed = SmallRng::seed_from_u64(crew.seed ^ fold(&key));
    let exchange = Rc::clone(&crew.exchange);
    let Some(link) = crew.links.get(seat.link) else {
        return; // `crew::assemble` has checked it.
    };
    let model = (!link.is_plain()).then(|| {
        let now_us = micros(crew.began);
        Box::new(Model::new(link, seed.random(), now_us))
    });
    let wire = RefCell::new(Wire::new(
        exchange,
        watch,
        Rc::clone(&id),
        &seat,
        crew.began,
        model,
    ));
    let line = Line { wire: &wire, link };
    let key = DeviceKey::new(key);
    let gateways = ["gateway"];
    let provision = Provision {
        key: &key,
        gateways: &gateways,
        trust: Some(&crew.trust),
        seed: None,
    };
    let config = Config {
        device: &seat.id,
        product: &crew.product,
        hardware: 0,
        client: "dialhome-loadtest",
        receive_buffer: 0, // The client takes it from the size of its buffer.
        tasks: 0,
        ping_s: crew.ping_s,
        ping_s_min: crew.ping_s.min(60),
        wake_s: 0,
        backoff_ms: (crew.redial_ms[0].into(), crew.redial_ms[1].into()),
        gateways: 0, // The client counts them.
        components: &crew.components,
    };
    let mut record = Record::new(&crew.tally, &flash, &wire, &id);
    let mut why = BootReason::POWER_ON;
    loop {
        flash.borrow_mut().start(why);
        let parts = Parts {
            transport: line,
            slot: Medium(&flash),
            journal: Medium(&flash),
            boot: Medium(&flash),
            rng: Noise(SmallRng::from_rng(&mut seed)),
        };
        let now = millis(&crew);
        let mut client = Board::<RX>::start(config, provision, parts, now);
        record.started(client.machine());
        let off = match boot(
            &crew,
            &mut client,
            &switch,
            &wire,
            &mut record,
            sleep.as_mut(),
        )
        .await
        {
            End::Ordered => return,
            End::Restart => {
                why = BootReason::RESTART;
                crew.restart
            }
            End::Cut(off) => {
                // The gateway is not told: its end stays open.
                wire.borrow_mut().vanish();
                Transport::close(&mut { line });
                flash.borrow_mut().cut();
                record.cut();
                why = BootReason::POWER_ON;
                off
            }
        };
        sleep.as_mut().reset(Instant::now() + off);
        if rest(&switch, sleep.as_mut()).await {
            return;
        }
    }
}

/// From a start of the board to its next.
async fn boot<const RX: usize>(
    crew: &Crew,
    client: &mut Board<'_, RX>,
    switch: &Switch,
    wire: &RefCell<Wire>,
    record: &mut Record<'_>,
    mut sleep: Pin<&mut Sleep>,
) -> End {
    let mut leaving = None;
    loop {
        let wake = client.poll(millis(crew));
        record.look(client.machine(), leaving.is_some());
        if wake.restarting {
            return End::Restart;
        }
        if let Some(until) = switch.dark.take() {
            wire.borrow_mut().darken(until);
        }
        if switch.watched.take() {
            wire.borrow().watched.set(true);
        }
        if let Some(off) = switch.cut.take() {
            return End::Cut(off);
        }
        if switch.ending.get() {
            let until = *leaving.get_or_insert_with(|| {
                client.stop();
                Instant::now() + LEAVE
            });
            if client.has_left() || until <= Instant::now() {
                return End::Ordered;
            }
        }
        wait(crew, &wake, leaving, switch, wire, sleep.as_mut()).await;
    }
}

/// Waits for what the client wants, or for an order.
async fn wait(
    crew: &Crew,
    wake: &Wake,
    leaving: Option<Instant>,
    switch: &Switch,
    wire: &RefCell<Wire>,
    mut sleep: Pin<&mut Sleep>,
) {
    let now = Instant::now();
    let most = leaving.map_or(now + LONG, |until| {
        until.min(now + Duration::from_millis(50))
    });
    let due = wake.at.map_or(most, |at| {
        (crew.began + Duration::from_millis(at.0)).min(most)
    });
    poll_fn(|cx| {
        if switch.has_order(leaving.is_some(), cx.waker()) {
            return Poll::Ready(());
        }
        loop {
            let mut look = due;
            if wire.borrow_mut().poll(wake, cx, &mut look).is_ready() || due <= Instant::now() {
                return Poll::Ready(());
            }
            // To look too early costs less than to set the clock at each packet.
            if sleep.is_elapsed() || look < sleep.deadline() {
                sleep.as_mut().reset(look);
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await;
}

/// The board is off until the clock rings; whether the crew ends before.
async fn rest(switch: &Switch, mut sleep: Pin<&mut Sleep>) -> bool {
    poll_fn(|cx| {
        // Who is off feels no cut; that the link is gone it sees when it is on again.
        switch.cut.take();
        if switch.ending.get() {
            return Poll::Ready(true);
        }
        switch.register(cx.waker());
        sleep.as_mut().poll(cx).map(|()| false)
    })
    .await
}

fn millis(crew: &Crew) -> Millis {
    let passed = Instant::now().saturating_duration_since(crew.began);
    Millis(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX))
}

fn fold(key: &[u8; 32]) -> u64 {
    let (words, _) = key.as_chunks();
    words
        .iter()
        .fold(0, |sum, word| sum ^ u64::from_le_bytes(*word))
}

/// What is known of a board from outside, for the crew's counts.
struct Record<'r> {
    tally: &'r Tally,
    flash: &'r RefCell<Flash>,
    wire: &'r RefCell<Wire>,
    id: &'r str,
    online: bool,
    last_close: CloseCode,
    /// The last statement of its outbox that was counted.
    stated: u32,
    confirmed: [u8; 32],
    image: Option<usize>,
    broken: bool,
}

impl<'r> Record<'r> {
    fn new(
        tally: &'r Tally,
        flash: &'r RefCell<Flash>,
        wire: &'r RefCell<Wire>,
        id: &'r str,
    ) -> Self {
        Self {
            tally,
            flash,
            wire,
            id,
            online: false,
            last_close: CloseCode::UNKNOWN,
            stated: 0,
            confirmed: [0; 32],
            image: None,
            broken: false,
        }
    }

    fn started(&mut self, machine: &Machine<'_>) {
        self.last_close = machine.last_close();
    }

    /// The power was cut.
    fn cut(&mut self) {
        self.wire.borrow_mut().take_ended();
        if std::mem::take(&mut self.online) {
            self.tally.count(|tick| {
                tick.online -= 1;
                one_more(&mut tick.ended, "power cut");
            });
        }
    }

    /// Looks at the machine after a poll.
    fn look(&mut self, machine: &Machine<'_>, stopping: bool) {
        self.look_at_link(machine, stopping);
        self.look_at_image(machine);
        if let Some(how) = self.flash.borrow_mut().take_broken()
            && !std::mem::replace(&mut self.broken, true)
        {
            self.tally.say(Word::Broken {
                id: self.id.to_owned(),
                how,
            });
        }
    }

    fn look_at_link(&mut self, machine: &Machine<'_>, stopping: bool) {
        let online = *machine.link_state() == LinkState::Online;
        if online && !self.online {
            self.online = true;
            self.tally.count(|tick| tick.online += 1);
        }
        let Some(ending) = self.wire.borrow_mut().take_ended() else {
            return;
        };
        let last = std::mem::replace(&mut self.last_close, machine.last_close());
        if std::mem::take(&mut self.online) {
            let name = end_of_session(machine, &ending, last, stopping);
            self.tally.count(|tick| {
                tick.online -= 1;
                one_more(&mut tick.ended, &name);
            });
        } else {
            let name = end_of_dial(machine, &ending, last);
            self.tally
                .count(|tick| one_more(&mut tick.failed_dials, &name));
        }
    }

    fn look_at_image(&mut self, machine: &Machine<'_>) {
        let cells = machine.cells();
        if let (Some(claim), None) = (&cells.claim, &cells.trial) {
            self.flash.borrow_mut().claims(claim.committed);
        }
        if let Some(image) = cells.images.first()
            && image.digest != self.confirmed
        {
            self.confirmed = image.digest;
            let before = self.image;
            self.image = self.flash.borrow_mut().runs_confirmed(&image.digest);
            let now = self.image;
            self.tally.count(|tick| {
                if let Some(count) = before.and_then(|of| tick.confirmed_images.get_mut(of)) {
                    *count -= 1;
                }
                if let Some(count) = now.and_then(|of| tick.confirmed_images.get_mut(of)) {
                    *count += 1;
                }
            });
        }
        for entry in cells.outbox.entries() {
            if entry.sequence <= self.stated {
                continue;
            }
            self.stated = entry.sequence;
            if let Said::Outcome { state, reason, .. } = entry.said
                && state != Statement::CONFIRMED
            {
                let name = if reason == Reason::NONE {
                    state.to_string()
                } else {
                    reason.to_string()
                };
                self.tally
                    .count(|tick| one_more(&mut tick.not_confirmed, &name));
            }
        }
    }
}

fn end_of_session(
    machine: &Machine<'_>,
    ending: &Ending,
    last: CloseCode,
    stopping: bool,
) -> String {
    let close = machine.last_close();
    if stopping && ending.fault.is_none() {
        "Bye(stopping)".to_owned()
    } else if close == CloseCode::LOST && ending.fault.is_some() {
        "lost".to_owned()
    } else if close == CloseCode::NO_PONG && !ending.had_last_word {
        "no_pong".to_owned()
    } else if close == last && ending.had_last_word {
        // The board went by itself: to restart, or because the gateway broke the protocol.
        match machine.stage_name() {
            "Activating" | "Restarting" | "Reverting" | "Looking" => "Bye(restart)".to_owned(),
            _ => "Bye(protocol_error)".to_owned(),
        }
    } else {
        format!("Close({close})")
    }
}

fn end_of_dial(machine: &Machine<'_>, ending: &Ending, last: CloseCode) -> String {
    if let Some(refusal) = ending.refusal() {
        return refusal.code.to_string();
    }
    match ending.fault {
        Some(std::io::ErrorKind::NetworkDown) => "no link".to_owned(),
        Some(std::io::ErrorKind::ConnectionReset) => "reset".to_owned(),
        Some(std::io::ErrorKind::UnexpectedEof) => "closed".to_owned(),
        Some(fault) => fault.to_string(),
        None if machine.last_close() != last => format!("Close({})", machine.last_close()),
        None => "timeout".to_owned(),
    }
}
