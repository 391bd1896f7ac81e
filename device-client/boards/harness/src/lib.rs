//! Runs the boards' firmware in QEMU against a real gateway: what `make board-test` stands on.
//!
//! [`firmware`] builds the images and makes variants of them, [`qemu`] runs a machine,
//! [`site`] is the gateway with its operator, and each board has a module for what is
//! its own.

pub mod card;
pub mod error;
pub mod firmware;
pub mod gdb;
pub mod lm3s;
pub mod microbit;
pub mod qemu;
pub mod sdu;
pub mod site;

pub use error::Error;
