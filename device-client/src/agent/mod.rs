//! agent (in work).
