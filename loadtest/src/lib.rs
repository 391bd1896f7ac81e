//! Simulated boards and hostile links for Dialhome: the real machines of both ends on a virtual clock.
#![forbid(unsafe_code)]

pub mod sim;
