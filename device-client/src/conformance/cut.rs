//! Power cuts while the journal and the slot are busy.

use super::check::{Check, Fault, What};
use super::journal::{cells, longest};
use super::{Board, Context, NOTE_CELL, Run, Stage, pattern};
use dialhome_proto::device::Cell;

/// Keeps the journal and the first slot busy for so many rounds, for the power to be cut
/// meanwhile (after [`Verdict::CutPower`](super::Verdict::CutPower), with its `next`). When
/// it returns Ok nothing was cut, which [`run`](super::run) cannot see.
///
/// # Errors
/// The journal or the slot refused. Where the power is only said to be cut, as in a
/// simulation, that is what comes back, and means nothing.
pub fn churn(
    board: &mut Board<'_>,
    context: &mut Context<'_>,
    stage: Stage,
    rounds: u32,
) -> Result<(), Fault> {
    let mut run = Run {
        slot: board.slot,
        journal: board.journal,
        boot: board.boot,
        context,
        stage,
    };
    for round in 1..=rounds {
        run.store_round(round)?;
        run.slot_churn(round)?;
    }
    Ok(())
}

/// The tag of a value of a round.
fn tag(cell: Cell, round: u32) -> u32 {
    0x0C00_0000 ^ round << 5 ^ u32::from(cell.number())
}

impl Run<'_, '_> {
    /// Round 0: what the first cut may leave.
    pub(super) fn before_cut(&mut self) -> Result<(), Fault> {
        self.store_round(0)?;
        self.slot_before_cut()
    }

    /// One value of the round in each cell, in order: 4 bytes of the round, then a pattern.
    fn store_round(&mut self, round: u32) -> Result<(), Fault> {
        for cell in cells(self.context.components).filter(|cell| *cell != NOTE_CELL) {
            let value = self.context.scratch.get_mut(..longest(cell));
            let value = value.unwrap_or_default();
            pattern::fill(tag(cell, round), 0, value);
            if let Some(head) = value.first_chunk_mut() {
                *head = round.to_be_bytes();
            }
            let stored = self.journal.store(cell.number(), value);
            stored.map_err(|error| {
                self.fault(Check::CutStore, cell.number(), 0, What::Journal(error))
            })?;
        }
        Ok(())
    }

    /// The cells were stored in order, round after round: so the rounds that are there do
    /// not rise from cell to cell, and the last cell is at most one behind the first.
    pub(super) fn after_cut(&mut self) -> Result<(), Fault> {
        let mut first = None;
        let mut last = u32::MAX;
        for cell in cells(self.context.components).filter(|cell| *cell != NOTE_CELL) {
            let round = self.whole_round(cell)?;
            let first = *first.get_or_insert(round);
            if round > last || first - round.min(first) > 1 {
                let found = "a value is older than one that was stored before it";
                return Err(self.says(Check::CutStore, cell.number(), found));
            }
            last = round;
        }
        self.passed(Check::CutStore);
        self.slot_after_cut()?;
        self.passed(Check::CutSlot);
        Ok(())
    }

    fn whole_round(&mut self, cell: Cell) -> Result<u32, Fault> {
        let (check, part) = (Check::CutStore, cell.number());
        self.context.scratch.fill(0xA5);
        let loaded = self.journal.load(part, &mut *self.context.scratch);
        let loaded = loaded.map_err(|error| self.fault(check, part, 0, What::Journal(error)))?;
        if loaded != Some(longest(cell)) {
            return Err(self.says(check, part, "the cell has no value, or not a whole one"));
        }
        let value = self.context.scratch.get(..longest(cell));
        let value = value.unwrap_or_default();
        let (head, rest) = value.split_at_checked(4).unwrap_or_default();
        let round = u32::from_be_bytes(head.first_chunk().copied().unwrap_or_default());
        if pattern::differs(tag(cell, round), 4, rest).is_some() {
            return Err(self.says(check, part, "the value is neither the old nor the new one"));
        }
        Ok(round)
    }
}
