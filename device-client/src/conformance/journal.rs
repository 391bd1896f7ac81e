//! The journal's contract.

use super::check::{Check, Fault, What};
use super::{NOTE_CELL, Run, SCRATCH_LEN, pattern};
use crate::journal::JournalError;
use dialhome_proto::device::Cell;

/// Every cell, each with a number of its own.
const CELLS: [Cell; 15] = [
    Cell::Keys,
    Cell::Seed,
    Cell::Trust,
    Cell::Gateways,
    Cell::Image(0),
    Cell::Image(1),
    Cell::Image(2),
    Cell::Image(3),
    Cell::Claim,
    Cell::Trial,
    Cell::Outbox,
    Cell::Entry(0),
    Cell::Entry(1),
    Cell::Entry(2),
    Cell::Entry(3),
];

/// The cells of a board with so many components: each has a place in the journal.
pub(super) fn cells(components: &[u8]) -> impl Iterator<Item = Cell> + use<> {
    let images = components.len();
    // A board with one component has no entries beside the claim.
    let entries = if images > 1 { images } else { 0 };
    CELLS.into_iter().filter(move |cell| match cell {
        Cell::Image(place) => usize::from(*place) < images.max(1),
        Cell::Entry(place) => usize::from(*place) < entries,
        _ => true,
    })
}

/// Longest value of a cell, in bytes (spec/limits.md section 7).
pub(super) const fn longest(cell: Cell) -> usize {
    match cell {
        Cell::Keys => 66,
        Cell::Seed => 32,
        Cell::Trust => dialhome_proto::limits::TRUST_SET_LEN,
        Cell::Gateways => dialhome_proto::limits::STATEMENT_MAX,
        Cell::Image(_) => 90,
        Cell::Claim => 145,
        Cell::Trial => 159,
        Cell::Outbox => 176,
        Cell::Entry(_) => 148,
    }
}

/// The tag of a cell's value in its `turn`.
fn tag(cell: Cell, turn: u32) -> u32 {
    turn << 8 | u32::from(cell.number())
}

impl Run<'_, '_> {
    pub(super) fn journal_contract(&mut self) -> Result<(), Fault> {
        for cell in cells(self.context.components) {
            // What an earlier run, or a client, has left.
            if self.load(cell, Check::Erase, SCRATCH_LEN) != Ok(None) {
                self.erase_cell(cell, Check::Erase)?;
            }
            self.expect_absent(cell, Check::Erase)?;
        }
        for cell in cells(self.context.components) {
            self.erase_cell(cell, Check::EraseAbsent)?;
            self.expect_absent(cell, Check::EraseAbsent)?;
        }
        self.passed(Check::EraseAbsent);
        for cell in cells(self.context.components) {
            self.put(cell, 0, longest(cell), Check::StoreLoad)?;
            self.expect(cell, 0, longest(cell), Check::StoreLoad)?;
        }
        self.passed(Check::StoreLoad);
        self.expect_all(0, Check::AllFull)?;
        self.passed(Check::AllFull);
        self.short_buffers()?;
        self.lengths()?;
        self.refused()?;
        self.replace()?;
        self.erase_one_by_one()
    }

    fn short_buffers(&mut self) -> Result<(), Fault> {
        let check = Check::ShortBuffer;
        for cell in cells(self.context.components) {
            for short in [longest(cell) - 1, 0] {
                match self.load(cell, check, short) {
                    Err(Fault {
                        what: What::Journal(JournalError::TooLong),
                        ..
                    }) => {}
                    Err(fault) => return Err(fault),
                    Ok(_) => {
                        let found = "a value was put into a buffer that is too short for it";
                        return Err(self.says(check, cell.number(), found));
                    }
                }
            }
            self.expect(cell, 0, longest(cell), check)?;
        }
        self.passed(check);
        Ok(())
    }

    fn lengths(&mut self) -> Result<(), Fault> {
        for cell in cells(self.context.components) {
            let lengths = [1, 7, longest(cell) - 1, longest(cell) / 2, longest(cell)];
            for (len, turn) in lengths.into_iter().zip(1..) {
                self.put(cell, turn, len, Check::Lengths)?;
                self.expect(cell, turn, len, Check::Lengths)?;
            }
            self.put(cell, 0, longest(cell), Check::Lengths)?;
        }
        self.passed(Check::Lengths);
        Ok(())
    }

    /// A value beyond what any cell needs: either answer is right, half of it is not.
    fn refused(&mut self) -> Result<(), Fault> {
        let check = Check::Refused;
        for cell in [Cell::Keys, Cell::Outbox] {
            match self.put(cell, 9, SCRATCH_LEN, check) {
                Ok(()) => self.expect(cell, 9, SCRATCH_LEN, check)?,
                Err(_) => self.expect(cell, 0, longest(cell), check)?,
            }
            self.put(cell, 0, longest(cell), check)?;
        }
        self.passed(check);
        Ok(())
    }

