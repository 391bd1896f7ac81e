//! The Dialhome gateway: it holds the boards' sessions, delivers signed images through them, and keeps the record.
#![forbid(unsafe_code)]

pub mod admin;
pub mod cli;
pub mod demo;
pub mod image;
pub mod link;
pub mod serve;
pub mod session;
pub mod store;
