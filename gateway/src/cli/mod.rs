//! The `dialhome` command line: a client of the admin API, and nothing else.

pub mod error;
pub mod key;
pub mod sign;