    /// More stores than any bank holds, in both groups, mixed as in a transfer.
    fn replace(&mut self) -> Result<(), Fault> {
        let mut turn = 0;
        for round in 1..=u32::from(self.context.stores) {
            turn = round;
            let others = [
                (Cell::Trial, 4),
                (Cell::Outbox, 8),
                (Cell::Keys, 8),
                (Cell::Gateways, 16),
            ];
            let due = others
                .into_iter()
                .filter_map(|(cell, every)| round.is_multiple_of(every).then_some(cell));
            for cell in core::iter::once(Cell::Claim).chain(due) {
                // Every length that a claim may have.
                let less = usize::from(round.to_be_bytes()[3] % 8);
                self.put(cell, round, longest(cell) - less, Check::Replace)?;
                self.expect(cell, round, longest(cell) - less, Check::Replace)?;
            }
        }
        self.passed(Check::Replace);
        for cell in cells(self.context.components) {
            let replaced = matches!(
                cell,
                Cell::Claim | Cell::Trial | Cell::Outbox | Cell::Keys | Cell::Gateways
            );
            if !replaced {
                self.expect(cell, 0, longest(cell), Check::OtherCells)?;
            }
        }
        // All at one turn again.
        for cell in cells(self.context.components) {
            self.put(cell, turn + 1, longest(cell), Check::Replace)?;
        }
        self.expect_all(turn + 1, Check::OtherCells)
    }

    fn erase_one_by_one(&mut self) -> Result<(), Fault> {
        let turn = u32::from(self.context.stores) + 1;
        for (cell, erased) in cells(self.context.components).zip(1..) {
            self.erase_cell(cell, Check::Erase)?;
            for gone in cells(self.context.components).take(erased) {
                self.expect_absent(gone, Check::Erase)?;
            }
            for other in cells(self.context.components).skip(erased) {
                self.expect(other, turn, longest(other), Check::OtherCells)?;
            }
        }
        self.passed(Check::Erase);
        self.passed(Check::OtherCells);
        Ok(())
    }

    /// Before a reset: every second cell with a value, the others erased after they had one.
    pub(super) fn journal_leaves(&mut self, side: usize) -> Result<(), Fault> {
        let turn = turn_of(side);
        for (cell, place) in cells(self.context.components).zip(0_usize..) {
            self.put(cell, turn, longest(cell), Check::StoreLoad)?;
            if place % 2 != side {
                self.erase_cell(cell, Check::Erase)?;
            }
        }
        Ok(())
    }

    /// After the reset.
    pub(super) fn journal_kept(&mut self, side: usize) -> Result<(), Fault> {
        for (cell, place) in cells(self.context.components).zip(0_usize..) {
            // The caller's stage may be there.
            if cell == NOTE_CELL {
                continue;
            }
            if place % 2 == side {
                self.expect(cell, turn_of(side), longest(cell), Check::StoreKeeps)?;
            } else {
                self.expect_absent(cell, Check::EraseKeeps)?;
            }
        }
        self.passed(Check::StoreKeeps);
        self.passed(Check::EraseKeeps);
        Ok(())
    }

    fn expect_all(&mut self, turn: u32, check: Check) -> Result<(), Fault> {
        cells(self.context.components)
            .try_for_each(|cell| self.expect(cell, turn, longest(cell), check))
    }

    fn put(&mut self, cell: Cell, turn: u32, len: usize, check: Check) -> Result<(), Fault> {
        let value = self.context.scratch.get_mut(..len).unwrap_or_default();
        pattern::fill(tag(cell, turn), 0, value);
        let stored = self.journal.store(cell.number(), value);
        stored.map_err(|error| self.fault(check, cell.number(), 0, What::Journal(error)))
    }

    fn expect(&mut self, cell: Cell, turn: u32, len: usize, check: Check) -> Result<(), Fault> {
        let loaded = self.load(cell, check, SCRATCH_LEN)?;
        let value = match loaded {
            None => return Err(self.says(check, cell.number(), "the cell has no value")),
            Some(found) if found != len => {
                return Err(self.says(check, cell.number(), "the value has another length"));
            }
            Some(_) => self.context.scratch.get(..len).unwrap_or_default(),
        };
        match pattern::differs(tag(cell, turn), 0, value) {
            None => Ok(()),
            Some(at) => {
                let what = What::Found("the value has other bytes");
                Err(self.fault(check, cell.number(), at, what))
            }
        }
    }

    fn expect_absent(&mut self, cell: Cell, check: Check) -> Result<(), Fault> {
        match self.load(cell, check, SCRATCH_LEN)? {
            None => Ok(()),
            Some(_) => Err(self.says(check, cell.number(), "the cell has a value")),
        }
    }

    /// Loads into the first `room` bytes of the scratch.
    fn load(&mut self, cell: Cell, check: Check, room: usize) -> Result<Option<usize>, Fault> {
        // What lies there must not look like the value.
        self.context.scratch.fill(0xA5);
        let buffer = self.context.scratch.get_mut(..room).unwrap_or_default();
        let loaded = self.journal.load(cell.number(), buffer);
        loaded.map_err(|error| self.fault(check, cell.number(), 0, What::Journal(error)))
    }

    pub(super) fn erase_cell(&mut self, cell: Cell, check: Check) -> Result<(), Fault> {
        let erased = self.journal.erase(cell.number());
        erased.map_err(|error| self.fault(check, cell.number(), 0, What::Journal(error)))
    }
}

/// Turns that no other check uses.
fn turn_of(side: usize) -> u32 {
    if side == 0 { 0x0F_0000 } else { 0x0F_0001 }
}
