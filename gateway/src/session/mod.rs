//! The boards' sessions: accept, shake hands, greet, deliver (spec/protocol.md sections 1 to 5 and 8).
//!
//! An idle session is a value in the parking: a [`dialhome_proto::gateway::Session`] and
//! its socket. A task, buffers, and the delivery with its image exist while there is work.

mod accept_faults;
mod board;
mod buffers;
mod delivering;
mod inquiries;
mod lanes;
mod limits;
mod listener;
mod parking;
mod place;
mod quic;
mod rates;
mod registry;
mod run;
mod socket;
mod statements;
mod texts;
mod turns;
mod unreadable;

pub use inquiries::{Checked, Inquiry, Logged, NotAsked};
pub use limits::Limits;
pub use listener::{Listeners, bind, serve};
pub use quic::bind_quic;
pub use registry::Registry;

use crate::image::store::ImageStore;
use crate::link::Responder;
use crate::store::Store;
use dialhome_proto::time::Millis;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// Connections that have not said Hello, at a time; one more is refused as `busy`. Each holds some 3 KB.
pub const HANDSHAKES_MAX: usize = 2_048;
/// The same from one /24 or /48: a carrier's network is thousands of boards, and
/// none may take all the places.
pub const HANDSHAKES_OF_NETWORK_MAX: usize = 512;
/// Time that a peer may owe bytes before its place goes to another that wants it, in milliseconds.
pub const SILENT_GRACE_MS: u64 = 5_000;
/// What a board that was refused for another reason than `busy` is told to wait, in seconds: a
/// number drawn from these, so that those who were refused together do not come back together.
pub const RETRY_AFTER_S: std::ops::RangeInclusive<u16> = 15..=75;
/// Handshakes of one device within a minute that are answered at once; more wait a second each.
pub const HANDSHAKES_PER_MINUTE: u32 = 12;
/// Boards that are told to come back in a second, when the gateway stops and closes all sessions:
/// a twentieth of what one core takes, so that they find a gateway that has time for them.
pub const RECONNECTS_PER_S: u64 = 500;
/// Time until the first of them comes back, in seconds: a restart takes about that long.
pub const RECONNECT_FIRST_S: u32 = 2;
/// Time for all sessions to be closed when the gateway stops, in milliseconds.
pub const STOP_MS: u64 = 30_000;
/// Sealed bytes that wait to be written, per session that delivers, in bytes.
pub const BATCH_MAX: usize = 128 * 1024;
/// Time that a session's written bytes may stand still before it counts as lost, in milliseconds.
pub const STALLED_MS: u64 = 5 * 60 * 1000;
/// Time for a Close to leave, in milliseconds.
pub const CLOSE_MS: u64 = 5_000;
/// Turns that a session takes in a row before it lets others run.
const TURNS_MAX: usize = 16;

/// What every session shares.
#[derive(Debug)]
pub struct Gateway {
    /// The records.
    pub store: Store,
    /// The images' bytes.
    pub images: Arc<ImageStore>,
    /// The open sessions.
    pub registry: Arc<Registry>,
    responder: Responder,
    lanes: lanes::Lanes,
    buffers: buffers::Buffers,
}

impl Gateway {
    /// Brings the parts together; delivery has its usual limits.
    ///
    /// # Errors
    /// As [`Self::with_limits`].
    pub fn new(store: Store, images: Arc<ImageStore>) -> io::Result<Arc<Self>> {
        Self::with_limits(store, images, Limits::default())
    }

    /// The same with these limits on delivery. Starts the threads that sessions run on, which end
    /// when this is dropped.
    ///
    /// # Errors
    /// Of the system: no file is left to open, or no thread to start.
    pub fn with_limits(
        store: Store,
        images: Arc<ImageStore>,
        limits: Limits,
    ) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            store,
            images,
            registry: Arc::new(Registry::new(limits)),
            responder: Responder::default(),
            lanes: lanes::Lanes::start()?,
            buffers: buffers::Buffers::default(),
        }))
    }
}

/// Milliseconds since this process first asked.
fn clock() -> Millis {
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed().as_millis();
    Millis(u64::try_from(elapsed).unwrap_or(u64::MAX))
}
