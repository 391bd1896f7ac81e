//! Two images, a bootloader between them, and images that are not well.

use super::flash::Medium;
use super::power::{Power, Step};
use dialhome_device::boot::{Activation, Boot, BootError, Restart, Running};
use dialhome_proto::code::{BootReason, DigestFrom, Revert, SelfTest};
use dialhome_proto::id::Digest;
use sha2::Digest as _;
use std::cell::RefCell;
use std::rc::Rc;

/// What an image does when it runs; its first byte says which.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nature {
    /// It is well.
    Good,
    /// It fails its self-test.
    FailsSelfTest,
    /// It crashes before the client runs; the bootloader goes back after a few times.
    Crashes,
    /// It crashes some seconds after each start, until it is confirmed.
    CrashesLater,
    /// The bootloader does not take it, and starts the old one.
    NotTaken,
    /// Its installation fails.
    DoesNotInstall,
}

impl Nature {
    /// Every nature.
    pub const ALL: [Self; 6] = [
        Self::Good,
        Self::FailsSelfTest,
        Self::Crashes,
        Self::CrashesLater,
        Self::NotTaken,
        Self::DoesNotInstall,
    ];

    /// The nature of an image.
    #[must_use]
    pub fn of(image: &[u8]) -> Self {
        image
            .first()
            .and_then(|first| Self::ALL.get(usize::from(*first)))
            .copied()
            .unwrap_or(Self::Good)
    }

    /// The first byte of an image of this nature.
    #[must_use]
    pub fn mark(self) -> u8 {
        Self::ALL
            .iter()
            .position(|nature| *nature == self)
            .and_then(|place| u8::try_from(place).ok())
            .unwrap_or(0)
    }
}

/// What the bootloader does about an image that was not confirmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loader {
    /// It goes back only after repeated crashes.
    Patient,
    /// It goes back at the next start.
    Strict,
    /// There is none: the change takes effect at once, as with a child MCU.
    Direct,
}

/// Starts that a patient bootloader gives an image that crashes.
const CRASHES_MAX: u32 = 3;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mark {
    None,
    Try,
    Back,
}

/// What runs, and what will; it outlives the client.
#[derive(Debug)]
pub struct Images {
    loader: Loader,
    running: Vec<u8>,
    old: Option<Vec<u8>>,
    next: Option<Vec<u8>>,
    mark: Mark,
    confirmed: bool,
    reason: BootReason,
    /// The running image has passed its self-test, or has none.
    tested: bool,
    /// No older image is kept.
    pub keeps_none: bool,
    /// Reverts that will fail half-way.
    pub bad_reverts: u32,
    /// Nobody can tell what runs.
    pub unreadable: bool,
    /// Times that another image was put in the place of the running one.
    pub changes: u32,
}

impl Images {
    /// A board that runs this image.
    #[must_use]
    pub fn new(loader: Loader, running: Vec<u8>) -> Self {
        Self {
            loader,
            running,
            old: None,
            next: None,
            mark: Mark::None,
            confirmed: true,
            reason: BootReason::POWER_ON,
            tested: false,
            keeps_none: false,
            bad_reverts: 0,
            unreadable: false,
            changes: 0,
        }
    }

    /// The image that runs.
    #[must_use]
    pub fn running(&self) -> &[u8] {
        &self.running
    }

    /// Whether no bootloader goes back from it.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        self.confirmed
    }

    /// What changes its image.
    #[must_use]
    pub const fn loader(&self) -> Loader {
        self.loader
    }

    /// Whether a change takes effect without a restart.
    #[must_use]
    pub const fn is_direct(&self) -> bool {
        matches!(self.loader, Loader::Direct)
    }

    /// The bootloader's part of a start.
    pub fn start(&mut self, why: BootReason, medium: &mut Medium) {
        self.reason = why;
        match self.mark {
            Mark::Try if Nature::of(self.next.as_deref().unwrap_or(&[])) == Nature::NotTaken => {
                self.mark = Mark::None;
                self.next = None;
            }
            Mark::Try => self.put_next(medium),
            Mark::Back => self.put_old(medium),
            Mark::None if !self.confirmed && self.loader == Loader::Strict => {
                self.put_old(medium);
                self.reason = BootReason::REVERT;
            }
            Mark::None => {}
        }
        if !self.confirmed && Nature::of(&self.running) == Nature::Crashes {
            // The starts that crash take no virtual time.
            let starts = if self.loader == Loader::Strict {
                1
            } else {
                CRASHES_MAX
            };
            for _ in 0..starts {
                self.reason = BootReason::WATCHDOG;
            }
            self.put_old(medium);
            self.reason = BootReason::REVERT;
        }
    }

    fn put_next(&mut self, medium: &mut Medium) {
        self.mark = Mark::None;
        if let Some(next) = self.next.take() {
            let old = std::mem::replace(&mut self.running, next);
            medium.overwrite(0, &old);
            self.old = (!self.keeps_none).then_some(old);
            self.confirmed = false;
            self.tested = false;
            self.changes += 1;
        }
    }

    fn put_old(&mut self, medium: &mut Medium) {
        self.mark = Mark::None;
        if let Some(old) = self.old.take() {
            let bad = std::mem::replace(&mut self.running, old);
            medium.overwrite(0, &bad);
            self.confirmed = true;
            self.tested = false;
            self.changes += 1;
        }
    }
}

