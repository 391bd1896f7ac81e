//! File operations that are there after a power cut once they have returned.

use std::{
    borrow::ToOwned as _,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    string::String,
};

/// Makes the names in `dir` durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

/// Replaces the file's content: afterwards it is the old or the new one, whole.
pub(super) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = beside(path);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_dir(parent(path))
}

/// Points the symbolic link at `target`, whether it is there or not.
pub(super) fn point(link: &Path, target: &str) -> io::Result<()> {
    let new = beside(link);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(target, &new)?;
    fs::rename(&new, link)?;
    sync_dir(parent(link))
}

/// Removes the file or link; nothing happens where there is none.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }?;
    sync_dir(parent(path))
}

/// Where a symbolic link points; `None` where there is none.
pub(super) fn target(link: &Path) -> io::Result<Option<String>> {
    match fs::read_link(link) {
        Ok(target) => match target.into_os_string().into_string() {
            Ok(target) => Ok(Some(target)),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the link's target is not UTF-8",
            )),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
