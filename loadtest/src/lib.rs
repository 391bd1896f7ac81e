//! Simulated boards for Dialhome, of two kinds: `sim` runs the machines of both ends on a
//! virtual clock, with power that fails; `fleet` runs thousands of clients against a real
//! gateway process, over links that are slow, stall and forget (the program
//! `dialhome-loadtest`).
#![forbid(unsafe_code)]

pub mod cli;
pub mod compare;
mod error;
pub mod fleet;
pub mod ip;
pub mod measure;
pub mod run;
pub mod sim;
pub mod site;

pub use error::Error;
