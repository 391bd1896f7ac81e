//! What the machine is given: the porter's configuration, what runs, and passing facts.

use crate::code::{BootReason, DigestFrom, Link, Revert};
use crate::id::Digest;
use crate::limits::COMPONENTS_MAX;
use heapless::String;

/// Components that a board of this build can have: [`COMPONENTS_MAX`] with the feature
/// `several-components`, otherwise 1. What goes over the wire is the same.
pub const COMPONENTS: usize = if cfg!(feature = "several-components") {
    COMPONENTS_MAX
} else {
    1
};

/// The board may have several components.
pub(super) const SEVERAL: bool = COMPONENTS > 1;

/// Entries of one update that a board of this build can hold beside each other: none where it
/// has one component.
pub const ENTRIES: usize = if SEVERAL { COMPONENTS } else { 0 };

/// The board takes NewKey; without it it keeps the key that it was provisioned with.
pub const ROTATION: bool = cfg!(feature = "rotation");

/// The board takes SetGateways; without it it keeps the gateways that it was provisioned with.
pub const GATEWAY_LISTS: bool = cfg!(feature = "gateway-lists");

/// The board says longer texts: outputs of its commands, its log (spec/protocol.md section 12);
/// without it it answers ReadLog with Unsupported.
pub const TEXTS: bool = cfg!(feature = "texts");

/// Task that the board's configuration may allow: ReadLog is answered.
pub const TASK_LOG: u32 = 1 << 2;

/// What the porter's program knows before it starts, constant while it runs.
#[derive(Clone, Copy, Debug)]
pub struct Config<'c> {
    /// The device's id.
    pub device: &'c str,
    /// Its product.
    pub product: &'c str,
    /// Its hardware revision.
    pub hardware: u16,
    /// Name and version of the client program, at most 32 bytes.
    pub client: &'c str,
    /// Longest ciphertext that the receive buffer takes, in bytes.
    pub receive_buffer: u16,
    /// Bit set of allowed tasks.
    pub tasks: u32,
    /// Ping interval to begin with, in seconds.
    pub ping_s: u32,
    /// Least ping interval that the board takes as advice, in seconds: 60, less only in tests.
    pub ping_s_min: u32,
    /// The board sleeps and dials again after so many seconds; 0: it stays connected.
    pub wake_s: u32,
    /// First and longest wait between dials, in milliseconds.
    pub backoff_ms: (u64, u64),
    /// Gateways of the provisioned list.
    pub gateways: u8,
    /// The components, at most [`COMPONENTS`].
    pub components: &'c [ComponentConfig],
}

impl Config<'_> {
    /// The place of a component in the configuration, by its number.
    #[inline(never)]
    pub(super) fn place(&self, component: u8) -> Option<u8> {
        let mut all = self.components.iter();
        all.position(|of| of.component == component)
            .and_then(|place| u8::try_from(place).ok())
    }
}

/// A component's storage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ComponentConfig {
    /// Its number.
    pub component: u8,
    /// Largest image, in bytes.
    pub slot_size: u32,
    /// Least piece that can be written, in bytes.
    pub write_unit: u32,
    /// Least piece that can be erased, in bytes.
    pub erase_unit: u32,
    /// Most bytes under way and not committed.
    pub window: u32,
    /// Worst time to commit a window, in milliseconds, erase included.
    pub commit_ms: u32,
    /// The claim is stored once per so many committed bytes.
    pub claim_every: u32,
}

/// What runs of one component, as the boot side found it (Hello, spec/frames.md section 3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningImage {
    /// SHA-256 of the running image; nothing where `digest_from` is unknown.
    pub digest: Digest,
    /// How the digest is known.
    pub digest_from: DigestFrom,
    /// Why it was started.
    pub boot_reason: BootReason,
    /// Who puts the old image back if the next one is bad (spec/protocol.md section 9.4).
    pub revert: Revert,
    /// Version that the image itself knows, at most 32 bytes; empty: unknown. The
    /// journal's manifest goes first where it names this digest.
    pub version: &'static str,
    /// Counter that the image itself knows; 0: unknown. As `version`.
    pub counter: u64,
    /// An `activate` or a `revert` was cut before its end, or failed half-way: `digest`
    /// is then unknown, and the client repeats the call.
    pub unfinished: bool,
    /// The boot side holds this component's trial open: `revert` would bring an older
    /// image back, or a bootloader goes back by itself unless `confirm` is called. Where
    /// the journal knows of no trial (its cell was lost) the client calls `revert` at its
    /// start, and never takes the image for confirmed.
    pub on_trial: bool,
}

impl RunningImage {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self {
        digest: Digest([0; 32]),
        digest_from: DigestFrom::UNKNOWN,
        boot_reason: BootReason::UNKNOWN,
        revert: Revert::NONE,
        version: "",
        counter: 0,
        unfinished: false,
        on_trial: false,
    };
}

/// What the shell knows about link and board, for Hello; it may change at any time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// How the board reaches its network.
    pub link: Link,
    /// The network's name.
    pub network: String<32>,
    /// Signal in dBm; -128: unknown.
    pub signal_dbm: i8,
    /// Battery in percent; 255: unknown.
    pub battery_percent: u8,
    /// Temperature in degrees Celsius; -128: unknown.
    pub temperature_c: i8,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            link: Link::UNKNOWN,
            network: String::new(),
            signal_dbm: -128,
            battery_percent: 255,
            temperature_c: -128,
        }
    }
}
