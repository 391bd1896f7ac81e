//! Bytes per second, of all transfers and of each network (spec/limits.md section 6).
//!
//! A transfer that has nothing left to spend stands in one queue, and whoever is first
//! gets a share when the buckets have filled again: everybody the same. One clock for all of them, that
//! runs while somebody waits.

use super::limits::{CHUNK_MOST, Limits};
use super::registry::Handle;
use dialhome_proto::time::Millis;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// How often the buckets are looked at while somebody waits.
const EVERY: Duration = Duration::from_millis(20);
/// The least that is given at a time, in bytes: a chunk of 4 KiB as a record.
const SHARE: u64 = 4 * 1024 + 32;
/// The most that is given at a time, in bytes: half of what is sealed at once.
const SHARE_MAX: u64 = 64 * 1024;
/// Buckets of networks that are kept, beyond which full ones without a transfer are forgotten.
const NETWORKS_KEPT: usize = 4_096;
/// What a bucket holds, in milliseconds of its rate.
const BURST_MS: u64 = 100;

/// A rate that fills it, and what is in it.
#[derive(Debug)]
struct Bucket {
    rate: u64,
    /// Thousandths of a byte.
    held: u64,
    at: Millis,
}

impl Bucket {
    const fn new(rate: u64, now: Millis) -> Self {
        let mut bucket = Self {
            rate,
            held: 0,
            at: now,
        };
        bucket.held = bucket.size();
        bucket
    }

    /// A tenth of a second, and a share at least.
    const fn size(&self) -> u64 {
        let burst = self.rate.saturating_mul(BURST_MS);
        if burst < SHARE * 1_000 {
            SHARE * 1_000
        } else {
            burst
        }
    }

    /// Bytes in it now.
    fn look(&mut self, now: Millis) -> u64 {
        let more = self.rate.saturating_mul(now.since(self.at));
        self.at = now;
        self.held = self.held.saturating_add(more).min(self.size());
        self.held / 1_000
    }

    const fn take(&mut self, bytes: u64) {
        self.held = self.held.saturating_sub(bytes * 1_000);
    }

    /// Gives back what was taken and not spent.
    fn give(&mut self, bytes: u64) {
        self.held = (self.held + bytes * 1_000).min(self.size());
    }
}

/// The rates in force.
#[derive(Debug)]
pub(super) struct Rates {
    rate: Option<u64>,
    network_rate: Option<u64>,
    state: Mutex<State>,
    somebody: Notify,
}

#[derive(Debug, Default)]
struct State {
    all: Option<Bucket>,
    /// Of networks, and how many transfers of each spend from it.
    networks: HashMap<IpAddr, (Bucket, usize)>,
    queue: VecDeque<Arc<Flow>>,
}

/// What one transfer may spend.
#[derive(Debug)]
pub(super) struct Flow {
    handle: Arc<Handle>,
    network: IpAddr,
    credit: AtomicU64,
    wants: AtomicU64,
    queued: AtomicBool,
    ended: AtomicBool,
}

/// A flow, as long as its transfer runs.
#[derive(Debug)]
pub(super) struct Funds {
    rates: Arc<Rates>,
    flow: Arc<Flow>,
}

impl Rates {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            rate: limits.rate,
            network_rate: limits.network_rate,
            state: Mutex::default(),
            somebody: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a transfer spends from; none where no rate is limited.
    pub(super) fn funds(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        network: IpAddr,
        now: Millis,
    ) -> Option<Funds> {
        if self.rate.is_none() && self.network_rate.is_none() {
            return None;
        }
        let mut state = self.state();
        if let Some(rate) = self.rate {
            state.all.get_or_insert_with(|| Bucket::new(rate, now));
        }
        if let Some(rate) = self.network_rate {
            if state.networks.len() > NETWORKS_KEPT {
                let idle = |bucket: &mut Bucket| bucket.look(now) * 1_000 >= bucket.size();
                state
                    .networks
                    .retain(|_, (bucket, flows)| *flows > 0 || !idle(bucket));
            }
            let entry = state.networks.entry(network);
            entry.or_insert_with(|| (Bucket::new(rate, now), 0)).1 += 1;
        }
        Some(Funds {
            rates: Arc::clone(self),
            flow: Arc::new(Flow {
                handle: Arc::clone(handle),
                network,
                credit: AtomicU64::new(0),
                wants: AtomicU64::new(0),
                queued: AtomicBool::new(false),
                ended: AtomicBool::new(false),
            }),
        })
    }

