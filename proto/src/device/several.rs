//! An update with several entries: what is kept of each, and the order of the steps
//! (spec/protocol.md section 9.6). A board with one component has none of it.
//!
//! The image at hand, [`Cells::image`], is the entry that is received, or the last one whose
//! component the trial has touched: it stands at the head of the trial's cell, and so says
//! how far the board is. The others wait in [`Cells::entries`].

use super::cells::{Cell, Cells, ClaimCell, TrialPhase};
use super::config::SEVERAL;
use super::machine::{Active, Machine};
use super::proof::DigestVerified;
use super::stage::Stage;
use crate::code::{BootReason, DigestFrom, Reason, SelfTest, Statement};
use crate::frame::Resume;
use crate::id::Digest;
use crate::limits::OUTBOX_DETAIL_MAX;
use crate::manifest::{Accepted, BoardFacts, Offered, Remembered, judge_others};
use crate::stored::{Stored, Way};
use crate::wire::clipped;
use heapless::String;

/// One entry of an update with several.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EntryCell {
    /// What the verified manifest said of it.
    pub image: Remembered,
    /// How far it is.
    pub claim: ClaimCell,
    /// Its place in the manifest.
    pub order: u8,
    /// Entries of the manifest.
    pub count: u8,
    /// The component ran this image before the update was activated: it is left alone.
    pub skipped: bool,
    /// Read back and found whole in this session; not in the journal.
    pub(super) verified: Option<DigestVerified>,
    /// The running image's verdict on itself in this boot; not in the journal.
    pub(super) verdict: Option<SelfTest>,
}

impl Stored for EntryCell {
    fn pass(&mut self, way: &mut Way<'_>) {
        way.head(&mut self.image);
        self.claim.pass(way);
        way.byte(&mut self.order);
        way.byte(&mut self.count);
        way.flag(&mut self.skipped);
    }
}

impl Cells {
    /// The place of the entry that the image at hand is.
    #[must_use]
    pub(super) fn entry_at_hand(&self) -> Option<usize> {
        let image = self.image.as_ref().filter(|_| SEVERAL)?;
        self.entries.iter().position(|entry| {
            entry.as_ref().is_some_and(|entry| {
                entry.image.manifest == image.manifest && entry.image.component == image.component
            })
        })
    }

    /// The places of all entries of the update that the image at hand is of, a bit each; 0
    /// where it has one entry.
    #[must_use]
    pub(super) fn places_at_hand(&self) -> u8 {
        if self.entry_at_hand().is_none() {
            return 0;
        }
        let manifest = self.image.as_ref().map(|image| image.manifest);
        let all = self
            .entries
            .iter()
            .zip(0_u32..)
            .filter(|(entry, _)| entry.as_ref().map(|entry| entry.image.manifest) == manifest);
        all.fold(0, |places, (_, place)| places | 1 << place)
    }

    /// Keeps how far the entry at hand is.
    pub(super) fn keep_entry(&mut self) {
        if let (Some(place), Some(claim)) = (self.entry_at_hand(), self.claim)
            && let Some(Some(entry)) = self.entries.get_mut(place)
        {
            entry.claim = claim;
        }
    }

    /// Goes on with the entry at this place.
    fn take_entry(&mut self, place: usize) {
        self.keep_entry();
        if let Some(Some(entry)) = self.entries.get(place) {
            self.image = Some(entry.image.clone());
            self.claim = Some(entry.claim);
        }
    }

    /// The entry of a component, where it is not the one at hand.
    pub(super) fn waiting_entry(&self, component: u8) -> Option<&EntryCell> {
        let mut all = self.entries.iter().flatten();
        all.find(|entry| entry.image.component == component)
    }

