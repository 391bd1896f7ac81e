//! `dialhome update ...`, and an update in words.

use std::process::ExitCode;

use hyper::Method;

use super::advice::{advice, asks_for_presence};
use super::args::UpdateCommand;
use super::client::{Client, segment};
use super::error::CliError;
use super::output::{Output, bytes, sheet, time};
use crate::store::State;
use crate::store::docs::{DeviceDoc, UpdateDoc, UpdateEntryDoc};

pub(crate) async fn run(
    command: UpdateCommand,
    client: &Client,
    out: Output,
) -> Result<ExitCode, CliError> {
    let doc: UpdateDoc = match command {
        UpdateCommand::Show { id } => client.get(&path(&id)).await?,
        UpdateCommand::Cancel { id } => {
            client
                .send(Method::POST, &format!("{}/cancel", path(&id)), None::<&()>)
                .await?
        }
        UpdateCommand::Abandon { id } => {
            client
                .send(Method::POST, &format!("{}/abandon", path(&id)), None::<&()>)
                .await?
        }
    };
    let online = online(&doc, client).await;
    out.show(&doc, || describe(&doc, online))
}

/// Whether the update's board is online, where the advice about its end depends on that.
pub(crate) async fn online(update: &UpdateDoc, client: &Client) -> Option<bool> {
    if !ended(update) || !asks_for_presence(update) {
        return None;
    }
    let path = format!("/v1/devices/{}", segment(&update.device));
    let device = client.get::<DeviceDoc>(&path).await;
    device.ok().map(|device| device.online)
}

pub(crate) fn path(id: &str) -> String {
    format!("/v1/updates/{}", segment(id))
}

/// The update has ended.
pub(crate) fn ended(update: &UpdateDoc) -> bool {
    State::ALL
        .iter()
        .any(|state| state.is_terminal() && state.name() == update.state)
}

/// Of an update of several components, the one that is sent or checked now.
pub(crate) fn under_way(update: &UpdateDoc) -> Option<&UpdateEntryDoc> {
    let mut entries = update.entries.iter();
    entries.find(|entry| update.entries.len() > 1 && entry.under_way)
}

fn describe(update: &UpdateDoc, online: Option<bool>) -> String {
    let mut text = whole(update, online);
    let several = update.entries.iter().filter(|_| update.entries.len() > 1);
    for entry in several {
        text.push_str(&format!("\ncomponent {}\n", entry.component));
        text.push_str(&sheet(&[
            ("  digest", Some(entry.digest.clone())),
            (
                "  committed",
                Some(format!(
                    "{} of {}",
                    bytes(entry.committed),
                    bytes(u64::from(entry.size))
                )),
            ),
            ("  revert", entry.revert.clone()),
        ]));
    }
    if let Some(output) = &update.output {
        text.push_str("\n\noutput of what failed on the device:\n");
        text.push_str(output.trim_end());
    }
    text
}

fn whole(update: &UpdateDoc, online: Option<bool>) -> String {
    sheet(&[
        ("update", Some(update.update.clone())),
        ("device", Some(update.device.clone())),
        ("image", Some(update.image.clone())),
        (
            "digest",
            (update.entries.len() < 2).then(|| update.digest.clone()),
        ),
        ("state", Some(state(update))),
        ("detail", update.detail.clone()),
        (
            "revert",
            Some(match &update.revert {
                Some(revert) => revert.clone(),
                None => "unknown: the device has not dialed home yet".into(),
            }),
        ),
        ("warning", update.warning.clone()),
        (
            "what to do",
            Some(update)
                .filter(|update| ended(update))
                .and_then(|update| advice(update, online)),
        ),
        (
            "committed",
            Some(format!(
                "{} of {}",
                bytes(update.committed),
                bytes(u64::from(update.size))
            )),
        ),
        (
            "sent",
            Some(format!(
                "{}, of which {} again, in {} sessions",
                bytes(update.sent),
                bytes(update.resent),
                update.sessions
            )),
        ),
        ("created", Some(time(update.created))),
        ("changed", Some(time(update.changed))),
        ("deadline", Some(time(update.deadline))),
        ("waiting for", update.waiting_for.clone()),
    ])
}

/// State and reason.
pub(crate) fn state(update: &UpdateDoc) -> String {
    match &update.reason {
        Some(reason) => format!("{} ({reason})", update.state),
        None => update.state.clone(),
    }
}
