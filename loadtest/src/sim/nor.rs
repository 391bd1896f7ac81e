//! NOR flash that keeps its rules and can lose power before, in and after every operation.
//!
//! It panics where the code above it writes over what was not erased, writes a unit more
//! often than the flash takes, or misses an alignment. A cut leaves torn words, units
//! erased in part, and *weak* bits, that read one way now and another way later; or, on a
//! flash with error correction, units whose read is an error until they are erased.

use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashErrorKind, ReadNorFlash};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One change of the flash, as far as a cut can tell them apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// One erase unit, by its number.
    Erase(usize),
    /// A write; the bytes are shared by all cuts of it.
    Write(usize, Arc<[u8]>),
}

/// Where the power fails, seen from an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Nothing of it happened.
    Before,
    /// In it; the number decides what is left.
    During(u64),
    /// All of it happened, and nobody was told.
    After,
}

/// What is weak about a byte.
#[derive(Clone, Copy, Debug)]
struct Weak {
    /// Bits that are neither.
    mask: u8,
    /// Starts for which they keep to what they read at first; after that every read is
    /// by chance.
    steady: u32,
}

/// The flash's numbers that are not in its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Writes of an erase unit between two erases, each of at most a page; 0: any number.
    pub writes_max: u32,
    /// Bytes that the hardware writes at once, at most.
    pub page: usize,
    /// A torn write unit reads as an error, until it is erased.
    pub read_errors: bool,
}

/// A flash with write units of `WRITE` bytes and erase units of `ERASE`.
#[derive(Clone, Debug)]
pub struct Nor<const WRITE: usize, const ERASE: usize> {
    bytes: Vec<u8>,
    /// Per write unit: written, or torn, since its erase unit was erased.
    used: Vec<bool>,
    /// What was being written where the power failed, by write unit.
    torn: BTreeMap<usize, Vec<u8>>,
    weak: BTreeMap<usize, Weak>,
    /// Write units that cannot be read.
    unreadable: BTreeSet<usize>,
    /// Bits that cannot be written to 0.
    stuck: BTreeMap<usize, u8>,
    writes: Vec<u32>,
    /// Erases of each unit so far.
    pub erases: Vec<u32>,
    rules: Rules,
    rng: SmallRng,
    /// Operations so far.
    pub ops: u64,
    /// The power fails at the operation with this number.
    pub cut: Option<(u64, Moment)>,
    /// The power has failed.
    pub is_off: bool,
    /// An erase or write that begins in this range is an error, and does nothing.
    pub read_only: std::ops::Range<usize>,
    /// Put into each snapshot: what the runner knows of the world around it.
    pub tag: usize,
    /// The flash before each operation, where it is kept.
    pub history: Option<Vec<Snapshot<WRITE, ERASE>>>,
}

/// A flash, and what was about to happen to it.
#[derive(Clone, Debug)]
pub struct Snapshot<const WRITE: usize, const ERASE: usize> {
    /// As it was.
    pub flash: Nor<WRITE, ERASE>,
    /// What was next.
    pub op: Op,
    /// [`Nor::tag`] of that time.
    pub tag: usize,
}

impl<const WRITE: usize, const ERASE: usize> Snapshot<WRITE, ERASE> {
    /// The flash that a cut at this moment leaves.
    #[must_use]
    pub fn cut(&self, moment: Moment) -> Nor<WRITE, ERASE> {
        let mut flash = self.flash.clone();
        if let Op::Write(offset, bytes) = &self.op
            && moment != Moment::Before
        {
            flash.check_write(*offset, bytes);
        }
        match moment {
            Moment::Before => {}
            Moment::During(seed) => flash.tear(&self.op, seed),
            Moment::After => flash.apply(&self.op),
        }
        flash
    }
}

impl<const WRITE: usize, const ERASE: usize> Nor<WRITE, ERASE> {
    /// A flash of `units` erase units, full of rubbish.
    #[must_use]
    pub fn new(units: usize, rules: Rules, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut bytes = vec![0; units * ERASE];
        rng.fill(&mut bytes[..]);
        Self {
            used: vec![true; bytes.len() / WRITE],
            bytes,
            torn: BTreeMap::new(),
            weak: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            stuck: BTreeMap::new(),
            writes: vec![0; units],
            erases: vec![0; units],
            rules,
            rng,
            ops: 0,
            cut: None,
            is_off: false,
            read_only: 0..0,
            tag: 0,
            history: None,
        }
    }

    /// What is stored, weak bits as they read at first.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Puts an image there as a programmer does, in erased units.
    pub fn program(&mut self, offset: usize, len: usize, image: &[u8]) {
        self.bytes[offset..offset + len].fill(0xFF);
        self.bytes[offset..offset + image.len()].copy_from_slice(image);
    }

    /// From now on bits of `mask` at `offset` stay 1, whatever is written.
    pub fn stick(&mut self, offset: usize, mask: u8) {
        self.stuck.insert(offset, mask);
    }

