//! One update's way through one session (spec/states.md section 3).
//!
//! The shell drives it: board's frames, verdicts and the time go in; commands
//! come out of [`Delivery::poll_command`]. A [`Command::Record`] must be stored
//! durably, and [`Delivery::recorded`] called, before the next command comes out:
//! what an operator is told is true before the board is told to act on it.

use super::plan::Walk;
use super::plan::chunk_len;
use super::{Awaits, ChunkRange, Counters, Fault, Part, Plan, Sending, Standing, State};
use crate::code::{CloseCode, Phase, Reason, Statement};
use crate::frame::{
    Accept, Ack, Activate, Cancel, Component, Confirm, DOWNGRADE, Decline, Defer, DeviceFrame,
    Nack, Progress, RESTART, Report,
};
use crate::id::Digest;
use crate::limits::{ANSWER_MS, CONFIRM_MS, DEFER_S_MAX, RESTART_MS};
use crate::time::Millis;

/// What the shell does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// Store this, then call [`Delivery::recorded`].
    Record(Record),
    /// Send an Offer of this part with the manifest and these flags.
    SendOffer {
        /// Place of the part in the plan: Offer's `order`.
        part: u8,
        /// [`DOWNGRADE`] and [`RESTART`].
        flags: u8,
    },
    /// Send a Resume of this part with these flags.
    SendResume {
        /// Place of the part in the plan: Resume's `order`.
        part: u8,
        /// [`DOWNGRADE`].
        flags: u8,
    },
    /// Compare the digest with that of the image's first bytes, then call [`Delivery::handle_prefix`].
    CheckPrefix {
        /// Place of the part in the plan.
        part: u8,
        /// How many bytes.
        len: u32,
        /// What the board read back.
        digest: Digest,
    },
    /// Send a Chunk of these payload bytes; more may follow at once, so batch them.
    SendChunk(ChunkRange),
    /// Send Activate.
    SendActivate(Activate),
    /// Send Cancel.
    SendCancel(Cancel),
    /// Send Confirm.
    SendConfirm(Confirm),
}

/// A change of the update's record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// Where it stands now.
    pub state: State,
    /// Why.
    pub reason: Reason,
    /// Place of the part that was under way then.
    pub part: u8,
}

/// Where the delivery stands: each state says what it waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// To offer (or resume): nothing was sent yet; that it will be is recorded first.
    Asking {
        resume: bool,
        restart: bool,
        noted: bool,
    },
    /// The board's answer.
    Offering { resume: bool, due: Millis },
    /// The end of a deferral.
    Deferred { until: Millis },
    /// The shell's check of the prefix.
    Proving { accept: Accept, asked: bool },
    /// Acks.
    Transferring { sending: Sending },
    /// The board's word that the whole image is verified.
    Verifying { due: Millis },
    /// To activate: nothing was sent yet.
    Staged,
    /// The board's answer to Activate.
    ActivateSent { due: Millis },
    /// The end of the session: the board restarts.
    Activating { due: Millis },
    /// The board's verdict on itself.
    Trial,
    /// To confirm: nothing was sent yet.
    Well,
    /// The board's durable confirmation.
    Confirming { due: Millis },
    /// To cancel: nothing was sent yet.
    ToCancel,
    /// The board's answer to Cancel.
    Canceling { due: Millis },
    /// Nothing.
    Ended,
}

/// The delivery of one update in one session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivery {
    plan: Plan,
    stage: Stage,
    record: Option<Record>,
    /// The shell stores `record` now; it may change meanwhile.
    storing: bool,
    counters: Counters,
    walk: Walk,
    receive_buffer: u16,
    asked_at: Millis,
    rtt_ms: u64,
    held: bool,
    paused: bool,
    waits: bool,
    cancel: bool,
    /// An earlier Hello stated the planned images, on trial.
    seen: bool,
    /// Place of the part that an earlier session had begun to transfer.
    begun: Option<u8>,
}

const _: () = assert!(
    size_of::<Delivery>() <= 384,
    "the limit that spec/limits.md gives for a delivery"
);

