//! Which device has which session, and how to reach it.

use super::accept_faults::AcceptFaults;
use super::inquiries::{Inquiries, Inquiry, NotAsked, Topic};
use super::limits::Limits;
use super::parking::Name;
use super::place::Places;
use super::quic::stream::{Path, QuicTotals};
use super::rates::Rates;
use super::turns::Turns;
use super::unreadable::Unreadable;
use super::{RECONNECT_FIRST_S, RECONNECTS_PER_S, clock};
use crate::admin::{Live, LiveCounts, Presence, RefusedFor, TurnCounts};
use crate::store::DeviceId;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use dialhome_proto::code::CloseCode;
use dialhome_proto::limits::RECONNECT_S_MAX;
use jiff::Timestamp;
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;

/// Times of one device within an hour that another session took over, before it is
/// called a duplicate identity.
const TAKEOVERS_PER_HOUR: u32 = 3;
const TAKEOVER_PERIOD: Duration = Duration::from_secs(3600);

/// Seconds over which boards that were refused as `busy` come back, at least and at most.
const BUSY_SPREAD_S: (u32, u32) = (8, 600);

/// The way to a session's task.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) generation: u64,
    pub(super) peer: SocketAddr,
    pub(super) since: Timestamp,
    /// When the board was heard last, and the interval at which it must be, in milliseconds.
    heard: AtomicU64,
    ping_ms: AtomicU64,
    /// The session's task while it waits, or the handle itself while it is parked.
    waiting: Mutex<Option<Waker>>,
    /// Where a parked session is named when something has come for it, and where it stands.
    names: UnboundedSender<Name>,
    place: AtomicU32,
    named: AtomicBool,
    woken: AtomicBool,
    stirred: AtomicBool,
    /// An operator has a question for the board.
    asked: AtomicBool,
    close: AtomicU8,
    /// What a connection over QUIC met so far.
    pub(super) path: Option<Box<Path>>,
}

impl Handle {
    pub(super) fn new(generation: u64, peer: SocketAddr, names: UnboundedSender<Name>) -> Self {
        Self {
            generation,
            peer,
            since: crate::store::now(),
            heard: AtomicU64::new(clock().0),
            ping_ms: AtomicU64::new(u64::MAX),
            waiting: Mutex::new(None),
            names,
            place: AtomicU32::new(0),
            named: AtomicBool::new(false),
            woken: AtomicBool::new(false),
            stirred: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            close: AtomicU8::new(0),
            path: None,
        }
    }

    /// The same for a session over QUIC, whose board may change its address.
    pub(super) fn over_quic(mut self) -> Self {
        self.path = Some(Box::new(Path::new(self.peer)));
        self
    }

    /// `tcp` or `quic`.
    pub(super) const fn transport(&self) -> &'static str {
        if self.path.is_some() { "quic" } else { "tcp" }
    }

    /// Where the board is now.
    pub(super) fn peer_now(&self) -> SocketAddr {
        self.path.as_ref().map_or(self.peer, |path| path.now())
    }

    /// The board was heard, and will be again within its ping interval.
    pub(super) fn heard(&self, ping_s: u32) {
        self.heard.store(clock().0, Ordering::Relaxed);
        self.ping_ms
            .store(u64::from(ping_s) * 1000, Ordering::Relaxed);
    }

    /// When the board was heard last.
    fn heard_at(&self) -> Timestamp {
        let quiet = clock().0.saturating_sub(self.heard.load(Ordering::Relaxed));
        let quiet = jiff::SignedDuration::from_millis(i64::try_from(quiet).unwrap_or(i64::MAX));
        crate::store::now().checked_sub(quiet).unwrap_or(self.since)
    }

    /// Whether the board has missed its interval; the session ends when it misses half of another.
    fn is_silent(&self) -> bool {
        let quiet = clock().0.saturating_sub(self.heard.load(Ordering::Relaxed));
        quiet > self.ping_ms.load(Ordering::Relaxed)
    }

    /// Ready when something changed for the session; otherwise the task is woken later.
    pub(super) fn poll_changed(&self, context: &Context<'_>) -> Poll<()> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at under the lock: what changes after this finds the task in its place.
        if self.woken.load(Ordering::Acquire)
            || self.stirred.swap(false, Ordering::AcqRel)
            || self.asked.load(Ordering::Acquire)
            || self.close_asked().is_some()
        {
            return Poll::Ready(());
        }
        match &mut *waiting {
            Some(known) => known.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Where the session will stand once it is parked.
    pub(super) fn stands_at(&self, place: u32) {
        self.place.store(place, Ordering::Release);
    }

    /// From here on a wake names the session anew.
    pub(super) fn forget_name(&self) {
        self.named.store(false, Ordering::Release);
    }

    /// Whether the session was named since.
    pub(super) fn is_named(&self) -> bool {
        self.named.load(Ordering::Acquire)
    }

    /// Lets the waker go: a parked session's is the handle itself.
    pub(super) fn forget_waker(&self) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn notify(&self) {
        let waiting = self
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(task) = waiting {
            task.wake();
        }
    }

    /// Whether the device's work may have changed since the last call.
    pub(super) fn take_woken(&self) -> bool {
        self.woken.swap(false, Ordering::AcqRel)
    }

    /// The code that the session is to be closed with.
    pub(super) fn close_asked(&self) -> Option<CloseCode> {
        match self.close.load(Ordering::Acquire) {
            0 => None,
            code => Some(CloseCode(code)),
        }
    }

    pub(super) fn tell(&self) {
        self.woken.store(true, Ordering::Release);
        self.notify();
    }

    /// The session may go on with what it does; there is nothing new to look for.
    pub(super) fn stir(&self) {
        self.stirred.store(true, Ordering::Release);
        self.notify();
    }

    /// There is a question for the board among the inquiries.
    pub(super) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        self.notify();
    }

    /// Whether there may be a question since the last call.
    pub(super) fn take_asked(&self) -> bool {
        self.asked.swap(false, Ordering::AcqRel)
    }

    fn close(&self, code: CloseCode) {
        self.close.store(code.0, Ordering::Release);
        self.notify();
    }
}

