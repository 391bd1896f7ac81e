//! window (in work).