    /// Transfers that wait for their share.
    pub(super) fn waiting(&self) -> usize {
        self.state().queue.len()
    }

    /// Gives shares as long as somebody waits; never ends.
    pub(super) async fn run(&self) {
        loop {
            self.somebody.notified().await;
            let mut every = tokio::time::interval(EVERY);
            every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                every.tick().await;
                let (funded, more) = self.serve(super::clock());
                funded.iter().for_each(|flow| flow.handle.stir());
                if !more {
                    break;
                }
            }
        }
    }

    /// Those who may go on, and whether somebody still waits.
    fn serve(&self, now: Millis) -> (Vec<Arc<Flow>>, bool) {
        let mut state = self.state();
        let State {
            all,
            networks,
            queue,
        } = &mut *state;
        let mut funded = Vec::new();
        let mut kept = VecDeque::new();
        let plenty = all.as_mut().map_or(u64::MAX, |all| all.look(now));
        // The same for everybody in this round, whatever chunks they send.
        let even = plenty / (queue.len() as u64).max(1);
        let share = even.clamp(SHARE, SHARE_MAX);
        for _ in 0..queue.len() {
            if all.as_mut().is_some_and(|all| all.look(now) < share) {
                break;
            }
            let Some(flow) = queue.pop_front() else { break };
            if flow.ended.load(Ordering::Acquire) {
                continue;
            }
            let mut gets = share;
            if let Some((own, _)) = networks.get_mut(&flow.network) {
                gets = share.min(own.look(now));
                if gets < SHARE {
                    // Its network has had its part: it stays where it is, and others go on.
                    kept.push_back(flow);
                    continue;
                }
                own.take(gets);
            }
            if let Some(all) = all {
                all.take(gets);
            }
            let credit = flow.credit.fetch_add(gets, Ordering::AcqRel) + gets;
            if credit < flow.wants.load(Ordering::Acquire) {
                // A chunk that is longer than a share takes several rounds.
                queue.push_back(flow);
            } else {
                flow.queued.store(false, Ordering::Release);
                funded.push(flow);
            }
        }
        // What those could not take whose networks have had their part goes to the others.
        let mut over = queue.is_empty() && !kept.is_empty();
        let mut more = share;
        while over && more + SHARE <= SHARE_MAX {
            over = false;
            more += SHARE;
            for flow in &funded {
                let own = networks.get_mut(&flow.network).map(|(own, _)| own);
                let all = all.as_mut();
                let enough = |bucket: &&mut Bucket| bucket.held >= SHARE * 1_000;
                if all.as_ref().is_none_or(enough) && own.as_ref().is_none_or(enough) {
                    [all, own]
                        .into_iter()
                        .flatten()
                        .for_each(|bucket| bucket.take(SHARE));
                    flow.credit.fetch_add(SHARE, Ordering::AcqRel);
                    over = true;
                }
            }
        }
        kept.append(queue);
        *queue = kept;
        let more = !queue.is_empty();
        (funded, more)
    }
}

impl Funds {
    /// Whether so many bytes may be spent now; where not, the session is stirred when they may.
    pub(super) fn cover(&self, bytes: u64) -> bool {
        debug_assert!(bytes <= CHUNK_MOST, "no chunk is longer");
        let flow = &self.flow;
        flow.wants.store(bytes, Ordering::Release);
        if flow.credit.load(Ordering::Acquire) >= bytes {
            return true;
        }
        if !flow.queued.swap(true, Ordering::AcqRel) {
            self.rates.state().queue.push_back(Arc::clone(flow));
            self.rates.somebody.notify_one();
        }
        // The round that ran meanwhile may have been its own.
        flow.credit.load(Ordering::Acquire) >= bytes
    }

    /// So many bytes were sent.
    pub(super) fn spend(&self, bytes: u64) {
        let left = self.flow.credit.load(Ordering::Acquire);
        let spent = bytes.min(left);
        self.flow.credit.fetch_sub(spent, Ordering::AcqRel);
    }
}

impl Drop for Funds {
    fn drop(&mut self) {
        self.flow.ended.store(true, Ordering::Release);
        let left = self.flow.credit.load(Ordering::Acquire);
        let mut state = self.rates.state();
        if let Some(all) = &mut state.all {
            all.give(left);
        }
        if let Some((own, flows)) = state.networks.get_mut(&self.flow.network) {
            own.give(left);
            *flows -= 1;
        }
    }
}

#[cfg(test)]
#[path = "rates_tests.rs"]
mod tests;
