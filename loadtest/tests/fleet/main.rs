//! Crews against a real gateway process.

mod crew;
mod links;
mod updates;
