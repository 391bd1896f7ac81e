//! Starting an image, keeping it, and going back (spec/states.md, the board's machine).

use core::fmt;
use dialhome_proto::{
    code::{BootReason, Reason, SelfTest},
    id::{Digest, UpdateId},
};

pub use dialhome_proto::device::RunningImage as Running;

/// Which image runs, and the way from one to the next.
///
/// The client stores in its journal what it is about to do *before* it calls
/// `activate`, `confirm` or `revert`, and calls the same function again after a cut. So
/// each of them is safe to repeat, from any point at which the last call was cut. One
/// call comes without that: where `running` tells of a trial that the journal does not
/// know, the client begins with `revert`. One update, step by step:
///
/// 1. The image is in the slot, flushed, its digest and signature checked. The client
///    says Bye(restart), closes, and calls `activate`.
/// 2. After [`Restart::Needed`] it calls `restart`; after [`Restart::NotNeeded`] it goes
///    on at once.
/// 3. At the next start `running` says what runs. The new image: it is on trial,
///    `self_test` runs, the client dials home. Another image: if
///    [`Running::boot_reason`] is `revert` the bootloader went back, and the client calls
///    `revert` so that the boot side can forget it; otherwise, and where the journal does
///    not yet say that `activate` had returned, it is called again.
/// 4. The gateway says Confirm, and `confirm` makes it final; or the self-test fails or
///    the trial budget is spent, and `revert` puts the old image back.
///
/// Of an update with several entries the client calls `activate` for one component after
/// the other, in the manifest's order, with a `restart` between two where the earlier one
/// needs it, and a self-test of each that was changed, once per start; then `confirm` of
/// each, in that order, or `revert` of each that was touched, in the opposite one. Where a
/// later `confirm` fails, an earlier one has already made its component final: its
/// `revert` then says `NothingToRestore`, if that is so.
///
/// | board | `activate` | `confirm` | `revert` |
/// |---|---|---|---|
/// | bootloader that swaps two slots | marks the slot for a swap | marks the image as good | marks the swap back; the bootloader also does so for an image that never confirms |
/// | SDU: UPDATE.BIN on a card | keeps a copy of the running image, renames the slot's file to UPDATE.BIN | forgets the trial | renames the kept copy to UPDATE.BIN |
/// | Linux agent | switches `current`, runs the install command | forgets the old image | switches back, runs the install command on the old image |
/// | child MCU behind Linux | runs the flash tool, nothing restarts | keeps this image as the last good one | runs the flash tool on the last good one |
pub trait Boot {
    /// What runs of this component, found afresh: never from what was written down when
    /// the image was installed. `known_size` is the size of the image that the journal
    /// expects to run, for a board that has to hash its slot and does not know where
    /// the image ends; a board may know better (a linker symbol, a file's length).
    /// Where neither is known the digest is `unknown`. While an image is on its way it is
    /// that image's size, whichever runs: a board that can go back should know the end of
    /// each of its images itself, or the old one has a digest that nobody knows.
    ///
    /// While an `activate` or a `revert` has been cut before its end, the digest must
    /// not be that of the image which it was to start: the client would take it for
    /// done. May be slow (a whole image is hashed); the client asks at the start, before
    /// it dials, and again after a change that needed no restart.
    ///
    /// # Errors
    /// `Unsupported` for a component that the board has not; `Storage` where nothing
    /// can be read (the client then says `unknown`).
    fn running(&mut self, component: u8, known_size: Option<u32>) -> Result<Running, BootError>;

