//! Checks of what a porter has written, to run on the board itself (feature
//! `conformance`): the contracts of [`Slot`], [`Journal`] and [`Boot`] as their
//! documentation states them, with real resets and power cuts between.
//!
//! A run is a number of stages. [`run`] carries out one, and says what must happen before
//! the next: a reset, or a power cut. So that it goes on after that, the stage is kept
//! somewhere: by [`run_kept`] in the journal under test, or by the caller (a register or
//! RAM that a reset leaves alone, a number typed at a console, a debugger).
//!
//! A program that calls [`run_kept`] at its start, resets on [`Verdict::Reset`] and calls
//! [`churn`] on [`Verdict::CutPower`], and does nothing else, is a whole conformance
//! firmware: the README has one, in 25 lines. It needs [`SCRATCH_LEN`] bytes and some 1 KiB
//! of stack beside what the parts themselves take, 15 KB of flash, and no formatting.
//!
//! **It erases the journal, and with it the keys of a board that is in service, and
//! overwrites every slot,** five or six times, and stores some 100 kB in the journal with
//! the defaults. Run it before the board is provisioned, or provision it again afterwards.
//!
//! Two things a program cannot tell from inside. A journal that forgets everything at a
//! reset makes [`run_kept`] begin again: the same first checks over and over are that
//! fault (with [`run`] it is named: [`Check::StoreKeeps`]). And a board that stops in the
//! middle of the slot's checks has probably overwritten what runs.
//!
//! [`Slot`]: crate::slot::Slot
//! [`Journal`]: crate::journal::Journal
//! [`Boot`]: crate::boot::Boot

mod boot;
mod check;
mod cut;
mod journal;
mod pattern;
mod slot;
mod transport;
mod trial;

use crate::boot::Boot;
use crate::journal::Journal;
use crate::slot::Slot;
use dialhome_proto::device::Cell;

pub use check::{Check, Fault, Finding, What};
pub use cut::churn;
pub use transport::{Patience, transport};

/// Bytes of [`Context::scratch`]: the longest cell (700) and the largest write unit (768) fit.
pub const SCRATCH_LEN: usize = 768;

/// The cell in which [`run_kept`] keeps the stage.
const NOTE_CELL: Cell = Cell::Seed;
const NOTE_MAGIC: [u8; 4] = *b"DHC1";

/// What is checked.
pub struct Board<'b> {
    /// Where images go.
    pub slot: &'b mut dyn Slot,
    /// What survives a power cut.
    pub journal: &'b mut dyn Journal,
    /// What runs, and what runs next.
    pub boot: &'b mut dyn Boot,
}

/// What the checks need beside the parts.
pub struct Context<'c> {
    /// Working memory; what it holds between two calls does not matter.
    pub scratch: &'c mut [u8; SCRATCH_LEN],
    /// Told of every check that passed or could not be made, in their order.
    pub watch: &'c mut dyn FnMut(Check, Finding),
    /// The components that have a slot; the one that runs this program first.
    pub components: &'c [u8],
    /// Bytes of each slot that are filled at the most, for slots of gigabytes. What is
    /// above is not checked.
    pub extent: u32,
    /// How often a cell is replaced. It should be more than a bank or a row holds: 200
    /// stores of the claim are 34 kB.
    pub stores: u16,
    /// Bytes of the running image, for a board that does not know it
    /// ([`Boot::running`]).
    pub running_size: Option<u32>,
    /// How often a power cut is asked for.
    pub cuts: u8,
    /// Another image that can run here, for the checks of the change of images.
    pub image: Option<SecondImage<'c>>,
}

impl<'c> Context<'c> {
    /// One component with the number 0, whole slots, no power cuts, no second image.
    pub fn new(
        scratch: &'c mut [u8; SCRATCH_LEN],
        watch: &'c mut dyn FnMut(Check, Finding),
    ) -> Self {
        Self {
            scratch,
            watch,
            components: &[0],
            extent: u32::MAX,
            stores: 200,
            running_size: None,
            cuts: 0,
            image: None,
        }
    }
}

/// An image that is not the running one, and that goes on with this run when it is
/// started: the same program with another version text in it, for instance.
#[derive(Clone, Copy)]
pub struct SecondImage<'c> {
    /// Bytes.
    pub size: u32,
    /// Gives the image's bytes from an offset, as many as the buffer holds.
    pub read: &'c dyn Fn(u32, &mut [u8]),
}

/// How far a run has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Stage(u16);

impl Stage {
    /// Where a run begins.
    pub const FIRST: Self = Self(0);
    const JOURNAL_KEPT: Self = Self(1);
    const SLOT: Self = Self(2);
    const SLOT_KEPT: Self = Self(3);
    const RUNNING_KEPT: Self = Self(4);
    const AFTER_CUT: Self = Self(5);
    const TRIAL: Self = Self(6);
    const TO_REVERT: Self = Self(7);
    const REVERTED: Self = Self(8);
    const TO_CONFIRM: Self = Self(9);
    const CONFIRMED: Self = Self(10);

    /// As a number, to be kept over a reset.
    #[must_use]
    pub const fn raw(self) -> u16 {
        self.0
    }

    /// From that number; one that no stage has fails the run with [`Check::Stage`].
    #[must_use]
    pub const fn from_raw(raw: u16) -> Self {
        Self(raw)
    }

    /// Without the count of power cuts.
    const fn step(self) -> Self {
        Self(self.0 & 0xFF)
    }

    const fn cuts(self) -> u8 {
        let [cuts, _] = self.0.to_be_bytes();
        cuts
    }

    const fn one_more_cut(self) -> Self {
        let [_, step] = Self::AFTER_CUT.0.to_be_bytes();
        Self(u16::from_be_bytes([self.cuts().saturating_add(1), step]))
    }
}

