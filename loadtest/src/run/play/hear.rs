//! What crews, samples and signals tell a run.

use super::{Heard, Run, Stop, point_ms};
use crate::Error;
use crate::fleet::words::Word;
use crate::run::crews::Crew;
use crate::run::record::{BROKEN_MAX, Waited};
use std::time::Duration;
use tokio::time::Instant;

impl Run {
    /// Hears and sees while this is done.
    pub(in crate::run) async fn during<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<T, Stop> {
        tokio::pin!(work);
        loop {
            let heard = tokio::select! {
                done = &mut work => return Ok(done),
                heard = self.next() => heard,
            };
            self.take(heard)?;
        }
    }

    /// The next thing heard; None where it is time to look round.
    pub(super) async fn next(&mut self) -> Option<Heard> {
        tokio::select! {
            heard = self.heard.recv() => heard,
            _ = self.look.tick() => None,
        }
    }

    pub(super) fn take(&mut self, heard: Option<Heard>) -> Result<(), Stop> {
        match heard {
            None => return self.look_round(),
            Some(Heard::Crew(number, word)) => self.word(number, *word)?,
            Some(Heard::Silent(number)) => {
                if !self.ending {
                    return Err(Stop::Failed(Error::new(format!(
                        "crew {number} ended before the run did. It said: {}",
                        self.crews.get(number).map(Crew::said).unwrap_or_default()
                    ))));
                }
                self.ended += 1;
            }
            Some(Heard::Process(process)) => {
                self.record.peak_bytes = self.record.peak_bytes.max(process.peak.unwrap_or(0));
                self.process = Some(process);
            }
            Some(Heard::Unanswered(why)) => {
                if !std::mem::replace(&mut self.unanswered, true) && !self.ending {
                    self.note(&format!("the gateway does not say how it stands: {why}"));
                }
            }
            Some(Heard::Status(status)) => {
                if std::mem::take(&mut self.unanswered) {
                    self.note("the gateway says again how it stands");
                }
                self.status = Some(status);
                self.see_status();
            }
            Some(Heard::Push { id, at_ns }) => {
                self.pushed_at.insert(id, at_ns);
            }
            Some(Heard::Signal(name)) => {
                return Err(Stop::Failed(Error::new(format!(
                    "the run was interrupted ({name})."
                ))));
            }
        }
        Ok(())
    }

    pub(super) fn word(&mut self, number: usize, word: Word) -> Result<(), Stop> {
        let is_abusive = number >= self.ticks.len();
        match word {
            Word::Tick(tick) if is_abusive => {
                self.gangs.insert(number, tick.gangs);
            }
            // What a board that never reads misses is no promise broken.
            Word::Ready | Word::Broken { .. } if is_abusive => {}
            Word::Ready => self.ready += 1,
            Word::Tick(mut tick) => {
                let waits = std::mem::take(&mut tick.ack_ms);
                let each = tick.acks as f64 / waits.len().max(1) as f64;
                let waits = waits.into_iter().map(|ms| Waited(ms.into(), each));
                self.acks.extend(waits);
                self.acked += tick.acks;
                let at_ns = tick.at_ns;
                if let Some(place) = self.ticks.get_mut(number) {
                    *place = Some(*tick);
                }
                self.record.last = self.counts();
                if self.record.online_after_s.is_none()
                    && self.record.last.online == self.record.boards
                {
                    self.record.online_after_s = Some(self.seconds_at(at_ns));
                }
                self.see_return();
            }
            Word::FirstByte { id, at_ns } => {
                if let Some(pushed) = self.pushed_at.remove(&id)
                    && self.watched
                {
                    let wait_ns = at_ns.saturating_sub(pushed);
                    self.record.push_ms.push(wait_ns as f64 / 1e6);
                }
            }
            Word::Broken { id, how } => {
                self.record.broken_count += 1;
                if self.record.broken.len() < BROKEN_MAX {
                    self.record.broken.push(format!("{id}: {how}"));
                }
            }
            Word::Failed { why } => {
                return Err(Stop::Failed(Error::new(format!(
                    "crew {number} cannot go on: {why}"
                ))));
            }
            Word::Ended => {}
        }
        Ok(())
    }

    /// Looks at what no word tells.
    fn look_round(&mut self) -> Result<(), Stop> {
        if let Some(gateway) = &mut self.gateway
            && let Some(status) = gateway.ended()
        {
            let said = gateway.said();
            let last: Vec<&str> = said.lines().rev().take(3).collect();
            return Err(Stop::Unfinished(format!(
                "The gateway ended by itself ({status}). Its last words: {}",
                last.into_iter().rev().collect::<Vec<_>>().join(" / ")
            )));
        }
        let Some(began) = self.began else {
            return Ok(());
        };
        let every = Duration::from_millis(point_ms(self.setup.boards));
        if self.last_point.elapsed() >= every && !self.ending {
            self.last_point = Instant::now();
            self.point();
        }
        let within_s = self.setup.scenario.end().within_s;
        if began.elapsed() > Duration::from_secs_f64(within_s) && !self.ending {
            return Err(Stop::Unfinished(format!(
                "The run did not reach its end within {within_s} s: it was waiting for {}. {}",
                self.waiting_for,
                self.standing()
            )));
        }
        Ok(())
    }

    /// How it stands, in a sentence.
    pub(super) fn standing(&self) -> String {
        let status = self.status.clone().unwrap_or_default();
        let states: Vec<String> = status
            .updates
            .iter()
            .map(|(state, count)| format!("{count} {state}"))
            .collect();
        format!(
            "{} of {} boards were online, the gateway had {} sessions, and of {} updates: {}.",
            self.record.last.online,
            self.record.boards,
            status.sessions,
            self.record.pushed,
            if states.is_empty() {
                "none known".to_owned()
            } else {
                states.join(", ")
            }
        )
    }
}