    /// Makes the image in the component's slot the one that runs next. When it returns
    /// Ok that is durable: the next start runs the image, or goes back by itself. When
    /// it returns an error the board may be half-way, and the client calls `revert`.
    /// Called with no session open, so it may take long; it must end by itself.
    ///
    /// # Errors
    /// `DigestMismatch` where the slot does not hold this image, `NotAllowed` where this
    /// board refuses it, `Install` where its installation failed, `Storage` by the
    /// medium.
    fn activate(&mut self, activation: &Activation<'_>) -> Result<Restart, BootError>;

    /// Makes the image on trial final: when it returns, no restart and no bootloader
    /// goes back from it. Without a trial it does nothing.
    ///
    /// # Errors
    /// `Storage` by the medium: the image is still on trial.
    fn confirm(&mut self, component: u8) -> Result<(), BootError>;

    /// Ends the trial and brings the old image back; durable when it returns. Where
    /// nothing had been switched yet, or the old image is back already, it does nothing
    /// more than forget the trial and returns `NotNeeded`: the client also calls it when
    /// it finds the old image running, so that no later start brings the new one.
    ///
    /// # Errors
    /// `NothingToRestore` where the board kept no older image (the client says
    /// `revert_failed` at once); `Install` or `Storage`
    /// where bringing it back failed (the client tries again, then says `revert_failed`).
    fn revert(&mut self, component: u8) -> Result<Restart, BootError>;

    /// The running image's verdict on itself. Called once per boot on trial (and after an
    /// activation that needed no restart), before the client dials; it must end by
    /// itself. A board without a test says `NOT_RUN`, and a test that could not be run is
    /// `FAILED`.
    fn self_test(&mut self, component: u8) -> SelfTest;

    /// Restarts the board, so that what `activate` or `revert` prepared takes effect.
    /// On a board it does not come back; in a simulation it returns Ok and the caller
    /// drops the client and makes another.
    ///
    /// # Errors
    /// The system refused. The client goes on as it is and tries again later.
    fn restart(&mut self, why: BootReason) -> Result<(), BootError>;

    /// What the last failed call has to add, for Report's `detail`: the tail of a tool's
    /// output. At most 200 bytes of UTF-8; empty where there is nothing.
    fn detail(&self) -> &str {
        ""
    }

    /// Keeps, durably, what the last failed call's command printed, for the outcome of this
    /// update; called before that outcome is stored, and again after each further failure.
    /// A board that runs no commands, or cannot store it, keeps nothing.
    fn keep_output(&mut self, update: &UpdateId) {
        let _ = update;
    }

    /// Takes a longer text into memory and returns its parts, at most 8 (spec/protocol.md
    /// section 12); 0 where there is none. Only asked with the feature `texts`.
    fn text(&mut self, text: Text) -> u8 {
        let _ = text;
        0
    }

    /// A part, from 1, of what [`Self::text`] took last of this kind: at most 768 bytes.
    fn text_part(&self, text: Text, part: u8) -> &str {
        let _ = (text, part);
        ""
    }
}

/// A longer text of a board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    /// What was kept for this update.
    Output(UpdateId),
    /// The end of the board's log.
    Log {
        /// Most lines.
        lines: u16,
        /// Most bytes.
        bytes: u16,
    },
}

/// The image that `activate` is to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activation<'a> {
    /// The update that asked for it.
    pub update: UpdateId,
    /// The component that it is for.
    pub component: u8,
    /// SHA-256 of the image's first `size` bytes.
    pub digest: Digest,
    /// Bytes.
    pub size: u32,
    /// Its version text from the manifest.
    pub version: &'a str,
    /// Boots that it has on trial, from its manifest, and one for each component that is
    /// changed after it, which may need a restart; at least 1. The client counts those
    /// in which it runs; a bootloader also counts those in which it does not.
    pub trial_boots: u8,
}

/// Whether what was done takes effect only after `restart`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// The client calls `restart`.
    Needed,
    /// The client asks `running` again and goes on.
    NotNeeded,
}

/// Why the board could not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootError {
    /// The medium failed.
    Storage,
    /// The slot does not hold the image that was named.
    DigestMismatch,
    /// The board's own rules refuse the image.
    NotAllowed,
    /// The installation failed; `detail` has the rest.
    Install,
    /// No older image was kept.
    NothingToRestore,
    /// The board has no such component, or cannot do this.
    Unsupported,
}

impl BootError {
    /// What the gateway is told when this ends an activation.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::Storage => Reason::STORAGE,
            Self::DigestMismatch => Reason::DIGEST_MISMATCH,
            Self::NotAllowed | Self::Install => Reason::INSTALL_FAILED,
            Self::NothingToRestore => Reason::REVERT_FAILED,
            Self::Unsupported => Reason::WRONG_COMPONENT,
        }
    }

    /// One plain sentence without a full stop.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Storage => "the medium of the boot records failed",
            Self::DigestMismatch => "the slot does not hold the image that was to be started",
            Self::NotAllowed => "the board's own rules refuse the image",
            Self::Install => "the installation failed",
            Self::NothingToRestore => "no older image was kept",
            Self::Unsupported => "the board cannot do this for that component",
        }
    }
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl core::error::Error for BootError {}
