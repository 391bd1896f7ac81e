//! Places for connections that have not said Hello: a bound on all, and one on each network.
//!
//! A place is held from the accept to the Hello. While its peer owes bytes it may be taken
//! away again: otherwise whoever opens connections and says nothing would keep the others out.

use super::{HANDSHAKES_MAX, HANDSHAKES_OF_NETWORK_MAX, SILENT_GRACE_MS, clock};
use crate::admin::RefusedFor;
use dialhome_proto::time::Millis;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokio::task::AbortHandle;

/// The task that serves a connection, as soon as it is known.
type Task = Arc<OnceLock<AbortHandle>>;

/// All places.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    taken: usize,
    evicted: u64,
    /// No entry has 0 places taken.
    networks: HashMap<IpAddr, Network>,
}

/// Since when a peer owes bytes, and the number of its connection.
type Since = (Millis, u64);

/// Connections whose peers owe bytes, who is silent for longest first, their tasks, and whether each has an
/// open file of its own.
type Silent = BTreeMap<Since, (Task, bool)>;

#[derive(Debug, Default)]
struct Network {
    taken: usize,
    /// They owe their first flight.
    strangers: Silent,
    /// They have shown their key and owe Hello: a handshake was spent on them.
    shaken: Silent,
}

impl Network {
    /// The one that is silent for longest.
    fn oldest(&self) -> Option<Since> {
        [&self.strangers, &self.shaken]
            .into_iter()
            .filter_map(|silent| silent.first_key_value())
            .map(|(since, _)| *since)
            .min()
    }

    /// The same of those that have an open file.
    fn oldest_with_file(&self) -> Option<Since> {
        [&self.strangers, &self.shaken]
            .into_iter()
            .filter_map(|silent| silent.iter().find(|(_, (_, has_file))| *has_file))
            .map(|(since, _)| *since)
            .min()
    }

    /// Who goes for another: of the strangers the oldest, where that need not wait; otherwise
    /// the oldest of all, after [`SILENT_GRACE_MS`].
    fn yields(&self, now: Millis, at_once: bool) -> Option<Since> {
        let stranger = self.strangers.first_key_value().map(|(since, _)| *since);
        stranger.filter(|_| at_once).or_else(|| {
            let oldest = self.oldest()?;
            (now.since(oldest.0) >= SILENT_GRACE_MS).then_some(oldest)
        })
    }

    fn evict(&mut self, silent: Since) -> bool {
        let Some(task) = self.spoke(silent) else {
            return false;
        };
        // Its place is given back when the task goes. One that has no task yet gets none to end.
        if let Some(task) = task.get() {
            task.abort();
        }
        true
    }

    /// It owes nothing any more.
    fn spoke(&mut self, silent: Since) -> Option<Task> {
        let stranger = self.strangers.remove(&silent);
        let known = stranger.or_else(|| self.shaken.remove(&silent));
        known.map(|(task, _)| task)
    }
}

impl Places {
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection from `peer`, whose first bytes are awaited, and which has an open file of its
    /// own or shares the one of QUIC.
    ///
    /// Where none is free, a silent connection goes for it: the oldest of the same network,
    /// or of the one with most places, after [`SILENT_GRACE_MS`]. At once, before its first
    /// flight, where that network has more than twice the places that this one would have:
    /// in a storm of good boards all have about as many, and none is to go for another.
    ///
    /// # Errors
    /// Why the connection is to be refused.
    pub(super) fn take(
        self: &Arc<Self>,
        peer: IpAddr,
        has_file: bool,
    ) -> Result<Place, RefusedFor> {
        let network = network_of(peer);
        let now = clock();
        let mut inner = self.inner();
        let own = inner.networks.get_mut(&network);
        let share = own.as_ref().map_or(0, |own| own.taken);
        if share >= HANDSHAKES_OF_NETWORK_MAX {
            let freed = own.is_some_and(|own| {
                let goes = own.yields(now, false);
                goes.is_some_and(|silent| own.evict(silent))
            });
            if !freed {
                return Err(RefusedFor::NetworkBusy);
            }
            inner.evicted += 1;
        } else if inner.taken >= HANDSHAKES_MAX {
            let largest = inner
                .networks
                .values_mut()
                .filter_map(|other| {
                    let at_once = other.taken > 2 * (share + 1);
                    Some((other.yields(now, at_once)?, other))
                })
                .max_by_key(|(silent, other)| (other.taken, std::cmp::Reverse(*silent)));
            if !largest.is_some_and(|(silent, other)| other.evict(silent)) {
                return Err(RefusedFor::Busy);
            }
            inner.evicted += 1;
        }
        let id = inner.next;
        inner.next += 1;
        inner.taken += 1;
        let task = Task::default();
        let own = inner.networks.entry(network).or_default();
        own.taken += 1;
        let silent = (now, id);
        own.strangers.insert(silent, (Arc::clone(&task), has_file));
        drop(inner);
        Ok(Place {
            places: Arc::clone(self),
            network,
            silent,
            task,
            has_file,
        })
    }

