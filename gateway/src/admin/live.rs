//! What the admin API asks the session registry: presence is volatile and never stored.

use jiff::Timestamp;

/// Whether and how a device is connected now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    /// A session is open.
    pub online: bool,
    /// `online`, `asleep`, `silent` or `offline`; empty means `offline`.
    pub state: &'static str,
    /// Since when.
    pub since: Option<Timestamp>,
    /// `tcp` or `quic`.
    pub transport: Option<&'static str>,
    /// The board's address.
    pub peer: Option<String>,
    /// The network's name.
    pub network: Option<String>,
    /// What the session waits for, in one plain sentence.
    pub waiting_for: Option<String>,
}

/// Counts of what is going on now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveCounts {
    /// Open sessions.
    pub sessions: u64,
    /// Deliveries under way.
    pub transfers: u64,
    /// Handshakes under way.
    pub handshakes: u64,
    /// Handshakes refused since the start.
    pub refused: u64,
}

/// The registry of sessions, as the admin API sees it.
pub trait Live: Send + Sync + 'static {
    /// How the device is connected.
    fn presence(&self, device: &str) -> Presence;
    /// Counts over all devices.
    fn counts(&self) -> LiveCounts;
    /// Ends the device's session with this close code.
    fn close(&self, device: &str, code: dialhome_proto::code::CloseCode);
    /// Ends every session: the store was replaced by a backup.
    fn close_all(&self, code: dialhome_proto::code::CloseCode);
}

/// A registry without sessions.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSessions;

impl Live for NoSessions {
    fn presence(&self, _: &str) -> Presence {
        Presence {
            state: "offline",
            ..Presence::default()
        }
    }

    fn counts(&self) -> LiveCounts {
        LiveCounts::default()
    }

    fn close(&self, _: &str, _: dialhome_proto::code::CloseCode) {}

    fn close_all(&self, _: dialhome_proto::code::CloseCode) {}
}