/// What a stage came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Keep `next`, reset the board, and call [`run`] with it.
    Reset {
        /// The stage after the reset.
        next: Stage,
    },
    /// Keep `next`, call [`churn`], and cut the power while that is under way; after the
    /// next start call [`run`] with `next`.
    CutPower {
        /// The stage after the cut.
        next: Stage,
    },
    /// Every check passed, and the journal is empty again.
    Done,
    /// A contract is broken. What journal and slots hold now is not defined.
    Failed(Fault),
}

/// Carries out one stage. The porter's objects are those of this boot, used for nothing
/// else meanwhile.
pub fn run(board: &mut Board<'_>, context: &mut Context<'_>, stage: Stage) -> Verdict {
    let mut run = Run {
        slot: board.slot,
        journal: board.journal,
        boot: board.boot,
        context,
        stage,
    };
    match run.carry_out() {
        Ok(verdict) => verdict,
        Err(fault) => Verdict::Failed(fault),
    }
}

/// As [`run`], with the stage in the journal under test (in the cell of the random seed).
pub fn run_kept(board: &mut Board<'_>, context: &mut Context<'_>) -> Verdict {
    let mut note = [0; 32];
    let stage = match board.journal.load(NOTE_CELL.number(), &mut note) {
        Ok(Some(6)) => match note {
            [a, b, c, d, high, low, ..] if [a, b, c, d] == NOTE_MAGIC => {
                Stage(u16::from_be_bytes([high, low]))
            }
            _ => Stage::FIRST,
        },
        _ => Stage::FIRST,
    };
    let verdict = run(board, context, stage);
    let kept = match verdict {
        Verdict::Reset { next } | Verdict::CutPower { next } => {
            let [a, b, c, d] = NOTE_MAGIC;
            let [high, low] = next.0.to_be_bytes();
            let note = [a, b, c, d, high, low];
            board.journal.store(NOTE_CELL.number(), &note)
        }
        // The next run begins at the beginning.
        Verdict::Done | Verdict::Failed(_) => board.journal.erase(NOTE_CELL.number()),
    };
    match (verdict, kept) {
        (Verdict::Failed(_), _) | (_, Ok(())) => verdict,
        (_, Err(error)) => Verdict::Failed(Fault {
            stage,
            check: Check::StoreLoad,
            what: What::Journal(error),
            part: NOTE_CELL.number(),
            at: 0,
        }),
    }
}

/// One stage under way.
struct Run<'r, 'c> {
    slot: &'r mut dyn Slot,
    journal: &'r mut dyn Journal,
    boot: &'r mut dyn Boot,
    context: &'r mut Context<'c>,
    stage: Stage,
}

impl Run<'_, '_> {
    fn carry_out(&mut self) -> Result<Verdict, Fault> {
        let reset = |next| Ok(Verdict::Reset { next });
        match self.stage.step() {
            Stage::FIRST => {
                self.journal_contract()?;
                self.journal_leaves(0)?;
                reset(Stage::JOURNAL_KEPT)
            }
            Stage::JOURNAL_KEPT => {
                self.journal_kept(0)?;
                self.journal_leaves(1)?;
                reset(Stage::SLOT)
            }
            Stage::SLOT => {
                self.journal_kept(1)?;
                self.slot_contract()?;
                reset(Stage::SLOT_KEPT)
            }
            Stage::SLOT_KEPT => {
                self.slot_kept()?;
                self.boot_contract()?;
                reset(Stage::RUNNING_KEPT)
            }
            Stage::RUNNING_KEPT => {
                self.running_kept()?;
                self.cut_or_go_on()
            }
            Stage::AFTER_CUT => {
                self.after_cut()?;
                self.cut_or_go_on()
            }
            Stage::TO_REVERT => self.revert_new(),
            Stage::REVERTED => self.reverted(),
            Stage::TO_CONFIRM => self.confirm_after_trial(),
            Stage::CONFIRMED => {
                self.confirmed()?;
                self.done()
            }
            _ => Err(self.says(Check::Stage, 0, "there is no stage with this number")),
        }
    }

    fn cut_or_go_on(&mut self) -> Result<Verdict, Fault> {
        if self.stage.cuts() < self.context.cuts {
            self.before_cut()?;
            let next = self.stage.one_more_cut();
            return Ok(Verdict::CutPower { next });
        }
        if self.context.cuts == 0 {
            self.skipped(Check::CutStore, "no power cut was asked for");
            self.skipped(Check::CutSlot, "no power cut was asked for");
        }
        let Some(image) = self.context.image else {
            for check in Check::TRIAL {
                self.skipped(check, "no second image was given");
            }
            return self.done();
        };
        self.stage = Stage::TRIAL;
        self.keep_running()?;
        self.try_image(&image)?;
        Ok(Verdict::Reset {
            next: Stage::TO_REVERT,
        })
    }

    /// Leaves the journal empty: what the checks stored is nobody's key.
    fn done(&mut self) -> Result<Verdict, Fault> {
        for cell in journal::cells(self.context.components) {
            self.erase_cell(cell, Check::Erase)?;
        }
        Ok(Verdict::Done)
    }

    fn passed(&mut self, check: Check) {
        (self.context.watch)(check, Finding::Passed);
    }

    fn skipped(&mut self, check: Check, why: &'static str) {
        (self.context.watch)(check, Finding::Skipped(why));
    }

    const fn fault(&self, check: Check, part: u8, at: u32, what: What) -> Fault {
        Fault {
            stage: self.stage,
            check,
            what,
            part,
            at,
        }
    }

    const fn says(&self, check: Check, part: u8, sentence: &'static str) -> Fault {
        self.fault(check, part, 0, What::Found(sentence))
    }
}
