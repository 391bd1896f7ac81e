//! The one writer: a thread that puts waiting changes into one transaction and answers after the commit.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use dialhome_proto::id::Handle;
use jiff::Timestamp;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::docs::EventDoc;
use super::memory::{Flags, Memory, Outcome};
use super::seal::Seal;
use super::sqlite::{self, explain_on, run};
use super::{DeviceId, KeyRecord, StoreError};

/// Changes that may wait for the writer: callers wait for room above it.
const QUEUE: usize = 1024;
/// Changes in one transaction, at most: bounds the memory and the time of a commit.
const BATCH: usize = 256;
/// Where sessions record much, a commit follows the last one no sooner: what comes meanwhile shares it.
const GATHER: Duration = Duration::from_millis(5);
/// Records that come one after the other before that is much: a board alone has fewer in an update.
const BURST: u32 = 16;
/// Events that are kept; `events --since` below the oldest one says so.
pub(crate) const EVENTS_KEPT: u64 = 100_000;
/// Events between two prunings.
const PRUNE_EVERY: u64 = 1_000;

type Alone = Box<dyn FnOnce(&mut Connection) + Send>;

enum Job {
    Change(Box<dyn Change>, Haste),
    /// Work outside every transaction: the swap of the whole database.
    Alone(Alone),
}

/// How a change wants to be treated.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Haste {
    /// An operator's command: committed at once, and taken back alone where it fails.
    Command,
    /// A session's record: it may wait for others ([`GATHER`]), and refuses before its first write, if at all.
    Record,
}

/// A caller's change, and the caller that waits for its outcome.
trait Change: Send {
    /// Makes the change within the open transaction.
    fn run(&mut self, write: &mut Write<'_>) -> Result<(), StoreError>;
    /// Answers the caller: with the outcome, or with what broke the whole transaction.
    fn answer(self: Box<Self>, broken: Option<&StoreError>);
}

struct Asked<T, F> {
    change: Option<F>,
    outcome: Result<T, StoreError>,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

impl<T: Send, F: FnOnce(&mut Write<'_>) -> Result<T, StoreError> + Send> Change for Asked<T, F> {
    fn run(&mut self, write: &mut Write<'_>) -> Result<(), StoreError> {
        if let Some(change) = self.change.take() {
            self.outcome = change(write);
        }
        self.outcome.as_ref().map(drop).map_err(Clone::clone)
    }

    fn answer(self: Box<Self>, broken: Option<&StoreError>) {
        // The caller may have gone; a committed change stands all the same.
        let _ = self
            .answer
            .send(broken.map_or(self.outcome, |error| Err(error.clone())));
    }
}

/// A change on its way: the transaction, and what follows from it once it is committed.
pub(crate) struct Write<'a> {
    pub(crate) db: &'a Connection,
    pub(crate) seal: &'a Seal,
    pub(crate) memory: &'a Memory,
    pub(crate) now: Timestamp,
    pub(crate) after: After,
}

/// What follows from a committed change.
#[derive(Default)]
pub(crate) struct After {
    /// Events to hand to whoever listens.
    pub(crate) events: Vec<EventDoc>,
    /// Devices to wake; none for all.
    pub(crate) wakes: Vec<Option<DeviceId>>,
    /// Devices whose flags must be computed anew.
    pub(crate) touched: BTreeSet<DeviceId>,
    /// Handles that are gone, and handles that are new.
    pub(crate) keys: Vec<(Handle, Option<Arc<KeyRecord>>)>,
    /// The hold over everything.
    pub(crate) hold: Option<bool>,
    /// What updates were counted as, and what they are now.
    pub(crate) outcomes: Vec<(Option<Outcome>, Outcome)>,
}

impl Write<'_> {
    /// Stores an event.
    pub(crate) fn event(&mut self, event: NewEvent<'_>) -> Result<(), StoreError> {
        let mut doc = EventDoc {
            seq: 0,
            at: self.now,
            kind: event.kind.into(),
            device: event.device.map(Into::into),
            update: event.update.map(Into::into),
            from: event.from.map(Into::into),
            to: event.to.map(Into::into),
            reason: event.reason.map(Into::into),
            component: event.component,
        };
        run(
            self.db,
            "INSERT INTO event (device, body) VALUES (?1, ?2)",
            (&doc.device, sqlite::json(&doc)?),
        )?;
        doc.seq = self.db.last_insert_rowid().unsigned_abs();
        if doc.seq.is_multiple_of(PRUNE_EVERY) {
            run(
                self.db,
                "DELETE FROM event WHERE seq <= ?1",
                [doc.seq.saturating_sub(EVENTS_KEPT).cast_signed()],
            )?;
        }
        self.after.events.push(doc);
        Ok(())
    }

