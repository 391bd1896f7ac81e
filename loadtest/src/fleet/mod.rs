//! Fleets: thousands of clients, each the real one of `dialhome_device`, in a few processes.
//!
//! The process that plays a scenario starts *crews*: `dialhome-loadtest crew`, each with some
//! thousands of boards, because a process may have 20,000 open files. It writes lines of
//! JSON to a crew's standard input and reads lines of JSON from its standard output
//! ([`words`]).
//!
//! A board is one task (`board`): the client over a socket (`wire`), with a link's model
//! before it (`link`), and over a slot, a journal and a boot loader in memory (`flash`),
//! which hold no image of their own.

mod board;
pub mod crew;
mod exchange;
mod flash;
mod gang;
mod link;
#[cfg(test)]
mod link_tests;
mod presets;
mod tally;
mod wire;
pub mod words;
