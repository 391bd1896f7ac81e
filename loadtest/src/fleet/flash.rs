//! A board's memory: slot, journal and boot loader, without a copy of any image.
//!
//! All boards of a crew share the images that the roll names. A slot compares what is written
//! to it with the image that it belongs to, found by its first bytes, and keeps only how
//! far it is; what is none of them it keeps itself.

use super::tally::Tally;
use dialhome_device::boot::{Activation, Boot, BootError, Restart, Running};
use dialhome_device::journal::{Journal, JournalError};
use dialhome_device::slot::{Geometry, Slot, SlotError};
use dialhome_proto::code::{BootReason, DigestFrom, Revert, SelfTest};
use dialhome_proto::hash::sha256;
use dialhome_proto::id::Digest;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// The images of the roll, in memory once for all boards.
pub(super) struct Images {
    images: Vec<Image>,
    geometry: Geometry,
    /// Bytes that a claim may lag behind what was committed.
    journal_interval: u32,
}

struct Image {
    bytes: Vec<u8>,
    digest: Digest,
}

impl Images {
    pub(super) fn new(images: Vec<Vec<u8>>, geometry: Geometry, journal_interval: u32) -> Self {
        let images = images
            .into_iter()
            .map(|bytes| Image {
                digest: Digest(sha256(&[&bytes])),
                bytes,
            })
            .collect();
        Self {
            images,
            geometry,
            journal_interval,
        }
    }

    fn bytes(&self, number: usize) -> &[u8] {
        self.images.get(number).map_or(&[], |image| &image.bytes)
    }

    /// The image that has `bytes` at `offset`, and before them what `like` has.
    fn find(&self, offset: usize, bytes: &[u8], like: &[u8]) -> Option<usize> {
        self.images.iter().position(|image| {
            image.bytes.get(..offset) == Some(like)
                && image
                    .bytes
                    .get(offset..)
                    .is_some_and(|rest| rest.starts_with(bytes))
        })
    }
}

/// Instants that the chunk under way and its acknowledgement are measured by.
#[derive(Default)]
pub(super) struct Stopwatch {
    /// When the bytes that the client took last came off the socket.
    pub(super) arrived_ns: Cell<u64>,
    /// The next record to the gateway acknowledges a chunk that came then; 0: it does not.
    pub(super) acks_ns: Cell<u64>,
}

/// What a place for an image holds.
#[derive(Clone, Debug, PartialEq)]
enum Content {
    /// What the board left the factory with.
    Factory,
    /// One of the roll's images.
    Shared(usize),
    /// Something else, in whole.
    Private(Vec<u8>),
}

/// A place for an image: the slot, or what runs.
#[derive(Clone, Debug)]
struct Place {
    content: Content,
    /// Bytes from the start that are written.
    written: u32,
    /// Bytes from the start that no power cut loses.
    durable: u32,
}

/// A board's memory. It outlives the client.
pub(super) struct Flash {
    images: Rc<Images>,
    tally: Rc<Tally>,
    watch: Rc<Stopwatch>,
    cells: Vec<(u8, Box<[u8]>)>,
    slot: Place,
    /// Size of the image that the slot is prepared for.
    size: u32,
    runs: Place,
    /// The boot loader swaps slot and running image at the next start.
    swap: bool,
    on_trial: bool,
    reason: BootReason,
    /// How far the image in the slot ever was, in bytes: written, and committed.
    ever_written: u32,
    ever_committed: u32,
    /// The chunk whose acknowledgement is measured: its end, and when it came.
    sample: Option<(u32, u64)>,
    broken: Option<String>,
}

impl Flash {
    pub(super) fn new(images: Rc<Images>, tally: Rc<Tally>, watch: Rc<Stopwatch>) -> Self {
        let place = Place {
            content: Content::Factory,
            written: 0,
            durable: 0,
        };
        Self {
            images,
            tally,
            watch,
            cells: Vec::new(),
            slot: place.clone(),
            size: 0,
            runs: place,
            swap: false,
            on_trial: false,
            reason: BootReason::POWER_ON,
            ever_written: 0,
            ever_committed: 0,
            sample: None,
            broken: None,
        }
    }

    /// What a start does before the client's: the boot loader swaps, where it was told to.
    pub(super) fn start(&mut self, why: BootReason) {
        self.sample = None;
        self.reason = why;
        if std::mem::take(&mut self.swap) {
            std::mem::swap(&mut self.slot, &mut self.runs);
            (self.ever_written, self.ever_committed) = (0, 0);
            self.on_trial = !self.on_trial;
            self.reason = if self.on_trial {
                BootReason::UPDATE
            } else {
                BootReason::REVERT
            };
        }
    }

    /// The power goes: what was written and not flushed is lost.
    pub(super) fn cut(&mut self) {
        self.slot.written = self.slot.durable;
    }