    /// Places that are taken, and connections that were ended for others since the start.
    pub(super) fn counts(&self) -> (usize, u64) {
        let inner = self.inner();
        (inner.taken, inner.evicted)
    }

    /// Ends the connection with an open file that has been silent for longest: files are used up.
    pub(super) fn make_room(&self) -> bool {
        let mut inner = self.inner();
        let oldest = inner
            .networks
            .values_mut()
            .filter_map(|network| Some((network.oldest_with_file()?, network)))
            .min_by_key(|(oldest, _)| *oldest);
        let freed = oldest.is_some_and(|(silent, network)| network.evict(silent));
        inner.evicted += u64::from(freed);
        freed
    }

    /// Ends all connections that have been silent for so many milliseconds.
    pub(super) fn end_silent(&self, for_ms: u64) {
        let now = clock();
        let mut inner = self.inner();
        let mut ended = 0;
        for network in inner.networks.values_mut() {
            while let Some(silent) = network.oldest()
                && now.since(silent.0) >= for_ms
                && network.evict(silent)
            {
                ended += 1;
            }
        }
        inner.evicted += ended;
    }
}

/// A place, as long as it is kept.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    network: IpAddr,
    silent: Since,
    task: Task,
    has_file: bool,
}

impl Place {
    /// What names the task that has this place.
    pub(super) fn task(&self) -> Task {
        Arc::clone(&self.task)
    }

    /// The peer has said what it owed: the place is not taken away while that is looked at.
    /// False where it was taken away before: the task ends at its next wait, and must have
    /// nothing in a table by then.
    pub(super) fn spoke(&self) -> bool {
        let mut inner = self.places.inner();
        let own = inner.networks.get_mut(&self.network);
        own.is_some_and(|own| own.spoke(self.silent).is_some())
    }

