//! What a scenario may limit: each metric by its name (`SCENARIOS.md`).

use super::record::{self, Point, Record};
use crate::measure::stats::percentile;

const MIB: f64 = 1024.0 * 1024.0;
const GIB: f64 = 1024.0 * MIB;

/// A figure of a run.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name in a scenario and in the report.
    pub name: &'static str,
    /// Its unit; empty for counts and ratios.
    pub unit: &'static str,
    /// What it says, in words.
    pub meaning: &'static str,
    /// It; none where the run could not tell.
    pub of: fn(&Record) -> Option<f64>,
}

const fn metric(
    name: &'static str,
    unit: &'static str,
    meaning: &'static str,
    of: fn(&Record) -> Option<f64>,
) -> Metric {
    Metric {
        name,
        unit,
        meaning,
        of,
    }
}

/// All of them.
pub const METRICS: &[Metric] = &[
    metric(
        "confirmed_share",
        "",
        "updates that the gateway calls confirmed, of those that were pushed",
        |run| ratio(confirmed(run), run.pushed as f64),
    ),
    metric(
        "failed_share",
        "",
        "updates that ended otherwise than confirmed, of those that were pushed",
        |run| {
            let failed = ["reverted", "declined", "failed"];
            let failed: u64 = failed
                .iter()
                .filter_map(|state| run.updates.get(*state))
                .sum();
            ratio(failed as f64, run.pushed as f64)
        },
    ),
    metric(
        "confirmed_without_board",
        "",
        "updates that the gateway calls confirmed, and no board says so; told for runs with one push",
        |run| {
            // A board that took a second image no longer runs the first.
            let told = confirmed(run) - run.last.confirmed as f64;
            (run.pushes == 1).then_some(told.max(0.0))
        },
    ),
    metric(
        "broken",
        "",
        "promises that a board saw broken: a wrong byte, a chunk outside of the window, an end that lies",
        |run| Some(run.broken_count as f64),
    ),
    metric(
        "online_at_end",
        "",
        "share of the boards with a session when the run ended",
        |run| ratio(run.online_at_end as f64, run.boards as f64),
    ),
    metric(
        "time_to_online_s",
        "s",
        "from the begin until every board had a session",
        |run| run.online_after_s,
    ),
    metric(
        "time_to_return_s",
        "s",
        "from the end of the gateway until every board had a session again, the longest of the run",
        |run| run.back_after_s,
    ),
    metric(
        "stop_s",
        "s",
        "from SIGTERM until the gateway had ended, the longest of the run's restarts in order",
        |run| run.stop_s,
    ),
    metric(
        "told_share",
        "",
        "sessions that ended by `Close(stopping)`, which says when to come back, of those that boards had when the gateway was stopped in order",
        |run| {
            let told = run.last.ended.get("Close(stopping)").copied().unwrap_or(0);
            ratio(told as f64, run.stopped_sessions as f64)
        },
    ),
    metric(
        "return_dials_per_s_peak",
        "1/s",
        "the most dials a second between two points of the series while boards came back after a stop in order",
        |run| {
            run.returning()
                .filter_map(|points| steepest(points, |point| point.dials as f64))
                .max_by(f64::total_cmp)
        },
    ),
    metric(
        "time_to_settled_s",
        "s",
        "from the first push until every update had ended",
        |run| Some(run.settled_s? - run.first_push_s?),
    ),
    metric(
        "dials_per_board",
        "",
        "dials that boards began, per board",
        |run| ratio(run.last.dials as f64, run.boards as f64),
    ),
    metric(
        "failed_dials_share",
        "",
        "dials that came to nothing, of all dials",
        |run| {
            let failed: u64 = run.last.failed_dials.values().sum();
            ratio(failed as f64, run.last.dials as f64)
        },
    ),
    metric(
        "unanswered_dials_share",
        "",
        "dials that a connection was made for and that ended without a word of the gateway (`closed`, `reset`, `timeout`), of all dials",
        |run| {
            let silent = ["closed", "reset", "timeout"];
            let silent = silent
                .iter()
                .filter_map(|how| run.last.failed_dials.get(*how));
            ratio(silent.sum::<u64>() as f64, run.last.dials as f64)
        },
    ),
    metric(
        "dials_per_s_peak",
        "1/s",
        "the most dials a second between two points of the series",
        |run| steepest(&run.points, |point| point.dials as f64),
    ),
    metric(
        "refused_handshakes",
        "",
        "handshakes that the gateway refused or gave up, of all its processes",
        |run| run.points.last().map(|point| point.refused as f64),
    ),
    metric(
        "ended_sessions_per_board",
        "",
        "sessions that ended before the run did, per board",
        |run| {
            let ended: u64 = run.last.ended.values().sum();
            ratio(ended as f64, run.boards as f64)
        },
    ),
    metric(
        "goodput_mib_per_s",
        "MiB/s",
        "committed bytes of images, from the first push until the last of them",
        |run| {
            let first = run.first_push_s?;
            let last = run.points.last()?.committed;
            let done = run.points.iter().find(|point| point.committed == last)?.t_s;
            ratio(last as f64 / MIB, done - first)
        },
    ),
    metric(
        "resent_ratio",
        "",
        "bytes of chunks that a board wrote again, over its committed bytes; what was lost on its way is in air_ratio alone",
        |run| ratio(run.last.again as f64, run.last.committed as f64),
    ),
    metric(
        "air_ratio",
        "",
        "bytes of TCP payload in both directions, over the committed bytes: dials, pings and all",
        |run| {
            let bytes = run.last.bytes_up + run.last.bytes_down;
            ratio(bytes as f64, run.last.committed as f64)
        },
    ),
    metric(
        "ack_ms_p50",
        "ms",
        "from the moment a chunk left until its acknowledgement came; half were shorter",
        |run| record::percentile(&run.ack_ms, 0.5),
    ),
    metric(
        "ack_ms_p90",
        "ms",
        "the same; 90 of 100 were shorter",
        |run| record::percentile(&run.ack_ms, 0.9),
    ),
    metric(
        "ack_ms_p99",
        "ms",
        "the same; 99 of 100 were shorter",
        |run| record::percentile(&run.ack_ms, 0.99),
    ),
    metric(
        "push_ms_p50",
        "ms",
        "from a watched push to the first byte at its board; half were shorter",
        |run| percentile(&run.push_ms, 0.5),
    ),
    metric(
        "push_ms_p99",
        "ms",
        "the same; 99 of 100 were shorter",
        |run| percentile(&run.push_ms, 0.99),
    ),
    metric(
        "gateway_rss_mib",
        "MiB",
        "the most anonymous memory that the gateway had at a point of the series (RssAnon)",
        |run| {
            let most = run.points.iter().filter_map(|point| point.rss).max()?;
            Some(most as f64 / MIB)
        },
    ),
    metric(
        "gateway_peak_mib",
        "MiB",
        "the most resident memory that the gateway ever had, program and files included (VmHWM)",
        |run| (run.peak_bytes > 0).then_some(run.peak_bytes as f64 / MIB),
    ),
    metric(
        "user_bytes_per_idle_session",
        "bytes",
        "RssAnon of the gateway with all sessions idle, less what it was before, over the sessions",
        |run| {
            let idle = run.idle?;
            let more = idle.rss as f64 - run.rss_before? as f64;
            ratio(more, idle.sessions as f64)
        },
    ),
    metric(
        "gateway_cpu_s",
        "s",
        "processor time of the gateway over the run",
        |run| run.points.last().map(|point| point.cpu_s),
    ),
    metric(
        "gateway_cpu_s_per_gib",
        "s/GiB",
        "the same, over the committed bytes",
        |run| {
            let cpu = run.points.last()?.cpu_s;
            ratio(cpu, run.last.committed as f64 / GIB)
        },
    ),
    metric(
        "gateway_files",
        "",
        "the most files that the gateway had open",
        |run| most(&run.points, |point| point.files),
    ),
    metric(
        "gateway_threads",
        "",
        "the most threads that the gateway had",
        |run| most(&run.points, |point| point.threads),
    ),
];

