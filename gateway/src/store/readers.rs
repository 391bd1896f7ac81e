//! Connections for reading: a few, kept open, used from blocking threads.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::memory::lock;
use super::{StoreError, sqlite};

/// Reads at the same time, at most: a connection's page cache is 2 MB.
const READERS: usize = 4;

pub(crate) struct Readers {
    path: PathBuf,
    idle: Arc<Mutex<Vec<Connection>>>,
    turns: Arc<Semaphore>,
}

impl Readers {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            idle: Arc::default(),
            turns: Arc::new(Semaphore::new(READERS)),
        }
    }

    /// Runs `read` on a connection of its own, off the runtime's threads.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let turn = Arc::clone(&self.turns)
            .acquire_owned()
            .await
            .map_err(|_| StoreError::Stopped)?;
        let (idle, path) = (Arc::clone(&self.idle), self.path.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let kept = lock(&idle).pop();
            let db = kept.map_or_else(|| sqlite::open_for_reading(&path), Ok)?;
            let outcome = read(&db);
            lock(&idle).push(db);
            outcome
        });
        reading.await.map_err(|_| StoreError::Stopped)?
    }
}
