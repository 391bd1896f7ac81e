//! What the board's journal holds, cell by cell (spec/states.md section 4).
//!
//! Each cell is stored whole and atomically; no two facts that must change together
//! stand in two cells.

use super::config::COMPONENTS;
use super::outbox::Outbox;
use crate::code::Reason;
use crate::id::{Digest, UpdateId};
use crate::limits::{STATEMENT_MAX, VERSION_MAX};
use crate::manifest::Remembered;
use crate::trust::TrustSet;
use crate::wire::{Field, Reader, Writer, fields, whole};
use heapless::{String, Vec};

/// Longest cell, in bytes: the gateways statement.
pub const CELL_LEN: usize = STATEMENT_MAX;

/// A cell of the journal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Cell {
    /// [`Keys`].
    Keys,
    /// The TrustSet that replaces the provisioned one.
    Trust,
    /// The last gateways statement that was verified, as it came.
    Gateways,
    /// [`ImageCell`] of the component at this place of the configuration.
    Image(u8),
    /// [`ClaimCell`].
    Claim,
    /// [`TrialCell`].
    Trial,
    /// [`Outbox`].
    Outbox,
    /// 32 bytes that the random source is seeded with; the shell's.
    Seed,
}

impl Cell {
    /// Every cell that the machine loads at boot, in the order in which it stores those
    /// that change together: a key before the statement that it is there, an outcome
    /// before the end of the trial that it states.
    pub const ALL: [Self; 10] = [
        Self::Keys,
        Self::Trust,
        Self::Gateways,
        Self::Image(0),
        Self::Image(1),
        Self::Image(2),
        Self::Image(3),
        Self::Outbox,
        Self::Claim,
        Self::Trial,
    ];

    /// The cell's number in the journal; never used again for another.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Keys => 1,
            Self::Seed => 2,
            Self::Trust => 3,
            Self::Gateways => 4,
            Self::Image(index) => 5 + (index & 3),
            Self::Claim => 9,
            Self::Trial => 10,
            Self::Outbox => 11,
        }
    }
}

fields! {
    /// Keys that replace the provisioned one.
    #[derive(Clone, PartialEq, Eq, Default)]
    pub struct Keys {
        /// In force instead of the provisioned key.
        pub current: Option<[u8; 32]>,
        /// Sent by NewKey, not yet settled.
        pub pending: Option<[u8; 32]>,
    }
}

impl core::fmt::Debug for Keys {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "Keys(current: {}, pending: {})",
            self.current.is_some(),
            self.pending.is_some()
        )
    }
}

fields! {
    /// What is known of a component's confirmed image.
    #[derive(Clone, PartialEq, Eq, Debug, Default)]
    pub struct ImageCell {
        /// Its digest; zeros: none was confirmed yet.
        pub digest: [u8; 32],
        /// Its size in bytes.
        pub size: u32,
        /// Its counter.
        pub counter: u64,
        /// Lowest counter that is accepted from now on.
        pub floor: u64,
        /// Its version text.
        pub version: String<VERSION_MAX>,
    }
}

fields! {
    /// How far an image is that is being received, or is staged.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct ClaimCell {
        /// Bytes committed at least.
        pub committed: u32,
        /// The whole image was verified.
        pub staged: bool,
        /// The slot was erased to the image's end.
        pub prepared: bool,
    }
}

/// How far the change to another image has come; each is stored before its step is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TrialPhase {
    /// `activate` is called, perhaps again.
    Activating,
    /// `activate` returned; the board restarts.
    Switched,
    /// The image runs, on trial.
    Testing,
    /// The gateway has confirmed; the boot is made final.
    Confirming,
    /// The old image is put back.
    Reverting,
}

fields! {
    /// How far an image is between staged and its outcome.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct TrialCell {
        /// The update.
        pub update: UpdateId,
        /// How far it is.
        pub phase: TrialPhase,
        /// Boots on trial so far.
        pub boots: u8,
        /// Failed dials on trial so far, while the link was up.
        pub dials: u16,
        /// Awake time on trial so far, in seconds.
        pub awake_s: u32,
        /// Calls of `activate` or `revert` in this phase, the one under way included.
        pub attempts: u8,
        /// Why it is reverted.
        pub reason: Reason,
    }
}

/// The journal's cells in memory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cells {
    /// Keys that replace the provisioned one.
    pub keys: Keys,
    /// The TrustSet in force.
    pub trust: Option<TrustSet>,
    /// Epoch of the gateways statement in force; 0: the provisioned list.
    pub gateways_epoch: u32,
    /// Gateways in that statement.
    pub gateways: u8,
    /// Confirmed images, in the order of the configuration.
    pub images: Vec<ImageCell, COMPONENTS>,
    /// What the verified manifest said of the image that `claim` and `trial` are about:
    /// one board is at one image at a time. There where either of them is.
    pub image: Option<Remembered>,
    /// The image in the slot.
    pub claim: Option<ClaimCell>,
    /// The image on trial.
    pub trial: Option<TrialCell>,
    /// What the gateway has yet to settle.
    pub outbox: Outbox,
}

