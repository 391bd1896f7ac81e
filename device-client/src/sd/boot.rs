//! The way to the next image over Arduino's SDU: at every start the stage in the first
//! 16 KiB of flash looks for UPDATE.BIN, writes what follows the first 16 KiB of that
//! file behind itself, and deletes the file. It checks nothing and goes back by itself
//! never: so the running image is kept as PREVIOUS.BIN, and the new image itself puts it
//! back when its test fails or its budget is spent.

use super::journal::BOOT_CELL;
use super::{Card, Fault, Medium, NEW, PREVIOUS, SECTOR, SdJournal, UPDATE};
use crate::boot::{Activation, Boot, BootError, Restart, Running};
use crate::journal::Journal;
use dialhome_proto::code::{BootReason, DigestFrom, Revert, SelfTest};
use dialhome_proto::hash::Sha256;
use dialhome_proto::id::Digest;
use serde::{Deserialize, Serialize};

/// Bytes of flash that the stage has, and that it skips in UPDATE.BIN.
pub const STAGE_LEN: u32 = 16 * 1024;

/// What the board crate knows of the image that runs.
pub trait Sketch {
    /// Bytes of the image in flash, from the stage's first to its own last.
    fn size(&self) -> u32;

    /// Fills `bytes` with what flash holds from `offset` on; never past the image's end.
    fn read(&self, offset: u32, bytes: &mut [u8]);

    /// The version text that it was built with, at most 32 bytes; empty: unknown.
    fn version(&self) -> &'static str;

    /// The counter that it was built with; 0: unknown.
    fn counter(&self) -> u64;

    /// Why the processor started, as far as it can tell.
    fn boot_reason(&self) -> BootReason;

    /// The image's verdict on itself: [`Boot::self_test`].
    fn self_test(&mut self) -> SelfTest;

    /// Resets the processor. On a board it does not come back.
    fn restart(&mut self, why: BootReason);
}

/// An image on its way or on trial, in the journal's last cell.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Trial {
    /// The image that ran before, kept as PREVIOUS.BIN.
    old: [u8; 32],
    old_size: u32,
    new: [u8; 32],
    new_size: u32,
    /// The new image has been started.
    started: bool,
    /// The old one is being put back.
    reverting: bool,
}

/// [`Boot`] over UPDATE.BIN.
#[derive(Debug)]
pub struct SduBoot<'c, 'd, D: Medium, S> {
    card: &'c Card<'d, D>,
    journal: SdJournal<'c, 'd, D>,
    sketch: S,
    /// Found once: what runs does not change while it runs.
    digest: Option<Digest>,
    reason: Option<BootReason>,
    detail: &'static str,
}

impl<'c, 'd, D: Medium, S: Sketch> SduBoot<'c, 'd, D, S> {
    /// Nothing is read yet.
    pub const fn new(card: &'c Card<'d, D>, sketch: S) -> Self {
        Self {
            card,
            journal: SdJournal::new(card),
            sketch,
            digest: None,
            reason: None,
            detail: "",
        }
    }

    fn running_digest(&mut self) -> Digest {
        if let Some(digest) = self.digest {
            return digest;
        }
        let mut hash = Sha256::new();
        // The closure never refuses a piece.
        let _ = self.each_piece(self.sketch.size(), |_, piece| {
            hash.update(piece);
            Ok(())
        });
        let digest = Digest(hash.finish());
        self.digest = Some(digest);
        digest
    }

    /// Reads the first `size` bytes of the running image, a sector at a time.
    fn each_piece(
        &self,
        size: u32,
        mut take: impl FnMut(u32, &[u8]) -> Result<(), BootError>,
    ) -> Result<(), BootError> {
        let mut sector = [0; SECTOR];
        let mut offset = 0_u32;
        while offset < size {
            let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
            let Some(room) = sector.get_mut(..left.min(SECTOR)) else {
                break;
            };
            self.sketch.read(offset, room);
            take(offset, room)?;
            offset = offset.saturating_add(u32::try_from(room.len()).unwrap_or(u32::MAX));
        }
        Ok(())
    }

    fn trial(&mut self) -> Result<Option<Trial>, BootError> {
        let mut buffer = [0; 96];
        match self.journal.load(BOOT_CELL, &mut buffer) {
            // One that cannot be understood is not none: the trial's outcome is not known.
            Ok(Some(len)) => buffer
                .get(..len)
                .and_then(|bytes| postcard::from_bytes(bytes).ok())
                .map(Some)
                .ok_or(BootError::Storage),
            Ok(None) => Ok(None),
            Err(_) => Err(BootError::Storage),
        }
    }

    fn keep(&mut self, trial: &Trial) -> Result<(), BootError> {
        let mut buffer = [0; 96];
        let bytes = postcard::to_slice(trial, &mut buffer).map_err(|_| BootError::Storage)?;
        self.journal
            .store(BOOT_CELL, bytes)
            .map_err(|_| BootError::Storage)
    }

    fn forget(&mut self) -> Result<(), BootError> {
        self.journal
            .erase(BOOT_CELL)
            .map_err(|_| BootError::Storage)
    }

