//! admin (in work).
