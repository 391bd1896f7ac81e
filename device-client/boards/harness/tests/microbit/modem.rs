//! A modem that misbehaves in the middle of an update.
