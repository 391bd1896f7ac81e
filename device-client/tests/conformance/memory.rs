//! A board in memory, which does what the contracts say; and, given a check's name, breaks
//! that one contract. `is(check)` marks each place where it does.

use dialhome_device::boot::{Activation, Boot, BootError, Restart, Running};
use dialhome_device::conformance::Check;
use dialhome_device::journal::{Journal, JournalError};
use dialhome_device::slot::{Geometry, Slot, SlotError};
use dialhome_device::transport::{LinkFacts, Transport};
use dialhome_proto::code::{BootReason, DigestFrom, Revert, SelfTest};
use dialhome_proto::hash::sha256;
use dialhome_proto::id::Digest;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

const WRITE_UNIT: u32 = 8;
const ERASE_UNIT: u32 = 512;
const SIZE: u32 = 6 * ERASE_UNIT;
/// Longest value of a cell.
const VALUE_MAX: usize = 720;

/// What survives a reset.
#[derive(Default)]
struct Durable {
    broken: Option<Check>,
    slots: [Vec<u8>; 2],
    cells: BTreeMap<u8, Vec<u8>>,
    /// The image that runs, the one to go back to, and what the next reset does.
    runs: Vec<u8>,
    old: Option<Vec<u8>>,
    next: Option<Vec<u8>>,
    on_trial: bool,
    resets: u8,
    /// Durable steps until the power goes.
    steps_left: Option<u32>,
    cut: bool,
}

#[derive(Clone)]
pub(crate) struct World(Rc<RefCell<Durable>>);

impl World {
    pub(crate) fn good() -> Self {
        let mut durable = Durable {
            runs: image(1),
            ..Durable::default()
        };
        durable.slots = [vec![0xFF; SIZE as usize], vec![0xFF; SIZE as usize]];
        Self(Rc::new(RefCell::new(durable)))
    }

    pub(crate) fn broken(check: Check) -> Self {
        let world = Self::good();
        world.0.borrow_mut().broken = Some(check);
        world
    }

    fn is(&self, check: Check) -> bool {
        self.0.borrow().broken == Some(check)
    }

    /// The image that does not run.
    pub(crate) fn other_image(&self) -> Vec<u8> {
        let runs_first = self.0.borrow().runs == image(1);
        image(if runs_first { 2 } else { 1 })
    }

    pub(crate) fn journal_is_empty(&self) -> bool {
        self.0.borrow().cells.is_empty()
    }

    /// The power goes after so many durable steps.
    pub(crate) fn cut_after(&self, steps: u32) {
        self.0.borrow_mut().steps_left = Some(steps);
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.0.borrow().cut
    }

    /// Power is back; the boot loader does its work.
    pub(crate) fn reset(&self) {
        let mut durable = self.0.borrow_mut();
        durable.resets += 1;
        (durable.steps_left, durable.cut) = (None, false);
        let broken = durable.broken;
        if let Some(next) = durable.next.take()
            && broken != Some(Check::TrialRuns)
        {
            if !durable.on_trial {
                durable.old = Some(durable.runs.clone());
            }
            // Going back ends the trial.
            durable.on_trial = !durable.on_trial;
            durable.runs = next;
        }
    }

    /// One durable step; false when the power is gone.
    fn step(&self) -> bool {
        let mut durable = self.0.borrow_mut();
        match &mut durable.steps_left {
            None => true,
            Some(0) => {
                durable.cut = true;
                false
            }
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }
}

fn image(number: u8) -> Vec<u8> {
    vec![number; 1_003]
}

fn digest(bytes: &[u8]) -> Digest {
    Digest(sha256(&[bytes]))
}

pub(crate) struct MemorySlot {
    world: World,
    selected: usize,
    prepared: bool,
    flushed: bool,
    erased: bool,
    /// What a broken slot keeps in RAM.
    cache: [Vec<(u32, Vec<u8>)>; 2],
}

impl MemorySlot {
    pub(crate) fn new(world: &World) -> Self {
        Self {
            world: world.clone(),
            selected: 0,
            prepared: false,
            flushed: false,
            erased: false,
            cache: Default::default(),
        }
    }

    fn is(&self, check: Check) -> bool {
        self.world.is(check)
    }

    fn within(offset: u32, len: usize) -> Result<std::ops::Range<usize>, SlotError> {
        let range = offset as usize..offset as usize + len;
        if range.end > SIZE as usize {
            return Err(SlotError::OutOfRange);
        }
        Ok(range)
    }

