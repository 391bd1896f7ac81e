//! demo (in work).
