//! link (in work).
