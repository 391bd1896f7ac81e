//! What the operator does with devices: add, list, hold, rotate the key, state a list of gateways, remove.

use std::collections::HashMap;
use std::sync::Arc;

use dialhome_proto::id::Handle;
use dialhome_proto::link::DeviceKey;
use dialhome_proto::statement::is_endpoint;
use rusqlite::Connection;
use zeroize::Zeroizing;

use super::docs::{AirBytes, DeviceDoc, EventDoc};
use super::memory::key_records;
use super::seal::{Keys, Seal, random_key};
use super::sqlite::{json, record, records, row, run, value};
use super::writer::{NewEvent, Write};
use super::{Device, DeviceId, GatewaysStatement, State, Store, StoreError, hex, session, updates};

/// Devices in one page, at most.
pub(crate) const PAGE_MAX: u32 = 1000;
/// Events that a device's log shows, at most.
const LOG_MAX: u32 = 1000;

/// A device to add.
#[derive(Clone, Debug)]
pub struct NewDevice {
    /// Its id, `[A-Za-z0-9_-]{1,64}`.
    pub id: String,
    /// Its product, of the same letters.
    pub product: String,
    /// The Ed25519 public keys whose signatures it will trust, 1 to 4.
    pub trust_keys: Vec<[u8; 32]>,
    /// The gateways that it will dial, 1 to 4, HOST:PORT.
    pub gateways: Vec<String>,
}

/// What a new device must be given: the only time that the key leaves the store.
pub struct Provisioned {
    /// The record.
    pub device: Device,
    /// The device key.
    pub key: Zeroizing<[u8; 32]>,
    /// The key's handle, 16 hexadecimal digits.
    pub key_handle: String,
}

/// What a new device may use: Noise over TCP, and the proof over QUIC.
pub(crate) const SUITES: u8 = 1 << 1 | 1 << 3;

impl Store {
    /// Adds a device and makes its key.
    ///
    /// # Errors
    /// `Conflict` where the id is taken, `Invalid` where a value is not as it must be.
    pub async fn add_device(&self, new: NewDevice) -> Result<Provisioned, StoreError> {
        check(&new)?;
        let key = random_key()?;
        self.change(move |write| {
            if device(write.db, &new.id)?.is_some() {
                return Err(StoreError::conflict(
                    "exists",
                    format!("there is already a device {}", new.id),
                    "Its key is never shown again: to provision the board anew, `dialhome device remove` it first.",
                ));
            }
            let device = Device {
                id: new.id,
                product: new.product,
                trust_keys: new.trust_keys.iter().map(|key| hex(key)).collect(),
                trust_threshold: 1,
                trust_epoch: 1,
                gateways: new.gateways,
                suites: SUITES,
                hold: false,
                gateways_statement: None,
                added: write.now,
            };
            put(write.db, &device)?;
            let keys = Keys { current: key.clone(), pending: None };
            put_keys(write, &device, &keys)?;
            changed(write, &device.id, "added", None)?;
            let key_handle = DeviceKey::new(*key).handle().to_string();
            Ok(Provisioned { device, key, key_handle })
        })
        .await
    }

