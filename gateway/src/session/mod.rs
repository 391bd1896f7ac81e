//! The boards' sessions: accept, shake hands, greet, deliver (spec/protocol.md sections 1 to 5 and 8).
//!
//! An idle session is a value in the parking: a [`dialhome_proto::gateway::Session`] and
//! its socket. A task, buffers, and the delivery with its image exist while there is work.

mod board;
mod delivering;
mod listener;
mod parking;
mod place;
mod registry;
mod run;
mod statements;

pub use listener::{bind, serve};
pub use registry::Registry;

use crate::image::store::ImageStore;
use crate::link::Responder;
use crate::store::Store;
use dialhome_proto::time::Millis;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// Handshakes under way at a time; one more is refused as `busy`. Each holds some 3 KB.
pub const HANDSHAKES_MAX: usize = 2_048;
/// Handshakes under way from one /24 or /48: a carrier's network is thousands of boards, and
/// none may take all the places.
pub const HANDSHAKES_OF_NETWORK_MAX: u32 = 512;
/// Handshakes of one device within a minute that are answered at once; more wait a second each.
pub const HANDSHAKES_PER_MINUTE: u32 = 12;
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
    parking: parking::Parking,
}

impl Gateway {
    /// Brings the parts together.
    #[must_use]
    pub fn new(store: Store, images: Arc<ImageStore>) -> Arc<Self> {
        Arc::new(Self {
            store,
            images,
            registry: Arc::default(),
            responder: Responder::default(),
            parking: parking::Parking::default(),
        })
    }
}

/// Milliseconds since this process first asked.
fn clock() -> Millis {
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed().as_millis();
    Millis(u64::try_from(elapsed).unwrap_or(u64::MAX))
}
