//! Power cuts at every operation of a board's flash: the real client, slot, journal, boot
//! side and boot stage, against the gateway's machines, on flash and cards that tear.
//!
//! What is exhaustive is always run whole. `CUTS=N` makes the samples N times as large.
//! A failing cut prints the flash, the image and the operation: the runs are deterministic.

mod bad_flash;
mod card;
mod journal;
mod sample;
mod shapes;
mod sweep;