    /// Removes a device with its key; its open update ends as `canceled`, or `abandoned` if the board has heard of it.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn remove_device(&self, id: &str) -> Result<(), StoreError> {
        let id = id.to_owned();
        self.change(move |write| {
            let device = known(write.db, &id)?;
            for update in updates::open_ids(write.db, &id)? {
                updates::end_by_operator(write, &update, "device_removed")?;
            }
            if let Some(keys) = keys(write.db, write.seal, &id)? {
                for (handle, _) in key_records(&device, &keys) {
                    write.key(handle, None);
                }
            }
            for table in ["device", "device_secret", "device_state"] {
                run(
                    write.db,
                    &format!("DELETE FROM {table} WHERE id = ?1"),
                    [&id],
                )?;
            }
            changed(write, &id, "removed", None)
        })
        .await
    }

    /// Makes a pending key for the device; the one that is pending already stays.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn rotate_key(&self, id: &str) -> Result<(), StoreError> {
        let id = id.to_owned();
        let fresh = random_key()?;
        self.change(move |write| {
            let device = known(write.db, &id)?;
            let mut keys = secret(write.db, write.seal, &id)?;
            if keys.pending.is_none() {
                keys.pending = Some(fresh);
                put_keys(write, &device, &keys)?;
                changed(write, &id, "key_rotation", None)?;
            }
            write.wake(&id);
            Ok(())
        })
        .await
    }

    /// Stores a signed list of gateways, to be told to the board.
    ///
    /// # Errors
    /// `Invalid` where the board would refuse it: malformed, for another device, not signed by its trust, not newer.
    pub async fn set_gateways(&self, id: &str, bytes: Vec<u8>) -> Result<(), StoreError> {
        let id = id.to_owned();
        self.change(move |write| {
            let mut device = known(write.db, &id)?;
            let in_force = gateways_epoch(write.db, &device)?;
            let (epoch, gateways) = super::trust::check_statement(&device, &bytes, in_force)?;
            device.gateways_statement = Some(GatewaysStatement {
                epoch,
                gateways,
                bytes,
                stored: false,
                refused: None,
            });
            put(write.db, &device)?;
            changed(write, &id, "gateways", None)
        })
        .await
    }

    /// The highest epoch of a list of gateways that the device is known to have, or to be about to have.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn gateways_epoch(&self, id: &str) -> Result<u32, StoreError> {
        let id = id.to_owned();
        self.read(move |db| gateways_epoch(db, &known(db, &id)?))
            .await
    }

    /// Holds or releases one device.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn set_device_hold(&self, id: &str, hold: bool) -> Result<(), StoreError> {
        let id = id.to_owned();
        self.change(move |write| {
            let mut device = known(write.db, &id)?;
            if device.hold == hold {
                return Ok(());
            }
            device.hold = hold;
            put(write.db, &device)?;
            changed(write, &id, if hold { "held" } else { "released" }, None)
        })
        .await
    }

    /// The device's document, without presence.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn device_doc(&self, id: &str) -> Result<DeviceDoc, StoreError> {
        let id = id.to_owned();
        let seal = Arc::clone(&self.0.seal);
        let air = self.0.memory.air().clone();
        self.read(move |db| doc(db, &known(db, &id)?, &seal, &air))
            .await
    }

    /// Devices by id, at most `limit` of them, those after `after`; and the id to go on after.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn device_docs(
        &self,
        after: Option<String>,
        limit: u32,
    ) -> Result<(Vec<DeviceDoc>, Option<String>), StoreError> {
        let limit = limit.clamp(1, PAGE_MAX);
        let seal = Arc::clone(&self.0.seal);
        let air = self.0.memory.air().clone();
        self.read(move |db| {
            let sql = "SELECT body FROM device WHERE id > ?1 ORDER BY id LIMIT ?2";
            let mut devices: Vec<Device> =
                records(db, sql, (after.unwrap_or_default(), limit + 1))?;
            let more = devices.len() > limit as usize;
            devices.truncate(limit as usize);
            let next = devices
                .last()
                .filter(|_| more)
                .map(|device| device.id.clone());
            let docs = devices
                .iter()
                .map(|device| doc(db, device, &seal, &air))
                .collect::<Result<_, _>>()?;
            Ok((docs, next))
        })
        .await
    }

    /// How many devices there are, and how many of them are on hold by themselves.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn device_counts(&self) -> Result<(u64, u64), StoreError> {
        let held = self
            .0
            .memory
            .flags
            .iter()
            .filter(|flags| flags.hold)
            .count() as u64;
        let all = self
            .read(|db| {
                Ok(value::<i64>(db, "SELECT count(*) FROM device", [])?
                    .unwrap_or(0)
                    .unsigned_abs())
            })
            .await?;
        Ok((all, held))
    }

    /// Air bytes of all devices: sent, received.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn air_totals(&self) -> Result<(u64, u64), StoreError> {
        self.read(|db| {
            let sql = "SELECT coalesce(sum(air_sent), 0), coalesce(sum(air_received), 0) FROM device_state";
            let totals = row(db, sql, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
            let (sent, received) = totals.unwrap_or_default();
            Ok((sent.unsigned_abs(), received.unsigned_abs()))
        })
        .await
    }

    /// The device's last events, oldest first.
    ///
    /// # Errors
    /// `NotFound` where there is neither the device nor an event of it.
    pub async fn device_log(&self, id: &str, limit: u32) -> Result<Vec<EventDoc>, StoreError> {
        let id = id.to_owned();
        self.read(move |db| {
            let sql = "SELECT json_set(body, '$.seq', seq) FROM event WHERE device = ?1 ORDER BY seq DESC LIMIT ?2";
            let mut events: Vec<EventDoc> = records(db, sql, (&id, limit.clamp(1, LOG_MAX)))?;
            if events.is_empty() {
                known(db, &id)?;
            }
            events.reverse();
            Ok(events)
        })
        .await
    }
}

