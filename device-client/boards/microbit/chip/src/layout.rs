//! The two image slots and the state between bootloader and firmware, as both must be
//! built with it, for the life of a board.

use dialhome_device::nor::BootLayout;

use crate::flash::Flash;
use crate::map::{ACTIVE, DOWNLOAD, PAGE, STATE};

/// Records of state and journal are padded to it, in bytes: the flash writes words of 4,
/// each once, and counts no writes.
pub const GRANULE: u32 = 16;

/// Where the images and the state of their swap lie.
pub const BOOT: BootLayout = BootLayout {
    active: Flash::region(ACTIVE),
    download: Flash::region(DOWNLOAD),
    state: Flash::region(STATE),
    banks: 2,
    swap_unit: PAGE,
    granule: GRANULE,
};
