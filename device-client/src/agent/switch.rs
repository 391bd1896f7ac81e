//! The record of an image on trial (`STATE/switch`), and which slot is whose.
//!
//! | record | `current` | what a start does about it |
//! |---|---|---|
//! | none | any | nothing: what runs is settled |
//! | `installing` | old or new image | the digest is unknown, `activate` goes on |
//! | `trial` | new image | the new image proves itself |
//! | `restoring` | new or old image | the digest is unknown, `revert` goes on |
//! | `returned` | old image | the launcher went back: `revert` takes note of it |
//!
//! Each component has a directory of its own with `slots/`, `current` and `switch`: the
//! state directory itself for component 0, `STATE/components/N` for the others. So several
//! may be on trial at a time.
//!
//! `STATE/agents` has the SHA-256 of each image that was proven to be an agent when it was
//! installed, one in a line. A board whose component 0 was something else before has images
//! that must not be started in the agent's place, and a file may be damaged later.

use std::{
    borrow::ToOwned as _,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    string::String,
    vec::Vec,
};

use dialhome_proto::id::Digest;
use serde::{Deserialize, Serialize};

use super::{boot_linux::digest_of, durable};

/// How far a switch has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Step {
    /// `current` is being switched and the image installed.
    Installing,
    /// Installed, not confirmed.
    Trial,
    /// The old image is being brought back.
    Restoring,
    /// The launcher has put the old agent back, and the agent does not know yet.
    Returned,
}

/// The record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Switch {
    pub(super) step: Step,
    /// Digest of the new image, hexadecimal.
    pub(super) image: String,
    /// Where `current` points for the new image.
    pub(super) to: String,
    /// Where it pointed before; absent: there was none.
    pub(super) from: Option<String>,
    /// The update and the version, for the commands' environment.
    pub(super) update: String,
    pub(super) version: String,
    /// Starts that an image of the agent itself has on trial, and those that it has had:
    /// the launcher counts them.
    #[serde(default = "boots")]
    pub(super) boots: u8,
    #[serde(default)]
    pub(super) starts: u8,
    /// Why the launcher went back, in words.
    #[serde(default)]
    pub(super) why: String,
}

const fn boots() -> u8 {
    dialhome_proto::limits::TRIAL_BOOTS
}

#[cfg(test)]
impl Switch {
    /// A trial in slot b of an image that nobody looks at; slot a has the one before.
    pub(super) fn trial() -> Self {
        Self {
            step: Step::Trial,
            image: String::new(),
            to: "slots/b".to_owned(),
            from: Some("slots/a".to_owned()),
            update: String::new(),
            version: String::new(),
            boots: 2,
            starts: 0,
            why: String::new(),
        }
    }
}

/// Paths of a component's directory that have to do with images.
#[derive(Clone, Debug)]
pub(super) struct Images {
    dir: PathBuf,
}

impl Images {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    /// Those of a component other than 0, below the state directory.
    pub(super) fn of_component(state: &Path, number: u8) -> Self {
        Self::new(&state.join(std::format!("components/{number}")))
    }

