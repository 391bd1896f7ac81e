//! Commands that the agent runs: each with a deadline, in a process group of its own
//! that is ended whole, with bounded output, and reaped.

use core::fmt;
use std::{
    borrow::ToOwned as _,
    ffi::OsString,
    fs,
    io::{self, PipeReader, Read as _},
    os::unix::{
        ffi::OsStrExt as _,
        process::{CommandExt as _, ExitStatusExt as _},
    },
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    string::{String, ToString as _},
    thread,
    time::{Duration, Instant},
    vec::Vec,
};

use dialhome_proto::limits::DETAIL_MAX;
use rustix::{
    event::{PollFd, PollFlags},
    process::{Pid, Signal, WaitId, WaitIdOptions},
};

use super::{config::CommandSettings, launcher};

/// Output beyond this is a runaway: the command is ended. In bytes.
const OUTPUT_MAX: u64 = 4 << 20;
/// So much of the end of the output is kept, in bytes.
const TAIL_MAX: usize = 4096;
/// So much of the output goes to the log, in bytes.
const LOGGED_MAX: u64 = 64 << 10;
/// Time between SIGTERM and SIGKILL, and for what a command left behind to end.
const GRACE: Duration = Duration::from_secs(1);
/// How often the end of a command is looked for while it prints nothing.
const GLANCE: Duration = Duration::from_millis(20);
/// Tells the agent's own next start why it was started; not for commands.
pub(super) const BOOT_VARIABLE: &str = "DIALHOME_AGENT_BOOT";

/// What a command printed at its end, standard output and error together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    tail: Vec<u8>,
    total: u64,
}

/// Why a command did not do its work.
#[derive(Debug)]
pub enum CommandError {
    /// The program is not there.
    Missing,
    /// The system did not start it.
    NotStarted(io::Error),
    /// It ended with another exit code than 0.
    Exit(i32),
    /// A signal ended it.
    Signal(i32),
    /// It ran longer than its deadline, and was ended with everything it had started.
    TimedOut(Duration),
    /// It printed more than 4 MiB, and was ended with everything it had started.
    TooMuchOutput,
    /// It ended, and left processes behind, which were ended.
    LeftProcesses(usize),
    /// Its output or its end could not be had.
    Io(io::Error),
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("is not there: install it or correct its path"),
            Self::NotStarted(error) => write!(f, "could not be started: {error}"),
            Self::Exit(code) => write!(f, "ended with code {code}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Self::TimedOut(limit) => write!(f, "ran over its {} s and was ended", limit.as_secs()),
            Self::TooMuchOutput => write!(f, "printed over {OUTPUT_MAX} bytes and was ended"),
            Self::LeftProcesses(count) => write!(
                f,
                "left {count} running in its group, now ended (start services with setsid)"
            ),
            Self::Io(error) => write!(f, "could not be watched: {error}"),
        }
    }
}

impl core::error::Error for CommandError {}

/// A command that failed, with what it had printed.
#[derive(Debug)]
pub struct CommandFailed {
    /// What it is for: `install`, `running`, `self_test`.
    pub role: &'static str,
    /// What went wrong.
    pub error: CommandError,
    /// The end of its output.
    pub output: Output,
}

impl CommandFailed {
    /// What a Report's detail says: the failure, then as much of the end of the output
    /// as fits into 200 bytes.
    #[must_use]
    pub fn detail(&self) -> String {
        self.detail_within(DETAIL_MAX)
    }

    /// Whether the program was not even started, so that it has changed nothing.
    #[must_use]
    pub const fn never_ran(&self) -> bool {
        matches!(
            self.error,
            CommandError::Missing | CommandError::NotStarted(_)
        )
    }

    /// The same in at most `len` bytes.
    #[must_use]
    pub fn detail_within(&self, len: usize) -> String {
        let mut text = std::format!("{} {}", self.role, self.error);
        truncate(&mut text, len);
        let room = len.saturating_sub(text.len() + 2);
        let tail = self.output.last(room);
        if !tail.is_empty() {
            text.push_str(": ");
            text.push_str(&tail);
        }
        text
    }
}

impl fmt::Display for CommandFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command `{}` {}", self.role, self.error)
    }
}

