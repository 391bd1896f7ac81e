//! What a run makes of what it heard: whether it may go on, and the points of its series.

use super::Run;
use crate::measure::clock::now_ns;
use crate::run::record::{Counts, Idle, Point, percentiles};
use std::collections::BTreeMap;

impl Run {
    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for tick in self.ticks.iter().flatten() {
            counts.add(tick);
        }
        counts
    }

    /// Every crew said so after the last disturbance, and the gateway as well.
    pub(super) fn is_online(&self) -> bool {
        let later = |at_ns: u64| at_ns > self.disturbed_ns;
        let heard = self
            .ticks
            .iter()
            .all(|tick| tick.as_ref().is_some_and(|tick| later(tick.at_ns)));
        let status = self.status.as_ref();
        heard
            && self.record.last.online == self.record.boards
            && status
                .is_some_and(|status| later(status.at_ns) && status.sessions >= self.record.boards)
    }

    pub(super) fn is_settled(&self) -> bool {
        self.status.as_ref().is_some_and(|status| {
            status.at_ns > self.pushed_ns && status.ended() >= self.record.pushed
        })
    }

    pub(super) fn see_status(&mut self) {
        let Some(status) = &self.status else {
            return;
        };
        let at_s = self.seconds_at(status.at_ns);
        let idle = self.steps_begun == 0
            && status.sessions >= self.record.boards
            && status.transfers == 0
            && status.handshakes == 0;
        if let (true, Some(rss)) = (idle, self.process.as_ref().and_then(|process| process.rss)) {
            self.record.idle = Some(Idle {
                rss,
                sessions: status.sessions,
                t_s: at_s,
            });
        }
        self.record.updates.clone_from(&status.updates);
        if self.record.pushed > 0 && self.record.settled_s.is_none() && self.is_settled() {
            self.record.settled_s = Some(at_s);
        }
        self.see_return();
    }

    /// The gateway has stopped in order: from now on boards come back.
    pub(in crate::run) fn return_begins(&mut self) {
        self.record.returns.push([self.seconds(), f64::MAX]);
    }

    /// They are back, or the gateway goes once more.
    pub(super) fn return_ends(&mut self) {
        let now_s = self.seconds();
        if let Some([_, to_s]) = self.record.returns.last_mut() {
            *to_s = to_s.min(now_s);
        }
    }

    pub(super) fn see_return(&mut self) {
        if let Some(away_ns) = self.away_ns
            && self.gateway.is_some()
            && self.is_online()
        {
            let took = now_ns().saturating_sub(away_ns) as f64 / 1e9;
            let longest = self.record.back_after_s.unwrap_or(0.0);
            self.record.back_after_s = Some(longest.max(took));
            self.away_ns = None;
            self.return_ends();
            self.note("every board is back");
        }
    }

    /// Refusals of all gateway processes, by reason.
    pub(super) fn all_refused(&self) -> BTreeMap<String, u64> {
        let mut all = self.refused.clone();
        for (reason, count) in self.status.iter().flat_map(|status| &status.refused) {
            *all.entry(reason.clone()).or_default() += count;
        }
        all.retain(|_, count| *count > 0);
        all
    }

    /// Notes a point of the series.
    pub(super) fn point(&mut self) {
        let counts = &self.record.last;
        // What it said last says nothing of now where it does not answer.
        let status = self.status.as_ref().filter(|_| !self.unanswered);
        let refused = self.all_refused();
        let process = self.process.as_ref();
        let mut acks = std::mem::take(&mut self.acks);
        let point = Point {
            t_s: self.seconds(),
            online: counts.online,
            sessions: status.map(|status| status.sessions),
            handshakes: status.map_or(0, |status| status.handshakes),
            transfers: status.map_or(0, |status| status.transfers),
            refused: refused.values().sum(),
            confirmed: self.record.updates.get("confirmed").copied().unwrap_or(0),
            dials: counts.dials,
            failed_dials: counts.failed_dials.values().sum(),
            ended: counts.ended.values().sum(),
            bytes_up: counts.bytes_up,
            bytes_down: counts.bytes_down,
            committed: counts.committed,
            again: counts.again,
            ack_ms: percentiles(&mut acks),
            acks: std::mem::take(&mut self.acked),
            rss: process.and_then(|process| process.rss),
            cpu_s: self.spent_s + process.map_or(0.0, |process| process.cpu_s),
            files: process.and_then(|process| process.files),
            threads: process.and_then(|process| process.threads),
        };
        self.record.ack_ms.append(&mut acks);
        self.record.refused = refused;
        self.progress.point(&self.record, &point, &self.waiting_for);
        self.record.points.push(point);
    }
}
