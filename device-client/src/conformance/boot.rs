//! The contract of the boot side, as far as it can be seen without another image.

use super::check::{Check, Fault, What};
use super::{Run, Verdict};
use crate::boot::{Activation, BootError, Restart, Running};
use dialhome_proto::code::DigestFrom;
use dialhome_proto::device::Cell;
use dialhome_proto::id::{Digest, UpdateId};
use dialhome_proto::limits::DETAIL_MAX;

/// Where the digest of what runs is kept until the next stage.
const OLD: Cell = Cell::Image(0);

impl Run<'_, '_> {
    /// The component that runs this program.
    pub(super) fn main_component(&self) -> u8 {
        self.context.components.first().copied().unwrap_or(0)
    }

    pub(super) fn boot_running(&mut self, check: Check) -> Result<Running, Fault> {
        self.boot_running_of(self.context.running_size, check)
    }

    pub(super) fn boot_running_of(
        &mut self,
        size: Option<u32>,
        check: Check,
    ) -> Result<Running, Fault> {
        let component = self.main_component();
        let found = self.boot.running(component, size);
        found.map_err(|error| self.boot_fault(check, error))
    }

    pub(super) fn boot_fault(&self, check: Check, error: BootError) -> Fault {
        self.fault(check, self.main_component(), 0, What::Boot(error))
    }

    pub(super) fn boot_contract(&mut self) -> Result<(), Fault> {
        let component = self.main_component();
        let found = self.idle()?;
        if self.boot_running(Check::Stable)? != found {
            let sentence = "the second answer is another";
            return Err(self.says(Check::Stable, component, sentence));
        }
        self.passed(Check::Stable);
        self.unknown_component()?;
        self.revert_idle(&found)?;
        let confirmed = self.boot.confirm(component);
        confirmed.map_err(|error| self.boot_fault(Check::ConfirmIdle, error))?;
        self.unchanged(&found, Check::ConfirmIdle)?;
        self.passed(Check::ConfirmIdle);
        self.wrong_digest(&found)?;
        self.keep_running()
    }

    /// Notes what runs, for a later stage.
    pub(super) fn keep_running(&mut self) -> Result<(), Fault> {
        let found = self.boot_running(Check::Stable)?;
        self.keep(OLD, &found.digest.0)
    }

    fn idle(&mut self) -> Result<Running, Fault> {
        let found = self.boot_running(Check::Idle)?;
        let component = self.main_component();
        if found.on_trial || found.unfinished {
            let sentence = "an image is on trial, or a change is unfinished";
            return Err(self.says(Check::Idle, component, sentence));
        }
        self.passed(Check::Idle);
        Ok(found)
    }

    fn unknown_component(&mut self) -> Result<(), Fault> {
        let check = Check::Unknown;
        let components = self.context.components;
        // Far from any number that a board would use.
        let none = (0..=u8::MAX)
            .rev()
            .find(|number| !components.contains(number));
        let none = none.unwrap_or(u8::MAX);
        let answers = [
            self.boot.running(none, None).map(drop),
            self.boot.confirm(none),
            self.boot.revert(none).map(drop),
            self.boot
                .activate(&activation(none, Digest([1; 32]), 1))
                .map(drop),
        ];
        for answer in answers {
            match answer {
                Err(BootError::Unsupported) => {}
                Err(error) => return Err(self.fault(check, none, 0, What::Boot(error))),
                Ok(()) => return Err(self.says(check, none, "it was accepted")),
            }
        }
        self.passed(check);
        Ok(())
    }

    pub(super) fn revert_idle(&mut self, found: &Running) -> Result<(), Fault> {
        let check = Check::RevertIdle;
        let component = self.main_component();
        match self.boot.revert(component) {
            Ok(Restart::NotNeeded) => {}
            Ok(Restart::Needed) => {
                return Err(self.says(check, component, "it wants a restart"));
            }
            Err(error) => return Err(self.boot_fault(check, error)),
        }
        self.unchanged(found, check)?;
        self.passed(check);
        Ok(())
    }

    fn wrong_digest(&mut self, found: &Running) -> Result<(), Fault> {
        let check = Check::WrongDigest;
        let component = self.main_component();
        let place = self.place(component)?;
        let wrong = activation(component, Digest([0xD1; 32]), place.bytes());
        match self.boot.activate(&wrong) {
            Err(BootError::DigestMismatch) => {}
            Err(error) => return Err(self.boot_fault(check, error)),
            Ok(_) => return Err(self.says(check, component, "it was accepted")),
        }
        if self.boot.detail().len() > DETAIL_MAX {
            return Err(self.says(Check::Detail, component, "it is longer"));
        }
        self.passed(Check::Detail);
        // What the client does after an error.
        let reverted = self.boot.revert(component);
        reverted.map_err(|error| self.boot_fault(check, error))?;
        self.unchanged(found, check)?;
        self.passed(check);
        Ok(())
    }

    fn unchanged(&mut self, before: &Running, check: Check) -> Result<(), Fault> {
        if self.boot_running(check)? == *before {
            return Ok(());
        }
        let found = "what Boot::running says is another than before";
        Err(self.says(check, self.main_component(), found))
    }

    /// After a reset.
    pub(super) fn running_kept(&mut self) -> Result<(), Fault> {
        let check = Check::RunningKeeps;
        let old = self.kept_digest()?;
        let found = self.boot_running(check)?;
        if found.on_trial || found.unfinished {
            let sentence = "a refused activation left a trial behind";
            return Err(self.says(check, self.main_component(), sentence));
        }
        if found.digest_from == DigestFrom::UNKNOWN {
            self.skipped(check, "the board does not know the digest of what runs");
            return Ok(());
        }
        if found.digest != old {
            return Err(self.says(check, self.main_component(), "the digest is another"));
        }
        self.passed(check);
        Ok(())
    }

    /// The digest of what ran when the boot side was first asked; zeros: unknown.
    pub(super) fn kept_digest(&mut self) -> Result<Digest, Fault> {
        let mut digest = [0; 32];
        self.recall(OLD, &mut digest)?;
        Ok(Digest(digest))
    }

    pub(super) fn keep(&mut self, cell: Cell, value: &[u8]) -> Result<(), Fault> {
        let stored = self.journal.store(cell.number(), value);
        stored.map_err(|error| self.fault(Check::StoreLoad, cell.number(), 0, What::Journal(error)))
    }

    pub(super) fn recall(&mut self, cell: Cell, value: &mut [u8]) -> Result<(), Fault> {
        let check = Check::StoreKeeps;
        match self.journal.load(cell.number(), value) {
            Ok(Some(len)) if len == value.len() => Ok(()),
            Ok(_) => Err(self.says(check, cell.number(), "the cell has no value, or another")),
            Err(error) => Err(self.fault(check, cell.number(), 0, What::Journal(error))),
        }
    }

    pub(super) const fn reset_to(next: super::Stage) -> Verdict {
        Verdict::Reset { next }
    }
}

pub(super) fn activation(component: u8, digest: Digest, size: u32) -> Activation<'static> {
    Activation {
        update: UpdateId(*b"conforms"),
        component,
        digest,
        size,
        version: "conformance",
        trial_boots: 5,
    }
}
