//! The steps of a scenario.

use super::play::{Heard, Run, Stop};
use super::scenario::{Action, HowEnded, Outage, Push, Restart};
use super::seats;
use crate::Error;
use crate::fleet::words::Order;
use crate::measure::clock::now_ns;
use crate::site::admin::Admin;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;

/// Connections over which images are pushed, where nothing says how fast.
const PUSHERS: usize = 8;

impl Run {
    /// Does what step `number` (from 0) says.
    pub(super) async fn step(&mut self, number: usize, action: Action) -> Result<(), Stop> {
        self.waiting_for = format!("step {} to be done", number + 1);
        match action {
            Action::Push(push) => self.push(number, &push).await,
            Action::Restart(restart) => self.restart(&restart).await,
            Action::Blackout(outage) => {
                let (share, for_ms) = self.outage(&outage);
                self.order(&Order::Blackout { share, for_ms })
            }
            Action::PowerCut(outage) => {
                let (share, for_ms) = self.outage(&outage);
                self.order(&Order::PowerCut { share, for_ms })
            }
            Action::Abuse(abuse) => self.abuse(&abuse),
        }
    }

    fn outage(&mut self, outage: &Outage) -> (f64, u32) {
        self.disturb(outage.for_s);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "milliseconds of a day at most, checked with the scenario"
        )]
        let for_ms = (outage.for_s * 1_000.0) as u32;
        (outage.share, for_ms)
    }

    async fn restart(&mut self, restart: &Restart) -> Result<(), Stop> {
        let sessions = self.record.last.online;
        let Some(gateway) = self.part_with_gateway() else {
            return Err(Error::new("there is no gateway to restart").into());
        };
        match restart.how {
            HowEnded::InOrder => {
                let from_s = self.seconds();
                self.during(gateway.stop()).await??;
                let took_s = self.seconds() - from_s;
                self.record.stopped(sessions, took_s);
                self.note(&format!("the gateway has stopped, after {took_s:.1} s"));
                self.return_begins();
            }
            HowEnded::Kill => self.during(gateway.kill()).await??,
        }
        let away = Duration::from_secs_f64(restart.down_s);
        self.during(tokio::time::sleep(away)).await?;
        self.start_gateway().await?;
        self.disturb(0.0);
        Ok(())
    }

    async fn push(&mut self, number: usize, push: &Push) -> Result<(), Stop> {
        let mut ids = seats::ids(self.setup.boards);
        let seed = self.setup.seed.wrapping_add(number as u64);
        ids.shuffle(&mut StdRng::seed_from_u64(seed));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of the boards"
        )]
        let count = (push.share * ids.len() as f64).round().max(1.0) as usize;
        ids.truncate(count);
        if push.watch {
            self.watch(&ids).await?;
        }
        let steps = self.setup.scenario.steps();
        let is_push = |(_, _, action): &&(_, _, Action)| matches!(action, Action::Push(_));
        let image = steps.iter().take(number).filter(is_push).count();
        let Some(gateway) = &self.gateway else {
            return Err(Error::new("there is no gateway to push to").into());
        };
        let pushers = if push.every_ms == 0 { PUSHERS } else { 1 };
        let mut admins = Vec::with_capacity(pushers);
        for _ in 0..pushers {
            admins.push(gateway.admin().await?);
        }
        let began_s = self.seconds();
        let work = Work {
            ids: Arc::new(Mutex::new(ids.into())),
            image,
            every: Duration::from_millis(push.every_ms.into()),
            tell: self.tell.clone(),
        };
        let pushing = async move {
            let mut tasks = JoinSet::new();
            for admin in admins {
                tasks.spawn(work.clone().run(admin));
            }
            while let Some(ended) = tasks.join_next().await {
                ended.map_err(|error| Error::of("a push was not made", &error))??;
            }
            Ok::<(), Error>(())
        };
        // A gateway that refuses a push under load has failed, not the run.
        self.during(pushing)
            .await?
            .map_err(|error| Stop::Unfinished(format!("A push failed: {error}")))?;
        self.pushed(count as u64, began_s);
        Ok(())
    }
}

/// Pushes that are still to be made.
#[derive(Clone)]
struct Work {
    ids: Arc<Mutex<VecDeque<String>>>,
    image: usize,
    every: Duration,
    tell: UnboundedSender<Heard>,
}

impl Work {
    async fn run(self, mut admin: Admin) -> Result<(), Error> {
        loop {
            let next = self
                .ids
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front();
            let Some(id) = next else {
                return Ok(());
            };
            let at_ns = now_ns();
            let told = Heard::Push {
                id: id.clone(),
                at_ns,
            };
            // The run has ended where nobody hears it.
            if self.tell.send(told).is_err() {
                return Ok(());
            }
            admin.push(&id, self.image).await?;
            if !self.every.is_zero() {
                tokio::time::sleep(self.every).await;
            }
        }
    }
}
