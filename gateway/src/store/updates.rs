//! Updates: pushed by the operator (`push.rs`), carried by the session, ended by the board's word or the operator's.

use std::sync::Arc;

use dialhome_proto::id::UpdateId;
use rusqlite::Connection;

use super::docs::{UpdateDoc, UpdateEntryDoc};
use super::memory::{Memory, Outcome};
use super::sqlite::{json, parse, record, records, row, run};
use super::writer::{NewEvent, Write};
use super::{
    Change, Counters, LaterStatement, OpenUpdate, Overdue, State, Store, StoreError, UpdateIntent,
    UpdateState, devices, images, push,
};

/// Statements kept of a board about an update that has ended.
const LATER_MAX: usize = 8;
/// Letters of an output's last line that its event shows.
const OUTPUT_LINE_MAX: usize = 200;

impl Store {
    /// The device's update that has not ended; where one replaces another, the one that must end first.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn open_update(&self, device: &str) -> Result<Option<OpenUpdate>, StoreError> {
        let (device, memory) = (device.to_owned(), Arc::clone(&self.0.memory));
        self.read(move |db| match open_ids(db, &device)?.first() {
            Some(id) => whole(db, &memory, id),
            None => Ok(None),
        })
        .await
    }

    /// An update by its id, ended or not; none also where its image was removed since it ended.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn update(&self, update: UpdateId) -> Result<Option<OpenUpdate>, StoreError> {
        let memory = Arc::clone(&self.0.memory);
        self.read(move |db| whole(db, &memory, &update.to_string()))
            .await
    }

    /// What an operator wanted with an update, ended or not.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn intent(&self, update: UpdateId) -> Result<Option<UpdateIntent>, StoreError> {
        self.read(move |db| {
            record(
                db,
                "SELECT body FROM update_intent WHERE id = ?1",
                [update.to_string()],
            )
        })
        .await
    }

    /// Changes an update's state, with its `update.state` event in the same transaction.
    ///
    /// # Errors
    /// `Ended` where the update has ended and the change is not `stated` by the board.
    pub async fn change_update(&self, update: UpdateId, change: Change) -> Result<(), StoreError> {
        let (_, state) = self
            .record(move |write| apply(write, &update.to_string(), change))
            .await?;
        if state.state.is_terminal() {
            self.0.memory.progress.remove(&update.0);
        }
        Ok(())
    }

    /// Asks to cancel an update. What the board never heard of is canceled at once.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` where it has ended or is being activated.
    pub async fn cancel_update(&self, update: UpdateId) -> Result<UpdateDoc, StoreError> {
        self.change(move |write| cancel(write, &update.to_string(), "operator"))
            .await
    }

    /// Ends an update in the record without the board's word.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` where it has ended.
    pub async fn abandon_update(&self, update: UpdateId) -> Result<UpdateDoc, StoreError> {
        self.change(move |write| {
            let id = update.to_string();
            let (mut intent, state) = both(write.db, &id)?;
            if state.state.is_terminal() {
                return Err(has_ended(&id, &state));
            }
            intent.abandoned = Some(write.now);
            put_intent(write.db, &intent)?;
            write.wake(&intent.device);
            let (intent, state) =
                apply(write, &id, Change::to(State::Abandoned).because("operator"))?;
            Ok(doc(&intent, &state))
        })
        .await
    }

    /// The update's document.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn update_doc(&self, update: UpdateId) -> Result<UpdateDoc, StoreError> {
        let memory = Arc::clone(&self.0.memory);
        self.read(move |db| {
            let (intent, mut state) = both(db, &update.to_string())?;
            state.counters = counters(&memory, &intent, &state);
            Ok(doc(&intent, &state))
        })
        .await
    }

    /// Updates, newest first, at most `limit`, those older than `before`; of one device, and open ones only, if asked.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn update_docs(
        &self,
        device: Option<String>,
        open: bool,
        before: Option<String>,
        limit: u32,
    ) -> Result<(Vec<UpdateDoc>, Option<String>), StoreError> {
        let memory = Arc::clone(&self.0.memory);
        let limit = limit.clamp(1, devices::PAGE_MAX);
        self.read(move |db| {
            let sql = "SELECT json_quote(id) FROM update_state WHERE (?1 IS NULL OR device = ?1) AND (?2 = 0 OR open = 1)
                       AND (?3 IS NULL OR id < ?3) ORDER BY id DESC LIMIT ?4";
            let mut ids: Vec<String> = records(db, sql, (device, open, before, limit + 1))?;
            let more = ids.len() > limit as usize;
            ids.truncate(limit as usize);
            let docs = ids
                .iter()
                .map(|id| {
                    let (intent, mut state) = both(db, id)?;
                    state.counters = counters(&memory, &intent, &state);
                    // A page of them would be megabytes: each is shown with its update.
                    state.output = None;
                    Ok(doc(&intent, &state))
                })
                .collect::<Result<_, StoreError>>()?;
            Ok((docs, ids.pop().filter(|_| more)))
        })
        .await
    }

    /// Counts of updates by state and reason; from memory.
    #[must_use]
    pub fn update_counts(&self) -> Vec<(String, Option<String>, u64)> {
        let counts = self.0.memory.outcomes();
        counts
            .iter()
            .map(|((state, reason), count)| (state.clone(), reason.clone(), *count))
            .collect()
    }

    /// Ends or marks the updates whose deadline has passed.
    pub(super) async fn expire(&self) -> Result<(), StoreError> {
        let now = super::now();
        let due = self
            .read(move |db| {
                let sql = "SELECT json_quote(update_state.id) FROM update_state
                           JOIN update_intent ON update_intent.id = update_state.id
                           WHERE open = 1 AND deadline_ms <= ?1 AND json_extract(update_state.body, '$.overdue') IS NULL LIMIT 256";
                records::<String>(db, sql, [now.as_millisecond()])
            })
            .await?;
        if due.is_empty() {
            return Ok(());
        }
        self.change(move |write| {
            for id in &due {
                let (intent, state) = both(write.db, id)?;
                if state.state.is_terminal()
                    || state.overdue.is_some()
                    || intent.deadline > write.now
                {
                    continue;
                }
                let change = if state.heard {
                    Change {
                        overdue: Some("deadline".into()),
                        ..Change::default()
                    }
                } else {
                    Change::to(State::Canceled).because("deadline")
                };
                apply(write, id, change)?;
                write.wake(&intent.device);
            }
            Ok(())
        })
        .await
    }

    /// Stores how far deliveries are.
    pub(super) async fn flush_progress(&self) -> Result<(), StoreError> {
        let mut waiting = Vec::new();
        for mut pace in self.0.memory.progress.iter_mut() {
            if !pace.stored {
                pace.stored = true;
                waiting.push((super::hex(pace.key()), *pace.key(), pace.counters));
            }
        }
        if waiting.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = waiting.iter().map(|(_, id, _)| *id).collect();
        let outcome = self
            .record(move |write| {
                for (id, _, counters) in waiting {
                    run(
                        write.db,
                        "UPDATE update_state SET revision = revision + 1, body = json_set(body, '$.counters', json(?2))
                         WHERE id = ?1 AND open = 1",
                        (id, json(&counters)?),
                    )?;
                }
                Ok(())
            })
            .await;
        if outcome.is_err() {
            for id in ids {
                if let Some(mut pace) = self.0.memory.progress.get_mut(&id) {
                    pace.stored = false;
                }
            }
        }
        outcome
    }
}

