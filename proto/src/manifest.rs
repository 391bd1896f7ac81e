//! manifest (in work).
