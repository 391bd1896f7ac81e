//! `dialhome push`: an image to a device, followed to its end.
//!
//! The update does not depend on this command: what is followed goes on when the command is stopped, and the same
//! push again joins it. A gateway that goes away is dialled for 60 s.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use hyper::Method;
use indicatif::{ProgressBar, ProgressStyle};

use super::advice::advice;
use super::args::PushArgs;
use super::client::{Client, segment};
use super::error::{CliError, FAILED, NOT_FINISHED, NOT_REACHED};
use super::events::{RECONNECT_EVERY, RECONNECT_FOR};
use super::output::{Output, bytes, print, say, time};
use super::sse::Events;
use super::update;
use crate::admin::{PushDoc, UpdateToCreate, risk};
use crate::image::name::ImageName;
use crate::store::docs::{DeviceDoc, EventDoc, UpdateDoc};

/// The update is asked for so often even where no event comes.
const LOOK_EVERY: Duration = Duration::from_secs(20);

pub(crate) async fn run(
    args: PushArgs,
    client: &Client,
    out: Output,
) -> Result<ExitCode, CliError> {
    let until = args.wait.map(|wait| Instant::now() + wait);
    let new = UpdateToCreate {
        device: args.device,
        image: args.image,
        deadline_s: args.deadline.map(|deadline| deadline.as_secs()),
        replace: args.replace,
        downgrade: args.downgrade,
        max_bytes: args.max_bytes,
    };
    warn(&new, client).await;
    let pushed = create(&new, client).await?;
    let mut view = View::new(&pushed, out);
    let mut doc = pushed.update;
    view.changed(&doc)?;
    if !args.no_wait {
        doc = match follow(doc, client, &mut view, until).await {
            Ok(doc) => doc,
            Err(error) => {
                view.clear();
                return Err(error);
            }
        };
    }
    view.clear();
    let online = update::online(&doc, client).await;
    finish(&doc, online, out, args.no_wait)
}

/// Says, before anything is sent, what the board cannot take back; it asks nothing, so that no script waits.
async fn warn(new: &UpdateToCreate, client: &Client) {
    let Ok(image) = new.image.parse::<ImageName>() else {
        return;
    };
    // What is wrong with the device, or with the gateway, the push itself says.
    let path = format!("/v1/devices/{}", segment(&new.device));
    let Ok(doc) = client.get::<DeviceDoc>(&path).await else {
        return;
    };
    for part in &image.parts {
        let mut components = doc.components.iter();
        let known = components.find(|known| known.component == part.component);
        let several = image.parts.len() > 1;
        let risk = known.and_then(|known| {
            let revert = known.revert.as_str();
            risk(&new.device, part.component, several, revert)
        });
        if let Some(risk) = risk {
            say(&format!("Warning: {risk}"));
        }
    }
}

/// Pushes. An answer that was lost on the way is asked for again: the same push joins what is there.
async fn create(new: &UpdateToCreate, client: &Client) -> Result<PushDoc, CliError> {
    let mut lost: Option<Instant> = None;
    loop {
        match client.send(Method::POST, "/v1/updates", Some(new)).await {
            Err(error) if error.exit == NOT_REACHED => {
                // A gateway that was never there is not waited for.
                let since = match (lost, error.code) {
                    (Some(since), _) => since,
                    (None, "not_answered") => *lost.insert(Instant::now()),
                    (None, _) => return Err(error),
                };
                if since.elapsed() >= RECONNECT_FOR {
                    return Err(error);
                }
                tokio::time::sleep(RECONNECT_EVERY).await;
            }
            outcome => return outcome,
        }
    }
}

/// Follows the update until it ends, or until `until`.
async fn follow(
    mut doc: UpdateDoc,
    client: &Client,
    view: &mut View,
    until: Option<Instant>,
) -> Result<UpdateDoc, CliError> {
    let mut gone: Option<Instant> = None;
    let events = format!("/v1/events?follow=true&update={}", doc.update);
    while !update::ended(&doc) && !passed(until) {
        // First the events, then the update: what changes in between is an event.
        let round = async {
            let mut events = Events::new(client.stream(&events).await?);
            let mut fresh = client.get::<UpdateDoc>(&update::path(&doc.update)).await?;
            gone = None;
            loop {
                view.changed(&fresh)?;
                doc = fresh;
                if update::ended(&doc) {
                    return Ok(());
                }
                if !wait(&mut events, view).await {
                    return Ok(());
                }
                fresh = client.get(&update::path(&doc.update)).await?;
            }
        };
        let outcome: Result<(), CliError> = match until {
            None => round.await,
            Some(until) => match tokio::time::timeout_at(until.into(), round).await {
                Ok(outcome) => outcome,
                Err(_) => break,
            },
        };
        match outcome {
            Ok(()) => {}
            Err(error) if error.exit != NOT_REACHED => return Err(error),
            Err(error) => {
                if gone.get_or_insert_with(Instant::now).elapsed() >= RECONNECT_FOR {
                    return Err(error.hint(format!(
                        "Update {} goes on without this command.",
                        doc.update
                    )));
                }
                view.lost();
            }
        }
        if !update::ended(&doc) && !passed(until) {
            gone.get_or_insert_with(Instant::now);
            tokio::time::sleep(RECONNECT_EVERY).await;
        }
    }
    Ok(doc)
}