impl Cells {
    /// Takes a cell as the journal returned it; false where the bytes are not one,
    /// which leaves the cell as it was.
    pub fn load(&mut self, cell: Cell, bytes: &[u8]) -> bool {
        self.try_load(cell, bytes).is_some()
    }

    fn try_load(&mut self, cell: Cell, bytes: &[u8]) -> Option<()> {
        match cell {
            Cell::Keys => self.keys = whole(bytes)?,
            Cell::Trust => self.trust = Some(TrustSet::decode(bytes).ok()?),
            Cell::Gateways => {
                let statement = crate::statement::GatewaysStatement::parse(bytes).ok()?;
                self.gateways_epoch = statement.epoch();
                self.gateways = u8::try_from(statement.gateways().count()).ok()?;
            }
            Cell::Image(index) => *self.images.get_mut(usize::from(index))? = whole(bytes)?,
            Cell::Claim => {
                let (image, claim) = split(bytes)?;
                self.image = Some(image);
                self.claim = Some(claim);
            }
            Cell::Trial => {
                let (image, trial) = split(bytes)?;
                // A trial is of the image that was claimed; a claim of another one is stale.
                if self
                    .image
                    .as_ref()
                    .is_some_and(|of| of.manifest != image.manifest)
                {
                    self.claim = None;
                }
                self.image = Some(image);
                self.trial = Some(trial);
            }
            Cell::Outbox => self.outbox = whole(bytes)?,
            Cell::Seed => return None,
        }
        Some(())
    }

    /// The claim, and the image that it is of.
    #[must_use]
    pub fn claimed(&self) -> Option<(&Remembered, &ClaimCell)> {
        self.image.as_ref().zip(self.claim.as_ref())
    }

    /// The trial, and the image that it is of.
    #[must_use]
    pub fn tried(&self) -> Option<(&Remembered, &TrialCell)> {
        self.image.as_ref().zip(self.trial.as_ref())
    }

    /// Writes a cell to `out`; `None` where the journal is to erase it.
    pub(super) fn encode(&self, cell: Cell, out: &mut [u8; CELL_LEN]) -> Option<usize> {
        match cell {
            Cell::Keys => put(&self.keys, out),
            Cell::Trust => self.trust.as_ref()?.encode(out).ok(),
            Cell::Image(index) => put(self.images.get(usize::from(index))?, out),
            Cell::Claim => join(self.image.as_ref()?, self.claim.as_ref()?, out),
            Cell::Trial => join(self.image.as_ref()?, self.trial.as_ref()?, out),
            Cell::Outbox => put(&self.outbox, out),
            Cell::Gateways | Cell::Seed => None,
        }
    }
}

impl ImageCell {
    /// Whether this is the image with the digest.
    #[must_use]
    pub fn is(&self, digest: &Digest) -> bool {
        self.size != 0 && self.digest == digest.0
    }
}

fn put<'a>(value: &impl Field<'a>, out: &mut [u8]) -> Option<usize> {
    let mut writer = Writer::new(out);
    value.write(&mut writer);
    writer.finish()
}

/// One byte of length, the remembered manifest, then the rest.
fn join<'a>(image: &Remembered, tail: &impl Field<'a>, out: &mut [u8]) -> Option<usize> {
    let (len, rest) = out.split_first_mut()?;
    let mut writer = Writer::new(rest);
    image.write(&mut writer);
    *len = u8::try_from(writer.len()).ok()?;
    tail.write(&mut writer);
    writer.finish().map(|used| 1 + used)
}

fn split<'a, T: Field<'a>>(bytes: &'a [u8]) -> Option<(Remembered, T)> {
    let (&len, rest) = bytes.split_first()?;
    let (image, tail) = rest.split_at_checked(usize::from(len))?;
    Some((whole(image)?, whole(tail)?))
}

const PHASES: [TrialPhase; 5] = [
    TrialPhase::Activating,
    TrialPhase::Switched,
    TrialPhase::Testing,
    TrialPhase::Confirming,
    TrialPhase::Reverting,
];

impl Field<'_> for TrialPhase {
    fn read(reader: &mut Reader<'_>) -> Self {
        let place = usize::from(u8::read(reader));
        PHASES.get(place).copied().unwrap_or_else(|| {
            reader.fail();
            Self::Activating
        })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        (*self as u8).write(writer);
    }
}
