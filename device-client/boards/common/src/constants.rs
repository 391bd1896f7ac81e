//! What an image knows of itself, in one block that can be found in the finished file:
//! a build patches the version there, and the tests make their good and bad images from
//! one build.

use core::hint::black_box;

/// The block begins with this. It is found by it in the raw image.
const MAGIC: [u8; 16] = *b"DIALHOME IMAGE 1";

/// What the image does; every value but `GOOD` is for tests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Behaviour {
    /// What it should.
    Good = 0,
    /// Panics before the client starts.
    CrashesAtStart = 1,
    /// Does nothing, for ever, before the client starts.
    Hangs = 2,
    /// Runs well, and never dials.
    NeverDials = 3,
    /// Its self-test fails.
    FailsSelfTest = 4,
    /// Panics once, when it is online for the first time, unless it was a panic that
    /// started it.
    PanicsOnce = 5,
}

#[repr(C)]
struct Constants {
    magic: [u8; 16],
    version: [u8; 32],
    counter: [u8; 8],
    behaviour: u8,
    reserved: [u8; 7],
}

#[used]
#[unsafe(link_section = ".rodata.dialhome")]
static IMAGE: Constants = Constants {
    magic: MAGIC,
    version: *b"0.0.0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    counter: [0; 8],
    behaviour: 0,
    reserved: [0; 7],
};

/// The block as it is in flash: the compiler must not know what it was built with.
fn image() -> &'static Constants {
    let image = black_box(&IMAGE);
    let _ = (black_box(&image.magic), black_box(&image.reserved));
    image
}

/// The image's version text, at most 32 bytes.
#[must_use]
pub fn version() -> &'static str {
    let version = &image().version;
    let len = version.iter().position(|byte| *byte == 0);
    version
        .get(..len.unwrap_or(version.len()))
        .and_then(|bytes| core::str::from_utf8(bytes).ok())
        .unwrap_or("")
}

/// The image's counter.
#[must_use]
pub fn counter() -> u64 {
    u64::from_le_bytes(image().counter)
}

/// What the image does; an unknown value is `Good`.
#[must_use]
pub fn behaviour() -> Behaviour {
    match black_box(image().behaviour) {
        1 => Behaviour::CrashesAtStart,
        2 => Behaviour::Hangs,
        3 => Behaviour::NeverDials,
        4 => Behaviour::FailsSelfTest,
        5 => Behaviour::PanicsOnce,
        _ => Behaviour::Good,
    }
}