    /// The device's flags may have changed: they are computed anew before the commit.
    pub(crate) fn touch(&mut self, device: &str) {
        self.after.touched.insert(DeviceId::stored(device));
    }

    /// Tells the device's session that there may be work.
    pub(crate) fn wake(&mut self, device: &str) {
        self.after.wakes.push(Some(DeviceId::stored(device)));
    }

    /// Tells every session that there may be work.
    pub(crate) fn wake_all(&mut self) {
        self.after.wakes.push(None);
    }

    /// Sets or removes a handle.
    pub(crate) fn key(&mut self, handle: Handle, record: Option<KeyRecord>) {
        self.after.keys.push((handle, record.map(Arc::new)));
    }

    /// Counts an update anew.
    pub(crate) fn outcome(&mut self, was: Option<Outcome>, now: Outcome) {
        if was.as_ref() != Some(&now) {
            self.after.outcomes.push((was, now));
        }
    }

    /// Sets the hold over everything.
    pub(crate) fn hold(&mut self, hold: bool) {
        self.after.hold = Some(hold);
    }
}

/// An event before it has a number.
#[derive(Clone, Copy, Default)]
pub(crate) struct NewEvent<'a> {
    pub(crate) kind: &'a str,
    pub(crate) device: Option<&'a str>,
    pub(crate) update: Option<&'a str>,
    pub(crate) from: Option<&'a str>,
    pub(crate) to: Option<&'a str>,
    pub(crate) reason: Option<&'a str>,
    pub(crate) component: Option<u8>,
}

/// The way to the writer's thread.
#[derive(Clone)]
pub(crate) struct Writer {
    jobs: mpsc::Sender<Job>,
    thread: Thread,
}

impl Writer {
    /// Starts the thread; it ends when the last `Writer` is dropped.
    pub(crate) fn start(
        db: Connection,
        seal: Arc<Seal>,
        memory: Arc<Memory>,
    ) -> Result<Self, StoreError> {
        let (jobs, receive) = mpsc::channel(QUEUE);
        let thread = thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || serve(db, &seal, &memory, receive))
            .map_err(|error| StoreError::Database(format!("no thread for the store: {error}")))?;
        Ok(Self {
            jobs,
            thread: thread.thread().clone(),
        })
    }

    /// Makes an operator's change; returns after it is committed. If it fails, it alone is taken back.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Write<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.ask(change, Haste::Command).await
    }

    /// Makes a session's change; returns after it is committed. It refuses before its first write, if at all:
    /// an error after that is the database's own, and breaks what shares the transaction.
    pub(crate) async fn record<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Write<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.ask(change, Haste::Record).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Write<'_>) -> Result<T, StoreError> + Send + 'static,
        haste: Haste,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let change = Box::new(Asked {
            change: Some(change),
            outcome: Err(StoreError::Stopped),
            answer,
        });
        self.send(Job::Change(change, haste)).await?;
        if haste == Haste::Command {
            self.thread.unpark();
        }
        answered.await.map_err(|_| StoreError::Stopped)?
    }

    /// Runs `work` with the connection to itself.
    pub(crate) async fn alone<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job = Job::Alone(Box::new(move |db| {
            let _ = answer.send(work(db));
        }));
        self.send(job).await?;
        answered.await.map_err(|_| StoreError::Stopped)
    }

    async fn send(&self, job: Job) -> Result<(), StoreError> {
        self.jobs.send(job).await.map_err(|_| StoreError::Stopped)
    }
}

/// Changes under way to one transaction.
type Batch = Vec<(Box<dyn Change>, Haste)>;