impl Delivery {
    /// Starts from the components of the board's Hello and what the record says: `counters`
    /// from earlier sessions, `cancel` where an operator has asked for it.
    #[must_use]
    pub fn start(
        plan: Plan,
        components: &[Component<'_>],
        receive_buffer: u16,
        counters: Counters,
        cancel: bool,
    ) -> Self {
        let standing = Standing::of(&plan, components);
        let mut delivery = Self {
            stage: Stage::Ended,
            record: None,
            storing: false,
            counters,
            walk: Walk::new(&plan, components),
            plan,
            receive_buffer,
            asked_at: Millis(0),
            rtt_ms: 0,
            held: false,
            paused: false,
            waits: false,
            cancel,
            seen: false,
            begun: None,
        };
        match standing {
            Standing::Well => delivery.enter(Stage::Well, State::Trial, Reason::NONE),
            Standing::OnTrial => delivery.enter(Stage::Trial, State::Trial, Reason::NONE),
            _ if cancel => delivery.enter(Stage::ToCancel, State::Canceling, Reason::NONE),
            Standing::Missing => {
                delivery.enter(Stage::Ended, State::Declined, Reason::WRONG_COMPONENT);
            }
            Standing::Claims | Standing::Unknown => delivery.ask_for_part(),
        }
        delivery
    }

    /// The part under way is to be offered, or gone on with where the board claims it.
    const fn ask_for_part(&mut self) {
        self.stage = Stage::Asking {
            resume: self.walk.is_claimed(),
            restart: false,
            noted: false,
        };
    }

    /// The record says that a Hello stated the image on trial before: a board that cannot
    /// read what runs now may still confirm it.
    pub const fn seen_on_trial(&mut self) {
        self.seen = true;
    }

    /// The record says that an earlier session of this update had begun to transfer the part at
    /// this place, with the counters of [`Self::start`] or lower ones: what the board has of it beyond
    /// `reached` was sent then, and the count was lost with the shell.
    pub const fn had_begun(&mut self, part: u8) {
        self.begun = Some(part);
    }

    /// The plan that it carries out.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Place in the plan of the part that is under way.
    #[must_use]
    pub const fn part(&self) -> u8 {
        self.walk.at()
    }

    /// Whether the board runs this part's image already, so that it is neither sent nor
    /// installed. Where that is so of every part, the first is offered, and the board says it.
    #[must_use]
    pub const fn skips(&self, part: u8) -> bool {
        self.walk.is_skipped(part)
    }

    /// Whether nothing more is to be sent of this part in this session.
    #[must_use]
    pub const fn is_part_done(&self, part: u8) -> bool {
        self.walk.is_done(part)
    }

    fn at(&self) -> Option<Part> {
        self.plan.part(self.walk.at()).copied()
    }

    /// Bytes of the parts before the one under way.
    fn before(&self) -> u64 {
        self.plan.before(self.walk.at())
    }

    /// Bytes so far, earlier sessions included.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether nothing more will come of it in this session.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Ended) && self.record.is_none()
    }

    /// Holds (or lets go): nothing is offered, sent or activated meanwhile.
    pub fn hold(&mut self, held: bool, now: Millis) {
        if self.held && !held {
            self.expect_anew(now);
        }
        self.held = held;
    }

    /// Pauses (or goes on with) the chunks alone, when a limit on bytes is reached.
    pub fn pause(&mut self, paused: bool, now: Millis) {
        if self.paused && !paused {
            self.expect_anew(now);
        }
        self.paused = paused;
    }

    /// Lets it wait for its turn among others (or go on): nothing is offered or sent meanwhile,
    /// and nothing is due from the board.
    pub fn wait(&mut self, waits: bool, now: Millis) {
        if self.waits && !waits {
            self.expect_anew(now);
        }
        self.waits = waits;
    }

    /// Whether it would offer or send something, or waits for an answer after which it would:
    /// only then does it take a place among the transfers that run at a time.
    #[must_use]
    pub const fn wants_place(&self) -> bool {
        if self.held || self.cancel {
            return false;
        }
        match self.stage {
            Stage::Asking { .. } | Stage::Offering { .. } | Stage::Proving { .. } => true,
            Stage::Transferring { .. } => !self.paused,
            _ => false,
        }
    }

    /// Payload bytes of the chunk that [`Self::poll_command`] would send next, were it its
    /// turn; 0 where it would send none.
    #[must_use]
    pub const fn next_chunk(&self) -> u32 {
        match &self.stage {
            Stage::Transferring { sending }
                if self.record.is_none() && !self.held && !self.paused =>
            {
                sending.next_len()
            }
            _ => 0,
        }
    }