    /// The first promise that was broken since the last call.
    pub(super) fn take_broken(&mut self) -> Option<String> {
        self.broken.take()
    }

    fn breaks(&mut self, how: String) {
        self.broken.get_or_insert(how);
    }

    /// The client takes so many bytes of the slot for committed.
    pub(super) fn claims(&mut self, committed: u32) {
        if committed > self.slot.durable {
            let durable = self.slot.durable;
            self.breaks(format!(
                "it acknowledged {committed} bytes, and {durable} are in the slot for good"
            ));
        }
        if committed > self.ever_committed {
            let more = committed - self.ever_committed;
            self.ever_committed = committed;
            self.tally.count(|tick| tick.committed += u64::from(more));
        }
    }

    /// The image of the roll that runs, if its digest is this.
    pub(super) fn runs_confirmed(&mut self, digest: &[u8; 32]) -> Option<usize> {
        if self.running_digest().0 != *digest || self.on_trial {
            self.breaks("it said `confirmed` of an image that does not run for good".to_owned());
            return None;
        }
        match self.runs.content {
            Content::Shared(number) => Some(number),
            Content::Factory | Content::Private(_) => None,
        }
    }

    fn running_digest(&self) -> Digest {
        match &self.runs.content {
            Content::Factory => Digest(sha256(&[b"factory"])),
            // Found once, when the image was read: nobody writes to what is shared.
            Content::Shared(number) => self
                .images
                .images
                .get(*number)
                .map_or_else(Digest::default, |image| image.digest),
            Content::Private(bytes) => Digest(sha256(&[bytes])),
        }
    }

    fn within(&self, offset: u32, len: usize) -> Result<usize, SlotError> {
        let end = u32::try_from(len)
            .ok()
            .and_then(|len| offset.checked_add(len))
            .filter(|end| *end <= self.images.geometry.size);
        end.map(|_| offset as usize).ok_or(SlotError::OutOfRange)
    }

    /// An image begins at its first byte: which one?
    fn begin(&mut self, bytes: &[u8]) {
        let content = match self.images.find(0, bytes, &[]) {
            Some(number) => Content::Shared(number),
            None => Content::Private(Vec::new()),
        };
        let interval = self.images.journal_interval;
        if content != self.slot.content {
            (self.ever_written, self.ever_committed) = (0, 0);
        } else if self.ever_committed > interval {
            let committed = self.ever_committed;
            self.breaks(format!(
                "it began an image from zero of which it had committed {committed} bytes; its journal may lose {interval}"
            ));
        }
        self.slot.content = content;
    }

    /// The bytes are none that the slot's image has there.
    fn differ(&mut self, offset: usize, bytes: &[u8]) {
        let Content::Shared(number) = self.slot.content else {
            return;
        };
        let before = self.images.bytes(number).get(..offset).unwrap_or(&[]);
        self.slot.content = match self.images.find(offset, bytes, before) {
            Some(other) => Content::Shared(other),
            None => Content::Private(before.to_vec()),
        };
    }
}

/// A client's hold on its board's memory.
#[derive(Clone, Copy)]
pub(super) struct Medium<'f>(pub(super) &'f RefCell<Flash>);

