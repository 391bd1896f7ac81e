//! The store: what the gateway must not forget. SQLite in the data directory is the truth.
//!
//! One thread writes ([`Store`]'s changes wait for its commit); reads go through a few connections of their own;
//! what a session needs many times a second is in memory. What an operator or a board is told is committed first.

mod archive;
mod devices;
pub mod docs;
mod error;
mod events;
mod images;
mod lock;
mod memory;
mod push;
mod quic_key;
mod readers;
mod seal;
mod session;
mod sqlite;
#[cfg(test)]
mod tests;
mod trust;
mod types;
mod updates;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub use archive::{BackupFacts, RestoreReport};
pub use devices::{NewDevice, Provisioned};
pub use error::StoreError;
pub use events::Log;
pub use images::Added;
pub use push::{Created, Push};
pub use sqlite::FORMAT;
pub use types::*;

use memory::Memory;
pub(crate) use quic_key::QuicKey;
use readers::Readers;
use seal::Seal;
use writer::{NewEvent, Write, Writer};

/// How often deadlines are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks after which what is only in memory (air bytes, progress) is stored: each transfer
/// that is under way then costs two records.
const FLUSH_EVERY: u32 = 10;

/// The store. Cheap to clone; every clone is the same store.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    data: PathBuf,
    writer: Writer,
    readers: Readers,
    memory: Arc<Memory>,
    seal: Arc<Seal>,
    /// What boards know this gateway by over QUIC; a restore puts another in its place.
    quic_key: std::sync::Mutex<QuicKey>,
    /// Held for reading while a backup reads image files, for writing while one is removed.
    files: tokio::sync::RwLock<()>,
    _lock: lock::DataLock,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.0.data.display())
    }
}

impl Store {
    /// Opens the data directory, making it where there is none. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// In words: in use by another gateway, locked, damaged, from a newer version, no room, no permission.
    pub fn open(data: &Path) -> Result<Self, StoreError> {
        let lock = lock::DataLock::take(data)?;
        // What a killed gateway left half done.
        let _ = std::fs::remove_dir_all(data.join("tmp"));
        let db = sqlite::open_for_writing(data)?;
        let path = data.join(sqlite::DATABASE);
        let devices = sqlite::value::<i64>(&db, "SELECT count(*) FROM device", [])?.unwrap_or(0);
        let seal = Arc::new(Seal::open(data, devices == 0)?);
        let quic_key = std::sync::Mutex::new(QuicKey::open(data, devices == 0)?);
        let memory = Arc::new(Memory::new());
        let starts = count_start(&db)?;
        memory.generation.store(starts << 32, Ordering::Release);
        end_old_sessions(&db, &seal, &memory)?;
        memory.load(&db, &seal, &data.join(seal::SECRET_KEY))?;
        let writer = Writer::start(db, Arc::clone(&seal), Arc::clone(&memory))?;
        let store = Self(Arc::new(Inner {
            data: data.into(),
            writer,
            readers: Readers::new(path),
            memory,
            seal,
            quic_key,
            files: tokio::sync::RwLock::default(),
            _lock: lock,
        }));
        let weak = Arc::downgrade(&store.0);
        tokio::spawn(async move {
            let mut looks = 0_u32;
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                looks = looks.wrapping_add(1);
                let Some(inner) = weak.upgrade() else { return };
                let store = Self(inner);
                // A failure is in the health already; what was not stored is tried again.
                if looks.is_multiple_of(FLUSH_EVERY) {
                    let _ = store.flush().await;
                }
                let _ = store.expire().await;
            }
        });
        Ok(store)
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.0.data
    }

    /// The key that boards know this gateway by over QUIC.
    pub(crate) fn quic_key(&self) -> QuicKey {
        memory::lock(&self.0.quic_key).clone()
    }

    /// SHA-256 of the key that boards know this gateway by over QUIC, 64 hexadecimal digits.
    #[must_use]
    pub fn quic_pin(&self) -> String {
        hex(&memory::lock(&self.0.quic_key).pin())
    }

    /// Where the image files are (`gateway/src/image/store.rs` owns what is in it).
    #[must_use]
    pub fn images_dir(&self) -> PathBuf {
        self.0.data.join("images")
    }

    /// Why the store cannot be written, where the last change could not be stored.
    #[must_use]
    pub fn fault(&self) -> Option<StoreError> {
        self.0.memory.fault()
    }

    /// Everything is on hold.
    #[must_use]
    pub fn held(&self) -> bool {
        self.0.memory.hold.load(Ordering::Acquire)
    }

    /// Holds or releases everything; wakes every session.
    ///
    /// # Errors
    /// Where it cannot be stored.
    pub async fn set_hold(&self, hold: bool) -> Result<(), StoreError> {
        self.change(move |write| {
            let value = if hold { "1" } else { "0" };
            if sqlite::run(
                write.db,
                "UPDATE meta SET value = ?1 WHERE key = 'hold' AND value <> ?1",
                [value],
            )? == 0
            {
                return Ok(());
            }
            write.hold(hold);
            write.wake_all();
            let to = if hold { "held" } else { "released" };
            write.event(NewEvent {
                kind: "device.changed",
                to: Some(to),
                reason: Some("everything"),
                ..NewEvent::default()
            })
        })
        .await
    }

    /// Devices whose work may have changed (intent, hold, key, gateways); `None` means every device.
    #[must_use]
    pub fn subscribe_wakes(&self) -> tokio::sync::mpsc::UnboundedReceiver<Option<DeviceId>> {
        self.0.memory.listen_for_wakes()
    }

    /// Stores what is only in memory: call it before the gateway ends.
    ///
    /// # Errors
    /// Where it cannot be stored; it is kept and tried again.
    pub async fn flush(&self) -> Result<(), StoreError> {
        self.flush_air().await?;
        self.flush_progress().await
    }

    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Write<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.0.writer.change(change).await
    }

    async fn record<T: Send + 'static>(
        &self,
        record: impl FnOnce(&mut Write<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.0.writer.record(record).await
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&rusqlite::Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.0.readers.read(read).await
    }
}

/// Counts this start: the high half of every session's generation.
fn count_start(db: &rusqlite::Connection) -> Result<u64, StoreError> {
    sqlite::run(
        db,
        "UPDATE meta SET value = CAST(CAST(value AS INTEGER) + 1 AS TEXT) WHERE key = 'starts'",
        [],
    )?;
    let starts = sqlite::value::<String>(db, "SELECT value FROM meta WHERE key = 'starts'", [])?;
    Ok(starts.and_then(|starts| starts.parse().ok()).unwrap_or(1))
}

/// Ends the sessions that a killed gateway left as connected.
fn end_old_sessions(
    db: &rusqlite::Connection,
    seal: &Seal,
    memory: &Memory,
) -> Result<(), StoreError> {
    let left: Vec<String> = sqlite::records(
        db,
        "SELECT json_quote(id) FROM device_state WHERE connected = 1",
        [],
    )?;
    if left.is_empty() {
        return Ok(());
    }
    let change = db
        .unchecked_transaction()
        .map_err(|error| sqlite::explain_on(db, error))?;
    let mut write = Write {
        db: &change,
        seal,
        memory,
        now: now(),
        after: writer::After::default(),
    };
    for device in &left {
        session::end(&mut write, device, None, "gateway_stopped")?;
    }
    change
        .commit()
        .map_err(|error| sqlite::explain_on(db, error))
}
