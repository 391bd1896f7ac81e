//! From the begin of a run through its steps, and the orders that they give.

use super::{Run, Stop, point_ms};
use crate::fleet::words::{Link, Order, Tick};
use crate::measure::clock::now_ns;
use crate::run::crews::Crew;
use crate::run::scenario::{Abuse, After};
use crate::run::seats;
use std::time::Duration;
use tokio::time::Instant;

impl Run {
    /// From the begin to the end.
    pub(super) async fn all(&mut self) -> Result<(), Stop> {
        self.began = Some(Instant::now());
        self.began_ns = now_ns();
        self.last_point = Instant::now();
        for crew in &self.crews {
            crew.order(&Order::Begin)?;
        }
        self.note("the boards are switched on");
        let steps = self.setup.scenario.steps();
        for (number, (after, wait_s, action)) in steps.into_iter().enumerate() {
            self.wait(after, wait_s, &format!("step {}", number + 1))
                .await?;
            self.steps_begun += 1;
            self.note(&action.words());
            self.step(number, action).await?;
        }
        let (after, wait_s) = {
            let end = self.setup.scenario.end();
            (end.after, end.wait_s)
        };
        self.wait(after, wait_s, "the end").await?;
        self.note("the end");
        Ok(())
    }

    /// Waits for what a step waits for.
    async fn wait(&mut self, after: After, wait_s: f64, before: &str) -> Result<(), Stop> {
        let awaited = match after {
            After::Step | After::Begin => "its time",
            After::Online => "every board having a session",
            After::Settled => "every update having ended",
            After::AtRest => "every update having ended and every board having a session",
        };
        self.waiting_for = format!("{awaited}, before {before}");
        loop {
            let holds = match after {
                After::Step | After::Begin => true,
                After::Online => self.is_online(),
                After::Settled => self.is_settled(),
                After::AtRest => self.is_settled() && self.is_online(),
            };
            if holds {
                break;
            }
            let heard = self.next().await;
            self.take(heard)?;
        }
        let from = match (after, self.began) {
            (After::Begin, Some(began)) => began,
            _ => Instant::now(),
        };
        self.waiting_for = format!("{wait_s} s to pass, before {before}");
        let until = from + Duration::from_secs_f64(wait_s);
        while Instant::now() < until {
            let heard = self.next().await;
            self.take(heard)?;
        }
        Ok(())
    }

    /// Boards to be pushed to, told to their crews.
    pub(in crate::run) async fn watch(&mut self, ids: &[String]) -> Result<(), Stop> {
        self.watched = true;
        for (number, crew) in self.crews.iter().enumerate() {
            let of_crew = ids
                .iter()
                .filter(|id| self.crew_of.get(*id) == Some(&number));
            crew.order(&Order::WatchFirstBytes {
                ids: of_crew.cloned().collect(),
            })?;
        }
        // A crew reads its orders before it ticks twice.
        let sent_ns = now_ns();
        let later = sent_ns + 2 * point_ms(self.setup.boards) * 1_000_000;
        let heard = |ticks: &[Option<Tick>]| {
            ticks
                .iter()
                .all(|tick| tick.as_ref().is_some_and(|tick| tick.at_ns > later))
        };
        while !heard(&self.ticks) {
            let next = self.next().await;
            self.take(next)?;
        }
        Ok(())
    }

    /// An order to all crews.
    pub(in crate::run) fn order(&self, order: &Order) -> Result<(), Stop> {
        for crew in &self.crews {
            crew.order(order)?;
        }
        Ok(())
    }

    /// From so many seconds on, what is seen counts for `online` again.
    pub(in crate::run) fn disturb(&mut self, for_s: f64) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "nanoseconds of a day at most, checked with the scenario"
        )]
        let for_ns = (for_s * 1e9) as u64;
        self.disturbed_ns = self.disturbed_ns.max(now_ns() + for_ns);
    }

    /// So many more updates were pushed, from `began_s` until now.
    pub(in crate::run) fn pushed(&mut self, count: u64, began_s: f64) {
        self.pushed_ns = now_ns();
        self.record.pushed += count;
        self.record.pushes += 1;
        self.record.settled_s = None;
        self.record.first_push_s.get_or_insert(began_s);
    }

    /// Abusive peers are a crew of their own, which begins at once.
    pub(in crate::run) fn abuse(&mut self, abuse: &Abuse) -> Result<(), Stop> {
        let boards = seats::never_readers(abuse, &mut self.never_readers);
        let number = self.crews.len();
        let links = vec![Link::default()];
        let roll = self.roll(number, links, boards, seats::gangs(abuse));
        let crew = Crew::start(number, &roll, self.site.folder(), self.tell.clone())?;
        crew.order(&Order::Begin)?;
        self.crews.push(crew);
        Ok(())
    }
}
