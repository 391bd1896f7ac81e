//! Updates of several components: files, sessions with a board played by hand, real agents.

mod agents;
mod files;
mod sessions;
#[path = "../support/mod.rs"]
mod support;