impl Slot for Medium<'_> {
    fn geometry(&self) -> Geometry {
        self.0.borrow().images.geometry
    }

    fn prepare(&mut self, image_size: u32) -> Result<(), SlotError> {
        let flash = &mut *self.0.borrow_mut();
        flash.within(image_size, 0)?;
        flash.size = image_size;
        Ok(())
    }

    fn erase(&mut self, offset: u32, len: u32) -> Result<(), SlotError> {
        let flash = &mut *self.0.borrow_mut();
        let start = flash.within(offset, len as usize)?;
        let slot = &mut flash.slot;
        slot.written = slot.written.min(offset);
        slot.durable = slot.durable.min(offset);
        if let Content::Private(bytes) = &mut slot.content {
            bytes.truncate(start);
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), SlotError> {
        let flash = &mut *self.0.borrow_mut();
        let start = flash.within(offset, bytes.len())?;
        let written = flash.slot.written;
        if offset != written {
            flash.breaks(format!(
                "it wrote at {offset} where {written} bytes are written and nothing else is erased"
            ));
            return Err(SlotError::Io);
        }
        if offset == 0 {
            flash.begin(bytes);
        }
        let held = match &flash.slot.content {
            Content::Shared(number) => flash.images.bytes(*number).get(start..),
            Content::Factory | Content::Private(_) => None,
        };
        if !held.is_some_and(|held| held.starts_with(bytes)) {
            flash.differ(start, bytes);
        }
        if let Content::Private(private) = &mut flash.slot.content {
            private.extend_from_slice(bytes);
        }
        // `within` has checked that this fits.
        let end = offset.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        flash.slot.written = end;
        let again = flash.ever_written.min(end).saturating_sub(offset);
        if again > 0 {
            flash.tally.count(|tick| tick.again += u64::from(again));
        }
        flash.ever_written = flash.ever_written.max(end);
        let arrived = flash.watch.arrived_ns.get();
        flash.sample.get_or_insert((end, arrived));
        Ok(())
    }

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), SlotError> {
        let flash = &*self.0.borrow();
        let start = flash.within(offset, bytes.len())?;
        let held = match &flash.slot.content {
            Content::Factory => &[],
            Content::Shared(number) => flash.images.bytes(*number),
            Content::Private(bytes) => bytes.as_slice(),
        };
        let held = held.get(..flash.slot.written as usize).unwrap_or(held);
        let held = held.get(start..).unwrap_or(&[]);
        let len = held.len().min(bytes.len());
        if let (Some(to), Some(from)) = (bytes.get_mut(..len), held.get(..len)) {
            to.copy_from_slice(from);
        }
        if let Some(rest) = bytes.get_mut(len..) {
            rest.fill(0xFF); // As flash is after an erase.
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SlotError> {
        let flash = &mut *self.0.borrow_mut();
        let written = flash.slot.written;
        flash.slot.durable = written;
        let committed = if written == flash.size {
            written
        } else {
            written - written % flash.images.geometry.erase_unit
        };
        if let Some((_, arrived)) = flash.sample.take_if(|(end, _)| *end <= committed) {
            flash.watch.acks_ns.set(arrived);
        }
        Ok(())
    }
}

impl Journal for Medium<'_> {
    fn load(&mut self, cell: u8, buffer: &mut [u8]) -> Result<Option<usize>, JournalError> {
        let flash = self.0.borrow();
        let Some((_, value)) = flash.cells.iter().find(|(number, _)| *number == cell) else {
            return Ok(None);
        };
        let room = buffer.get_mut(..value.len()).ok_or(JournalError::TooLong)?;
        room.copy_from_slice(value);
        Ok(Some(value.len()))
    }

    fn store(&mut self, cell: u8, value: &[u8]) -> Result<(), JournalError> {
        let cells = &mut self.0.borrow_mut().cells;
        match cells.iter_mut().find(|(number, _)| *number == cell) {
            Some((_, held)) if held.len() == value.len() => held.copy_from_slice(value),
            Some((_, held)) => *held = value.into(),
            None => cells.push((cell, value.into())),
        }
        Ok(())
    }

    fn erase(&mut self, cell: u8) -> Result<(), JournalError> {
        let cells = &mut self.0.borrow_mut().cells;
        cells.retain(|(number, _)| *number != cell);
        Ok(())
    }
}

impl Boot for Medium<'_> {
    fn running(&mut self, component: u8, _known_size: Option<u32>) -> Result<Running, BootError> {
        if component != 0 {
            return Err(BootError::Unsupported);
        }
        let flash = self.0.borrow();
        Ok(Running {
            digest: flash.running_digest(),
            digest_from: DigestFrom::READ_BACK,
            boot_reason: flash.reason,
            revert: Revert::SWAP,
            on_trial: flash.on_trial,
            ..Running::UNKNOWN
        })
    }

    fn activate(&mut self, activation: &Activation<'_>) -> Result<Restart, BootError> {
        let flash = &mut *self.0.borrow_mut();
        if flash.swap {
            return Ok(Restart::Needed); // Called again after a cut.
        }
        let held = match &flash.slot.content {
            Content::Shared(number) => flash.images.images.get(*number),
            Content::Factory | Content::Private(_) => None,
        };
        let whole = held.is_some_and(|image| {
            image.digest == activation.digest
                && image.bytes.len() == activation.size as usize
                && image.bytes.len() == flash.slot.durable as usize
        });
        if !whole {
            let durable = flash.slot.durable;
            flash.breaks(format!(
                "it would start version {} of {} bytes, and the slot holds {durable} bytes that are no image of the roll",
                activation.version, activation.size
            ));
            return Err(BootError::DigestMismatch);
        }
        flash.swap = true;
        Ok(Restart::Needed)
    }

    fn confirm(&mut self, _component: u8) -> Result<(), BootError> {
        self.0.borrow_mut().on_trial = false;
        Ok(())
    }

    fn revert(&mut self, _component: u8) -> Result<Restart, BootError> {
        let flash = &mut *self.0.borrow_mut();
        if flash.on_trial {
            flash.swap = true;
            return Ok(Restart::Needed);
        }
        // Activated and never started, or back already.
        flash.swap = false;
        Ok(Restart::NotNeeded)
    }

    fn self_test(&mut self, _component: u8) -> SelfTest {
        SelfTest::PASSED
    }

    /// The board's task drops the client and starts another.
    fn restart(&mut self, _why: BootReason) -> Result<(), BootError> {
        Ok(())
    }
}