    fn change(&self, change: impl FnOnce(&mut [u8])) {
        let selected = if self.is(Check::Components) {
            0
        } else {
            self.selected
        };
        change(&mut self.world.0.borrow_mut().slots[selected]);
    }

    fn put(&self, offset: u32, bytes: &[u8]) {
        self.change(|slot| {
            for (place, byte) in slot[offset as usize..].iter_mut().zip(bytes) {
                // As NOR does it.
                *place &= byte;
            }
        });
    }
}

impl Slot for MemorySlot {
    fn select(&mut self, component: u8) -> Result<(), SlotError> {
        self.selected = match component {
            0 => 0,
            3 => 1,
            _ if self.is(Check::Select) => 0,
            _ => return Err(SlotError::OutOfRange),
        };
        Ok(())
    }

    fn geometry(&self) -> Geometry {
        let grown = self.is(Check::Constant) && self.flushed;
        Geometry {
            size: if grown { SIZE + ERASE_UNIT } else { SIZE },
            write_unit: WRITE_UNIT,
            erase_unit: if self.is(Check::Units) {
                100
            } else {
                ERASE_UNIT
            },
        }
    }

    fn prepare(&mut self, image_size: u32) -> Result<(), SlotError> {
        if image_size > SIZE && !self.is(Check::TooBig) {
            return Err(SlotError::OutOfRange);
        }
        self.prepared = true;
        if self.is(Check::PrepareKeeps) {
            self.change(|slot| slot.fill(0xFF));
        }
        Ok(())
    }

