//! What the client does with parts that are slow or damaged, before any session.

use dialhome_device::boot::{Activation, Boot, BootError, Restart, Running};
use dialhome_device::client::{Client, Parts, Provision};
use dialhome_device::journal::{Journal, JournalError};
use dialhome_device::rng::Rng;
use dialhome_device::slot::{Geometry, Slot, SlotError};
use dialhome_device::transport::{LinkFacts, Transport};
use dialhome_proto::code::{BootReason, SelfTest};
use dialhome_proto::device::{Cell, ComponentConfig, Config};
use dialhome_proto::limits::HANDSHAKE_MS;
use dialhome_proto::link::DeviceKey;
use dialhome_proto::time::Millis;
use std::cell::Cell as Shared;
use std::rc::Rc;

/// What the parts share with the test.
#[derive(Clone, Default)]
struct Seen {
    clock: Rc<Shared<u64>>,
    closed_at: Rc<Shared<Option<u64>>>,
    seeds_stored: Rc<Shared<u32>>,
}

/// A gateway that is reached after a while, and never answers.
struct Silent {
    seen: Seen,
    connect_ms: u64,
}

impl Transport for Silent {
    type Error = ();

    fn connect(&mut self, _: &str) -> Result<(), ()> {
        self.seen.clock.set(self.seen.clock.get() + self.connect_ms);
        self.seen.closed_at.set(None);
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) -> Result<usize, ()> {
        Ok(bytes.len())
    }

    fn receive(&mut self, _: &mut [u8]) -> Result<usize, ()> {
        Ok(0)
    }

    fn close(&mut self) {
        self.seen.closed_at.set(Some(self.seen.clock.get()));
    }

    fn link_up(&self) -> bool {
        true
    }

    fn facts(&self) -> LinkFacts<'_> {
        LinkFacts::UNKNOWN
    }
}

/// No slot, nothing to boot, and noise that is none.
struct Bare;

impl Slot for Bare {
    fn geometry(&self) -> Geometry {
        Geometry {
            size: 65_536,
            write_unit: 4,
            erase_unit: 256,
        }
    }

    fn prepare(&mut self, _: u32) -> Result<(), SlotError> {
        Err(SlotError::Io)
    }

    fn erase(&mut self, _: u32, _: u32) -> Result<(), SlotError> {
        Err(SlotError::Io)
    }

    fn write(&mut self, _: u32, _: &[u8]) -> Result<(), SlotError> {
        Err(SlotError::Io)
    }

    fn read(&mut self, _: u32, _: &mut [u8]) -> Result<(), SlotError> {
        Err(SlotError::Io)
    }

    fn flush(&mut self) -> Result<(), SlotError> {
        Err(SlotError::Io)
    }
}

impl Boot for Bare {
    fn running(&mut self, _: u8, _: Option<u32>) -> Result<Running, BootError> {
        Ok(Running::UNKNOWN)
    }

    fn activate(&mut self, _: &Activation<'_>) -> Result<Restart, BootError> {
        Err(BootError::Unsupported)
    }

    fn confirm(&mut self, _: u8) -> Result<(), BootError> {
        Ok(())
    }

    fn revert(&mut self, _: u8) -> Result<Restart, BootError> {
        Ok(Restart::NotNeeded)
    }

    fn self_test(&mut self, _: u8) -> SelfTest {
        SelfTest::NOT_RUN
    }

    fn restart(&mut self, _: BootReason) -> Result<(), BootError> {
        Err(BootError::Unsupported)
    }
}

impl Rng for Bare {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

/// A journal whose seed answers as it is told.
struct Seeds {
    seen: Seen,
    seed: Result<Option<usize>, JournalError>,
}

impl Journal for Seeds {
    fn load(&mut self, cell: u8, _: &mut [u8]) -> Result<Option<usize>, JournalError> {
        if cell == Cell::Seed.number() {
            self.seed
        } else {
            Ok(None)
        }
    }

    fn store(&mut self, cell: u8, _: &[u8]) -> Result<(), JournalError> {
        if cell == Cell::Seed.number() {
            self.seen.seeds_stored.set(self.seen.seeds_stored.get() + 1);
        }
        Ok(())
    }

    fn erase(&mut self, _: u8) -> Result<(), JournalError> {
        Ok(())
    }
}

const COMPONENTS: [ComponentConfig; 1] = [ComponentConfig {
    component: 0,
    slot_size: 65_536,
    write_unit: 4,
    erase_unit: 256,
    window: 8_192,
    commit_ms: 1_000,
    claim_every: 16_384,
}];

/// Runs the client until its first connection is closed; the time that it was open.
fn first_connection(
    seen: &Seen,
    connect_ms: u64,
    seed: Result<Option<usize>, JournalError>,
) -> u64 {
    let key = DeviceKey::new([3; 32]);
    let config = Config {
        device: "board-1",
        product: "lamp",
        hardware: 0,
        client: "test",
        receive_buffer: 0,
        tasks: 0,
        ping_s: 60,
        ping_s_min: 60,
        wake_s: 0,
        backoff_ms: (500, 60_000),
        gateways: 0,
        components: &COMPONENTS,
    };
    let provision = Provision {
        key: &key,
        gateways: &["gateway.example:7040"],
        trust: None,
        seed: None,
    };
    let parts = Parts {
        transport: Silent {
            seen: seen.clone(),
            connect_ms,
        },
        slot: Bare,
        journal: Seeds {
            seen: seen.clone(),
            seed,
        },
        boot: Bare,
        rng: Bare,
    };
    let mut client = Client::<_, _, _, _, _, 1090>::start(config, provision, parts, Millis(0));
    for _ in 0..1_000 {
        let wake = client.poll(Millis(seen.clock.get()));
        if let Some(closed) = seen.closed_at.get() {
            return closed - connect_ms;
        }
        let next = wake.at.expect("a dial has a deadline").0;
        seen.clock.set(next.max(seen.clock.get()));
    }
    panic!("the connection was never closed");
}

#[test]
fn a_handshake_has_its_time_however_long_the_connection_took() {
    for connect_ms in [0, 1_000, HANDSHAKE_MS, HANDSHAKE_MS + 1_000, 180_000] {
        let open_ms = first_connection(&Seen::default(), connect_ms, Ok(None));
        assert_eq!(open_ms, HANDSHAKE_MS, "after {connect_ms} ms of connecting");
    }
}

#[test]
fn a_seed_that_cannot_be_read_is_replaced() {
    for seed in [
        Ok(None),
        Ok(Some(32)),
        Err(JournalError::Damaged),
        Err(JournalError::TooLong),
    ] {
        let seen = Seen::default();
        first_connection(&seen, 0, seed);
        assert_eq!(seen.seeds_stored.get(), 1, "{seed:?}");
    }
}
