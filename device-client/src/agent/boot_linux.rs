//! Which image runs on Linux: `current` of each component points to it, the configured
//! commands install and judge it.
//!
//! Component 0 is what the agent's own tables say: an image that an install command makes
//! effective, or with `self_update` the agent's own executable, which its launcher starts
//! ([`super::launcher`]). The others are children, each with its rule for going back.
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
    thread,
    time::Duration,
    vec,
    vec::Vec,
};

use dialhome_proto::{
    code::{BootReason, DigestFrom, Revert, SelfTest},
    id::{Digest, UpdateId},
    limits::OUTBOX_DETAIL_MAX,
};
use sha2::{Digest as _, Sha256};

use super::{
    command::{self, BOOT_VARIABLE, CommandFailed, STATE_VARIABLE},
    component::{Commands, Component, Rollback},
    config::CommandSettings,
    durable, launcher,
    log_ring::{LogRing, Secrets},
    state::State,
    switch::{Images, Step, Switch},
    texts::Texts,
};
use crate::boot::{Activation, Boot, BootError, Restart, Running, Text};

/// What an agent says of itself with `--version`; one that does not is not installed.
const NAME: &str = "dialhome-agent";
/// Time for that.
const VERSION_MAX: Duration = Duration::from_secs(30);
/// Longest wait before a child's old image is tried again.
const RETRY_MAX: Duration = Duration::from_secs(10);

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

/// How the agent comes back after a restart.
#[derive(Clone, Debug)]
pub enum Again {
    /// It starts itself again, in the same process.
    Exec(Reexec),
    /// It ends, and the launcher starts what `current` leads to.
    Launcher,
}

/// How what runs is known, and how the old image comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Component 0 as an image that a command installs.
    Installed,
    /// Component 0 as the agent's own executable.
    Agent,
    /// A child.
    Child(Rollback),
}

#[derive(Debug)]
struct Part {
    component: u8,
    /// Begins every detail; empty for component 0.
    name: String,
    rule: Rule,
    images: Images,
    commands: Commands,
    /// Attempts to put the old image back that failed.
    failures: u32,
}

/// The components of a Linux board.
#[derive(Debug)]
pub struct LinuxBoot {
    /// The state directory.
    dir: PathBuf,
    parts: Vec<Part>,
    again: Option<Again>,
    boot_reason: BootReason,
    detail: String,
    texts: Texts,
    /// The durable step after which a test stops, as a kill would.
    #[cfg(test)]
    cut_after: Option<u32>,
}

impl LinuxBoot {
    /// Component 0 in this state directory. Without `again`, `restart` only returns; with
    /// [`Again::Launcher`] the component is the agent's own executable.
    /// Ends commands that an agent which was killed left running.
    ///
    /// # Errors
    /// The kernel's boot id cannot be stored in the state directory.
    pub fn open(state: &State, commands: Commands, again: Option<Again>) -> io::Result<Self> {
        let orphans = command::end_orphans(state.dir());
        if orphans > 0 {
            tracing::warn!(orphans, "ended processes of commands that were cut");
        }
        let rule = match again {
            Some(Again::Launcher) => Rule::Agent,
            _ => Rule::Installed,
        };
        Ok(Self {
            dir: state.dir().to_owned(),
            parts: vec![Part {
                component: 0,
                name: String::new(),
                rule,
                images: Images::new(state.dir()),
                commands,
                failures: 0,
            }],
            again,
            boot_reason: boot_reason(state.dir())?,
            detail: String::new(),
            texts: Texts::new(state.dir()),
            #[cfg(test)]
            cut_after: None,
        })
    }

    /// Adds a child.
    ///
    /// # Errors
    /// Its directory cannot be made.
    pub fn add(&mut self, child: &Component) -> io::Result<()> {
        let images = Images::of_component(&self.dir, child.number);
        images.make()?;
        self.parts.push(Part {
            component: child.number,
            name: child.name.clone(),
            rule: Rule::Child(child.rollback),
            images,
            commands: child.commands.clone(),
            failures: 0,
        });
        Ok(())
    }

