//! What the kernel says of a process, and what many values say together.

pub mod clock;
pub mod process;
pub mod stats;
