//! image (in work).
