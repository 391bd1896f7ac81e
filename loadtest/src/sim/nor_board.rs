//! A board on NOR flash, from reset to rest: boot stage, client with slot, journal and
//! boot side, against the gateway's machines on the virtual clock.

use super::fixture::{Image, config, provision, trust};
use super::gate::Gate;
use super::net::{Manners, Net, SimTransport};
use super::nor::{Nor, Rules};
use super::power::Power;
use super::store::Store;
use super::world::KEY;
use dialhome_device::boot::BootError;
use dialhome_device::client::{Client, Parts};
use dialhome_device::nor::{
    BootLayout, BootStage, Decision, JournalLayout, NorBoot, NorJournal, NorSlot, Partition,
    Porter, Region, Started,
};
use dialhome_device::rng::Rng;
use dialhome_proto::code::{BootReason, Reason, SelfTest};
use dialhome_proto::device::{ComponentConfig, LinkState};
use dialhome_proto::gateway::State;
use dialhome_proto::link::DeviceKey;
use dialhome_proto::time::Millis;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

/// The receive buffer, with the record's length.
const RX: usize = 1090;
/// Starts after which a run counts as one without an end.
const STARTS_MAX: u32 = 80;
/// Virtual time after which it does.
const TIME_MAX: u64 = 30 * 24 * 3600 * 1000;

/// What the image of the update does; the old one is well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Behaviour {
    /// It is well.
    Good,
    /// It fails its self-test.
    FailsSelfTest,
    /// It crashes, or hangs until it is reset, before the client runs.
    Crashes,
    /// It runs, and reaches no gateway.
    NeverDials,
}

impl Behaviour {
    /// Every behaviour.
    pub const ALL: [Self; 4] = [
        Self::Good,
        Self::FailsSelfTest,
        Self::Crashes,
        Self::NeverDials,
    ];
}

/// A kind of board: what lies where on its flash.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// For messages.
    pub name: &'static str,
    /// The flash's numbers.
    pub rules: Rules,
    /// Erase units of the flash.
    pub units: usize,
    /// The images.
    pub boot: BootLayout,
    /// Where the journal lies.
    pub journal: Region,
    /// How.
    pub journal_layout: JournalLayout,
    /// What Hello says of the slot.
    pub component: ComponentConfig,
    /// Bytes of the old image and of the new one.
    pub images: (usize, usize),
}

/// What a kind of board is made from.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// For messages.
    pub name: &'static str,
    /// The flash's units.
    pub write: u32,
    /// Bytes of an erase unit.
    pub erase: u32,
    /// A torn write unit reads as an error.
    pub read_errors: bool,
    /// Writes that an erase unit takes; 0: any number.
    pub writes_max: u32,
    /// Bytes that the hardware writes at once, and what chunks are multiples of.
    pub page: u32,
    /// Erase units of a swap unit.
    pub swap: u32,
    /// Swap units of a slot.
    pub slot: u32,
    /// Bytes under way.
    pub window: u32,
    /// The claim is stored once per so many bytes.
    pub claim_every: u32,
}

impl Shape {
    /// Slots, state and journal one after the other, as small as they may be.
    #[must_use]
    pub fn new(sizes: &Sizes) -> Self {
        let Sizes { erase, write, .. } = *sizes;
        let granule = JournalLayout::granule(write, erase, sizes.writes_max);
        let swap_unit = sizes.swap * erase;
        let len = sizes.slot * swap_unit;
        let region = |offset, len| Region { offset, len };
        let active = region(0, len);
        let download = region(len, len + swap_unit);
        // Four granules of headers, the record, and some notes of progress.
        let bank = (granule * 12).max(320).next_multiple_of(erase);
        let state = region(download.offset + download.len, 2 * bank);
        let journal_layout = JournalLayout::least(erase, granule, 1);
        let journal = region(state.offset + state.len, journal_layout.len());
        let write_unit = if sizes.writes_max == 0 {
            write.max(4)
        } else {
            sizes.page
        };
        let whole = usize::try_from(len).expect("fits");
        Self {
            name: sizes.name,
            rules: Rules {
                writes_max: sizes.writes_max,
                page: usize::try_from(sizes.page).expect("fits"),
                read_errors: sizes.read_errors,
            },
            units: usize::try_from((journal.offset + journal.len) / erase).expect("fits"),
            boot: BootLayout {
                active,
                download,
                state,
                banks: 2,
                swap_unit,
                granule,
            },
            journal,
            journal_layout,
            component: ComponentConfig {
                component: 0,
                slot_size: len,
                write_unit,
                erase_unit: erase,
                window: sizes.window,
                commit_ms: 500,
                claim_every: sizes.claim_every,
            },
            // One that ends in the middle of a unit, and one that fills the slot but for a bit.
            images: (whole * 5 / 8 + 3, whole - 5),
        }
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended<const W: usize, const E: usize> {
    /// The flash, with its history where it was kept.
    pub flash: Nor<W, E>,
    /// What the gateway knows.
    pub store: Store,
    /// Its state at each [`Nor::tag`], and the bytes that it knew to be committed.
    pub stores: Vec<(Arc<Store>, u32)>,
    /// Starts of the board.
    pub starts: u32,
    /// The place in the library of the image that runs.
    pub runs: usize,
    /// The virtual clock.
    pub now: u64,
    /// Bytes that the gateway knew to be committed when the power failed.
    pub at_cut: Option<u32>,
    /// Starts at which the boot stage could start nothing.
    pub stuck: u32,
}

impl<const W: usize, const E: usize> Ended<W, E> {
    /// How the update ended.
    #[must_use]
    pub fn outcome(&self) -> (State, Reason) {
        (self.store.updates[0].state, self.store.updates[0].reason)
    }
}

#[derive(Debug)]
struct SimRng(SmallRng);

impl Rng for SimRng {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }
}

thread_local! {
    static VERDICT: Cell<SelfTest> = const { Cell::new(SelfTest::PASSED) };
}

fn verdict(_: u8) -> SelfTest {
    VERDICT.get()
}

fn restart(_: BootReason) -> Result<(), BootError> {
    Ok(())
}

/// A flash on which `library[0]` runs.
#[must_use]
pub fn fresh<const W: usize, const E: usize>(shape: &Shape, library: &[Image]) -> Nor<W, E> {
    let mut flash = Nor::new(shape.units, shape.rules, 7);
    let len = usize::try_from(shape.boot.active.len).expect("fits");
    flash.program(0, len, &library[0].bytes);
    flash
}

/// The board and its gateway.
struct Run<'r, const W: usize, const E: usize> {
    shape: &'r Shape,
    library: &'r Rc<Vec<Image>>,
    behaviour: Behaviour,
    flash: &'r RefCell<Nor<W, E>>,
    net: Rc<RefCell<Net>>,
    store: Rc<RefCell<Store>>,
    stores: Vec<(Arc<Store>, u32)>,
    gate: Gate,
    committed: u32,
    now: u64,
    seed: u64,
    starts: u32,
    at_cut: Option<u32>,
    stuck: u32,
    /// Ends the run at this time where nothing else does.
    until: u64,
}

