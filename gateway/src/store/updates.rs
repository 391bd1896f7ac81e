//! Updates: pushed by the operator, carried by the session, ended by the board's word or the operator's.

use std::sync::Arc;

use dialhome_proto::id::UpdateId;
use dialhome_proto::manifest::Manifest;
use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;

use super::docs::UpdateDoc;
use super::memory::Memory;
use super::sqlite::{json, record, records, run, value};
use super::writer::{NewEvent, Write};
use super::{
    Change, Counters, Device, ImageRecord, LaterStatement, OpenUpdate, Overdue, State, Store,
    StoreError, UpdateIntent, UpdateState, devices, images, session, trust,
};

/// Statements kept of a board about an update that has ended.
const LATER_MAX: usize = 8;
/// Longest deadline of a push, in seconds (a year).
const DEADLINE_S_MAX: u64 = 366 * 24 * 3600;

/// What an operator asks of a push.
#[derive(Clone, Debug)]
pub struct Push {
    /// The device.
    pub device: String,
    /// The image, `P[/component]@V`.
    pub image: String,
    /// Time until the deadline, in seconds.
    pub deadline_s: u64,
    /// Takes the place of another update that is open.
    pub replace: bool,
    /// An older counter, above the floor, is meant.
    pub downgrade: bool,
    /// Payload bytes that may be sent before it pauses; none for three times the size.
    pub max_bytes: Option<u64>,
}

