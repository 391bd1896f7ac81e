//! What the board must not forget: numbered cells, each atomic (spec/limits.md has the
//! table of cells, their sizes and how often each is written).

use core::fmt;
use dialhome_proto::code::Reason;

/// A fixed table of small cells that survive a power cut at any instant.
///
/// The usual way: two copies of each cell, each with a checksum and a rising sequence;
/// a store overwrites the older copy, a load takes the newest that checks. On NOR flash a
/// log in banks costs fewer erases ([`nor`](crate::nor)). Cells that hold identity (keys,
/// trust, floors) never share an erase unit with cells that change during a transfer.
///
/// The cells of a board are 1 to 4, 9 to 11, and one from 5 on for each component; with more
/// than one component one from 16 on for each, too. Their
/// values have 1 to 700 bytes.
pub trait Journal {
    /// Puts the cell's value into `buffer` and returns its length; `None` where it was
    /// never stored, or was erased.
    ///
    /// # Errors
    /// `TooLong` where `buffer` is shorter than the value; `Damaged` where something is
    /// there and no copy checks; `Io` by the medium.
    fn load(&mut self, cell: u8, buffer: &mut [u8]) -> Result<Option<usize>, JournalError>;

    /// Stores `value`. Atomic and durable: when it returns, a power cut cannot lose it;
    /// a cut before that leaves the old value or the new one readable, whole.
    ///
    /// # Errors
    /// `TooLong` where the cell has no room for so many bytes; `Full`,
    /// `WriteProtected` or `Io` by the medium. The old value is then still there, and
    /// the client tries again within a minute.
    fn store(&mut self, cell: u8, value: &[u8]) -> Result<(), JournalError>;

    /// Forgets the cell's value, as atomically and durably as `store`. Nothing happens
    /// where there is none.
    ///
    /// # Errors
    /// As `store`.
    fn erase(&mut self, cell: u8) -> Result<(), JournalError>;
}

/// Why the journal could not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalError {
    /// The medium failed.
    Io,
    /// There is no room on the medium.
    Full,
    /// The medium may not be written.
    WriteProtected,
    /// The value is longer than the cell, or than the buffer that it should go into.
    TooLong,
    /// The cell holds something, and no copy of it checks.
    Damaged,
}

impl JournalError {
    /// What the gateway is told: without its journal a board promises nothing.
    #[must_use]
    pub const fn reason(self) -> Reason {
        Reason::STORAGE
    }

    /// One plain sentence without a full stop.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Io => "the journal's medium failed",
            Self::Full => "no room for the journal on its medium",
            Self::WriteProtected => "the journal may not be written",
            Self::TooLong => "a value is too long for its journal cell or buffer",
            Self::Damaged => "a journal cell is damaged in both copies",
        }
    }
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl core::error::Error for JournalError {}