impl core::error::Error for CommandFailed {}

/// Shortens to at most `len` bytes, at a character's border.
fn truncate(text: &mut String, len: usize) {
    let mut end = len.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

impl Output {
    /// The end of the output, at most `len` bytes of UTF-8, without control characters.
    #[must_use]
    pub fn last(&self, len: usize) -> String {
        let text = String::from_utf8_lossy(&self.tail);
        let text: String = text
            .trim()
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let mut start = text.len().saturating_sub(len);
        while !text.is_char_boundary(start) {
            start += 1;
        }
        text[start..].to_owned()
    }

    /// The kept output with its line feeds, without other control characters.
    #[must_use]
    pub fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.tail);
        text.chars()
            .map(|c| if c.is_control() && c != '\n' { ' ' } else { c })
            .collect()
    }

    /// The first word of the kept output that `accept` takes.
    pub(super) fn word<T>(&self, accept: impl FnMut(&str) -> Option<T>) -> Option<T> {
        String::from_utf8_lossy(&self.tail)
            .split_whitespace()
            .find_map(accept)
    }

    fn add(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        self.tail.extend_from_slice(bytes);
        let surplus = self.tail.len().saturating_sub(TAIL_MAX);
        self.tail.drain(..surplus);
    }
}

/// Runs the command and waits for its end. It gets no input, `environment` on top of
/// the agent's own, and a process group of its own.
///
/// # Errors
/// [`CommandFailed`]. In every case no process of its group runs any more and the
/// command is reaped.
pub fn run(
    role: &'static str,
    settings: &CommandSettings,
    environment: &[(&'static str, OsString)],
) -> Result<Output, CommandFailed> {
    let mut output = Output::default();
    let ended = watch(role, settings, environment, &mut output);
    if output.total > LOGGED_MAX {
        tracing::info!(role, bytes = output.total, "more output than the log takes");
    }
    match ended {
        Ok(()) => Ok(output),
        Err(error) => Err(CommandFailed {
            role,
            error,
            output,
        }),
    }
}

fn watch(
    role: &'static str,
    settings: &CommandSettings,
    environment: &[(&'static str, OsString)],
    output: &mut Output,
) -> Result<(), CommandError> {
    let (program, arguments) = settings
        .command
        .split_first()
        .ok_or(CommandError::Missing)?;
    let (reader, writer) = io::pipe().map_err(CommandError::NotStarted)?;
    rustix::io::ioctl_fionbio(&reader, true).map_err(|errno| CommandError::Io(errno.into()))?;
    tracing::info!(role, %program, ?arguments, "command starts");
    let child = {
        let both = writer.try_clone().map_err(CommandError::NotStarted)?;
        // Dropped with the block: only the command holds the writing ends afterwards.
        let mut command = Command::new(program);
        command
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .env_remove(BOOT_VARIABLE)
            .env_remove(launcher::VARIABLE)
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(both)
            .process_group(0);
        command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => CommandError::Missing,
            _ => CommandError::NotStarted(error),
        })?
    };
    let mut group = Group::new(child);
    let mut pipe = Some(reader);
    let deadline = Instant::now() + settings.timeout;
    loop {
        launcher::beat();
        read(role, &mut pipe, output).map_err(CommandError::Io)?;
        if group.leader_ended().map_err(CommandError::Io)? {
            break;
        }
        if output.total > OUTPUT_MAX {
            return Err(CommandError::TooMuchOutput);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(CommandError::TimedOut(settings.timeout));
        }
        wait(pipe.as_ref(), left.min(GLANCE)).map_err(CommandError::Io)?;
    }
    // What it printed last is in the pipe by now.
    read(role, &mut pipe, output).map_err(CommandError::Io)?;
    let left = group.wait_empty(GRACE);
    let status = group.end().map_err(CommandError::Io)?;
    if let Some(signal) = status.signal() {
        return Err(CommandError::Signal(signal));
    }
    match status.code() {
        Some(0) if left > 0 => Err(CommandError::LeftProcesses(left)),
        Some(0) => Ok(()),
        code => Err(CommandError::Exit(code.unwrap_or(-1))),
    }
}

/// Takes what is in the pipe now; drops the pipe at its end.
fn read(role: &str, pipe: &mut Option<PipeReader>, output: &mut Output) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    // Bounded: a command that prints without pause must not hold up the deadline.
    for _ in 0..16 {
        let Some(reader) = pipe else { return Ok(()) };
        match reader.read(&mut buffer) {
            Ok(0) => *pipe = None,
            Ok(len) => {
                if output.total < LOGGED_MAX {
                    for line in String::from_utf8_lossy(&buffer[..len]).lines() {
                        tracing::info!(role, "{line}");
                    }
                }
                output.add(&buffer[..len]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Waits until the pipe has something, at most `time`.
fn wait(pipe: Option<&PipeReader>, time: Duration) -> io::Result<()> {
    let Some(pipe) = pipe else {
        thread::sleep(time);
        return Ok(());
    };
    let time = rustix::event::Timespec::try_from(time).map_err(io::Error::other)?;
    match rustix::event::poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&time)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// The process group of a command. Dropping it ends and reaps what is left.
struct Group {
    child: Child,
    /// The group's number, which is the leader's; it stays taken until that is reaped.
    id: Pid,
    reaped: bool,
}

impl Group {
    fn new(child: Child) -> Self {
        let id = Pid::from_child(&child);
        Self {
            child,
            id,
            reaped: false,
        }
    }

    /// Whether the command itself has ended; it is not reaped by this.
    fn leader_ended(&self) -> io::Result<bool> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(rustix::process::waitid(WaitId::Pid(self.id), options)?.is_some())
    }

    /// Waits until nothing of the group runs, and returns how many still do.
    fn wait_empty(&self, time: Duration) -> usize {
        let end = Instant::now() + time;
        loop {
            let count = running_in(self.id);
            if count == 0 || Instant::now() >= end {
                return count;
            }
            thread::sleep(GLANCE);
        }
    }

    /// Ends what is left of the group and reaps the command.
    fn end(&mut self) -> io::Result<ExitStatus> {
        // To a group that is gone these do nothing: its number is not free yet.
        let _ = rustix::process::kill_process_group(self.id, Signal::TERM);
        self.wait_empty(GRACE);
        let _ = rustix::process::kill_process_group(self.id, Signal::KILL);
        self.wait_empty(GRACE);
        let status = self.child.wait()?;
        self.reaped = true;
        Ok(status)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = self.end();
        }
    }
}

/// Tells the processes of one agent's commands from others; in their environment.
pub(super) const STATE_VARIABLE: &str = "DIALHOME_STATE";

/// Ends what commands of an agent that was killed left running, so that no installation
/// meets one that still goes on. Services that left for a session of their own stay.
/// Returns how many there were.
pub(super) fn end_orphans(state: &Path) -> usize {
    let orphans = orphans_of(state);
    for pid in &orphans {
        // Gone meanwhile is as good.
        let _ = rustix::process::kill_process(*pid, Signal::KILL);
    }
    let end = Instant::now() + GRACE;
    while !orphans_of(state).is_empty() && Instant::now() < end {
        thread::sleep(GLANCE);
    }
    orphans.len()
}

fn orphans_of(state: &Path) -> Vec<Pid> {
    let mut mark = STATE_VARIABLE.as_bytes().to_owned();
    mark.push(b'=');
    mark.extend_from_slice(state.as_os_str().as_bytes());
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    // An agent that is itself started by a command of this state directory.
    let own = rustix::process::getpid().as_raw_nonzero().to_string();
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_str() != Some(&*own))
        .filter(|entry| {
            // Zombies have no environment any more.
            fs::read(entry.path().join("environ"))
                .is_ok_and(|all| all.split(|byte| *byte == 0).any(|one| one == mark))
                && fs::read_to_string(entry.path().join("stat"))
                    .is_ok_and(|stat| !leads_a_session(&stat))
        })
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .collect()
}

/// Whether `/proc/N/stat` is of a process whose group is its session's first: a service
/// that detached itself. A command's group is one of several in the agent's session.
fn leads_a_session(stat: &str) -> bool {
    let Some((_, rest)) = stat.rsplit_once(')') else {
        return true;
    };
    let mut fields = rest.split_ascii_whitespace().skip(2);
    fields.next() == fields.next()
}

/// How many processes of the group run: zombies, which only wait for init, do not count.
fn running_in(group: Pid) -> usize {
    let Ok(entries) = fs::read_dir("/proc") else {
        return 0;
    };
    let group = group.as_raw_nonzero().get();
    entries
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .to_str()
                .is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        })
        .filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok())
        .filter(|stat| is_running_in(stat, group))
        .count()
}

