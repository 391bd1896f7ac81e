//! frame (in work).
