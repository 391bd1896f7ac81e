//! statement (in work).
