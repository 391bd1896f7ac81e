//! A slot whose contract is enforced: NOR flash, or a file whose writes wait for a flush.

use super::boot::Part;
use super::power::{Power, Step};
use dialhome_device::slot::{Geometry, Slot, SlotError};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use std::cell::RefCell;
use std::rc::Rc;

/// What a file loses at once: pages of so many bytes.
const PAGE: usize = 256;

/// The medium; it outlives the client.
#[derive(Debug)]
pub struct Medium {
    geometry: Geometry,
    /// Writes are durable only after `flush`.
    is_file: bool,
    /// What a read returns.
    bytes: Vec<u8>,
    /// What a power cut leaves.
    durable: Vec<u8>,
    /// Erased and not written since.
    clean: Vec<bool>,
    /// Ranges written and not flushed.
    pending: Vec<(usize, usize)>,
    rng: SmallRng,
    /// Read-backs that will come out wrong.
    pub bad_reads: u32,
    /// Bytes erased so far.
    pub erased: u64,
}

impl Medium {
    /// An empty medium, full of rubbish.
    #[must_use]
    pub fn new(geometry: Geometry, is_file: bool, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let size = usize::try_from(geometry.size).expect("a slot fits memory");
        let mut bytes = vec![0; size];
        rng.fill(&mut bytes[..]);
        Self {
            geometry,
            is_file,
            durable: bytes.clone(),
            bytes,
            clean: vec![false; size],
            pending: Vec::new(),
            rng,
            bad_reads: 0,
            erased: 0,
        }
    }

    /// The first bytes as a power cut now would leave them.
    #[must_use]
    pub fn durable(&self, len: u32) -> &[u8] {
        &self.durable[..usize::try_from(len).expect("a length fits memory")]
    }

    /// Changes what is stored, behind the client's back.
    pub fn overwrite(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        self.bytes[offset..end].copy_from_slice(bytes);
        self.durable[offset..end].copy_from_slice(bytes);
        self.clean[offset..end].fill(false);
    }

    /// Flips one stored bit.
    pub fn flip(&mut self, offset: usize) {
        let byte = self.durable[offset] ^ 1;
        self.overwrite(offset, &[byte]);
    }

    /// The power failed: what was not flushed is there, or not, page by page.
    pub fn lose_unflushed(&mut self) {
        for (start, end) in std::mem::take(&mut self.pending) {
            for page in (start..end).step_by(PAGE) {
                let page = page..end.min(page + PAGE);
                if self.rng.random_bool(0.5) {
                    self.durable[page.clone()].copy_from_slice(&self.bytes[page.clone()]);
                }
                self.clean[page].fill(false);
            }
        }
        self.bytes.clone_from(&self.durable);
    }

    fn range(&self, offset: u32, len: usize) -> Result<std::ops::Range<usize>, SlotError> {
        let start = usize::try_from(offset).map_err(|_| SlotError::OutOfRange)?;
        let end = start + len;
        if end > self.bytes.len() {
            return Err(SlotError::OutOfRange);
        }
        Ok(start..end)
    }
}

/// The slot as the client has it.
#[derive(Clone, Debug)]
pub struct SimSlot {
    /// What it writes to.
    pub medium: Rc<RefCell<Medium>>,
    /// The components, each with a slot.
    pub parts: Rc<Vec<Part>>,
    /// Whether it has power.
    pub power: Power,
}

impl Slot for SimSlot {
    fn select(&mut self, component: u8) -> Result<(), SlotError> {
        let mut parts = self.parts.iter();
        let part = parts.find(|part| part.number == component);
        self.medium = Rc::clone(&part.ok_or(SlotError::OutOfRange)?.medium);
        Ok(())
    }

    fn geometry(&self) -> Geometry {
        self.medium.borrow().geometry
    }

    fn prepare(&mut self, image_size: u32) -> Result<(), SlotError> {
        match self.power.step() {
            Step::Whole if image_size <= self.geometry().size => Ok(()),
            Step::Whole => Err(SlotError::OutOfRange),
            Step::Torn | Step::Off => Err(SlotError::Io),
        }
    }

    fn erase(&mut self, offset: u32, len: u32) -> Result<(), SlotError> {
        let mut medium = self.medium.borrow_mut();
        let unit = medium.geometry.erase_unit;
        assert!(
            offset.is_multiple_of(unit) && len.is_multiple_of(unit) && len > 0,
            "erase of {len} at {offset} is not in units of {unit}"
        );
        let range = medium.range(offset, usize::try_from(len).expect("fits"))?;
        match self.power.step() {
            Step::Off => return Err(SlotError::Io),
            Step::Torn => {
                // Any of these units in any state.
                let Medium {
                    bytes,
                    durable,
                    rng,
                    ..
                } = &mut *medium;
                rng.fill(&mut bytes[range.clone()]);
                durable[range.clone()].copy_from_slice(&bytes[range.clone()]);
                medium.clean[range].fill(false);
                return Err(SlotError::Io);
            }
            Step::Whole => {}
        }
        medium.erased += u64::from(len);
        if !medium.is_file {
            medium.bytes[range.clone()].fill(0xFF);
            medium.durable[range.clone()].fill(0xFF);
        }
        medium.clean[range].fill(true);
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), SlotError> {
        let mut medium = self.medium.borrow_mut();
        let unit = medium.geometry.write_unit;
        assert!(
            offset.is_multiple_of(unit) && !bytes.is_empty(),
            "write of {} at {offset}, units of {unit}",
            bytes.len()
        );
        let range = medium.range(offset, bytes.len())?;
        assert!(
            medium.clean[range.clone()].iter().all(|clean| *clean),
            "write of {} at {offset} over bytes that were not erased",
            bytes.len()
        );
        let range = match self.power.step() {
            Step::Off => return Err(SlotError::Io),
            Step::Whole => range,
            Step::Torn => {
                let done = medium.rng.random_range(0..=bytes.len());
                range.start..range.start + done
            }
        };
        medium.bytes[range.clone()].copy_from_slice(&bytes[..range.len()]);
        medium.clean[range.clone()].fill(false);
        if medium.is_file {
            medium.pending.push((range.start, range.end));
        } else {
            let Medium { bytes, durable, .. } = &mut *medium;
            durable[range.clone()].copy_from_slice(&bytes[range]);
        }
        if self.power.is_off() {
            return Err(SlotError::Io);
        }
        Ok(())
    }

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), SlotError> {
        let mut medium = self.medium.borrow_mut();
        let range = medium.range(offset, bytes.len())?;
        if self.power.step() != Step::Whole {
            return Err(SlotError::Io);
        }
        bytes.copy_from_slice(&medium.bytes[range]);
        if medium.bad_reads > 0 {
            medium.bad_reads -= 1;
            bytes[0] ^= 0x10;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SlotError> {
        if self.power.step() != Step::Whole {
            return Err(SlotError::Io);
        }
        let mut medium = self.medium.borrow_mut();
        let Medium {
            bytes,
            durable,
            pending,
            ..
        } = &mut *medium;
        for (start, end) in pending.drain(..) {
            durable[start..end].copy_from_slice(&bytes[start..end]);
        }
        Ok(())
    }
}