fn passed(until: Option<Instant>) -> bool {
    until.is_some_and(|until| Instant::now() >= until)
}

/// Waits for a change of the update, showing its progress meanwhile; false where the stream has ended.
async fn wait(events: &mut Events, view: &mut View) -> bool {
    let look = tokio::time::sleep(LOOK_EVERY);
    tokio::pin!(look);
    loop {
        let message = tokio::select! {
            message = events.next() => message,
            () = &mut look => return true,
        };
        let Some(message) = message else { return false };
        if message.event != "update.progress" {
            return true;
        }
        if let Ok(EventDoc {
            to: Some(committed),
            ..
        }) = serde_json::from_str(&message.data)
        {
            view.progress(committed.parse().unwrap_or(0));
        }
    }
}

/// Prints how it ended, and gives the exit code.
fn finish(
    doc: &UpdateDoc,
    online: Option<bool>,
    out: Output,
    no_wait: bool,
) -> Result<ExitCode, CliError> {
    if out.json {
        out.json_line(doc)?;
    }
    if doc.state == "confirmed" {
        if !out.json {
            print(&match &doc.detail {
                Some(detail) => format!("{} is confirmed on {}: {detail}.", doc.device, doc.image),
                None => format!(
                    "{} is confirmed on {}: {} sent, of which {} again, in {} sessions.",
                    doc.device,
                    doc.image,
                    bytes(doc.sent),
                    bytes(doc.resent),
                    doc.sessions
                ),
            })?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if update::ended(doc) {
        let detail = doc
            .detail
            .as_ref()
            .map_or_else(String::new, |detail| format!(": {detail}"));
        let advice = advice(doc, online);
        say(format!(
            "Update {} of {} to {} is {}{detail}. {}",
            doc.update,
            doc.device,
            doc.image,
            update::state(doc),
            advice.unwrap_or_default()
        )
        .trim_end());
        return Ok(ExitCode::from(FAILED));
    }
    let waiting = doc.waiting_for.as_deref().unwrap_or_default();
    let sentence = format!(
        "Update {} is {} and goes on. {waiting}",
        doc.update,
        update::state(doc)
    );
    if no_wait && !out.json {
        print(sentence.trim_end())?
    } else {
        say(sentence.trim_end())
    }
    Ok(ExitCode::from(NOT_FINISHED))
}

/// What is shown while waiting: a bar on a terminal, otherwise a line for each change of state.
struct View {
    out: Output,
    bar: Option<ProgressBar>,
    last: Option<(String, Option<String>, Option<u8>)>,
    is_lost: bool,
}

impl View {
    fn new(pushed: &PushDoc, out: Output) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(u64::from(pushed.update.size));
            let style = ProgressStyle::with_template(
                "{prefix} {bar:30} {binary_bytes}/{binary_total_bytes} {msg}",
            );
            if let Ok(style) = style {
                bar.set_style(style);
            }
            bar.set_prefix(format!("{} {}", pushed.update.device, pushed.update.image));
            bar
        });
        let view = Self {
            out,
            bar,
            last: None,
            is_lost: false,
        };
        if pushed.joined {
            view.note(&format!(
                "Joined update {}, which was open already.",
                pushed.update.update
            ));
        }
        view
    }

    fn changed(&mut self, doc: &UpdateDoc) -> Result<(), CliError> {
        self.is_lost = false;
        self.progress(doc.committed);
        let now = (
            doc.state.clone(),
            doc.reason.clone(),
            update::under_way(doc).map(|entry| entry.component),
        );
        if self.last.as_ref() == Some(&now) {
            return Ok(());
        }
        self.last = Some(now);
        match &self.bar {
            Some(bar) => bar.set_message(match &doc.waiting_for {
                Some(waiting) => format!("{} - {waiting}", update::state(doc)),
                None => update::state(doc),
            }),
            None => {
                let mut committed = format!(
                    "{} of {} committed",
                    bytes(doc.committed),
                    bytes(u64::from(doc.size))
                );
                if let Some(entry) = update::under_way(doc) {
                    committed.push_str(&format!(
                        ", {} of {} of component {}",
                        bytes(entry.committed),
                        bytes(u64::from(entry.size)),
                        entry.component
                    ));
                }
                let line = format!(
                    "{}  {}  {}  {}  {committed}",
                    time(doc.changed),
                    doc.device,
                    doc.update,
                    update::state(doc)
                );
                if self.out.json {
                    say(&line)
                } else {
                    print(&line)?
                }
            }
        }
        Ok(())
    }

    fn progress(&self, committed: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(committed);
        }
    }

    fn lost(&mut self) {
        if !std::mem::replace(&mut self.is_lost, true) {
            self.note("The gateway has gone; dialling it again for 60 s.");
        }
    }

    fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => say(text),
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
