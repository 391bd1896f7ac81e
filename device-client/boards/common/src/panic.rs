//! A panic or a fault says where, and resets the board.

use crate::{console, reset};
use core::panic::PanicInfo;
use cortex_m_rt::{ExceptionFrame, exception};

#[panic_handler]
fn panicked(info: &PanicInfo<'_>) -> ! {
    console::text("panic at ");
    match info.location() {
        Some(place) => console::number(place.file(), place.line()),
        None => console::line("an unknown place"),
    }
    reset::after_panic()
}

#[exception]
// SAFETY: the handler does not return; it uses nothing but the console and the reset.
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    console::number("fault at address", frame.pc());
    reset::after_panic()
}