/// What a push did.
#[derive(Clone, Debug)]
pub struct Created {
    /// The update.
    pub update: UpdateDoc,
    /// The same push was open already: this is that one.
    pub joined: bool,
}

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
    pub async fn change_update(
        &self,
        update: UpdateId,
        change: Change,
    ) -> Result<UpdateDoc, StoreError> {
        let doc = self
            .change(move |write| apply(write, &update.to_string(), change))
            .await?;
        if ended(&doc) {
            self.0.memory.progress.remove(&update.0);
        }
        Ok(doc)
    }

    /// Pushes an image to a device.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` (another update is open, the image is not for this device), `Invalid`.
    pub async fn push(&self, push: Push) -> Result<Created, StoreError> {
        self.change(move |write| create(write, push)).await
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
            apply(write, &id, Change::to(State::Abandoned).because("operator"))
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
                    Ok(doc(&intent, &state))
                })
                .collect::<Result<_, StoreError>>()?;
            Ok((docs, ids.pop().filter(|_| more)))
        })
        .await
    }

    /// Counts of updates by state and reason.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn update_counts(&self) -> Result<Vec<(String, Option<String>, u64)>, StoreError> {
        self.read(|db| {
            let fault = |error| super::sqlite::explain_on(db, error);
            let mut query = db
                .prepare_cached(
                    "SELECT state, reason, count(*) FROM update_state GROUP BY state, reason",
                )
                .map_err(fault)?;
            let rows = query
                .query_map([], |row| {
                    Ok((
                        row.get(0)?,
                        row.get(1)?,
                        row.get::<_, i64>(2)?.unsigned_abs(),
                    ))
                })
                .map_err(fault)?;
            rows.collect::<Result<_, _>>().map_err(fault)
        })
        .await
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
            .change(move |write| {
                for (id, _, counters) in waiting {
                    let Ok((intent, mut state)) = both(write.db, &id) else {
                        continue;
                    };
                    if !state.state.is_terminal() {
                        state.counters = counters;
                        put_state(write.db, &intent, &state)?;
                    }
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

fn create(write: &mut Write<'_>, push: Push) -> Result<Created, StoreError> {
    let device = devices::known(write.db, &push.device)?;
    let image = images::find(write.db, &push.image)?
        .ok_or_else(|| StoreError::not_found("image", &push.image))?;
    is_for(&device, &image)?;
    images::has_needed_check(
        write.db,
        &image.name,
        image.check.as_deref(),
        images::WHEN_PUSHING,
    )?;
    let mut open = open_ids(write.db, &device.id)?
        .into_iter()
        .map(|id| both(write.db, &id))
        .collect::<Result<Vec<_>, _>>()?;
    // The newest of them is what the operator wanted last; an older one is on its way out.
    if let Some((intent, state)) = open.last()
        && intent.cancel_requested.is_none()
        && intent.image == image.name
        && intent.manifest_digest == image.manifest_digest
    {
        let (mut intent, mut state) = (intent.clone(), state.clone());
        if let Some(max_bytes) = push.max_bytes
            && max_bytes != intent.max_bytes
        {
            intent.max_bytes = max_bytes;
            put_intent(write.db, &intent)?;
            // What was sent may be in memory only, and the limit counts all of it.
            state.counters = counters(write.memory, &intent, &state);
            if state.paused && state.counters.sent < max_bytes {
                let unpause = Change {
                    paused: Some(false),
                    ..Change::default()
                };
                apply(write, &intent.update, unpause)?;
                state = both(write.db, &intent.update)?.1;
            }
            write.wake(&device.id);
        }
        return Ok(Created {
            update: doc(&intent, &state),
            joined: true,
        });
    }
    let deadline =
        SignedDuration::from_secs(push.deadline_s.clamp(1, DEADLINE_S_MAX).cast_signed());
    let intent = UpdateIntent {
        update: new_id(write)?,
        device: device.id.clone(),
        image: image.name.clone(),
        digest: image.digest.clone(),
        manifest_digest: image.manifest_digest.clone(),
        component: image.component,
        size: image.size,
        created: write.now,
        deadline: write.now.checked_add(deadline).unwrap_or(Timestamp::MAX),
        downgrade: push.downgrade,
        max_bytes: push.max_bytes.unwrap_or_else(|| 3 * u64::from(image.size)),
        cancel_requested: None,
        abandoned: None,
        replaced_by: None,
    };
    for (other, _) in &mut open {
        if other.cancel_requested.is_some() {
            continue;
        }
        if !push.replace {
            return Err(StoreError::conflict(
                "update_open",
                format!(
                    "update {} of device {} to {} has not ended",
                    other.update, device.id, other.image
                ),
                format!(
                    "Push with --replace, wait for it, or `dialhome update cancel {}`.",
                    other.update
                ),
            ));
        }
        cancel(write, &other.update, "replaced")?;
        let (mut stored, _) = both(write.db, &other.update)?;
        stored.replaced_by = Some(intent.update.clone());
        put_intent(write.db, &stored)?;
    }
    let mut state = UpdateState {
        state: State::Queued,
        reason: None,
        detail: None,
        revert: revert(write.db, &intent)?,
        counters: Counters::default(),
        changed: write.now,
        heard: false,
        overdue: None,
        paused: false,
        later: Vec::new(),
    };
    put_intent(write.db, &intent)?;
    put_state(write.db, &intent, &state)?;
    event(write, &intent, None, "queued", None)?;
    if runs(write.db, &intent)? {
        state = both(write.db, &intent.update)?.1;
        state.detail = Some("the board already runs this image: nothing was sent".into());
        put_state(write.db, &intent, &state)?;
        let update = apply(
            write,
            &intent.update,
            Change {
                reason: Some("already_running".into()),
                detail: state.detail,
                ..Change::to(State::Confirmed)
            },
        )?;
        return Ok(Created {
            update,
            joined: false,
        });
    }
    write.touch(&device.id);
    write.wake(&device.id);
    Ok(Created {
        update: doc(&intent, &state),
        joined: false,
    })
}

/// Refuses what the board would refuse, so far as the record tells.
fn is_for(device: &Device, image: &ImageRecord) -> Result<(), StoreError> {
    let refuse = |code, message: String, hint: &str| Err(StoreError::conflict(code, message, hint));
    if device.product != image.product {
        return refuse(
            "wrong_product",
            format!(
                "{} is for product {}, and device {} is a {}",
                image.name, image.product, device.id, device.product
            ),
            "`dialhome image list` shows the images.",
        );
    }
    if !image.devices.is_empty() && !image.devices.contains(&device.id) {
        return refuse(
            "wrong_device",
            format!(
                "{} was signed for {} only",
                image.name,
                image.devices.join(", ")
            ),
            "Sign it again without a list of devices.",
        );
    }
    let manifest = Manifest::parse(&image.manifest)
        .map_err(|fault| StoreError::Database(fault.to_string()))?;
    match trust::refuses(device, &manifest) {
        Some(reason) => refuse(
            "not_trusted",
            format!("device {} would refuse {}: {reason}", device.id, image.name),
            "Sign the image with a key whose FILE.pub was given to `device add --trust`.",
        ),
        None => Ok(()),
    }
}

/// What the board's last Hello said it can do about a bad image of this component.
fn revert(db: &Connection, intent: &UpdateIntent) -> Result<Option<String>, StoreError> {
    let hello = session::state(db, &intent.device)?.and_then(|state| state.hello);
    Ok(hello.and_then(|hello| {
        let found = hello
            .components
            .into_iter()
            .find(|component| component.component == intent.component);
        found.map(|component| component.revert)
    }))
}

/// The board is connected, and its word is that it runs this very image, and not on trial. Of a board that
/// is away nobody knows: it is asked when it dials home.
fn runs(db: &Connection, intent: &UpdateIntent) -> Result<bool, StoreError> {
    let state = session::state(db, &intent.device)?.filter(|state| state.connected);
    let hello = state.and_then(|state| state.hello);
    Ok(hello.is_some_and(|hello| {
        hello.components.iter().any(|component| {
            component.component == intent.component
                && component.trial.is_none()
                && component.digest.as_deref() == Some(intent.digest.as_str())
        })
    }))
}

fn cancel(write: &mut Write<'_>, id: &str, why: &str) -> Result<UpdateDoc, StoreError> {
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
    apply(write, id, Change::to(next).because(why))
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
fn apply(write: &mut Write<'_>, id: &str, change: Change) -> Result<UpdateDoc, StoreError> {
    let (intent, mut state) = both(write.db, id)?;
    if state.state.is_terminal() {
        return after_the_end(write, &intent, state, change);
    }
    let before = (state.state, shown(&state), state.paused);
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
            state.revert = revert(write.db, &intent)?;
        }
        state.state = next;
        state.heard |= !matches!(next, State::Queued | State::Canceled);
    }
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
    let changed = before != (state.state, shown(&state), state.paused);
    if changed {
        state.changed = write.now;
    }
    put_state(write.db, &intent, &state)?;
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
        event(write, &intent, Some(before.1), to, reason.as_deref())?;
    }
    if state.state.is_terminal() {
        devices::end_trial(write, &intent.device, id, state.state)?;
        write.touch(&intent.device);
        write.wake(&intent.device);
    }
    Ok(doc(&intent, &state))
}

/// What a board states after the end is recorded beside it.
fn after_the_end(
    write: &mut Write<'_>,
    intent: &UpdateIntent,
    mut state: UpdateState,
    change: Change,
) -> Result<UpdateDoc, StoreError> {
    if !change.stated {
        return Err(StoreError::Ended {
            update: intent.update.clone(),
        });
    }
    let Some(stated) = change.state else {
        return Ok(doc(intent, &state));
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
        put_state(write.db, intent, &state)?;
        event(
            write,
            intent,
            Some(state.state.name()),
            stated.name(),
            Some("stated_after_the_end"),
        )?;
    }
    Ok(doc(intent, &state))
}

fn event(
    write: &mut Write<'_>,
    intent: &UpdateIntent,
    from: Option<&str>,
    to: &str,
    reason: Option<&str>,
) -> Result<(), StoreError> {
    write.event(NewEvent {
        kind: "update.state",
        device: Some(&intent.device),
        update: Some(&intent.update),
        from,
        to: Some(to),
        reason,
    })
}

/// Seconds and random bits: rises with time, and does not repeat after a restore from an older backup.
fn new_id(write: &Write<'_>) -> Result<String, StoreError> {
    let seconds = u32::try_from(write.now.as_second()).unwrap_or(u32::MAX);
    loop {
        let mut random = [0; 4];
        aws_lc_rs::rand::fill(&mut random)
            .map_err(|_| StoreError::Database("the system gave no random bytes".into()))?;
        let id = format!("{seconds:08x}{}", super::hex(&random));
        if value::<i64>(write.db, "SELECT 1 FROM update_state WHERE id = ?1", [&id])?.is_none() {
            return Ok(id);
        }
    }
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

fn both(db: &Connection, id: &str) -> Result<(UpdateIntent, UpdateState), StoreError> {
    let intent = record(db, "SELECT body FROM update_intent WHERE id = ?1", [id])?;
    let state = record(db, "SELECT body FROM update_state WHERE id = ?1", [id])?;
    intent
        .zip(state)
        .ok_or_else(|| StoreError::not_found("update", id))
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
fn counters(memory: &Memory, intent: &UpdateIntent, state: &UpdateState) -> Counters {
    let age = |counters: &Counters| (counters.sessions, counters.sent);
    memory
        .progress
        .get(&intent.id().0)
        .filter(|pace| !state.state.is_terminal() && age(&pace.counters) >= age(&state.counters))
        .map_or(state.counters, |pace| pace.counters)
}

fn put_intent(db: &Connection, intent: &UpdateIntent) -> Result<(), StoreError> {
    run(
        db,
        "INSERT INTO update_intent (id, device, image, deadline_ms, revision, body) VALUES (?1, ?2, ?3, ?4, 1, ?5)
         ON CONFLICT (id) DO UPDATE SET revision = revision + 1, body = excluded.body",
        (&intent.update, &intent.device, &intent.image, intent.deadline.as_millisecond(), json(intent)?),
    )?;
    Ok(())
}

fn put_state(
    db: &Connection,
    intent: &UpdateIntent,
    state: &UpdateState,
) -> Result<(), StoreError> {
    run(
        db,
        "INSERT INTO update_state (id, device, open, state, reason, revision, body) VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6)
         ON CONFLICT (id) DO UPDATE SET open = excluded.open, state = excluded.state, reason = excluded.reason,
         revision = revision + 1, body = excluded.body",
        (&intent.update, &intent.device, !state.state.is_terminal(), shown(state), &state.reason, json(state)?),
    )?;
    Ok(())
}

/// The state's name in JSON.
fn shown(state: &UpdateState) -> &'static str {
    if state.overdue.is_some() && !state.state.is_terminal() {
        "overdue"
    } else {
        state.state.name()
    }
}

fn ended(doc: &UpdateDoc) -> bool {
    State::ALL
        .iter()
        .any(|state| state.is_terminal() && state.name() == doc.state)
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
        state: shown(state).into(),
        reason,
        revert: state.revert.clone(),
        warning: None,
        detail: (!detail.is_empty()).then(|| detail.join("; ")),
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
