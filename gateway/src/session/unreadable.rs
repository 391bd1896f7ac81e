//! Which sessions have an update to deliver whose image cannot be read, until it is added again.

use super::registry::Handle;
use crate::store::DeviceId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The sessions, by device, each with the sentence that an operator is told.
#[derive(Debug, Default)]
pub(super) struct Unreadable(Mutex<BTreeMap<DeviceId, (Arc<Handle>, String)>>);

impl Unreadable {
    fn sessions(&self) -> MutexGuard<'_, BTreeMap<DeviceId, (Arc<Handle>, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session waits for an image.
    pub(super) fn note(&self, device: &DeviceId, session: &Arc<Handle>, sentence: String) {
        let noted = (Arc::clone(session), sentence);
        self.sessions().insert(device.clone(), noted);
    }

    /// The session no longer does: it looks anew, or it ends.
    pub(super) fn forget(&self, device: &DeviceId, session: &Handle) {
        let mut sessions = self.sessions();
        let is_its_own =
            |(noted, _): &(Arc<Handle>, String)| noted.generation == session.generation;
        if sessions.get(device).is_some_and(is_its_own) {
            sessions.remove(device);
        }
    }

    /// What the session waits for, in one sentence.
    pub(super) fn sentence(&self, device: &str, session: &Handle) -> Option<String> {
        let sessions = self.sessions();
        let (noted, sentence) = sessions.get(device)?;
        (noted.generation == session.generation).then(|| sentence.clone())
    }

    /// How many sessions wait, and what one of them waits for.
    pub(super) fn problem(&self) -> Option<String> {
        let sessions = self.sessions();
        let (device, (_, sentence)) = sessions.first_key_value()?;
        Some(crate::admin::unreadable_images(
            sessions.len(),
            device,
            sentence,
        ))
    }

    /// Images have changed: every session that waits for one looks again.
    pub(super) fn wake(&self) {
        let waiting: Vec<Arc<Handle>> = self
            .sessions()
            .values()
            .map(|(session, _)| Arc::clone(session))
            .collect();
        waiting.iter().for_each(|session| session.tell());
    }
}