    /// Nothing was due from the board meanwhile.
    fn expect_anew(&mut self, now: Millis) {
        if let Stage::Transferring { sending } = &mut self.stage {
            sending.handle_progress(now);
        }
    }

    /// Whether the board owes an answer: then its pings alone are no sign of life.
    #[must_use]
    pub const fn expects_answer(&self) -> bool {
        !matches!(self.stage, Stage::Deferred { .. }) && self.deadline().is_some()
    }

    /// An operator asks to cancel. The board's answer decides which came first.
    pub const fn cancel(&mut self) {
        self.cancel = true;
    }

    /// What the delivery waits for now.
    #[must_use]
    pub const fn awaits(&self) -> Awaits {
        if self.record.is_some() {
            return Awaits::Record;
        }
        match &self.stage {
            Stage::Asking { .. } | Stage::Staged if self.held => Awaits::Release,
            Stage::Transferring { .. } if self.held => Awaits::Release,
            Stage::Asking { .. } | Stage::Transferring { .. } if self.waits => Awaits::Turn,
            Stage::Asking { .. } | Stage::Offering { .. } => Awaits::Answer,
            Stage::Deferred { .. } => Awaits::Deferral,
            Stage::Proving { .. } => Awaits::PrefixCheck,
            Stage::Transferring { sending } if sending.is_shut() => Awaits::Erase,
            Stage::Transferring { .. } => Awaits::Ack,
            Stage::Verifying { .. } => Awaits::Verification,
            Stage::Staged | Stage::ActivateSent { .. } => Awaits::ActivateAnswer,
            Stage::Activating { .. } => Awaits::Restart,
            Stage::Trial => Awaits::TrialEnd,
            Stage::Well | Stage::Confirming { .. } => Awaits::ConfirmAnswer,
            Stage::ToCancel | Stage::Canceling { .. } => Awaits::CancelAnswer,
            Stage::Ended => Awaits::Nothing,
        }
    }

