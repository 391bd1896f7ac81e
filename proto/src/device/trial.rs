//! From staged to an outcome: boot, test, confirm or revert (spec/states.md section 1.3).
//!
//! Every phase is in the journal before its step is taken, and each step may be
//! repeated: after a cut the machine decides from the phase and from what runs.

use super::cells::{Cell, TrialPhase};
use super::config::{RunningImage, SEVERAL};
use super::link::{DialFault, LinkState};
use super::machine::{Active, Machine};
use super::stage::Stage;
use super::work::{BootAction, Work};
use crate::code::{BootReason, DigestFrom, Reason, SelfTest, Statement};
use crate::id::UpdateId;
use crate::limits::BOOT_ATTEMPTS_MAX;
use crate::time::Millis;

/// Awake time is stored once per so many seconds.
const AWAKE_STORE_S: u32 = 600;

impl Machine<'_> {
    /// Decides after a boot, or after a look, what is next for an image on its way.
    pub(super) fn resume_trial(&mut self, now: Millis) {
        self.stage_at = now;
        let (Some(image), Some(trial)) = (&self.cells.image, &mut self.cells.trial) else {
            self.stage = Stage::Idle;
            return;
        };
        let place = self.config.place(image.component).unwrap_or(0);
        let phase = trial.phase;
        self.active = Some(Active {
            update: trial.update,
            place,
        });
        if self.lost_entry() {
            self.revert(Reason::REVERT_FAILED);
            return;
        }
        if let Some((beside, reason)) = self.wrong_beside(phase) {
            self.blame(beside);
            self.revert(reason);
            return;
        }
        let (Some(image), Some(trial)) = (&self.cells.image, &mut self.cells.trial) else {
            return;
        };
        let running = self.running.get(usize::from(place));
        let known = running.is_some_and(|running| running.digest_from != DigestFrom::UNKNOWN);
        let runs = known && running.is_some_and(|running| running.digest == image.sha256);
        let unfinished = running.is_some_and(|running| running.unfinished);
        let by_bootloader =
            running.is_some_and(|running| running.boot_reason == BootReason::REVERT);
        match trial.phase {
            TrialPhase::Activating | TrialPhase::Switched if runs => {
                trial.phase = TrialPhase::Testing;
                trial.boots = 1;
                trial.attempts = 0;
                self.dirty(Cell::Trial);
                self.test_next();
            }
            // The old image runs already; the boot side is told that the trial is over, so that
            // no later update takes this return for its own.
            TrialPhase::Activating if by_bootloader => self.revert(Reason::CRASHED),
            TrialPhase::Activating if trial.attempts >= BOOT_ATTEMPTS_MAX => {
                self.revert(Reason::INSTALL_FAILED)
            }
            TrialPhase::Activating => {
                trial.attempts = trial.attempts.saturating_add(1);
                self.dirty(Cell::Trial);
                self.stage = Stage::Activating;
            }
            TrialPhase::Switched | TrialPhase::Testing if !known => {
                self.revert(Reason::WRONG_IMAGE_RUNNING)
            }
            TrialPhase::Testing if runs => {
                trial.boots = trial.boots.saturating_add(1);
                let spent = trial.boots > image.trial.boots;
                self.dirty(Cell::Trial);
                if spent {
                    self.revert(Reason::CRASHED);
                } else {
                    self.test_next();
                }
            }
            TrialPhase::Confirming if unfinished => self.revert(Reason::WRONG_IMAGE_RUNNING),
            // The gateway has seen it run: what cannot be asked now is made final all the same.
            TrialPhase::Confirming if runs || !known => {
                self.confirm_first();
                self.stage = Stage::Confirming;
            }
            TrialPhase::Switched | TrialPhase::Testing | TrialPhase::Confirming
                if by_bootloader =>
            {
                self.revert(Reason::CRASHED)
            }
            // The boot side may still hold the image for the next start, or its trial open.
            TrialPhase::Switched | TrialPhase::Testing | TrialPhase::Confirming => {
                self.revert(Reason::OLD_IMAGE_RUNNING)
            }
            // Only a known digest says that the old image is back.
            TrialPhase::Reverting if (runs || !known) && trial.attempts >= BOOT_ATTEMPTS_MAX => {
                self.revert_failed("");
            }
            TrialPhase::Reverting if runs || !known => {
                trial.attempts = trial.attempts.saturating_add(1);
                self.dirty(Cell::Trial);
                self.stage = Stage::Reverting;
            }
            TrialPhase::Reverting => {
                let reason = trial.reason;
                self.reverted(reason);
            }
        }
    }

    /// Answers [`BootAction::Look`]: what runs now of the component of [`super::Cells::trial`].
    pub fn looked(&mut self, running: RunningImage, now: Millis) {
        self.take_work();
        if let Some(slot) = self
            .active
            .and_then(|active| self.running.get_mut(usize::from(active.place)))
        {
            *slot = running;
        }
        self.resume_trial(now);
    }

    /// Answers `activate`, `confirm`, `revert` and a `restart` that returned: whether a
    /// restart is needed, or why it failed; `detail` is what the boot side has to add.
    pub fn booted(&mut self, result: Result<bool, Reason>, detail: &str, now: Millis) {
        let Some(Work::Boot(action)) = self.take_work() else {
            return;
        };
        match (action, result) {
            (BootAction::Activate, Ok(restart)) => {
                self.set_phase(TrialPhase::Switched);
                self.stage = if restart {
                    Stage::Restarting(BootReason::UPDATE)
                } else {
                    Stage::Looking
                };
            }
            (BootAction::Activate, Err(reason)) => {
                self.note_detail(detail);
                self.revert(reason);
            }
            (BootAction::Confirm, Ok(_)) if self.confirm_next() => {}
            (BootAction::Confirm, Ok(_)) => self.confirmed(),
            // The trial goes on; its budget ends it.
            (BootAction::Confirm, Err(_)) => {
                self.set_phase(TrialPhase::Testing);
                self.stage = Stage::Trial;
            }
            (BootAction::Revert, Ok(restart)) => {
                self.stage = if restart {
                    Stage::Restarting(BootReason::REVERT)
                } else {
                    Stage::Looking
                };
            }
            // Nothing is left that could be brought back; another attempt would find less.
            (BootAction::Revert, Err(Reason::REVERT_FAILED)) => self.revert_failed(detail),
            // The next start would run the image after all: undo it while that can be told.
            (BootAction::Restart(BootReason::UPDATE), _) => self.revert(Reason::INSTALL_FAILED),
            (BootAction::Revert, Err(_)) | (BootAction::Restart(_), _) => {
                self.stage = Stage::Looking;
            }
            (BootAction::SelfTest | BootAction::Look, _) => {}
        }
        self.stage_at = now;
    }

    /// Answers [`BootAction::SelfTest`]; `detail` is what a failed test has to say.
    pub fn self_tested(&mut self, verdict: SelfTest, detail: &str, now: Millis) {
        self.take_work();
        self.self_test = verdict;
        self.stage_at = now;
        if verdict == SelfTest::FAILED {
            self.note_detail(detail);
            self.revert(Reason::SELF_TEST);
        } else if !self.note_verdict(verdict) {
            self.stage = Stage::Trial;
        }
    }

    pub(super) fn handle_confirm(&mut self, update: UpdateId) {
        if matches!(self.stage, Stage::Trial)
            && self
                .cells
                .trial
                .as_ref()
                .is_some_and(|trial| trial.update == update)
        {
            self.set_phase(TrialPhase::Confirming);
            self.confirm_first();
            self.stage = Stage::Confirming;
        } else if self.cells.outbox.has_outcome_of(&update) {
            self.restate();
        }
    }

    /// `Boot::confirm` is durable: the outcome may be stated.
    fn confirmed(&mut self) {
        if self.confirm_entries() {
            return self.end_update(Statement::CONFIRMED, Reason::NONE, "");
        }
        self.drop_rest();
        let (Some(active), Some(image)) = (self.active, self.cells.image.take()) else {
            return;
        };
        self.cells.trial = None;
        self.dirty(Cell::Trial);
        self.keep_running_image(active.place, &image);
        if let Some(running) = self.running.get_mut(usize::from(active.place)) {
            running.on_trial = false;
        }
        self.drop_claim();
        self.end_update(Statement::CONFIRMED, Reason::NONE, "");
    }

    /// Puts the old image back.
    pub(super) fn revert(&mut self, reason: Reason) {
        self.turn_back();
        if let Some(trial) = &mut self.cells.trial {
            trial.reason = reason;
            trial.attempts = 1;
        }
        self.set_phase(TrialPhase::Reverting);
        self.stage = Stage::Reverting;
        if matches!(self.link, LinkState::Greeting { .. } | LinkState::Online) {
            self.leave_to_restart();
        }
    }

    /// The old image runs.
    fn reverted(&mut self, reason: Reason) {
        if self.revert_next() {
            return;
        }
        // An image that nobody could be asked about stays staged; one that failed does not.
        let stays = matches!(reason, Reason::NO_CONTACT | Reason::GATEWAY_SILENT);
        self.end_entries(stays);
        if !stays {
            self.drop_rest();
        }
        self.end_trial();
        if !stays {
            self.drop_claim();
        }
        let state = if SEVERAL && reason == Reason::REVERT_FAILED {
            Statement::FAILED
        } else {
            Statement::REVERTED
        };
        self.end_update(state, reason, "");
    }

    /// The image could not be undone: it runs still, or nobody can say what does.
    fn revert_failed(&mut self, detail: &str) {
        if self.note_revert_failed(detail) {
            return self.reverted(Reason::REVERT_FAILED);
        }
        self.end_trial();
        self.drop_claim();
        self.end_update(Statement::FAILED, Reason::REVERT_FAILED, detail);
    }

    fn end_trial(&mut self) {
        self.cells.trial = None;
        if self.cells.claim.is_none() {
            self.cells.image = None;
        }
        self.dirty(Cell::Trial);
    }

    fn set_phase(&mut self, phase: TrialPhase) {
        if let Some(trial) = &mut self.cells.trial {
            trial.phase = phase;
            self.dirty(Cell::Trial);
        }
    }

    /// Keeps what the slot or the boot side had to add, for the outcome that is stated next.
    pub fn note_detail(&mut self, detail: &str) {
        self.cells.outbox.note(detail);
        self.dirty(Cell::Outbox);
    }

    /// A dial failed while an image is on trial: the budget counts it if there was a link.
    pub(super) fn note_failed_dial(&mut self, fault: DialFault) {
        if !matches!(self.stage, Stage::Trial) || fault == DialFault::NoLink {
            return;
        }
        let (Some(image), Some(trial)) = (&self.cells.image, &mut self.cells.trial) else {
            return;
        };
        trial.dials = trial.dials.saturating_add(1);
        let spent = trial.dials > image.trial.dials;
        self.dirty(Cell::Trial);
        self.trial_heard_link = true;
        if spent {
            self.revert(Reason::GATEWAY_SILENT);
        }
    }

    pub(super) fn trial_deadline(&self) -> Millis {
        let (Stage::Trial, Some((image, trial))) = (&self.stage, self.cells.tried()) else {
            return Millis::NEVER;
        };
        let left_s = image.trial.awake_s.saturating_sub(trial.awake_s);
        self.stage_at
            .after(u64::from(left_s.min(AWAKE_STORE_S) * 1000))
    }

    pub(super) fn trial_timeout(&mut self, now: Millis) {
        if self.trial_deadline() > now {
            return;
        }
        let (Some(image), Some(trial)) = (&self.cells.image, &mut self.cells.trial) else {
            return;
        };
        let awake = now.seconds_since(self.stage_at);
        trial.awake_s = trial.awake_s.saturating_add(awake);
        let spent = trial.awake_s >= image.trial.awake_s;
        self.stage_at = now;
        self.dirty(Cell::Trial);
        if spent {
            self.revert(if self.trial_heard_link {
                Reason::GATEWAY_SILENT
            } else {
                Reason::NO_CONTACT
            });
        }
    }
}
