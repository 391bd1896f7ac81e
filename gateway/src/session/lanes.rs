//! The threads that sessions run on, a lane for each core.
//!
//! A session stays in its lane for life, the handshake included: neither its keys nor the bytes
//! that it seals wander from core to core, and waking it costs no other thread anything. The
//! number of its socket says which lane that is, so lanes are equally long.

use super::parking::Parking;
use std::io;
use std::thread;
use tokio::runtime::{Builder, Handle};
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Threads of one lane that read images from the disk, most.
const READERS: usize = 16;
/// Tasks that run between two looks at the sockets. A task of a transfer seals up to a batch, a
/// handshake is an agreement of keys: a push must not wait for many of these.
const TASKS_BETWEEN_LOOKS: u32 = 8;

/// One thread with its sessions.
pub(super) struct Lane {
    pub(super) runtime: Handle,
    pub(super) parking: Parking,
    /// Taken while a handshake's cryptography is done: those that wait for it are not in the way
    /// of sessions that have something to do.
    pub(super) cryptography: Semaphore,
}

/// All of them; the threads end when this is dropped.
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    _end: DropGuard,
}

impl std::fmt::Debug for Lanes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.lanes.iter().map(|lane| &lane.parking))
            .finish()
    }
}

impl Lanes {
    /// Starts a lane for each core that this process may use.
    ///
    /// # Errors
    /// Of the system: no thread or no file is left.
    pub(super) fn start() -> io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let end = CancellationToken::new();
        let lane = |number| {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .event_interval(TASKS_BETWEEN_LOOKS)
                .max_blocking_threads(READERS)
                .build()?;
            let lane = Lane {
                runtime: runtime.handle().clone(),
                parking: {
                    let _within = runtime.enter();
                    Parking::new(count)?
                },
                cryptography: Semaphore::new(1),
            };
            let ended = end.clone().cancelled_owned();
            thread::Builder::new()
                .name(format!("boards-{number}"))
                .spawn(move || runtime.block_on(ended))?;
            Ok(lane)
        };
        Ok(Self {
            lanes: (0..count).map(lane).collect::<io::Result<_>>()?,
            _end: end.drop_guard(),
        })
    }

    /// The lane of the session whose socket has this number.
    pub(super) fn of(&self, socket: u32) -> &Lane {
        &self.lanes[socket as usize % self.lanes.len()]
    }

    /// Every lane.
    pub(super) fn all(&self) -> &[Lane] {
        &self.lanes
    }
}
