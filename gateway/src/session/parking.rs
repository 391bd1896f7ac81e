//! Where idle sessions wait: as values, without a task, a timer or a buffer, and with
//! sockets that the runtime does not know.
//!
//! Each lane has a parking, with an epoll of its own for their sockets, and each has left its handle
//! as the waker with itself. The one attendant gives a task again to whoever has bytes,
//! is named by its handle, or has a deadline that has come, at which it looks every
//! second. A wake that falls into the moment of parking is not lost: `named` is set
//! before it is looked at.

use super::lanes::Lane;
use super::run::Running;
use super::{Gateway, clock};
use dialhome_proto::time::Millis;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::task::TaskTracker;

/// How often the attendant looks for deadlines: none of an idle session is finer.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Sockets that are taken from the epoll at a time.
const ARRIVALS: usize = 256;

/// Who is to be given a task: the number of its socket, and its generation.
pub(super) type Name = (u32, u64);

/// Parked sessions.
pub(super) struct Parking {
    lanes: usize,
    lot: Mutex<Lot>,
    /// Watches the sockets of parked sessions.
    arrivals: AsyncFd<OwnedFd>,
    /// Sessions that were woken; each stands here once at most (`Handle::named`).
    named: UnboundedSender<Name>,
    attendant: Mutex<Option<UnboundedReceiver<Name>>>,
}

#[derive(Default)]
struct Lot {
    /// By the numbers of their sockets, which the system gives out without gaps, divided by the
    /// number of lanes.
    places: Vec<Option<Box<Running>>>,
    /// When each must be looked at, in whole seconds, and the number of its socket.
    due: BTreeSet<(u32, u32)>,
}

impl std::fmt::Debug for Parking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Parking({} sessions)", self.lot().due.len())
    }
}

/// The second at which a deadline has passed for certain.
fn second(due: Millis) -> u32 {
    u32::try_from(due.0.div_ceil(1000)).unwrap_or(u32::MAX)
}

impl Parking {
    /// An empty one, of one of so many lanes. Must be called within the lane's runtime.
    ///
    /// # Errors
    /// Of the system: no file is left to open.
    pub(super) fn new(lanes: usize) -> io::Result<Self> {
        let (named, attendant) = unbounded_channel();
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        #[expect(
            deprecated,
            reason = "what takes its place is unsafe, for types that may change their file; this one cannot"
        )]
        let arrivals = AsyncFd::with_interest(epoll, Interest::READABLE)?;
        Ok(Self {
            lanes,
            lot: Mutex::default(),
            arrivals,
            named,
            attendant: Mutex::new(Some(attendant)),
        })
    }

    /// Where wakers name sessions.
    pub(super) fn names(&self) -> UnboundedSender<Name> {
        self.named.clone()
    }

    fn lot(&self) -> std::sync::MutexGuard<'_, Lot> {
        self.lot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Parks a session, or gives it back where something has come for it meanwhile.
    pub(super) fn park(&self, mut session: Running) -> Option<Running> {
        let handle = Arc::clone(&session.handle);
        handle.forget_name();
        let Some(number) = session.socket.number() else {
            return Some(session);
        };
        handle.stands_at(number);
        if session.leave_waker() {
            return Some(session);
        }
        session.socket.leave();
        let mut lot = self.lot();
        let watched = session.socket.file().is_some_and(|socket| {
            let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ONESHOT;
            let data = EventData::new_u64(number.into());
            epoll::add(self.arrivals.get_ref(), socket, data, flags).is_ok()
        });
        if !watched {
            // The system watches no more sockets: a session that hears nothing must not seem alive.
            session.socket.lose();
            return Some(session);
        }
        let at = number as usize / self.lanes;
        if lot.places.len() <= at {
            lot.places.resize_with(at + 1, || None);
        }
        lot.due.insert((second(session.deadline()), number));
        lot.places[at] = Some(Box::new(session));
        drop(lot);
        if handle.is_named() {
            // The attendant may have looked before the session was here.
            let _ = self.named.send((number, handle.generation));
        }
        None
    }

    /// Takes the session whose socket has this number, if it is the one that is meant.
    fn unpark(&self, number: u32, generation: Option<u64>) -> Option<Running> {
        let mut lot = self.lot();
        let place = lot.places.get_mut(number as usize / self.lanes)?;
        let session = place.take_if(|session| {
            generation.is_none_or(|generation| session.handle.generation == generation)
        })?;
        lot.due.remove(&(second(session.deadline()), number));
        drop(lot);
        if let Some(socket) = session.socket.file() {
            // It was added when it was parked; where it is gone, nothing is watched.
            let _ = epoll::delete(self.arrivals.get_ref(), socket);
        }
        Some(*session)
    }

    /// A session whose deadline has come.
    fn overdue(&self) -> Option<Running> {
        let (due, number) = *self.lot().due.first()?;
        if u64::from(due) * 1000 > clock().0 {
            return None;
        }
        self.unpark(number, None)
    }

    /// The numbers of sockets that have something to read, at most [`ARRIVALS`].
    fn arrived(&self) -> io::Result<Vec<u32>> {
        let mut events = Vec::with_capacity(ARRIVALS);
        let at_once = Timespec::default();
        let room = rustix::buffer::spare_capacity(&mut events);
        epoll::wait(self.arrivals.get_ref(), room, Some(&at_once))?;
        let number = |event: epoll::Event| u32::try_from(event.data.u64()).ok();
        Ok(events.into_iter().filter_map(number).collect())
    }
}

/// Gives woken sessions of a lane a task, as long as it is polled; must be polled in that lane.
pub(super) async fn attend(gateway: Arc<Gateway>, lane: usize, tasks: TaskTracker) {
    let Some(Lane { parking, .. }) = gateway.lanes.all().get(lane) else {
        return;
    };
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
            name = named.recv() => {
                let Some((number, generation)) = name else { return };
                if let Some(session) = parking.unpark(number, Some(generation)) {
                    tasks.spawn(session.run());
                }
            }
            ready = parking.arrivals.readable() => {
                let Ok(mut ready) = ready else { return };
                // Where a signal came between, it is asked again.
                let Ok(arrived) = parking.arrived() else { continue };
                if arrived.is_empty() {
                    ready.clear_ready();
                }
                for number in arrived {
                    if let Some(session) = parking.unpark(number, None) {
                        tasks.spawn(session.run());
                    }
                }
            }
            _ = look.tick() => {
                while let Some(session) = parking.overdue() {
                    tasks.spawn(session.run());
                }
            }
        }
    }
}
