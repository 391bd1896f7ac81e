//! Which image runs on Linux: `STATE/current` points to it, the configured commands
//! install and judge it.
//!
//! Commands find in their environment: `DIALHOME_IMAGE`, the image's absolute path;
//! `DIALHOME_COMPONENT`; `DIALHOME_VERSION` (empty for an old image that is brought
//! back); `DIALHOME_UPDATE`, 16 hexadecimal digits (empty outside an update); and
//! `DIALHOME_STATE`, the state directory.

use std::{
    borrow::ToOwned as _,
    ffi::OsString,
    fs::{self, File, Permissions},
    io::{self, Read as _},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    string::{String, ToString as _},
    vec,
    vec::Vec,
};

use dialhome_proto::{
    code::{BootReason, DigestFrom, Revert, SelfTest},
    id::Digest,
};
use sha2::{Digest as _, Sha256};

use super::{
    command::{self, BOOT_VARIABLE, CommandFailed, STATE_VARIABLE},
    config::CommandSettings,
    durable,
    state::State,
    switch::{Images, Step, Switch},
};
use crate::boot::{Activation, Boot, BootError, Restart, Running};

/// The commands that an agent was configured with.
#[derive(Clone, Debug, Default)]
pub struct Commands {
    /// Makes the image behind `current` take effect.
    pub install: Option<CommandSettings>,
    /// Prints the SHA-256 of what runs.
    pub running: Option<CommandSettings>,
    /// Exit code 0 says that the running image is well.
    pub self_test: Option<CommandSettings>,
}

/// How the agent starts itself again.
#[derive(Clone, Debug)]
pub struct Reexec {
    /// The agent's executable.
    pub program: PathBuf,
    /// Its arguments, without the program's name.
    pub arguments: Vec<OsString>,
}

impl Reexec {
    /// As this process was started.
    ///
    /// # Errors
    /// The system does not say which executable this is.
    pub fn this_process() -> io::Result<Self> {
        Ok(Self {
            program: std::env::current_exe()?,
            arguments: std::env::args_os().skip(1).collect(),
        })
    }
}

/// Component 0 of a Linux board: one image file that the agent installs.
#[derive(Debug)]
pub struct LinuxBoot {
    images: Images,
    commands: Commands,
    reexec: Option<Reexec>,
    boot_reason: BootReason,
    detail: String,
    /// The durable step after which a test stops, as a kill would.
    #[cfg(test)]
    cut_after: Option<u32>,
}

impl LinuxBoot {
    /// The images of this state directory. Without `reexec`, `restart` only returns.
    /// Ends commands that an agent which was killed left running.
    ///
    /// # Errors
    /// The kernel's boot id cannot be stored in the state directory.
    pub fn open(state: &State, commands: Commands, reexec: Option<Reexec>) -> io::Result<Self> {
        let orphans = command::end_orphans(state.dir());
        if orphans > 0 {
            tracing::warn!(orphans, "ended processes of commands that were cut");
        }
        Ok(Self {
            images: Images::new(state.dir()),
            commands,
            reexec,
            boot_reason: boot_reason(state.dir())?,
            detail: String::new(),
            #[cfg(test)]
            cut_after: None,
        })
    }

