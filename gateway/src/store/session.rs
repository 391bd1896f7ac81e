//! What a board's session asks of the store. Every `async` change is committed before it returns.

use std::sync::Arc;

use dialhome_proto::id::{Handle, UpdateId};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::{
    Change, Counters, Device, DeviceId, GatewaysStatement, HelloRecord, ImageRecord, KeyRecord,
    OpenUpdate, Store, StoreError, Work, docs::UpdateDoc,
};

impl Store {
    /// The key with this handle, current or pending; from memory.
    #[must_use]
    pub fn find_key(&self, _handle: Handle) -> Option<Arc<KeyRecord>> {
        None
    }

    /// A number for a new session, above every one given before, also before a restart.
    #[must_use]
    pub fn next_generation(&self) -> u64 {
        0
    }

    /// What there is to do for the device; from memory, without I/O.
    #[must_use]
    pub fn work(&self, _device: &str) -> Work {
        Work::default()
    }

    /// The device's record.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn device(&self, _device: &str) -> Result<Option<Device>, StoreError> {
        Err(StoreError::Stopped)
    }

    /// Records what a session's Hello said, and that the device is online.
    ///
    /// # Errors
    /// `Fenced` where a newer session has written already.
    pub async fn hello(
        &self,
        _device: &DeviceId,
        _generation: u64,
        _hello: HelloRecord,
    ) -> Result<(), StoreError> {
        Err(StoreError::Stopped)
    }

    /// Records that the session ended; a session that a newer one has replaced records nothing.
    ///
    /// # Errors
    /// Where it cannot be stored.
    pub async fn disconnected(
        &self,
        _device: &DeviceId,
        _generation: u64,
        _reason: &str,
    ) -> Result<(), StoreError> {
        Err(StoreError::Stopped)
    }

    /// Adds air bytes to the device's counters; in memory, stored within a second.
    pub fn air(&self, _device: &DeviceId, _sent: u64, _received: u64) {}

    /// The pending key, to be told by NewKey.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn pending_key(
        &self,
        _device: &str,
    ) -> Result<Option<Zeroizing<[u8; 32]>>, StoreError> {
        Err(StoreError::Stopped)
    }

    /// Makes the pending key current and drops the old one; nothing where none is pending.
    ///
    /// # Errors
    /// Where it cannot be stored: then the old key is still current.
    pub async fn retire_old_key(&self, _device: &DeviceId) -> Result<(), StoreError> {
        Err(StoreError::Stopped)
    }

    /// The list of gateways that the board has not stored yet.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn gateways_statement(
        &self,
        _device: &str,
    ) -> Result<Option<GatewaysStatement>, StoreError> {
        Err(StoreError::Stopped)
    }

    /// The board has stored the list of this epoch.
    ///
    /// # Errors
    /// Where it cannot be stored.
    pub async fn gateways_stored(&self, _device: &DeviceId, _epoch: u32) -> Result<(), StoreError> {
        Err(StoreError::Stopped)
    }

    /// The board has refused the list; `epoch` is in force there.
    ///
    /// # Errors
    /// Where it cannot be stored.
    pub async fn gateways_refused(
        &self,
        _device: &DeviceId,
        _epoch: u32,
    ) -> Result<(), StoreError> {
        Err(StoreError::Stopped)
    }

    /// The device's update that has not ended; where one replaces another, the one that must end first.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn open_update(&self, _device: &str) -> Result<Option<OpenUpdate>, StoreError> {
        Err(StoreError::Stopped)
    }

    /// An update by its id, ended or not.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn update(&self, _update: UpdateId) -> Result<Option<OpenUpdate>, StoreError> {
        Err(StoreError::Stopped)
    }

    /// Changes an update's state, with its `update.state` event in the same transaction.
    ///
    /// # Errors
    /// `Ended` where the update has ended and the change is not `stated` by the board.
    pub async fn change_update(
        &self,
        _update: UpdateId,
        _change: Change,
    ) -> Result<UpdateDoc, StoreError> {
        Err(StoreError::Stopped)
    }

    /// Notes how far a delivery is; in memory, stored within a second or with the next state.
    pub fn progress(&self, _device: &DeviceId, _update: UpdateId, _counters: Counters) {}

    /// The image with this name.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn image(&self, _name: &str) -> Result<Option<Arc<ImageRecord>>, StoreError> {
        Err(StoreError::Stopped)
    }

    /// Devices whose work may have changed (intent, hold, key, gateways); `None` means every device.
    #[must_use]
    pub fn subscribe_wakes(&self) -> mpsc::UnboundedReceiver<Option<DeviceId>> {
        mpsc::unbounded_channel().1
    }
}
