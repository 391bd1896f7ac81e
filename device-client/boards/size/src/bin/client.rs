//! The whole client, over parts that are hardly there.
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

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {
        let _ = dialhome_board_size::word();
    }
}
