//! Which key and which gateway the next dial uses, and keys that change
//! (spec/states.md section 1.1, spec/protocol.md section 5.1).

use super::cells::{Cell, Cells};
use super::config::{GATEWAY_LISTS, ROTATION};
use super::link::{GatewayList, KeyUse};
use super::machine::Machine;
use super::outbox::Said;
use crate::id::Handle;
use crate::link::DeviceKey;

/// Refused keys in a row before the provisioned one has its turn too.
const REFUSALS_MAX: u8 = 8;

impl Machine<'_> {
    /// After a refused key the other one has its turn; without another, the longest wait.
    pub(super) fn turn_key(&mut self) {
        self.refusals = self.refusals.saturating_add(1);
        if !ROTATION {
            self.backoff.wait_longest();
            return;
        }
        let rotated = self.cells.keys.current.is_some();
        match (self.key, self.cells.keys.pending.is_some()) {
            (KeyUse::Current, _) if rotated && self.refusals >= REFUSALS_MAX => {
                self.key = KeyUse::Provisioned;
            }
            (KeyUse::Current | KeyUse::Provisioned, true) => self.key = KeyUse::Pending,
            (KeyUse::Pending, _) | (KeyUse::Provisioned, false) => self.key = KeyUse::Current,
            (KeyUse::Current, false) => self.backoff.wait_longest(),
        }
    }

    /// In order through the stored list, then once through the provisioned one, and over again.
    pub(super) fn next_gateway(&mut self) {
        let count = match self.list {
            GatewayList::Stored => stored(&self.cells),
            GatewayList::Provisioned => self.config.gateways,
        };
        self.place = self.place.saturating_add(1);
        if self.place < count {
            return;
        }
        self.place = 0;
        self.list = match self.list {
            GatewayList::Provisioned if stored(&self.cells) > 0 => GatewayList::Stored,
            _ => GatewayList::Provisioned,
        };
    }

    pub(super) fn handle_new_key(&mut self, key: [u8; 32]) {
        if self.cells.keys.pending != Some(key) {
            let handle: Handle = DeviceKey::new(key).handle();
            if self.key == KeyUse::Pending {
                // The gateway takes the pending key and gives another: the pending one is in force there.
                self.cells.keys.current = self.cells.keys.pending;
                self.key = KeyUse::Current;
            }
            self.cells.keys.pending = Some(key);
            self.dirty(Cell::Keys);
            self.state_said(Said::KeyStored { handle }, "");
        } else {
            self.restate = 0;
        }
    }

    pub(super) fn handle_settled(&mut self, sequence: u32) {
        let Some(said) = self.unstate(sequence) else {
            return;
        };
        if !ROTATION {
            return;
        }
        if let (Said::KeyStored { .. }, Some(pending)) = (said, self.cells.keys.pending) {
            // Under another key it means that the gateway does not know the pending one.
            if self.key == KeyUse::Pending {
                self.cells.keys.current = Some(pending);
                self.key = KeyUse::Current;
            }
            self.cells.keys.pending = None;
            self.dirty(Cell::Keys);
        }
        self.state_pending_key();
    }

    /// A pending key is stated until it is settled. Its entry is stored after the key, so
    /// that it never claims what is not there, and is added here where a cut fell between the two.
    pub(super) fn state_pending_key(&mut self) {
        let Some(pending) = self.cells.keys.pending.filter(|_| ROTATION) else {
            return;
        };
        let entries = self.cells.outbox.entries();
        let is_full = entries.len() == crate::limits::OUTBOX_MAX;
        let is_stated = entries
            .iter()
            .any(|entry| matches!(entry.said, Said::KeyStored { .. }));
        if !is_full && !is_stated {
            let handle = DeviceKey::new(pending).handle();
            self.state_said(Said::KeyStored { handle }, "");
        }
    }

    /// After a key or a list changed, the next dial begins anew.
    pub(super) fn dial_anew(&mut self) {
        self.list = first_list(&self.cells);
        self.place = 0;
    }
}

/// Gateways of the stored list.
const fn stored(cells: &Cells) -> u8 {
    if GATEWAY_LISTS { cells.gateways } else { 0 }
}

/// The list that is dialed first.
pub(super) const fn first_list(cells: &Cells) -> GatewayList {
    if stored(cells) > 0 {
        GatewayList::Stored
    } else {
        GatewayList::Provisioned
    }
}

/// The key that is dialed with first: a pending one goes first after every session; a
/// refusal gives the other one its turn.
pub(super) const fn first_key(cells: &Cells) -> KeyUse {
    if ROTATION && cells.keys.pending.is_some() {
        KeyUse::Pending
    } else {
        KeyUse::Current
    }
}
