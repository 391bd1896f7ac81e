//! The gateway's events for several that wait for them at a time.

use super::Setup;
use super::events;
use crate::Error;
use crate::site::Site;
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout};
use tokio::sync::watch;
use tokio::time::Instant;

/// One event, and when it was heard.
#[derive(Clone, Debug)]
pub(super) struct Happening {
    pub(super) at: Instant,
    pub(super) kind: String,
    pub(super) update: String,
    pub(super) to: String,
}

/// `dialhome events --follow`. It ends with this value.
#[derive(Debug)]
pub(super) struct Happenings {
    _child: Child,
    all: Arc<Mutex<Vec<Happening>>>,
    /// How many there are.
    count: watch::Receiver<usize>,
}

impl Happenings {
    /// All that happens from now on, progress included.
    pub(super) fn follow(setup: &Setup, site: &Site) -> Result<Self, Error> {
        let (child, output) = events::start(setup, site)?;
        let all = Arc::default();
        let (tell, count) = watch::channel(0);
        tokio::spawn(hear(output, Arc::clone(&all), tell));
        Ok(Self {
            _child: child,
            all,
            count,
        })
    }

    /// Waits until this update has come into this state, and says when it did.
    pub(super) async fn reached(
        &self,
        update: &str,
        state: &str,
        most: Duration,
    ) -> Result<Instant, Error> {
        let what = format!("{update} was not {state}");
        self.find(update, &what, most, |event| {
            (event.kind == "update.state" && event.to == state).then_some(event.at)
        })
        .await
    }

    /// Waits until more than so many bytes of this update are acknowledged, as heard after
    /// `since`, or all of them are; says when that was.
    pub(super) async fn acknowledged(
        &self,
        update: &str,
        bytes: u64,
        since: Instant,
        most: Duration,
    ) -> Result<Instant, Error> {
        let what = format!("no byte of {update} was acknowledged");
        self.find(update, &what, most, |event| {
            let more = match event.kind.as_str() {
                "update.progress" => event.to.parse().is_ok_and(|all: u64| all > bytes),
                _ => event.to == "verifying",
            };
            (more && event.at >= since).then_some(event.at)
        })
        .await
    }

    /// The first event of an update that this finds, of those that are there or come.
    async fn find<T>(
        &self,
        update: &str,
        what: &str,
        most: Duration,
        found: impl Fn(&Happening) -> Option<T>,
    ) -> Result<T, Error> {
        const BAD: [&str; 4] = ["failed", "reverted", "declined", "canceled"];
        let looking = async {
            let mut count = self.count.clone();
            let mut seen = 0;
            loop {
                let known = *count.borrow_and_update();
                let events = {
                    let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
                    all.get(seen..known).unwrap_or_default().to_vec()
                };
                seen = known;
                for event in events.iter().filter(|event| event.update == update) {
                    if let Some(found) = found(event) {
                        return Ok(found);
                    }
                    if event.kind == "update.state" && BAD.contains(&event.to.as_str()) {
                        return Err(Error::new(format!("an update ended badly: {event:?}")));
                    }
                }
                if count.changed().await.is_err() {
                    return Err(Error::new("`dialhome events` ended"));
                }
            }
        };
        match tokio::time::timeout(most, looking).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::new(format!("{what} within {} s", most.as_secs()))),
        }
    }
}

async fn hear(output: ChildStdout, all: Arc<Mutex<Vec<Happening>>>, tell: watch::Sender<usize>) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(event) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let event = Happening {
            at: Instant::now(),
            kind: text("type"),
            update: text("update"),
            to: text("to"),
        };
        let count = {
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(event);
            all.len()
        };
        if tell.send(count).is_err() {
            return;
        }
    }
}