fn serve(mut db: Connection, seal: &Seal, memory: &Memory, mut jobs: mpsc::Receiver<Job>) {
    let mut alone = None;
    let mut load = Load::default();
    while let Some(first) = jobs.blocking_recv() {
        if matches!(first, Job::Change(_, Haste::Record))
            && let Some(rest) = load.rest()
        {
            // An operator's command ends the wait.
            thread::park_timeout(rest);
        }
        let mut batch = Batch::new();
        let mut next = Some(first);
        while let Some(job) = next {
            match job {
                Job::Change(change, haste) => batch.push((change, haste)),
                Job::Alone(work) => {
                    alone = Some(work);
                    break;
                }
            }
            next = if batch.len() < BATCH {
                jobs.try_recv().ok()
            } else {
                None
            };
        }
        if !batch.is_empty() {
            load.add(batch.len());
            commit(&mut db, seal, memory, batch);
        }
        if let Some(work) = alone.take() {
            work(&mut db);
        }
    }
}

/// How many changes have come lately: a bucket out of which one leaks per [`GATHER`].
struct Load {
    changes: u32,
    since: Instant,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            changes: 0,
            since: Instant::now(),
        }
    }
}

impl Load {
    /// A commit of so many changes begins.
    fn add(&mut self, changes: usize) {
        let passed = self.since.elapsed();
        let leaked = passed.as_micros() / GATHER.as_micros();
        let left = self
            .changes
            .saturating_sub(u32::try_from(leaked).unwrap_or(u32::MAX));
        let more = u32::try_from(changes).unwrap_or(u32::MAX);
        self.changes = left.saturating_add(more).min(2 * BURST);
        self.since += passed;
    }

    /// How long the next commit waits for company.
    fn rest(&self) -> Option<Duration> {
        let rest = GATHER.checked_sub(self.since.elapsed())?;
        (self.changes > BURST).then_some(rest)
    }
}

/// Runs a batch in one transaction, then answers each change.
fn commit(db: &mut Connection, seal: &Seal, memory: &Memory, mut batch: Batch) {
    let outcome = transaction(db, seal, memory, &mut batch);
    if outcome.is_err() && !db.is_autocommit() {
        let _ = db.execute_batch("ROLLBACK");
    }
    memory.health(outcome.as_ref().err());
    let broken = match outcome {
        Ok(afters) => {
            for (after, flags) in afters {
                memory.apply(after, flags);
            }
            None
        }
        Err(error) => Some(error),
    };
    for (change, _) in batch {
        change.answer(broken.as_ref());
    }
}

/// What follows from a change, and the flags of the devices that it touched.
type Follow = (After, Vec<(DeviceId, Flags)>);

/// The batch in one transaction. A command that fails is taken back alone; an error here breaks them all.
fn transaction(
    db: &mut Connection,
    seal: &Seal,
    memory: &Memory,
    batch: &mut Batch,
) -> Result<Vec<Follow>, StoreError> {
    let fault = |error| explain_on(db, error);
    let mut afters = Vec::with_capacity(batch.len());
    run(db, "BEGIN IMMEDIATE", [])?;
    for (change, haste) in batch {
        if *haste == Haste::Command {
            run(db, "SAVEPOINT change", [])?;
        }
        let before = db.total_changes();
        let mut write = Write {
            db,
            seal,
            memory,
            now: super::now(),
            after: After::default(),
        };
        let outcome = change.run(&mut write);
        let after = write.after;
        match outcome {
            // SQLite has rolled everything back: the disk is full, or the file cannot be written.
            Err(error) if db.is_autocommit() => return Err(error),
            Err(_) if *haste == Haste::Command => db
                .execute_batch("ROLLBACK TO change; RELEASE change")
                .map_err(fault)?,
            // It stopped half-way: nothing of the transaction can stand.
            Err(error) if db.total_changes() != before => return Err(error),
            Err(_) => {}
            Ok(()) => {
                if *haste == Haste::Command {
                    run(db, "RELEASE change", [])?;
                }
                let flags = after
                    .touched
                    .iter()
                    .map(|device| Ok((device.clone(), Flags::of(db, device)?)));
                let flags = flags.collect::<Result<_, StoreError>>()?;
                afters.push((after, flags));
            }
        }
    }
    run(db, "COMMIT", [])?;
    Ok(afters)
}