    /// Entries that the trial changes, with their places.
    fn changed(&self) -> impl Iterator<Item = (usize, &EntryCell)> {
        let manifest = self.image.as_ref().map(|image| image.manifest);
        let all = self.entries.iter().enumerate();
        all.filter_map(|(place, entry)| Some((place, entry.as_ref()?)))
            .filter(move |(_, entry)| Some(entry.image.manifest) == manifest && !entry.skipped)
    }

    /// The image that the trial brings, or has brought, to this component.
    #[must_use]
    pub fn trial_image(&self, component: u8) -> Option<&Remembered> {
        let (image, _) = self.tried()?;
        if image.component == component {
            return Some(image);
        }
        let mut changed = self.changed();
        changed
            .find(|(_, entry)| entry.image.component == component)
            .map(|(_, entry)| &entry.image)
    }

    /// Boots that the boot side allows this image, which is at hand: its budget, and a restart for each
    /// component that comes after it.
    #[must_use]
    pub fn trial_boots(&self, image: &Remembered) -> u8 {
        let boots = image.trial.boots;
        if !SEVERAL {
            return boots;
        }
        let order = self.order_at_hand();
        let after = self.changed().filter(|(_, entry)| entry.order > order);
        boots.saturating_add(u8::try_from(after.count()).unwrap_or(0))
    }

    fn order_of(&self, place: usize) -> u8 {
        let entry = self.entries.get(place).and_then(Option::as_ref);
        entry.map_or(0, |entry| entry.order)
    }

    fn order_at_hand(&self) -> u8 {
        self.entry_at_hand().map_or(0, |place| self.order_of(place))
    }

    /// The first changed entry from this place in the manifest on.
    fn first_from(&self, order: u8) -> Option<usize> {
        let from = self.changed().filter(|(_, entry)| entry.order >= order);
        from.min_by_key(|(_, entry)| entry.order)
            .map(|(place, _)| place)
    }

    /// The changed entry before the one at hand.
    pub(super) fn before_hand(&self) -> Option<usize> {
        let order = self.order_at_hand();
        let before = self.changed().filter(|(_, entry)| entry.order < order);
        before
            .max_by_key(|(_, entry)| entry.order)
            .map(|(place, _)| place)
    }
}

