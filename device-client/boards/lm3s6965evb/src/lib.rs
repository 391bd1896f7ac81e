//! Written later in this change.
#![no_std]
