//! The launcher of an agent that updates itself: the installed executable, which starts the
//! image behind `current` and stays its parent. It starts itself instead where there is none,
//! or one that is not marked as an agent (`switch.rs`): an image that component 0 had
//! before it was the agent, or a damaged file.
//!
//! It counts the starts of an image on trial before each of them, and puts the old one back
//! where the new one cannot be executed, ends more often than its trial allows, or gives no
//! sign of life for [`Launcher::open`]'s time. A sign of life is a byte on the agent's
//! standard output, written while its loop turns and while it waits for a command. What it
//! cannot see is an agent that turns and never dials: that one's own trial budget ends it.
//!
//! An image that is settled and ends by itself ends the launcher, with its exit code: who
//! started the launcher starts it again. One that cannot be executed any more is replaced by
//! the launcher's own executable, until the next update.

use std::{
    borrow::ToOwned as _,
    ffi::OsString,
    format,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    string::{String, ToString as _},
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
    vec::Vec,
};

use dialhome_proto::code::BootReason;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal},
};

use super::{
    command::BOOT_VARIABLE,
    durable,
    signals::Signals,
    state::{State, StateError},
    switch::{Images, Step, Switch},
};

/// Tells an agent that a launcher has started it, and which: its process number.
pub(super) const VARIABLE: &str = "DIALHOME_AGENT_LAUNCHER";
/// A sign of life.
const BEAT: u8 = 6;
/// Least time between two of them, in milliseconds.
const BEAT_MS: u128 = 200;
/// An agent that ends with this and a boot reason's number wants to be started again.
const RESTART_CODE: i32 = 200;
/// Wait before an agent that ran only shortly is started again; doubles each time.
const PAUSE: Duration = Duration::from_millis(250);
/// The longest.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// An agent that ran for so long did not run shortly.
const SHORT: Duration = Duration::from_secs(10);
/// An agent that was asked to end is ended where it gives no sign of life for so long: less
/// than the 30 s after which the init system ends everything. One that waits for a command
/// does give them, and has as long as the init system leaves to it.
const STOP_MAX: Duration = Duration::from_secs(25);
/// How often the end of an agent is looked for where the system cannot tell (Linux before 5.3).
const GLANCE: Duration = Duration::from_millis(500);
/// A wait without a deadline.
const FOREVER: Duration = Duration::from_secs(3600);

/// Whether this process has a launcher, and from which time on it writes to it again, in
/// [`BEAT_MS`] since the first time (some processors have no wider atomic).
static LAUNCHED: AtomicBool = AtomicBool::new(false);
static START: OnceLock<Instant> = OnceLock::new();
static NEXT_BEAT: AtomicU32 = AtomicU32::new(0);

/// Whether a launcher has started this process. If so, the process ends with it from now on.
///
/// # Errors
/// It has, and is gone already: this process must end, for another launcher may have begun.
pub fn is_launched() -> io::Result<bool> {
    let Ok(told) = std::env::var(VARIABLE) else {
        return Ok(false);
    };
    // As in a power cut: a second agent on the same state directory would be worse.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().to_string());
    if parent.as_ref() != Some(&told) {
        return Err(io::Error::other("its launcher is gone"));
    }
    LAUNCHED.store(true, Ordering::Relaxed);
    Ok(true)
}

/// Tells the launcher, where there is one, that this process is not stuck.
pub(super) fn beat() {
    if !LAUNCHED.load(Ordering::Relaxed) {
        return;
    }
    let since = START.get_or_init(Instant::now).elapsed();
    let turn = u32::try_from(since.as_millis() / BEAT_MS).unwrap_or(u32::MAX);
    if turn >= NEXT_BEAT.load(Ordering::Relaxed) {
        NEXT_BEAT.store(turn.saturating_add(1), Ordering::Relaxed);
        let mut out = io::stdout();
        // A launcher that is gone takes this process with it.
        let _ = out.write_all(&[BEAT]).and_then(|()| out.flush());
    }
}

