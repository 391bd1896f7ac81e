//! What every program has: vectors, start-up and an endless loop.
#![no_std]
#![no_main]

use core::panic::PanicInfo;
use cortex_m_rt::entry;

#[entry]
fn main() -> ! {
    loop {
        dialhome_board_size::sink(&dialhome_board_size::word().to_le_bytes());
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {
        let _ = dialhome_board_size::word();
    }
}