    /// One durable step is done.
    #[cfg(test)]
    fn done(&mut self) -> Result<(), BootError> {
        match &mut self.cut_after {
            Some(0) => Err(BootError::Storage),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    #[cfg(not(test))]
    #[expect(clippy::unnecessary_wraps, reason = "a test stops here")]
    fn done(&mut self) -> Result<(), BootError> {
        let _ = self;
        Ok(())
    }

    fn failed(&mut self, what: &str, error: &io::Error) -> BootError {
        tracing::error!(%error, "{what}");
        self.detail = std::format!("{what}: {error}");
        truncate(&mut self.detail);
        BootError::Storage
    }

    fn command_failed(&mut self, failed: &CommandFailed) -> BootError {
        tracing::error!("{failed}");
        self.detail = failed.detail();
        BootError::Install
    }

    fn only_main(component: u8) -> Result<(), BootError> {
        if component == 0 {
            Ok(())
        } else {
            Err(BootError::Unsupported)
        }
    }

    fn environment(&self, version: &str, update: &str) -> Vec<(&'static str, OsString)> {
        let current = self.images.current();
        // The file itself: the link may be switched while a service still starts.
        let image = fs::canonicalize(&current).unwrap_or(current);
        vec![
            ("DIALHOME_IMAGE", image.into()),
            ("DIALHOME_COMPONENT", "0".into()),
            ("DIALHOME_VERSION", version.into()),
            ("DIALHOME_UPDATE", update.into()),
            (STATE_VARIABLE, self.images.dir().into()),
        ]
    }

    fn install(&mut self, version: &str, update: &str) -> Result<(), BootError> {
        let Some(settings) = &self.commands.install else {
            return Ok(());
        };
        let environment = self.environment(version, update);
        command::run("install", settings, &environment)
            .map(drop)
            .map_err(|failed| self.command_failed(&failed))
    }

    /// The record of the switch that `activation` asks for: the one that is there
    /// already, or a new one after the slot's bytes were checked.
    fn begin(&mut self, activation: &Activation<'_>) -> Result<Switch, BootError> {
        let image = activation.digest.to_string();
        let record = self.images.switch();
        match record.map_err(|error| self.failed("STATE/switch", &error))? {
            Some(switch) if switch.step == Step::Restoring => {}
            Some(switch) if switch.image == image => return Ok(switch),
            Some(switch) => {
                self.detail = std::format!("image {:.16} is on trial", switch.image);
                return Err(BootError::NotAllowed);
            }
            None => {}
        }
        let slot = self.images.free_slot();
        let to = slot.map_err(|error| self.failed("STATE/current", &error))?;
        let path = self.images.path(to);
        let found = digest_of(&path).map_err(|error| self.failed("the slot", &error))?;
        if found != Some((activation.digest, u64::from(activation.size))) {
            self.detail = match found {
                Some((digest, size)) => std::format!("the slot holds {size} bytes, {digest:.16}"),
                None => "the slot is empty".to_owned(),
            };
            return Err(BootError::DigestMismatch);
        }
        // An image may be a program, and commands may run as another user.
        let synced = fs::set_permissions(&path, Permissions::from_mode(0o755))
            .and_then(|()| File::open(&path)?.sync_all());
        synced.map_err(|error| self.failed("the slot", &error))?;
        let from = self.images.target();
        let switch = Switch {
            step: Step::Installing,
            image,
            to: to.to_owned(),
            from: from.map_err(|error| self.failed("STATE/current", &error))?,
            update: activation.update.to_string(),
            version: activation.version.to_owned(),
        };
        self.set_switch(&switch)?;
        Ok(switch)
    }

    fn set_switch(&mut self, switch: &Switch) -> Result<(), BootError> {
        let set = self.images.set_switch(switch);
        set.map_err(|error| self.failed("STATE/switch", &error))?;
        self.done()
    }

    fn clear_switch(&mut self) -> Result<(), BootError> {
        let cleared = self.images.clear_switch();
        cleared.map_err(|error| self.failed("STATE/switch", &error))?;
        self.done()
    }

    fn point_current(&mut self, target: Option<&str>) -> Result<(), BootError> {
        let current = self.images.current();
        let pointed = match target {
            Some(target) => durable::point(&current, target),
            None => durable::remove(&current),
        };
        pointed.map_err(|error| self.failed("STATE/current", &error))?;
        self.done()
    }

    /// The digest that the configured command prints.
    fn asked_digest(&self, settings: &CommandSettings, switch: Option<&Switch>) -> Option<Digest> {
        let (version, update) = names(switch);
        let environment = self.environment(version, update);
        match command::run("running", settings, &environment) {
            Ok(output) => {
                let digest = output.word(Digest::from_hex);
                if digest.is_none() {
                    tracing::error!("command `running` printed no SHA-256 (64 hexadecimal digits)");
                }
                digest
            }
            Err(failed) => {
                tracing::error!("{failed}");
                None
            }
        }
    }
}

impl Boot for LinuxBoot {
    fn running(&mut self, component: u8, _known_size: Option<u32>) -> Result<Running, BootError> {
        Self::only_main(component)?;
        let switch = self.images.switch();
        let switch = switch.map_err(|error| self.failed("STATE/switch", &error))?;
        let target = self.images.target();
        let target = target.map_err(|error| self.failed("STATE/current", &error))?;
        let mut running = Running {
            boot_reason: self.boot_reason,
            // An installed image can only be undone by installing the one before it.
            revert: if target.is_some() || self.commands.install.is_none() {
                Revert::SWAP
            } else {
                Revert::NONE
            },
            on_trial: switch.is_some(),
            ..Running::UNKNOWN
        };
        if switch
            .as_ref()
            .is_some_and(|switch| switch.step != Step::Trial)
        {
            running.unfinished = true;
            return Ok(running);
        }
        let found = if let Some(settings) = &self.commands.running {
            self.asked_digest(settings, switch.as_ref())
                .map(|digest| (digest, DigestFrom::BOOTED))
        } else {
            digest_of(&self.images.current())
                .map_err(|error| self.failed("STATE/current", &error))?
                .map(|(digest, _)| (digest, DigestFrom::SLOT_FILE))
        };
        if let Some((digest, digest_from)) = found {
            running.digest = digest;
            running.digest_from = digest_from;
        }
        Ok(running)
    }

    fn activate(&mut self, activation: &Activation<'_>) -> Result<Restart, BootError> {
        Self::only_main(activation.component)?;
        self.detail.clear();
        let mut switch = self.begin(activation)?;
        if switch.step == Step::Installing {
            self.point_current(Some(&switch.to))?;
            self.install(&switch.version, &switch.update)?;
            switch.step = Step::Trial;
            self.set_switch(&switch)?;
        }
        Ok(Restart::Needed)
    }

    fn confirm(&mut self, component: u8) -> Result<(), BootError> {
        Self::only_main(component)?;
        self.detail.clear();
        let switch = self.images.switch();
        match switch.map_err(|error| self.failed("STATE/switch", &error))? {
            None => Ok(()),
            Some(switch) if switch.step == Step::Trial => self.clear_switch(),
            Some(_) => Err(BootError::NotAllowed),
        }
    }

    fn revert(&mut self, component: u8) -> Result<Restart, BootError> {
        Self::only_main(component)?;
        self.detail.clear();
        let switch = self.images.switch();
        let Some(mut switch) = switch.map_err(|error| self.failed("STATE/switch", &error))? else {
            return Ok(Restart::NotNeeded);
        };
        switch.step = Step::Restoring;
        self.set_switch(&switch)?;
        self.point_current(switch.from.as_deref())?;
        if switch.from.is_some() {
            self.install("", &switch.update)?;
        }
        self.clear_switch()?;
        if switch.from.is_none() && self.commands.install.is_some() {
            self.detail = "what ran before the first image is not known".to_owned();
            return Err(BootError::NothingToRestore);
        }
        Ok(Restart::Needed)
    }

    fn self_test(&mut self, component: u8) -> SelfTest {
        self.detail.clear();
        let Some(settings) = &self.commands.self_test else {
            return SelfTest::NOT_RUN;
        };
        if component != 0 {
            return SelfTest::NOT_RUN;
        }
        let switch = self.images.switch().unwrap_or_default();
        let (version, update) = names(switch.as_ref());
        match command::run("self_test", settings, &self.environment(version, update)) {
            Ok(_) => SelfTest::PASSED,
            Err(failed) => {
                self.command_failed(&failed);
                SelfTest::FAILED
            }
        }
    }

    fn restart(&mut self, why: BootReason) -> Result<(), BootError> {
        let Some(reexec) = &self.reexec else {
            self.boot_reason = why;
            return Ok(());
        };
        tracing::info!(%why, "restarts");
        let error = Command::new(&reexec.program)
            .args(&reexec.arguments)
            .env(BOOT_VARIABLE, why.to_string())
            .exec();
        let program = reexec.program.display().to_string();
        self.failed(&program, &error);
        Err(BootError::Unsupported)
    }

    fn detail(&self) -> &str {
        &self.detail
    }
}

fn names(switch: Option<&Switch>) -> (&str, &str) {
    switch.map_or(("", ""), |switch| (&switch.version, &switch.update))
}

fn truncate(text: &mut String) {
    let end = (0..=text.len().min(dialhome_proto::limits::DETAIL_MAX))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
}

/// SHA-256 and length of a file's bytes as they are now; `None` where there is none.
fn digest_of(path: &Path) -> io::Result<Option<(Digest, u64)>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut hash = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Some((Digest(hash.finalize().into()), size))),
            Ok(len) => {
                hash.update(&buffer[..len]);
                size += len as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Why this process was started: by the agent itself, by a start of the machine, or
/// otherwise (a supervisor, by hand).
fn boot_reason(dir: &Path) -> io::Result<BootReason> {
    let path = dir.join("boot_id");
    let now = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let same = fs::read_to_string(&path).is_ok_and(|before| before == now);
    if !same {
        durable::replace(&path, now.as_bytes())?;
    }
    let told = std::env::var(BOOT_VARIABLE).ok();
    Ok(match told.as_deref().and_then(BootReason::from_name) {
        Some(reason) if same => reason,
        _ if now.is_empty() => BootReason::UNKNOWN,
        _ if same => BootReason::RESTART,
        _ => BootReason::POWER_ON,
    })
}

#[cfg(test)]
#[path = "boot_linux_tests.rs"]
mod tests;
