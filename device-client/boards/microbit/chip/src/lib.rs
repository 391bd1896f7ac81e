//! The nRF51822 as the bootloader and the firmware see it (nRF51 Series Reference
//! Manual 3.0). Registers are touched in `register.rs` and nowhere else.
#![no_std]

pub mod clock;
pub mod flash;
pub mod layout;
pub mod map;
pub mod noise;
mod register;
pub mod uart;
pub mod watchdog;
