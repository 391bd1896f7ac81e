//! The whole client, which does not link while a panic can be reached in it. Built with
//! `--cfg dialhome_stub_crypto` only: with the cryptography it shows nothing, because the
//! crates of that have panics of their own, which reset a board.
#![no_std]
#![no_main]

use core::panic::PanicInfo;
use cortex_m_rt::entry;

#[entry]
fn main() -> ! {
    dialhome_board_size::whole::run();
    loop {
        let _ = dialhome_board_size::word();
    }
}

unsafe extern "C" {
    /// Defined nowhere.
    fn a_panic_is_reachable() -> !;
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: a program that calls it does not link.
    unsafe { a_panic_is_reachable() }
}
