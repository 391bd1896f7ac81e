//! The record of an image on trial (`STATE/switch`), and which slot is whose.
//!
//! | record | `current` | what a start does about it |
//! |---|---|---|
//! | none | any | nothing: what runs is settled |
//! | `installing` | old or new image | the digest is unknown, `activate` goes on |
//! | `trial` | new image | the new image proves itself |
//! | `restoring` | new or old image | the digest is unknown, `revert` goes on |

use std::{
    borrow::ToOwned as _,
    fs, io,
    path::{Path, PathBuf},
    string::String,
};

use serde::{Deserialize, Serialize};

use super::durable;

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
}

/// Paths of a state directory that have to do with images.
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

    pub(super) fn dir(&self) -> &Path {
        &self.dir
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
        let current = self.target()?;
        let in_a = current.is_some_and(|target| self.dir.join(target) == self.dir.join("slots/a"));
        Ok(if in_a { "slots/b" } else { "slots/a" })
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

    /// Removes the record, durably.
    pub(super) fn clear_switch(&self) -> io::Result<()> {
        durable::remove(&self.record())
    }
}
