//! The memory map, in bytes: the one place where it is written. The linker scripts of
//! the bootloader and of the firmware are made from it, and the tests read it too
//! (`boards/microbit/README.md` shows it as a table).

/// Flash of the chip.
pub const FLASH_LEN: u32 = 256 * 1024;
/// Least piece that the flash erases.
pub const PAGE: u32 = 1024;

/// The bootloader, from address 0: the chip's vector table is there and cannot be moved.
pub const BOOTLOADER: Part = Part::new(0, 10 * 1024);
/// What the bootloader and the firmware tell each other: what is to run, how far a swap
/// has come.
pub const STATE: Part = Part::after(BOOTLOADER, 4 * 1024);
/// The image that runs; firmware is linked for its start.
pub const ACTIVE: Part = Part::after(STATE, 104 * 1024);
/// Where an image is received, and where the old one lies while the new one is on trial:
/// a page more than an image has, because the swap moves one of them up by a page.
pub const DOWNLOAD: Part = Part::after(ACTIVE, ACTIVE.len + PAGE);
/// The client's journal: identity and progress, never in one page.
pub const JOURNAL: Part = Part::after(DOWNLOAD, 30 * 1024);
/// The provisioning record, written once when the board is made.
pub const PROVISION: Part = Part::new(FLASH_LEN - 3 * PAGE, 2 * PAGE);
/// Settings of this one board: intervals, limits, and in tests its faults. Erased: all
/// as usual.
pub const SETTINGS: Part = Part::after(PROVISION, PAGE);

/// RAM of the chip, and where it starts.
pub const RAM: Part = Part::new(0x2000_0000, 16 * 1024);
/// RAM that the bootloader uses: the upper end, where firmware has its stack. What
/// firmware leaves below it for its next start (why it restarted) survives the bootloader.
pub const BOOTLOADER_RAM: Part = Part::new(RAM.end() - 4 * 1024, 4 * 1024);

/// All that programs change, as one flash: its offset 0 is the state area's start.
pub const CHANGING: Part = Part::new(STATE.start, JOURNAL.end() - STATE.start);

/// A piece of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Address of its first byte.
    pub start: u32,
    /// Bytes.
    pub len: u32,
}

impl Part {
    /// From an address.
    #[must_use]
    pub const fn new(start: u32, len: u32) -> Self {
        Self { start, len }
    }

    /// Right behind another.
    #[must_use]
    pub const fn after(before: Self, len: u32) -> Self {
        Self::new(before.end(), len)
    }

    /// Address behind its last byte.
    #[must_use]
    pub const fn end(self) -> u32 {
        self.start + self.len
    }
}

const _: () = assert!(JOURNAL.end() <= PROVISION.start && SETTINGS.end() <= FLASH_LEN);
