//! The microbit's bootloader: what [`BootStage`] decides, carried out on the nRF51822's
//! flash; then the image in the active slot is started. It prints nothing, takes no
//! interrupt and asks no peripheral but the flash controller and the watchdog.
#![no_std]
#![no_main]

mod forward;

use core::panic::PanicInfo;

use cortex_m::peripheral::SCB;
use dialhome_device::nor::{BootStage, Decision};
use dialhome_microbit_chip::flash::Flash;
use dialhome_microbit_chip::layout::BOOT;
use dialhome_microbit_chip::map::ACTIVE;
use dialhome_microbit_chip::watchdog;

/// About five seconds at 16 MHz, between two tries on a flash that does not take what is
/// written to it.
const REST_CYCLES: u32 = 5 * 16_000_000;

#[cortex_m_rt::entry]
fn main() -> ! {
    // An image that hangs before it does anything is reset as well.
    watchdog::start();
    match BootStage::run(&mut Flash, &BOOT) {
        // SAFETY: nothing of the bootloader is under way any more, and the slot begins
        // with the image's stack pointer and its reset handler.
        Decision::Start(_) => unsafe { cortex_m::asm::bootload(ACTIVE.start as *const u32) },
        Decision::Stuck { .. } => {
            cortex_m::asm::delay(REST_CYCLES);
            SCB::sys_reset()
        }
    }
}

#[panic_handler]
fn panicked(_: &PanicInfo<'_>) -> ! {
    SCB::sys_reset()
}