/// Times that a boot stage is stuck before the flash is as good as new.
const STUCK_MAX: u32 = 3;

/// Starts the board with this flash, and the gateway with this record; runs until every
/// update has ended and the board has said everything. Power fails where the flash says.
///
/// # Panics
/// Something that must not be: a mixed image is started, the boot stage is stuck, the
/// flash is misused, or no end comes.
#[must_use]
pub fn run<const W: usize, const E: usize>(
    shape: &Shape,
    library: &Rc<Vec<Image>>,
    behaviour: Behaviour,
    flash: Nor<W, E>,
    store: Store,
    seed: u64,
) -> Ended<W, E> {
    let ended = run_for(shape, library, behaviour, flash, store, seed, TIME_MAX);
    assert!(ended.now < TIME_MAX, "no end");
    ended
}

/// As [`run`], and ends at this time where nothing comes to rest.
///
/// # Panics
/// As [`run`].
#[must_use]
pub fn run_for<const W: usize, const E: usize>(
    shape: &Shape,
    library: &Rc<Vec<Image>>,
    behaviour: Behaviour,
    flash: Nor<W, E>,
    store: Store,
    seed: u64,
    until: u64,
) -> Ended<W, E> {
    let flash = RefCell::new(flash);
    let net = Rc::new(RefCell::new(Net::new(Manners::GOOD, seed)));
    net.borrow_mut().gateway_up = true;
    let store = Rc::new(RefCell::new(store));
    let gate = Gate::start(Rc::clone(&net), Rc::clone(&store), Rc::clone(library));
    let mut run = Run {
        shape,
        library,
        behaviour,
        flash: &flash,
        net,
        store,
        stores: Vec::new(),
        gate,
        committed: 0,
        now: 0,
        seed,
        starts: 0,
        at_cut: None,
        stuck: 0,
        until,
    };
    let runs = loop {
        if let Some(runs) = run.boot() {
            break runs;
        }
        run.net.borrow_mut().silence_all();
    };
    let Run {
        stores,
        starts,
        now,
        store,
        gate,
        at_cut,
        stuck,
        ..
    } = run;
    drop(gate);
    let store = store.borrow().clone();
    Ended {
        flash: flash.into_inner(),
        store,
        stores,
        starts,
        runs,
        now,
        at_cut,
        stuck,
    }
}

impl<'r, const W: usize, const E: usize> Run<'r, W, E> {
    /// Marks what the flash does from here on with the gateway's state.
    fn mark(&mut self) {
        let mut flash = self.flash.borrow_mut();
        if flash.history.is_some() {
            let store = self.store.borrow();
            self.stores.push((Arc::new(store.clone()), self.committed));
            flash.tag = self.stores.len() - 1;
        }
    }

