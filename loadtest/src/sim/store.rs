//! What the gateway's record holds: only what was stored before a kill.

use super::fixture::Image;
use dialhome_proto::code::{CloseCode, Reason, Statement};
use dialhome_proto::frame::{Component, Report};
use dialhome_proto::gateway::{Counters, Plan, Record, State};
use dialhome_proto::id::{Handle, UpdateId};
use dialhome_proto::link::DeviceKey;

/// One update's record.
#[derive(Clone, Debug)]
pub struct Update {
    /// What is delivered.
    pub plan: Plan,
    /// Where it stands.
    pub state: State,
    /// Why.
    pub reason: Reason,
    /// Bytes so far.
    pub counters: Counters,
    /// An operator asked to cancel.
    pub cancel: bool,
    /// Every state so far.
    pub history: Vec<(State, Reason)>,
}

/// The record, and what the test wants to know of the gateway.
#[derive(Clone, Debug, Default)]
pub struct Store {
    /// The board's key in force.
    pub key: [u8; 32],
    /// A new key, until the board has used it.
    pub pending_key: Option<[u8; 32]>,
    /// The new list of gateways, and its epoch.
    pub gateways: Option<(u32, Vec<u8>)>,
    /// Epoch of the list that the board has stored.
    pub gateways_epoch: u32,
    /// Updates, in the order of the pushes.
    pub updates: Vec<Update>,
    /// Deliveries are held.
    pub held: bool,
    /// The process is killed at the step with this number.
    pub kill_at: Option<u64>,
    /// Steps so far.
    pub steps: u64,
    /// The process is killed.
    pub killed: bool,
    /// Handshakes refused.
    pub refusals: u64,
    /// The last Ack that a delivery took.
    pub acked: Option<(UpdateId, u32)>,
    /// The place of the part that it was about.
    pub acked_part: u8,
    /// Prefixes that were right, and wrong.
    pub prefixes: (u64, u64),
    /// Length of the last prefix that was right.
    pub proven_len: Option<u32>,
    /// The last prefix that was checked was right.
    pub proven: bool,
    /// Chunks sent.
    pub chunks: u64,
    /// The component that the last outcome named.
    pub named: Option<u8>,
    /// What it said beside it.
    pub detail: String,
    /// Why the gateway closed sessions.
    pub closes: Vec<CloseCode>,
    /// What happened, where it is kept.
    pub log: Option<Vec<String>>,
}

impl Store {
    /// Writes to the log, where it is kept.
    pub fn log(&mut self, now: u64, line: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(format!("{now:>9} {}", line()));
        }
    }

    /// One step of the process; false: it was killed before it.
    pub fn step(&mut self) -> bool {
        if self.killed {
            return false;
        }
        self.killed = self.kill_at == Some(self.steps);
        self.steps += 1;
        !self.killed
    }

    /// Whether the process was killed.
    #[must_use]
    pub const fn is_killed(&self) -> bool {
        self.killed
    }

    /// Kills the process.
    pub const fn kill(&mut self) {
        self.killed = true;
    }

    /// The process starts again.
    pub const fn restart(&mut self) {
        self.killed = false;
        self.acked = None;
        self.proven = false;
    }

    /// An operator pushes an image.
    pub fn push(&mut self, plan: Plan) {
        self.updates.push(Update {
            plan,
            state: State::Queued,
            reason: Reason::NONE,
            counters: Counters::default(),
            cancel: false,
            history: vec![(State::Queued, Reason::NONE)],
        });
    }

    /// The key whose handle a board dialed with.
    #[must_use]
    pub fn key_of(&self, handle: Handle) -> Option<[u8; 32]> {
        [Some(self.key), self.pending_key]
            .into_iter()
            .flatten()
            .find(|key| DeviceKey::new(*key).handle() == handle)
    }

    /// The first authenticated record under a key; false: killed before it was stored.
    pub fn authenticated(&mut self, key: Option<[u8; 32]>) -> bool {
        if key.is_some() && key == self.pending_key {
            if !self.step() {
                return false;
            }
            if let Some(pending) = self.pending_key.take() {
                self.key = pending;
            }
        }
        true
    }

    /// The board states that it has stored the key in force.
    pub fn key_settled(&mut self, key: Option<[u8; 32]>) -> bool {
        key == Some(self.key) && self.step()
    }

    /// The board states that it has stored a list of gateways.
    pub fn gateways_stored(&mut self, epoch: u32) -> bool {
        if !self.step() {
            return false;
        }
        self.gateways_epoch = self.gateways_epoch.max(epoch);
        true
    }

    /// What a session under this key is to be sent.
    #[must_use]
    pub fn wishes(&self, key: Option<[u8; 32]>) -> (Option<[u8; 32]>, Option<Vec<u8>>) {
        let new_key = self.pending_key.filter(|_| key == Some(self.key));
        let statement = self
            .gateways
            .as_ref()
            .filter(|(epoch, _)| *epoch > self.gateways_epoch)
            .map(|(_, statement)| statement.clone());
        (new_key, statement)
    }

    /// The update to deliver: the one on trial first, then the oldest that is open.
    #[must_use]
    pub fn open_update(&self, components: &[Component<'_>]) -> Option<&Update> {
        let trial = components.iter().find_map(|of| of.trial);
        let trial = trial.map(|trial| trial.update);
        let mut open = self
            .updates
            .iter()
            .filter(|update| !update.state.is_terminal());
        let on_trial = open
            .clone()
            .find(|update| Some(update.plan.update) == trial);
        on_trial.or_else(|| open.next())
    }

    /// Whether an operator asked to cancel it.
    #[must_use]
    pub fn is_canceled(&self, update: &UpdateId) -> bool {
        self.updates
            .iter()
            .any(|known| known.plan.update == *update && known.cancel)
    }

    /// Keeps the counters.
    pub fn seen(&mut self, update: &UpdateId, counters: Counters) {
        if let Some(known) = self.find(update) {
            known.counters = counters;
        }
    }

    /// Stores a change; a final state stays.
    pub fn record(&mut self, update: &UpdateId, record: Record, counters: Counters) {
        let Some(known) = self.find(update) else {
            return;
        };
        known.counters = counters;
        known.history.push((record.state, record.reason));
        if !known.state.is_terminal() {
            (known.state, known.reason) = (record.state, record.reason);
        }
    }

    /// An outcome of an update that no delivery is at; false: killed before it was stored.
    pub fn late_outcome(&mut self, report: &Report<'_>, _: &[Image]) -> bool {
        if !self.step() {
            return false;
        }
        let state = match report.state {
            Statement::CONFIRMED => State::Confirmed,
            Statement::REVERTED => State::Reverted,
            Statement::FAILED => State::Failed,
            Statement::CANCELED => State::Canceled,
            _ => return true,
        };
        let reason = report.reason;
        if let Some(known) = self.find(&report.update) {
            let counters = known.counters;
            let record = Record {
                state,
                reason,
                part: 0,
            };
            self.record(&report.update, record, counters);
        }
        true
    }

    fn find(&mut self, update: &UpdateId) -> Option<&mut Update> {
        self.updates
            .iter_mut()
            .find(|known| known.plan.update == *update)
    }
}
