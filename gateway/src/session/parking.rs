//! Where idle sessions wait: as values, without a task, a timer or a buffer.
//!
//! A parked session has left a waker with its socket and with its handle. Whoever
//! wakes it names it to the one attendant, which gives it a task again; the attendant
//! also looks every second for sessions whose deadline has come. A wake that falls
//! into the moment of parking is not lost: `named` is set before it is looked at.

use super::run::Running;
use super::{Gateway, clock};
use dashmap::DashMap;
use dialhome_proto::time::Millis;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::task::TaskTracker;

/// How often the attendant looks for deadlines: none of an idle session is finer.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Parked sessions, by generation.
pub(super) struct Parking {
    parked: DashMap<u64, Parked>,
    due: Mutex<BTreeSet<(Millis, u64)>>,
    /// Generations that were woken; each stands here once at most (`Handle::named`).
    named: UnboundedSender<u64>,
    attendant: Mutex<Option<UnboundedReceiver<u64>>>,
}

struct Parked {
    session: Box<Running>,
    due: Millis,
}

impl Default for Parking {
    fn default() -> Self {
        let (named, attendant) = unbounded_channel();
        Self {
            parked: DashMap::new(),
            due: Mutex::default(),
            named,
            attendant: Mutex::new(Some(attendant)),
        }
    }
}

impl std::fmt::Debug for Parking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Parking({} sessions)", self.parked.len())
    }
}

impl Parking {
    /// Where wakers name sessions.
    pub(super) fn names(&self) -> UnboundedSender<u64> {
        self.named.clone()
    }

    /// Parks a session, or gives it back where something has come for it meanwhile.
    pub(super) fn park(&self, session: Running) -> Option<Running> {
        let handle = Arc::clone(&session.handle);
        handle.forget_name();
        if session.leave_waker() {
            return Some(session);
        }
        let due = session.deadline();
        self.deadlines().insert((due, handle.generation));
        let session = Box::new(session);
        self.parked
            .insert(handle.generation, Parked { session, due });
        if handle.is_named() {
            // The attendant may have looked before the session was here.
            let _ = self.named.send(handle.generation);
        }
        None
    }

    fn deadlines(&self) -> std::sync::MutexGuard<'_, BTreeSet<(Millis, u64)>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unpark(&self, generation: u64) -> Option<Running> {
        let (_, parked) = self.parked.remove(&generation)?;
        self.deadlines().remove(&(parked.due, generation));
        Some(*parked.session)
    }

    /// The first session whose deadline has come.
    fn overdue(&self) -> Option<u64> {
        let deadlines = self.deadlines();
        let (due, generation) = deadlines.first()?;
        (*due <= clock()).then_some(*generation)
    }
}

/// Gives woken sessions a task, as long as it is polled.
pub(super) async fn attend(gateway: Arc<Gateway>, tasks: TaskTracker) {
    let parking = &gateway.parking;
    let taken = parking
        .attendant
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let Some(mut named) = taken else { return };
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            generation = named.recv() => {
                let Some(generation) = generation else { return };
                if let Some(session) = parking.unpark(generation) {
                    tasks.spawn(session.run());
                }
            }
            _ = look.tick() => {
                gateway.registry.turns.look(clock());
                while let Some(generation) = parking.overdue() {
                    match parking.unpark(generation) {
                        Some(session) => drop(tasks.spawn(session.run())),
                        // It is on its way in or out: its entry goes with it.
                        None => break,
                    }
                }
            }
        }
    }
}