/// Reads `/proc/N/stat`: after the name in brackets come state, parent and group.
fn is_running_in(stat: &str, group: i32) -> bool {
    let Some((_, rest)) = stat.rsplit_once(')') else {
        return false;
    };
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next();
    let in_group = fields.nth(1).and_then(|text| text.parse().ok()) == Some(group);
    in_group && !matches!(state, Some("Z" | "X"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{format, vec};

    fn shell(script: &str, timeout_ms: u64) -> Result<Output, CommandFailed> {
        let settings = CommandSettings {
            command: vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()],
            timeout: Duration::from_millis(timeout_ms),
        };
        run("install", &settings, &[("DIALHOME_COMPONENT", "0".into())])
    }

    /// Generous, for commands that are to end by themselves.
    const LONG: u64 = 120_000;

    /// Whether the process in this file runs (a zombie does not).
    fn runs(file: &Path) -> bool {
        let pid = fs::read_to_string(file).unwrap();
        fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
            .is_ok_and(|stat| !stat.contains(") Z "))
    }

    #[test]
    fn a_command_gets_its_environment_and_its_output_is_kept() {
        let output = shell("echo $DIALHOME_COMPONENT; echo two >&2; cat", LONG).unwrap();
        assert_eq!(output.last(200), "0 two");
    }

    #[test]
    fn the_agents_own_variable_is_not_passed_on() {
        let output = shell(&format!("echo \"[${BOOT_VARIABLE}]\""), LONG).unwrap();
        assert_eq!(output.last(200), "[]");
    }

    #[test]
    fn a_missing_command_is_named() {
        let settings = CommandSettings {
            command: vec!["/nonexistent/tool".to_owned()],
            timeout: Duration::from_secs(5),
        };
        let failed = run("install", &settings, &[]).unwrap_err();
        assert!(matches!(failed.error, CommandError::Missing));
        assert!(
            failed.detail().starts_with("install is not there"),
            "{}",
            failed.detail()
        );
    }

    #[test]
    fn a_file_that_is_no_program_is_named() {
        let settings = CommandSettings {
            command: vec!["/etc/passwd".to_owned()],
            timeout: Duration::from_secs(5),
        };
        let failed = run("install", &settings, &[]).unwrap_err();
        assert!(
            matches!(failed.error, CommandError::NotStarted(_)),
            "{failed}"
        );
    }

    #[test]
    fn an_exit_code_comes_with_the_end_of_the_output() {
        let failed =
            shell("echo avrdude: verification error, byte 0x12; exit 3", LONG).unwrap_err();
        assert!(matches!(failed.error, CommandError::Exit(3)));
        assert_eq!(
            failed.detail(),
            "install ended with code 3: avrdude: verification error, byte 0x12"
        );
        let failed = shell("kill -9 $$", LONG).unwrap_err();
        assert!(matches!(failed.error, CommandError::Signal(9)));
    }

    #[test]
    fn a_detail_has_at_most_200_bytes_and_whole_characters() {
        let failed = shell(
            "i=0; while [ $i -lt 300 ]; do printf ä; i=$((i+1)); done; exit 1",
            LONG,
        )
        .unwrap_err();
        let detail = failed.detail();
        assert!(
            detail.len() <= 200 && detail.len() > 195,
            "{}",
            detail.len()
        );
        assert!(detail.ends_with("ää"));
    }

    #[test]
    fn a_hang_is_ended_with_everything_that_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let child = dir.path().join("child");
        let script = format!(
            "trap '' TERM; sleep 1000 & echo $! > {0}; echo waiting; wait; sleep 1000",
            child.display()
        );
        let failed = shell(&script, 1500).unwrap_err();
        assert!(
            matches!(failed.error, CommandError::TimedOut(_)),
            "{failed}"
        );
        assert!(
            failed.detail().ends_with(": waiting"),
            "{}",
            failed.detail()
        );
        assert!(!runs(&child));
    }

    #[test]
    fn a_command_that_closes_its_output_and_hangs_is_ended() {
        let failed = shell("exec >&- 2>&-; sleep 1000", 300).unwrap_err();
        assert!(
            matches!(failed.error, CommandError::TimedOut(_)),
            "{failed}"
        );
    }

    #[test]
    fn endless_output_is_ended() {
        let failed = shell("yes", LONG).unwrap_err();
        assert!(
            matches!(failed.error, CommandError::TooMuchOutput),
            "{failed}"
        );
        assert!(failed.output.tail.len() <= TAIL_MAX);
        assert!(failed.output.total > OUTPUT_MAX);
    }

    #[test]
    fn megabytes_of_output_are_taken() {
        let output = shell("head -c 3000000 /dev/zero | tr '\\0' x; echo end", LONG).unwrap();
        assert_eq!(output.total, 3_000_004);
        assert!(output.last(10).ends_with("end"));
    }

    #[test]
    fn processes_left_behind_are_named_and_ended() {
        let dir = tempfile::tempdir().unwrap();
        let child = dir.path().join("child");
        let script = format!("sleep 1000 & echo $! > {}; echo done", child.display());
        let failed = shell(&script, LONG).unwrap_err();
        assert!(
            matches!(failed.error, CommandError::LeftProcesses(1)),
            "{failed}"
        );
        assert!(!runs(&child));
    }

    #[test]
    fn what_ends_soon_after_the_command_is_not_left_behind() {
        shell("sleep 0.1 & true", LONG).unwrap();
    }

    #[test]
    fn what_a_killed_agent_left_running_is_ended_and_services_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let start = |program: &[&str], state: &Path| {
            let mut command = Command::new(program[0]);
            command
                .args(&program[1..])
                .env(STATE_VARIABLE, state)
                .process_group(0);
            command.spawn().unwrap()
        };
        let mut orphan = start(&["/bin/sleep", "1000"], dir.path());
        let mut other = start(&["/bin/sleep", "1000"], Path::new("/other"));
        let mut service = start(&["/usr/bin/setsid", "-w", "/bin/sleep", "1000"], dir.path());
        // setsid forks where it leads its group; the child is the service.
        let detached = |parent: u32| {
            let list =
                fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
            let child = list.split_whitespace().next()?.to_owned();
            let stat = fs::read_to_string(format!("/proc/{child}/stat")).ok()?;
            (leads_a_session(&stat) && stat.contains("(sleep)")).then_some(child)
        };
        let end = Instant::now() + Duration::from_secs(60);
        let child = loop {
            if let Some(child) = detached(service.id()) {
                break child;
            }
            assert!(Instant::now() < end, "setsid has not started the service");
            thread::sleep(GLANCE);
        };
        // The orphan, and setsid's own waiting process.
        assert_eq!(end_orphans(dir.path()), 2);
        assert_eq!(orphan.wait().unwrap().signal(), Some(9));
        service.wait().unwrap();
        assert!(Path::new("/proc").join(&child).exists());
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
        let child = Pid::from_raw(child.parse().unwrap()).unwrap();
        rustix::process::kill_process(child, Signal::KILL).unwrap();
    }

    #[test]
    fn every_child_is_reaped() {
        for script in ["true", "exit 1", "sleep 1000 & true"] {
            let _ = shell(script, LONG);
        }
        let me = std::process::id().to_string();
        let zombies: Vec<_> = fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok())
            .filter(|stat| {
                let mut fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
                fields.next() == Some("Z") && fields.next() == Some(&me)
            })
            // Other tests of this process may have one at just this moment.
            .filter(|stat| {
                let pid = stat.split(' ').next().unwrap();
                let end = Instant::now() + Duration::from_secs(30);
                while Path::new("/proc").join(pid).exists() && Instant::now() < end {
                    thread::sleep(GLANCE);
                }
                Path::new("/proc").join(pid).exists()
            })
            .collect();
        assert!(zombies.is_empty(), "{zombies:?}");
    }
}