fn check(new: &NewDevice) -> Result<(), StoreError> {
    let name = |what: &str, text: &str| {
        if dialhome_proto::id::is_name(text) {
            return Ok(());
        }
        Err(StoreError::invalid(
            "bad_name",
            format!("\"{text}\" is no {what}: use 1 to 64 letters, digits, _ and -"),
        ))
    };
    name("device id", &new.id)?;
    name("product", &new.product)?;
    if !(1..=4).contains(&new.trust_keys.len()) {
        return Err(StoreError::invalid(
            "bad_trust",
            "a device trusts 1 to 4 public keys",
        ));
    }
    if new
        .trust_keys
        .iter()
        .enumerate()
        .any(|(place, key)| new.trust_keys[..place].contains(key))
    {
        return Err(StoreError::invalid(
            "bad_trust",
            "the same public key is given twice",
        ));
    }
    if !(1..=4).contains(&new.gateways.len()) {
        return Err(StoreError::invalid(
            "bad_gateway",
            "a device has 1 to 4 gateways",
        ));
    }
    match new.gateways.iter().find(|gateway| !is_endpoint(gateway)) {
        None => Ok(()),
        Some(gateway) => Err(StoreError::invalid(
            "bad_gateway",
            format!("\"{gateway}\" is no gateway: write HOST:PORT, an IPv6 address in brackets"),
        )),
    }
}

/// The device's record, which must exist.
pub(super) fn known(db: &Connection, id: &str) -> Result<Device, StoreError> {
    device(db, id)?.ok_or_else(|| StoreError::not_found("device", id))
}

/// The device's record.
pub(super) fn device(db: &Connection, id: &str) -> Result<Option<Device>, StoreError> {
    record(db, "SELECT body FROM device WHERE id = ?1", [id])
}

/// Stores the device's record.
pub(super) fn put(db: &Connection, device: &Device) -> Result<(), StoreError> {
    run(
        db,
        "INSERT INTO device (id, revision, body) VALUES (?1, 1, ?2)
         ON CONFLICT (id) DO UPDATE SET revision = revision + 1, body = excluded.body",
        (&device.id, json(device)?),
    )?;
    Ok(())
}

/// The device's keys, opened.
pub(super) fn keys(db: &Connection, seal: &Seal, id: &str) -> Result<Option<Keys>, StoreError> {
    let sealed: Option<Vec<u8>> =
        value(db, "SELECT sealed FROM device_secret WHERE id = ?1", [id])?;
    let Some(sealed) = sealed else {
        return Ok(None);
    };
    let unreadable = || StoreError::Database(format!("the key of device {id} does not open"));
    seal.open_keys(id, &sealed).map(Some).ok_or_else(unreadable)
}

fn secret(db: &Connection, seal: &Seal, id: &str) -> Result<Keys, StoreError> {
    keys(db, seal, id)?.ok_or_else(|| StoreError::not_found("device", id))
}

fn put_keys(write: &mut Write<'_>, device: &Device, keys: &Keys) -> Result<(), StoreError> {
    let sealed = write.seal.seal(&device.id, keys)?;
    run(
        write.db,
        "INSERT INTO device_secret (id, revision, sealed) VALUES (?1, 1, ?2)
         ON CONFLICT (id) DO UPDATE SET revision = revision + 1, sealed = excluded.sealed",
        (&device.id, sealed),
    )?;
    for (handle, key) in key_records(device, keys) {
        write.key(handle, Some(key));
    }
    Ok(())
}

