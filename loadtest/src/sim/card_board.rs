//! A board with a card and Arduino's SDU stage, from reset to rest: stage, client with the
//! card's slot, journal and boot side, against the gateway's machines.

use super::card::{Disk, Snapshot, Storage};
use super::fixture::{Image, config, provision, trust};
use super::gate::Gate;
use super::net::{Manners, Net, SimTransport};
use super::nor_board::Behaviour;
use super::power::Power;
use super::store::Store;
use super::world::KEY;
use dialhome_device::client::{Client, Parts};
use dialhome_device::rng::Rng;
use dialhome_device::sd::{Card, SdJournal, SdSlot, SduBoot, Sketch};
use dialhome_proto::code::{BootReason, SelfTest};
use dialhome_proto::device::{ComponentConfig, LinkState};
use dialhome_proto::link::DeviceKey;
use dialhome_proto::time::Millis;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// The receive buffer, with the record's length.
const RX: usize = 1090;
/// Starts after which a run counts as one without an end.
const STARTS_MAX: u32 = 80;
/// Bytes of the largest image.
const SLOT: u32 = 64 * 1024;
/// The claim is stored once per so many bytes.
pub const CLAIM_EVERY: u32 = 4096;

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    /// The card and the flash.
    pub storage: Storage,
    /// How they came to be so, where that was kept.
    pub history: Vec<Snapshot>,
    /// What the gateway knows.
    pub store: Store,
    /// Its state at each tag, and the bytes that it knew to be committed.
    pub stores: Vec<(Arc<Store>, u32)>,
    /// The place in the library of the image that runs.
    pub runs: usize,
    /// It came to rest: the board is online, every update has ended.
    pub rested: bool,
}

#[derive(Debug)]
struct SimRng(SmallRng);

impl Rng for SimRng {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }
}

/// The image that runs, and what it thinks of itself.
#[derive(Debug)]
struct Running {
    flash: Arc<Vec<u8>>,
    verdict: SelfTest,
}

impl Sketch for Running {
    fn size(&self) -> u32 {
        u32::try_from(self.flash.len()).expect("fits")
    }

    fn read(&self, offset: u32, bytes: &mut [u8]) {
        let start = usize::try_from(offset).expect("fits");
        bytes.copy_from_slice(&self.flash[start..start + bytes.len()]);
    }

    fn version(&self) -> &'static str {
        ""
    }

    fn counter(&self) -> u64 {
        0
    }

    fn boot_reason(&self) -> BootReason {
        BootReason::POWER_ON
    }

    fn self_test(&mut self) -> SelfTest {
        self.verdict
    }

    fn restart(&mut self, _why: BootReason) {}
}

struct Run<'r> {
    library: &'r Rc<Vec<Image>>,
    behaviour: Behaviour,
    disk: Disk,
    net: Rc<RefCell<Net>>,
    store: Rc<RefCell<Store>>,
    stores: Vec<(Arc<Store>, u32)>,
    gate: Gate,
    committed: u32,
    now: u64,
    seed: u64,
    starts: u32,
    until: u64,
}

/// Starts the board with this storage, and the gateway with this record; runs until every
/// update has ended and the board has said everything, or until this time.
///
/// # Panics
/// Something that must not be: a mixed image is started, or no end comes.
#[must_use]
pub fn run(
    library: &Rc<Vec<Image>>,
    behaviour: Behaviour,
    storage: Storage,
    is_kept: bool,
    store: Store,
    seed: u64,
    until: u64,
) -> Ended {
    let net = Rc::new(RefCell::new(Net::new(Manners::GOOD, seed)));
    net.borrow_mut().gateway_up = true;
    let store = Rc::new(RefCell::new(store));
    let gate = Gate::start(Rc::clone(&net), Rc::clone(&store), Rc::clone(library));
    let mut run = Run {
        library,
        behaviour,
        disk: Disk::new(storage, is_kept),
        net,
        store,
        stores: Vec::new(),
        gate,
        committed: 0,
        now: 0,
        seed,
        starts: 0,
        until,
    };
    let (runs, rested) = loop {
        if let Some(end) = run.boot() {
            break end;
        }
        run.net.borrow_mut().silence_all();
    };
    let (storage, history) = run.disk.end();
    drop(run.gate);
    let store = run.store.borrow().clone();
    Ended {
        storage,
        history,
        store,
        stores: run.stores,
        runs,
        rested,
    }
}

