//! The board, the link and the gateway, and a clock that jumps from event to event.

use super::boot::{Images, Loader, Nature, Part, SimBoot};
use super::fixture::{Image, bytes, config, provision, trust};
use super::flash::{Medium, SimSlot};
use super::gate::Gate;
use super::journal::{Cells, SimJournal};
use super::net::{Manners, Net, SimTransport};
use super::power::Power;
use super::store::Store;
use dialhome_device::client::{Client, Parts};
use dialhome_device::rng::Rng;
use dialhome_device::slot::Geometry;
use dialhome_proto::code::{BootReason, SelfTest};
use dialhome_proto::device::{ComponentConfig, Config, LinkState};
use dialhome_proto::link::DeviceKey;
use dialhome_proto::time::Millis;
use dialhome_proto::trust::TrustSet;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// The receive buffer of the simulated boards, with the record's length.
const RX: usize = 2050;
/// A run that polls so often without the clock moving on is stuck in a loop.
const POLLS_MAX: u32 = 20_000;

/// Noise that a seed decides.
#[derive(Debug)]
pub struct SimRng(SmallRng);

impl Rng for SimRng {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }
}

type SimClient = Client<'static, SimTransport, SimSlot, SimJournal, SimBoot, SimRng, RX>;

/// What a run begins with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Decides everything that chance decides.
    pub seed: u64,
    /// The board's storage.
    pub component: ComponentConfig,
    /// Writes wait for a flush.
    pub is_file: bool,
    /// The bootloader.
    pub loader: Loader,
    /// The components beside that one, each with what changes its image.
    pub beside: Vec<(u8, Loader)>,
    /// How the link behaves.
    pub manners: Manners,
    /// First and longest wait between dials, in milliseconds.
    pub backoff_ms: (u64, u64),
    /// The step in which the power fails is done all the same.
    pub torn_lands: bool,
    /// Its journal has no room for entries of updates with several.
    pub no_entries: bool,
    /// What the self-test of a good image says.
    pub verdict: SelfTest,
    /// Connections are QUIC's, or like them.
    pub is_quic: bool,
    /// Ping interval, in seconds.
    pub ping_s: u32,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            seed: 0,
            component: ComponentConfig {
                component: 0,
                slot_size: 128 * 1024,
                write_unit: 64,
                erase_unit: 1024,
                window: 4096,
                commit_ms: 100,
                claim_every: 4096,
            },
            is_file: false,
            loader: Loader::Patient,
            beside: Vec::new(),
            manners: Manners::GOOD,
            backoff_ms: (1000, 60_000),
            torn_lands: false,
            no_entries: false,
            verdict: SelfTest::PASSED,
            is_quic: false,
            ping_s: 120,
        }
    }
}

/// Everything.
#[expect(missing_debug_implementations, reason = "the client holds keys")]
pub struct World {
    /// The clock, in milliseconds.
    pub now: u64,
    /// The link.
    pub net: Rc<RefCell<Net>>,
    /// The board's power.
    pub power: Power,
    /// The board's slot.
    pub medium: Rc<RefCell<Medium>>,
    /// The board's journal.
    pub cells: Cells,
    /// The board's images.
    pub images: Rc<RefCell<Images>>,
    /// All its components, the first with `medium` and `images`.
    pub parts: Rc<Vec<Part>>,
    /// The gateway's record.
    pub store: Rc<RefCell<Store>>,
    /// Images that can be pushed.
    pub library: Rc<Vec<Image>>,
    /// Chance, for the tests.
    pub rng: SmallRng,
    /// Power cuts so far.
    pub power_cuts: u64,
    /// Kills of the gateway so far.
    pub kills: u64,
    /// Starts of the board so far.
    pub starts: u64,
    /// Starts while the running image was not final.
    pub trial_starts: u64,
    /// Something changed the slot behind the client's back.
    pub tampered: bool,
    /// The board stays off, or the gateway down, so long after a failure, in milliseconds.
    pub outage_ms: (u64, u64),
    setup: Setup,
    key: &'static DeviceKey,
    trust: &'static TrustSet,
    components: &'static [ComponentConfig],
    client: Option<Box<SimClient>>,
    gate: Option<Gate>,
    board_due: Option<u64>,
    start_at: Option<(u64, BootReason)>,
    gate_at: Option<u64>,
    crash_at: Option<u64>,
    idle_steps: u32,
}

