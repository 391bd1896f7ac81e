//! `dialhome-agent`: the client on Linux, with files for slots and journal.

pub mod boot_linux;
pub mod command;
pub mod component;
pub mod config;
mod durable;
pub mod journal_file;
pub mod launcher;
pub mod log_ring;
pub mod rng_system;
pub mod run;
pub mod signals;
pub mod slot_file;
pub mod state;
mod switch;
mod texts;
pub mod transport_tcp;
