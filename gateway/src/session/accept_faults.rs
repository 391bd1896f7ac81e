//! What is said when the system gives no connection: once a minute at most, and in `dialhome status`.

use crate::admin;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often the log says it again, and how long `dialhome status` shows it.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Faults of accepting connections.
#[derive(Debug, Default)]
pub(super) struct AcceptFaults(Mutex<Faults>);

#[derive(Debug, Default)]
struct Faults {
    count: u64,
    last: Option<(Instant, String)>,
    said: Option<(Instant, u64)>,
}

impl AcceptFaults {
    fn faults(&self) -> std::sync::MutexGuard<'_, Faults> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one, and says it in the log where a minute has passed since the last word.
    pub(super) fn add(&self, error: &io::Error) {
        let mut faults = self.faults();
        let now = Instant::now();
        faults.count += 1;
        let problem = sentence(error);
        let due = faults
            .said
            .is_none_or(|(at, _)| now.duration_since(at) >= SAY_EVERY);
        if due {
            let since = faults.count - faults.said.map_or(0, |(_, count)| count);
            faults.said = Some((now, faults.count));
            tracing::error!(failures = since, "{problem}");
        }
        faults.last = Some((now, problem));
    }

    /// How often since the start.
    pub(super) fn count(&self) -> u64 {
        self.faults().count
    }

    /// Why, if it was within the last minute.
    pub(super) fn problem(&self) -> Option<String> {
        let faults = self.faults();
        let (at, problem) = faults.last.as_ref()?;
        (at.elapsed() < SAY_EVERY).then(|| problem.clone())
    }
}

/// Whether the process, or the system, has no file left to open.
pub(super) fn no_files(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE]
        .iter()
        .any(|none| number == Some(none.raw_os_error()))
}

fn sentence(error: &io::Error) -> String {
    if no_files(error) {
        let files = admin::open_files();
        return format!(
            "Boards cannot connect: {} of {} files are open. What is connected goes on. Start the gateway with a higher `ulimit -n` (LimitNOFILE= under systemd).",
            files.used, files.limit
        );
    }
    format!("Boards cannot connect: {error}. What is connected goes on, and it is tried again.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_on_files_is_named_and_counted_and_other_faults_are_said_as_they_are() {
        let faults = AcceptFaults::default();
        assert_eq!(faults.problem(), None);
        let none = io::Error::from(rustix::io::Errno::MFILE);
        faults.add(&none);
        faults.add(&none);
        assert_eq!(faults.count(), 2);
        assert!(faults.problem().unwrap().contains("ulimit -n"));
        let other = io::Error::from(rustix::io::Errno::PERM);
        faults.add(&other);
        assert!(!faults.problem().unwrap().contains("ulimit"));
    }
}