/// The key that every simulated board is provisioned with.
pub const KEY: [u8; 32] = [0x42; 32];

impl World {
    /// A board that runs `library[0]`, and a gateway that knows the rest.
    #[must_use]
    pub fn new(setup: Setup, library: Rc<Vec<Image>>) -> Self {
        let geometry = Geometry {
            size: setup.component.slot_size,
            write_unit: setup.component.write_unit,
            erase_unit: setup.component.erase_unit,
        };
        let store = Store {
            key: KEY,
            ..Store::default()
        };
        let part = |number: u8, loader, first: Vec<u8>| Part {
            number,
            images: Rc::new(RefCell::new(Images::new(loader, first.clone()))),
            medium: Rc::new(RefCell::new(Medium::new(
                geometry,
                setup.is_file,
                setup.seed ^ 2 ^ u64::from(number) << 32,
            ))),
            first: Rc::new(first),
        };
        let number = setup.component.component;
        let mut parts = vec![part(number, setup.loader, library[0].bytes.clone())];
        let mut components = vec![setup.component];
        for (number, loader) in &setup.beside {
            let first = bytes(Nature::Good, 700, u64::from(*number) << 40);
            parts.push(part(*number, *loader, first));
            components.push(ComponentConfig {
                component: *number,
                ..setup.component
            });
        }
        let mut net = Net::new(setup.manners, setup.seed ^ 1);
        net.is_quic = setup.is_quic;
        Self {
            now: 0,
            net: Rc::new(RefCell::new(net)),
            power: Power::default(),
            medium: Rc::clone(&parts[0].medium),
            cells: Rc::new(RefCell::new(BTreeMap::new())),
            images: Rc::clone(&parts[0].images),
            parts: Rc::new(parts),
            store: Rc::new(RefCell::new(store)),
            rng: SmallRng::seed_from_u64(setup.seed ^ 3),
            power_cuts: 0,
            kills: 0,
            starts: 0,
            trial_starts: 0,
            tampered: false,
            outage_ms: (500, 500),
            key: &*leak(DeviceKey::new(KEY)),
            trust: &*leak(trust()),
            components: &*leak(components),
            library,
            setup,
            client: None,
            gate: None,
            board_due: None,
            start_at: Some((0, BootReason::POWER_ON)),
            gate_at: Some(0),
            crash_at: None,
            idle_steps: 0,
        }
    }

    /// The client, where the board is on.
    #[must_use]
    pub fn client(&self) -> Option<&SimClient> {
        self.client.as_deref()
    }

    /// In one line, for a failure.
    #[must_use]
    pub fn describe(&self) -> String {
        let board = self.client.as_ref().map_or_else(
            || "off".to_owned(),
            |client| format!("{:?}", client.machine()),
        );
        let gate = self
            .gate
            .as_ref()
            .map_or_else(|| "down".to_owned(), Gate::waits);
        let store = self.store.borrow();
        let updates: Vec<_> = store
            .updates
            .iter()
            .map(|update| format!("{} {} {:?}", update.state, update.reason, update.counters))
            .collect();
        format!(
            "at {} ms: board {board}; gateway {gate}; updates {updates:?}; {} cuts, {} power cuts, {} kills, closes {:?}",
            self.now,
            self.net.borrow().cuts_done,
            self.power_cuts,
            self.kills,
            store.closes,
        )
    }

    /// The board loses power now, and starts again later.
    pub fn cut_power(&mut self) {
        self.power.off();
        self.after_power_cut(BootReason::POWER_ON);
    }

