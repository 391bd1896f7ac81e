//! From Offer to staged: check, prove, prepare, receive, verify (spec/states.md section 1.2).

use super::cells::{Cell, ClaimCell, TrialCell, TrialPhase};
use super::config::{COMPONENTS, GATEWAY_LISTS, SEVERAL};
use super::machine::{Active, Machine};
use super::outbox::Said;
use super::proof::Proof;
use super::receiving::{Outcome, Receiving};
use super::stage::Stage;
use super::transmit::Out;
use crate::code::{ByeReason, DigestFrom, Reason, Statement};
use crate::frame::{Ack, Chunk, DOWNGRADE, GatewayFrame, Nack, Offer, RESTART, Resume};
use crate::id::{Digest, UpdateId};
use crate::limits::{ACK_EVERY_MS, CHUNK_MS};
use crate::manifest::{Accepted, BoardFacts, ComponentFacts, Offered, Remembered, check, recheck};
use crate::statement;
use crate::time::{Millis, round_up};
use crate::trust::{SignatureVerified, VerifySignature};
use heapless::Vec;

/// Bytes of one Read or Erase at the most: between two of them the board can answer.
pub(super) const SLICE: u32 = 64 * 1024;

impl Machine<'_> {
    pub(super) fn handle_offer(&mut self, offer: &Offer<'_>, now: Millis) {
        if !self.take_up(offer.update, now) {
            return;
        }
        let offered = Offered {
            component: offer.component,
            downgrade: offer.flags & DOWNGRADE != 0,
            encoding: offer.encoding,
            payload_size: offer.payload_size,
        };
        self.stage = Stage::Checking {
            offered,
            restart: offer.flags & RESTART != 0,
        };
    }

    pub(super) fn handle_resume(&mut self, resume: &Resume, now: Millis) {
        if !self.take_up(resume.update, now) {
            return;
        }
        let offered = Offered {
            component: resume.component,
            downgrade: resume.flags & DOWNGRADE != 0,
            encoding: resume.encoding,
            payload_size: resume.payload_size,
        };
        let whole = self.find_entry(resume);
        let known = self
            .cells
            .claimed()
            .filter(|(image, _)| whole && image.manifest == resume.manifest);
        let decision = match known {
            Some((image, _)) => recheck(
                image.clone(),
                &offered,
                self.cells.trust.as_ref(),
                &self.component_facts(),
            ),
            None => Err(Reason::MANIFEST_UNKNOWN),
        };
        self.decide(decision, &offered, false, now);
    }

    /// Whether an Offer or Resume of this update is looked at: then it is the one that the
    /// board is at; otherwise it is answered.
    #[inline(never)]
    fn take_up(&mut self, update: UpdateId, now: Millis) -> bool {
        if self.cells.outbox.has_outcome_of(&update) {
            if !self.is_outbox_held() {
                self.restate();
            } else {
                // Its outcome is not durable, and is not stated before; why not, is.
                self.defer(update, Reason::STORAGE, 600);
            }
            return false;
        }
        if self.identity_lost {
            let reason = Reason::STORAGE;
            self.send(Out::Decline { update, reason });
            return false;
        }
        let wait = if self.cells.trial.is_some() {
            Some((Reason::ON_TRIAL, 30))
        } else if self.failed != 0 {
            Some((Reason::STORAGE, 600))
        } else if !self.cells.outbox.has_room(0) {
            Some((Reason::OUTBOX_FULL, 30))
        } else {
            None
        };
        if let Some((reason, for_s)) = wait {
            self.defer(update, reason, for_s);
            return false;
        }
        self.stop_transfer();
        if self.active.is_none_or(|active| active.update != update) {
            self.forget_verified();
        }
        self.active = Some(Active { update, place: 0 });
        self.stage_at = now.after(ACK_EVERY_MS);
        true
    }

    /// Answers [`super::Work::CheckManifest`]: `plaintext` is the record that is still in the buffer.
    #[inline(never)]
    pub fn check_manifest(
        &mut self,
        plaintext: &[u8],
        verifier: &mut impl VerifySignature,
        now: Millis,
    ) {
        self.take_work();
        let Stage::Checking { offered, restart } = self.stage else {
            return;
        };
        let mut decision = match GatewayFrame::decode(plaintext) {
            Ok(GatewayFrame::Offer(offer)) => {
                let board = BoardFacts {
                    product: self.config.product,
                    device: self.config.device,
                    hardware: self.config.hardware,
                    trust: self.cells.trust.as_ref(),
                };
                check(
                    offer.manifest,
                    &offered,
                    &board,
                    &self.component_facts(),
                    verifier,
                )
            }
            _ => Err(Reason::BAD_MANIFEST),
        };
        if SEVERAL
            && let (Ok(accepted), Ok(GatewayFrame::Offer(offer))) =
                (&decision, GatewayFrame::decode(plaintext))
            && let Err(reason) = self.take_entries(offer.manifest, &offered, accepted)
        {
            decision = Err(reason);
        }
        self.decide(decision, &offered, restart, now);
    }

    fn decide(
        &mut self,
        decision: Result<Accepted, Reason>,
        offered: &Offered,
        restart: bool,
        now: Millis,
    ) {
        let Some(active) = self.active else { return };
        let place = self.config.place(offered.component);
        match (decision, place) {
            // A manifest is installed whole (spec/protocol.md section 9.6).
            (Ok(accepted), Some(_)) if !SEVERAL && accepted.entries != 1 => {
                self.decline(Reason::WRONG_COMPONENT);
            }
            (Ok(accepted), Some(place)) => {
                self.active = Some(Active { place, ..active });
                let runs = self.runs(place, &accepted.image.sha256);
                if runs && self.is_on_trial(place) || self.has_untested(&accepted.image.manifest) {
                    // Its trial was lost, and could not be undone at the start: nobody has tested it.
                    self.stage = Stage::Idle;
                    self.active = None;
                    self.defer(active.update, Reason::ON_TRIAL, 600);
                } else if runs && self.is_one_of_several(&accepted.image) {
                    self.skip(active, &accepted.image.manifest);
                } else if runs {
                    self.keep_running_image(place, &accepted.image);
                    self.end_update(Statement::CONFIRMED, Reason::ALREADY_RUNNING, "");
                } else {
                    self.begin(accepted.image, accepted.verified, restart, now);
                }
            }
            (Err(reason), _) => self.decline(reason),
            (Ok(_), None) => self.decline(Reason::WRONG_COMPONENT),
        }
    }

    fn decline(&mut self, reason: Reason) {
        if let Some(active) = self.active.take() {
            self.send(Out::Decline {
                update: active.update,
                reason,
            });
        }
        self.stage = Stage::Idle;
    }

    /// Starts, or goes on with, an image whose signature was checked.
    fn begin(&mut self, image: Remembered, _: SignatureVerified, restart: bool, now: Millis) {
        self.put_at_hand(&image.manifest, image.component);
        let known = self
            .cells
            .claimed()
            .is_some_and(|(of, _)| of.manifest == image.manifest);
        self.cells.image = Some(image);
        if !known || restart {
            self.cells.claim = Some(ClaimCell {
                committed: 0,
                staged: false,
                prepared: false,
            });
            self.forget_prefix();
            self.restart_entry();
            self.dirty_claim();
        }
        self.stage = Stage::Proving;
        self.prove(now);
    }

    /// Goes on once the digest has reached the claim.
    fn prove(&mut self, now: Millis) {
        let Some((image, claim)) = self.cells.claimed() else {
            return;
        };
        let (size, digest) = (image.size, image.sha256);
        let (committed, prepared) = (claim.committed, claim.prepared);
        if self.proof.len > committed {
            self.proof = Proof::new();
        }
        if self.proof.len < committed {
            self.progress(now);
            return;
        }
        if committed == size && self.proof.digest() != digest {
            // The slot was changed behind the journal's back.
            self.begin_at_zero(now);
            return;
        }
        let Some(component) = self.active_config() else {
            return;
        };
        self.send(Out::Accept);
        if committed == size {
            self.verify();
            return;
        }
        // What may have been written behind the claim must be erased again, and no more.
        let unit = component.erase_unit.max(1);
        let end = round_up(size, unit);
        let until = match (prepared, self.clean_from) {
            (false, _) => end,
            (true, Some(clean_from)) => round_up(clean_from, unit).max(committed).min(end),
            (true, None) => committed
                .saturating_add(component.claim_every)
                .saturating_add(component.window)
                .saturating_add(2 * unit)
                .min(end),
        };
        let until = round_up(until, unit).min(end);
        self.stage = Stage::Preparing {
            opened: false,
            erased: committed,
            until,
            unit,
        };
        self.progress(now);
    }

    /// Opens the window once the slot is ready.
    fn prepared(&mut self, now: Millis) {
        let (Some(component), Some(image), Some(claim)) = (
            self.active_config(),
            &self.cells.image,
            &mut self.cells.claim,
        ) else {
            return;
        };
        let (size, committed) = (image.size, claim.committed);
        if !core::mem::replace(&mut claim.prepared, true) {
            self.dirty_claim();
        }
        self.clean_from = Some(committed);
        let receiving = Receiving::new(size, committed, component);
        self.send_ack(receiving.committed(), receiving.limit());
        self.stage_at = now;
        self.stage = Stage::Receiving(receiving);
    }

    pub(super) fn handle_chunk(&mut self, chunk: &Chunk<'_>, now: Millis) {
        // Chunks that were under way when the transfer stopped fall on the floor.
        let Stage::Receiving(receiving) = &mut self.stage else {
            return;
        };
        if receiving.handle_chunk(chunk, now).is_err() {
            self.leave(ByeReason::PROTOCOL_ERROR);
            return;
        }
        self.stage_at = now;
        if let Some(super::receiving::Todo::Write(span)) = receiving.todo(self.proof.len) {
            self.clean_from = self.clean_from.max(Some(span.offset + span.len));
        }
    }

    /// Takes bytes of a [`super::Work::Read`], in order.
    pub fn read_back(&mut self, bytes: &[u8]) {
        let hashes = match &mut self.stage {
            Stage::Proving => true,
            Stage::Receiving(receiving) => {
                receiving.read_back(bytes);
                receiving.is_hashing()
            }
            _ => false,
        };
        if hashes {
            self.proof.hasher.update(bytes);
            self.proof.len = self
                .proof
                .len
                .saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        }
    }

    pub(super) fn slot_worked(&mut self, result: Result<(), Reason>, now: Millis) {
        match (&mut self.stage, result) {
            (Stage::Proving, Ok(())) => self.prove(now),
            (Stage::Proving, Err(_)) => {
                self.begin_at_zero(now);
            }
            (
                Stage::Preparing {
                    opened: opened @ false,
                    erased,
                    until,
                    ..
                },
                Ok(()),
            ) => {
                *opened = true;
                if erased == until {
                    self.prepared(now);
                }
            }
            (
                Stage::Preparing {
                    erased,
                    until,
                    unit,
                    ..
                },
                Ok(()),
            ) => {
                *erased = erased.saturating_add(round_up(SLICE, *unit)).min(*until);
                if erased == until {
                    self.prepared(now);
                } else {
                    self.progress(now);
                }
            }
            (Stage::Receiving(receiving), Ok(())) => {
                let outcome = receiving.worked();
                self.received(outcome);
            }
            (Stage::Preparing { .. } | Stage::Receiving(_), Err(reason)) => {
                self.end_update(Statement::FAILED, reason, "");
            }
            _ => {}
        }
    }

    /// The slot does not hold what the journal claims.
    fn begin_at_zero(&mut self, now: Millis) {
        self.forget_prefix();
        if let Some(claim) = &mut self.cells.claim {
            claim.committed = 0;
            claim.staged = false;
            claim.prepared = false;
        }
        self.restart_entry();
        self.dirty_claim();
        self.prove(now);
    }

    fn received(&mut self, outcome: Outcome) {
        let Stage::Receiving(receiving) = &self.stage else {
            return;
        };
        let (committed, limit, done) = (
            receiving.committed(),
            receiving.limit(),
            receiving.is_done(),
        );
        match outcome {
            Outcome::Nothing => {}
            Outcome::Ack => {
                self.commit(committed, done);
                self.send_ack(committed, limit);
                if done {
                    self.verify();
                }
            }
            Outcome::Nack => self.send(Out::Nack(Nack {
                offset: committed,
                reason: Reason::READ_BACK,
            })),
            Outcome::BadFlash => {
                self.drop_claim();
                self.end_update(Statement::FAILED, Reason::BAD_FLASH, "");
            }
        }
    }

    fn commit(&mut self, committed: u32, done: bool) {
        let Some(claim) = &mut self.cells.claim else {
            return;
        };
        if committed > claim.committed {
            // Only a session that moved the image on resets the waits between dials.
            self.backoff.reset();
        }
        claim.committed = committed;
        let every = self.active_config().map_or(0, |of| of.claim_every);
        if done || committed.saturating_sub(self.claimed) >= every {
            self.claimed = committed;
            self.dirty_claim();
        }
    }

    /// Compares the digest of what was read back with the signed one.
    fn verify(&mut self) {
        let (Some(active), Some(image), Some(claim)) =
            (self.active, &self.cells.image, &mut self.cells.claim)
        else {
            return;
        };
        let Some(verified) = self.proof.verify(image) else {
            self.drop_claim();
            self.end_update(Statement::FAILED, Reason::DIGEST_MISMATCH, "");
            return;
        };
        if !core::mem::replace(&mut claim.staged, true) {
            self.dirty_claim();
        }
        self.note_verified(verified);
        self.stage = Stage::Staged(verified);
        self.state_passing(active, Statement::STAGED, Reason::NONE);
    }

    pub(super) fn handle_activate(&mut self, update: UpdateId) {
        match (&self.stage, self.active) {
            (stage, Some(active)) if active.update == update && self.may_activate(stage) => {
                match self.gather_entries() {
                    Some(true) => {}
                    Some(false) => return self.leave(ByeReason::PROTOCOL_ERROR),
                    None => return self.all_run(),
                }
                let active = self.active.unwrap_or(active);
                self.cells.trial = Some(TrialCell {
                    update,
                    phase: TrialPhase::Activating,
                    boots: 0,
                    dials: 0,
                    awake_s: 0,
                    attempts: 1,
                    reason: Reason::NONE,
                    blamed: 0,
                    entries: self.cells.places_at_hand(),
                });
                self.dirty(Cell::Trial);
                self.state_passing(active, Statement::ACTIVATING, Reason::NONE);
                self.stage = Stage::Activating;
                self.leave_to_restart();
            }
            _ => match self.cells.tried() {
                Some((image, trial)) if trial.update == update => {
                    let component = image.component;
                    self.pass_on(update, component, Statement::ACTIVATING, Reason::ON_TRIAL);
                }
                _ if self.cells.outbox.has_outcome_of(&update) => self.restate(),
                _ => self.leave(ByeReason::PROTOCOL_ERROR),
            },
        }
    }

    pub(super) fn handle_cancel(&mut self, update: UpdateId) {
        let tried = self.cells.tried();
        if let Some((image, _)) = tried.filter(|(_, trial)| trial.update == update) {
            let component = image.component;
            self.pass_on(update, component, Statement::ACTIVATING, Reason::TOO_LATE);
        } else if self.cells.outbox.has_outcome_of(&update) {
            self.restate();
        } else if !self.cells.outbox.has_room(self.expected_outcomes(&update)) {
            self.defer(update, Reason::OUTBOX_FULL, 30);
        } else {
            let component = self.component_of_active(&update);
            let said = Said::Outcome {
                update,
                component,
                state: Statement::CANCELED,
                reason: Reason::CANCELED,
            };
            self.state_said(said, "");
            if self.active.is_some_and(|active| active.update == update) {
                self.stop_transfer();
                self.active = None;
            }
        }
    }

    /// Answers [`super::Work::CheckGateways`].
    #[inline(never)]
    pub fn check_gateways(&mut self, plaintext: &[u8], verifier: &mut impl VerifySignature) {
        self.take_work();
        self.gateways_due = false;
        if !GATEWAY_LISTS {
            return;
        }
        let Ok(GatewayFrame::SetGateways(set)) = GatewayFrame::decode(plaintext) else {
            return;
        };
        let epoch = self.cells.gateways_epoch;
        if self.identity_lost {
            // The epoch may be among what was lost: an old list could come back.
            self.send(Out::GatewaysRefused);
            return;
        }
        match statement::check(
            set.statement,
            self.config.device,
            self.cells.trust.as_ref(),
            epoch,
            verifier,
        ) {
            Ok((statement, _)) => {
                self.gateways_epoch_before = epoch;
                self.gateways_before = self.cells.gateways;
                self.cells.gateways_epoch = statement.epoch();
                self.cells.gateways = u8::try_from(statement.gateways().count()).unwrap_or(0);
                self.dirty(Cell::Gateways);
                if !self.state_said(
                    Said::GatewaysStored {
                        epoch: statement.epoch(),
                    },
                    "",
                ) {
                    self.send(Out::GatewaysRefused);
                }
            }
            Err(_) => self.send(Out::GatewaysRefused),
        }
    }

    /// The link is gone, or another offer came: the claim stays, the session's part goes.
    pub(super) fn stop_transfer(&mut self) {
        if self.stage.is_transfer() {
            self.stage = Stage::Idle;
        }
    }

    /// The journal does not take what must be durable: the update waits.
    pub(super) fn journal_failed(&mut self, cell: Cell) {
        let begins =
            |trial: TrialCell| trial.phase == TrialPhase::Activating && trial.attempts <= 1;
        let of_trial = cell == Cell::Trial || matches!(cell, Cell::Entry(_) if SEVERAL);
        if of_trial
            && matches!(self.stage, Stage::Activating)
            && self.cells.trial.is_some_and(begins)
        {
            if self.cells.before_hand().is_some() {
                // Others were changed already: this one may not be touched before that is
                // durable, and would be forgotten when they are put back.
                self.revert(Reason::STORAGE);
                return;
            }
            // Nothing was switched yet, and nothing may be without its trial in the journal:
            // the board goes without a word, and the image is still staged.
            self.cells.trial = None;
            self.active = None;
            self.stage = Stage::Idle;
            self.out.clear();
            return;
        }
        if GATEWAY_LISTS && cell == Cell::Gateways {
            // The record is gone after this: the list stays the one that it was.
            self.cells.gateways_epoch = self.gateways_epoch_before;
            self.cells.gateways = self.gateways_before;
            let stated = self
                .cells
                .outbox
                .entries()
                .iter()
                .find(|entry| matches!(entry.said, Said::GatewaysStored { .. }));
            if let Some(sequence) = stated.map(|entry| entry.sequence) {
                self.unstate(sequence);
            }
            self.send(Out::GatewaysRefused);
            return;
        }
        if SEVERAL
            && let Cell::Entry(place) = cell
            && self.cells.trial.is_none()
        {
            self.drop_unheld(place);
        }
        if let (true, Some(active)) = (self.stage.is_transfer(), self.active) {
            self.defer(active.update, Reason::STORAGE, 600);
            self.stop_transfer();
        }
    }

    /// States the outcome of the active update, durably, and is idle again.
    pub(super) fn end_update(&mut self, state: Statement, reason: Reason, detail: &str) {
        self.stage = Stage::Idle;
        let component = self.active_component();
        let Some(active) = self.active.take() else {
            return;
        };
        // A cut may have fallen between the outcome and the end of the trial that it states.
        if self.cells.outbox.has_outcome_of(&active.update) {
            return;
        }
        self.state_said(
            Said::Outcome {
                update: active.update,
                component,
                state,
                reason,
            },
            detail,
        );
    }

    pub(super) fn state_passing(&mut self, active: Active, state: Statement, reason: Reason) {
        self.pass_on(active.update, self.active_component(), state, reason);
    }

    /// Outcomes that are on their way beside that of this update.
    fn expected_outcomes(&self, update: &UpdateId) -> usize {
        let other = self
            .active
            .is_some_and(|active| self.is_updating() && active.update != *update);
        usize::from(other)
    }

    fn component_of_active(&self, update: &UpdateId) -> u8 {
        self.active
            .filter(|active| active.update == *update)
            .map_or(0, |_| self.active_component())
    }

    pub(super) fn drop_claim(&mut self) {
        if let Some(place) = self.cells.entry_at_hand() {
            self.drop_entry(place);
        }
        self.cells.claim = None;
        if self.cells.trial.is_none() {
            self.cells.image = None;
        }
        self.forget_prefix();
        self.dirty(Cell::Claim);
    }

    /// Nothing is known of the slot any more.
    pub(super) fn forget_prefix(&mut self) {
        self.claimed = 0;
        self.proof = Proof::new();
        self.clean_from = None;
    }

    fn defer(&mut self, update: UpdateId, reason: Reason, for_s: u16) {
        self.send(Out::Defer {
            update,
            reason,
            for_s,
        });
    }

    /// A statement that is not repeated.
    fn pass_on(&mut self, update: UpdateId, component: u8, state: Statement, reason: Reason) {
        self.send(Out::Passing {
            update,
            component,
            state,
            reason,
        });
    }

    fn send_ack(&mut self, committed: u32, limit: u32) {
        self.send(Out::Ack(Ack { committed, limit }));
    }

    fn progress(&mut self, now: Millis) {
        if self.stage_at <= now {
            self.stage_at = now.after(ACK_EVERY_MS);
            self.send(Out::Progress);
        }
    }

    pub(super) fn stage_deadline(&self) -> Millis {
        match &self.stage {
            Stage::Receiving(receiving) if receiving.is_ready() => {
                receiving.ack_due().min(self.stage_at.after(CHUNK_MS))
            }
            Stage::Receiving(receiving) => receiving.ack_due(),
            _ => Millis::NEVER,
        }
    }

    pub(super) fn stage_timeout(&mut self, now: Millis) {
        if let Stage::Receiving(receiving) = &mut self.stage {
            if receiving.is_ready() && self.stage_at.after(CHUNK_MS) <= now {
                // The gateway lives and sends no chunk: the claim waits for its next Offer.
                self.stop_transfer();
                return;
            }
            receiving.handle_timeout(now);
        }
    }

    /// Whether the component runs this image, as far as the board knows.
    pub(super) fn runs(&self, place: u8, digest: &Digest) -> bool {
        self.running.get(usize::from(place)).is_some_and(|running| {
            running.digest_from != DigestFrom::UNKNOWN && running.digest == *digest
        })
    }

    /// Whether the boot side holds the component's image on trial.
    pub(super) fn is_on_trial(&self, place: u8) -> bool {
        self.running
            .get(usize::from(place))
            .is_some_and(|of| of.on_trial)
    }

    pub(super) fn component_facts(&self) -> Vec<ComponentFacts, COMPONENTS> {
        let mut all = Vec::new();
        let known = self.running.iter().zip(&self.cells.images);
        for (config, (running, image)) in self.config.components.iter().zip(known) {
            let known = running.digest_from != DigestFrom::UNKNOWN;
            let runs_image = known && image.is(&running.digest);
            // As long as the tables that it is made of.
            let _ = all.push(ComponentFacts {
                component: config.component,
                slot_size: config.slot_size,
                running_digest: known.then_some(running.digest),
                running_counter: if runs_image {
                    image.counter
                } else {
                    running.counter
                },
                floor: image.floor,
            });
        }
        all
    }

    /// The image that runs is now a confirmed one.
    pub(super) fn keep_running_image(&mut self, place: u8, image: &Remembered) {
        let Some(cell) = self.cells.images.get_mut(usize::from(place)) else {
            return;
        };
        cell.digest = image.sha256.0;
        cell.size = image.size;
        cell.counter = image.counter;
        cell.floor = cell.floor.max(image.floor);
        if self.identity_lost {
            // The floor may be among what was lost; it was not above what it let in.
            cell.floor = cell.floor.max(image.counter);
        }
        cell.version = image.version.clone();
        self.dirty(Cell::Image(place));
    }
}
