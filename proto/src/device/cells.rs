//! What the board's journal holds, cell by cell (spec/states.md section 4).
//!
//! Each cell is stored whole and atomically; no two facts that must change together
//! stand in two cells.

use super::config::{COMPONENTS, ENTRIES, GATEWAY_LISTS, ROTATION, SEVERAL};
use super::outbox::Outbox;
use super::several::EntryCell;
use crate::code::Reason;
use crate::id::{Digest, UpdateId};
use crate::limits::{STATEMENT_MAX, TRUST_SET_LEN, VERSION_MAX};
use crate::manifest::Remembered;
use crate::statement::GatewaysStatement;
use crate::stored::{Stored, Way, load};
use crate::trust::TrustSet;
use crate::wire::{Reader, Writer};
use heapless::{String, Vec};

/// Longest cell, in bytes: the gateways statement, where it is one of this build's.
pub const CELL_LEN: usize = if GATEWAY_LISTS {
    STATEMENT_MAX
} else {
    TRUST_SET_LEN
};

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
    /// [`EntryCell`] of the component at this place of the configuration.
    Entry(u8),
    /// 32 bytes that the random source is seeded with; the shell's.
    Seed,
}

impl Cell {
    /// Every cell that the machine loads at boot, in the order in which it stores those
    /// that change together: a key before the statement that it is there, an outcome
    /// before the end of the trial that it states.
    pub const ALL: [Self; 10 + ENTRIES] = {
        // Entries come behind the outcome and before the end of their trial.
        let mut all = [Self::Trial; 10 + ENTRIES];
        let first = [
            Self::Keys,
            Self::Trust,
            Self::Gateways,
            Self::Image(0),
            Self::Image(1),
            Self::Image(2),
            Self::Image(3),
            Self::Outbox,
        ];
        let mut at = 0;
        while at < first.len() {
            all[at] = first[at];
            at += 1;
        }
        let mut place = 0;
        while at < 8 + ENTRIES {
            all[at] = Self::Entry(place);
            place += 1;
            at += 1;
        }
        all[at] = Self::Claim;
        all
    };

    /// Whether this build has a use for the cell; what an earlier image stored there stays.
    #[must_use]
    pub const fn is_used(self) -> bool {
        match self {
            Self::Keys | Self::Trust => ROTATION,
            Self::Gateways => GATEWAY_LISTS,
            Self::Entry(_) => SEVERAL,
            _ => true,
        }
    }

    /// The cell's number in the journal; never used again for another.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Keys => 1,
            Self::Seed => 2,
            Self::Trust => 3,
            Self::Gateways => 4,
            Self::Entry(place) if SEVERAL => 16 + (place & 3),
            // A build without entries has no such cell.
            Self::Image(index) | Self::Entry(index) => 5 + (index & 3),
            Self::Claim => 9,
            Self::Trial => 10,
            Self::Outbox => 11,
        }
    }

    /// Its bit in a set of cells: 12 to 15 are no cell's number (spec/states.md section 4).
    pub(super) const fn bit(self) -> u16 {
        match self {
            Self::Entry(place) if SEVERAL => 1 << (12 + (place & 3)),
            _ => 1 << self.number(),
        }
    }
}

/// Keys that replace the provisioned one.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Keys {
    /// In force instead of the provisioned key.
    pub current: Option<[u8; 32]>,
    /// Sent by NewKey, not yet settled.
    pub pending: Option<[u8; 32]>,
}

impl Stored for Keys {
    fn pass(&mut self, way: &mut Way<'_>) {
        way.key(&mut self.current);
        way.key(&mut self.pending);
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

impl Stored for ImageCell {
    fn pass(&mut self, way: &mut Way<'_>) {
        way.bytes(&mut self.digest);
        way.number(&mut self.size);
        way.counter(&mut self.counter);
        way.counter(&mut self.floor);
        way.text(&mut self.version);
    }
}

/// How far an image is that is being received, or is staged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ClaimCell {
    /// Bytes committed at least.
    pub committed: u32,
    /// The whole image was verified.
    pub staged: bool,
    /// The slot was erased to the image's end.
    pub prepared: bool,
}

impl Stored for ClaimCell {
    fn pass(&mut self, way: &mut Way<'_>) {
        way.number(&mut self.committed);
        way.flag(&mut self.staged);
        way.flag(&mut self.prepared);
    }
}

/// How far the change to another image has come; each is stored before its step is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TrialPhase {
    /// `activate` is called, perhaps again.
    #[default]
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

/// How far an image is between staged and its outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
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
    /// Of an update with several entries: the place of the component that the outcome names,
    /// and 1; 0: none.
    pub blamed: u8,
    /// Of an update with several entries: the places of all its components, a bit each;
    /// 0: it has one entry.
    pub entries: u8,
}

impl Stored for TrialCell {
    fn pass(&mut self, way: &mut Way<'_>) {
        way.bytes(&mut self.update.0);
        self.phase.pass(way);
        way.byte(&mut self.boots);
        way.short(&mut self.dials);
        way.number(&mut self.awake_s);
        way.byte(&mut self.attempts);
        way.byte(&mut self.reason.0);
        let mut both = self.entries << 4 | self.blamed;
        if SEVERAL && (both != 0 || way.has_more()) {
            way.byte(&mut both);
            (self.entries, self.blamed) = (both >> 4, both & 15);
        }
    }
}