    fn after_power_cut(&mut self, why: BootReason) {
        if let Some(client) = self.client.take() {
            drop(client);
            self.net.borrow_mut().silence_all();
        }
        for part in &*self.parts {
            part.medium.borrow_mut().lose_unflushed();
        }
        self.power_cuts += 1;
        self.crash_at = None;
        let (least, most) = self.outage_ms;
        let off = self.rng.random_range(least..=most);
        self.start_at = Some((self.now + off, why));
    }

    /// The gateway's process is killed now, and starts again later.
    pub fn kill_gateway(&mut self) {
        self.store.borrow_mut().kill();
        self.after_kill();
    }

    fn after_kill(&mut self) {
        self.gate = None;
        self.kills += 1;
        let mut net = self.net.borrow_mut();
        net.reset_all();
        net.gateway_up = false;
        let (least, most) = self.outage_ms;
        self.gate_at = Some(self.now + self.rng.random_range(least..=most));
    }

    /// Whether the gateway's process is up.
    #[must_use]
    pub const fn gateway_is_up(&self) -> bool {
        self.gate.is_some()
    }

    fn start_board(&mut self, why: BootReason) {
        self.power.on();
        self.starts += 1;
        for part in &*Rc::clone(&self.parts) {
            let mut images = part.images.borrow_mut();
            let was_final = images.is_final();
            images.start(why, &mut part.medium.borrow_mut());
            if !images.is_final() {
                self.trial_starts += u64::from(!was_final || self.trial_starts == 0);
                if Nature::of(images.running()) == Nature::CrashesLater && !images.is_direct() {
                    self.crash_at = Some(self.now + self.rng.random_range(1..4000));
                }
            }
        }
        let parts = Parts {
            transport: SimTransport {
                net: Rc::clone(&self.net),
                conn: None,
                power: self.power.clone(),
            },
            slot: SimSlot {
                medium: Rc::clone(&self.medium),
                parts: Rc::clone(&self.parts),
                power: self.power.clone(),
            },
            journal: SimJournal {
                cells: Rc::clone(&self.cells),
                power: self.power.clone(),
                torn_stores_land: self.setup.torn_lands,
                no_entries: self.setup.no_entries,
            },
            boot: SimBoot {
                parts: Rc::clone(&self.parts),
                power: self.power.clone(),
                torn_steps_land: self.setup.torn_lands,
                verdict: self.setup.verdict,
            },
            rng: SimRng(SmallRng::seed_from_u64(self.rng.random())),
        };
        let config = Config {
            ping_s: self.setup.ping_s,
            backoff_ms: self.setup.backoff_ms,
            ..config(self.components)
        };
        let provision = provision(self.key, self.trust);
        self.client = Some(Box::new(Client::start(
            config,
            provision,
            parts,
            Millis(self.now),
        )));
    }

    /// Polls both ends until nothing moves at this instant.
    fn settle(&mut self) {
        for polls in 0.. {
            assert!(polls < POLLS_MAX, "no end of polls {}", self.describe());
            self.net.borrow_mut().now = self.now;
            if let Some((at, why)) = self.start_at
                && at <= self.now
            {
                self.start_at = None;
                self.start_board(why);
            }
            if self.gate_at.is_some_and(|at| at <= self.now) {
                self.gate_at = None;
                self.store.borrow_mut().restart();
                self.net.borrow_mut().gateway_up = true;
                self.gate = Some(Gate::start(
                    Rc::clone(&self.net),
                    Rc::clone(&self.store),
                    Rc::clone(&self.library),
                ));
            }
            if self.crash_at.is_some_and(|at| at <= self.now) {
                self.crash_at = None;
                let all_final = |part: &Part| part.images.borrow().is_final();
                if !self.parts.iter().all(all_final) {
                    self.cut_power();
                }
            }
            let arrivals = self.net.borrow().bytes;
            if let Some(client) = &mut self.client {
                let wake = client.poll(Millis(self.now));
                self.board_due = wake.at.map(|at| at.0);
                if self.power.is_off() {
                    self.after_power_cut(BootReason::POWER_ON);
                } else if wake.restarting {
                    self.restart_board();
                }
            }
            let mut moved = self.net.borrow().bytes != arrivals;
            if let Some(gate) = &mut self.gate {
                moved |= gate.poll(Millis(self.now));
                if self.store.borrow().is_killed() {
                    self.after_kill();
                }
            }
            self.check_ack();
            let due = self.client.is_some() && self.board_due.is_some_and(|at| at <= self.now);
            let starts = self.start_at.is_some_and(|(at, _)| at <= self.now)
                || self.gate_at.is_some_and(|at| at <= self.now);
            if !moved && !due && !starts {
                return;
            }
        }
    }

