//! Fleets: thousands of clients, each the real one of `dialhome_device`, in a few processes.
//!
//! The process that plays a scenario starts *crews*: `dialhome-loadtest crew`, each with some
//! thousands of boards, because a process may have 20,000 open files. It writes lines of
//! JSON to a crew's standard input and reads lines of JSON from its standard output
//! ([`words`]).

pub mod crew;
pub mod words;