impl Wake for Handle {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.named.swap(true, Ordering::AcqRel) {
            // The attendant is gone only when the gateway is.
            let place = self.place.load(Ordering::Acquire);
            let _ = self.names.send((place, self.generation));
        }
    }
}

/// A device that said when it comes back.
#[derive(Clone, Copy, Debug)]
struct Asleep {
    until: Instant,
}

/// The open sessions.
#[derive(Debug)]
pub struct Registry {
    pub(super) sessions: DashMap<DeviceId, Arc<Handle>>,
    /// What operators ask boards now.
    pub(super) inquiries: Arc<Inquiries>,
    asleep: DashMap<DeviceId, Asleep>,
    takeovers: DashMap<DeviceId, (Instant, u32)>,
    pub(super) places: Arc<Places>,
    refused: [AtomicU64; RefusedFor::ALL.len()],
    pub(super) accept_faults: AcceptFaults,
    /// Sessions whose update waits for an image that cannot be read.
    pub(super) unreadable: Unreadable,
    /// Which transfers run, and what they may send.
    pub(super) turns: Arc<Turns>,
    pub(super) rates: Arc<Rates>,
    pub(super) transfers: AtomicU64,
    pub(super) quic: QuicTotals,
    /// Seconds over which all boards come back, once all were told to.
    spread_s: AtomicU32,
    /// The gateway stops: a session that begins now ends at once.
    stopping: AtomicBool,
    /// Connections refused as `busy` within the running minute.
    crowd: Mutex<Option<(Instant, u64)>>,
}

