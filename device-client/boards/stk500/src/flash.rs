//! The file that holds the flash, as a whole number of pages.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::part::Part;

/// Opens the file, or makes it with erased flash; what it holds.
pub(crate) fn open(path: &Path, part: Part) -> io::Result<(File, Vec<u8>)> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    let len = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if len != 0 && len != part.flash {
        return Err(io::Error::other(format!(
            "{} has {len} bytes, and the flash of {part} {}",
            path.display(),
            part.flash
        )));
    }
    let mut bytes = vec![0xFF; part.flash];
    if len == 0 {
        file.write_all_at(&bytes, 0)?;
    } else {
        file.read_exact_at(&mut bytes, 0)?;
    }
    Ok((file, bytes))
}