pub(super) fn cancel(write: &mut Write<'_>, id: &str, why: &str) -> Result<UpdateDoc, StoreError> {
    let (mut intent, state) = both(write.db, id)?;
    if state.state.is_terminal() {
        return Err(has_ended(id, &state));
    }
    if matches!(state.state, State::Activating | State::Trial) {
        return Err(StoreError::conflict(
            "too_late",
            format!(
                "update {id} is {}: the board has the image and decides now",
                state.state
            ),
            format!(
                "Wait for the board's word, or `dialhome update abandon {id}` to end it in the record only."
            ),
        ));
    }
    if intent.cancel_requested.is_none() {
        intent.cancel_requested = Some(write.now);
        put_intent(write.db, &intent)?;
    }
    write.wake(&intent.device);
    let next = if state.heard {
        State::Canceling
    } else {
        State::Canceled
    };
    let (intent, state) = apply(write, id, Change::to(next).because(why))?;
    Ok(doc(&intent, &state))
}

/// Ends an update because its device is removed.
pub(super) fn end_by_operator(
    write: &mut Write<'_>,
    id: &str,
    why: &str,
) -> Result<(), StoreError> {
    let (_, state) = both(write.db, id)?;
    let end = if state.heard {
        State::Abandoned
    } else {
        State::Canceled
    };
    apply(write, id, Change::to(end).because(why)).map(drop)
}