    /// The flash is as good as new.
    pub fn heal(&mut self) {
        self.stuck.clear();
    }

    /// Power is back.
    pub fn start(&mut self, seed: u64) {
        self.is_off = false;
        self.rng = SmallRng::seed_from_u64(seed);
        for weak in self.weak.values_mut() {
            weak.steady = weak.steady.saturating_sub(1);
        }
    }

    /// Does an operation whole.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Erase(unit) => {
                let range = unit * ERASE..(unit + 1) * ERASE;
                self.bytes[range.clone()].fill(0xFF);
                self.used[range.start / WRITE..range.end / WRITE].fill(false);
                forget(&mut self.torn, range.start / WRITE..range.end / WRITE);
                let units = range.start / WRITE..range.end / WRITE;
                self.unreadable.retain(|unit| !units.contains(unit));
                forget(&mut self.weak, range);
                self.writes[*unit] = 0;
                self.erases[*unit] += 1;
            }
            Op::Write(offset, bytes) => {
                let range = *offset..offset + bytes.len();
                self.bytes[range.clone()].copy_from_slice(bytes);
                for (at, mask) in self.stuck.range(range.clone()) {
                    self.bytes[*at] |= mask;
                }
                forget(&mut self.weak, range);
            }
        }
    }

    /// Loses power in an operation; the seed decides what is left of it.
    pub fn tear(&mut self, op: &Op, seed: u64) {
        let mut rng = SmallRng::seed_from_u64(seed ^ 0x7EA2);
        match op {
            Op::Erase(unit) => {
                self.tear_erase(unit * ERASE, seed, &mut rng);
                self.spoil(unit * ERASE..(unit + 1) * ERASE, seed, &mut rng);
            }
            Op::Write(offset, bytes) => {
                self.tear_write(*offset, bytes, seed, &mut rng);
                self.spoil(*offset..offset + bytes.len(), seed, &mut rng);
            }
        }
    }

    /// The flash sees that some of these units were not written to their end.
    fn spoil(&mut self, range: std::ops::Range<usize>, seed: u64, rng: &mut SmallRng) {
        if !self.rules.read_errors {
            return;
        }
        let units = range.start / WRITE..range.end.div_ceil(WRITE);
        let reached = rng.random_range(units.clone());
        for unit in units {
            let is_torn = match seed % 4 {
                0 => unit == reached,
                1 => true,
                2 => unit >= reached,
                _ => rng.random_bool(0.5),
            };
            for at in unit * WRITE..(unit + 1) * WRITE {
                self.weak.remove(&at);
            }
            if is_torn {
                self.torn.remove(&unit);
                self.unreadable.insert(unit);
            }
        }
    }

    fn tear_erase(&mut self, start: usize, seed: u64, rng: &mut SmallRng) {
        let range = start..start + ERASE;
        self.erases[start / ERASE] += 1;
        self.used[range.start / WRITE..range.end / WRITE].fill(true);
        forget(&mut self.torn, range.start / WRITE..range.end / WRITE);
        let middle = rng.random_range(0..ERASE);
        for at in range {
            let old = self.bytes[at];
            let (byte, mask, steady) = match seed % 4 {
                // It looks erased, for now.
                0 => (0xFF, !old, 2),
                // It looks as before, for now.
                1 => (old, !old, 2),
                // Erased in part, and noise between.
                2 if at - start < middle => (0xFF, 0, 0),
                2 => (old | rng.random::<u8>(), 0, 0),
                // Nothing can be relied on.
                _ => (old | rng.random::<u8>(), rng.random::<u8>() & !old, 0),
            };
            self.bytes[at] = byte;
            self.weaken(at, mask, steady);
        }
    }

    fn tear_write(&mut self, offset: usize, bytes: &[u8], seed: u64, rng: &mut SmallRng) {
        let units = bytes.len() / WRITE;
        let reached = rng.random_range(0..units.max(1));
        for (place, unit) in bytes.chunks(WRITE).enumerate() {
            let start = offset + place * WRITE;
            self.torn.insert(start / WRITE, unit.to_vec());
            for (at, new) in unit.iter().enumerate() {
                let at = start + at;
                let new = new | self.stuck.get(&at).copied().unwrap_or(0);
                let some = rng.random::<u8>();
                let (byte, mask, steady) = match seed % 4 {
                    // In order, up to a word that is torn.
                    0 if place < reached => (new, 0, 0),
                    0 if place == reached => (new | some, 0, 0),
                    0 => (0xFF, 0, 0),
                    // It looks erased, for now.
                    1 => (0xFF, !new, 2),
                    // It looks written, for now.
                    2 => (new, !new, 2),
                    // Some words, in no order, and weak bits.
                    _ if some < 100 => (new, 0, 0),
                    _ if some < 180 => (0xFF, 0, 0),
                    _ => (new | some, !new & !some, 0),
                };
                self.bytes[at] = byte;
                self.weaken(at, mask, steady);
            }
        }
    }

    fn weaken(&mut self, at: usize, mask: u8, steady: u32) {
        if mask == 0 {
            self.weak.remove(&at);
        } else {
            self.weak.insert(at, Weak { mask, steady });
        }
    }

    /// What every operation begins with; false: it does not happen.
    fn begin(&mut self, op: &Op) -> bool {
        let start = match op {
            Op::Erase(unit) => unit * ERASE,
            Op::Write(offset, _) => *offset,
        };
        if self.is_off || self.read_only.contains(&start) {
            return false;
        }
        if let Some(mut history) = self.history.take() {
            history.push(Snapshot {
                flash: self.clone(),
                op: op.clone(),
                tag: self.tag,
            });
            self.history = Some(history);
        }
        let is_before = self.cut == Some((self.ops, Moment::Before));
        if let Op::Write(offset, bytes) = op
            && !is_before
        {
            self.check_write(*offset, bytes);
        }
        let number = self.ops;
        self.ops += 1;
        match self.cut.filter(|(at, _)| *at == number) {
            None => return true,
            Some((_, Moment::Before)) => {}
            Some((_, Moment::During(seed))) => self.tear(op, seed),
            Some((_, Moment::After)) => self.apply(op),
        }
        self.is_off = true;
        false
    }

    /// The rules of a write, and its marks.
    fn check_write(&mut self, offset: usize, bytes: &[u8]) {
        let units = offset / WRITE..(offset + bytes.len()) / WRITE;
        for number in units.clone().filter(|number| self.used[*number]) {
            // What a cut has torn may be written again as it was: no bit is asked for that
            // was not asked for before.
            let start = (number - units.start) * WRITE;
            let unit = &bytes[start..start + WRITE];
            let again = self.torn.get(&number).is_some_and(|torn| torn == unit);
            assert!(
                again,
                "write of {} at {offset} over what was not erased",
                bytes.len()
            );
        }
        self.used[units].fill(true);
        let page = self.rules.page.min(ERASE);
        let mut at = offset;
        while at < offset + bytes.len() {
            self.writes[at / ERASE] += 1;
            let max = self.rules.writes_max;
            assert!(
                max == 0 || self.writes[at / ERASE] <= max,
                "erase unit {} was written more than {max} times",
                at / ERASE
            );
            at = (at / page + 1) * page;
        }
    }
}