pub(super) fn retire_old_key(
    write: &mut Write<'_>,
    id: &str,
    used: Handle,
) -> Result<(), StoreError> {
    let device = known(write.db, id)?;
    let mut keys = secret(write.db, write.seal, id)?;
    // Another rotation may have come since the board shook hands: only its own key counts.
    let pending = keys.pending.take();
    let Some(pending) = pending.filter(|pending| DeviceKey::new(**pending).handle() == used) else {
        return Ok(());
    };
    let old = std::mem::replace(&mut keys.current, pending);
    write.key(DeviceKey::new(*old).handle(), None);
    put_keys(write, &device, &keys)?;
    changed(write, id, "key_rotated", None)
}

/// What follows from every change of a device: its flags, an event, and a word to its session.
fn changed(
    write: &mut Write<'_>,
    id: &str,
    to: &str,
    reason: Option<&str>,
) -> Result<(), StoreError> {
    write.touch(id);
    write.wake(id);
    write.event(NewEvent {
        kind: "device.changed",
        device: Some(id),
        to: Some(to),
        reason,
        ..NewEvent::default()
    })
}

fn gateways_epoch(db: &Connection, device: &Device) -> Result<u32, StoreError> {
    let stated = device.gateways_statement.as_ref();
    let stated = stated.map_or(0, |statement| {
        statement.epoch.max(statement.refused.unwrap_or(0))
    });
    let told = session::last_hello(db, &device.id)?.map_or(0, |hello| hello.gateways_epoch);
    Ok(stated.max(told))
}

fn doc(
    db: &Connection,
    device: &Device,
    seal: &Seal,
    air: &HashMap<DeviceId, super::memory::Air>,
) -> Result<DeviceDoc, StoreError> {
    let id = &device.id;
    let revision: i64 = value(db, "SELECT revision FROM device WHERE id = ?1", [id])?.unwrap_or(0);
    let keys = keys(db, seal, id)?;
    let state = session::state(db, id)?.unwrap_or_default();
    let waiting = air.get(id.as_str()).copied().unwrap_or_default();
    let hello = state.hello.clone();
    let text = |text: fn(&super::HelloRecord) -> &str| {
        hello
            .as_ref()
            .map(text)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    let statement = device.gateways_statement.as_ref();
    Ok(DeviceDoc {
        device: id.clone(),
        product: device.product.clone(),
        online: false,
        presence: "offline".into(),
        last_contact: state.last_contact,
        last_disconnect: state.last_disconnect,
        transport: text(|hello| &hello.transport),
        peer: hello.as_ref().and_then(|hello| hello.peer.clone()),
        quic: None,
        network: text(|hello| &hello.network),
        key_handle: keys.as_ref().map_or_else(String::new, |keys| {
            DeviceKey::new(*keys.current).handle().to_string()
        }),
        update: updates::open_ids(db, id)?.into_iter().next(),
        air_bytes: AirBytes {
            sent: state.air_sent + waiting.sent,
            received: state.air_received + waiting.received,
        },
        waiting_for: None,
        revision: revision.unsigned_abs(),
        hold: device.hold,
        key_rotation: keys.is_some_and(|keys| keys.pending.is_some()),
        gateways: statement.map_or_else(
            || device.gateways.clone(),
            |statement| statement.gateways.clone(),
        ),
        gateways_epoch: statement.map_or(0, |statement| statement.epoch),
        gateways_stored: statement.is_none_or(|statement| statement.stored),
        components: hello.map(|hello| hello.components).unwrap_or_default(),
    })
}

/// Forgets that a component is on trial for this update: the trial has ended.
pub(super) fn end_trial(
    write: &Write<'_>,
    device: &str,
    update: &str,
    ended: State,
) -> Result<(), StoreError> {
    if ended != State::Confirmed {
        return Ok(());
    }
    let Some(mut hello) = session::last_hello(write.db, device)? else {
        return Ok(());
    };
    let mut any = false;
    for component in &mut hello.components {
        if component.trial.as_deref() == Some(update) {
            component.trial = None;
            any = true;
        }
    }
    if any {
        session::put_hello(write.db, device, &hello)
    } else {
        Ok(())
    }
}
