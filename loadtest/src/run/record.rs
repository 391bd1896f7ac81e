//! What a run has seen: the figures that its metrics, limits and plots are made of.

use crate::fleet::words::Tick;
use serde::Serialize;
use std::collections::BTreeMap;

/// Everything that a run has seen.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Record {
    /// Boards of the fleet.
    pub boards: u64,
    /// Updates that were pushed.
    pub pushed: u64,
    /// Steps that pushed them.
    pub pushes: u64,
    /// Seconds from the begin to the first moment when every board had a session.
    pub online_after_s: Option<f64>,
    /// The longest time in seconds from a restart of the gateway until every board had a session again.
    pub back_after_s: Option<f64>,
    /// Seconds of the first push.
    pub first_push_s: Option<f64>,
    /// Seconds at which every update had ended.
    pub settled_s: Option<f64>,
    /// Anonymous memory of the gateway before any board, in bytes.
    pub rss_before: Option<u64>,
    /// The same with every board idle, and how many sessions there were.
    pub idle: Option<Idle>,
    /// Highest resident memory of any gateway process of the run (VmHWM), in bytes.
    pub peak_bytes: u64,
    /// Waits from a push to the first byte at its board, in milliseconds, sorted.
    pub push_ms: Vec<f64>,
    /// Waits for an acknowledgement, a sample, sorted.
    pub ack_ms: Vec<Waited>,
    /// Sessions that boards have at the end.
    pub online_at_end: u64,
    /// Updates by state, as the gateway has them at the end.
    pub updates: BTreeMap<String, u64>,
    /// Handshakes that the gateway refused or gave up, of all its processes, by its reason.
    pub refused: BTreeMap<String, u64>,
    /// The longest that a gateway took to stop in order, in seconds.
    pub stop_s: Option<f64>,
    /// Sessions that boards had when a gateway was stopped in order, of all such stops.
    pub stopped_sessions: u64,
    /// From when on boards come back after a stop in order, and when all were back or the
    /// gateway went again, in seconds.
    pub returns: Vec<[f64; 2]>,
    /// What the crews counted until the end.
    pub last: Counts,
    /// Seconds that the run took.
    pub seconds: f64,
    /// Promises that boards saw broken, in words; at most [`BROKEN_MAX`] of them.
    pub broken: Vec<String>,
    /// How many there were.
    pub broken_count: u64,
    /// What happened when.
    pub events: Vec<Event>,
    /// Why the run did not reach its end, in a sentence.
    pub unfinished: Option<String>,
    /// The series.
    pub points: Vec<Point>,
}

impl Record {
    /// A gateway was stopped in order, with so many sessions, and took so long.
    pub(super) fn stopped(&mut self, sessions: u64, took_s: f64) {
        self.stopped_sessions += sessions;
        self.stop_s = Some(self.stop_s.unwrap_or(0.0).max(took_s));
    }

    /// The points of the series while boards came back after stops in order, each time by itself.
    pub(super) fn returning(&self) -> impl Iterator<Item = &[Point]> {
        self.returns.iter().map(|[from_s, to_s]| {
            let first = self.points.partition_point(|point| point.t_s < *from_s);
            let last = self.points.partition_point(|point| point.t_s <= *to_s);
            // The one before the first as well: what rises, rises from there.
            let first = first.saturating_sub(1);
            self.points.get(first..last).unwrap_or(&[])
        })
    }
}

/// A wait of a sample; as a pair of numbers in the report.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Waited(
    /// Milliseconds.
    pub f64,
    /// Waits that it stands for: those of its crew and tick, over those of them in the sample.
    pub f64,
);

/// Broken promises of which the words are kept.
pub const BROKEN_MAX: usize = 50;

/// The gateway's memory with every session idle.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Idle {
    /// RssAnon in bytes.
    pub rss: u64,
    /// Sessions.
    pub sessions: u64,
    /// When.
    pub t_s: f64,
}

/// Something that happened, for the plots and the list.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// Seconds since the begin.
    pub t_s: f64,
    /// In words.
    pub what: String,
}

/// Sums over all crews, since the begin.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Counts {
    /// Boards with a session.
    pub online: u64,
    /// Dials begun.
    pub dials: u64,
    /// Dials that came to nothing, by reason.
    pub failed_dials: BTreeMap<String, u64>,
    /// Sessions that ended, by the board's word for it.
    pub ended: BTreeMap<String, u64>,
    /// Bytes of TCP payload from the boards.
    pub bytes_up: u64,
    /// And to them.
    pub bytes_down: u64,
    /// Bytes of images that were committed.
    pub committed: u64,
    /// Bytes of chunks that came again.
    pub again: u64,
    /// Boards that run an image that was pushed, and have confirmed it.
    pub confirmed: u64,
    /// Updates that ended otherwise, by reason.
    pub not_confirmed: BTreeMap<String, u64>,
}

