//! The images' bytes on the gateway's disk, by digest, and the digests of their prefixes.
//!
//! `DATA/images/ab/ab12...` holds one image and is never changed: a new image is written under
//! `DATA/images/new/`, reaches the disk, and is then renamed. Everything here blocks on the disk.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use dialhome_proto::id::Digest;
use sha2::{Digest as _, Sha256};

use super::piece::Piece;
use super::prefix::{PrefixHasher, STRIDE};

/// Images that stay open between uses: so many file descriptors at most, beside those in use.
pub const OPEN_MAX: usize = 64;

/// SHA-256 states that stay in memory between uses. One is 112 bytes and stands for 64 KiB of an image, so
/// all of them are 65,536 x 112 = 7.3 MB and cover 4 GiB of images: 256 images of 16 MiB, if fewer were
/// not already the limit of [`OPEN_MAX`].
pub const STATES_MAX: usize = 65_536;

/// Bytes of a piece of an image, as deliveries read it; the last one is shorter.
pub const PIECE: u32 = 32 * 1024;

/// Pieces that stay in memory between uses, of all images: 256 x 32 KiB = 8 MiB. Deliveries that go side by
/// side read each piece once, as long as none is further ahead than that.
pub const RECENT_MAX: usize = 256;

/// The images of one data directory.
#[derive(Debug)]
pub struct ImageStore {
    dir: PathBuf,
    /// Most recently used last.
    open: Mutex<Vec<Arc<Image>>>,
    recent: Arc<Recent>,
    next: AtomicU64,
}

/// The pieces that were read last, whosever they are.
#[derive(Debug, Default)]
struct Recent(Mutex<VecDeque<Arc<Piece>>>);

impl Recent {
    fn keep(&self, piece: &Arc<Piece>) {
        let mut pieces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pieces.len() == RECENT_MAX {
            pieces.pop_front();
        }
        pieces.push_back(Arc::clone(piece));
    }
}

impl ImageStore {
    /// Opens `DATA/images`, which is made if it is not there, and removes what a stopped process left half
    /// written. Only one process may have the store open: the data directory's lock sees to it.
    ///
    /// # Errors
    /// Of the file system.
    pub fn open(data: &Path) -> io::Result<Self> {
        let dir = data.join("images");
        let new = dir.join("new");
        fs::create_dir_all(&new)?;
        for entry in fs::read_dir(&new)? {
            fs::remove_file(entry?.path())?;
        }
        sync_dir(&dir)?;
        sync_dir(data)?;
        Ok(Self {
            dir,
            open: Mutex::new(Vec::new()),
            recent: Arc::default(),
            next: AtomicU64::new(0),
        })
    }

