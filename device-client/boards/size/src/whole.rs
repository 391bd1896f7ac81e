//! The client over [`Opaque`], in static memory.

use super::{COMPONENT, Opaque, config, sink, word};
use core::hint::black_box;
use core::mem::MaybeUninit;
use dialhome_device::client::{Client, Parts, Provision};
use dialhome_device::nor::{JournalLayout, NorJournal, NorSlot};
use dialhome_proto::device::{ComponentConfig, Config};
use dialhome_proto::link::DeviceKey;
use dialhome_proto::time::Millis;
use dialhome_proto::trust::TrustSet;
use heapless::Vec;

/// Record length included: a "1 KiB board".
const RX: usize = 1090;

type Whole = Client<'static, Opaque, NorSlot<Opaque>, NorJournal<Opaque>, Opaque, Opaque, RX>;

/// 8 writes to each erase unit of 256 bytes, as on a SAMD21.
const JOURNAL: JournalLayout = JournalLayout::least(256, JournalLayout::granule(4, 256, 8), 1);

/// The board's static memory: the client and nothing else.
static mut CLIENT: MaybeUninit<Whole> = MaybeUninit::uninit();

static COMPONENTS: [ComponentConfig; 1] = [COMPONENT];

static KEY: DeviceKey = DeviceKey::new([0x42; 32]);
static SEED: [u8; 32] = [0x24; 32];

static TRUST: TrustSet = TrustSet {
    epoch: 1,
    threshold: 1,
    keys: Vec::from_array([[0x11; 32]]),
    minimums: Vec::new(),
};

static CONFIG: Config<'static> = config(&COMPONENTS);

static PROVISION: Provision<'static> = Provision {
    key: &KEY,
    gateways: &["gateway.example:7040"],
    trust: Some(&TRUST),
    seed: Some(&SEED),
};

fn now() -> Millis {
    Millis(u64::from(word()))
}

/// Runs the client for ever; returns only where the journal's layout is wrong.
pub fn run() {
    let Some(journal) = NorJournal::new(Opaque, &JOURNAL) else {
        return;
    };
    let parts = Parts {
        transport: Opaque,
        slot: NorSlot::new(Opaque, 120 * 1024, 64),
        journal,
        boot: Opaque,
        rng: Opaque,
    };
    // The compiler does not know their values.
    let (config, provision) = (*black_box(&CONFIG), *black_box(&PROVISION));
    let place = &raw mut CLIENT;
    // SAFETY: called once, from main; nothing else touches it.
    let client = unsafe { &mut *place };
    let client = client.write(Client::start(config, provision, parts, now()));
    loop {
        let wake = client.poll(now());
        if word() == 1 {
            client.stop();
        }
        if client.has_left() || wake.restarting {
            sink(&wake.at.unwrap_or_default().0.to_le_bytes());
        }
    }
}