impl Counts {
    /// Adds a crew's.
    pub fn add(&mut self, tick: &Tick) {
        let sum = |into: &mut BTreeMap<String, u64>, from: &BTreeMap<String, u64>| {
            for (reason, count) in from {
                *into.entry(reason.clone()).or_default() += count;
            }
        };
        self.online += tick.online;
        self.dials += tick.dials;
        sum(&mut self.failed_dials, &tick.failed_dials);
        sum(&mut self.ended, &tick.ended);
        self.bytes_up += tick.bytes_up;
        self.bytes_down += tick.bytes_down;
        self.committed += tick.committed;
        self.again += tick.again;
        self.confirmed += tick.confirmed_images.iter().sum::<u64>();
        sum(&mut self.not_confirmed, &tick.not_confirmed);
    }
}

/// One point of the series; what is a count is since the begin.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Point {
    /// Seconds since the begin.
    pub t_s: f64,
    /// Boards with a session, by their own word.
    pub online: u64,
    /// Open sessions of the gateway; none while it does not answer.
    pub sessions: Option<u64>,
    /// Handshakes under way at the gateway.
    pub handshakes: u64,
    /// Deliveries under way at the gateway.
    pub transfers: u64,
    /// Handshakes that the gateway refused, of all its processes.
    pub refused: u64,
    /// Updates that the gateway calls confirmed.
    pub confirmed: u64,
    /// Dials begun.
    pub dials: u64,
    /// Dials that came to nothing.
    pub failed_dials: u64,
    /// Sessions that ended.
    pub ended: u64,
    /// Bytes of TCP payload from the boards.
    pub bytes_up: u64,
    /// And to them.
    pub bytes_down: u64,
    /// Bytes of images that were committed.
    pub committed: u64,
    /// Bytes of chunks that came again.
    pub again: u64,
    /// Waits for an acknowledgement since the last point: 50, 90 and 99 of 100 were shorter.
    pub ack_ms: Option<[f64; 3]>,
    /// How many waits there were.
    pub acks: u64,
    /// Anonymous memory of the gateway in bytes (RssAnon).
    pub rss: Option<u64>,
    /// CPU time of all gateway processes in seconds.
    pub cpu_s: f64,
    /// Open files of the gateway.
    pub files: Option<u64>,
    /// Threads of the gateway.
    pub threads: Option<u64>,
}

/// The wait that `share` (0 to 1) of all waits are not above, by what each of a sorted sample
/// stands for; None of none.
#[must_use]
pub fn percentile(sorted: &[Waited], share: f64) -> Option<f64> {
    let all: f64 = sorted.iter().map(|Waited(_, weight)| weight).sum();
    let mut sum = 0.0;
    let found = sorted.iter().find(|Waited(_, weight)| {
        sum += weight;
        sum >= share * all
    });
    found.or(sorted.last()).map(|Waited(ms, _)| *ms)
}

/// 50, 90 and 99 of 100 of these waits are below; sorts them.
#[must_use]
pub fn percentiles(waits: &mut [Waited]) -> Option<[f64; 3]> {
    waits.sort_by(|Waited(one, _), Waited(other, _)| one.total_cmp(other));
    Some([
        percentile(waits, 0.5)?,
        percentile(waits, 0.9)?,
        percentile(waits, 0.99)?,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crews_are_summed_by_reason() {
        let mut tick = Tick {
            online: 2,
            dials: 3,
            confirmed_images: vec![1, 2],
            ..Tick::default()
        };
        tick.failed_dials.insert("refused".into(), 1);
        let mut counts = Counts::default();
        counts.add(&tick);
        tick.failed_dials.insert("timeout".into(), 4);
        counts.add(&tick);
        assert_eq!((counts.online, counts.dials, counts.confirmed), (4, 6, 6));
        assert_eq!(counts.failed_dials["refused"], 2);
        assert_eq!(counts.failed_dials["timeout"], 4);
    }

    #[test]
    fn percentiles_of_nothing_are_none() {
        assert_eq!(percentiles(&mut []), None);
        let mut waits = [3.0, 1.0, 2.0].map(|ms| Waited(ms, 1.0));
        assert_eq!(percentiles(&mut waits), Some([2.0, 3.0, 3.0]));
    }

    #[test]
    fn a_wait_counts_for_those_that_it_stands_for() {
        // A busy crew whose sample of two stands for 98 waits, and two of a quiet one.
        let mut waits = [
            Waited(50.0, 1.0),
            Waited(60.0, 1.0),
            Waited(1.0, 49.0),
            Waited(2.0, 49.0),
        ];
        assert_eq!(percentiles(&mut waits), Some([2.0, 2.0, 50.0]));
        assert_eq!(percentile(&waits, 1.0), Some(60.0));
    }
}
