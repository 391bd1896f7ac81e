//! How deep the stack has been: the start-up code paints the RAM below it (cortex-m-rt's
//! feature `paint-stack`), and a scan finds how much of the paint is left.

use core::ptr;
use cortex_m_rt::STACK_PAINT_VALUE;

unsafe extern "C" {
    static _stack_start: u32;
    static __sheap: u32;
}

/// The deepest that the stack has been since the start, in bytes.
#[must_use]
pub fn high_water() -> u32 {
    let (end, start) = bounds();
    let mut at = end;
    while at < start {
        // SAFETY: between the two symbols lies RAM that belongs to the stack, in words.
        if unsafe { ptr::with_exposed_provenance::<u32>(at).read_volatile() } != STACK_PAINT_VALUE {
            break;
        }
        at += size_of::<u32>();
    }
    u32::try_from(start - at).unwrap_or(u32::MAX)
}

/// What the linker left for the stack, in bytes.
#[must_use]
pub fn room() -> u32 {
    let (end, start) = bounds();
    u32::try_from(start - end).unwrap_or(u32::MAX)
}

fn bounds() -> (usize, usize) {
    // The linker's symbols are places, not values: only their addresses mean anything.
    let end = (&raw const __sheap).expose_provenance();
    let start = (&raw const _stack_start).expose_provenance();
    (end, start)
}
