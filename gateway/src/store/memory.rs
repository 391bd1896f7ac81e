//! What the hot path needs without I/O: keys by handle, devices with work, and what changes many times a second.
//!
//! A device with nothing to do costs its key records here and nothing else.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use dialhome_proto::id::Handle;
use dialhome_proto::link::DeviceKey;
use rusqlite::Connection;
use tokio::sync::{broadcast, mpsc};

use super::docs::EventDoc;
use super::seal::{Keys, Seal};
use super::sqlite::{explain_on, record, value};
use super::types::{Counters, Device};
use super::writer::After;
use super::{DeviceId, KeyRecord, StoreError, WhichKey};

/// Events that a listener may be behind before it is told so and reads from the database.
const LISTENER_EVENTS: usize = 1024;
/// Least time between two live `update.progress` events of one update.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// What there is to do for a device; devices without any are not in the map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) update: bool,
    pub(crate) pending_key: bool,
    pub(crate) gateways: bool,
    pub(crate) hold: bool,
}

impl Flags {
    /// The flags as the database has them.
    pub(crate) fn of(db: &Connection, device: &str) -> Result<Self, StoreError> {
        let update = value::<i64>(
            db,
            "SELECT 1 FROM update_state WHERE device = ?1 AND open = 1 LIMIT 1",
            [device],
        )?
        .is_some();
        let Some(record) = record::<Device>(db, "SELECT body FROM device WHERE id = ?1", [device])?
        else {
            return Ok(Self {
                update,
                ..Self::default()
            });
        };
        // A sealed pair is longer than a sealed key: the flag needs no opening.
        let sealed = value::<i64>(
            db,
            "SELECT length(sealed) FROM device_secret WHERE id = ?1",
            [device],
        )?;
        Ok(Self {
            update,
            pending_key: sealed.is_some_and(|length| length > 64),
            gateways: record
                .gateways_statement
                .is_some_and(|statement| !statement.stored && statement.refused.is_none()),
            hold: record.hold,
        })
    }
}

/// A delivery's counters that the database does not have yet.
pub(crate) struct Pace {
    pub(crate) counters: Counters,
    pub(crate) stored: bool,
    told: Option<Instant>,
}

/// Air bytes that the database does not have yet.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Air {
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// Whether the store can be written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health {
    pub(crate) fault: Option<StoreError>,
}

/// What an update is counted as: its state and reason.
pub(crate) type Outcome = (String, Option<String>);

/// The memory of the store.
pub(crate) struct Memory {
    pub(crate) keys: DashMap<Handle, Arc<KeyRecord>>,
    pub(crate) flags: DashMap<DeviceId, Flags>,
    pub(crate) hold: AtomicBool,
    pub(crate) last_seq: AtomicU64,
    pub(crate) generation: AtomicU64,
    pub(crate) events: broadcast::Sender<Arc<EventDoc>>,
    pub(crate) progress: DashMap<[u8; 8], Pace>,
    pub(crate) air: Mutex<HashMap<DeviceId, Air>>,
    outcomes: Mutex<BTreeMap<Outcome, u64>>,
    health: Mutex<Health>,
    wakes: Mutex<Vec<mpsc::UnboundedSender<Option<DeviceId>>>>,
}

impl Memory {
    /// An empty memory.
    pub(crate) fn new() -> Self {
        Self {
            keys: DashMap::new(),
            flags: DashMap::new(),
            hold: AtomicBool::new(false),
            last_seq: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            events: broadcast::channel(LISTENER_EVENTS).0,
            progress: DashMap::new(),
            air: Mutex::default(),
            outcomes: Mutex::default(),
            health: Mutex::default(),
            wakes: Mutex::default(),
        }
    }

    /// Fills the memory from the database, forgetting what it held.
    pub(crate) fn load(
        &self,
        db: &Connection,
        seal: &Seal,
        secret_path: &std::path::Path,
    ) -> Result<(), StoreError> {
        let fault = |error| explain_on(db, error);
        let mut keys = Vec::new();
        let mut flags = Vec::new();
        let mut query = db
            .prepare("SELECT device.id, device.body, sealed FROM device JOIN device_secret ON device_secret.id = device.id")
            .map_err(fault)?;
        let mut rows = query.query([]).map_err(fault)?;
        while let Some(row) = rows.next().map_err(fault)? {
            let (id, body, sealed): (String, String, Vec<u8>) = (
                row.get(0).map_err(fault)?,
                row.get(1).map_err(fault)?,
                row.get(2).map_err(fault)?,
            );
            let device: Device = super::sqlite::parse(&body)?;
            let pair = seal
                .open_keys(&id, &sealed)
                .ok_or_else(|| StoreError::WrongSecret {
                    path: secret_path.into(),
                })?;
            keys.extend(key_records(&device, &pair));
            let found = Flags::of(db, &id)?;
            if found != Flags::default() {
                flags.push((DeviceId::stored(&id), found));
            }
        }
        self.count(db)?;
        let hold = value::<String>(db, "SELECT value FROM meta WHERE key = 'hold'", [])?
            .is_some_and(|hold| hold == "1");
        let last = value::<i64>(
            db,
            "SELECT seq FROM sqlite_sequence WHERE name = 'event'",
            [],
        )?
        .unwrap_or(0);
        self.keys.clear();
        self.flags.clear();
        self.progress.clear();
        self.air().clear();
        for (handle, key) in keys {
            self.keys.insert(handle, Arc::new(key));
        }
        for (device, found) in flags {
            self.flags.insert(device, found);
        }
        self.hold.store(hold, Ordering::Release);
        self.last_seq.store(last.unsigned_abs(), Ordering::Release);
        Ok(())
    }