fn confirmed(run: &Record) -> f64 {
    run.updates.get("confirmed").copied().unwrap_or(0) as f64
}

fn ratio(value: f64, over: f64) -> Option<f64> {
    (over > 0.0).then(|| value / over)
}

fn most(points: &[Point], of: fn(&Point) -> Option<u64>) -> Option<f64> {
    points.iter().filter_map(of).max().map(|most| most as f64)
}

/// The steepest rise of a count, per second.
fn steepest(points: &[Point], of: fn(&Point) -> f64) -> Option<f64> {
    points
        .windows(2)
        .filter_map(|pair| match pair {
            [before, after] => ratio(of(after) - of(before), after.t_s - before.t_s),
            _ => None,
        })
        .max_by(f64::total_cmp)
}

/// The metric of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.name == name)
}

/// The metric whose name shares the most words with this one.
#[must_use]
pub fn nearest(name: &str) -> Option<&'static str> {
    let shared = |known: &str| {
        let words: Vec<&str> = known.split('_').collect();
        name.split('_').filter(|word| words.contains(word)).count()
    };
    METRICS
        .iter()
        .map(|metric| (shared(metric.name), metric.name))
        .filter(|(shared, _)| *shared > 0)
        .max_by_key(|(shared, _)| *shared)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::record::Idle;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_there_once() {
        let names: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len());
    }

    #[test]
    fn a_run_without_pushes_has_no_share_of_them() {
        let run = Record::default();
        assert_eq!((find("confirmed_share").unwrap().of)(&run), None);
        assert_eq!((find("broken").unwrap().of)(&run), Some(0.0));
    }

    #[test]
    fn what_a_stop_did_is_told_by_those_who_heard_it_and_by_how_they_come_back() {
        let points = [(0.0, 100), (1.0, 100), (2.0, 150), (3.0, 350), (4.0, 2_000)];
        let mut run = Record {
            stop_s: Some(2.5),
            stopped_sessions: 200,
            returns: vec![[1.0, 3.0]],
            points: points
                .map(|(t_s, dials)| Point {
                    t_s,
                    dials,
                    ..Point::default()
                })
                .into(),
            ..Record::default()
        };
        run.last.ended.insert("Close(stopping)".into(), 150);
        run.last.ended.insert("lost".into(), 50);
        run.last.failed_dials.insert("busy".into(), 3);
        run.last.failed_dials.insert("reset".into(), 1);
        run.last.dials = 100;
        let value = |name: &str| (find(name).unwrap().of)(&run);
        assert_eq!(value("stop_s"), Some(2.5));
        assert_eq!(value("told_share"), Some(0.75));
        // What came after they were back is not theirs.
        assert_eq!(value("return_dials_per_s_peak"), Some(200.0));
        assert_eq!(value("unanswered_dials_share"), Some(0.01));
        run.returns.clear();
        assert_eq!((find("return_dials_per_s_peak").unwrap().of)(&run), None);
    }

    #[test]
    fn idle_memory_is_what_came_on_top() {
        let run = Record {
            rss_before: Some(10_000),
            idle: Some(Idle {
                rss: 30_000,
                sessions: 20,
                t_s: 1.0,
            }),
            ..Record::default()
        };
        let metric = find("user_bytes_per_idle_session").unwrap();
        assert_eq!((metric.of)(&run), Some(1_000.0));
    }

    #[test]
    fn the_steepest_rise_is_per_second() {
        let point = |t_s, dials| Point {
            t_s,
            dials,
            ..Point::default()
        };
        let points = [point(0.0, 0), point(0.5, 10), point(2.5, 30)];
        assert_eq!(steepest(&points, |point| point.dials as f64), Some(20.0));
    }

    #[test]
    fn a_name_nearly_right_is_understood() {
        assert_eq!(nearest("gateway_rss"), Some("gateway_rss_mib"));
        assert_eq!(nearest("weather"), None);
    }
}
