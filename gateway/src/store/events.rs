//! Events: stored ones by number, live ones as they come.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::broadcast;

use super::docs::EventDoc;
use super::sqlite::{records, value};
use super::{Store, StoreError};

/// Events in one page, at most.
const PAGE_MAX: u32 = 1000;

/// Stored events from some number on.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// The events, oldest first.
    pub events: Vec<EventDoc>,
    /// The oldest event that is still kept, where events were asked for that are not.
    pub missed_before: Option<u64>,
    /// There are more.
    pub more: bool,
}

impl Store {
    /// The stored events above `since`, at most `limit`; without `since` the last ones.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn events(&self, since: Option<u64>, limit: u32) -> Result<Log, StoreError> {
        let limit = limit.clamp(1, PAGE_MAX);
        self.read(move |db| {
            let Some(since) = since else {
                let sql = "SELECT json_set(body, '$.seq', seq) FROM event ORDER BY seq DESC LIMIT ?1";
                let mut events: Vec<EventDoc> = records(db, sql, [limit])?;
                events.reverse();
                return Ok(Log { events, ..Log::default() });
            };
            let oldest = value::<i64>(db, "SELECT min(seq) FROM event HAVING min(seq) IS NOT NULL", [])?.unwrap_or(0).unsigned_abs();
            let sql = "SELECT json_set(body, '$.seq', seq) FROM event WHERE seq > ?1 ORDER BY seq LIMIT ?2";
            let mut events: Vec<EventDoc> = records(db, sql, (i64::try_from(since).unwrap_or(i64::MAX), limit + 1))?;
            let more = events.len() > limit as usize;
            events.truncate(limit as usize);
            let missed_before = (oldest > since.saturating_add(1)).then_some(oldest);
            Ok(Log { events, missed_before, more })
        })
        .await
    }

    /// Live events, `update.progress` included. A listener that is too slow is told how many it missed.
    #[must_use]
    pub fn subscribe_events(&self) -> broadcast::Receiver<Arc<EventDoc>> {
        self.0.memory.events.subscribe()
    }

    /// The number of the last stored event.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.0.memory.last_seq.load(Ordering::Acquire)
    }
}
