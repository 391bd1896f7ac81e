//! What a board's session asks of the store. Every `async` change is committed before it returns.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use dialhome_proto::id::{Handle, UpdateId};
use rusqlite::Connection;
use zeroize::Zeroizing;

use super::memory::{Air, Flags};
use super::sqlite::{json, record, run, value};
use super::writer::{NewEvent, Write};
use super::{
    Counters, Device, DeviceId, DeviceState, Disconnect, GatewaysStatement, HelloRecord, KeyRecord,
    Store, StoreError, WhichKey, Work, devices,
};

impl Store {
    /// The key with this handle, current or pending; from memory.
    #[must_use]
    pub fn find_key(&self, handle: Handle) -> Option<Arc<KeyRecord>> {
        self.0.memory.keys.get(&handle).map(|key| Arc::clone(&key))
    }

    /// A number for a new session, above every one given before, also before a restart.
    #[must_use]
    pub fn next_generation(&self) -> u64 {
        self.0.memory.generation.fetch_add(1, Ordering::AcqRel)
    }

    /// What there is to do for the device; from memory, without I/O.
    #[must_use]
    pub fn work(&self, device: &str) -> Work {
        let Flags {
            update,
            pending_key,
            gateways,
            hold,
        } = self
            .0
            .memory
            .flags
            .get(device)
            .map_or_else(Flags::default, |flags| *flags);
        Work {
            update,
            pending_key,
            gateways,
            held: hold || self.held(),
        }
    }

    /// The device's record.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn device(&self, device: &str) -> Result<Option<Device>, StoreError> {
        let device = device.to_owned();
        self.read(move |db| devices::device(db, &device)).await
    }

    /// What is known of the device's last session.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn device_state(&self, device: &str) -> Result<Option<DeviceState>, StoreError> {
        let device = device.to_owned();
        self.read(move |db| state(db, &device)).await
    }

    /// Records what a session's Hello said, and that the device is online.
    ///
    /// # Errors
    /// `Fenced` where a newer session has written already, `NotFound` where the device was removed.
    pub async fn hello(
        &self,
        device: &DeviceId,
        generation: u64,
        hello: HelloRecord,
    ) -> Result<(), StoreError> {
        let device = device.clone();
        self.record(move |write| {
            if value::<i64>(write.db, "SELECT 1 FROM device WHERE id = ?1", [&*device])?.is_none() {
                return Err(StoreError::not_found("device", &*device));
            }
            let mut known = state(write.db, &device)?.unwrap_or_default();
            if known.generation > generation {
                return Err(StoreError::Fenced {
                    device: device.to_string(),
                });
            }
            let from = if known.connected { "online" } else { "offline" };
            known.generation = generation;
            known.connected = true;
            known.last_contact = Some(write.now);
            let peer = hello.peer.clone();
            known.hello = Some(hello);
            put_state(write.db, &device, &known)?;
            write.event(NewEvent {
                kind: "device.online",
                device: Some(&device),
                from: Some(from),
                to: Some("online"),
                reason: peer.as_deref(),
                ..NewEvent::default()
            })
        })
        .await
    }

    /// Records that the session ended; a session that a newer one has replaced records nothing.
    ///
    /// # Errors
    /// Where it cannot be stored.
    pub async fn disconnected(
        &self,
        device: &DeviceId,
        generation: u64,
        reason: &str,
    ) -> Result<(), StoreError> {
        let (device, reason) = (device.clone(), reason.to_owned());
        self.record(move |write| end(write, &device, Some(generation), &reason))
            .await
    }

    /// Adds air bytes to the device's counters; in memory, stored within ten seconds.
    pub fn air(&self, device: &DeviceId, sent: u64, received: u64) {
        let mut waiting = self.0.memory.air();
        let air = waiting.entry(device.clone()).or_default();
        air.sent += sent;
        air.received += received;
    }

    /// The pending key, to be told by NewKey.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn pending_key(
        &self,
        device: &str,
    ) -> Result<Option<Zeroizing<[u8; 32]>>, StoreError> {
        let (device, seal) = (device.to_owned(), Arc::clone(&self.0.seal));
        self.read(move |db| Ok(devices::keys(db, &seal, &device)?.and_then(|keys| keys.pending)))
            .await
    }

    /// Makes the pending key current and drops the old one, where the pending key is the one with this
    /// handle; otherwise nothing.
    ///
    /// # Errors
    /// Where it cannot be stored: then the old key is still current.
    pub async fn retire_old_key(&self, device: &DeviceId, used: Handle) -> Result<(), StoreError> {
        let device = device.clone();
        self.change(move |write| devices::retire_old_key(write, &device, used))
            .await
    }

    /// The list of gateways that the board has not stored yet.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn gateways_statement(
        &self,
        device: &str,
    ) -> Result<Option<GatewaysStatement>, StoreError> {
        let device = self.device(device).await?;
        Ok(device
            .and_then(|device| device.gateways_statement)
            .filter(|statement| !statement.stored && statement.refused.is_none()))
    }

    /// The board has stored the list of this epoch.
    ///
    /// # Errors
    /// Where it cannot be stored.
    pub async fn gateways_stored(&self, device: &DeviceId, epoch: u32) -> Result<(), StoreError> {
        self.gateways_answered(device, move |statement| {
            if statement.epoch == epoch {
                statement.stored = true;
                statement.refused = None;
            }
        })
        .await
    }

    /// The board has refused the list; `epoch` is in force there.
    ///
    /// # Errors
    /// Where it cannot be stored.
    pub async fn gateways_refused(&self, device: &DeviceId, epoch: u32) -> Result<(), StoreError> {
        self.gateways_answered(device, move |statement| {
            // The very epoch in force was stored before: an answer to a repeat, not a refusal.
            statement.stored = statement.epoch == epoch;
            statement.refused = (statement.epoch != epoch).then_some(epoch);
        })
        .await
    }

    async fn gateways_answered(
        &self,
        device: &DeviceId,
        answer: impl FnOnce(&mut GatewaysStatement) + Send + 'static,
    ) -> Result<(), StoreError> {
        let id = device.clone();
        self.change(move |write| {
            let Some(mut device) = devices::device(write.db, &id)? else {
                return Ok(());
            };
            let Some(statement) = &mut device.gateways_statement else {
                return Ok(());
            };
            let before = statement.clone();
            answer(statement);
            if *statement == before {
                return Ok(());
            }
            let to = if statement.stored {
                "gateways_stored"
            } else {
                "gateways_refused"
            };
            devices::put(write.db, &device)?;
            write.touch(&id);
            write.event(NewEvent {
                kind: "device.changed",
                device: Some(&id),
                to: Some(to),
                ..NewEvent::default()
            })
        })
        .await
    }

    /// Notes how far a delivery is; in memory, stored within ten seconds or with the next state.
    pub fn progress(&self, device: &DeviceId, update: UpdateId, counters: Counters) {
        self.0.memory.pace(device, update.0, counters);
    }

    /// Stores the air bytes that are only in memory.
    pub(super) async fn flush_air(&self) -> Result<(), StoreError> {
        let waiting = std::mem::take(&mut *self.0.memory.air());
        if waiting.is_empty() {
            return Ok(());
        }
        let kept = waiting.clone();
        let outcome = self
            .record(move |write| {
                for (device, air) in waiting {
                    let Some(mut known) = state(write.db, &device)? else {
                        continue;
                    };
                    known.air_sent += air.sent;
                    known.air_received += air.received;
                    known.last_contact = Some(write.now);
                    put_state(write.db, &device, &known)?;
                }
                Ok(())
            })
            .await;
        if outcome.is_err() {
            let mut memory = self.0.memory.air();
            for (device, Air { sent, received }) in kept {
                let air = memory.entry(device).or_default();
                air.sent += sent;
                air.received += received;
            }
        }
        outcome
    }
}