    /// Begins a new image, whose bytes come in parts.
    ///
    /// # Errors
    /// Of the file system.
    pub fn begin(&self) -> io::Result<NewImage> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join("new").join(number.to_string());
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        Ok(NewImage {
            path,
            file,
            size: 0,
            hasher: Sha256::new(),
        })
    }

    /// Stores an image that is in memory, and returns its digest.
    ///
    /// # Errors
    /// Of the file system.
    pub fn put(&self, image: &[u8]) -> io::Result<Digest> {
        let mut new = self.begin()?;
        new.write(image)?;
        self.keep(new)
    }

    /// Makes the image part of the store, and returns its digest. When this returns, it is on the disk; it
    /// replaces a file of the same digest, which repairs one that was damaged.
    ///
    /// # Errors
    /// Of the file system.
    pub fn keep(&self, new: NewImage) -> io::Result<Digest> {
        let (_, digest) = new.measured();
        self.keep_as(new, digest)?;
        Ok(digest)
    }

    fn keep_as(&self, new: NewImage, digest: Digest) -> io::Result<()> {
        new.file.sync_all()?;
        let path = path(&self.dir, &digest);
        let folder = path.parent().expect("in its folder");
        if !folder.try_exists()? {
            fs::create_dir_all(folder)?;
            sync_dir(&self.dir)?;
        }
        fs::rename(&new.path, &path)?;
        self.forget(&digest);
        sync_dir(folder)
    }

    /// Reads the image's file anew at the next use.
    fn forget(&self, digest: &Digest) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|image| image.digest != *digest);
    }

    /// Whether the image is here.
    ///
    /// # Errors
    /// Of the file system.
    pub fn contains(&self, digest: &Digest) -> io::Result<bool> {
        path(&self.dir, digest).try_exists()
    }

    /// The image with this digest. It stays readable while it is held, even when it is removed meanwhile.
    ///
    /// # Errors
    /// `NotFound` where the image is not here, `InvalidData` where its file cannot be an image, otherwise
    /// of the file system.
    pub fn get(&self, digest: &Digest) -> io::Result<Arc<Image>> {
        // Held over the opening: an image that is replaced meanwhile must not stay open as it was.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(image) = used_now(&mut open, digest) {
            return Ok(image);
        }
        let path = path(&self.dir, digest);
        let image = Arc::new(Image::open(&path, *digest, Arc::clone(&self.recent))?);
        open.push(Arc::clone(&image));
        let mut states: usize = open.iter().map(|image| image.states()).sum();
        // The newest stays whatever it costs: it is about to be used.
        while open.len() > 1 && (open.len() > OPEN_MAX || states > STATES_MAX) {
            states -= open.remove(0).states();
        }
        Ok(image)
    }

    /// The same where the image is open already and nobody opens another: does not block.
    #[must_use]
    pub fn get_open(&self, digest: &Digest) -> Option<Arc<Image>> {
        let mut open = self.open.try_lock().ok()?;
        used_now(&mut open, digest)
    }

    /// Removes the image; whether it was there.
    ///
    /// # Errors
    /// Of the file system.
    pub fn remove(&self, digest: &Digest) -> io::Result<bool> {
        self.forget(digest);
        let path = path(&self.dir, digest);
        match fs::remove_file(&path) {
            Ok(()) => sync_dir(path.parent().expect("in its folder")).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The digest and size in bytes of every image here, in no order.
    ///
    /// # Errors
    /// Of the file system.
    pub fn list(&self) -> io::Result<Vec<(Digest, u64)>> {
        let mut images = Vec::new();
        for folder in fs::read_dir(&self.dir)? {
            let folder = folder?;
            if !folder.file_type()?.is_dir() {
                continue;
            }
            for file in fs::read_dir(folder.path())? {
                let file = file?;
                let digest = file.file_name().to_str().and_then(Digest::from_hex);
                if let Some(digest) = digest {
                    images.push((digest, file.metadata()?.len()));
                }
            }
        }
        Ok(images)
    }
}

/// The open image with this digest, which is now the one that was used last.
fn used_now(open: &mut Vec<Arc<Image>>, digest: &Digest) -> Option<Arc<Image>> {
    let at = open.iter().position(|image| image.digest == *digest)?;
    let image = open.remove(at);
    open.push(Arc::clone(&image));
    Some(image)
}

fn path(dir: &Path, digest: &Digest) -> PathBuf {
    let name = digest.to_string();
    dir.join(&name[..2]).join(name)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// An image on its way into the store. Dropped before [`ImageStore::keep`], it leaves nothing behind.
#[derive(Debug)]
pub struct NewImage {
    path: PathBuf,
    file: File,
    size: u64,
    hasher: Sha256,
}

impl NewImage {
    /// Appends bytes.
    ///
    /// # Errors
    /// Of the file system; `StorageFull` where the disk is full.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Size in bytes and SHA-256 of what was written: to be compared with the manifest before the image is
    /// kept.
    #[must_use]
    pub fn measured(&self) -> (u64, Digest) {
        (self.size, Digest(self.hasher.clone().finalize().into()))
    }
}

impl Drop for NewImage {
    fn drop(&mut self) {
        // Once it is kept there is nothing of this name; a file that stays goes at the next start.
        drop(fs::remove_file(&self.path));
    }
}

/// An image of the store, to be read.
#[derive(Debug)]
pub struct Image {
    file: File,
    digest: Digest,
    size: u32,
    prefixes: Mutex<PrefixHasher>,
    /// Pieces that somebody holds, by number; of the others no more than that they were there.
    pieces: Mutex<HashMap<u32, Weak<Piece>>>,
    recent: Arc<Recent>,
}

impl Image {
    fn open(path: &Path, digest: Digest, recent: Arc<Recent>) -> io::Result<Self> {
        let file = File::open(path)?;
        let size = u32::try_from(file.metadata()?.len()).map_err(|_| damaged(&digest))?;
        Ok(Self {
            file,
            digest,
            size,
            prefixes: Mutex::default(),
            pieces: Mutex::default(),
            recent,
        })
    }

    /// Its SHA-256.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Its size in bytes.
    #[must_use]
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// Fills `bytes` from this offset on.
    ///
    /// # Errors
    /// `UnexpectedEof` where the image ends before, otherwise of the file system.
    pub fn read_at(&self, offset: u32, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, u64::from(offset))
    }

    /// The piece with this number, [`PIECE`] bytes from `number * PIECE` on. It is read once for
    /// all that hold it at the same time, and kept for a while ([`RECENT_MAX`]).
    ///
    /// # Errors
    /// `UnexpectedEof` where the image ends before, otherwise of the file system.
    pub fn piece(&self, number: u32) -> io::Result<Arc<Piece>> {
        let pieces = || self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        let held = pieces().get(&number).and_then(Weak::upgrade);
        if let Some(piece) = held {
            return Ok(piece);
        }
        let offset = number.saturating_mul(PIECE);
        let len = self.size.saturating_sub(offset).min(PIECE);
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; len as usize];
        self.read_at(offset, &mut bytes)?;
        let piece = Arc::new(Piece::new(bytes));
        pieces().insert(number, Arc::downgrade(&piece));
        self.recent.keep(&piece);
        Ok(piece)
    }

    /// SHA-256 of the first `offset` bytes. The first call for an offset hashes up to there once; every
    /// later one for that offset or a lower one hashes less than 64 KiB.
    ///
    /// # Errors
    /// `InvalidInput` for an offset beyond the end; `InvalidData` where the whole was hashed and is not what
    /// the file's name says: the file is damaged, and the image must be added again. Otherwise of the file
    /// system.
    pub fn prefix_digest(&self, offset: u32) -> io::Result<Digest> {
        if offset > self.size {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("the image ends at {}, before {offset}", self.size),
            ));
        }
        let mut prefixes = self.prefixes.lock().unwrap_or_else(PoisonError::into_inner);
        let prefix = prefixes.digest(u64::from(offset), |at, bytes| {
            self.file.read_exact_at(bytes, at)
        })?;
        if offset == self.size && prefix != self.digest {
            return Err(damaged(&self.digest));
        }
        Ok(prefix)
    }

    /// States that this image will have at most, whether it has them by now or not.
    fn states(&self) -> usize {
        usize::try_from(u64::from(self.size) / STRIDE).map_or(usize::MAX, |states| states + 1)
    }
}

fn damaged(digest: &Digest) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the stored image {digest} is damaged: add it again"),
    )
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
