//! A board in memory, which survives its restart.

use core::cell::RefCell;
use dialhome_device::boot::{Activation, Boot, BootError, Restart, Running};
use dialhome_device::journal::{Journal, JournalError};
use dialhome_device::rng::Rng;
use dialhome_device::slot::{Geometry, Slot, SlotError};
use dialhome_device::transport::{LinkFacts, Transport};
use dialhome_proto::code::{BootReason, DigestFrom, Revert, SelfTest};
use dialhome_proto::device::CELL_LEN;
use dialhome_proto::id::Digest;
use heapless::Vec;

const SLOT: usize = 8192;
const CELLS: usize = 12;

/// Bytes on their way, both ways.
pub(crate) struct Wire {
    pub(crate) is_open: bool,
    pub(crate) to_gateway: Vec<u8, 2048>,
    pub(crate) to_board: Vec<u8, 2048>,
}

pub(crate) struct Board {
    pub(crate) wire: Wire,
    slot: [u8; SLOT],
    cells: [Option<Vec<u8, CELL_LEN>>; CELLS],
    running: Digest,
    next: Option<Digest>,
}

impl Board {
    pub(crate) const fn new() -> Self {
        Self {
            wire: Wire {
                is_open: false,
                to_gateway: Vec::new(),
                to_board: Vec::new(),
            },
            slot: [0xFF; SLOT],
            cells: [const { None }; CELLS],
            running: Digest([1; 32]),
            next: None,
        }
    }

    pub(crate) fn restart(&mut self) {
        self.wire.is_open = false;
        if let Some(next) = self.next.take() {
            self.running = next;
        }
    }
}

/// Everything that a porter implements, over that board.
#[derive(Clone, Copy)]
pub(crate) struct Part<'b>(pub(crate) &'b RefCell<Board>);

impl Transport for Part<'_> {
    type Error = ();

    fn connect(&mut self, _: &str) -> Result<(), ()> {
        let wire = &mut self.0.borrow_mut().wire;
        wire.is_open = true;
        wire.to_gateway.clear();
        wire.to_board.clear();
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) -> Result<usize, ()> {
        let wire = &mut self.0.borrow_mut().wire;
        let sent = wire.to_gateway.extend_from_slice(bytes).is_ok();
        Ok(if sent { bytes.len() } else { 0 })
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, ()> {
        let wire = &mut self.0.borrow_mut().wire;
        let len = buffer.len().min(wire.to_board.len());
        for (to, from) in buffer.iter_mut().zip(wire.to_board.iter()) {
            *to = *from;
        }
        wire.to_board.rotate_left(len);
        wire.to_board.truncate(wire.to_board.len() - len);
        Ok(len)
    }

    fn close(&mut self) {
        self.0.borrow_mut().wire.is_open = false;
    }

    fn link_up(&self) -> bool {
        true
    }

    fn facts(&self) -> LinkFacts<'_> {
        LinkFacts::UNKNOWN
    }
}

impl Slot for Part<'_> {
    fn geometry(&self) -> Geometry {
        Geometry {
            size: 8192,
            write_unit: 64,
            erase_unit: 256,
        }
    }

    fn prepare(&mut self, _: u32) -> Result<(), SlotError> {
        Ok(())
    }

    fn erase(&mut self, _: u32, _: u32) -> Result<(), SlotError> {
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), SlotError> {
        let slot = &mut self.0.borrow_mut().slot;
        let offset = usize::try_from(offset).unwrap_or(SLOT);
        for (to, from) in slot.iter_mut().skip(offset).zip(bytes) {
            *to = *from;
        }
        Ok(())
    }

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), SlotError> {
        let slot = &self.0.borrow().slot;
        let offset = usize::try_from(offset).unwrap_or(SLOT);
        for (to, from) in bytes.iter_mut().zip(slot.iter().skip(offset)) {
            *to = *from;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SlotError> {
        Ok(())
    }
}

impl Journal for Part<'_> {
    fn load(&mut self, cell: u8, buffer: &mut [u8]) -> Result<Option<usize>, JournalError> {
        let cells = &self.0.borrow().cells;
        let Some(Some(value)) = cells.get(usize::from(cell)) else {
            return Ok(None);
        };
        for (to, from) in buffer.iter_mut().zip(value) {
            *to = *from;
        }
        Ok(Some(value.len()))
    }

    fn store(&mut self, cell: u8, value: &[u8]) -> Result<(), JournalError> {
        let cells = &mut self.0.borrow_mut().cells;
        let place = cells.get_mut(usize::from(cell)).ok_or(JournalError::Full)?;
        let place = place.get_or_insert(Vec::new());
        place.clear();
        place
            .extend_from_slice(value)
            .map_err(|_| JournalError::TooLong)
    }

    fn erase(&mut self, cell: u8) -> Result<(), JournalError> {
        if let Some(place) = self.0.borrow_mut().cells.get_mut(usize::from(cell)) {
            *place = None;
        }
        Ok(())
    }
}

impl Boot for Part<'_> {
    fn running(&mut self, _: u8, _: Option<u32>) -> Result<Running, BootError> {
        Ok(Running {
            digest: self.0.borrow().running,
            digest_from: DigestFrom::BOOTED,
            revert: Revert::SWAP,
            ..Running::UNKNOWN
        })
    }

    fn activate(&mut self, activation: &Activation<'_>) -> Result<Restart, BootError> {
        self.0.borrow_mut().next = Some(activation.digest);
        Ok(Restart::Needed)
    }

    fn confirm(&mut self, _: u8) -> Result<(), BootError> {
        Ok(())
    }

    fn revert(&mut self, _: u8) -> Result<Restart, BootError> {
        Ok(Restart::NotNeeded)
    }

    fn self_test(&mut self, _: u8) -> SelfTest {
        SelfTest::PASSED
    }

    fn restart(&mut self, _: BootReason) -> Result<(), BootError> {
        Ok(())
    }
}

impl Rng for Part<'_> {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill(0x5A);
    }
}