/// Ends a session in the record; with a generation, only if it is still that one's.
pub(super) fn end(
    write: &mut Write<'_>,
    device: &str,
    generation: Option<u64>,
    reason: &str,
) -> Result<(), StoreError> {
    let Some(mut known) = state(write.db, device)? else {
        return Ok(());
    };
    if !known.connected || generation.is_some_and(|generation| generation != known.generation) {
        return Ok(());
    }
    known.connected = false;
    if generation.is_some() {
        known.last_contact = Some(write.now);
    }
    known.last_disconnect = Some(Disconnect {
        at: write.now,
        reason: reason.into(),
    });
    put_state(write.db, device, &known)?;
    write.event(NewEvent {
        kind: "device.offline",
        device: Some(device),
        from: Some("online"),
        to: Some("offline"),
        reason: Some(reason),
        ..NewEvent::default()
    })
}

/// The device's state record.
pub(super) fn state(db: &Connection, device: &str) -> Result<Option<DeviceState>, StoreError> {
    record(db, "SELECT body FROM device_state WHERE id = ?1", [device])
}

/// Stores the device's state record.
pub(super) fn put_state(
    db: &Connection,
    device: &str,
    state: &DeviceState,
) -> Result<(), StoreError> {
    run(
        db,
        "INSERT INTO device_state (id, revision, connected, body) VALUES (?1, 1, ?2, ?3)
         ON CONFLICT (id) DO UPDATE SET revision = revision + 1, connected = excluded.connected, body = excluded.body",
        (device, state.connected, json(state)?),
    )?;
    Ok(())
}

impl WhichKey {
    /// The name in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Pending => "pending",
        }
    }
}