/// Applies a change to an update's state, with its event.
pub(super) fn apply(
    write: &mut Write<'_>,
    id: &str,
    change: Change,
) -> Result<(UpdateIntent, UpdateState), StoreError> {
    let (intent, mut state) = both(write.db, id)?;
    let mut change = change;
    if let Some(output) = change
        .output
        .take()
        .filter(|text| state.output.as_ref() != Some(text))
    {
        keep_output(write, &intent, &mut state, output)?;
    }
    if state.state.is_terminal() {
        after_the_end(write, &intent, &mut state, change)?;
        return Ok((intent, state));
    }
    let before = (
        state.state,
        shown(&state),
        state.paused,
        state.counters.place,
    );
    let was = outcome(&state);
    state.counters = change
        .counters
        .unwrap_or_else(|| counters(write.memory, &intent, &state));
    if let Some(next) = change.state {
        if next != state.state {
            state.detail = None;
            state.reason = None;
            // The push's own deadline stays passed; any other is the old state's.
            state.overdue = state
                .overdue
                .filter(|overdue| overdue.reason == "deadline" && !next.is_terminal());
        }
        if next == State::Offered {
            // A board that was away may have changed since the push.
            let reverts = push::reverts(write.db, &intent)?;
            state.revert = push::weakest(&reverts);
            if !intent.entries.is_empty() {
                state.reverts = reverts;
            }
        }
        state.state = next;
        state.heard |= !matches!(next, State::Queued | State::Canceled);
    }
    state.seen |= change.seen;
    if change.reason.is_some() {
        state.reason = change.reason;
    }
    if change.detail.is_some() {
        state.detail = change.detail;
    }
    if let Some(reason) = change.overdue
        && state.overdue.is_none()
    {
        state.overdue = Some(Overdue {
            since: write.now,
            reason,
        });
    }
    state.paused = !state.state.is_terminal() && change.paused.unwrap_or(state.paused);
    let changed = before
        != (
            state.state,
            shown(&state),
            state.paused,
            state.counters.place,
        );
    if changed {
        state.changed = write.now;
    }
    if state.state.is_terminal() {
        // Reads before it writes, and so before anything is written: see `Writer::record`.
        devices::end_trial(write, &intent.device, id, state.state)?;
    }
    put_state(write, &intent, Some(was), &state)?;
    if changed {
        let to = shown(&state);
        let reason = state
            .overdue
            .as_ref()
            .map(|overdue| overdue.reason.clone())
            .or_else(|| state.reason.clone());
        let reason = if state.paused {
            Some("max_bytes".to_owned())
        } else {
            reason
        };
        let component = under_way(&intent, &state);
        event(
            write,
            &intent,
            Some(before.1),
            to,
            reason.as_deref(),
            component,
        )?;
    }
    if state.state.is_terminal() {
        write.touch(&intent.device);
        write.wake(&intent.device);
    }
    Ok((intent, state))
}

/// Keeps what the commands printed that failed for an update; what was kept before gives way.
fn keep_output(
    write: &mut Write<'_>,
    intent: &UpdateIntent,
    state: &mut UpdateState,
    output: String,
) -> Result<(), StoreError> {
    let mut lines = output.lines().rev().map(str::trim);
    let last = lines.find(|line| !line.is_empty()).unwrap_or_default();
    let last: String = last.chars().take(OUTPUT_LINE_MAX).collect();
    state.output = Some(output);
    put_state(write, intent, Some(outcome(state)), state)?;
    write.event(NewEvent {
        kind: "update.output",
        device: Some(&intent.device),
        update: Some(&intent.update),
        to: Some(&last),
        ..NewEvent::default()
    })
}

