//! /v1/devices/{id}/check: the way to a board and back, measured by pings through its open session.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::error::{ApiError, Args, ErrorDoc, Name};
use crate::session::Checked;
use crate::store::Disconnect;
use crate::store::docs::AirBytes;

/// Pings of a check that names no number.
const COUNT: u32 = 10;
/// Most pings of a check.
const COUNT_MAX: u32 = 100;
/// Seconds that a ping has to be answered, where none are named.
const WITHIN_S: u32 = 5;
/// Most of them.
const WITHIN_S_MAX: u32 = 30;
/// Time of a whole check: whoever asks has a deadline of a minute for the answer.
const ALL: Duration = Duration::from_secs(50);

/// What a connectivity check found. Absent is null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CheckDoc {
    /// The device.
    pub device: String,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Pings that were asked for.
    pub pings: u32,
    /// Pings that were sent: fewer where the session ended, or the check's 50 s were over.
    pub sent: u32,
    /// Pings that were answered in time.
    pub answered: u32,
    /// Pings that were not.
    pub lost: u32,
    /// Of those, pings whose answer came later, within the check.
    pub late: u32,
    /// The shortest round trip, in milliseconds.
    pub min_ms: Option<f64>,
    /// The middle one: as many were shorter as longer.
    pub median_ms: Option<f64>,
    /// What 99 of 100 stayed within; of fewer than 100, the longest.
    pub p99_ms: Option<f64>,
    /// The longest.
    pub max_ms: Option<f64>,
    /// Each of them, in the order of sending.
    pub round_trips_ms: Vec<f64>,
    /// A transfer was under way: pings waited behind its bytes.
    pub in_transfer: bool,
    /// Why the session ended within the check.
    pub ended: Option<String>,
    /// `tcp` or `quic`.
    pub transport: Option<String>,
    /// The board's address as the gateway sees it.
    pub peer: Option<String>,
    /// How the board reaches its network, as it says: `lte`, `wifi`, ...
    pub link: Option<String>,
    /// The network's name, as the board knows it.
    pub network: Option<String>,
    /// Signal in dBm, as the board's last Hello said.
    pub signal_dbm: Option<i8>,
    /// Battery in percent, as the board's last Hello said.
    pub battery_percent: Option<u8>,
    /// When the session began.
    #[schema(value_type = String, format = DateTime)]
    pub session_since: Timestamp,
    /// Its age in seconds, when the check began.
    pub session_s: u64,
    /// How the session before it ended.
    pub last_disconnect: Option<Disconnect>,
    /// Bytes that the check cost, in records; what TCP and IP add is not seen from here.
    pub air_bytes: AirBytes,
}

#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct How {
    /// Pings to send, one after another, 1 to 100 (10 where it is not given).
    count: Option<u32>,
    /// Seconds that each has to be answered, 1 to 30 (5 where it is not given). The whole check ends after 50.
    within_s: Option<u32>,
}

/// Pings the board through its open session and measures the round trips. It takes 50 s at most.
#[utoipa::path(post, path = "/v1/devices/{id}/check", params(How),
    responses((status = 200, body = CheckDoc), (status = 400, body = ErrorDoc), (status = 404, body = ErrorDoc), (status = 409, body = ErrorDoc)))]
pub(super) async fn check(
    State(admin): Api,
    Name(id): Name,
    Args(how): Args<How>,
) -> Result<Json<CheckDoc>, ApiError> {
    let (count, within_s) = (how.count.unwrap_or(COUNT), how.within_s.unwrap_or(WITHIN_S));
    if !(1..=COUNT_MAX).contains(&count) || !(1..=WITHIN_S_MAX).contains(&within_s) {
        return Err(ApiError::bad(
            "bad_check",
            format!(
                "a check has 1 to {COUNT_MAX} pings, and each 1 to {WITHIN_S_MAX} s to be answered"
            ),
        ));
    }
    let inquiry = admin.ask(&id, "check", || admin.live.check(&id)).await?;
    let (at, since) = (crate::store::now(), inquiry.since());
    let each = Duration::from_secs(within_s.into());
    let checked = inquiry.check(count, each, ALL).await;
    let state = admin.store.device_state(&id).await?.unwrap_or_default();
    let hello = state.hello.unwrap_or_default();
    let named = |text: String| (!text.is_empty()).then_some(text);
    let times = Times::of(&checked);
    let lost = checked.sent - times.count;
    Ok(Json(CheckDoc {
        at,
        pings: count,
        sent: checked.sent,
        answered: times.count,
        lost,
        // A board may say Pong of its own accord.
        late: checked.late.min(lost),
        min_ms: times.at(0.0),
        median_ms: times.median(),
        p99_ms: times.at(0.99),
        max_ms: times.at(1.0),
        round_trips_ms: checked.round_trips.iter().copied().map(ms).collect(),
        in_transfer: checked.in_transfer,
        ended: checked.ended,
        transport: named(hello.transport),
        peer: hello.peer,
        link: named(hello.link).filter(|link| link != "unknown"),
        network: named(hello.network),
        signal_dbm: hello.signal_dbm,
        battery_percent: hello.battery_percent,
        session_since: since,
        session_s: at.duration_since(since).as_secs().unsigned_abs(),
        last_disconnect: state.last_disconnect,
        air_bytes: AirBytes {
            sent: checked.bytes.0,
            received: checked.bytes.1,
        },
        device: id,
    }))
}

/// Milliseconds, to the microsecond.
fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// Round trips by their length.
struct Times {
    sorted: Vec<Duration>,
    count: u32,
}

impl Times {
    fn of(checked: &Checked) -> Self {
        let mut sorted = checked.round_trips.clone();
        sorted.sort_unstable();
        let count = u32::try_from(sorted.len()).unwrap_or(u32::MAX);
        Self { sorted, count }
    }

    /// The round trip that this part of them stays within (the nearest rank).
    fn at(&self, part: f64) -> Option<f64> {
        let rank = (f64::from(self.count) * part).ceil();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 0 to the number of round trips, 100 at most"
        )]
        let place = (rank as usize).saturating_sub(1);
        self.sorted.get(place).copied().map(ms)
    }

    /// The middle one, or the mean of the two in the middle.
    fn median(&self) -> Option<f64> {
        let half = self.sorted.len() / 2;
        let upper = *self.sorted.get(half)?;
        let both = match half.checked_sub(1).and_then(|below| self.sorted.get(below)) {
            Some(lower) if self.sorted.len().is_multiple_of(2) => (*lower + upper) / 2,
            _ => upper,
        };
        Some(ms(both))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(ms: impl IntoIterator<Item = u64>) -> Times {
        Times::of(&Checked {
            round_trips: ms.into_iter().map(Duration::from_millis).collect(),
            ..Checked::default()
        })
    }

    #[test]
    fn the_middle_and_the_99th_of_100_are_what_they_say() {
        let hundred = times((1..=100).rev());
        assert_eq!(hundred.at(0.0), Some(1.0));
        assert_eq!(hundred.median(), Some(50.5));
        assert_eq!(hundred.at(0.99), Some(99.0));
        assert_eq!(hundred.at(1.0), Some(100.0));
        let three = times([30, 10, 20]);
        assert_eq!(three.median(), Some(20.0));
        assert_eq!(three.at(0.99), Some(30.0));
    }

    #[test]
    fn without_an_answer_there_is_no_time() {
        let none = times([]);
        assert_eq!(
            (none.at(0.0), none.median(), none.at(0.99)),
            (None, None, None)
        );
    }
}
