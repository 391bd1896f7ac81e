//! Which transfers run: first come first served within a network, the networks in turn, and
//! those that go on after a lost link before all others (spec/limits.md section 6).
//!
//! A session that waits has one entry in a queue and no task. A transfer that its board
//! keeps waiting, or slows down, keeps its place and lends it: another runs meanwhile.

use super::limits::Limits;
use super::registry::Handle;
use dialhome_proto::time::Millis;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time in which a transfer commits at least [`MOVES_BYTES`], or lends its place, in milliseconds.
pub(super) const MOVES_MS: u64 = 30_000;
/// Bytes that a transfer commits in that time at least: some 500 a second.
pub(super) const MOVES_BYTES: u64 = 16 * 1024;
/// Updates that wait, beyond which their places in the queue are counted twice a second at most.
const RANK_AT_ONCE: usize = 1_000;
const RANK_EVERY: Duration = Duration::from_millis(500);

/// Queues in the order in which they are served: transfers that go on, and new ones.
const QUEUES: usize = 2;

/// All transfers that run or wait.
#[derive(Debug)]
pub(super) struct Turns {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Places taken, less those that are lent.
    taken: usize,
    lent: usize,
    runs: HashMap<u64, Run>,
    tickets: HashMap<u64, Ticket>,
    networks: HashMap<IpAddr, Network>,
    /// Networks where somebody waits, in the order in which they are served.
    order: [VecDeque<IpAddr>; QUEUES],
    next: u64,
    ranked: Option<Instant>,
}

#[derive(Debug, Default)]
struct Network {
    taken: usize,
    queues: [BTreeMap<u64, Waiting>; QUEUES],
}

#[derive(Debug)]
struct Waiting {
    handle: Arc<Handle>,
    before: usize,
}

/// Where a session waits.
#[derive(Clone, Copy, Debug)]
struct Ticket {
    network: IpAddr,
    queue: usize,
    number: u64,
}

/// A place that is taken.
#[derive(Debug)]
struct Run {
    network: IpAddr,
    moves: Arc<Moves>,
    /// What was committed when it was last seen to move, and when.
    mark: (u64, Millis),
    lent: bool,
}

/// What a transfer says about itself.
#[derive(Debug, Default)]
struct Moves {
    committed: AtomicU64,
    /// It was kept waiting by the gateway.
    kept: AtomicBool,
}

/// What somebody waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Queued {
    /// Updates that are served before.
    pub(super) before: usize,
    /// Transfers that may run at a time: of all, or of the network that has as many.
    pub(super) limit: u32,
    /// The network that has as many as it may.
    pub(super) network: Option<IpAddr>,
}

impl Turns {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: Mutex::default(),
        }
    }

    pub(super) const fn limits(&self) -> &Limits {
        &self.limits
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for this session's transfer; without one it is told when it has one, and asks
    /// again. `goes_on` where the update was under way before.
    pub(super) fn ask(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        network: IpAddr,
        goes_on: bool,
        now: Millis,
    ) -> Option<Turn> {
        let generation = handle.generation;
        let mut state = self.state();
        if !state.runs.contains_key(&generation) {
            if state.tickets.contains_key(&generation) {
                return None;
            }
            state.queue(handle, network, usize::from(!goes_on));
        }
        let told = state.serve(&self.limits, now);
        let moves = state
            .runs
            .get(&generation)
            .map(|run| Arc::clone(&run.moves));
        drop(state);
        for other in told {
            if other.generation != generation {
                other.tell();
            }
        }
        moves.map(|moves| Turn {
            turns: Arc::clone(self),
            generation,
            moves,
        })
    }

    /// The session does not wait any more, and wants no place that it was given meanwhile.
    pub(super) fn leave(&self, generation: u64, now: Millis) {
        let mut state = self.state();
        state.forget(generation);
        let told = state.serve(&self.limits, now);
        drop(state);
        told.iter().for_each(|handle| handle.tell());
    }

    /// Looks which transfers move; to be called every second or so.
    pub(super) fn look(&self, now: Millis) {
        let mut state = self.state();
        state.lend(&self.limits, now);
        let told = state.serve(&self.limits, now);
        drop(state);
        told.iter().for_each(|handle| handle.tell());
    }

    /// Transfers that run, those of them that have lent their place, and updates that wait.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let state = self.state();
        (state.runs.len(), state.lent, state.tickets.len())
    }

    /// What the session waits for, where it does.
    pub(super) fn queued(&self, generation: u64) -> Option<Queued> {
        let mut state = self.state();
        let ticket = *state.tickets.get(&generation)?;
        let fresh = state
            .ranked
            .is_some_and(|at| at.elapsed() < RANK_EVERY && state.tickets.len() > RANK_AT_ONCE);
        if !fresh {
            state.rank();
        }
        let network = state.networks.get(&ticket.network)?;
        let full = network.taken >= self.limits.network_transfers as usize
            && self.limits.network_transfers < self.limits.transfers;
        let before = if full {
            // Others do not stand in its way.
            let own = network.queues[ticket.queue].range(..ticket.number).count();
            let first = network.queues[..ticket.queue].iter().map(BTreeMap::len);
            own + first.sum::<usize>()
        } else {
            network.queues[ticket.queue].get(&ticket.number)?.before
        };
        Some(Queued {
            before,
            limit: if full {
                self.limits.network_transfers
            } else {
                self.limits.transfers
            },
            network: full.then_some(ticket.network),
        })
    }
}

