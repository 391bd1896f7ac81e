//! What a board's session asks of the store. Every `async` change is committed before it returns.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use dialhome_proto::id::{Handle, UpdateId};
use jiff::Timestamp;
use rusqlite::Connection;
use rusqlite::types::Type;
use zeroize::Zeroizing;

use super::memory::{Air, Flags};
use super::sqlite::{json, parse, record, row, run};
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
            let sql = "SELECT coalesce(connected, 0), coalesce(generation, 0) FROM device
                       LEFT JOIN device_state ON device_state.id = device.id WHERE device.id = ?1";
            let (connected, last): (bool, i64) =
                row(write.db, sql, [&*device], |row| Ok((row.get(0)?, row.get(1)?)))?
                    .ok_or_else(|| StoreError::not_found("device", &*device))?;
            if last.unsigned_abs() > generation {
                return Err(StoreError::Fenced {
                    device: device.to_string(),
                });
            }
            let from = if connected { "online" } else { "offline" };
            let body = json(&hello)?;
            let peer = hello.peer;
            run(
                write.db,
                "INSERT INTO device_state (id, revision, generation, connected, last_contact, air_sent, air_received, hello)
                 VALUES (?1, 1, ?2, 1, ?3, 0, 0, ?4)
                 ON CONFLICT (id) DO UPDATE SET revision = revision + 1, generation = excluded.generation, connected = 1,
                 last_contact = excluded.last_contact, hello = excluded.hello",
                (&*device, generation.cast_signed(), write.now.to_string(), body),
            )?;
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
                let now = write.now.to_string();
                for (device, air) in waiting {
                    run(
                        write.db,
                        "UPDATE device_state SET revision = revision + 1, last_contact = iif(?4 > 0, ?2, last_contact),
                         air_sent = air_sent + ?3, air_received = air_received + ?4 WHERE id = ?1",
                        (
                            &*device,
                            &now,
                            air.sent.cast_signed(),
                            air.received.cast_signed(),
                        ),
                    )?;
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
    let ended = run(
        write.db,
        "UPDATE device_state SET revision = revision + 1, connected = 0, disconnected_at = ?3, disconnect_reason = ?4
         WHERE id = ?1 AND connected = 1 AND (?2 IS NULL OR generation = ?2)",
        (
            device,
            generation.map(u64::cast_signed),
            write.now.to_string(),
            reason,
        ),
    )?;
    if ended == 0 {
        return Ok(());
    }
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
    let sql = "SELECT generation, connected, last_contact, disconnected_at, disconnect_reason, air_sent, air_received, hello
               FROM device_state WHERE id = ?1";
    let found = row(db, sql, [device], |row| {
        let time = |column: usize| {
            let text: Option<String> = row.get(column)?;
            let time = text.map(|text| text.parse::<Timestamp>()).transpose();
            time.map_err(|error| {
                rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
            })
        };
        let reason: Option<String> = row.get(4)?;
        let state = DeviceState {
            generation: row.get::<_, i64>(0)?.unsigned_abs(),
            connected: row.get(1)?,
            last_contact: time(2)?,
            last_disconnect: time(3)?
                .zip(reason)
                .map(|(at, reason)| Disconnect { at, reason }),
            air_sent: row.get::<_, i64>(5)?.unsigned_abs(),
            air_received: row.get::<_, i64>(6)?.unsigned_abs(),
            hello: None,
        };
        Ok((state, row.get::<_, Option<String>>(7)?))
    })?;
    let Some((state, hello)) = found else {
        return Ok(None);
    };
    let hello = hello.map(|hello| parse(&hello)).transpose()?;
    Ok(Some(DeviceState { hello, ..state }))
}

/// What the device's last Hello said.
pub(super) fn last_hello(db: &Connection, device: &str) -> Result<Option<HelloRecord>, StoreError> {
    let sql = "SELECT hello FROM device_state WHERE id = ?1 AND hello IS NOT NULL";
    record(db, sql, [device])
}

/// Corrects what the last Hello said.
pub(super) fn put_hello(
    db: &Connection,
    device: &str,
    hello: &HelloRecord,
) -> Result<(), StoreError> {
    let sql = "UPDATE device_state SET revision = revision + 1, hello = ?2 WHERE id = ?1";
    run(db, sql, (device, json(hello)?)).map(drop)
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
