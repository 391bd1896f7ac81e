//! The end of a run: everything in order, and the last figures.

use super::{Heard, Run, Stop, listed};
use crate::Error;
use crate::fleet::words::Order;
use crate::run::gauge;
use crate::run::record::percentiles;
use std::collections::BTreeMap;

impl Run {
    /// What became of the abusive peers, in words.
    fn abused(&self) -> Option<String> {
        let counts = || self.gangs.values().flatten();
        let opened: u64 = counts().map(|gang| gang.opened).sum();
        let mut refused = BTreeMap::<&str, u64>::new();
        for (code, count) in counts().flat_map(|gang| &gang.refused) {
            *refused.entry(code).or_default() += count;
        }
        let refused = listed(&refused);
        let closed: u64 = counts().map(|gang| gang.closed).sum();
        (opened > 0).then(|| {
            format!(
                "abusive peers had opened {opened} connections, of which the gateway closed {closed} and refused {refused}"
            )
        })
    }

    /// Ends everything in order. After it no process is left.
    pub(super) async fn end(&mut self) -> Result<(), Error> {
        self.progress.say("ending");
        self.record.online_at_end = self.record.last.online;
        if let Some(abused) = self.abused() {
            self.note(&abused);
        }
        if self.began.is_some() {
            self.ask_a_last_time().await;
            self.read_process();
            self.point();
        }
        self.record.seconds = self.seconds();
        self.ending = true;
        let at_end = self.record.last.clone();
        let mut first = Ok(());
        for crew in &self.crews {
            first = first.and(crew.order(&Order::End));
        }
        for crew in std::mem::take(&mut self.crews) {
            first = first.and(crew.end().await);
        }
        // What they said last, such as a promise that was broken.
        while let Ok(heard) = self.heard.try_recv() {
            if let Heard::Crew(number, word) = heard
                && let Err(Stop::Failed(error)) = self.word(number, *word)
            {
                first = first.and(Err(error));
            }
        }
        // What the end itself does to sessions is not what happened in the run; who had confirmed
        // an image when it came is best told by the last tick.
        let last = std::mem::replace(&mut self.record.last, at_end);
        self.record.last.confirmed = last.confirmed.max(self.record.last.confirmed);
        self.record.ack_ms.append(&mut self.acks);
        let _ = percentiles(&mut self.record.ack_ms);
        self.record.push_ms.sort_by(f64::total_cmp);
        if let Some(mut gateway) = self.part_with_gateway()
            && gateway.ended().is_none()
        {
            first = first.and(gateway.stop().await);
        }
        self.progress.end();
        first
    }

    /// The states of the updates at the very end.
    async fn ask_a_last_time(&mut self) {
        let Some(gateway) = &self.gateway else {
            return;
        };
        // One that has died does not answer; what it said last counts then.
        if let Ok(mut admin) = gateway.admin().await
            && let Ok(status) = gauge::status(&mut admin).await
        {
            self.status = Some(status);
            self.see_status();
        }
    }
}