/// The journal's cells in memory, the small ones first: see [`super::Machine`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Cells {
    /// Epoch of the gateways statement in force; 0: the provisioned list.
    pub gateways_epoch: u32,
    /// Gateways in that statement.
    pub gateways: u8,
    /// The image in the slot.
    pub claim: Option<ClaimCell>,
    /// The image on trial.
    pub trial: Option<TrialCell>,
    /// What the verified manifest said of the image that `claim` and `trial` are about:
    /// one board is at one image at a time. There where either of them is.
    pub image: Option<Remembered>,
    /// Keys that replace the provisioned one.
    pub keys: Keys,
    /// Confirmed images, in the order of the configuration.
    pub images: Vec<ImageCell, COMPONENTS>,
    /// What the gateway has yet to settle.
    pub outbox: Outbox,
    /// The TrustSet in force.
    pub trust: Option<TrustSet>,
    /// Entries of an update with several, at the places of their components. Of the one that
    /// `image` is, `claim` goes before what is here.
    pub entries: [Option<EntryCell>; ENTRIES],
}

impl Cells {
    /// Room for an image of each of so many components.
    #[inline(never)]
    pub fn make_room(&mut self, components: usize) {
        while self.images.len() < components && self.images.push(ImageCell::default()).is_ok() {}
    }

    /// Takes a cell as the journal returned it; false where the bytes are not one: the cell
    /// is empty then, the TrustSet as it was.
    #[inline(never)]
    pub fn load(&mut self, cell: Cell, bytes: &[u8]) -> bool {
        match cell {
            Cell::Keys | Cell::Trust if !ROTATION => true,
            Cell::Gateways if !GATEWAY_LISTS => true,
            Cell::Keys => load(&mut self.keys, bytes),
            Cell::Trust => {
                let mut set = TrustSet::default();
                let is_good = load(&mut set, bytes) && set.validate().is_ok();
                if is_good {
                    self.trust = Some(set);
                }
                is_good
            }
            Cell::Gateways => match GatewaysStatement::parse(bytes) {
                Ok(statement) => {
                    self.gateways_epoch = statement.epoch();
                    self.gateways = statement.count();
                    true
                }
                Err(_) => false,
            },
            Cell::Image(place) => self
                .images
                .get_mut(usize::from(place))
                .is_some_and(|image| load(image, bytes)),
            Cell::Claim | Cell::Trial => self.load_on_its_way(cell, bytes),
            Cell::Outbox => load(&mut self.outbox, bytes),
            Cell::Entry(place) if SEVERAL => {
                let mut found = EntryCell::default();
                let is_good = load(&mut found, bytes);
                if let Some(entry) = self.entries.get_mut(usize::from(place)) {
                    *entry = is_good.then_some(found);
                }
                is_good
            }
            Cell::Seed | Cell::Entry(_) => false,
        }
    }

    /// What was kept of the manifest, then the claim or the trial.
    fn load_on_its_way(&mut self, cell: Cell, bytes: &[u8]) -> bool {
        let mut way = Way::Load(Reader::new(bytes));
        let mut image = Remembered::default();
        let (mut claim, mut trial) = (ClaimCell::default(), TrialCell::default());
        way.head(&mut image);
        if cell == Cell::Claim {
            claim.pass(&mut way);
        } else {
            trial.pass(&mut way);
        }
        if !way.is_done() {
            return false;
        }
        if cell == Cell::Claim {
            self.claim = Some(claim);
        } else {
            // A trial is of the image that was claimed; a claim of another one is stale.
            if self
                .image
                .as_ref()
                .is_some_and(|of| of.manifest != image.manifest)
            {
                self.claim = None;
            }
            self.trial = Some(trial);
        }
        self.image = Some(image);
        true
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
    pub(super) fn encode(&mut self, cell: Cell, out: &mut [u8; CELL_LEN]) -> Option<usize> {
        let mut way = Way::Store(Writer::new(out));
        match cell {
            Cell::Keys | Cell::Trust if !ROTATION => return None,
            Cell::Keys => self.keys.pass(&mut way),
            Cell::Trust => self.trust.as_mut()?.pass(&mut way),
            Cell::Image(place) => self.images.get_mut(usize::from(place))?.pass(&mut way),
            // That of an entry stands in the entry's own cell.
            Cell::Claim if self.entry_at_hand().is_some() => return None,
            Cell::Claim => {
                let claim = self.claim.as_mut()?;
                way.head(self.image.as_mut()?);
                claim.pass(&mut way);
            }
            Cell::Trial => {
                let trial = self.trial.as_mut()?;
                way.head(self.image.as_mut()?);
                trial.pass(&mut way);
            }
            Cell::Outbox => self.outbox.pass(&mut way),
            Cell::Entry(place) => {
                self.keep_entry();
                let entry = self.entries.get_mut(usize::from(place))?;
                entry.as_mut()?.pass(&mut way);
            }
            Cell::Gateways | Cell::Seed => return None,
        }
        way.finish()
    }
}

impl ImageCell {
    /// Whether this is the image with the digest.
    #[must_use]
    pub fn is(&self, digest: &Digest) -> bool {
        self.size != 0 && self.digest == digest.0
    }
}

const PHASES: [TrialPhase; 5] = [
    TrialPhase::Activating,
    TrialPhase::Switched,
    TrialPhase::Testing,
    TrialPhase::Confirming,
    TrialPhase::Reverting,
];

impl Stored for TrialPhase {
    fn pass(&mut self, way: &mut Way<'_>) {
        let mut place = *self as u8;
        way.byte(&mut place);
        match PHASES.get(usize::from(place)) {
            Some(phase) => *self = *phase,
            None => way.fail(),
        }
    }
}