/// The executable that runs, whatever its name is now.
pub(super) fn own_executable() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}

/// The exit code by which an agent asks its launcher for another start.
pub(super) fn restart_code(why: BootReason) -> i32 {
    RESTART_CODE + i32::from(why.0)
}

fn restart_wanted(status: ExitStatus) -> Option<BootReason> {
    let code = status.code()?.checked_sub(RESTART_CODE)?;
    let reason = BootReason(u8::try_from(code).ok()?);
    [BootReason::UPDATE, BootReason::REVERT, BootReason::RESTART]
        .contains(&reason)
        .then_some(reason)
}

/// What keeps the agent's executables in order.
#[derive(Debug)]
pub struct Launcher {
    images: Images,
    /// This process's own executable and arguments.
    own: PathBuf,
    arguments: Vec<OsString>,
    /// The longest silence of an agent on trial.
    silence: Duration,
    signals: Signals,
    /// The update on trial.
    trial: String,
    /// Starts of its image, where they cannot be stored.
    starts: u8,
    /// How the last start of it ended.
    why: String,
    /// Another start of it would end the same way.
    hopeless: bool,
    _locked: State,
}

/// The image to start.
struct Choice {
    program: PathBuf,
    on_trial: bool,
}

/// How a start ended.
enum End {
    /// Not executed at all.
    NotStarted(io::Error),
    /// It ended by itself, or was asked to.
    Ended(ExitStatus),
    /// It gave no sign of life, and was ended.
    Silent,
}

impl Launcher {
    /// Takes the state directory. An agent on trial is ended where it gives no sign of life
    /// for `silence`.
    ///
    /// # Errors
    /// Another agent uses the directory, or it is not usable.
    pub fn open(
        state: &Path,
        own: PathBuf,
        arguments: Vec<OsString>,
        silence: Duration,
        signals: Signals,
    ) -> Result<Self, StateError> {
        let state = State::open(state)?;
        Ok(Self {
            images: Images::new(state.dir()),
            own,
            arguments,
            silence,
            signals,
            trial: String::new(),
            starts: 0,
            why: String::new(),
            hopeless: false,
            _locked: state,
        })
    }

