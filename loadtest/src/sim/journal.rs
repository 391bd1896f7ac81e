//! A journal in memory: each cell is atomic, and a power cut falls between two of them.

use super::power::{Power, Step};
use dialhome_device::journal::{Journal, JournalError};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// The cells; they outlive the client.
pub type Cells = Rc<RefCell<BTreeMap<u8, Vec<u8>>>>;

/// The journal as the client has it.
#[derive(Clone, Debug)]
pub struct SimJournal {
    /// What it stores to.
    pub cells: Cells,
    /// Whether it has power.
    pub power: Power,
    /// Whether the store in which the power fails is still done.
    pub torn_stores_land: bool,
    /// It has no room for entries of updates with several.
    pub no_entries: bool,
}

impl SimJournal {
    fn change(&self, change: impl FnOnce(&mut BTreeMap<u8, Vec<u8>>)) -> Result<(), JournalError> {
        let step = self.power.step();
        if step == Step::Whole || (step == Step::Torn && self.torn_stores_land) {
            change(&mut self.cells.borrow_mut());
        }
        if step == Step::Whole {
            Ok(())
        } else {
            Err(JournalError::Io)
        }
    }
}

impl Journal for SimJournal {
    fn load(&mut self, cell: u8, buffer: &mut [u8]) -> Result<Option<usize>, JournalError> {
        let cells = self.cells.borrow();
        let Some(value) = cells.get(&cell) else {
            return Ok(None);
        };
        let room = buffer.get_mut(..value.len()).ok_or(JournalError::TooLong)?;
        room.copy_from_slice(value);
        Ok(Some(value.len()))
    }

    fn store(&mut self, cell: u8, value: &[u8]) -> Result<(), JournalError> {
        if self.no_entries && (16..20).contains(&cell) {
            return Err(JournalError::Full);
        }
        self.change(|cells| {
            cells.insert(cell, value.to_vec());
        })
    }

    fn erase(&mut self, cell: u8) -> Result<(), JournalError> {
        self.change(|cells| {
            cells.remove(&cell);
        })
    }
}
