//! The board's client and the gateway's machines against each other on a virtual clock:
//! faults one at a time everywhere, many at once by seed, and each promise by itself.

mod common;
mod promises;
mod seeds;
mod several;

mod single_faults;