    /// Counts the updates that the database holds.
    pub(crate) fn count(&self, db: &Connection) -> Result<(), StoreError> {
        let fault = |error| explain_on(db, error);
        let mut query = db
            .prepare("SELECT state, reason, count(*) FROM update_state GROUP BY state, reason")
            .map_err(fault)?;
        let counted = query
            .query_map([], |row| {
                Ok((
                    (row.get(0)?, row.get(1)?),
                    row.get::<_, i64>(2)?.unsigned_abs(),
                ))
            })
            .and_then(Iterator::collect)
            .map_err(fault)?;
        *self.outcomes() = counted;
        Ok(())
    }

    /// Takes over what a committed change has brought.
    pub(crate) fn apply(&self, after: After, flags: Vec<(DeviceId, Flags)>) {
        for (handle, record) in after.keys {
            match record {
                Some(record) => drop(self.keys.insert(handle, record)),
                None => drop(self.keys.remove(&handle)),
            }
        }
        for (device, flags) in flags {
            if flags == Flags::default() {
                self.flags.remove(&device);
            } else {
                self.flags.insert(device, flags);
            }
        }
        if !after.outcomes.is_empty() {
            let mut outcomes = self.outcomes();
            for (was, now) in after.outcomes {
                *outcomes.entry(now).or_default() += 1;
                if let Some(was) = was
                    && let Some(count) = outcomes.get_mut(&was)
                {
                    *count -= 1;
                    if *count == 0 {
                        outcomes.remove(&was);
                    }
                }
            }
        }
        if let Some(hold) = after.hold {
            self.hold.store(hold, Ordering::Release);
        }
        for event in after.events {
            self.last_seq.fetch_max(event.seq, Ordering::AcqRel);
            // Nobody may be listening.
            let _ = self.events.send(Arc::new(event));
        }
        if !after.wakes.is_empty() {
            let mut listeners = lock(&self.wakes);
            listeners.retain(|listener| {
                after
                    .wakes
                    .iter()
                    .all(|wake| listener.send(wake.clone()).is_ok())
            });
        }
    }

    /// A new listener for wakes.
    pub(crate) fn listen_for_wakes(&self) -> mpsc::UnboundedReceiver<Option<DeviceId>> {
        let (send, receive) = mpsc::unbounded_channel();
        lock(&self.wakes).push(send);
        receive
    }

    /// Notes how far a delivery is, and tells listeners now and then.
    pub(crate) fn pace(&self, device: &DeviceId, update: [u8; 8], counters: Counters) {
        let mut pace = self.progress.entry(update).or_insert_with(|| Pace {
            counters: Counters::default(),
            stored: true,
            told: None,
        });
        if pace.counters == counters {
            return;
        }
        pace.counters = counters;
        pace.stored = false;
        if pace
            .told
            .is_none_or(|told| told.elapsed() >= PROGRESS_EVERY)
        {
            pace.told = Some(Instant::now());
            let _ = self.events.send(Arc::new(EventDoc {
                seq: self.last_seq.load(Ordering::Acquire),
                at: super::now(),
                kind: "update.progress".into(),
                device: Some(device.to_string()),
                update: Some(super::hex(&update)),
                from: None,
                to: Some(counters.committed.to_string()),
                reason: None,
                component: None,
            }));
        }
    }

    /// Air bytes that are not stored yet.
    pub(crate) fn air(&self) -> MutexGuard<'_, HashMap<DeviceId, Air>> {
        lock(&self.air)
    }

    /// Updates by state and reason.
    pub(crate) fn outcomes(&self) -> MutexGuard<'_, BTreeMap<Outcome, u64>> {
        lock(&self.outcomes)
    }

    /// Notes how the last transaction ended.
    pub(crate) fn health(&self, fault: Option<&StoreError>) {
        let mut health = lock(&self.health);
        match (&health.fault, fault) {
            (None, Some(error)) => tracing::error!(%error, "the store cannot be written"),
            (Some(_), None) => tracing::info!("the store can be written again"),
            _ => {}
        }
        health.fault = fault.cloned();
    }

    /// Why the store cannot be written, if so.
    pub(crate) fn fault(&self) -> Option<StoreError> {
        lock(&self.health).fault.clone()
    }
}

/// The key records of a device.
pub(crate) fn key_records(device: &Device, keys: &Keys) -> Vec<(Handle, KeyRecord)> {
    // A record from before there was QUIC names the one suite that there was.
    let suites = match device.suites {
        0b10 => super::devices::SUITES,
        named => named,
    };
    let record = |key: &[u8; 32], which| {
        let record = KeyRecord {
            device: DeviceId::stored(&device.id),
            which,
            key: *key,
            suites,
            dials: super::types::Dials::default(),
        };
        (DeviceKey::new(*key).handle(), record)
    };
    let pending = keys
        .pending
        .as_ref()
        .map(|key| record(key, WhichKey::Pending));
    std::iter::once(record(&keys.current, WhichKey::Current))
        .chain(pending)
        .collect()
}

/// Locks; a panic elsewhere leaves data that is still whole, since every section here only replaces values.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
