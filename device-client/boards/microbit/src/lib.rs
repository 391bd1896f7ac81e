//! What the microbit's programs share: the firmware (`microbit`), and the one that runs
//! the conformance checks on the board (`microbit-conformance`).
#![no_std]

pub mod line;
pub mod settings;
pub mod storage;

use cortex_m_rt::exception;
use dialhome_board::console;
use dialhome_board_runtime as _;
use dialhome_microbit_chip::{clock, uart};

#[exception]
// SAFETY: both handlers touch their own peripheral and atomics only.
unsafe fn DefaultHandler(line: i16) {
    match u8::try_from(line) {
        Ok(uart::INTERRUPT) => uart::on_interrupt(),
        Ok(clock::INTERRUPT) => clock::on_interrupt(),
        _ => {}
    }
}

/// What is there, or a line on the console and a reset: for what cannot be missing on a
/// board that was made as it should be.
pub fn must<T>(found: Option<T>, what: &'static str) -> T {
    match found {
        Some(found) => found,
        None => {
            console::text(what);
            console::line(" is missing");
            panic!("the board is not complete");
        }
    }
}

/// Puts a value into static memory, once, and gives it back as `&'static mut`: the
/// client is larger than a stack should be, and borrows from what was there before it.
#[macro_export]
macro_rules! keep {
    ($kind:ty = $value:expr) => {{
        let kept: Option<&'static mut $kind> = cortex_m::singleton!(: $kind = $value);
        let kept: &'static mut $kind = $crate::must(kept, stringify!($kind));
        kept
    }};
}