    /// Whether the file holds this image.
    fn holds(&self, name: &'static str, size: u32, digest: &Digest) -> Result<bool, Fault> {
        if self.card.length(name)? != Some(size) {
            return Ok(false);
        }
        match self.card.digest(name, size) {
            Ok(found) => Ok(found == *digest),
            // A file that a cut left without its last clusters holds something else.
            Err(Fault::Range | Fault::Missing) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    /// Copies the running image to PREVIOUS.BIN, unless it is there.
    fn keep_previous(&mut self, own: &Digest) -> Result<u32, BootError> {
        let size = self.sketch.size();
        if !self.holds(PREVIOUS, size, own)? {
            self.card.allocate(PREVIOUS, size)?;
            self.each_piece(size, |offset, piece| {
                Ok(self.card.write(PREVIOUS, offset, piece)?)
            })?;
            self.card.drop_cache()?;
            if !self.holds(PREVIOUS, size, own)? {
                self.detail = "the copy of the running image does not read back";
                return Err(BootError::Storage);
            }
        }
        Ok(size)
    }

    /// Puts the file in the place of UPDATE.BIN.
    fn hand_over(&self, name: &'static str) -> Result<(), Fault> {
        self.card.remove(UPDATE)?;
        self.card.rename(name, UPDATE)
    }
}

impl From<Fault> for BootError {
    fn from(_: Fault) -> Self {
        Self::Storage
    }
}

impl<D: Medium, S: Sketch> Boot for SduBoot<'_, '_, D, S> {
    fn running(&mut self, component: u8, _known_size: Option<u32>) -> Result<Running, BootError> {
        if component != 0 {
            return Err(BootError::Unsupported);
        }
        let digest = self.running_digest();
        // Without the card nothing is known of a trial; what runs is known all the same.
        let trial = self.trial().unwrap_or(None);
        let mut reason = self.reason.unwrap_or(self.sketch.boot_reason());
        let (mut on_trial, mut unfinished) = (false, false);
        match trial {
            Some(mut trial) if digest.0 == trial.new => {
                on_trial = true;
                if !trial.started {
                    trial.started = true;
                    if reason != BootReason::PANIC {
                        reason = BootReason::UPDATE;
                    }
                    // The next start says "update" once more where this is lost.
                    let _ = self.keep(&trial);
                }
            }
            Some(trial) if digest.0 == trial.old && trial.reverting => {
                reason = BootReason::REVERT;
                let _ = self.forget();
            }
            Some(trial) => unfinished = digest.0 == trial.old,
            None => {}
        }
        self.reason = Some(reason);
        Ok(Running {
            digest,
            digest_from: DigestFrom::BOOTED,
            boot_reason: reason,
            revert: Revert::BY_IMAGE,
            version: self.sketch.version(),
            counter: self.sketch.counter(),
            unfinished,
            on_trial,
        })
    }

    fn activate(&mut self, activation: &Activation<'_>) -> Result<Restart, BootError> {
        self.detail = "";
        if activation.component != 0 {
            return Err(BootError::Unsupported);
        }
        let own = self.running_digest();
        if own == activation.digest {
            return Ok(Restart::NotNeeded);
        }
        let staged = self.holds(NEW, activation.size, &activation.digest)?;
        if !staged {
            // The rename may have been done before a cut.
            return if self.holds(UPDATE, activation.size, &activation.digest)? {
                Ok(Restart::Needed)
            } else {
                Err(BootError::DigestMismatch)
            };
        }
        let same_stage = self.each_piece(STAGE_LEN, |offset, piece| {
            let same = self.card.holds_at(NEW, offset, piece)?;
            same.then_some(()).ok_or(BootError::NotAllowed)
        });
        if same_stage == Err(BootError::NotAllowed) {
            self.detail = "the image was built with another boot stage than the board has";
        }
        same_stage?;
        let old_size = self.keep_previous(&own)?;
        self.keep(&Trial {
            old: own.0,
            old_size,
            new: activation.digest.0,
            new_size: activation.size,
            started: false,
            reverting: false,
        })?;
        self.hand_over(NEW)?;
        Ok(Restart::Needed)
    }

    fn confirm(&mut self, component: u8) -> Result<(), BootError> {
        if component != 0 {
            return Err(BootError::Unsupported);
        }
        self.forget()
    }

    fn revert(&mut self, component: u8) -> Result<Restart, BootError> {
        self.detail = "";
        if component != 0 {
            return Err(BootError::Unsupported);
        }
        let Some(mut trial) = self.trial()? else {
            return Ok(Restart::NotNeeded);
        };
        let own = self.running_digest();
        if own.0 != trial.new {
            // The old image runs, or one that came by another way, such as USB: the new
            // one must not be started any more, and nothing is to be put back.
            if self.holds(UPDATE, trial.new_size, &Digest(trial.new))? {
                if self.card.length(NEW)?.is_none() {
                    self.card.rename(UPDATE, NEW)?;
                } else {
                    self.card.remove(UPDATE)?;
                }
            }
            self.forget()?;
            return Ok(Restart::NotNeeded);
        }
        let old = Digest(trial.old);
        if self.holds(PREVIOUS, trial.old_size, &old)? {
            trial.reverting = true;
            self.keep(&trial)?;
            self.hand_over(PREVIOUS)?;
        } else if !self.holds(UPDATE, trial.old_size, &old)? {
            self.detail = "PREVIOUS.BIN is missing or damaged";
            return Err(BootError::NothingToRestore);
        }
        Ok(Restart::Needed)
    }

    fn self_test(&mut self, _component: u8) -> SelfTest {
        self.sketch.self_test()
    }

    fn restart(&mut self, why: BootReason) -> Result<(), BootError> {
        self.sketch.restart(why);
        Ok(())
    }

    fn detail(&self) -> &str {
        self.detail
    }
}
