//! `dialhome events`: what happened, and with --follow what happens.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::args::EventsArgs;
use super::client::Client;
use super::error::CliError;
use super::output::{Output, print, say, time};
use super::sse::Events;
use crate::admin::EventPage;
use crate::store::docs::EventDoc;

/// How long a follower goes on dialling a gateway that has gone.
pub(crate) const RECONNECT_FOR: Duration = Duration::from_secs(60);
/// Between two tries.
pub(crate) const RECONNECT_EVERY: Duration = Duration::from_millis(250);

pub(crate) async fn run(
    args: &EventsArgs,
    client: &Client,
    out: Output,
) -> Result<ExitCode, CliError> {
    if args.follow {
        follow(args.since, client, out).await
    } else {
        list(args.since, client, out).await
    }
}

async fn list(since: Option<u64>, client: &Client, out: Output) -> Result<ExitCode, CliError> {
    let mut whole = EventPage {
        items: Vec::new(),
        next: None,
        missed_before: None,
    };
    let mut query = since.map_or_else(
        || "/v1/events?limit=100".to_owned(),
        |since| format!("/v1/events?limit=1000&since={since}"),
    );
    loop {
        let page: EventPage = client.get(&query).await?;
        whole.missed_before = whole.missed_before.or(page.missed_before);
        whole.items.extend(page.items);
        let Some(next) = page.next else { break };
        query = format!("/v1/events?limit=1000&since={next}");
    }
    if let Some(oldest) = whole.missed_before {
        say(&missed(&oldest.to_string()));
    }
    out.show(&whole, || {
        whole.items.iter().map(line).collect::<Vec<_>>().join("\n")
    })
}

async fn follow(since: Option<u64>, client: &Client, out: Output) -> Result<ExitCode, CliError> {
    let mut last = since;
    let mut gone: Option<Instant> = None;
    loop {
        let since = last.map_or_else(String::new, |last| format!("&since={last}"));
        match client
            .stream(&format!("/v1/events?follow=true{since}"))
            .await
        {
            Ok(body) => {
                gone = None;
                let mut events = Events::new(body);
                while let Some(message) = events.next().await {
                    match message.event.as_str() {
                        "missed" => say(&missed(&message.data)),
                        "lagged" => {}
                        _ => {
                            let Ok(event) = serde_json::from_str::<EventDoc>(&message.data) else {
                                continue;
                            };
                            last = Some(event.seq);
                            if out.json {
                                out.json_line(&event)?
                            } else {
                                print(&line(&event))?
                            }
                        }
                    }
                }
            }
            Err(error) if last.is_none() && gone.is_none() => return Err(error),
            Err(error) => {
                if gone.get_or_insert_with(Instant::now).elapsed() >= RECONNECT_FOR {
                    return Err(error);
                }
            }
        }
        gone.get_or_insert_with(Instant::now);
        tokio::time::sleep(RECONNECT_EVERY).await;
    }
}

fn missed(oldest: &str) -> String {
    format!("Events before {oldest} are not kept any more.")
}

/// An event in one line.
pub(crate) fn line(event: &EventDoc) -> String {
    let mut text = format!("{:>6}  {}  {:<16}", event.seq, time(event.at), event.kind);
    for part in [&event.device, &event.update].into_iter().flatten() {
        text.push_str(&format!("  {part}"));
    }
    match (&event.from, &event.to) {
        (Some(from), Some(to)) => text.push_str(&format!("  {from} -> {to}")),
        (None, Some(to)) => text.push_str(&format!("  {to}")),
        _ => {}
    }
    if let Some(reason) = &event.reason {
        text.push_str(&format!("  ({reason})"));
    }
    if let Some(component) = event.component {
        text.push_str(&format!("  component {component}"));
    }
    text
}
