//! Paint below the stack, and what is left of it afterwards.

use core::ptr;

unsafe extern "C" {
    /// The end of static memory, where the stack may grow to.
    static __sheap: u32;
}

const PAINT: u32 = 0xC0DE_57AC;
/// Bytes below the stack pointer that this file's own functions need.
const OWN: usize = 96;

fn end() -> usize {
    // A place, not a value: only its address means anything.
    (&raw const __sheap).expose_provenance()
}

fn stack_pointer() -> usize {
    usize::try_from(cortex_m::register::msp::read()).unwrap_or(0)
}

/// Runs `work`, and counts the bytes that it used below this call.
#[inline(never)]
pub(crate) fn measure<T>(work: impl FnOnce() -> T) -> (T, u32) {
    let top = stack_pointer();
    paint(top - OWN);
    let result = work();
    (result, deepest(top))
}

#[inline(never)]
fn paint(from: usize) {
    let mut at = end();
    while at < from {
        // SAFETY: below the stack pointer and above static memory: nobody's RAM, in words.
        unsafe { ptr::with_exposed_provenance_mut::<u32>(at).write_volatile(PAINT) };
        at += size_of::<u32>();
    }
}

#[inline(never)]
fn deepest(top: usize) -> u32 {
    let mut at = end();
    // SAFETY: as above.
    while at < top && unsafe { ptr::with_exposed_provenance::<u32>(at).read_volatile() } == PAINT {
        at += size_of::<u32>();
    }
    u32::try_from(top - at).unwrap_or(u32::MAX)
}
