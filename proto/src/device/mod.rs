//! device (in work).