    /// The name of the stage, as spec/states.md has it.
    #[must_use]
    pub const fn stage_name(&self) -> &'static str {
        match self.stage {
            Stage::Asking { .. } => "Asking",
            Stage::Offering { .. } => "Offering",
            Stage::Deferred { .. } => "Deferred",
            Stage::Proving { .. } => "Proving",
            Stage::Transferring { .. } => "Transferring",
            Stage::Verifying { .. } => "Verifying",
            Stage::Staged => "Staged",
            Stage::ActivateSent { .. } => "ActivateSent",
            Stage::Activating { .. } => "Activating",
            Stage::Trial => "Trial",
            Stage::Well => "Well",
            Stage::Confirming { .. } => "Confirming",
            Stage::ToCancel => "ToCancel",
            Stage::Canceling { .. } => "Canceling",
            Stage::Ended => "Ended",
        }
    }

    /// The record asked for by the last [`Command::Record`] is durable. One that has
    /// changed meanwhile is asked for again.
    pub const fn recorded(&mut self) {
        if self.storing {
            self.record = None;
        }
    }

    /// The next thing to do; `None` until something goes in.
    pub fn poll_command(&mut self, now: Millis) -> Option<Command> {
        if self.record.is_none() && self.cancel && self.can_cancel() {
            self.enter(Stage::ToCancel, State::Canceling, Reason::NONE);
        }
        if let Some(record) = self.record {
            self.storing = true;
            return Some(Command::Record(record));
        }
        match &mut self.stage {
            Stage::Asking { noted, .. } if !self.held && !self.waits && !*noted => {
                *noted = true;
                let record = Record {
                    state: State::Offered,
                    reason: Reason::NONE,
                    part: self.walk.at(),
                };
                self.record = Some(record);
                self.storing = true;
                Some(Command::Record(record))
            }
            Stage::Asking {
                resume, restart, ..
            } if !self.held && !self.waits => {
                let (resume, restart) = (*resume, *restart);
                let flags = if self.plan.downgrade { DOWNGRADE } else { 0 }
                    | if restart { RESTART } else { 0 };
                self.asked_at = now;
                self.stage = Stage::Offering {
                    resume,
                    due: now.after(ANSWER_MS),
                };
                let part = self.walk.at();
                Some(if resume {
                    Command::SendResume { part, flags }
                } else {
                    Command::SendOffer { part, flags }
                })
            }
            Stage::Proving {
                accept,
                asked: asked @ false,
            } => {
                *asked = true;
                Some(Command::CheckPrefix {
                    part: self.walk.at(),
                    len: accept.image_offset,
                    digest: accept.prefix,
                })
            }
            Stage::Transferring { sending } if !self.held && !self.paused && !self.waits => {
                let part = self.walk.at();
                let before = self.plan.before(part);
                sending
                    .poll_chunk(part, before, now, &mut self.counters)
                    .map(Command::SendChunk)
            }
            Stage::Staged if !self.held => {
                self.stage = Stage::ActivateSent {
                    due: now.after(ANSWER_MS),
                };
                Some(Command::SendActivate(Activate {
                    update: self.plan.update,
                }))
            }
            Stage::Well => {
                self.stage = Stage::Confirming {
                    due: now.after(CONFIRM_MS),
                };
                Some(Command::SendConfirm(Confirm {
                    update: self.plan.update,
                }))
            }
            Stage::ToCancel => {
                self.stage = Stage::Canceling {
                    due: now.after(ANSWER_MS),
                };
                Some(Command::SendCancel(Cancel {
                    update: self.plan.update,
                }))
            }
            _ => None,
        }
    }

    /// The shell's verdict on [`Command::CheckPrefix`]: a wrong prefix restarts, never continues.
    ///
    /// # Errors
    /// The board's Accept was not sound.
    pub fn handle_prefix(&mut self, matches: bool, now: Millis) -> Result<(), Fault> {
        let Stage::Proving { accept, .. } = self.stage else {
            return Ok(());
        };
        if !matches {
            self.stage = Stage::Asking {
                resume: false,
                restart: true,
                noted: false,
            };
            return Ok(());
        }
        let Some(part) = self.at() else {
            return Ok(());
        };
        self.counters.committed = self.before() + u64::from(accept.image_offset);
        self.count_reached(self.counters.committed);
        let unit = self.walk.unit();
        let chunk = chunk_len(self.receive_buffer, unit);
        let mut sending = Sending::new(&accept, part.size, chunk, unit, self.rtt_ms)?;
        sending.await_window(now);
        self.stage = Stage::Transferring { sending };
        self.settle_transfer(now);
        Ok(())
    }

    /// Takes a frame of the board that is about this update or its transfer.
    ///
    /// # Errors
    /// The frame breaks the protocol: close the session with the fault's code.
    pub fn handle_frame(&mut self, frame: &DeviceFrame<'_>, now: Millis) -> Result<(), Fault> {
        match frame {
            DeviceFrame::Accept(accept) => self.handle_accept(accept, now),
            DeviceFrame::Defer(defer) => self.handle_defer(defer, now),
            DeviceFrame::Decline(decline) => self.handle_decline(decline),
            DeviceFrame::Progress(progress) => {
                self.handle_progress(progress, now);
                Ok(())
            }
            DeviceFrame::Ack(ack) => self.handle_ack(ack, now),
            DeviceFrame::Nack(nack) => self.handle_nack(nack, now),
            DeviceFrame::Report(report) => {
                self.handle_report(report, now);
                Ok(())
            }
            _ => Err(Fault(CloseCode::FRAME_NOT_ALLOWED)),
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub const fn deadline(&self) -> Option<Millis> {
        match self.stage {
            Stage::Offering { due, .. }
            | Stage::Verifying { due }
            | Stage::ActivateSent { due }
            | Stage::Activating { due }
            | Stage::Confirming { due }
            | Stage::Canceling { due }
            | Stage::Deferred { until: due } => Some(due),
            // A partial window that is held back is owed no Ack.
            Stage::Transferring { .. } if self.held || self.paused || self.waits => None,
            Stage::Transferring { ref sending } => sending.due(),
            _ => None,
        }
    }

    /// Looks at the clock.
    ///
    /// # Errors
    /// The board's answer is overdue: close the session with the fault's code. It never makes up an outcome.
    pub fn handle_timeout(&mut self, now: Millis) -> Result<(), Fault> {
        match self.deadline() {
            Some(due) if due <= now => {}
            _ => return Ok(()),
        }
        if let Stage::Deferred { .. } = self.stage {
            self.stage = Stage::Asking {
                resume: false,
                restart: false,
                noted: false,
            };
            return Ok(());
        }
        Err(Fault(CloseCode::ACK_OVERDUE))
    }

    fn handle_accept(&mut self, accept: &Accept, now: Millis) -> Result<(), Fault> {
        if accept.update != self.plan.update {
            return Ok(());
        }
        match self.stage {
            Stage::Offering { .. } => {
                if self.at().is_none_or(|part| accept.image_offset > part.size)
                    || accept.payload_offset != accept.image_offset
                {
                    return Err(Fault(CloseCode::ACK_BEYOND_SENT));
                }
                self.rtt_ms = now.since(self.asked_at);
                self.walk.accepted();
                self.enter(
                    Stage::Proving {
                        accept: *accept,
                        asked: false,
                    },
                    State::Accepted,
                    Reason::NONE,
                );
                Ok(())
            }
            Stage::ToCancel | Stage::Canceling { .. } | Stage::Ended => Ok(()),
            _ => Err(Fault(CloseCode::FRAME_NOT_ALLOWED)),
        }
    }

    fn handle_defer(&mut self, defer: &Defer, now: Millis) -> Result<(), Fault> {
        if defer.update != self.plan.update {
            return Ok(());
        }
        match self.stage {
            Stage::Offering { .. }
            | Stage::Deferred { .. }
            | Stage::Proving { .. }
            | Stage::Transferring { .. }
            | Stage::Verifying { .. }
            | Stage::Staged
            | Stage::ActivateSent { .. } => {
                let until = now.after(u64::from(defer.for_s.clamp(1, DEFER_S_MAX)) * 1000);
                self.enter(Stage::Deferred { until }, State::Deferred, defer.reason);
                Ok(())
            }
            // It crossed with our wish to ask anew, or to cancel.
            Stage::Asking { .. } | Stage::ToCancel | Stage::Canceling { .. } | Stage::Ended => {
                Ok(())
            }
            _ => Err(Fault(CloseCode::FRAME_NOT_ALLOWED)),
        }
    }

    fn handle_decline(&mut self, decline: &Decline) -> Result<(), Fault> {
        if decline.update != self.plan.update {
            return Ok(());
        }
        match self.stage {
            Stage::Offering { resume: true, .. } if decline.reason == Reason::MANIFEST_UNKNOWN => {
                self.stage = Stage::Asking {
                    resume: false,
                    restart: false,
                    noted: false,
                };
                Ok(())
            }
            Stage::Offering { .. } => {
                self.enter(Stage::Ended, State::Declined, decline.reason);
                Ok(())
            }
            Stage::ToCancel | Stage::Canceling { .. } | Stage::Ended => Ok(()),
            _ => Err(Fault(CloseCode::FRAME_NOT_ALLOWED)),
        }
    }

    fn handle_progress(&mut self, progress: &Progress, now: Millis) {
        if progress.update != self.plan.update {
            return;
        }
        match &mut self.stage {
            Stage::Offering { due, .. }
            | Stage::Verifying { due }
            | Stage::ActivateSent { due } => {
                *due = now.after(ANSWER_MS);
            }
            Stage::Transferring { sending } => {
                sending.handle_progress(now);
                if progress.phase == Phase::PREPARING && sending.is_shut() {
                    self.note(State::Preparing, Reason::NONE);
                }
            }
            _ => {}
        }
    }

    fn handle_ack(&mut self, ack: &Ack, now: Millis) -> Result<(), Fault> {
        let before = self.before();
        match &mut self.stage {
            Stage::Transferring { sending } => {
                let was_shut = sending.is_shut();
                sending.handle_ack(ack, before, now, &mut self.counters)?;
                if was_shut || sending.is_done() {
                    self.settle_transfer(now);
                }
                Ok(())
            }
            // The board did not wait for our check of the prefix.
            Stage::Proving { accept, .. } if ack.committed == accept.payload_offset => {
                accept.limit = accept.limit.max(ack.limit);
                Ok(())
            }
            // Acks that were under way when the gateway asked anew, or to cancel.
            Stage::Asking { .. }
            | Stage::Offering { .. }
            | Stage::ToCancel
            | Stage::Canceling { .. }
            | Stage::Ended => Ok(()),
            Stage::Deferred { .. } => Ok(()),
            _ => Err(Fault(CloseCode::FRAME_NOT_ALLOWED)),
        }
    }

    fn handle_nack(&mut self, nack: &Nack, now: Millis) -> Result<(), Fault> {
        match &mut self.stage {
            Stage::Transferring { sending } => sending.handle_nack(nack, now),
            Stage::Asking { .. }
            | Stage::Offering { .. }
            | Stage::Deferred { .. }
            | Stage::ToCancel
            | Stage::Canceling { .. }
            | Stage::Ended => Ok(()),
            _ => Err(Fault(CloseCode::FRAME_NOT_ALLOWED)),
        }
    }

    /// A board's statement about its own state is always taken: it knows.
    fn handle_report(&mut self, report: &Report<'_>, now: Millis) {
        if report.update != self.plan.update {
            return;
        }
        let reason = report.reason;
        match report.state {
            _ if matches!(self.stage, Stage::Ended) => {}
            // Only a transfer ends so; it never takes back what came after it.
            Statement::STAGED => match self.stage {
                Stage::Offering { .. }
                | Stage::Proving { .. }
                | Stage::Transferring { .. }
                | Stage::Verifying { .. } => self.handle_staged(report),
                _ => {}
            },
            Statement::ACTIVATING
                if matches!(
                    self.stage,
                    Stage::Trial | Stage::Well | Stage::Confirming { .. }
                ) => {}
            Statement::ACTIVATING => {
                self.cancel = false;
                self.enter(
                    Stage::Activating {
                        due: now.after(RESTART_MS),
                    },
                    State::Activating,
                    reason,
                );
            }
            // A confirmation counts only where the images were stated as those that run.
            Statement::CONFIRMED if !self.walk.all_run(self.seen) => {
                self.enter(Stage::Ended, State::Reverted, Reason::WRONG_IMAGE_RUNNING)
            }
            Statement::CONFIRMED => self.enter(Stage::Ended, State::Confirmed, reason),
            Statement::REVERTED => self.enter(Stage::Ended, State::Reverted, reason),
            Statement::FAILED => self.enter(Stage::Ended, State::Failed, reason),
            Statement::CANCELED => self.enter(Stage::Ended, State::Canceled, reason),
            _ => {}
        }
    }

    /// The board has the part under way up to here. What is beyond the count was had before, of
    /// another update; or this one sent it, and the count was lost.
    fn count_reached(&mut self, to: u64) {
        let beyond = to.saturating_sub(self.counters.reached);
        if self.begun == Some(self.walk.at()) {
            self.counters.sent += beyond;
        }
        self.counters.reached += beyond;
    }

    /// The part under way is staged: the next one, or Activate where it was the last.
    fn handle_staged(&mut self, report: &Report<'_>) {
        let Some(part) = self.at().filter(|part| part.component == report.component) else {
            return;
        };
        let end = self.before() + u64::from(part.size);
        self.count_reached(end);
        if self.walk.advance() {
            self.counters.committed = self.before();
            self.ask_for_part();
        } else {
            self.counters.committed = self.plan.size();
            self.enter(Stage::Staged, State::Staged, report.reason);
        }
    }

    const fn can_cancel(&self) -> bool {
        matches!(
            self.stage,
            Stage::Asking { .. }
                | Stage::Offering { .. }
                | Stage::Deferred { .. }
                | Stage::Proving { .. }
                | Stage::Transferring { .. }
                | Stage::Verifying { .. }
                | Stage::Staged
                | Stage::ActivateSent { .. }
        )
    }

    fn settle_transfer(&mut self, now: Millis) {
        let Stage::Transferring { sending } = &self.stage else {
            return;
        };
        if sending.is_done() {
            self.enter(
                Stage::Verifying {
                    due: now.after(ANSWER_MS),
                },
                State::Verifying,
                Reason::NONE,
            );
        } else {
            let state = if sending.is_shut() {
                State::Preparing
            } else {
                State::Transferring
            };
            self.note(state, Reason::NONE);
        }
    }

    const fn enter(&mut self, stage: Stage, state: State, reason: Reason) {
        self.stage = stage;
        self.note(state, reason);
    }

    const fn note(&mut self, state: State, reason: Reason) {
        self.record = Some(Record {
            state,
            reason,
            part: self.walk.at(),
        });
        self.storing = false;
    }
}
