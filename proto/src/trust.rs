//! trust (in work).
