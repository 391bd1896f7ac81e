//! Where an image goes: an ack means that bytes are here (spec/states.md).

use core::fmt;
use dialhome_proto::code::Reason;

/// Storage for the image that is being received: a flash partition, a file, UPDATE.BIN
/// on a card. Never the image that runs.
///
/// Every offset counts from the start of the image. A slot must be readable: what
/// cannot be read back (a modem's write-only file, a child MCU) is fed from another
/// slot, by [`Boot::activate`](crate::boot::Boot::activate).
pub trait Slot {
    /// Chooses the component whose slot every later call means. Before the first call
    /// it is component 0. A board with one slot keeps this default.
    ///
    /// # Errors
    /// `OutOfRange` where the component has no slot.
    fn select(&mut self, component: u8) -> Result<(), SlotError> {
        if component == 0 {
            Ok(())
        } else {
            Err(SlotError::OutOfRange)
        }
    }

    /// Size and units. Constant while the program runs.
    fn geometry(&self) -> Geometry;

    /// Makes the slot ready for an image of `image_size` bytes: creates the file at its
    /// full size, mounts the card. Called at the start of every transfer, of a new image
    /// and of one that is resumed, so also several times in a boot: it must keep the
    /// bytes that an image of this size has there. May be slow: the client has said
    /// Progress(preparing).
    /// When it returns, no later write changes file-system metadata, where the medium
    /// allows that.
    ///
    /// # Errors
    /// `OutOfRange` for an image above [`Geometry::size`]; `Full`, `WriteProtected` or
    /// `Io` by the medium.
    fn prepare(&mut self, image_size: u32) -> Result<(), SlotError>;

    /// Makes `len` bytes from `offset` writable; both are multiples of the erase unit
    /// (the last one may reach past the image's end, never past the slot's). What they
    /// hold afterwards is not defined until they are written. A cut may leave any of
    /// these units in any state, and no other. A medium that needs no erase does nothing.
    ///
    /// # Errors
    /// As `prepare`.
    fn erase(&mut self, offset: u32, len: u32) -> Result<(), SlotError>;

    /// Writes `bytes` at `offset`, which is a multiple of the write unit. So is the
    /// length, but for the last write of an image: the slot fills the rest of that unit
    /// with what its medium holds after an erase. Bytes are written once between
    /// erases, and only to units of which no write can have been cut since they were
    /// erased. A write may be longer than an erase unit, and cross its borders. The bytes
    /// need not be durable yet.
    ///
    /// # Errors
    /// As `prepare`.
    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), SlotError>;

    /// Fills `bytes` from `offset`, any alignment, from the medium itself where that can
    /// be had (not from a copy of what was written). Bytes written before are read back
    /// even before `flush`. Works without `prepare` after a boot.
    ///
    /// # Errors
    /// `OutOfRange` where the slot does not hold that many bytes, otherwise as `prepare`.
    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), SlotError>;

    /// Makes every byte that was written durable: when it returns, a power cut loses
    /// none of them. The client acknowledges bytes only after this.
    ///
    /// # Errors
    /// As `prepare`. After an error nothing since the last `flush` that succeeded is
    /// taken to be there.
    fn flush(&mut self) -> Result<(), SlotError>;
}

/// Size and units of a slot, in bytes (Hello's `slot_size`, `write_unit`, `erase_unit`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Largest image that fits. A multiple of `erase_unit`, because the unit with an
    /// image's last byte is erased whole.
    pub size: u32,
    /// Writes are multiples of it, the last of an image excepted. 1 to 768.
    pub write_unit: u32,
    /// Erases are multiples of it. A multiple of `write_unit`, at least 1.
    pub erase_unit: u32,
}

/// Why a slot could not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotError {
    /// The medium failed, was pulled out, or answered nothing.
    Io,
    /// There is no room on the medium.
    Full,
    /// The medium, or this slot for now, may not be written.
    WriteProtected,
    /// Outside the slot, or a component that has none.
    OutOfRange,
}

impl SlotError {
    /// What the gateway is told.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::Io | Self::Full | Self::WriteProtected => Reason::STORAGE,
            Self::OutOfRange => Reason::TOO_BIG,
        }
    }

    /// One plain sentence without a full stop, for a log or a Report's detail.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Io => "the slot's medium failed, or is not there",
            Self::Full => "no room for the image on the slot's medium",
            Self::WriteProtected => "the slot may not be written",
            Self::OutOfRange => "the image does not fit the slot",
        }
    }
}

impl fmt::Display for SlotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl core::error::Error for SlotError {}
