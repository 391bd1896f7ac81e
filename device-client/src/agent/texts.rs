//! The longer texts of a board on Linux (spec/protocol.md section 12): the output of commands
//! that failed, kept beside the outcome of their update, and the log.

use std::{
    borrow::ToOwned as _,
    fs, io,
    path::{Path, PathBuf},
    string::String,
    vec::Vec,
};

use dialhome_proto::{
    clipped,
    id::UpdateId,
    limits::{TEXT_PART_MAX, TEXT_PARTS_MAX},
};

use super::{
    command::CommandFailed,
    durable,
    log_ring::{LogRing, Secrets},
};
use crate::boot::Text;

/// Longest text, in bytes.
const TEXT_MAX: usize = TEXT_PART_MAX * TEXT_PARTS_MAX as usize;
/// Updates whose output is kept: more than outcomes wait at a time.
const KEPT_MAX: usize = 4;
/// Files of outputs are named so, and by the update.
const PREFIX: &str = "output-";
/// The log, while one process of the agent goes and the next comes.
const LOG: &str = "log";

/// The texts of one board.
#[derive(Debug)]
pub(super) struct Texts {
    dir: PathBuf,
    /// What failed since it was last kept.
    failed: String,
    log: Option<LogRing>,
    secrets: Secrets,
    output_parts: Vec<String>,
    log_parts: Vec<String>,
}

impl Texts {
    /// The texts of this state directory.
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            failed: String::new(),
            log: None,
            secrets: Secrets::default(),
            output_parts: Vec::new(),
            log_parts: Vec::new(),
        }
    }

    /// The log that may be asked for, and what no text says.
    pub(super) fn set_log(&mut self, log: Option<LogRing>, secrets: Secrets) {
        if let Some(log) = &log {
            log.keep_secret(secrets.clone());
            let before = self.dir.join(LOG);
            if let Ok(text) = fs::read_to_string(&before) {
                log.continue_from(&text);
                // What is left behind is only read once more.
                let _ = fs::remove_file(&before);
            }
        }
        (self.log, self.secrets) = (log, secrets);
    }

    /// The agent starts itself again: the next process goes on with the log.
    pub(super) fn hand_over_log(&self) {
        if let Some(log) = &self.log {
            let text = log.last(usize::MAX, usize::MAX);
            if let Err(error) = durable::replace(&self.dir.join(LOG), text.as_bytes()) {
                tracing::warn!(%error, "the log does not outlive the restart");
            }
        }
    }

    /// A command has failed; `of` is the component's name, empty for the main one.
    pub(super) fn add(&mut self, of: &str, failed: &CommandFailed) {
        let colon = if of.is_empty() { "" } else { ": " };
        let head = std::format!("{of}{colon}{} {}\n", failed.role, failed.error);
        self.failed.push_str(&head);
        for line in failed.output.text().lines() {
            self.failed.push_str(self.secrets.hide(line));
            self.failed.push('\n');
        }
        cut_front(&mut self.failed);
    }

    fn path(&self, update: &UpdateId) -> PathBuf {
        self.dir.join(std::format!("{PREFIX}{update}"))
    }

    /// Keeps what failed, durably, behind what failed before for this update.
    pub(super) fn keep(&mut self, update: &UpdateId) {
        if self.failed.is_empty() {
            return;
        }
        let path = self.path(update);
        let mut text = fs::read_to_string(&path).unwrap_or_default();
        text.push_str(&self.failed);
        cut_front(&mut text);
        self.failed.clear();
        let kept = self
            .forget_oldest(&path)
            .and_then(|()| durable::replace(&path, text.as_bytes()));
        if let Err(error) = kept {
            // The outcome goes without it.
            tracing::warn!(%error, "the output of a command was not kept");
        }
    }

    /// Makes room for one more.
    fn forget_oldest(&self, but: &Path) -> io::Result<()> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.dir)?.flatten() {
            let named = entry.file_name();
            if named.to_str().is_some_and(|name| name.starts_with(PREFIX)) && entry.path() != but {
                kept.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        kept.sort_unstable();
        let surplus = (kept.len() + 1).saturating_sub(KEPT_MAX);
        for (_, path) in kept.into_iter().take(surplus) {
            durable::remove(&path)?;
        }
        Ok(())
    }

    /// Takes a text into memory; how many parts it has.
    pub(super) fn take(&mut self, text: Text) -> u8 {
        let whole = match text {
            Text::Output(update) => fs::read_to_string(self.path(&update)).unwrap_or_default(),
            Text::Log { lines, bytes } => self.log.as_ref().map_or_else(String::new, |log| {
                log.last(lines.into(), usize::from(bytes).min(TEXT_MAX - SLACK))
            }),
        };
        let parts = parts(&whole);
        let count = u8::try_from(parts.len()).unwrap_or(TEXT_PARTS_MAX);
        *match text {
            Text::Output(_) => &mut self.output_parts,
            Text::Log { .. } => &mut self.log_parts,
        } = parts;
        count
    }

    /// A part of it, from 1.
    pub(super) fn part(&self, text: Text, part: u8) -> &str {
        let parts = match text {
            Text::Output(_) => &self.output_parts,
            Text::Log { .. } => &self.log_parts,
        };
        let place = usize::from(part).wrapping_sub(1);
        parts.get(place).map_or("", String::as_str)
    }
}

