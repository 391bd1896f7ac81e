//! `dialhome status`, `hold` and `release`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use hyper::Method;

use super::client::{Client, segment};
use super::error::CliError;
use super::output::{Output, bytes, sheet, time};
use crate::admin::StatusDoc;

pub(crate) async fn run(client: &Client, out: Output) -> Result<ExitCode, CliError> {
    let doc: StatusDoc = client.get("/v1/status").await?;
    out.show(&doc, || describe(&doc))
}

fn describe(status: &StatusDoc) -> String {
    let counts = |counts: &BTreeMap<String, u64>| {
        let parts: Vec<String> = counts
            .iter()
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    };
    let hold = match (status.hold, status.devices_held) {
        (true, _) => Some("everything: `dialhome release` ends it".to_owned()),
        (false, 0) => None,
        (false, held) => Some(format!("{held} devices")),
    };
    let mut refused = status.refused_for.clone();
    refused.retain(|_, count| *count > 0);
    sheet(&[
        ("version", Some(status.version.clone())),
        ("up since", Some(time(status.started))),
        ("listening on", status.listen.clone()),
        (
            "quic",
            Some(
                status
                    .quic
                    .listen
                    .clone()
                    .map_or_else(|| "off".into(), |listen| format!("{listen} (UDP)")),
            ),
        ),
        ("quic pin", Some(status.quic.pin.clone())),
        ("data", Some(status.data.clone())),
        ("on hold", hold),
        ("devices", Some(status.devices.to_string())),
        (
            "sessions",
            Some(format!(
                "{}, {} handshakes under way, {} refused",
                status.sessions, status.handshakes, status.refused
            )),
        ),
        ("refused for", counts(&refused)),
        ("over quic", over_quic(status)),
        ("transfers", Some(transfers(status))),
        ("updates", counts(&status.updates)),
        ("failures", counts(&status.failures)),
        (
            "disk",
            Some(format!(
                "{} free of {}; database {}, images {}",
                bytes(status.disk.free),
                bytes(status.disk.total),
                bytes(status.disk.database),
                bytes(status.disk.images)
            )),
        ),
        (
            "open files",
            Some(format!(
                "{} of {}",
                status.open_files.used, status.open_files.limit
            )),
        ),
        ("problem", status.store.problem.clone()),
        ("problem", status.accept.problem.clone()),
        ("problem", status.images_problem.clone()),
        ("last event", Some(status.last_seq.to_string())),
    ])
}

/// Sessions over QUIC, and what their links did; nothing where there was none yet.
fn over_quic(status: &StatusDoc) -> Option<String> {
    let quic = &status.quic;
    let seen = quic.connections > 0 || quic.lost_packets > 0 || quic.address_changes > 0;
    seen.then(|| {
        format!(
            "{} sessions, {} packets lost ({}), {} changes of address, {} addresses proven first",
            quic.sessions,
            quic.lost_packets,
            bytes(quic.lost_bytes),
            quic.address_changes,
            quic.retries
        )
    })
}

/// What is sent now, what waits, and what limits it.
fn transfers(status: &StatusDoc) -> String {
    let turns = &status.turns;
    let mut text = format!(
        "{} running ({} at a time, {} per network), {} waiting, {} updates under way",
        turns.running, turns.limit, turns.network_limit, turns.waiting, status.transfers
    );
    if turns.lent > 0 {
        text += &format!("; {} too slow to keep others waiting", turns.lent);
    }
    for (rate, whose) in [(turns.rate, ""), (turns.network_rate, " per network")] {
        if let Some(rate) = rate {
            text += &format!("; at most {}/s{whose}", bytes(rate));
        }
    }
    text
}

/// Holds or releases one device, or everything.
pub(crate) async fn hold(
    device: Option<&str>,
    hold: bool,
    client: &Client,
    out: Output,
) -> Result<ExitCode, CliError> {
    let action = if hold { "hold" } else { "release" };
    let path = device.map_or_else(
        || format!("/v1/{action}"),
        |id| format!("/v1/devices/{}/{action}", segment(id)),
    );
    let doc: serde_json::Value = client.send(Method::POST, &path, None::<&()>).await?;
    out.show(&doc, || {
        let what = device.map_or_else(|| "Everything".to_owned(), |id| format!("Device {id}"));
        if hold {
            format!("{what} is on hold: nothing is offered, sent or activated.")
        } else {
            format!("{what} is released.")
        }
    })
}
