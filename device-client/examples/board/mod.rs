//! A board whose flash is a directory: slot, journal and boot side as a porter would write
//! them for a medium of his own. Both examples stand on it; the conformance checks pass.
//!
//! ```text
//! DIR/slot            the image that is being received
//! DIR/cell-N          the journal
//! DIR/image-DIGEST    an image that runs, or can be brought back
//! DIR/boot            what the "boot loader" reads: runs, next, previous
//! ```

mod boot;
mod storage;

pub(crate) use boot::FileBoot;
pub(crate) use storage::{FileJournal, FileSlot};

use dialhome_device::rng::Rng;
use dialhome_proto::device::{ComponentConfig, Config};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

/// Largest image, in bytes.
const SLOT_SIZE: u32 = 4 << 20;
/// The receive buffer of a "1 KiB board": 1,088 bytes of ciphertext and the length.
pub(crate) const RECEIVE: usize = 1_090;

/// What the gateway is told about the slot.
pub(crate) const COMPONENTS: [ComponentConfig; 1] = [ComponentConfig {
    component: 0,
    slot_size: SLOT_SIZE,
    write_unit: 1,
    erase_unit: 4096,
    window: 32 * 1024,
    commit_ms: 1_000,
    claim_every: 64 * 1024,
}];

/// What the program knows before it starts.
pub(crate) fn config<'c>(device: &'c str, product: &'c str) -> Config<'c> {
    Config {
        device,
        product,
        hardware: 0,
        client: "dialhome example",
        receive_buffer: 0, // The client takes it from the size of its buffer.
        tasks: 0b11,       // Ping and report.
        ping_s: 60,
        ping_s_min: 60,
        wake_s: 0,
        backoff_ms: (500, 60_000),
        gateways: 0, // The client counts them.
        components: &COMPONENTS,
    }
}

/// Replaces a file whole, and durably: what every journal and boot record needs.
fn replace(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let new = dir.join(format!("{name}.new"));
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, dir.join(name))?;
    File::open(dir)?.sync_all()
}

/// The system's random bytes.
pub(crate) struct Urandom(File);

impl Urandom {
    pub(crate) fn open() -> io::Result<Self> {
        File::open("/dev/urandom").map(Self)
    }
}

impl Rng for Urandom {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.read_exact(bytes).expect("/dev/urandom has no end");
    }
}
