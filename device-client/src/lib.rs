//! The Dialhome client for boards: no_std and without allocation, over the traits
//! that a porter implements; and, with the feature `agent`, the same client on Linux.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "agent")]
extern crate std;

#[cfg(feature = "agent")]
pub mod agent;
pub mod boot;
pub mod client;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod crypto;
pub mod journal;
#[cfg(feature = "modem")]
pub mod modem;
pub mod nor;
pub mod provision;
mod random;
pub mod rng;
#[cfg(feature = "texts")]
mod saying;
#[cfg(feature = "sd")]
pub mod sd;
pub mod slot;
pub mod transport;

/// The excerpts of the README, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
