//! The checks by name, what each of them says, and how a broken contract is reported.

use super::Stage;
use crate::boot::BootError;
use crate::journal::JournalError;
use crate::slot::SlotError;
use core::fmt;

macro_rules! checks {
    ($($name:ident $text:literal, $contract:literal;)+) => {
        /// One thing that is checked.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Check {
            $(#[doc = concat!($text, " (", $contract, ").")] $name,)+
        }

        impl Check {
            /// Every check, about in the order in which they are made.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// What must hold: one plain sentence without a full stop.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// The method or type whose documentation demands it.
            #[must_use]
            pub const fn contract(self) -> &'static str {
                match self {
                    $(Self::$name => $contract,)+
                }
            }
        }
    };
}

checks! {
    Stage "the caller hands back the stage that it was given", "conformance::run";

    Erase "an erased cell has no value", "Journal::erase";
    EraseAbsent "erasing a cell without a value does nothing, and is no error", "Journal::erase";
    StoreLoad "what was stored in a cell is loaded again, with its length", "Journal::store";
    AllFull "every cell holds its longest value while all others do", "Journal";
    ShortBuffer "a buffer shorter than the value is refused as TooLong, and the value stays", "Journal::load";
    Lengths "a shorter or longer value replaces the old one whole", "Journal::store";
    Refused "a value is stored whole, or refused and the old one is still there", "Journal::store";
    Replace "a cell can be replaced again and again", "Journal::store";
    OtherCells "a store or an erase leaves every other cell as it was", "Journal";
    StoreKeeps "a stored value is there after a reset", "Journal::store";
    EraseKeeps "an erased cell has no value after a reset", "Journal::erase";

    Select "components with a slot can be selected, others are OutOfRange", "Slot::select";
    Units "the write unit is 1 to 768 bytes, the erase unit a multiple of it, the size a multiple of the erase unit", "Geometry";
    Constant "the geometry does not change while the program runs", "Slot::geometry";
    TooBig "an image above the slot's size is refused as OutOfRange", "Slot::prepare";
    ReadBack "what was written to an erased unit is read back at once", "Slot::write";
    Neighbours "a write or an erase changes nothing elsewhere in the slot", "Slot::write";
    OddReads "reads of any offset and any length give the bytes that are there", "Slot::read";
    Outside "reads, writes and erases that reach past the slot are OutOfRange", "Slot::read";
    PrepareKeeps "preparing again for an image of the same size keeps its bytes", "Slot::prepare";
    EraseAgain "units that were written before take new bytes after one erase of them all", "Slot::erase";
    Crossing "a write may be as long as several units and cross their borders", "Slot::write";
    LastWrite "an image's last write may end within a write unit", "Slot::write";
    Components "each component has a slot of its own", "Slot::select";
    Overlap "a slot is never where the running image is", "Slot";
    ReadAfterReset "the slot can be read after a reset without being prepared", "Slot::read";
    FlushKeeps "after a flush, a reset loses no byte", "Slot::flush";
    Resume "after a reset a transfer goes on at an erase unit, and what is before it stays", "Slot::prepare";

    Idle "no image is on trial, and no change is unfinished", "Running";
    Stable "what runs is the same each time it is asked", "Boot::running";
    Unknown "a component that the board has not is Unsupported", "Boot::running";
    RevertIdle "a revert without a trial is NotNeeded and changes nothing", "Boot::revert";
    ConfirmIdle "a confirm without a trial is no error and changes nothing", "Boot::confirm";
    WrongDigest "an image that the slot does not hold is refused as DigestMismatch and changes nothing", "Boot::activate";
    Detail "the detail of an error is at most 200 bytes", "Boot::detail";
    RunningKeeps "what runs is the same after a reset", "Boot::running";

    CutStore "a store that was cut leaves the old value or the new one, and loses nothing that was stored before", "Journal::store";
    CutSlot "a cut while units are erased or written leaves every other unit as it was", "Slot::erase";

    Activate "the image that the slot holds can be activated", "Boot::activate";
    ActivateAgain "activate may be repeated, as after a cut", "Boot::activate";
    TrialRuns "after the reset the new image runs", "Boot::activate";
    OnTrial "a new image is on trial until it is confirmed", "Running::on_trial";
    Revert "an image on trial can be reverted", "Boot::revert";
    RevertKeeps "after a revert the old image runs and stays", "Boot::revert";
    Confirm "an image on trial can be confirmed", "Boot::confirm";
    ConfirmKeeps "a confirmed image stays, and its trial is over", "Boot::confirm";

    Nobody "a connection to where nobody answers is an error", "Transport::connect";
    Bound "connect ends within the bound that the transport documents", "Transport::connect";
    ClosedSend "sending without a connection is an error", "Transport::send";
    ClosedReceive "receiving without a connection is an error", "Transport::receive";
    Facts "the network's name is at most 32 bytes", "Transport::facts";
}

impl Check {
    /// Those that need a second image.
    pub(super) const TRIAL: [Self; 8] = [
        Self::Activate,
        Self::ActivateAgain,
        Self::TrialRuns,
        Self::OnTrial,
        Self::Revert,
        Self::RevertKeeps,
        Self::Confirm,
        Self::ConfirmKeeps,
    ];
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// What became of a check that was not broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finding {
    /// The contract holds.
    Passed,
    /// It could not be made, and why.
    Skipped(&'static str),
}

/// What was found instead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// The slot answered this.
    Slot(SlotError),
    /// The journal answered this.
    Journal(JournalError),
    /// The boot side answered this.
    Boot(BootError),
    /// One plain sentence without a full stop.
    Found(&'static str),
}

impl What {
    /// One plain sentence without a full stop.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Slot(error) => error.text(),
            Self::Journal(error) => error.text(),
            Self::Boot(error) => error.text(),
            Self::Found(sentence) => sentence,
        }
    }
}

/// A contract that is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The stage in which it showed.
    pub stage: Stage,
    /// What does not hold.
    pub check: Check,
    /// What was found instead.
    pub what: What,
    /// The component, or the journal's cell.
    pub part: u8,
    /// The offset in the slot or in the cell's value, in bytes; 0 where there is none.
    pub at: u32,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            stage,
            check,
            what,
            part,
            at,
        } = self;
        write!(
            f,
            "{} ({}): {check}; but {} (stage {}, component or cell {part}, offset {at})",
            check.name(),
            check.contract(),
            what.text(),
            stage.raw(),
        )
    }
}

impl core::error::Error for Fault {}