    fn erase(&mut self, offset: u32, len: u32) -> Result<(), SlotError> {
        let mut range = Self::within(offset, len as usize)?;
        if !self.world.step() {
            if self.is(Check::CutSlot) {
                self.change(|slot| slot[range.start - 1] = 0);
            }
            return Err(SlotError::Io);
        }
        if self.is(Check::EraseAgain) {
            range.end = range.start + ERASE_UNIT as usize;
        }
        if self.is(Check::Resume) && !self.erased {
            range.start = 0;
        }
        self.erased = true;
        self.cache[self.selected].retain(|(at, _)| !range.contains(&(*at as usize)));
        self.change(|slot| slot[range].fill(0xFF));
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), SlotError> {
        Self::within(offset, bytes.len())?;
        if !self.world.step() {
            return Err(SlotError::Io);
        }
        if self.is(Check::ReadBack) || self.is(Check::FlushKeeps) {
            self.cache[self.selected].push((offset, bytes.to_vec()));
            return Ok(());
        }
        if self.is(Check::Neighbours) && offset >= SIZE - ERASE_UNIT {
            self.change(|slot| slot[0] = 0);
        }
        if self.is(Check::Overlap) {
            self.world.0.borrow_mut().runs[1] = 7;
        }
        let mut bytes = bytes;
        if self.is(Check::LastWrite) {
            let whole = bytes.len() - bytes.len() % WRITE_UNIT as usize;
            bytes = &bytes[..whole];
        }
        let border = (ERASE_UNIT - offset % ERASE_UNIT) as usize;
        if self.is(Check::Crossing) && bytes.len() > border {
            let (here, wrapped) = bytes.split_at(border);
            self.put(offset, here);
            self.put(offset - offset % ERASE_UNIT, wrapped);
            return Ok(());
        }
        self.put(offset, bytes);
        Ok(())
    }

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), SlotError> {
        if self.is(Check::ReadAfterReset) && !self.prepared {
            return Err(SlotError::Io);
        }
        if self.is(Check::Outside) && Self::within(offset, bytes.len()).is_err() {
            return Ok(());
        }
        let aligned = if self.is(Check::OddReads) {
            offset - offset % 4
        } else {
            offset
        };
        let range = Self::within(aligned, bytes.len())?;
        self.change(|slot| bytes.copy_from_slice(&slot[range]));
        if self.is(Check::FlushKeeps) {
            for (at, cached) in &self.cache[self.selected] {
                for (byte, place) in cached.iter().zip(*at..) {
                    if let Some(index) = place.checked_sub(offset)
                        && let Some(to) = bytes.get_mut(index as usize)
                    {
                        *to = *byte;
                    }
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SlotError> {
        self.flushed = true;
        if self.is(Check::ReadBack) {
            for (offset, bytes) in std::mem::take(&mut self.cache[self.selected]) {
                self.put(offset, &bytes);
            }
        }
        Ok(())
    }
}

pub(crate) struct MemoryJournal {
    world: World,
    /// Of a journal that forgets at a reset: what it has in RAM.
    ram: BTreeMap<u8, Option<Vec<u8>>>,
    stores: u32,
}

impl MemoryJournal {
    pub(crate) fn new(world: &World) -> Self {
        Self {
            world: world.clone(),
            ram: BTreeMap::new(),
            stores: 0,
        }
    }

    fn is(&self, check: Check) -> bool {
        self.world.is(check)
    }

    fn cell(&self, cell: u8) -> u8 {
        // Two cells in one place.
        if self.is(Check::AllFull) && cell == 6 {
            5
        } else {
            cell
        }
    }

    fn value(&self, cell: u8) -> Option<Vec<u8>> {
        match self.ram.get(&cell) {
            Some(value) => value.clone(),
            None => self.world.0.borrow().cells.get(&cell).cloned(),
        }
    }
}

impl Journal for MemoryJournal {
    fn load(&mut self, cell: u8, buffer: &mut [u8]) -> Result<Option<usize>, JournalError> {
        let Some(value) = self.value(self.cell(cell)) else {
            return Ok(None);
        };
        match buffer.get_mut(..value.len()) {
            Some(room) => room.copy_from_slice(&value),
            None if self.is(Check::ShortBuffer) => buffer.copy_from_slice(&value[..buffer.len()]),
            None => return Err(JournalError::TooLong),
        }
        Ok(Some(value.len()))
    }

    fn store(&mut self, cell: u8, value: &[u8]) -> Result<(), JournalError> {
        let cell = self.cell(cell);
        let mut value = value.to_vec();
        if self.is(Check::StoreLoad) {
            value.truncate(100);
        }
        if self.is(Check::Refused) {
            value.truncate(VALUE_MAX);
        }
        if value.len() > VALUE_MAX {
            return Err(JournalError::TooLong);
        }
        if self.is(Check::Lengths)
            && let Some(old) = self.value(cell)
            && old.len() > value.len()
        {
            value.extend_from_slice(&old[value.len()..]);
        }
        self.stores += 1;
        if self.is(Check::Replace) && self.stores > 150 {
            return Err(JournalError::Full);
        }
        if self.is(Check::CutStore) {
            // The old value goes before the new one is there.
            if !self.world.step() {
                return Err(JournalError::Io);
            }
            self.world.0.borrow_mut().cells.remove(&cell);
        }
        if !self.world.step() {
            return Err(JournalError::Io);
        }
        if self.is(Check::StoreKeeps) {
            self.ram.insert(cell, Some(value));
            return Ok(());
        }
        self.ram.remove(&cell);
        let mut durable = self.world.0.borrow_mut();
        durable.cells.insert(cell, value);
        if durable.broken == Some(Check::OtherCells) && self.stores == 150 {
            durable.cells.remove(&6);
        }
        Ok(())
    }

    fn erase(&mut self, cell: u8) -> Result<(), JournalError> {
        let cell = self.cell(cell);
        if self.is(Check::EraseAbsent) && self.value(cell).is_none() {
            return Err(JournalError::Io);
        }
        if self.is(Check::Erase) {
            return Ok(());
        }
        if !self.world.step() {
            return Err(JournalError::Io);
        }
        if self.is(Check::EraseKeeps) || self.is(Check::StoreKeeps) {
            self.ram.insert(cell, None);
            return Ok(());
        }
        self.world.0.borrow_mut().cells.remove(&cell);
        Ok(())
    }
}

pub(crate) struct MemoryBoot {
    world: World,
    asked: u64,
    detail: String,
}

impl MemoryBoot {
    pub(crate) fn new(world: &World) -> Self {
        Self {
            world: world.clone(),
            asked: 0,
            detail: String::new(),
        }
    }

    fn is(&self, check: Check) -> bool {
        self.world.is(check)
    }

    fn only_main(&self, component: u8) -> Result<(), BootError> {
        if component == 0 || self.is(Check::Unknown) {
            Ok(())
        } else {
            Err(BootError::Unsupported)
        }
    }
}

impl Boot for MemoryBoot {
    fn running(&mut self, component: u8, _known_size: Option<u32>) -> Result<Running, BootError> {
        self.only_main(component)?;
        self.asked += 1;
        let durable = self.world.0.borrow();
        let mut found = Running {
            digest: digest(&durable.runs),
            digest_from: DigestFrom::BOOTED,
            boot_reason: BootReason::RESTART,
            revert: Revert::SWAP,
            on_trial: durable.on_trial,
            ..Running::UNKNOWN
        };
        match durable.broken {
            Some(Check::Idle) => found.on_trial = true,
            Some(Check::OnTrial) => found.on_trial = false,
            Some(Check::Stable) => found.counter = self.asked,
            Some(Check::RunningKeeps) => found.digest.0[0] = durable.resets,
            _ => {}
        }
        Ok(found)
    }

    fn activate(&mut self, activation: &Activation<'_>) -> Result<Restart, BootError> {
        self.only_main(activation.component)?;
        let broken = self.world.0.borrow().broken;
        let mut durable = self.world.0.borrow_mut();
        let size = activation.size as usize;
        let staged = durable.slots[0].get(..size).unwrap_or_default().to_vec();
        if digest(&staged) != activation.digest && broken != Some(Check::WrongDigest) {
            let length = if broken == Some(Check::Detail) {
                201
            } else {
                200
            };
            self.detail = "x".repeat(length);
            return Err(BootError::DigestMismatch);
        }
        let again = durable.next.is_some();
        if broken == Some(Check::Activate) || again && broken == Some(Check::ActivateAgain) {
            return Err(BootError::NotAllowed);
        }
        durable.next = Some(staged);
        Ok(Restart::Needed)
    }

    fn confirm(&mut self, component: u8) -> Result<(), BootError> {
        self.only_main(component)?;
        let on_trial = self.world.0.borrow().on_trial;
        if !on_trial && self.is(Check::ConfirmIdle) || on_trial && self.is(Check::Confirm) {
            return Err(BootError::Storage);
        }
        if !self.is(Check::ConfirmKeeps) {
            self.world.0.borrow_mut().on_trial = false;
        }
        Ok(())
    }

    fn revert(&mut self, component: u8) -> Result<Restart, BootError> {
        self.only_main(component)?;
        if self.is(Check::RevertIdle) {
            return Ok(Restart::Needed);
        }
        let broken = self.world.0.borrow().broken;
        let mut durable = self.world.0.borrow_mut();
        if !durable.on_trial {
            durable.next = None;
            return Ok(Restart::NotNeeded);
        }
        match broken {
            Some(Check::Revert) => return Err(BootError::Storage),
            Some(Check::RevertKeeps) => durable.on_trial = false,
            _ => durable.next = durable.old.clone(),
        }
        Ok(Restart::Needed)
    }

    fn self_test(&mut self, _component: u8) -> SelfTest {
        SelfTest::NOT_RUN
    }

    fn restart(&mut self, _why: BootReason) -> Result<(), BootError> {
        Ok(())
    }

    fn detail(&self) -> &str {
        &self.detail
    }
}

/// A transport that reaches nobody.
pub(crate) struct Silence {
    pub(crate) broken: Option<Check>,
    /// `connect` only begins, and so many calls of `receive` later it has failed.
    pub(crate) fails_after: Option<u32>,
}

impl Transport for Silence {
    type Error = ();

    fn connect(&mut self, _gateway: &str) -> Result<(), ()> {
        if self.broken == Some(Check::Nobody) || self.fails_after.is_some() {
            Ok(())
        } else {
            Err(())
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<usize, ()> {
        if self.broken == Some(Check::ClosedSend) {
            Ok(bytes.len())
        } else {
            Err(())
        }
    }

    fn receive(&mut self, _buffer: &mut [u8]) -> Result<usize, ()> {
        if let Some(calls @ 1..) = &mut self.fails_after {
            *calls -= 1;
            return Ok(0);
        }
        if matches!(self.broken, Some(Check::ClosedReceive | Check::Nobody)) {
            Ok(0)
        } else {
            Err(())
        }
    }

    fn close(&mut self) {}

    fn link_up(&self) -> bool {
        false
    }

    fn facts(&self) -> LinkFacts<'_> {
        let network = "a network whose name is much too long for Hello";
        let clip = if self.broken == Some(Check::Facts) {
            33
        } else {
            32
        };
        LinkFacts {
            network: &network[..clip],
            ..LinkFacts::UNKNOWN
        }
    }
}