    /// The peer owes bytes again: its Hello, to the task that `task` names, where one is named.
    pub(super) fn waits(&mut self, task: Option<Task>) {
        let is_shaken = task.is_some();
        if let Some(task) = task {
            self.task = task;
        }
        self.silent.0 = clock();
        let mut inner = self.places.inner();
        if let Some(own) = inner.networks.get_mut(&self.network) {
            let silent = if is_shaken {
                &mut own.shaken
            } else {
                &mut own.strangers
            };
            silent.insert(self.silent, (Arc::clone(&self.task), self.has_file));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.places.inner();
        inner.taken -= 1;
        if let Some(own) = inner.networks.get_mut(&self.network) {
            own.spoke(self.silent);
            own.taken -= 1;
            if own.taken == 0 {
                inner.networks.remove(&self.network);
            }
        }
    }
}

/// The /24 or /48 that an address belongs to.
pub(super) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            Ipv4Addr::new(a, b, c, 0).into()
        }
        IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(places: &Arc<Places>, from: &str) -> Result<Place, RefusedFor> {
        places.take(from.parse().unwrap(), true)
    }

    #[test]
    fn a_network_has_its_share_and_no_more_and_gives_it_back() {
        let places = Arc::<Places>::default();
        let held: Vec<_> = (0..HANDSHAKES_OF_NETWORK_MAX)
            .map(|_| take(&places, "192.0.2.7").expect("the share is not used up"))
            .collect();
        for same in ["192.0.2.200", "::ffff:192.0.2.1"] {
            assert_eq!(take(&places, same).err(), Some(RefusedFor::NetworkBusy));
        }
        assert!(take(&places, "192.0.3.7").is_ok(), "another network");
        drop(held);
        assert!(take(&places, "192.0.2.200").is_ok());
        assert_eq!(places.counts().0, 0);
        assert!(places.inner().networks.is_empty());
    }

    #[test]
    fn silent_ones_of_the_network_with_most_places_make_room_for_a_smaller_one() {
        let places = Arc::<Places>::default();
        let mut held: Vec<_> = (0..HANDSHAKES_MAX)
            .map(|n| take(&places, &format!("192.0.{}.7", n % 4)).expect("a place"))
            .collect();
        // Each network has as many: none takes from another before its time.
        assert!(take(&places, "192.0.0.7").is_err());
        assert!(take(&places, "198.51.100.7").is_ok());
        // Those that have spoken stay.
        assert!(held[1..].iter().all(Place::spoke));
        assert!(!held[0].spoke(), "it had to go before it spoke");
        assert_eq!(take(&places, "198.51.100.7").err(), Some(RefusedFor::Busy));
        for place in &mut held {
            place.waits(None);
        }
        assert!(take(&places, "198.51.100.7").is_ok());
        assert!(places.make_room());
        places.end_silent(60_000);
        assert!(held[9].spoke(), "it was not silent for so long");
        places.end_silent(0);
        assert!(!held.iter().any(Place::spoke));
        drop(held);
        assert!(!places.make_room());
        assert_eq!(places.counts().0, 0);
    }

    #[test]
    fn in_a_storm_no_board_goes_for_another_and_who_has_shown_its_key_least_of_all() {
        let places = Arc::<Places>::default();
        let mut held: Vec<_> = (0..HANDSHAKES_MAX)
            .map(|n| take(&places, &format!("192.0.{}.7", n % 64)).expect("a place"))
            .collect();
        drop(held.remove(0));
        let _first = take(&places, "198.51.100.7").expect("the place that is free");
        let _second = take(&places, "198.51.100.7").expect("others have more than twice as many");
        for place in &mut held {
            if place.spoke() {
                place.waits(Some(Task::default()));
            }
        }
        assert_eq!(take(&places, "198.51.100.7").err(), Some(RefusedFor::Busy));
        for place in &mut held {
            if place.spoke() {
                place.waits(None);
            }
        }
        let mut more = Vec::new();
        while let Ok(place) = take(&places, "198.51.100.7") {
            more.push(place);
        }
        // Two and these, of 32 that each of the others had.
        assert!((8..16).contains(&more.len()), "{}", more.len());
    }

    #[test]
    fn who_is_silent_for_longest_goes_first_whoever_came_first() {
        let mut network = Network::default();
        let task = Task::default;
        network.shaken.insert((Millis(9), 0), (task(), false));
        network.shaken.insert((Millis(5), 3), (task(), true));
        network.strangers.insert((Millis(7), 1), (task(), true));
        network.strangers.insert((Millis(4), 2), (task(), false));
        assert_eq!(network.oldest_with_file(), Some((Millis(5), 3)));
        assert!(network.evict((Millis(4), 2)));
        let later = Millis(5 + SILENT_GRACE_MS);
        assert_eq!(network.yields(later, false), Some((Millis(5), 3)));
        assert_eq!(network.yields(later, true), Some((Millis(7), 1)));
        assert!(network.evict((Millis(5), 3)));
        assert_eq!(network.yields(later, false), None);
        assert_eq!(network.oldest(), Some((Millis(7), 1)));
    }

    #[tokio::test]
    async fn the_one_that_goes_is_the_oldest_and_its_task_ends() {
        let places = Arc::<Places>::default();
        let mut tasks = Vec::new();
        for n in 0..HANDSHAKES_MAX {
            let place = take(&places, &format!("192.0.{}.7", n % 4)).unwrap();
            let named = place.task();
            let task = tokio::spawn(async move {
                let _place = place;
                std::future::pending::<()>().await;
            });
            named.set(task.abort_handle()).unwrap();
            tasks.push(task);
        }
        let newcomer = take(&places, "198.51.100.7").unwrap();
        let first = tasks.remove(0);
        let first = tokio::time::timeout(std::time::Duration::from_secs(60), first).await;
        let first = first.expect("the first of them ends");
        assert!(first.unwrap_err().is_cancelled());
        assert!(tasks.iter().all(|task| !task.is_finished()));
        assert_eq!(places.counts().0, HANDSHAKES_MAX);
        drop(newcomer);
    }
}