    fn restart_board(&mut self) {
        self.client = None;
        self.crash_at = None;
        self.start_at = Some((self.now + 200, BootReason::UPDATE));
    }

    /// An Ack that the gateway took is true even if the power fails now.
    fn check_ack(&mut self) {
        let acked = self.store.borrow_mut().acked.take();
        let Some((update, committed)) = acked.filter(|_| !self.tampered) else {
            return;
        };
        let store = self.store.borrow();
        let Some(update) = store
            .updates
            .iter()
            .find(|known| known.plan.update == update)
        else {
            return;
        };
        let part = update
            .plan
            .part(store.acked_part)
            .expect("it is of the plan");
        let image = self
            .library
            .iter()
            .find(|image| image.sha256 == part.image)
            .expect("the image of a plan is there");
        let len = usize::try_from(committed).expect("fits");
        let on = self.part(part.component);
        let runs = on.images.borrow().running() == image.bytes.as_slice();
        assert!(
            runs || on.medium.borrow().durable(committed) == &image.bytes[..len],
            "{committed} bytes were acknowledged that are not in the slot; {}",
            self.describe()
        );
    }

    /// The board's component with this number.
    ///
    /// # Panics
    /// Where it has none.
    #[must_use]
    pub fn part(&self, number: u8) -> &Part {
        let mut parts = self.parts.iter();
        parts
            .find(|part| part.number == number)
            .expect("the board has this component")
    }

    /// Before the start: the component runs this image, and nobody has told the journal.
    pub fn run_first(&mut self, number: u8, image: Vec<u8>) {
        let parts = Rc::make_mut(&mut self.parts);
        for part in parts.iter_mut().filter(|part| part.number == number) {
            let loader = part.images.borrow().loader();
            *part.images.borrow_mut() = Images::new(loader, image.clone());
            part.first = Rc::new(image.clone());
        }
    }

    /// Goes to the next event, at most to `until`; false: the time is up.
    pub fn step(&mut self, until: u64) -> bool {
        let arrival = self.net.borrow_mut().next_arrival();
        let board = self.board_due.filter(|_| self.client.is_some());
        let next = [
            arrival,
            board,
            self.start_at.map(|(at, _)| at),
            self.gate_at,
            self.crash_at,
            self.gate.as_ref().and_then(Gate::deadline),
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(u64::MAX);
        if next > until {
            self.now = until;
            self.settle();
            return false;
        }
        if next > self.now {
            self.now = next;
            self.idle_steps = 0;
        }
        self.idle_steps += 1;
        assert!(
            self.idle_steps < POLLS_MAX,
            "the clock does not move on: {}",
            self.describe()
        );
        self.settle();
        true
    }

    /// Runs until the condition holds or the time is up; whether it holds.
    pub fn run_until(&mut self, until: u64, mut done: impl FnMut(&Self) -> bool) -> bool {
        while !done(self) {
            if !self.step(until) {
                return done(self);
            }
        }
        true
    }

    /// Whether every update has ended, and the board has nothing more to say.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        let store = self.store.borrow();
        let Some(client) = &self.client else {
            return false;
        };
        store
            .updates
            .iter()
            .all(|update| update.state.is_terminal())
            && matches!(client.machine().link_state(), LinkState::Online)
            && client.machine().cells().outbox.entries().is_empty()
            && client.machine().cells().trial.is_none()
            && store.pending_key.is_none()
            && store
                .gateways
                .as_ref()
                .is_none_or(|(epoch, _)| *epoch == store.gateways_epoch)
    }
}

fn leak<T>(value: T) -> &'static mut T {
    Box::leak(Box::new(value))
}