    /// The log that the gateway may ask for, and what no text for it says.
    pub fn set_log(&mut self, log: Option<LogRing>, secrets: Secrets) {
        self.texts.set_log(log, secrets);
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

    /// Where in `parts` the component is.
    fn place(&self, component: u8) -> Result<usize, BootError> {
        let mut parts = self.parts.iter();
        parts
            .position(|part| part.component == component)
            .ok_or(BootError::Unsupported)
    }

    /// Sets the detail, with the child's name before it.
    fn say(&mut self, at: usize, detail: &str) {
        let name = &self.parts[at].name;
        self.detail = if name.is_empty() {
            detail.to_owned()
        } else {
            std::format!("{name}: {detail}")
        };
        truncate(&mut self.detail);
    }

    fn failed(&mut self, at: usize, what: &str, error: &io::Error) -> BootError {
        tracing::error!(component = self.parts[at].component, %error, "{what}");
        self.say(at, &std::format!("{what}: {error}"));
        BootError::Storage
    }

    /// The detail says how it failed and how its output ends, in as much as the journal keeps.
    fn command_failed(&mut self, at: usize, failed: &CommandFailed) -> BootError {
        let name = &self.parts[at].name;
        tracing::error!(component = self.parts[at].component, "{failed}");
        let before = if name.is_empty() { 0 } else { name.len() + 2 };
        let detail = failed.detail_within(OUTBOX_DETAIL_MAX.saturating_sub(before));
        self.say(at, &detail);
        self.texts.add(&self.parts[at].name, failed);
        BootError::Install
    }

    fn environment(&self, at: usize, version: &str, update: &str) -> Vec<(&'static str, OsString)> {
        let part = &self.parts[at];
        let current = part.images.current();
        // The file itself: the link may be switched while a service still starts.
        let image = fs::canonicalize(&current).unwrap_or(current);
        vec![
            ("DIALHOME_IMAGE", image.into()),
            ("DIALHOME_COMPONENT", part.component.to_string().into()),
            ("DIALHOME_VERSION", version.into()),
            ("DIALHOME_UPDATE", update.into()),
            (STATE_VARIABLE, self.dir.clone().into()),
        ]
    }

    /// Runs a command of the component, where it has one.
    fn run(
        &self,
        at: usize,
        role: &'static str,
        settings: Option<&CommandSettings>,
        names: (&str, &str),
    ) -> Result<(), CommandFailed> {
        let Some(settings) = settings else {
            return Ok(());
        };
        let environment = self.environment(at, names.0, names.1);
        command::run(role, settings, &environment).map(drop)
    }

    fn install(&self, at: usize, version: &str, update: &str) -> Result<(), CommandFailed> {
        let settings = self.parts[at].commands.install.as_ref();
        self.run(at, "install", settings, (version, update))
    }

    fn switch(&mut self, at: usize) -> Result<Option<Switch>, BootError> {
        let switch = self.parts[at].images.switch();
        switch.map_err(|error| self.failed(at, "STATE/switch", &error))
    }

    fn target(&mut self, at: usize) -> Result<Option<String>, BootError> {
        let target = self.parts[at].images.target();
        target.map_err(|error| self.failed(at, "STATE/current", &error))
    }

    /// The record of the switch that `activation` asks for: the one that is there
    /// already, or a new one after the slot's bytes were checked; and whether it is new.
    fn begin(
        &mut self,
        at: usize,
        activation: &Activation<'_>,
    ) -> Result<(Switch, bool), BootError> {
        let image = activation.digest.to_string();
        match self.switch(at)? {
            Some(switch) if matches!(switch.step, Step::Restoring | Step::Returned) => {}
            Some(switch) if switch.image == image => return Ok((switch, false)),
            Some(switch) => {
                self.say(at, &std::format!("image {:.16} is on trial", switch.image));
                return Err(BootError::NotAllowed);
            }
            None => {}
        }
        let slot = self.parts[at].images.free_slot();
        let to = slot.map_err(|error| self.failed(at, "STATE/current", &error))?;
        let path = self.parts[at].images.path(to);
        let found = digest_of(&path).map_err(|error| self.failed(at, "the slot", &error))?;
        if found != Some((activation.digest, u64::from(activation.size))) {
            let detail = match found {
                Some((digest, size)) => std::format!("the slot holds {size} bytes, {digest:.16}"),
                None => "the slot is empty".to_owned(),
            };
            self.say(at, &detail);
            return Err(BootError::DigestMismatch);
        }
        // An image may be a program, and commands may run as another user.
        let synced = fs::set_permissions(&path, Permissions::from_mode(0o755))
            .and_then(|()| File::open(&path)?.sync_all());
        synced.map_err(|error| self.failed(at, "the slot", &error))?;
        if self.parts[at].rule == Rule::Agent {
            self.is_agent(at, &path)?;
            let marked = self.parts[at].images.mark_agent(activation.digest);
            marked.map_err(|error| self.failed(at, "STATE/agents", &error))?;
        }
        let switch = Switch {
            step: Step::Installing,
            image,
            to: to.to_owned(),
            from: self.target(at)?,
            update: activation.update.to_string(),
            version: activation.version.to_owned(),
            boots: activation.trial_boots,
            starts: 0,
            why: String::new(),
        };
        self.set_switch(at, &switch)?;
        Ok((switch, true))
    }

    /// Whether this file runs on this board and says that it is an agent.
    fn is_agent(&mut self, at: usize, path: &Path) -> Result<(), BootError> {
        let settings = CommandSettings {
            command: vec![path.display().to_string(), "--version".to_owned()],
            timeout: VERSION_MAX,
        };
        let environment = self.environment(at, "", "");
        match command::run("the new agent", &settings, &environment) {
            Ok(output) if output.word(|word| (word == NAME).then_some(())).is_some() => Ok(()),
            Ok(output) => {
                let said = output.last(80);
                self.say(
                    at,
                    &std::format!("the image is not an agent; to --version it says: {said}"),
                );
                Err(BootError::NotAllowed)
            }
            Err(failed) => Err(self.command_failed(at, &failed)),
        }
    }

    fn set_switch(&mut self, at: usize, switch: &Switch) -> Result<(), BootError> {
        let set = self.parts[at].images.set_switch(switch);
        set.map_err(|error| self.failed(at, "STATE/switch", &error))?;
        self.done()
    }

    fn clear_switch(&mut self, at: usize) -> Result<(), BootError> {
        let cleared = self.parts[at].images.clear_switch();
        cleared.map_err(|error| self.failed(at, "STATE/switch", &error))?;
        self.done()
    }

    fn point_current(&mut self, at: usize, target: Option<&str>) -> Result<(), BootError> {
        let current = self.parts[at].images.current();
        let pointed = match target {
            Some(target) => durable::point(&current, target),
            None => durable::remove(&current),
        };
        pointed.map_err(|error| self.failed(at, "STATE/current", &error))?;
        self.done()
    }

    /// The digest that the configured command prints.
    fn asked_digest(
        &self,
        at: usize,
        settings: &CommandSettings,
        switch: Option<&Switch>,
    ) -> Option<Digest> {
        let (version, update) = names(switch);
        let environment = self.environment(at, version, update);
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

    /// What runs, found afresh, and how that is known.
    fn found(
        &mut self,
        at: usize,
        switch: Option<&Switch>,
    ) -> Result<Option<(Digest, DigestFrom)>, BootError> {
        let part = &self.parts[at];
        if part.rule == Rule::Agent {
            let own = launcher::own_executable();
            let digest = digest_of(&own).map_err(|error| self.failed(at, "own executable", &error));
            return Ok(digest?.map(|(digest, _)| (digest, DigestFrom::BOOTED)));
        }
        if let Some(settings) = &part.commands.running {
            let from = match part.rule {
                Rule::Child(_) => DigestFrom::READ_BACK,
                _ => DigestFrom::BOOTED,
            };
            let digest = self.asked_digest(at, settings, switch);
            return Ok(digest.map(|digest| (digest, from)));
        }
        let digest = digest_of(&part.images.current());
        let digest = digest.map_err(|error| self.failed(at, "STATE/current", &error))?;
        Ok(digest.map(|(digest, _)| (digest, DigestFrom::SLOT_FILE)))
    }

    /// What can be done about the next image, where it is bad.
    fn can_revert(&mut self, at: usize) -> Result<Revert, BootError> {
        let has_image = self.target(at)?.is_some();
        let part = &self.parts[at];
        Ok(match part.rule {
            Rule::Agent | Rule::Child(Rollback::Swap) => Revert::SWAP,
            // An installed image can only be undone by installing the one before it.
            Rule::Installed if has_image || part.commands.install.is_none() => Revert::SWAP,
            Rule::Child(Rollback::RestoreCopy) if has_image => Revert::RESTORE_COPY,
            Rule::Installed | Rule::Child(_) => Revert::NONE,
        })
    }

    /// Brings the old image back, which `current` leads to again.
    fn restore(&mut self, at: usize, switch: &Switch) -> Result<(), BootError> {
        let swaps = self.parts[at].rule == Rule::Child(Rollback::Swap);
        let done = if swaps {
            let settings = self.parts[at].commands.revert.as_ref();
            self.run(at, "revert", settings, ("", &switch.update))
        } else if switch.from.is_some() {
            self.install(at, "", &switch.update)
        } else {
            Ok(())
        };
        let part = &mut self.parts[at];
        match done {
            Ok(()) => {
                part.failures = 0;
                Ok(())
            }
            Err(failed) => {
                part.failures = part.failures.saturating_add(1);
                Err(self.command_failed(at, &failed))
            }
        }
    }

    /// A child that keeps no older image.
    fn give_up(&mut self, at: usize, switch: &Switch) -> Result<Restart, BootError> {
        // Half installed: nobody can say what runs.
        if switch.step != Step::Trial {
            self.point_current(at, None)?;
        }
        self.clear_switch(at)?;
        self.say(at, "it keeps no older image (rollback = \"none\")");
        Err(BootError::NothingToRestore)
    }
}

impl Boot for LinuxBoot {
    fn running(&mut self, component: u8, _known_size: Option<u32>) -> Result<Running, BootError> {
        let at = self.place(component)?;
        let switch = self.switch(at)?;
        let returned = matches!(&switch, Some(switch) if switch.step == Step::Returned);
        let boot_reason = match self.boot_reason {
            _ if returned => BootReason::REVERT,
            // Of the agent, not of this child.
            BootReason::UPDATE | BootReason::REVERT if component != 0 => BootReason::RESTART,
            reason => reason,
        };
        let mut running = Running {
            boot_reason,
            revert: self.can_revert(at)?,
            on_trial: switch.is_some() && !returned,
            ..Running::UNKNOWN
        };
        if let Some(Switch {
            step: Step::Installing | Step::Restoring,
            ..
        }) = &switch
        {
            running.unfinished = true;
            return Ok(running);
        }
        if let Some((digest, digest_from)) = self.found(at, switch.as_ref())? {
            running.digest = digest;
            running.digest_from = digest_from;
        }
        Ok(running)
    }

    fn activate(&mut self, activation: &Activation<'_>) -> Result<Restart, BootError> {
        let at = self.place(activation.component)?;
        self.detail.clear();
        let (mut switch, new) = self.begin(at, activation)?;
        if switch.step == Step::Installing {
            self.point_current(at, Some(&switch.to))?;
            if let Err(failed) = self.install(at, &switch.version, &switch.update) {
                if new && failed.never_ran() {
                    // Nothing has changed, and nothing has to be put back.
                    self.point_current(at, switch.from.as_deref())?;
                    self.clear_switch(at)?;
                }
                return Err(self.command_failed(at, &failed));
            }
            switch.step = Step::Trial;
            self.set_switch(at, &switch)?;
        }
        Ok(match self.parts[at].rule {
            Rule::Child(_) => Restart::NotNeeded,
            Rule::Installed | Rule::Agent => Restart::Needed,
        })
    }

    fn confirm(&mut self, component: u8) -> Result<(), BootError> {
        let at = self.place(component)?;
        self.detail.clear();
        match self.switch(at)? {
            None => return Ok(()),
            Some(switch) if switch.step == Step::Trial => self.clear_switch(at)?,
            Some(_) => return Err(BootError::NotAllowed),
        }
        if self.parts[at].rule == Rule::Child(Rollback::None) {
            let images = &self.parts[at].images;
            // Nobody will ask for the older image: its room is worth more.
            let removed = images
                .free_slot()
                .and_then(|slot| durable::remove(&images.path(slot)));
            if let Err(error) = removed {
                tracing::warn!(%error, "the older image could not be removed");
            }
        }
        Ok(())
    }

    fn revert(&mut self, component: u8) -> Result<Restart, BootError> {
        let at = self.place(component)?;
        self.detail.clear();
        let Some(mut switch) = self.switch(at)? else {
            return Ok(Restart::NotNeeded);
        };
        let rule = self.parts[at].rule;
        match rule {
            Rule::Child(Rollback::None) => return self.give_up(at, &switch),
            Rule::Agent if switch.step == Step::Returned => {
                self.clear_switch(at)?;
                self.say(at, &switch.why);
                return Ok(Restart::NotNeeded);
            }
            // A child may have been unplugged, and come back.
            Rule::Child(_) if self.parts[at].failures > 0 => {
                let wait = Duration::from_secs(1 << (self.parts[at].failures - 1).min(4));
                thread::sleep(wait.min(RETRY_MAX));
            }
            _ => {}
        }
        switch.step = Step::Restoring;
        self.set_switch(at, &switch)?;
        self.point_current(at, switch.from.as_deref())?;
        self.restore(at, &switch)?;
        let is_new = match rule {
            Rule::Agent => self.found(at, None)?.is_none_or(|(digest, _)| {
                // The launcher may have started the old one already.
                digest.to_string() == switch.image
            }),
            _ => true,
        };
        self.clear_switch(at)?;
        let keeps_old = match rule {
            Rule::Installed => self.parts[at].commands.install.is_none(),
            Rule::Agent | Rule::Child(Rollback::Swap) => true,
            Rule::Child(_) => false,
        };
        if switch.from.is_none() && !keeps_old {
            self.say(at, "what ran before the first image is not known");
            return Err(BootError::NothingToRestore);
        }
        Ok(match rule {
            Rule::Child(_) => Restart::NotNeeded,
            _ if is_new => Restart::Needed,
            _ => Restart::NotNeeded,
        })
    }

    fn self_test(&mut self, component: u8) -> SelfTest {
        self.detail.clear();
        let Ok(at) = self.place(component) else {
            return SelfTest::NOT_RUN;
        };
        let part = &self.parts[at];
        let Some(settings) = part.commands.self_test.clone() else {
            return SelfTest::NOT_RUN;
        };
        let role = match part.rule {
            Rule::Child(_) => "check",
            _ => "self_test",
        };
        let switch = part.images.switch().unwrap_or_default();
        match self.run(at, role, Some(&settings), names(switch.as_ref())) {
            Ok(()) => SelfTest::PASSED,
            Err(failed) => {
                self.command_failed(at, &failed);
                SelfTest::FAILED
            }
        }
    }

    fn restart(&mut self, why: BootReason) -> Result<(), BootError> {
        let reexec = match &self.again {
            None => {
                self.boot_reason = why;
                return Ok(());
            }
            Some(Again::Launcher) => {
                tracing::info!(%why, "ends, to be started again");
                self.texts.hand_over_log();
                std::process::exit(launcher::restart_code(why));
            }
            Some(Again::Exec(reexec)) => reexec,
        };
        tracing::info!(%why, "restarts");
        self.texts.hand_over_log();
        let error = Command::new(&reexec.program)
            .args(&reexec.arguments)
            .env(BOOT_VARIABLE, why.to_string())
            .exec();
        let program = reexec.program.display().to_string();
        self.failed(0, &program, &error);
        Err(BootError::Unsupported)
    }

    fn detail(&self) -> &str {
        &self.detail
    }

    fn keep_output(&mut self, update: &UpdateId) {
        self.texts.keep(update);
    }

    fn text(&mut self, text: Text) -> u8 {
        self.texts.take(text)
    }

    fn text_part(&self, text: Text, part: u8) -> &str {
        self.texts.part(text, part)
    }
}

fn names(switch: Option<&Switch>) -> (&str, &str) {
    switch.map_or(("", ""), |switch| (&switch.version, &switch.update))
}

fn truncate(text: &mut String) {
    let end = (0..=text.len().min(OUTBOX_DETAIL_MAX))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
}

/// SHA-256 and length of a file's bytes as they are now; `None` where there is none.
pub(super) fn digest_of(path: &Path) -> io::Result<Option<(Digest, u64)>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut hash = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; 64 << 10];
    loop {
        launcher::beat();
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

#[cfg(test)]
#[path = "children_tests.rs"]
mod children;