impl Registry {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            sessions: DashMap::new(),
            inquiries: Arc::default(),
            asleep: DashMap::new(),
            takeovers: DashMap::new(),
            places: Arc::default(),
            refused: Default::default(),
            accept_faults: AcceptFaults::default(),
            unreadable: Unreadable::default(),
            turns: Arc::new(Turns::new(limits)),
            rates: Arc::new(Rates::new(&limits)),
            transfers: AtomicU64::new(0),
            quic: QuicTotals::default(),
            spread_s: AtomicU32::new(0),
            stopping: AtomicBool::new(false),
            crowd: Mutex::default(),
        }
    }

    /// Makes `handle` the device's session and closes the one that it replaces; true
    /// where that has happened so often that two boards must share the identity.
    pub(super) fn take_over(&self, device: &DeviceId, handle: &Arc<Handle>) -> bool {
        self.asleep.remove(device);
        let old = match self.sessions.entry(device.clone()) {
            Entry::Occupied(mut entry) => {
                if entry.get().generation > handle.generation {
                    handle.close(CloseCode::SUPERSEDED);
                    return false;
                }
                Some(entry.insert(Arc::clone(handle)))
            }
            Entry::Vacant(entry) => {
                entry.insert(Arc::clone(handle));
                None
            }
        };
        // Looked at when it is in the table: otherwise the stop has found it there.
        if self.stopping.load(Ordering::Acquire) {
            handle.close(CloseCode::STOPPING);
        }
        let Some(old) = old else { return false };
        old.close(CloseCode::SUPERSEDED);
        // A board that redials behind a new mapping takes over from itself: another address may be just that.
        count(&self.takeovers, device.clone(), TAKEOVER_PERIOD) > TAKEOVERS_PER_HOUR
    }

    /// Closes every session, and from here on those that begin.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.close_all(CloseCode::STOPPING);
    }

    /// Forgets the session, unless a newer one has its place.
    pub(super) fn leave(&self, device: &DeviceId, handle: &Handle, back_in_s: u32) {
        self.unreadable.forget(device, handle);
        let left = self
            .sessions
            .remove_if(device, |_, now| now.generation == handle.generation);
        if left.is_some() && back_in_s > 0 {
            let until = Instant::now() + Duration::from_secs(u64::from(back_in_s));
            self.asleep.insert(device.clone(), Asleep { until });
        }
    }

    /// When a board that is told to come back does so, in seconds: each at another time, so
    /// that they are [`RECONNECTS_PER_S`] in a second, with its own jitter on top.
    pub(super) fn back_after_s(&self) -> u32 {
        let spread = self.spread_s.load(Ordering::Relaxed);
        RECONNECT_FIRST_S + rand::random_range(0..=spread)
    }

    /// When one more that is refused as `busy` comes back, in seconds: all that were refused within the
    /// last minute do so over as long as the gateway takes for them, and a few within ten seconds.
    pub(super) fn busy_retry_s(&self) -> u16 {
        let now = Instant::now();
        let mut crowd = self.crowd.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, before) = crowd.unwrap_or((now, 0));
        let fresh = now.duration_since(since) < Duration::from_secs(60);
        let (since, count) = if fresh { (since, before + 1) } else { (now, 1) };
        *crowd = Some((since, count));
        drop(crowd);
        let spread = spread_s(count).clamp(BUSY_SPREAD_S.0, BUSY_SPREAD_S.1);
        let after = RECONNECT_FIRST_S + rand::random_range(0..=spread);
        u16::try_from(after).unwrap_or(u16::MAX)
    }

    /// Counts a connection that got no session.
    pub(super) fn count_refused(&self, reason: RefusedFor) {
        self.refused[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Forgets what is no longer of interest: takeovers that were long ago, and sleepers that
    /// should be back.
    pub(super) fn forget_old(&self) {
        let now = Instant::now();
        self.takeovers
            .retain(|_, (since, _)| now.duration_since(*since) <= TAKEOVER_PERIOD);
        self.asleep.retain(|_, asleep| asleep.until > now);
        if self.takeovers.is_empty() {
            self.takeovers.shrink_to_fit();
        }
        if self.asleep.is_empty() {
            self.asleep.shrink_to_fit();
        }
    }

    /// Tells sessions that their work may have changed: one device's, or all.
    pub fn wake_changed(&self, device: Option<&DeviceId>) {
        match device {
            Some(device) => {
                if let Some(handle) = self.sessions.get(device) {
                    handle.tell();
                }
            }
            None => self.sessions.iter().for_each(|handle| handle.tell()),
        }
    }

    /// Whether no session is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}

/// Seconds that so many boards take to come back.
fn spread_s(boards: u64) -> u32 {
    let spread = boards.div_ceil(RECONNECTS_PER_S);
    u32::try_from(spread).map_or(RECONNECT_S_MAX, |spread| spread.min(RECONNECT_S_MAX / 2))
}

/// Counts one more within the running period of the device, or whatever else it is.
pub(super) fn count<K: Eq + Hash>(
    counts: &DashMap<K, (Instant, u32)>,
    of: K,
    period: Duration,
) -> u32 {
    let now = Instant::now();
    let mut entry = counts.entry(of).or_insert((now, 0));
    if now.duration_since(entry.0) > period {
        *entry = (now, 0);
    }
    entry.1 = entry.1.saturating_add(1);
    entry.1
}

impl Live for Registry {
    fn presence(&self, device: &str) -> Presence {
        if let Some(handle) = self.sessions.get(device) {
            return Presence {
                online: true,
                state: if handle.is_silent() {
                    "silent"
                } else {
                    "online"
                },
                since: Some(handle.since),
                heard: Some(handle.heard_at()),
                transport: Some(handle.transport()),
                peer: Some(handle.peer_now().to_string()),
                quic: handle.path.as_ref().map(|path| path.doc()),
                waiting_for: self
                    .turns
                    .queued(handle.generation)
                    .map(|queued| {
                        crate::admin::waits_for_place(queued.before, queued.limit, queued.network)
                    })
                    .or_else(|| self.unreadable.sentence(device, &handle)),
                ..Presence::default()
            };
        }
        let now = Instant::now();
        let asleep = self.asleep.get(device).map(|asleep| asleep.until);
        let back_in = asleep.and_then(|until| until.checked_duration_since(now));
        Presence {
            state: if back_in.is_some() {
                "asleep"
            } else {
                "offline"
            },
            back_in,
            ..Presence::default()
        }
    }

    fn counts(&self) -> LiveCounts {
        let (running, lent, waiting) = self.turns.counts();
        let (handshakes, evicted) = self.places.counts();
        let mut refused = RefusedFor::ALL.map(|reason| {
            (
                reason,
                self.refused[reason as usize].load(Ordering::Relaxed),
            )
        });
        refused[RefusedFor::Silent as usize].1 += evicted;
        LiveCounts {
            sessions: self.sessions.len() as u64,
            transfers: self.transfers.load(Ordering::Relaxed),
            handshakes: handshakes as u64,
            refused,
            accept_faults: self.accept_faults.count(),
            accept_problem: self.accept_faults.problem(),
            images_problem: self.unreadable.problem(),
            turns: TurnCounts {
                running: running as u64,
                lent: lent as u64,
                waiting: waiting as u64,
                throttled: self.rates.waiting() as u64,
            },
            limits: *self.turns.limits(),
            quic: self.quic.counts(),
        }
    }

    fn check(&self, device: &str) -> Result<Inquiry, NotAsked> {
        self.inquire(device, Topic::Check)
    }

    fn read_log(&self, device: &str) -> Result<Inquiry, NotAsked> {
        self.inquire(device, Topic::Log)
    }

    fn images_changed(&self) {
        self.unreadable.wake();
    }

    fn close(&self, device: &str, code: CloseCode) {
        if let Some(handle) = self.sessions.get(device) {
            handle.close(code);
        }
    }

    fn close_all(&self, code: CloseCode) {
        let spread = spread_s(self.sessions.len() as u64);
        self.spread_s.store(spread, Ordering::Relaxed);
        self.sessions.iter().for_each(|handle| handle.close(code));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_refused_in_a_crowd_comes_back_over_a_time_that_grows_with_it() {
        let registry = Registry::new(Limits::default());
        let first: Vec<u16> = (0..100).map(|_| registry.busy_retry_s()).collect();
        assert!(
            first.iter().all(|after| (2..=10).contains(after)),
            "{first:?}"
        );
        let mut seen = [0; 42];
        for _ in 0..19_000 {
            seen[usize::from(registry.busy_retry_s())] += 1;
        }
        // Those who came first return sooner, but never all at once.
        assert!(seen.iter().all(|count| *count < 2_000), "{seen:?}");
        assert!(seen[30] > 0, "{seen:?}");
    }

    #[test]
    fn a_session_that_begins_while_the_gateway_stops_is_told_so() {
        let registry = Registry::new(Limits::default());
        let begin = |name: &str, generation| {
            let (names, _) = tokio::sync::mpsc::unbounded_channel();
            let peer = ([127, 0, 0, 1], 7040).into();
            let handle = Arc::new(Handle::new(generation, peer, names));
            registry.take_over(&DeviceId::stored(name), &handle);
            handle
        };
        let first = begin("first", 1);
        assert_eq!(first.close_asked(), None);
        registry.stop();
        let second = begin("second", 2);
        for handle in [&first, &second] {
            assert_eq!(handle.close_asked(), Some(CloseCode::STOPPING));
        }
    }

    #[test]
    fn all_boards_come_back_spread_over_the_time_that_the_gateway_needs_for_them() {
        assert_eq!(spread_s(0), 0);
        assert_eq!(spread_s(3), 1);
        assert_eq!(spread_s(19_000), 38);
        assert!(spread_s(u64::MAX) <= RECONNECT_S_MAX);
        let registry = Registry::new(Limits::default());
        assert_eq!(registry.back_after_s(), RECONNECT_FIRST_S);
        registry.spread_s.store(38, Ordering::Relaxed);
        let mut seen = [0; 41];
        for _ in 0..19_000 {
            seen[registry.back_after_s() as usize] += 1;
        }
        assert_eq!(seen[..2], [0, 0]);
        // 487 in each second on average, and none stands out.
        assert!(
            seen[2..].iter().all(|count| (300..700).contains(count)),
            "{seen:?}"
        );
    }
}
