//! What the boards of this folder share: a console over semihosting, resets and what
//! is known of them afterwards, the constants of an image, and the use of the stack.
//!
//! Written for QEMU, where a debugger always listens. On real hardware `console` would
//! go to a UART; everything else is as it would be there.
#![no_std]

pub mod console;
pub mod constants;
pub mod reset;
pub mod stack;

#[cfg(feature = "panic-handler")]
mod panic;