impl Machine<'_> {
    /// Stores how far the image at hand is.
    #[inline]
    pub(super) fn dirty_claim(&mut self) {
        match self.cells.entry_at_hand() {
            Some(place) => self.dirty(entry_cell(place)),
            None => self.dirty(Cell::Claim),
        }
    }

    /// Looks at the other entries of a manifest whose offered one is acceptable, and keeps what
    /// is needed of all of them.
    ///
    /// # Errors
    /// The reason for which the board takes none of them.
    pub(super) fn take_entries(
        &mut self,
        manifest: &[u8],
        offered: &Offered,
        accepted: &Accepted,
    ) -> Result<(), Reason> {
        if accepted.entries == 1 {
            return Ok(());
        }
        let board = BoardFacts {
            product: self.config.product,
            device: self.config.device,
            hardware: self.config.hardware,
            trust: self.cells.trust.as_ref(),
        };
        let facts = self.component_facts();
        let images = judge_others(manifest, offered, &board, &facts, accepted)?;
        self.drop_entries(|entry| entry.image.manifest != accepted.image.manifest);
        for (order, image) in (0_u8..).zip(images) {
            let Some(place) = self.config.place(image.component) else {
                return Err(Reason::WRONG_COMPONENT);
            };
            let Some(entry) = self.cells.entries.get_mut(usize::from(place)) else {
                continue;
            };
            // What was received for an earlier update with this manifest stays.
            if let Some(known) = entry {
                if known.image == image {
                    continue;
                }
                known.image = image;
            } else {
                *entry = Some(EntryCell {
                    image,
                    order,
                    count: accepted.entries,
                    ..EntryCell::default()
                });
            }
            self.dirty(Cell::Entry(place));
        }
        Ok(())
    }

    /// Puts the claim of this image at hand, whatever was at hand before.
    pub(super) fn put_at_hand(&mut self, manifest: &Digest, component: u8) {
        if !SEVERAL {
            return;
        }
        let place = self.config.place(component).map(usize::from);
        let Some(place) = place else { return };
        let is = |image: &Remembered| image.manifest == *manifest && image.component == component;
        if self.cells.claim.is_some() && self.cells.image.as_ref().is_some_and(is) {
            return;
        }
        self.cells.keep_entry();
        let of_entry = self.cells.entry_at_hand().is_some();
        let entry = self.cells.entries.get(place).and_then(Option::as_ref);
        let Some(entry) = entry else { return };
        let is_entry = is(&entry.image);
        if !of_entry && (self.cells.claim.is_some() && is_entry) {
            // The journal's claim is given up for an entry.
            self.dirty(Cell::Claim);
        }
        if is_entry {
            self.cells.take_entry(place);
        } else {
            // Another image takes the slot.
            self.cells.image = None;
            self.cells.claim = None;
            self.drop_entries(|entry| entry.image.component == component);
        }
        self.forget_prefix();
        self.claimed = self.cells.claim.map_or(0, |claim| claim.committed);
    }

    /// Puts the entry at hand that a Resume names; false where some of its update is not known.
    pub(super) fn find_entry(&mut self, resume: &Resume) -> bool {
        if !SEVERAL {
            return true;
        }
        let of = |entry: &&EntryCell| entry.image.manifest == resume.manifest;
        let mut all = self.cells.entries.iter().flatten().filter(of);
        let Some(first) = all.next() else { return true };
        let (count, found) = (usize::from(first.count), 1 + all.count());
        self.put_at_hand(&resume.manifest, resume.component);
        let image = self.cells.image.as_ref();
        found == count && image.is_some_and(|image| image.component == resume.component)
    }

    /// Whether the image is an entry of an update with several.
    pub(super) fn is_one_of_several(&self, image: &Remembered) -> bool {
        let mut all = self.cells.entries.iter().flatten();
        all.any(|entry| {
            entry.image.manifest == image.manifest && entry.image.component == image.component
        })
    }

    /// Whether a component runs its entry on a trial that was lost, and could not be undone at
    /// the start: nobody has tested it, and it is not left alone.
    pub(super) fn has_untested(&self, manifest: &Digest) -> bool {
        let mut all = (0_u8..).zip(&self.cells.entries);
        all.any(|(place, entry)| {
            entry.as_ref().is_some_and(|entry| {
                entry.image.manifest == *manifest
                    && self.runs(place, &entry.image.sha256)
                    && self.is_on_trial(place)
            })
        })
    }

    /// The offered entry runs already: it is left alone, or, where all do, the update is over.
    pub(super) fn skip(&mut self, active: Active, manifest: &Digest) {
        if self.all_entries_run(manifest) {
            self.keep_entries(manifest);
            self.end_update(Statement::CONFIRMED, Reason::ALREADY_RUNNING, "");
        } else {
            self.stage = Stage::Idle;
            self.state_passing(active, Statement::STAGED, Reason::ALREADY_RUNNING);
        }
    }

    /// Activate came, and there is nothing to change.
    pub(super) fn all_run(&mut self) {
        if let Some(manifest) = self.cells.image.as_ref().map(|image| image.manifest) {
            self.keep_entries(&manifest);
        }
        self.end_update(Statement::CONFIRMED, Reason::ALREADY_RUNNING, "");
    }

    /// Whether the update at hand was reported as staged: of one with several, its last entry
    /// may be one that runs already.
    pub(super) fn may_activate(&self, stage: &Stage) -> bool {
        match stage {
            Stage::Staged(_) => true,
            Stage::Idle => self.cells.entry_at_hand().is_some(),
            _ => false,
        }
    }

    /// Nothing of the entry is known any more.
    pub(super) fn drop_entry(&mut self, place: usize) {
        if let Some(entry) = self.cells.entries.get_mut(place) {
            *entry = None;
            self.dirty(entry_cell(place));
        }
    }

    /// The claim at hand begins at 0.
    pub(super) fn restart_entry(&mut self) {
        if let Some(place) = self.cells.entry_at_hand()
            && let Some(Some(entry)) = self.cells.entries.get_mut(place)
        {
            entry.skipped = false;
            entry.verified = None;
        }
    }

    /// The image at hand is staged.
    pub(super) fn note_verified(&mut self, verified: DigestVerified) {
        if let Some(place) = self.cells.entry_at_hand()
            && let Some(Some(entry)) = self.cells.entries.get_mut(place)
        {
            entry.verified = Some(verified);
        }
    }

    /// What was found whole counts for one update in one session.
    pub(super) fn forget_verified(&mut self) {
        for entry in self.cells.entries.iter_mut().flatten() {
            entry.verified = None;
        }
    }

    /// Whether the image at hand may be activated alone, or with all the others of its update;
    /// then the first that is changed is at hand. `None` where there is nothing to change.
    pub(super) fn gather_entries(&mut self) -> Option<bool> {
        let Some(manifest) = self
            .cells
            .entry_at_hand()
            .and(self.cells.image.as_ref())
            .map(|image| image.manifest)
        else {
            return Some(true);
        };
        self.cells.keep_entry();
        let (mut found, mut count, mut ready) = (0, 0, true);
        for place in 0..self.cells.entries.len() {
            let Some(Some(entry)) = self.cells.entries.get(place) else {
                continue;
            };
            if entry.image.manifest != manifest {
                continue;
            }
            let (sha256, of) = (entry.image.sha256, u8::try_from(place).unwrap_or(0));
            let skipped = self.runs(of, &sha256);
            let Some(Some(entry)) = self.cells.entries.get_mut(place) else {
                continue;
            };
            found += 1;
            count = entry.count;
            ready &= skipped || entry.verified.is_some();
            entry.verdict = None;
            if core::mem::replace(&mut entry.skipped, skipped) != skipped {
                self.dirty(entry_cell(place));
            }
        }
        if !ready || found != count {
            return Some(false);
        }
        let first = self.cells.first_from(0)?;
        self.hand_over(first);
        Some(true)
    }

    /// The entry at this place is at hand from now on, and the one that the board is at.
    fn hand_over(&mut self, place: usize) {
        self.cells.take_entry(place);
        self.set_active_place(place);
    }

    fn set_active_place(&mut self, place: usize) {
        if let Some(active) = self.active {
            let place = u8::try_from(place).unwrap_or(0);
            self.active = Some(Active { place, ..active });
        }
    }

    /// Every component runs its image of this manifest already: they are confirmed ones now.
    pub(super) fn all_entries_run(&self, manifest: &Digest) -> bool {
        let mut all = (0_u8..).zip(&self.cells.entries);
        let of = |entry: &EntryCell| entry.image.manifest == *manifest;
        all.all(|(place, entry)| {
            entry
                .as_ref()
                .filter(|entry| of(entry))
                .is_none_or(|entry| self.runs(place, &entry.image.sha256))
        })
    }

    /// The images of every entry of this manifest are confirmed ones; none is on its way.
    pub(super) fn keep_entries(&mut self, manifest: &Digest) {
        for place in 0..self.cells.entries.len() {
            let entry = self.cells.entries.get_mut(place);
            let Some(entry) =
                entry.and_then(|entry| entry.take_if(|of| of.image.manifest == *manifest))
            else {
                continue;
            };
            self.dirty(entry_cell(place));
            self.keep_running_image(u8::try_from(place).unwrap_or(0), &entry.image);
            if let Some(running) = self.running.get_mut(place) {
                running.on_trial = false;
            }
            if entry.order == 0 {
                self.set_active_place(place);
            }
        }
        self.cells.image = None;
        self.cells.claim = None;
        self.forget_prefix();
    }

    pub(super) fn drop_entries(&mut self, which: impl Fn(&EntryCell) -> bool) {
        for place in 0..self.cells.entries.len() {
            let entry = self.cells.entries.get_mut(place);
            if entry.is_some_and(|entry| entry.take_if(|entry| which(entry)).is_some()) {
                self.dirty(entry_cell(place));
            }
        }
    }

    /// Whether a cell of an entry was lost during the trial, and the board has not begun to put
    /// all back for it: what was changed is not known whole any more, and so nothing of it is
    /// confirmed. The client has put back at its start what the boot side held on trial and no
    /// cell tells of.
    pub(super) fn lost_entry(&mut self) -> bool {
        let (Some(image), Some(trial)) = (&self.cells.image, self.cells.trial) else {
            return false;
        };
        // Entries end before the trial does, and behind the outcome.
        if !SEVERAL || trial.entries == 0 || self.cells.outbox.has_outcome_of(&trial.update) {
            return false;
        }
        let hand = self.config.place(image.component).map(usize::from);
        let mut lost = trial.entries & !self.cells.places_at_hand();
        if self.cells.entry_at_hand().is_none()
            && let Some(slot) = hand.and_then(|hand| self.cells.entries.get_mut(hand))
        {
            // The trial's cell has what is needed to put it back, and the others come after it.
            // It is not stored: what was lost must be missed until the trial says so.
            *slot = Some(EntryCell {
                image: image.clone(),
                order: u8::MAX,
                ..EntryCell::default()
            });
            lost = trial.entries & !(self.cells.places_at_hand() & !(1 << hand.unwrap_or(0)));
        }
        let is_noted =
            trial.phase == TrialPhase::Reverting && trial.reason == Reason::REVERT_FAILED;
        if lost == 0 || is_noted {
            return false;
        }
        if let Some(trial) = &mut self.cells.trial {
            trial.blamed = u8::try_from(lost.trailing_zeros() + 1).unwrap_or(0);
        }
        let mut text = String::<OUTBOX_DETAIL_MAX>::new();
        for (place, of) in self.config.components.iter().enumerate() {
            if lost >> place & 1 != 0 {
                let separator = if text.is_empty() { "" } else { ", " };
                let mut room = [0; 3];
                let number = decimal(of.component, &mut room);
                for part in [
                    separator,
                    "component ",
                    core::str::from_utf8(number).unwrap_or(""),
                ] {
                    let _ = text.push_str(part);
                }
            }
        }
        let _ = text.push_str(" may not be put back: its cell was lost");
        self.note_detail(&text);
        true
    }

    /// The journal does not take the entry at this place, which is not on trial: nothing of its
    /// update is kept, so that other updates need not wait for it.
    pub(super) fn drop_unheld(&mut self, place: u8) {
        let entry = self.cells.entries.get(usize::from(place));
        let Some(manifest) = entry.and_then(|entry| Some(entry.as_ref()?.image.manifest)) else {
            return;
        };
        let image = self.cells.image.as_ref();
        if image.is_some_and(|image| image.manifest == manifest) {
            self.cells.image = None;
            self.cells.claim = None;
            self.forget_prefix();
        }
        self.drop_entries(|entry| entry.image.manifest == manifest);
    }

    /// What is wrong with a component that was changed, beside the one at hand.
    pub(super) fn wrong_beside(&self, phase: TrialPhase) -> Option<(usize, Reason)> {
        let hand = self.cells.entry_at_hand()?;
        let order = self.cells.order_at_hand();
        let confirming = phase == TrialPhase::Confirming;
        if phase == TrialPhase::Reverting {
            return None;
        }
        let mut beside = self
            .cells
            .changed()
            .filter(|(place, entry)| *place != hand && (confirming || entry.order < order));
        beside.find_map(|(place, entry)| {
            let running = self.running.get(place);
            let found = running.filter(|of| of.digest_from != DigestFrom::UNKNOWN);
            let reason = match found {
                Some(found) if found.digest == entry.image.sha256 => return None,
                Some(found) if found.boot_reason == BootReason::REVERT => Reason::CRASHED,
                Some(_) => Reason::OLD_IMAGE_RUNNING,
                // The gateway has seen it run.
                None if confirming && !running.is_some_and(|of| of.unfinished) => return None,
                None => Reason::WRONG_IMAGE_RUNNING,
            };
            Some((place, reason))
        })
    }

    /// The outcome names the component at this place.
    pub(super) fn blame(&mut self, place: usize) {
        if self.cells.entry_at_hand().is_some()
            && let Some(trial) = &mut self.cells.trial
            && trial.blamed == 0
        {
            trial.blamed = u8::try_from(place + 1).unwrap_or(0);
        }
    }

    /// The board is at the image at hand again, and what was found wrong where it was before
    /// is what the outcome is about.
    pub(super) fn turn_back(&mut self) {
        if let (Some(hand), Some(active)) = (self.cells.entry_at_hand(), self.active) {
            self.blame(usize::from(active.place));
            self.set_active_place(hand);
        }
    }

    /// The next self-test; after the last, the next component, or the trial.
    pub(super) fn test_next(&mut self) {
        let Some(hand) = self.cells.entry_at_hand() else {
            self.stage = Stage::SelfTesting;
            return;
        };
        let order = self.cells.order_at_hand();
        let untested = self
            .cells
            .changed()
            .filter(|(_, entry)| entry.order <= order && entry.verdict.is_none());
        let first = untested.min_by_key(|(_, entry)| entry.order);
        if let Some(place) = first.map(|(place, _)| place) {
            self.set_active_place(place);
            self.stage = Stage::SelfTesting;
        } else if let Some(next) = self.cells.first_from(order + 1) {
            self.hand_over(next);
            self.begin_phase(TrialPhase::Activating);
            self.stage = Stage::Activating;
        } else {
            self.set_active_place(hand);
            self.stage = Stage::Trial;
        }
    }

    /// Takes a self-test that did not fail; false where the update has one entry.
    pub(super) fn note_verdict(&mut self, verdict: SelfTest) -> bool {
        if self.cells.entry_at_hand().is_none() {
            return false;
        }
        let place = self.active.map_or(0, |active| usize::from(active.place));
        if let Some(Some(entry)) = self.cells.entries.get_mut(place) {
            entry.verdict = Some(verdict);
        }
        self.test_next();
        true
    }

    fn begin_phase(&mut self, phase: TrialPhase) {
        if let Some(trial) = &mut self.cells.trial {
            trial.phase = phase;
            trial.attempts = 1;
            self.dirty(Cell::Trial);
        }
    }

    /// The first component is made final first.
    pub(super) fn confirm_first(&mut self) {
        if self.cells.entry_at_hand().is_some()
            && let Some(first) = self.cells.first_from(0)
        {
            self.set_active_place(first);
        }
    }

    /// Goes on to the next component that is to be made final; false after the last.
    pub(super) fn confirm_next(&mut self) -> bool {
        if self.cells.entry_at_hand().is_none() {
            return false;
        }
        let place = self.active.map_or(0, |active| usize::from(active.place));
        let next = self.cells.first_from(self.cells.order_of(place) + 1);
        if let Some(next) = next {
            self.set_active_place(next);
        }
        next.is_some()
    }

    /// What the trial brought is confirmed; false where the update has one entry.
    pub(super) fn confirm_entries(&mut self) -> bool {
        let Some(manifest) = self
            .cells
            .entry_at_hand()
            .and(self.cells.image.as_ref())
            .map(|image| image.manifest)
        else {
            return false;
        };
        self.cells.trial = None;
        self.dirty(Cell::Trial);
        self.keep_entries(&manifest);
        true
    }

    /// The component at hand is done with: the one before it is put back; false after the last.
    pub(super) fn revert_next(&mut self) -> bool {
        if self.cells.entry_at_hand().is_none() {
            return false;
        }
        let Some(before) = self.cells.before_hand() else {
            let blamed = self.cells.trial.map_or(0, |trial| trial.blamed);
            if let Some(place) = blamed.checked_sub(1) {
                self.set_active_place(place.into());
            }
            return false;
        };
        self.hand_over(before);
        self.begin_phase(TrialPhase::Reverting);
        self.stage = Stage::Reverting;
        true
    }

    /// A component could not be put back: the others still are; false where the update has
    /// one entry.
    pub(super) fn note_revert_failed(&mut self, detail: &str) -> bool {
        let Some(hand) = self.cells.entry_at_hand() else {
            return false;
        };
        let component = self.active_component();
        let Some(trial) = &mut self.cells.trial else {
            return false;
        };
        let again =
            core::mem::replace(&mut trial.reason, Reason::REVERT_FAILED) == Reason::REVERT_FAILED;
        trial.blamed = u8::try_from(hand + 1).unwrap_or(0);
        let mut text = String::<OUTBOX_DETAIL_MAX>::new();
        let mut say = |part: &str| {
            let room = OUTBOX_DETAIL_MAX.saturating_sub(text.len());
            let _ = text.push_str(clipped(part, room));
        };
        let noted = self.cells.outbox.noted();
        say("component ");
        say(core::str::from_utf8(decimal(component, &mut [0; 3])).unwrap_or(""));
        if again {
            say(", ");
            say(noted);
        } else {
            say(" could not be put back");
            if !detail.is_empty() {
                say(": ");
                say(detail);
            }
        }
        self.note_detail(&text);
        true
    }

    /// Whether the detail of the outcome already names a component that could not be put back:
    /// nothing else takes its place.
    #[must_use]
    #[inline]
    pub fn names_component(&self) -> bool {
        let trial = self.cells.trial.filter(|_| SEVERAL);
        trial.is_some_and(|trial| trial.reason == Reason::REVERT_FAILED)
    }

    /// The trial is over: entries that may be tried again stay staged, others are dropped.
    pub(super) fn end_entries(&mut self, stay: bool) {
        let Some(manifest) = self
            .cells
            .entry_at_hand()
            .and(self.cells.image.as_ref())
            .map(|image| image.manifest)
        else {
            return;
        };
        self.cells.keep_entry();
        self.cells.image = None;
        self.cells.claim = None;
        self.forget_prefix();
        if !stay {
            self.drop_entries(|entry| entry.image.manifest == manifest);
        }
    }

    /// A cut may have fallen among the entries of an update that is over: the rest of them goes.
    pub(super) fn drop_rest(&mut self) {
        if let Some(manifest) = self.cells.image.as_ref().map(|image| image.manifest) {
            self.drop_entries(|entry| entry.image.manifest == manifest);
        }
    }

    /// What the machine asks its shell to do in [`super::Work::Boot`] is about this component.
    /// It is that of the image at hand, but for a self-test and a confirmation of an update
    /// with several entries.
    #[must_use]
    #[inline]
    pub fn boot_component(&self, at_hand: &Remembered) -> u8 {
        if SEVERAL {
            self.active_component()
        } else {
            at_hand.component
        }
    }
}

const fn entry_cell(place: usize) -> Cell {
    #[expect(clippy::cast_possible_truncation, reason = "below 4")]
    Cell::Entry(place as u8)
}

/// The digits of a number.
fn decimal(number: u8, room: &mut [u8; 3]) -> &[u8] {
    *room = [
        b'0' + number / 100,
        b'0' + number / 10 % 10,
        b'0' + number % 10,
    ];
    let skip = usize::from(number < 100) + usize::from(number < 10);
    room.get(skip..).unwrap_or(&[])
}
