//! The newest lines of the agent's log, in memory, for whoever asks over the session
//! (spec/protocol.md section 12.2). The lines of commands are among them: the agent logs
//! what they print.

use std::{
    borrow::ToOwned as _,
    boxed::Box,
    collections::VecDeque,
    io,
    string::String,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    vec::Vec,
};

use tracing_subscriber::fmt::MakeWriter;

/// So much is kept, in bytes: a little more than an answer can hold.
const KEPT_MAX: usize = 8 << 10;
/// A line is cut to so much, in bytes.
const LINE_MAX: usize = 700;
/// What stands in the place of a line that holds a secret.
const HIDDEN: &str = "(a line with a secret in it)";

/// The lines, shared between the log's layer and the board.
#[derive(Clone, Debug, Default)]
pub struct LogRing(Arc<Mutex<Ring>>);

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<Box<str>>,
    bytes: usize,
    secrets: Secrets,
}

/// Words that go nowhere: not into the log that can be asked for, nor into the output that
/// goes with an outcome.
#[derive(Clone, Default)]
pub struct Secrets(Vec<Box<str>>);

impl core::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Secrets(..)")
    }
}

impl Secrets {
    /// These bytes as hexadecimal digits, as a provisioning file has them.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        let digits = key.iter().map(|byte| std::format!("{byte:02x}"));
        Self(Vec::from([digits.collect::<String>().into_boxed_str()]))
    }

    /// The line, or what stands in its place.
    pub(super) fn hide<'l>(&self, line: &'l str) -> &'l str {
        let lower = line.to_ascii_lowercase();
        if self.0.iter().any(|secret| lower.contains(&**secret)) {
            HIDDEN
        } else {
            line
        }
    }
}

impl LogRing {
    /// Lines with one of these are not kept.
    pub fn keep_secret(&self, secrets: Secrets) {
        self.ring().secrets = secrets;
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest lines, at most so many and with at most so many bytes, oldest first.
    #[must_use]
    pub fn last(&self, lines: usize, bytes: usize) -> String {
        let ring = self.ring();
        let mut from = ring.lines.len();
        let mut total = 0;
        for line in ring.lines.iter().rev().take(lines) {
            total += line.len() + 1;
            if total > bytes {
                break;
            }
            from -= 1;
        }
        let mut text = String::new();
        for line in ring.lines.iter().skip(from) {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    /// Puts the lines of the process before this one in front.
    pub(super) fn continue_from(&self, text: &str) {
        let newer = self.last(usize::MAX, usize::MAX);
        {
            let mut ring = self.ring();
            ring.lines.clear();
            ring.bytes = 0;
        }
        self.add(text);
        self.add(&newer);
    }

    fn add(&self, text: &str) {
        let mut ring = self.ring();
        for line in text.lines() {
            let line = dialhome_proto::clipped(ring.secrets.hide(line), LINE_MAX).to_owned();
            ring.bytes += line.len() + 1;
            ring.lines.push_back(line.into_boxed_str());
        }
        while ring.bytes > KEPT_MAX {
            let Some(oldest) = ring.lines.pop_front() else {
                break;
            };
            ring.bytes -= oldest.len() + 1;
        }
    }
}

/// One event on its way into the ring.
#[derive(Debug)]
pub struct Line<'r>(&'r LogRing);

impl io::Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.add(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'r> MakeWriter<'r> for LogRing {
    type Writer = Line<'r>;

    fn make_writer(&'r self) -> Line<'r> {
        Line(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn the_newest_lines_are_kept_within_the_bound_and_given_oldest_first() {
        let ring = LogRing::default();
        assert_eq!(ring.last(10, 6144), "");
        for number in 0..10_000 {
            ring.add(&format!("line {number}\n"));
        }
        assert_eq!(ring.last(3, 6144), "line 9997\nline 9998\nline 9999\n");
        assert_eq!(ring.last(1000, 25), "line 9998\nline 9999\n");
        let all = ring.last(usize::MAX, usize::MAX);
        assert!(all.len() <= KEPT_MAX && all.len() > KEPT_MAX - 20);
        ring.add(&"ö".repeat(100_000));
        assert!(ring.last(1, 6144).len() <= LINE_MAX + 1);
    }

    #[test]
    fn the_log_of_the_process_before_goes_in_front() {
        let ring = LogRing::default();
        ring.add("three\n");
        ring.continue_from("one\ntwo\n");
        ring.add("four\n");
        assert_eq!(ring.last(10, 6144), "one\ntwo\nthree\nfour\n");
    }

    #[test]
    fn a_line_with_the_device_key_is_not_kept() {
        let ring = LogRing::default();
        let key: [u8; 32] = core::array::from_fn(|at| u8::try_from(at * 7 % 256).unwrap());
        ring.keep_secret(Secrets::of(&key));
        let hex: String = key.iter().map(|byte| format!("{byte:02X}")).collect();
        ring.add(&format!("key = \"{hex}\"\nthe next line\n"));
        let kept = ring.last(10, 6144);
        assert!(!kept.to_lowercase().contains(&hex.to_lowercase()));
        assert_eq!(kept, format!("{HIDDEN}\nthe next line\n"));
    }
}