    /// Makes the directories where they are not there yet.
    pub(super) fn make(&self) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(self.dir.join("slots"))
    }

    pub(super) fn current(&self) -> PathBuf {
        self.dir.join("current")
    }

    fn record(&self) -> PathBuf {
        self.dir.join("switch")
    }

    /// Where `current` points; `None` where there is no image yet.
    pub(super) fn target(&self) -> io::Result<Option<String>> {
        durable::target(&self.current())
    }

    /// The slot that `current` does not point to, as `current` would name it.
    pub(super) fn free_slot(&self) -> io::Result<&'static str> {
        let in_a = self.current_is("slots/a")?;
        match (in_a, in_a && self.current_is("slots/b")?) {
            (true, true) => Err(io::Error::other(
                "slots/a and slots/b are the same file; remove one of them",
            )),
            (true, false) => Ok("slots/b"),
            (false, _) => Ok("slots/a"),
        }
    }

    /// Whether `current` leads to this slot, by whatever path.
    fn current_is(&self, slot: &str) -> io::Result<bool> {
        let slot = self.dir.join(slot);
        match (identity(&self.current())?, identity(&slot)?) {
            (Some(current), Some(slot)) => Ok(current == slot),
            // A link to a slot that is not there yet.
            _ => Ok(self
                .target()?
                .is_some_and(|target| self.dir.join(target) == slot)),
        }
    }

    pub(super) fn path(&self, target: &str) -> PathBuf {
        self.dir.join(target)
    }

    /// The record; `None` where there is none.
    pub(super) fn switch(&self) -> io::Result<Option<Switch>> {
        let text = match fs::read_to_string(self.record()) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        toml::from_str(&text)
            .map(Some)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Stores the record, durably.
    pub(super) fn set_switch(&self, switch: &Switch) -> io::Result<()> {
        let text = toml::to_string(switch).map_err(io::Error::other)?;
        durable::replace(&self.record(), text.as_bytes())
    }

    fn agents(&self) -> PathBuf {
        self.dir.join("agents")
    }

    fn marked(&self) -> io::Result<Vec<Digest>> {
        match fs::read_to_string(self.agents()) {
            Ok(text) => Ok(text.lines().filter_map(Digest::from_hex).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Whether the bytes of this image are those of one that was installed as an agent.
    pub(super) fn is_agent(&self, target: &str) -> io::Result<bool> {
        let marked = self.marked()?;
        if marked.is_empty() {
            return Ok(false);
        }
        let found = digest_of(&self.path(target))?;
        Ok(found.is_some_and(|(digest, _)| marked.contains(&digest)))
    }

    /// Marks an image as an agent, durably. The mark of the one that `current` leads to stays.
    pub(super) fn mark_agent(&self, new: Digest) -> io::Result<()> {
        let mut marked = self.marked()?;
        if marked.contains(&new) {
            return Ok(());
        }
        let current = digest_of(&self.current())?.map(|(digest, _)| digest);
        marked.retain(|digest| Some(*digest) == current);
        marked.push(new);
        let text: String = marked
            .iter()
            .map(|digest| std::format!("{digest}\n"))
            .collect();
        durable::replace(&self.agents(), text.as_bytes())
    }

    /// Removes the record, durably.
    pub(super) fn clear_switch(&self) -> io::Result<()> {
        durable::remove(&self.record())
    }
}

/// Device and inode of the file that a path leads to; `None` where there is none.
fn identity(path: &Path) -> io::Result<Option<(u64, u64)>> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some((found.dev(), found.ino()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest as _, Sha256};
    use std::os::unix::fs::symlink;

    #[test]
    fn the_marks_are_those_of_the_running_agent_and_of_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let images = Images::new(dir.path());
        images.make().unwrap();
        let digest = |bytes: &str| Digest(Sha256::digest(bytes).into());
        let put = |slot: &str, bytes: &str| fs::write(images.path(slot), bytes).unwrap();
        put("slots/a", "application");
        durable::point(&images.current(), "slots/a").unwrap();
        assert!(!images.is_agent("slots/a").unwrap());
        // What is no agent gets no mark by being there.
        for version in ["one", "two", "three", "two"] {
            put("slots/b", version);
            assert!(!images.is_agent("slots/b").unwrap(), "{version}");
            images.mark_agent(digest(version)).unwrap();
            assert!(images.is_agent("slots/b").unwrap());
            assert!(!images.is_agent("slots/a").unwrap());
        }
        durable::point(&images.current(), "slots/b").unwrap();
        for version in ["four", "five", "six"] {
            put("slots/a", version);
            images.mark_agent(digest(version)).unwrap();
            assert!(images.is_agent("slots/a").unwrap(), "{version}");
            assert!(images.is_agent("slots/b").unwrap(), "{version}");
        }
        put("slots/b", "tw\0");
        assert!(!images.is_agent("slots/b").unwrap());
        fs::remove_file(images.path("slots/b")).unwrap();
        assert!(!images.is_agent("slots/b").unwrap());
    }

    #[test]
    fn the_slot_of_the_running_image_is_never_the_free_one() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        fs::create_dir_all(state.join("slots")).unwrap();
        symlink(&state, dir.path().join("link")).unwrap();
        let images = Images::new(&state);
        assert_eq!(images.free_slot().unwrap(), "slots/a");
        for slot in ["slots/a", "slots/b"] {
            fs::write(state.join(slot), slot).unwrap();
        }
        let through = dir.path().join("link/slots/a");
        for (target, free) in [
            (Path::new("slots/a"), "slots/b"),
            (Path::new("slots/b"), "slots/a"),
            (Path::new("slots/../slots/a"), "slots/b"),
            (&state.join("slots/a"), "slots/b"),
            (&through, "slots/b"),
        ] {
            let _ = fs::remove_file(images.current());
            symlink(target, images.current()).unwrap();
            assert_eq!(images.free_slot().unwrap(), free, "{}", target.display());
        }
        fs::remove_file(state.join("slots/b")).unwrap();
        fs::hard_link(state.join("slots/a"), state.join("slots/b")).unwrap();
        images.free_slot().unwrap_err();
    }
}
