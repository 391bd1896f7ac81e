//! The boot side, and what a boot loader would do in flash.

use super::{FileSlot, replace};
use dialhome_device::boot::{Activation, Boot, BootError, Restart, Running};
use dialhome_device::slot::Slot as _;
use dialhome_proto::code::{BootReason, DigestFrom, Revert, SelfTest};
use dialhome_proto::hash::sha256;
use dialhome_proto::id::Digest;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// `DIR/boot`: digests of three images, in a line each.
#[derive(Default)]
struct Images {
    runs: String,
    /// The boot loader starts it next.
    next: String,
    /// To go back to; not empty while an image is on trial.
    previous: String,
}

impl Images {
    fn load(dir: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(dir.join("boot"))?;
        let mut lines = text.split('\n').map(str::to_owned);
        let mut line = || lines.next().unwrap_or_default();
        Ok(Self {
            runs: line(),
            next: line(),
            previous: line(),
        })
    }

    fn save(&self, dir: &Path) -> Result<(), BootError> {
        let text = format!("{}\n{}\n{}", self.runs, self.next, self.previous);
        replace(dir, "boot", text.as_bytes()).map_err(|_| BootError::Storage)
    }
}

/// Images by their digests; `DIR/boot` says which runs.
pub(crate) struct FileBoot {
    dir: PathBuf,
    reason: BootReason,
}

impl FileBoot {
    /// The board starts. What a boot loader does in flash is here: it starts `next`.
    pub(crate) fn start(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        if !dir.join("boot").exists() {
            let factory = b"the image that the board left the factory with";
            let runs = Digest(sha256(&[factory])).to_string();
            replace(dir, &format!("image-{runs}"), factory)?;
            replace(dir, "boot", runs.as_bytes())?;
        }
        let mut images = Images::load(dir)?;
        let mut reason = BootReason::RESTART;
        if !images.next.is_empty() {
            images.runs = std::mem::take(&mut images.next);
            reason = if images.previous.is_empty() {
                BootReason::REVERT
            } else {
                BootReason::UPDATE
            };
            images.save(dir).map_err(io::Error::other)?;
        }
        let dir = dir.to_owned();
        Ok(Self { dir, reason })
    }

    fn images(&self, component: u8) -> Result<Images, BootError> {
        if component != 0 {
            return Err(BootError::Unsupported);
        }
        Images::load(&self.dir).map_err(|_| BootError::Storage)
    }
}

impl Boot for FileBoot {
    fn running(&mut self, component: u8, _known_size: Option<u32>) -> Result<Running, BootError> {
        let images = self.images(component)?;
        // Found afresh: the digest of the bytes, not the one in the name.
        let image = fs::read(self.dir.join(format!("image-{}", images.runs)));
        let image = image.map_err(|_| BootError::Storage)?;
        Ok(Running {
            digest: Digest(sha256(&[&image])),
            digest_from: DigestFrom::SLOT_FILE,
            boot_reason: self.reason,
            revert: Revert::SWAP,
            on_trial: !images.previous.is_empty(),
            ..Running::UNKNOWN
        })
    }

    fn activate(&mut self, activation: &Activation<'_>) -> Result<Restart, BootError> {
        let mut images = self.images(activation.component)?;
        let name = activation.digest.to_string();
        if images.next == name {
            return Ok(Restart::Needed); // Called again after a cut.
        }
        let mut image = vec![0; activation.size as usize];
        let read = FileSlot(self.dir.clone()).read(0, &mut image);
        if read.is_err() || sha256(&[&image]) != activation.digest.0 {
            return Err(BootError::DigestMismatch);
        }
        let kept = replace(&self.dir, &format!("image-{name}"), &image);
        kept.map_err(|_| BootError::Storage)?;
        images.next = name;
        images.previous.clone_from(&images.runs);
        images.save(&self.dir)?;
        Ok(Restart::Needed)
    }

    fn confirm(&mut self, component: u8) -> Result<(), BootError> {
        let mut images = self.images(component)?;
        let old = std::mem::take(&mut images.previous);
        if old.is_empty() {
            return Ok(()); // There is no trial, or it is confirmed already.
        }
        images.save(&self.dir)?;
        // Only room is lost where this fails.
        let _ = fs::remove_file(self.dir.join(format!("image-{old}")));
        Ok(())
    }

    fn revert(&mut self, component: u8) -> Result<Restart, BootError> {
        let mut images = self.images(component)?;
        if images.previous.is_empty() {
            return Ok(if images.next.is_empty() {
                Restart::NotNeeded
            } else {
                Restart::Needed // Reverted before, and not restarted yet.
            });
        }
        let old = std::mem::take(&mut images.previous);
        // Activated, but never started: the old image runs still.
        let runs_old = images.runs == old;
        images.next = if runs_old { String::new() } else { old };
        images.save(&self.dir)?;
        Ok(if runs_old {
            Restart::NotNeeded
        } else {
            Restart::Needed
        })
    }

    fn self_test(&mut self, _component: u8) -> SelfTest {
        SelfTest::NOT_RUN
    }

    /// The loop in `main` drops everything and begins again.
    fn restart(&mut self, _why: BootReason) -> Result<(), BootError> {
        Ok(())
    }
}