    /// One start; the image that runs, where everything has come to rest.
    fn boot(&mut self) -> Option<usize> {
        self.starts += 1;
        assert!(
            self.starts < STARTS_MAX,
            "no end of starts: {}",
            self.describe()
        );
        self.now += 500;
        self.mark();
        let (decision, runs) = {
            let mut flash = self.flash.borrow_mut();
            flash.start(self.seed ^ u64::from(self.starts) << 32);
            let decision = BootStage::run(&mut *flash, &self.shape.boot);
            if flash.is_off {
                drop(flash);
                self.note_cut();
                return None;
            }
            (decision, self.active(&flash))
        };
        let Decision::Start(started) = decision else {
            self.stuck += 1;
            if self.stuck == STUCK_MAX {
                self.flash.borrow_mut().heal();
            }
            return None;
        };
        let runs = runs.unwrap_or_else(|| panic!("a mixed image is started: {}", self.describe()));
        let new = runs != 0;
        if new && self.behaviour == Behaviour::Crashes {
            assert!(matches!(started, Started::Trial { .. }), "it was confirmed");
            return None;
        }
        let bad = new && self.behaviour == Behaviour::FailsSelfTest;
        VERDICT.set(if bad {
            SelfTest::FAILED
        } else {
            SelfTest::PASSED
        });
        self.net.borrow_mut().gateway_up = !(new && self.behaviour == Behaviour::NeverDials);
        self.mark();
        self.client(runs).then_some(runs)
    }

    /// The power has failed: what is proven from here on counts.
    fn note_cut(&mut self) {
        self.at_cut = Some(self.committed);
        self.store.borrow_mut().proven_len = None;
    }

    /// The image in the active slot.
    fn active(&self, flash: &Nor<W, E>) -> Option<usize> {
        let start = usize::try_from(self.shape.boot.active.offset).expect("fits");
        let active = &flash.bytes()[start..];
        self.library
            .iter()
            .position(|image| active.starts_with(&image.bytes))
    }

    /// Runs the client until it restarts or the power fails, false; or until all is at rest.
    fn client(&mut self, runs: usize) -> bool {
        let shape = self.shape;
        let part = |region| Partition::new(self.flash, region).expect("it lies in the flash");
        let whole = Region {
            offset: 0,
            len: u32::try_from(shape.units * E).expect("fits"),
        };
        let porter = Porter {
            self_test: verdict,
            restart,
            started: BootReason::POWER_ON,
            size: Some(u32::try_from(self.library[runs].bytes.len()).expect("fits")),
            version: "",
            counter: 0,
        };
        let component = shape.component;
        let slot = NorSlot::new(
            part(shape.boot.download),
            component.slot_size,
            component.write_unit,
        );
        let journal = NorJournal::new(part(shape.journal), &shape.journal_layout);
        let parts = Parts {
            transport: SimTransport {
                net: Rc::clone(&self.net),
                conn: None,
                power: Power::default(),
            },
            slot,
            journal: journal.expect("the layout fits"),
            boot: NorBoot::new(part(whole), &shape.boot, porter).expect("the layout fits"),
            rng: SimRng(SmallRng::seed_from_u64(self.seed ^ u64::from(self.starts))),
        };
        let components = [component];
        let config = config(&components);
        let key = DeviceKey::new(KEY);
        let trust = trust();
        let provision = provision(&key, &trust);
        self.net.borrow_mut().now = self.now;
        let mut client: Client<'_, _, _, _, _, _, RX> =
            Client::start(config, provision, parts, Millis(self.now));
        let mut due = Some(self.now);
        loop {
            // Everything that can be done at this instant.
            for polls in 0.. {
                assert!(polls < 20_000, "no end of polls: {}", self.describe());
                self.net.borrow_mut().now = self.now;
                let before = self.net.borrow().bytes;
                self.mark();
                let wake = client.poll(Millis(self.now));
                due = wake.at.map(|at| at.0);
                if self.flash.borrow().is_off {
                    self.note_cut();
                    return false;
                }
                if wake.restarting {
                    return false;
                }
                let mut moved = self.net.borrow().bytes != before;
                moved |= self.gate.poll(Millis(self.now));
                if let Some((_, committed)) = self.store.borrow_mut().acked.take() {
                    self.committed = committed;
                }
                if !moved && due.is_none_or(|at| at > self.now) {
                    break;
                }
            }
            let cells = client.machine().cells();
            let quiet = cells.outbox.entries().is_empty() && cells.trial.is_none();
            if quiet
                && matches!(client.machine().link_state(), LinkState::Online)
                && (self.store.borrow().updates.iter()).all(|update| update.state.is_terminal())
            {
                return true;
            }
            let next = [
                self.net.borrow_mut().next_arrival(),
                due,
                self.gate.deadline(),
            ];
            let next = next.into_iter().flatten().min().unwrap_or(u64::MAX);
            if next >= self.until {
                self.now = self.until;
                return true;
            }
            self.now = self.now.max(next);
        }
    }

    fn describe(&self) -> String {
        let store = self.store.borrow();
        let updates: Vec<_> = (store.updates.iter())
            .map(|update| format!("{} {} {:?}", update.state, update.reason, update.history))
            .collect();
        format!(
            "{} {:?} at {} ms, start {}: gateway {}, updates {updates:?}, closes {:?}",
            self.shape.name,
            self.behaviour,
            self.now,
            self.starts,
            self.gate.waits(),
            store.closes
        )
    }
}
