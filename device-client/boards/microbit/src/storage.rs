//! Slot, journal and boot side on the chip's flash, as the memory map has them.

use core::cell::RefCell;

use dialhome_board::{constants, reset};
use dialhome_device::boot::BootError;
use dialhome_device::nor::{
    JournalLayout, NorBoot, NorJournal, NorSlot, Partition, Porter, Region,
};
use dialhome_microbit_chip::flash::Flash;
use dialhome_microbit_chip::layout::{BOOT, GRANULE};
use dialhome_microbit_chip::map::{self, PAGE};
use dialhome_proto::code::{BootReason, SelfTest};

use crate::{keep, must};

/// A part of the chip's flash.
pub type Part = Partition<'static, Flash>;

/// As many banks as the journal's part has room for: each more makes it last longer.
const JOURNAL: JournalLayout = {
    let least = JournalLayout::least(PAGE, GRANULE, 1);
    let banks = map::JOURNAL.len / (least.identity_bank + least.progress_bank);
    assert!(banks >= 2 && banks < 256);
    JournalLayout {
        banks: banks as u8,
        ..least
    }
};
const _: () = assert!(JOURNAL.len() <= map::JOURNAL.len);

/// What stores, of one board.
pub struct Storage {
    /// Where an image goes.
    pub slot: NorSlot<Part>,
    /// What survives a power cut.
    pub journal: NorJournal<Part>,
    /// Which image runs.
    pub boot: NorBoot<Part>,
}

impl Storage {
    /// Slot for images of at most `image_max` bytes, journal, and boot side. `started`
    /// and `self_test` are the program's own. To be called once.
    #[must_use]
    pub fn open(image_max: u32, started: BootReason, self_test: fn(u8) -> SelfTest) -> Self {
        let flash: &'static RefCell<Flash> = keep!(RefCell<Flash> = RefCell::new(Flash));
        let part = |region| must(Partition::new(flash, region), "a part of the flash");
        let whole = Region {
            offset: 0,
            len: map::CHANGING.len,
        };
        let journal = part(Flash::region(map::JOURNAL));
        let porter = Porter {
            self_test,
            restart,
            started,
            size: Some(image_size()),
            version: constants::version(),
            counter: constants::counter(),
        };
        Self {
            slot: NorSlot::new(
                part(Flash::region(map::DOWNLOAD)),
                map::ACTIVE.len.min(image_max),
                4,
            ),
            journal: must(NorJournal::new(journal, &JOURNAL), "journal"),
            boot: must(NorBoot::new(part(whole), &BOOT, porter), "boot side"),
        }
    }
}

fn restart(_: BootReason) -> Result<(), BootError> {
    reset::restart()
}

/// Bytes of the running image, as they were signed: up to the initial values of variables,
/// which the linker puts last.
#[must_use]
pub fn image_size() -> u32 {
    unsafe extern "C" {
        static __sidata: u32;
        static __sdata: u32;
        static __edata: u32;
    }
    // The linker's symbols are places, not values: only their addresses mean anything.
    let values = (&raw const __edata).addr() - (&raw const __sdata).addr();
    let end = (&raw const __sidata).addr() + values;
    u32::try_from(end)
        .unwrap_or(0)
        .saturating_sub(map::ACTIVE.start)
}
