//! An emulated AVR microcontroller whose bootloader speaks STK500 version 1, as Optiboot and
//! the older Arduino bootloaders do: what `avrdude -c arduino` programs.
//!
//! [`Board`] is the microcontroller without clock and line; [`Program`] gives it both: a
//! pseudo-terminal that the real avrdude opens, and a file that holds the flash.
//!
//! A pseudo-terminal has no DTR: that somebody opens it is the reset.

#![forbid(unsafe_code)]

mod board;
mod command;
mod fault;
mod flash;
mod part;
mod port;
mod program;

pub use board::{Board, Counts, State};
pub use fault::{Faults, Order};
pub use part::Part;
pub use program::{Options, Program};