    /// Starts agents until one ends that is settled, or until a signal asks for the end.
    /// Returns the exit code.
    pub fn run(mut self) -> u8 {
        let mut reason = None;
        let mut pause = PAUSE;
        loop {
            // Before the next start is counted.
            if self.signals.stop() {
                return 0;
            }
            let mut choice = self.choose();
            let start = Instant::now();
            let mut end = self.start(&choice, reason.take());
            // It may have been confirmed, or have gone back, meanwhile.
            choice.on_trial = choice.on_trial && self.is_on_trial();
            if let End::NotStarted(error) = &end
                && !choice.on_trial
                && choice.program != self.own
            {
                tracing::error!(%error, "the installed agent cannot be executed; the launcher's own runs instead");
                choice.program.clone_from(&self.own);
                end = self.start(&choice, None);
            }
            if self.signals.stop() {
                return match end {
                    End::Ended(status) => exit_code(status),
                    End::NotStarted(_) | End::Silent => 0,
                };
            }
            match end {
                End::Ended(status) if restart_wanted(status).is_some() => {
                    reason = restart_wanted(status);
                    pause = PAUSE;
                }
                End::Ended(status) if !choice.on_trial => return exit_code(status),
                End::NotStarted(error) if !choice.on_trial => {
                    tracing::error!(%error, "no agent can be executed");
                    return 1;
                }
                End::Ended(status) => self.note(format!("ended by itself, {status}")),
                End::Silent => self.note(format!(
                    "gave no sign of life for {} s",
                    self.silence.as_secs()
                )),
                End::NotStarted(error) => {
                    self.hopeless = never(&error);
                    self.note(format!("cannot be executed: {error}"));
                }
            }
            if start.elapsed() >= SHORT {
                pause = PAUSE;
            }
            self.rest(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// No image is on trial.
    fn forget(&mut self) {
        (self.starts, self.hopeless) = (0, false);
        self.trial.clear();
        self.why.clear();
    }

    fn note(&mut self, why: String) {
        tracing::warn!(start = self.starts, "the new agent {why}");
        self.why = format!("the new agent {why}");
    }

    fn rest(&self, time: Duration) {
        let wake = self.signals.wake();
        let time = Timespec::try_from(time).unwrap_or_default();
        let _ = poll(&mut [PollFd::new(&wake, PollFlags::IN)], Some(&time));
    }

    /// What `current` leads to where that is an agent, or this executable.
    fn installed(&self, target: Option<&str>) -> PathBuf {
        match target {
            Some(target) if self.is_agent(target) => self.images.path(target),
            Some(target) => {
                tracing::error!(
                    target,
                    "the installed image was not installed as an agent, or is damaged; the launcher's own executable runs instead"
                );
                self.own.clone()
            }
            None => self.own.clone(),
        }
    }

    fn is_agent(&self, target: &str) -> bool {
        self.images.is_agent(target).unwrap_or_else(|error| {
            tracing::error!(target, %error, "the image cannot be looked at");
            false
        })
    }

    fn is_on_trial(&self) -> bool {
        let switch = self.images.switch().ok().flatten();
        switch.is_some_and(|switch| switch.step == Step::Trial)
    }

    fn choose(&mut self) -> Choice {
        let switch = self.images.switch().unwrap_or_else(|error| {
            tracing::error!(%error, "STATE/switch");
            None
        });
        let settled = |program| Choice {
            program,
            on_trial: false,
        };
        let Some(mut switch) = switch else {
            self.forget();
            let target = self.images.target().unwrap_or_else(|error| {
                tracing::error!(%error, "STATE/current");
                None
            });
            return settled(self.installed(target.as_deref()));
        };
        match switch.step {
            // The old agent goes on with what was cut.
            Step::Installing | Step::Restoring | Step::Returned => {
                self.forget();
                settled(self.installed(switch.from.as_deref()))
            }
            Step::Trial => {
                if self.trial != switch.update {
                    self.forget();
                    self.trial.clone_from(&switch.update);
                }
                self.starts = self.starts.max(switch.starts);
                if !self.hopeless && !self.is_agent(&switch.to) {
                    self.hopeless = true;
                    self.note("was not installed as an agent, or is damaged".to_owned());
                }
                if self.hopeless || self.starts >= switch.boots {
                    if self.go_back(&mut switch) {
                        self.forget();
                    }
                    return settled(self.installed(switch.from.as_deref()));
                }
                self.starts += 1;
                switch.starts = self.starts;
                if let Err(error) = self.images.set_switch(&switch) {
                    tracing::error!(%error, "STATE/switch");
                }
                Choice {
                    program: self.images.path(&switch.to),
                    on_trial: true,
                }
            }
        }
    }

    /// Puts the old agent back, and returns whether that is durable. A cut before the last
    /// step is one in the trial, and this is done again.
    fn go_back(&self, switch: &mut Switch) -> bool {
        tracing::warn!(image = %switch.image, "puts the old agent back");
        let current = self.images.current();
        switch.step = Step::Returned;
        switch.starts = self.starts;
        switch.why = match &*self.why {
            "" => format!("{} starts did not end in a confirmation", self.starts),
            why if self.hopeless => why.to_owned(),
            why => format!("{why}, in start {} of {}", self.starts, switch.boots),
        };
        let back = match switch.from.as_deref() {
            Some(target) => durable::point(&current, target),
            None => durable::remove(&current),
        };
        let stored = back.and_then(|()| self.images.set_switch(switch));
        if let Err(error) = &stored {
            tracing::error!(%error, "the old agent runs, and it cannot be stored that it does");
        }
        stored.is_ok()
    }

    fn start(&self, choice: &Choice, reason: Option<BootReason>) -> End {
        tracing::info!(program = %choice.program.display(), on_trial = choice.on_trial, "starts the agent");
        let mut command = Command::new(&choice.program);
        command
            .args(&self.arguments)
            .env(VARIABLE, std::process::id().to_string())
            .env_remove(BOOT_VARIABLE)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // A signal from a terminal reaches it once, from here.
            .process_group(0);
        if let Some(reason) = reason {
            command.env(BOOT_VARIABLE, reason.to_string());
        }
        match command.spawn() {
            Ok(child) => self.watch(child, choice.on_trial),
            Err(error) => End::NotStarted(error),
        }
    }

    /// Waits for the end of an agent.
    fn watch(&self, mut child: Child, mut on_trial: bool) -> End {
        let pid = Pid::from_child(&child);
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok();
        let mut output = child.stdout.take();
        if let Some(output) = &output {
            // Read as far as there is something.
            let _ = rustix::io::ioctl_fionbio(output, true);
        }
        let mut heard = Instant::now();
        let mut asked = false;
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return End::Ended(status),
                Ok(None) => {}
                // Nobody else waits for it.
                Err(error) => return End::NotStarted(error),
            }
            if self.signals.stop() && !asked {
                asked = true;
                heard = Instant::now();
                let _ = rustix::process::kill_process(pid, Signal::TERM);
            }
            if hears(&mut output) {
                heard = Instant::now();
            }
            let limit = match (asked, on_trial) {
                (true, _) => self.silence.min(STOP_MAX),
                (false, true) => self.silence,
                (false, false) => FOREVER,
            };
            let left = limit.saturating_sub(heard.elapsed());
            if left.is_zero() && !asked && !self.is_on_trial() {
                on_trial = false;
            } else if left.is_zero() {
                tracing::warn!(
                    silent_s = limit.as_secs(),
                    asked,
                    "ends an agent that gives no sign of life"
                );
                // With what it started in its own group; commands are found by the next agent.
                let _ = rustix::process::kill_process_group(pid, Signal::KILL);
                let _ = child.kill();
                let _ = child.wait();
                return End::Silent;
            }
            let glance = if pidfd.is_some() { FOREVER } else { GLANCE };
            self.signals.clear_wake();
            if !self.signals.stop() || asked {
                wait(
                    &self.signals,
                    pidfd.as_ref(),
                    output.as_ref(),
                    left.min(glance),
                );
            }
        }
    }
}

/// Takes what the agent wrote; whether a sign of life was among it.
fn hears(output: &mut Option<ChildStdout>) -> bool {
    let mut alive = false;
    let mut bytes = [0; 512];
    // Bounded: one that writes without pause must not hold up the deadline.
    for _ in 0..64 {
        let Some(from) = output else { break };
        match from.read(&mut bytes) {
            Ok(0) => *output = None,
            Ok(len) => alive |= bytes[..len].contains(&BEAT),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    alive
}

fn wait(signals: &Signals, pidfd: Option<&OwnedFd>, output: Option<&ChildStdout>, time: Duration) {
    let wake = signals.wake();
    let mut all = std::vec![PollFd::new(&wake, PollFlags::IN)];
    all.extend(pidfd.map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)));
    all.extend(output.map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)));
    let limit = Timespec::try_from(time).unwrap_or_default();
    if let Err(errno) = poll(&mut all, Some(&limit))
        && errno != rustix::io::Errno::INTR
    {
        thread::sleep(time.min(GLANCE));
    }
}

/// Whether another start would fail as well: no program of this machine, or none at all.
fn never(error: &io::Error) -> bool {
    use io::ErrorKind::{NotFound, PermissionDenied};
    let errno = error.raw_os_error();
    matches!(error.kind(), NotFound | PermissionDenied)
        || errno == Some(rustix::io::Errno::NOEXEC.raw_os_error())
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