impl Run<'_> {
    /// Marks what the disk does from here on with the gateway's state.
    fn mark(&mut self) {
        if self.disk.mark(self.stores.len()) {
            let store = self.store.borrow();
            self.stores.push((Arc::new(store.clone()), self.committed));
        }
    }

    /// One start; the image that runs and whether all is at rest, or nothing: it restarts.
    fn boot(&mut self) -> Option<(usize, bool)> {
        self.starts += 1;
        assert!(
            self.starts < STARTS_MAX,
            "no end of starts: {}",
            self.describe()
        );
        self.now += 500;
        self.mark();
        self.disk.stage();
        let flash = self.disk.flash();
        let runs = self.library.iter().position(|image| image.bytes == *flash);
        let runs = runs.unwrap_or_else(|| panic!("a mixed image is started: {}", self.describe()));
        let bad = runs == 1;
        self.net.borrow_mut().gateway_up = !(bad && self.behaviour == Behaviour::NeverDials);
        let verdict = if bad && self.behaviour == Behaviour::FailsSelfTest {
            SelfTest::FAILED
        } else {
            SelfTest::PASSED
        };
        self.mark();
        self.client(Running { flash, verdict })
            .map(|rested| (runs, rested))
    }

    /// Runs the client until it restarts; or until all is at rest, or its time is over.
    fn client(&mut self, sketch: Running) -> Option<bool> {
        let components = [ComponentConfig {
            component: 0,
            slot_size: SLOT,
            write_unit: 512,
            erase_unit: 512,
            window: 4096,
            commit_ms: 500,
            claim_every: CLAIM_EVERY,
        }];
        let config = config(&components);
        let (key, trust) = (DeviceKey::new(KEY), trust());
        let provision = provision(&key, &trust);
        self.net.borrow_mut().now = self.now;
        let mut now = self.now;
        let mut stores = std::mem::take(&mut self.stores);
        let mut committed = self.committed;
        let card = Card::new(&self.disk);
        let parts = Parts {
            transport: SimTransport {
                net: Rc::clone(&self.net),
                conn: None,
                power: Power::default(),
            },
            slot: SdSlot::new(&card, SLOT),
            journal: SdJournal::new(&card),
            boot: SduBoot::new(&card, sketch),
            rng: SimRng(SmallRng::seed_from_u64(self.seed ^ u64::from(self.starts))),
        };
        let mut client: Client<'_, _, _, _, _, _, RX> =
            Client::start(config, provision, parts, Millis(now));
        let mut due = Some(now);
        let ended = 'run: loop {
            // Everything that can be done at this instant.
            for polls in 0.. {
                assert!(polls < 20_000, "no end of polls: {}", self.describe());
                self.net.borrow_mut().now = now;
                let before = self.net.borrow().bytes;
                if self.disk.mark(stores.len()) {
                    stores.push((Arc::new(self.store.borrow().clone()), committed));
                }
                let wake = client.poll(Millis(now));
                due = wake.at.map(|at| at.0);
                if wake.restarting {
                    break 'run None;
                }
                let mut moved = self.net.borrow().bytes != before;
                moved |= self.gate.poll(Millis(now));
                if let Some((_, acked)) = self.store.borrow_mut().acked.take() {
                    committed = acked;
                }
                if !moved && due.is_none_or(|at| at > now) {
                    break;
                }
            }
            let cells = client.machine().cells();
            let quiet = cells.outbox.entries().is_empty() && cells.trial.is_none();
            if quiet
                && matches!(client.machine().link_state(), LinkState::Online)
                && (self.store.borrow().updates.iter()).all(|update| update.state.is_terminal())
            {
                break Some(true);
            }
            let next = [
                self.net.borrow_mut().next_arrival(),
                due,
                self.gate.deadline(),
            ];
            let next = next.into_iter().flatten().min().unwrap_or(u64::MAX);
            if next >= self.until {
                break Some(false);
            }
            now = now.max(next);
        };
        drop(client);
        self.now = now;
        self.stores = stores;
        self.committed = committed;
        ended
    }

    fn describe(&self) -> String {
        let store = self.store.borrow();
        let updates: Vec<_> = (store.updates.iter())
            .map(|update| format!("{} {} {:?}", update.state, update.reason, update.history))
            .collect();
        format!(
            "{:?} at {} ms, start {}: gateway {}, updates {updates:?}, closes {:?}",
            self.behaviour,
            self.now,
            self.starts,
            self.gate.waits(),
            store.closes
        )
    }
}