/// What a board states after the end is recorded beside it.
fn after_the_end(
    write: &mut Write<'_>,
    intent: &UpdateIntent,
    state: &mut UpdateState,
    change: Change,
) -> Result<(), StoreError> {
    if !change.stated {
        return Err(StoreError::Ended {
            update: intent.update.clone(),
        });
    }
    let Some(stated) = change.state else {
        return Ok(());
    };
    let last = state.later.last().map_or(state.state, |later| later.state);
    if last != stated {
        if state.later.len() == LATER_MAX {
            state.later.remove(0);
        }
        state.later.push(LaterStatement {
            at: write.now,
            state: stated,
            reason: change.reason.clone(),
        });
        put_state(write, intent, Some(outcome(state)), state)?;
        event(
            write,
            intent,
            Some(state.state.name()),
            stated.name(),
            Some("stated_after_the_end"),
            None,
        )?;
    }
    Ok(())
}

pub(super) fn event(
    write: &mut Write<'_>,
    intent: &UpdateIntent,
    from: Option<&str>,
    to: &str,
    reason: Option<&str>,
    component: Option<u8>,
) -> Result<(), StoreError> {
    write.event(NewEvent {
        kind: "update.state",
        device: Some(&intent.device),
        update: Some(&intent.update),
        from,
        to: Some(to),
        reason,
        component,
    })
}

fn has_ended(id: &str, state: &UpdateState) -> StoreError {
    StoreError::conflict(
        "ended",
        format!("update {id} has already ended: {}", state.state),
        format!("`dialhome update show {id}` says how."),
    )
}

/// The ids of the device's updates that have not ended, oldest first.
pub(super) fn open_ids(db: &Connection, device: &str) -> Result<Vec<String>, StoreError> {
    let sql =
        "SELECT json_quote(id) FROM update_state WHERE device = ?1 AND open = 1 ORDER BY rowid";
    records(db, sql, [device])
}

pub(super) fn both(db: &Connection, id: &str) -> Result<(UpdateIntent, UpdateState), StoreError> {
    let sql = "SELECT update_intent.body, update_state.body FROM update_state
               JOIN update_intent ON update_intent.id = update_state.id WHERE update_state.id = ?1";
    let bodies = row(db, sql, [id], |row| {
        let (intent, state) = (row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?);
        Ok(parse(intent).and_then(|intent| Ok((intent, parse(state)?))))
    })?;
    bodies.unwrap_or_else(|| Err(StoreError::not_found("update", id)))
}

fn whole(db: &Connection, memory: &Memory, id: &str) -> Result<Option<OpenUpdate>, StoreError> {
    let (intent, mut state) = match both(db, id) {
        Ok(both) => both,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    state.counters = counters(memory, &intent, &state);
    let image = images::find(db, &intent.image)?;
    Ok(image.map(|image| OpenUpdate {
        intent,
        state,
        image: Arc::new(image),
    }))
}

/// The counters, with what is only in memory; what is stored goes first where it is newer.
pub(super) fn counters(memory: &Memory, intent: &UpdateIntent, state: &UpdateState) -> Counters {
    let age = |counters: &Counters| (counters.sessions, counters.sent);
    memory
        .progress
        .get(&intent.id().0)
        .filter(|pace| !state.state.is_terminal() && age(&pace.counters) >= age(&state.counters))
        .map_or(state.counters, |pace| pace.counters)
}

pub(super) fn put_intent(db: &Connection, intent: &UpdateIntent) -> Result<(), StoreError> {
    run(
        db,
        "INSERT INTO update_intent (id, device, image, deadline_ms, revision, body) VALUES (?1, ?2, ?3, ?4, 1, ?5)
         ON CONFLICT (id) DO UPDATE SET revision = revision + 1, body = excluded.body",
        (&intent.update, &intent.device, &intent.image, intent.deadline.as_millisecond(), json(intent)?),
    )?;
    Ok(())
}

/// Stores an update's state; `was` is what it was counted as, nothing for a new update.
pub(super) fn put_state(
    write: &mut Write<'_>,
    intent: &UpdateIntent,
    was: Option<Outcome>,
    state: &UpdateState,
) -> Result<(), StoreError> {
    let now = outcome(state);
    let sql = match was {
        None => {
            "INSERT INTO update_state (id, device, open, state, reason, revision, body) VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6)"
        }
        // The index of open updates is touched by their end alone.
        Some(_) if !state.state.is_terminal() => {
            "UPDATE update_state SET state = ?4, reason = ?5, revision = revision + 1, body = ?6 WHERE id = ?1"
        }
        Some(_) => {
            "UPDATE update_state SET open = ?3, state = ?4, reason = ?5, revision = revision + 1, body = ?6 WHERE id = ?1"
        }
    };
    run(
        write.db,
        sql,
        (
            &intent.update,
            &intent.device,
            !state.state.is_terminal(),
            &now.0,
            &now.1,
            json(state)?,
        ),
    )?;
    write.outcome(was, now);
    Ok(())
}

/// What an update is counted as: its state and reason.
pub(super) fn outcome(state: &UpdateState) -> Outcome {
    (shown(state).into(), state.reason.clone())
}

/// The state's name in JSON.
fn shown(state: &UpdateState) -> &'static str {
    if state.overdue.is_some() && !state.state.is_terminal() {
        "overdue"
    } else {
        state.state.name()
    }
}

