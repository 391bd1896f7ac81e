//! store (in work).
