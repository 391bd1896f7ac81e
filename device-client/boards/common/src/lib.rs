//! What every board of this folder shares.
#![no_std]
