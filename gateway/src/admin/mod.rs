//! The admin API: HTTP/1.1 and JSON on a Unix socket.

mod live;

pub use live::{Live, LiveCounts, NoSessions, Presence};
