//! Arduino's SDU boot stage, played by the host on a board whose flash cannot be written
//! from within: at every start it looks for UPDATE.BIN on the card, writes what follows
//! its first 16 KiB behind itself, and deletes the file. It checks nothing.
//!
//! The real one is `SDUBoot.ino` in the libraries of Arduino's SAMD core.

use std::ops::Range;

use crate::Error;
use crate::card::Card;

/// The file that it looks for.
pub const UPDATE: &str = "UPDATE.BIN";
/// Where the sketch begins.
pub const SKETCH: usize = 0x4000;
/// Bytes that it writes at a time.
const PIECE: usize = 128;

/// Where the power is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// When the flash has been erased, before a byte of the new sketch is there.
    Erased,
    /// When so many bytes of the sketch have been written, the last piece half.
    Written(usize),
    /// When the sketch is there and the file still is.
    BeforeDelete,
    /// When the file is empty, and its name still there.
    WithinDelete,
    /// When the file is gone, and the sketch not yet started.
    AfterDelete,
}

/// Runs the stage once. True: it came to its end, and the sketch starts; false: the
/// power was cut.
///
/// # Errors
/// The card's file could not be written.
pub fn run(card: Option<&Card>, flash: &mut [u8], cut: Option<Cut>) -> Result<bool, Error> {
    let Some(card) = card else {
        return Ok(true);
    };
    // A card that it cannot read is no reason not to start the sketch.
    let Ok(Some(file)) = card.read(UPDATE) else {
        return Ok(true);
    };
    let Some(sketch) = file.get(SKETCH..).filter(|sketch| !sketch.is_empty()) else {
        return Ok(true);
    };
    let place: Range<usize> = SKETCH..SKETCH + sketch.len();
    let Some(room) = flash.get_mut(place) else {
        // The real one would write past the end of flash.
        return Ok(true);
    };
    room.fill(0xff);
    if cut == Some(Cut::Erased) {
        return Ok(false);
    }
    let mut done = 0;
    for (to, from) in room.chunks_mut(PIECE).zip(sketch.chunks(PIECE)) {
        if let Some(Cut::Written(at)) = cut
            && done + from.len() > at
        {
            let half = from.len() / 2;
            to[..half].copy_from_slice(&from[..half]);
            return Ok(false);
        }
        to.copy_from_slice(from);
        done += from.len();
    }
    if cut == Some(Cut::BeforeDelete) {
        return Ok(false);
    }
    card.empty(UPDATE)?;
    if cut == Some(Cut::WithinDelete) {
        return Ok(false);
    }
    card.delete(UPDATE)?;
    Ok(cut.is_none())
}
