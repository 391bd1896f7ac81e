//! session (in work).