/// One component of the board; it outlives the client.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its number.
    pub number: u8,
    /// What runs, and what will.
    pub images: Rc<RefCell<Images>>,
    /// The slot that an image is taken from.
    pub medium: Rc<RefCell<Medium>>,
    /// What ran at first.
    pub first: Rc<Vec<u8>>,
}

/// The boot side as the client has it.
#[derive(Clone, Debug)]
pub struct SimBoot {
    /// The components.
    pub parts: Rc<Vec<Part>>,
    /// Whether there is power.
    pub power: Power,
    /// Whether the step in which the power fails is still done.
    pub torn_steps_land: bool,
    /// What the self-test of a good image says.
    pub verdict: SelfTest,
}

impl SimBoot {
    fn part(&self, component: u8) -> Result<&Part, BootError> {
        let mut parts = self.parts.iter();
        parts
            .find(|part| part.number == component)
            .ok_or(BootError::Unsupported)
    }

    fn step(
        &self,
        part: &Part,
        change: impl FnOnce(&mut Images, &mut Medium),
    ) -> Result<(), BootError> {
        let step = self.power.step();
        if step == Step::Whole || (step == Step::Torn && self.torn_steps_land) {
            change(&mut part.images.borrow_mut(), &mut part.medium.borrow_mut());
        }
        if step == Step::Whole {
            Ok(())
        } else {
            Err(BootError::Storage)
        }
    }
}

impl Boot for SimBoot {
    fn running(&mut self, component: u8, _: Option<u32>) -> Result<Running, BootError> {
        let images = self.part(component)?.images.borrow();
        if images.unreadable {
            return Ok(Running::UNKNOWN);
        }
        Ok(Running {
            digest: Digest(sha2::Sha256::digest(&images.running).into()),
            digest_from: DigestFrom::BOOTED,
            boot_reason: images.reason,
            revert: if images.keeps_none {
                Revert::NONE
            } else {
                Revert::SWAP
            },
            version: "",
            counter: 0,
            unfinished: false,
            on_trial: !images.confirmed,
        })
    }

    fn activate(&mut self, activation: &Activation<'_>) -> Result<Restart, BootError> {
        let part = self.part(activation.component)?;
        let image = part.medium.borrow().durable(activation.size).to_vec();
        if sha2::Sha256::digest(&image)[..] != activation.digest.0 {
            return Err(BootError::DigestMismatch);
        }
        if Nature::of(&image) == Nature::DoesNotInstall {
            return Err(BootError::Install);
        }
        let is_direct = part.images.borrow().loader == Loader::Direct;
        self.step(part, |images, medium| {
            images.next = Some(image);
            images.mark = Mark::Try;
            if is_direct && Nature::of(images.next.as_deref().unwrap_or(&[])) != Nature::NotTaken {
                images.put_next(medium);
            }
        })?;
        Ok(if is_direct {
            Restart::NotNeeded
        } else {
            Restart::Needed
        })
    }

    fn confirm(&mut self, component: u8) -> Result<(), BootError> {
        self.step(self.part(component)?, |images, _| {
            assert!(
                images.confirmed || images.tested,
                "component {component} is confirmed untested"
            );
            images.confirmed = true;
            images.old = None;
        })
    }

    fn revert(&mut self, component: u8) -> Result<Restart, BootError> {
        let mut restart = Restart::NotNeeded;
        let part = self.part(component)?;
        let is_direct = part.images.borrow().loader == Loader::Direct;
        if part.images.borrow().keeps_none && !part.images.borrow().confirmed {
            return Err(BootError::NothingToRestore);
        }
        if part.images.borrow().bad_reverts > 0 {
            return self
                .step(part, |images, _| images.bad_reverts -= 1)
                .and(Err(BootError::Install));
        }
        self.step(part, |images, medium| {
            images.next = None;
            images.mark = Mark::None;
            if images.old.is_none() {
                return;
            }
            if is_direct {
                images.put_old(medium);
            } else {
                images.mark = Mark::Back;
                restart = Restart::Needed;
            }
        })?;
        Ok(restart)
    }

    fn self_test(&mut self, component: u8) -> SelfTest {
        if self.power.step() != Step::Whole {
            return SelfTest::NOT_RUN;
        }
        let Ok(part) = self.part(component) else {
            return SelfTest::FAILED;
        };
        let mut images = part.images.borrow_mut();
        match Nature::of(&images.running) {
            Nature::FailsSelfTest | Nature::Crashes => SelfTest::FAILED,
            _ => {
                images.tested = self.verdict != SelfTest::FAILED;
                self.verdict
            }
        }
    }

    fn restart(&mut self, _: BootReason) -> Result<(), BootError> {
        if self.power.is_off() {
            return Err(BootError::Storage);
        }
        Ok(())
    }

    fn detail(&self) -> &str {
        "the tool's last line"
    }
}
