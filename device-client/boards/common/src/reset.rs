//! Resets, and a marker in RAM that is not initialised, which tells the next start why.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use cortex_m::peripheral::SCB;
use dialhome_proto::code::BootReason;

/// The marker says this where the last start ended by a panic or a fault.
const PANIC: u32 = 0x5041_4e43;
/// The marker says this where the program itself asked for the reset.
const RESTART: u32 = 0x5245_5354;

/// Two words, the second the complement of the first: what power left in RAM is not
/// taken for a marker.
struct Marker(UnsafeCell<MaybeUninit<[u32; 2]>>);

// SAFETY: one core, and only the start of the program and its end touch the marker;
// each access is one volatile read or write.
unsafe impl Sync for Marker {}

#[unsafe(link_section = ".uninit.dialhome")]
static MARKER: Marker = Marker(UnsafeCell::new(MaybeUninit::uninit()));

fn mark(word: u32) {
    // SAFETY: the marker is RAM of this program, aligned, and any bytes are valid in it.
    unsafe {
        MARKER
            .0
            .get()
            .cast::<[u32; 2]>()
            .write_volatile([word, !word])
    };
}

/// Why the program was started, as far as RAM tells; asked once, early: it forgets the
/// answer. Power-on is what is left where no marker is there.
#[must_use]
pub fn take_reason() -> BootReason {
    // SAFETY: as in `mark`; whatever RAM holds after power-on is a valid pair of words.
    let [word, check] = unsafe { MARKER.0.get().cast::<[u32; 2]>().read_volatile() };
    mark(0);
    match word {
        PANIC if check == !PANIC => BootReason::PANIC,
        RESTART if check == !RESTART => BootReason::RESTART,
        _ => BootReason::POWER_ON,
    }
}

/// Restarts the board on purpose.
pub fn restart() -> ! {
    mark(RESTART);
    SCB::sys_reset()
}

/// Restarts the board after a panic or a fault: the next start says so.
pub fn after_panic() -> ! {
    mark(PANIC);
    SCB::sys_reset()
}
