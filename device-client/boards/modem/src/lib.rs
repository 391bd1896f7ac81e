//! An emulator of a u-blox SARA modem: a serial line on one side, TCP on the other, and
//! everything that goes wrong with modems in between.
//!
//! [`Modem`] is the modem without clock and sockets, for tests in virtual time;
//! [`Program`] gives it both, for boards in QEMU (`-serial tcp:HOST:PORT,nodelay=on`).

mod answer;
mod command;
mod fault;
mod modem;
mod network;
mod pace;
mod program;
mod socket;
mod trouble;

pub use fault::{Counts, Faults, Kind, Order};
pub use modem::{
    Config, ERROR_REFUSED, ERROR_TIMED_OUT, Event, Modem, PIECE_MAX, Request, SOCKETS,
};
pub use pace::byte_time;
pub use program::{Options, Program};
pub use socket::Key;
