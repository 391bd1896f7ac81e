//! Statements that the board repeats until the gateway has settled them
//! (spec/protocol.md section 4.3).

use super::config::{GATEWAY_LISTS, ROTATION};
use crate::code::{Reason, Statement};
use crate::id::{Handle, UpdateId};
use crate::limits::{OUTBOX_DETAIL_MAX, OUTBOX_MAX};
use crate::stored::{Stored, Way};
use crate::wire::clipped;
use heapless::{String, Vec};

/// What an entry states.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Said {
    /// The outcome of an update.
    Outcome {
        /// The update.
        update: UpdateId,
        /// Its component.
        component: u8,
        /// Its end.
        state: Statement,
        /// Why.
        reason: Reason,
    },
    /// The pending key is stored.
    KeyStored {
        /// Its handle.
        handle: Handle,
    },
    /// A list of gateways is stored.
    GatewaysStored {
        /// Its epoch.
        epoch: u32,
    },
}

impl Said {
    /// Whether it is true of this build. What an earlier image stated of a key or a list
    /// that this one does not use is not.
    pub(super) const fn is_true_here(&self) -> bool {
        match self {
            Self::Outcome { .. } => true,
            Self::KeyStored { .. } => ROTATION,
            Self::GatewaysStored { .. } => GATEWAY_LISTS,
        }
    }
}

/// A numbered statement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its number, from 1.
    pub sequence: u32,
    /// The statement.
    pub said: Said,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            sequence: 0,
            said: Said::GatewaysStored { epoch: 0 },
        }
    }
}

/// The journal's cell of them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outbox {
    last: u32,
    entries: Vec<Entry, OUTBOX_MAX>,
    detail_of: u32,
    detail: String<OUTBOX_DETAIL_MAX>,
}

impl Stored for Entry {
    fn pass(&mut self, way: &mut Way<'_>) {
        way.number(&mut self.sequence);
        let mut kind = match self.said {
            Said::Outcome { .. } => 0,
            Said::KeyStored { .. } => 1,
            Said::GatewaysStored { .. } => 2,
        };
        way.byte(&mut kind);
        if way.is_load() {
            self.said = match kind {
                0 => Said::Outcome {
                    update: UpdateId::default(),
                    component: 0,
                    state: Statement(0),
                    reason: Reason::NONE,
                },
                1 => Said::KeyStored {
                    handle: Handle::default(),
                },
                _ => Said::GatewaysStored { epoch: 0 },
            };
            if kind > 2 {
                way.fail();
            }
        }
        match &mut self.said {
            Said::Outcome {
                update,
                component,
                state,
                reason,
            } => {
                way.bytes(&mut update.0);
                way.byte(component);
                way.byte(&mut state.0);
                way.byte(&mut reason.0);
            }
            Said::KeyStored { handle } => way.bytes(&mut handle.0),
            Said::GatewaysStored { epoch } => way.number(epoch),
        }
    }
}

impl Stored for Outbox {
    fn pass(&mut self, way: &mut Way<'_>) {
        way.number(&mut self.last);
        way.list(&mut self.entries);
        way.number(&mut self.detail_of);
        way.text(&mut self.detail);
    }
}

impl Outbox {
    /// Whether an outcome could still be stated beside `expected` others. One place is
    /// kept for a key and one for a list of gateways, of which only the newest is stated.
    #[must_use]
    pub fn has_room(&self, expected: usize) -> bool {
        let outcomes = self
            .entries
            .iter()
            .filter(|entry| matches!(entry.said, Said::Outcome { .. }));
        outcomes.count() + expected < OUTBOX_MAX - 2
    }

    /// Entries, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether it holds the outcome of this update.
    #[must_use]
    pub fn has_outcome_of(&self, update: &UpdateId) -> bool {
        self.entries
            .iter()
            .any(|entry| matches!(&entry.said, Said::Outcome { update: of, .. } if of == update))
    }

    /// The detail that goes with an entry.
    #[must_use]
    pub fn detail(&self, sequence: u32) -> &str {
        if self.detail_of == sequence {
            &self.detail
        } else {
            ""
        }
    }

    /// Adds a statement under the next number; false where it is full.
    pub(super) fn push(&mut self, said: Said, detail: &str) -> bool {
        let sequence = self.last.wrapping_add(1).max(1);
        if self.entries.push(Entry { sequence, said }).is_err() {
            return false;
        }
        if !detail.is_empty() {
            self.note(detail);
        }
        self.last = sequence;
        true
    }

    /// Keeps the detail for the next entry, over a restart.
    pub(super) fn note(&mut self, detail: &str) {
        self.detail_of = self.last.wrapping_add(1).max(1);
        self.detail.clear();
        let _ = self.detail.push_str(clipped(detail, OUTBOX_DETAIL_MAX));
    }

    /// What is kept for the next entry.
    pub(super) fn noted(&self) -> &str {
        self.detail(self.last.wrapping_add(1).max(1))
    }

    /// Drops an entry; the place that it had, where there was one.
    pub(super) fn settle(&mut self, sequence: u32) -> Option<(usize, Said)> {
        let place = self
            .entries
            .iter()
            .position(|entry| entry.sequence == sequence)?;
        // It goes to the end, one by one, and off it: four entries are not worth a `memmove`.
        let mut tail = self.entries.get_mut(place..)?;
        while let [first, rest @ ..] = tail {
            if let Some(second) = rest.first_mut() {
                core::mem::swap(first, second);
            }
            tail = rest;
        }
        self.entries.pop().map(|entry| (place, entry.said))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outbox_full_refuses_and_settled_makes_room() {
        let mut outbox = Outbox::default();
        for epoch in 0..4 {
            assert!(outbox.push(Said::GatewaysStored { epoch }, ""));
        }
        assert!(!outbox.push(Said::GatewaysStored { epoch: 9 }, "detail"));
        assert_eq!(
            outbox.settle(2),
            Some((1, Said::GatewaysStored { epoch: 1 }))
        );
        assert_eq!(outbox.settle(2), None);
        assert!(outbox.push(Said::GatewaysStored { epoch: 9 }, "detail"));
        assert_eq!(outbox.entries().last().unwrap().sequence, 5);
        assert_eq!(outbox.detail(5), "detail");
        assert_eq!(outbox.detail(4), "");
    }
}