/// Bytes that cuts at the borders of characters may cost, with 8 parts.
const SLACK: usize = 3 * TEXT_PARTS_MAX as usize;

/// Cuts the front off what is longer than a text may be, at a line's border where there is one.
fn cut_front(text: &mut String) {
    let Some(surplus) = text.len().checked_sub(TEXT_MAX - SLACK + 1) else {
        return;
    };
    let mut from = surplus + 1;
    while !text.is_char_boundary(from) {
        from += 1;
    }
    if let Some(line) = text[from..].find('\n')
        && line < TEXT_PART_MAX
    {
        from += line + 1;
    }
    text.drain(..from);
}

/// The text in parts, cut at the borders of characters.
fn parts(text: &str) -> Vec<String> {
    let mut rest = text;
    let mut parts = Vec::new();
    while !rest.is_empty() && parts.len() < usize::from(TEXT_PARTS_MAX) {
        let part = clipped(rest, TEXT_PART_MAX);
        parts.push(part.to_owned());
        rest = &rest[part.len()..];
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::command::{self, CommandError};
    use crate::agent::config::CommandSettings;
    use std::{format, string::ToString as _, time::Duration};

    fn failed(script: &str) -> CommandFailed {
        let settings = CommandSettings {
            command: ["/bin/sh", "-c", script].map(String::from).into(),
            timeout: Duration::from_secs(60),
        };
        command::run("install", &settings, &[]).unwrap_err()
    }

    fn whole(texts: &mut Texts, text: Text) -> String {
        let parts = texts.take(text);
        assert!(parts <= TEXT_PARTS_MAX);
        let all = (1..=parts).map(|part| texts.part(text, part).to_owned());
        let all: Vec<_> = all.collect();
        assert!(all.iter().all(|part| part.len() <= TEXT_PART_MAX));
        assert_eq!(texts.part(text, parts + 1), "");
        assert_eq!(texts.part(text, 0), "");
        all.concat()
    }

    #[test]
    fn what_failed_is_kept_with_its_update_and_found_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (update, other) = (UpdateId([1; 8]), UpdateId([2; 8]));
        let mut texts = Texts::new(dir.path());
        texts.keep(&update);
        assert_eq!(texts.take(Text::Output(update)), 0);
        texts.add("", &failed("echo one; echo two; exit 3"));
        texts.add("mcu", &failed("printf 'a\\033[1mb\\n'; exit 4"));
        texts.keep(&update);
        let mut texts = Texts::new(dir.path());
        let text = "install ended with code 3\none\ntwo\nmcu: install ended with code 4\na [1mb\n";
        assert_eq!(whole(&mut texts, Text::Output(update)), text);
        assert_eq!(texts.take(Text::Output(other)), 0);
        texts.add("", &failed("echo again; exit 5"));
        texts.keep(&update);
        let more = format!("{text}install ended with code 5\nagain\n");
        assert_eq!(whole(&mut texts, Text::Output(update)), more);
    }

    #[test]
    fn a_long_output_keeps_its_end_in_8_parts_at_most() {
        let dir = tempfile::tempdir().unwrap();
        let update = UpdateId([1; 8]);
        let mut texts = Texts::new(dir.path());
        for _ in 0..3 {
            texts.add(
                "",
                &failed("for i in $(seq 2000); do echo ö$i; done; exit 1"),
            );
            texts.keep(&update);
        }
        let text = whole(&mut texts, Text::Output(update));
        assert!(
            text.len() <= TEXT_MAX && text.len() > TEXT_MAX - 100,
            "{}",
            text.len()
        );
        assert!(text.ends_with("ö1999\nö2000\n"));
        let first = text.lines().next().unwrap();
        assert!(first.starts_with('ö'), "cut within a line: {first}");
    }

    #[test]
    fn four_updates_are_remembered_and_a_disk_that_takes_nothing_only_warns() {
        let dir = tempfile::tempdir().unwrap();
        let mut texts = Texts::new(dir.path());
        for number in 0..9 {
            texts.add("", &failed("exit 1"));
            texts.keep(&UpdateId([number; 8]));
        }
        let files = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(files, KEPT_MAX);
        assert!(texts.take(Text::Output(UpdateId([8; 8]))) > 0);
        let mut gone = Texts::new(&dir.path().join("nowhere"));
        gone.add("", &failed("exit 1"));
        gone.keep(&UpdateId([1; 8]));
        assert_eq!(gone.take(Text::Output(UpdateId([1; 8]))), 0);
    }

    #[test]
    fn a_command_that_prints_the_device_key_does_not_give_it_away() {
        let dir = tempfile::tempdir().unwrap();
        let mut texts = Texts::new(dir.path());
        let key = [0xab; 32];
        texts.set_log(None, Secrets::of(&key));
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        texts.add("", &failed(&format!("echo key = {hex}; exit 1")));
        texts.keep(&UpdateId([1; 8]));
        let text = whole(&mut texts, Text::Output(UpdateId([1; 8])));
        assert!(
            text.contains("ended with code 1") && !text.contains(&hex),
            "{text}"
        );
        assert!(matches!(failed("exit 1").error, CommandError::Exit(1)));
        assert_eq!(UpdateId([1; 8]).to_string().len(), 16);
    }
}
