//! gateway (in work).