/// Drops what a map knows of a range.
fn forget<T>(map: &mut BTreeMap<usize, T>, range: std::ops::Range<usize>) {
    if map.range(range.clone()).next().is_some() {
        map.retain(|at, _| !range.contains(at));
    }
}

impl<const WRITE: usize, const ERASE: usize> ErrorType for Nor<WRITE, ERASE> {
    type Error = NorFlashErrorKind;
}

impl<const WRITE: usize, const ERASE: usize> ReadNorFlash for Nor<WRITE, ERASE> {
    const READ_SIZE: usize = if WRITE == 4 { 4 } else { 1 };

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        embedded_storage::nor_flash::check_read(self, offset, bytes.len())?;
        if self.is_off {
            return Err(NorFlashErrorKind::Other);
        }
        let start = usize::try_from(offset).expect("fits");
        let range = start..start + bytes.len();
        let units = range.start / WRITE..range.end.div_ceil(WRITE);
        if self.unreadable.range(units).next().is_some() {
            return Err(NorFlashErrorKind::Other);
        }
        bytes.copy_from_slice(&self.bytes[range.clone()]);
        for (at, weak) in self.weak.range(range) {
            if weak.steady == 0 {
                bytes[at - start] ^= weak.mask & self.rng.random::<u8>();
            }
        }
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.bytes.len()
    }
}

impl<const WRITE: usize, const ERASE: usize> NorFlash for Nor<WRITE, ERASE> {
    const WRITE_SIZE: usize = WRITE;
    const ERASE_SIZE: usize = ERASE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), NorFlashErrorKind> {
        embedded_storage::nor_flash::check_erase(self, from, to)
            .unwrap_or_else(|kind| panic!("erase of {from}..{to}: {kind:?}"));
        let (from, to) = (usize::try_from(from), usize::try_from(to));
        for unit in from.expect("fits") / ERASE..to.expect("fits") / ERASE {
            let op = Op::Erase(unit);
            if !self.begin(&op) {
                return Err(NorFlashErrorKind::Other);
            }
            self.apply(&op);
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
        embedded_storage::nor_flash::check_write(self, offset, bytes.len())
            .unwrap_or_else(|kind| panic!("write of {} at {offset}: {kind:?}", bytes.len()));
        let op = Op::Write(usize::try_from(offset).expect("fits"), bytes.into());
        if !self.begin(&op) {
            return Err(NorFlashErrorKind::Other);
        }
        self.apply(&op);
        Ok(())
    }
}
