//! The microbit's bootloader: what [`BootStage`] decides, carried out on the nRF51822's
//! flash; then the image in the active slot is started. It prints nothing, takes no
//! interrupt and asks no peripheral but the flash controller and the watchdog.
#![no_std]
#![no_main]

mod forward;

use core::panic::PanicInfo;

use cortex_m::peripheral::SCB;
use dialhome_board_runtime as _;
use dialhome_device::nor::{BootStage, Decision};
use dialhome_microbit_chip::flash::Flash;
use dialhome_microbit_chip::layout::BOOT;
use dialhome_microbit_chip::map::{ACTIVE, RAM};
use dialhome_microbit_chip::watchdog;
use embedded_storage::nor_flash::ReadNorFlash as _;

/// About five seconds at 16 MHz, between two tries on a flash that does not take what is
/// written to it.
const REST_CYCLES: u32 = 5 * 16_000_000;

#[cortex_m_rt::entry]
fn main() -> ! {
    // An image that hangs before it does anything is reset as well.
    watchdog::start();
    match BootStage::run(&mut Flash, &BOOT) {
        // An image that is none (another chip's, or linked for another place) counts as one
        // that crashes: the stage has counted this boot, and goes back in the end.
        Decision::Start(_) if !is_program() => SCB::sys_reset(),
        // SAFETY: nothing of the bootloader is under way any more, and the slot begins
        // with a stack pointer and a reset handler that can be ones.
        Decision::Start(_) => unsafe { cortex_m::asm::bootload(ACTIVE.start as *const u32) },
        Decision::Stuck { .. } => {
            cortex_m::asm::delay(REST_CYCLES);
            SCB::sys_reset()
        }
    }
}

/// Whether the active slot begins with a vector table for this chip and this slot: a stack
/// in RAM, and handlers of reset, NMI and faults in the slot. With less than that a fault
/// could not even be handled, and the core would lock up.
fn is_program() -> bool {
    let mut table = [0; 16];
    if Flash.read(BOOT.active.offset, &mut table).is_err() {
        return false;
    }
    let mut words = table
        .as_chunks::<4>()
        .0
        .iter()
        .copied()
        .map(u32::from_le_bytes);
    let stack = words.next().unwrap_or(0);
    let handler =
        |address: u32| address & 1 == 1 && (ACTIVE.start..ACTIVE.end()).contains(&address);
    stack & 3 == 0 && stack > RAM.start && stack <= RAM.end() && words.all(handler)
}

#[panic_handler]
fn panicked(_: &PanicInfo<'_>) -> ! {
    SCB::sys_reset()
}
