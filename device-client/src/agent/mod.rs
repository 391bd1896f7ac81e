//! `dialhome-agent`: the client on Linux, with files for slots and journal.

pub mod boot_linux;
pub mod command;
pub mod component;
pub mod config;
mod durable;
pub mod journal_file;
pub mod launcher;
pub mod log_ring;
#[cfg(feature = "quic")]
mod networks;
#[cfg(all(test, feature = "quic"))]
mod quic_gateway;
#[cfg(feature = "quic")]
mod quic_link;
#[cfg(feature = "quic")]
mod quic_pins;
pub mod rng_system;
pub mod run;
pub mod signals;
pub mod slot_file;
pub mod state;
mod switch;
mod texts;
#[cfg(feature = "quic")]
pub mod transport_quic;
pub mod transport_tcp;
#[cfg(feature = "quic")]
pub mod way;
