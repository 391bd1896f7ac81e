//! The Dialhome protocol without any I/O: frames, records, manifests, and both
//! state machines. No allocation, no clock, no socket, no random source: bytes,
//! commands and the time go in; bytes, events and the next deadline come out.
//!
//! `spec/` is the normative text; every item names the section it implements.
#![no_std]
#![forbid(unsafe_code)]

pub mod code;
pub mod crc;
pub mod device;
pub mod frame;
pub mod gateway;
pub mod hash;
pub mod id;
pub mod limits;
pub mod link;
pub mod manifest;
pub mod provision;
pub mod statement;
mod stored;
pub mod time;
pub mod trust;
mod wire;

pub use wire::{Texts, clipped};
