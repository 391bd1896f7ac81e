//! Crews against a real gateway process.

mod crew;
mod gangs;
mod links;
mod updates;