/// The component of several that is sent or checked now; none where the update has one, or is about the whole.
fn under_way(intent: &UpdateIntent, state: &UpdateState) -> Option<u8> {
    let of_one = matches!(
        state.state,
        State::Offered
            | State::Deferred
            | State::Accepted
            | State::Preparing
            | State::Transferring
            | State::Verifying
            | State::Declined
    );
    let entry = intent.entries.get(usize::from(state.counters.place));
    entry.filter(|_| of_one).map(|entry| entry.component)
}

/// The update's components with how far each is. They are sent one after another, and what the board runs
/// already counts as committed.
fn entries(intent: &UpdateIntent, state: &UpdateState) -> Vec<UpdateEntryDoc> {
    let mut left = state.counters.committed;
    let under_way = under_way(intent, state);
    let entries = intent.entries().into_iter().enumerate();
    entries
        .map(|(at, entry)| {
            let committed = left.min(u64::from(entry.size));
            left -= committed;
            UpdateEntryDoc {
                component: entry.component,
                digest: entry.digest,
                size: entry.size,
                committed,
                under_way: under_way == Some(entry.component),
                revert: if intent.entries.is_empty() {
                    state.revert.clone()
                } else {
                    state.reverts.get(at).cloned().flatten()
                },
            }
        })
        .collect()
}

/// The update's document, without what it waits for.
pub(super) fn doc(intent: &UpdateIntent, state: &UpdateState) -> UpdateDoc {
    let mut detail: Vec<String> = state.detail.iter().cloned().collect();
    let mut reason = state.reason.clone();
    if let Some(overdue) = state
        .overdue
        .as_ref()
        .filter(|_| !state.state.is_terminal())
    {
        detail.insert(
            0,
            format!(
                "{} since {}; overdue since {}",
                state.state, state.changed, overdue.since
            ),
        );
        reason = Some(overdue.reason.clone());
    }
    if state.paused {
        detail.push(format!(
            "paused: {} bytes were sent, the limit is {}",
            state.counters.sent, intent.max_bytes
        ));
        reason = Some("max_bytes".into());
    }
    detail.extend(state.later.iter().map(|later| match &later.reason {
        Some(reason) => format!(
            "the board stated {} ({reason}) at {}",
            later.state, later.at
        ),
        None => format!("the board stated {} at {}", later.state, later.at),
    }));
    UpdateDoc {
        update: intent.update.clone(),
        device: intent.device.clone(),
        image: intent.image.clone(),
        component: intent.component,
        digest: intent.digest.clone(),
        entries: entries(intent, state),
        state: shown(state).into(),
        reason,
        revert: state.revert.clone(),
        warning: None,
        detail: (!detail.is_empty()).then(|| detail.join("; ")),
        output: state.output.clone(),
        size: intent.size,
        committed: state.counters.committed,
        sent: state.counters.sent,
        resent: state.counters.resent,
        sessions: state.counters.sessions,
        created: intent.created,
        changed: state.changed,
        deadline: intent.deadline,
        waiting_for: None,
    }
}
