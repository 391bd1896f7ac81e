//! Linux boards: children, an agent that updates itself, what goes wrong on them.

mod avrdude;
mod bad_input;
mod children;
mod over_quic;
mod self_update;
#[path = "../support/mod.rs"]
mod support;