impl State {
    fn queue(&mut self, handle: &Arc<Handle>, network: IpAddr, queue: usize) {
        let number = self.next;
        self.next += 1;
        let waiting = Waiting {
            handle: Arc::clone(handle),
            // Until it is counted: all that wait, who never are more.
            before: self.tickets.len(),
        };
        let own = self.networks.entry(network).or_default();
        if own.queues[queue].is_empty() {
            self.order[queue].push_back(network);
        }
        own.queues[queue].insert(number, waiting);
        let ticket = Ticket {
            network,
            queue,
            number,
        };
        self.tickets.insert(handle.generation, ticket);
    }

    /// Gives places that are free to those who wait, as long as there are both.
    fn serve(&mut self, limits: &Limits, now: Millis) -> Vec<Arc<Handle>> {
        let mut told = Vec::new();
        for queue in 0..QUEUES {
            let mut passed = 0;
            while self.taken < limits.transfers as usize && passed < self.order[queue].len() {
                let Some(network) = self.order[queue].pop_front() else {
                    break;
                };
                let Some(own) = self.networks.get_mut(&network) else {
                    continue;
                };
                if own.taken >= limits.network_transfers as usize {
                    self.order[queue].push_back(network);
                    passed += 1;
                    continue;
                }
                let Some((_, waiting)) = own.queues[queue].pop_first() else {
                    continue;
                };
                own.taken += 1;
                if !own.queues[queue].is_empty() {
                    self.order[queue].push_back(network);
                }
                self.taken += 1;
                let generation = waiting.handle.generation;
                self.tickets.remove(&generation);
                let run = Run {
                    network,
                    moves: Arc::default(),
                    mark: (0, now),
                    lent: false,
                };
                self.runs.insert(generation, run);
                told.push(waiting.handle);
                passed = 0;
            }
        }
        told
    }

    /// Gives back whatever the session has.
    fn forget(&mut self, generation: u64) {
        let network = if let Some(run) = self.runs.remove(&generation) {
            self.count(run.network, run.lent, false);
            run.network
        } else if let Some(ticket) = self.tickets.remove(&generation) {
            if let Some(own) = self.networks.get_mut(&ticket.network) {
                own.queues[ticket.queue].remove(&ticket.number);
                if own.queues[ticket.queue].is_empty() {
                    self.order[ticket.queue].retain(|other| *other != ticket.network);
                }
            }
            ticket.network
        } else {
            return;
        };
        let empty = |own: &Network| own.taken == 0 && own.queues.iter().all(BTreeMap::is_empty);
        if self.networks.get(&network).is_some_and(empty) {
            // Places that are lent keep no entry: it comes again when they are taken back.
            self.networks.remove(&network);
        }
    }

    /// Takes a place, or gives it back; one that is lent counts apart.
    fn count(&mut self, network: IpAddr, lent: bool, take: bool) {
        let step = |count: &mut usize| *count = if take { *count + 1 } else { *count - 1 };
        if lent {
            step(&mut self.lent);
        } else {
            step(&mut self.taken);
            step(&mut self.networks.entry(network).or_default().taken);
        }
    }

    /// Transfers that do not move lend their places, as many at most as there are; those that move take them back.
    fn lend(&mut self, limits: &Limits, now: Millis) {
        let mut changed = Vec::new();
        let mut lent = self.lent;
        for (generation, run) in &mut self.runs {
            let committed = run.moves.committed.load(Ordering::Relaxed);
            let kept = run.moves.kept.swap(false, Ordering::Relaxed);
            if kept || committed.saturating_sub(run.mark.0) >= MOVES_BYTES {
                run.mark = (committed, now);
                if run.lent {
                    changed.push(*generation);
                    lent -= 1;
                }
            } else if now.since(run.mark.1) >= MOVES_MS {
                run.mark = (committed, now);
                if !run.lent && lent < limits.transfers as usize {
                    changed.push(*generation);
                    lent += 1;
                }
            }
        }
        for generation in changed {
            let Some(run) = self.runs.get_mut(&generation) else {
                continue;
            };
            let (network, was) = (run.network, run.lent);
            run.lent = !was;
            self.count(network, was, false);
            self.count(network, !was, true);
        }
    }

    /// Counts for everybody how many are served before, if nobody else comes.
    fn rank(&mut self) {
        self.ranked = Some(Instant::now());
        let mut before = 0;
        for queue in 0..QUEUES {
            let mut waiting: HashMap<_, _> = self
                .networks
                .iter_mut()
                .map(|(network, own)| (*network, own.queues[queue].values_mut()))
                .collect();
            let mut order = self.order[queue].clone();
            while let Some(network) = order.pop_front() {
                if let Some(next) = waiting.get_mut(&network).and_then(Iterator::next) {
                    next.before = before;
                    before += 1;
                    order.push_back(network);
                }
            }
        }
    }
}

/// A place among the transfers that run, as long as it is kept.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Arc<Turns>,
    generation: u64,
    moves: Arc<Moves>,
}

impl Turn {
    /// Bytes of the image that the board has committed.
    pub(super) fn committed(&self, bytes: u64) {
        self.moves.committed.store(bytes, Ordering::Relaxed);
    }

    /// It is the gateway that keeps the board waiting.
    pub(super) fn kept(&self) {
        self.moves.kept.store(true, Ordering::Relaxed);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.leave(self.generation, super::clock());
    }
}

#[cfg(test)]
#[path = "turns_tests.rs"]
mod tests;
