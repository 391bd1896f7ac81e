//! `dialhome device check`: how a board answers, for people and for scripts.

use std::process::ExitCode;
use std::time::Duration;

use hyper::Method;

use super::client::{Client, segment};
use super::error::{CliError, FAILED};
use super::output::{Output, sheet, time};
use crate::admin::CheckDoc;

pub(crate) async fn run(
    id: &str,
    count: Option<u32>,
    within: Option<Duration>,
    client: &Client,
    out: Output,
) -> Result<ExitCode, CliError> {
    let mut query: Vec<String> = count.iter().map(|count| format!("count={count}")).collect();
    query.extend(within.map(|within| format!("within_s={}", within.as_secs())));
    let path = format!("/v1/devices/{}/check?{}", segment(id), query.join("&"));
    let doc: CheckDoc = client.send(Method::POST, &path, None::<&()>).await?;
    out.show(&doc, || describe(&doc))?;
    // Nobody answered: a script that only looks at the exit code must see that.
    Ok(if doc.answered == 0 {
        ExitCode::from(FAILED)
    } else {
        ExitCode::SUCCESS
    })
}

fn describe(check: &CheckDoc) -> String {
    let trips = match (check.min_ms, check.median_ms, check.p99_ms, check.max_ms) {
        (Some(min), Some(median), Some(p99), Some(max)) => Some(format!(
            "min {}, median {}, p99 {}, max {}",
            ms(min),
            ms(median),
            ms(p99),
            ms(max)
        )),
        _ => None,
    };
    let mut link = vec![check.link.clone().unwrap_or_else(|| "unknown".into())];
    link.extend(check.network.iter().map(|name| format!("network {name}")));
    link.extend(check.signal_dbm.map(|dbm| format!("signal {dbm} dBm")));
    link.extend(
        check
            .battery_percent
            .map(|left| format!("battery {left} %")),
    );
    let from = check.peer.iter().map(|peer| format!(" from {peer}"));
    let over = check.transport.iter().map(|name| format!(" over {name}"));
    let text = sheet(&[
        ("device", Some(check.device.clone())),
        (
            "session",
            Some(format!(
                "open for {}, since {}{}",
                age(check.session_s),
                time(check.session_since),
                from.chain(over).collect::<String>()
            )),
        ),
        ("link", Some(link.join(", "))),
        ("pings", Some(pings(check))),
        ("round trip", trips),
        (
            "last disconnect",
            check
                .last_disconnect
                .as_ref()
                .map(|last| format!("{} ({})", time(last.at), last.reason)),
        ),
        (
            "air bytes",
            Some(format!(
                "{} sent, {} received, and what {} for each ping and answer",
                check.air_bytes.sent,
                check.air_bytes.received,
                match check.transport.as_deref() {
                    Some("quic") => "QUIC, UDP and IP add, some 60,",
                    _ => "TCP and IP add, some 52,",
                }
            )),
        ),
    ]);
    format!("{text}\n\n{}", verdict(check))
}

fn pings(check: &CheckDoc) -> String {
    let mut text = format!(
        "{} sent, {} answered, {} lost",
        check.sent, check.answered, check.lost
    );
    if check.late > 0 {
        text.push_str(&format!(", of which {} came late", check.late));
    }
    if check.sent < check.pings {
        text.push_str(&format!("; {} were asked for", check.pings));
    }
    text
}

fn verdict(check: &CheckDoc) -> String {
    if let Some(reason) = &check.ended {
        return format!(
            "The session ended within the check ({reason}): repeat it when the board has dialed home."
        );
    }
    let mut text = match (check.answered, check.lost) {
        (0, _) => "The board did not answer. Its session is open, but the way is not: the gateway closes it when it stays silent, and the board dials again.".to_owned(),
        (_, 0) => "The board answers.".to_owned(),
        (_, lost) => format!("The board answers, and {lost} of {} answers did not come in time.", check.sent),
    };
    if check.in_transfer {
        text.push_str(" A transfer was under way: pings wait behind its bytes.");
    }
    text
}

/// Milliseconds for people: three digits or more.
fn ms(time: f64) -> String {
    match time {
        time if time < 1.0 => format!("{time:.3} ms"),
        time if time < 100.0 => format!("{time:.1} ms"),
        time => format!("{time:.0} ms"),
    }
}

/// Seconds for people: the two largest units.
fn age(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_are_told_with_the_digits_that_mean_something() {
        assert_eq!(ms(0.047), "0.047 ms");
        assert_eq!(ms(41.26), "41.3 ms");
        assert_eq!(ms(1234.5), "1234 ms");
    }

    #[test]
    fn an_age_is_told_in_its_two_largest_units() {
        assert_eq!(age(59), "59 s");
        assert_eq!(age(61), "1 min 1 s");
        assert_eq!(age(3 * 3600 + 59 * 60 + 59), "3 h 59 min");
        assert_eq!(age(2 * 86_400 + 3_600), "2 d 1 h");
    }
}
