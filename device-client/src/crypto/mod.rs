//! crypto (in work).
