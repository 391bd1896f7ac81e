//! A card with a FAT file system as slot, journal and way to the next image, for boards
//! whose boot stage takes UPDATE.BIN from it: Arduino's SDU on a MKR GSM 1400.
//!
//! The boot stage checks nothing, so nothing gets the name UPDATE.BIN before its
//! signature and its digest were checked, and the digest is read from the card.
//!
//! | file | what it is |
//! |---|---|
//! | `DIALHOME.NEW` | [`SdSlot`]: the image that is being received; at its full size before the first byte of it is written |
//! | `DIALHOME.JNL` | [`SdJournal`]: two copies of each cell, each in sectors of its own |
//! | `PREVIOUS.BIN` | a copy of the image that ran before, for the way back |
//! | `UPDATE.BIN` | the image that the boot stage takes at the next start, and deletes |
//!
//! What a power cut may do: any sector may be torn, half old and half new, or full of
//! rubbish. Of a file's contents and of the FAT nothing is lost by that. A sector of the
//! directory full of rubbish loses the files that stood in it: FAT has no second copy of a
//! directory. While an image arrives no such sector is written at all. spec/storage.md has
//! the states and what they mean.
//!
//! A card without `DIALHOME.JNL` is a board that remembers nothing: with another card put
//! in, or the file deleted, the floors against older images and a key that was rotated are
//! lost without a word, and the board goes by its provisioning record again. Whoever can
//! reach the card can do so.
//!
//! ```text
//! let medium = embedded_sdmmc::SdCard::new(spi, delay);
//! let card = Card::new(&medium);
//! let slot = SdSlot::new(&card, 240 * 1024);
//! let journal = SdJournal::new(&card);
//! let boot = SduBoot::new(&card, sketch);
//! ```

mod boot;
mod card;
mod fat;
mod journal;
mod slot;

pub use boot::{STAGE_LEN, SduBoot, Sketch};
pub use card::{Card, Fault, Medium};
pub use journal::SdJournal;
pub use slot::SdSlot;

/// The image that is being received.
pub const NEW: &str = "DIALHOME.NEW";
/// The journal.
pub const JOURNAL: &str = "DIALHOME.JNL";
/// The image that ran before.
pub const PREVIOUS: &str = "PREVIOUS.BIN";
/// The image for the boot stage.
pub const UPDATE: &str = "UPDATE.BIN";

/// Bytes of a sector.
const SECTOR: usize = 512;
