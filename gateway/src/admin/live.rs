//! What the admin API asks the session registry: presence is volatile and never stored.

use crate::session::{Inquiry, Limits, NotAsked};
use crate::store::docs::QuicTrafficDoc;
use jiff::Timestamp;
use std::time::Duration;

/// Whether and how a device is connected now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    /// A session is open.
    pub online: bool,
    /// `online`, `asleep`, `silent` or `offline`; empty means `offline`.
    pub state: &'static str,
    /// Since when.
    pub since: Option<Timestamp>,
    /// When the board was heard last.
    pub heard: Option<Timestamp>,
    /// `tcp` or `quic`.
    pub transport: Option<&'static str>,
    /// The board's address.
    pub peer: Option<String>,
    /// Over QUIC: what was lost, and how often the address changed.
    pub quic: Option<QuicTrafficDoc>,
    /// The network's name.
    pub network: Option<String>,
    /// What the session waits for, in one plain sentence.
    pub waiting_for: Option<String>,
    /// When a board that sleeps has said to be back.
    pub back_in: Option<Duration>,
}

/// Why a connection got no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedFor {
    /// All places for handshakes were taken.
    Busy,
    /// All that one network may have were taken.
    NetworkBusy,
    /// It owed its first bytes for too long, or went when others wanted its place.
    Silent,
    /// What it sent was no handshake, or it ended within it.
    NoHandshake,
    /// It asked for another version.
    Version,
    /// It asked for another suite.
    Suite,
    /// An unknown handle, a wrong key, or a replay.
    Key,
}

impl RefusedFor {
    /// Every reason; each stands at its own number.
    pub const ALL: [Self; 7] = [
        Self::Busy,
        Self::NetworkBusy,
        Self::Silent,
        Self::NoHandshake,
        Self::Version,
        Self::Suite,
        Self::Key,
    ];

    /// The word for it in metrics and documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::NetworkBusy => "network_busy",
            Self::Silent => "silent",
            Self::NoHandshake => "no_handshake",
            Self::Version => "version",
            Self::Suite => "suite",
            Self::Key => "key",
        }
    }
}

/// Counts of what is going on now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveCounts {
    /// Open sessions.
    pub sessions: u64,
    /// Deliveries under way.
    pub transfers: u64,
    /// Handshakes under way.
    pub handshakes: u64,
    /// Connections that got no session since the start, by reason.
    pub refused: [(RefusedFor, u64); RefusedFor::ALL.len()],
    /// Times since the start that the system gave no connection.
    pub accept_faults: u64,
    /// Why it gives none now, in one plain sentence.
    pub accept_problem: Option<String>,
    /// Updates that wait for an image that cannot be read, in one plain sentence.
    pub images_problem: Option<String>,
    /// Transfers that run and wait.
    pub turns: TurnCounts,
    /// How much is delivered at a time.
    pub limits: Limits,
    /// QUIC.
    pub quic: QuicCounts,
}

/// Counts of QUIC: what is open now, and sums since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuicCounts {
    /// Open sessions.
    pub sessions: u64,
    /// Open connections: sessions, handshakes and what is being closed.
    pub connections: u64,
    /// Packets lost.
    pub lost_packets: u64,
    /// Their bytes.
    pub lost_bytes: u64,
    /// Times that a session went on from another address.
    pub address_changes: u64,
    /// Connections that had to prove their address first.
    pub retries: u64,
}

/// Transfers by what they do now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TurnCounts {
    /// They have a place.
    pub running: u64,
    /// Of these: so slow that another runs in their place meanwhile.
    pub lent: u64,
    /// Updates of boards that are online, waiting for a place.
    pub waiting: u64,
    /// Of those that run: waiting for their share of a rate.
    pub throttled: u64,
}

impl Default for LiveCounts {
    fn default() -> Self {
        Self {
            sessions: 0,
            transfers: 0,
            handshakes: 0,
            refused: RefusedFor::ALL.map(|reason| (reason, 0)),
            accept_faults: 0,
            accept_problem: None,
            images_problem: None,
            turns: TurnCounts::default(),
            limits: Limits::default(),
            quic: QuicCounts::default(),
        }
    }
}

/// The registry of sessions, as the admin API sees it.
pub trait Live: Send + Sync + 'static {
    /// How the device is connected.
    fn presence(&self, device: &str) -> Presence;
    /// Counts over all devices.
    fn counts(&self) -> LiveCounts;
    /// Begins a connectivity check of the device.
    ///
    /// # Errors
    /// It has no session, or is being checked already.
    fn check(&self, device: &str) -> Result<Inquiry, NotAsked>;
    /// Begins to ask the device for its log.
    ///
    /// # Errors
    /// It has no session, or is being asked already.
    fn read_log(&self, device: &str) -> Result<Inquiry, NotAsked>;
    /// An image was added: sessions that wait for one look again.
    fn images_changed(&self);
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

    fn check(&self, _: &str) -> Result<Inquiry, NotAsked> {
        Err(NotAsked::NotOnline)
    }

    fn read_log(&self, _: &str) -> Result<Inquiry, NotAsked> {
        Err(NotAsked::NotOnline)
    }

    fn images_changed(&self) {}

    fn close(&self, _: &str, _: dialhome_proto::code::CloseCode) {}

    fn close_all(&self, _: dialhome_proto::code::CloseCode) {}
}
