//! The change to another image and back, over resets.

use super::boot::activation;
use super::check::{Check, Fault};
use super::{Run, SecondImage, Stage, Verdict};
use crate::boot::{BootError, Restart, Running};
use dialhome_proto::code::{DigestFrom, Revert};
use dialhome_proto::device::Cell;
use dialhome_proto::hash::Sha256;
use dialhome_proto::id::Digest;

/// Where the second image's digest and size are kept until the next stage.
const NEW: Cell = Cell::Keys;

impl Run<'_, '_> {
    /// Writes the image to the slot and activates it.
    pub(super) fn try_image(&mut self, image: &SecondImage<'_>) -> Result<(), Fault> {
        let check = Check::Activate;
        let component = self.main_component();
        let place = self.place(component)?;
        self.prepare(&place, image.size, check)?;
        self.erase_for(&place, image.size, check)?;
        let mut hash = Sha256::new();
        let mut offset = 0;
        while offset < image.size {
            let len = Self::longest_write(&place).min(image.size - offset);
            let bytes = usize::try_from(len).unwrap_or(0);
            let piece = self.context.scratch.get_mut(..bytes).unwrap_or_default();
            (image.read)(offset, piece);
            hash.update(piece);
            self.write_scratch(&place, offset, bytes, check)?;
            offset += len;
        }
        self.flush(&place, check)?;
        let digest = hash.finish();
        if digest == self.kept_digest()?.0 {
            return Err(self.says(check, component, "the second image is the one that runs"));
        }
        // First, so that the new image can tell what it should be.
        let mut note = [0; 36];
        let (of_digest, of_size) = note.split_at_mut(32);
        copy(of_digest, &digest);
        copy(of_size, &image.size.to_be_bytes());
        self.keep(NEW, &note)?;
        let activation = activation(component, Digest(digest), image.size);
        let activated = self.boot.activate(&activation);
        activated.map_err(|error| self.boot_fault(check, error))?;
        self.passed(check);
        // A cut may have come before the client noted that it had returned.
        let again = self.boot.activate(&activation);
        again.map_err(|error| self.boot_fault(Check::ActivateAgain, error))?;
        self.passed(Check::ActivateAgain);
        Ok(())
    }

    /// After the reset that `activate` asked for: the new image runs, on trial.
    fn new_runs(&mut self) -> Result<Running, Fault> {
        let component = self.main_component();
        let (digest, size) = self.kept_image()?;
        let found = self.boot_running_of(Some(size), Check::TrialRuns)?;
        if found.digest_from == DigestFrom::UNKNOWN {
            let sentence = "Boot::running does not know the digest";
            return Err(self.says(Check::TrialRuns, component, sentence));
        }
        if found.digest != digest {
            let sentence = "Boot::running has another digest than the new image's";
            return Err(self.says(Check::TrialRuns, component, sentence));
        }
        self.passed(Check::TrialRuns);
        Ok(found)
    }

    fn on_trial(&mut self, found: &Running) -> Result<(), Fault> {
        if !found.on_trial || found.unfinished {
            let sentence = "the new image is not on trial, or the change is unfinished";
            return Err(self.says(Check::OnTrial, self.main_component(), sentence));
        }
        self.passed(Check::OnTrial);
        Ok(())
    }

    pub(super) fn revert_new(&mut self) -> Result<Verdict, Fault> {
        let component = self.main_component();
        let found = self.new_runs()?;
        self.on_trial(&found)?;
        let check = Check::Revert;
        match self.boot.revert(component) {
            Ok(_) => self.passed(check),
            Err(BootError::NothingToRestore) if found.revert == Revert::NONE => {
                self.skipped(check, "the board cannot bring an image back");
                self.skipped(Check::RevertKeeps, "the board cannot bring an image back");
                return self.confirm_new();
            }
            Err(error) => return Err(self.boot_fault(check, error)),
        }
        Ok(Self::reset_to(Stage::REVERTED))
    }

    /// The old image is back; the new one gets its second turn.
    pub(super) fn reverted(&mut self) -> Result<Verdict, Fault> {
        let check = Check::RevertKeeps;
        let component = self.main_component();
        let old = self.kept_digest()?;
        let (new, _) = self.kept_image()?;
        let found = self.boot_running(check)?;
        let known = found.digest_from != DigestFrom::UNKNOWN;
        if known && found.digest == new {
            return Err(self.says(check, component, "the new image still runs"));
        }
        if old != Running::UNKNOWN.digest && !(known && found.digest == old) {
            return Err(self.says(check, component, "another image runs than before"));
        }
        if found.on_trial || found.unfinished {
            let sentence = "an image is on trial, or a change is unfinished";
            return Err(self.says(check, component, sentence));
        }
        match self.boot.revert(component) {
            Ok(Restart::NotNeeded) => {}
            Ok(Restart::Needed) => {
                return Err(self.says(check, component, "a second revert wants a restart"));
            }
            Err(error) => return Err(self.boot_fault(check, error)),
        }
        self.passed(check);
        let Some(image) = self.context.image else {
            self.skipped(Check::Confirm, "no second image was given");
            self.skipped(Check::ConfirmKeeps, "no second image was given");
            return self.done();
        };
        self.try_image(&image)?;
        Ok(Self::reset_to(Stage::TO_CONFIRM))
    }

    pub(super) fn confirm_after_trial(&mut self) -> Result<Verdict, Fault> {
        let found = self.new_runs()?;
        self.on_trial(&found)?;
        self.confirm_new()
    }

    fn confirm_new(&mut self) -> Result<Verdict, Fault> {
        let check = Check::Confirm;
        // Twice: a cut may have come before the client noted that it had returned.
        for _ in 0..2 {
            let confirmed = self.boot.confirm(self.main_component());
            confirmed.map_err(|error| self.boot_fault(check, error))?;
        }
        self.passed(check);
        Ok(Self::reset_to(Stage::CONFIRMED))
    }

    pub(super) fn confirmed(&mut self) -> Result<(), Fault> {
        let check = Check::ConfirmKeeps;
        let component = self.main_component();
        let (digest, size) = self.kept_image()?;
        let found = self.boot_running_of(Some(size), check)?;
        if found.digest_from == DigestFrom::UNKNOWN || found.digest != digest {
            return Err(self.says(check, component, "the new image does not run"));
        }
        if found.on_trial || found.unfinished {
            let sentence = "the image is still on trial";
            return Err(self.says(check, component, sentence));
        }
        match self.boot.revert(component) {
            Ok(Restart::NotNeeded) => {}
            Ok(Restart::Needed) => {
                return Err(self.says(check, component, "it can still be reverted"));
            }
            Err(error) => return Err(self.boot_fault(check, error)),
        }
        self.passed(check);
        Ok(())
    }

    fn kept_image(&mut self) -> Result<(Digest, u32), Fault> {
        let mut note = [0; 36];
        self.recall(NEW, &mut note)?;
        let digest = note.first_chunk().copied().unwrap_or_default();
        let size = note.last_chunk().copied().unwrap_or_default();
        Ok((Digest(digest), u32::from_be_bytes(size)))
    }
}

fn copy(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}
