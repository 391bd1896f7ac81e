//! Backup and restore: the database, the sealing key and the image files in one tar archive, while the gateway runs.
//!
//! A restore is validated whole before anything changes. The keys in it are sealed anew under this directory's
//! own `secret.key`, so that one database transaction is the swap: a kill at any instant leaves the old store or
//! the new one. Numbers that must not repeat (events, sessions) go on above both.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use rusqlite::Connection;
use rusqlite::backup::Backup;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::quic_key::{QUIC_KEY, QuicKey};
use super::seal::{SECRET_KEY, Seal};
use super::sqlite::{self, DATABASE, FORMAT, explain, records, run, value};
use super::{ImageRecord, Store, StoreError, hex, now};

/// The archive's first member.
const FACTS: &str = "dialhome-backup.json";
/// The archive's last member: without it the archive was cut off.
const COMPLETE: &str = "complete";

/// What a backup says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BackupFacts {
    /// The format of the data directory.
    pub format: i64,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// Devices in it.
    pub devices: u64,
    /// Images in it.
    pub images: u64,
    /// Image files in it: one for each payload, which images may share.
    #[serde(default)]
    pub image_files: u64,
}

/// What a restore has put in place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RestoreReport {
    /// What the archive said; the images are counted anew.
    pub backup: BackupFacts,
    /// Image files that were not there before.
    pub images_added: u64,
}

impl Store {
    /// Writes a backup. Blocks: call it off the runtime's threads.
    ///
    /// # Errors
    /// Where something cannot be read, or `out` not be written.
    pub fn backup(&self, out: impl Write) -> Result<BackupFacts, StoreError> {
        let _images_stay = self.0.files.blocking_read();
        let dir = Scratch::new(&self.0.data)?;
        let copy = dir.0.join(DATABASE);
        let source = sqlite::open_for_reading(&self.0.data.join(DATABASE))?;
        copy_database(
            &source,
            &mut Connection::open(&copy).map_err(|error| explain(&copy, error))?,
        )?;
        let snapshot = sqlite::open_for_reading(&copy)?;
        let images: Vec<ImageRecord> = records(&snapshot, "SELECT body FROM image", [])?;
        let mut digests: Vec<_> = images.iter().flat_map(ImageRecord::digests).collect();
        digests.sort_unstable();
        digests.dedup();
        let facts = BackupFacts {
            format: FORMAT,
            created: now(),
            devices: count(&snapshot, "SELECT count(*) FROM device")?,
            images: images.len() as u64,
            image_files: digests.len() as u64,
        };
        drop(snapshot);
        let fault = |path: &Path| {
            let path = path.to_path_buf();
            move |error: io::Error| StoreError::Io {
                action: "cannot back up",
                path,
                detail: error.to_string(),
            }
        };
        let mut tar = tar::Builder::new(out);
        tar.mode(tar::HeaderMode::Deterministic);
        append(&mut tar, FACTS, sqlite::json(&facts)?.as_bytes())
            .map_err(fault(Path::new(FACTS)))?;
        let secret = self.0.data.join(SECRET_KEY);
        let key = zeroize::Zeroizing::new(fs::read(&secret).map_err(fault(&secret))?);
        append(&mut tar, SECRET_KEY, &key).map_err(fault(&secret))?;
        let quic = self.0.data.join(QUIC_KEY);
        append(&mut tar, QUIC_KEY, self.quic_key().as_bytes()).map_err(fault(&quic))?;
        tar.append_path_with_name(&copy, DATABASE)
            .map_err(fault(&copy))?;
        for digest in digests {
            let file = self.images_dir().join(&digest[..2]).join(&digest);
            tar.append_path_with_name(&file, format!("images/{digest}"))
                .map_err(fault(&file))?;
        }
        append(&mut tar, COMPLETE, b"").map_err(fault(Path::new(COMPLETE)))?;
        tar.into_inner()
            .and_then(|mut out| out.flush())
            .map_err(fault(Path::new("the backup")))?;
        Ok(facts)
    }

    /// A path for a file that is on its way in; whoever writes it removes it.
    ///
    /// # Errors
    /// Where the directory for it cannot be made.
    pub fn upload_path(&self) -> Result<PathBuf, StoreError> {
        let scratch = Scratch::new(&self.0.data)?;
        Ok(scratch.0.with_extension("upload"))
    }

    /// Puts a backup in place of everything. Sessions must be closed after it.
    ///
    /// # Errors
    /// `Invalid` where the archive is not whole or not a backup: then nothing has changed.
    pub async fn restore(&self, archive: PathBuf) -> Result<RestoreReport, StoreError> {
        let _no_backup = self.0.files.write().await;
        let store = self.clone();
        let staging = tokio::task::spawn_blocking(move || {
            Staged::unpack(&store.0.data, &archive, &store.0.seal)
        });
        let staged = staging.await.map_err(|_| StoreError::Stopped)??;
        let images_added = staged.install_images(&self.images_dir())?;
        let backup = staged.facts.clone();
        // Boards of the backup know its key; one that was made before there was QUIC has none.
        let quic_key = staged.quic_key()?;
        if let Some(key) = &quic_key {
            // All that can fail of it is done before anything has changed.
            key.stage(&self.0.data)
                .map_err(|error| key_fault(&self.0.data, &error))?;
        }
        let adopted = quic_key.is_some();
        let (memory, seal, data) = (
            Arc::clone(&self.0.memory),
            Arc::clone(&self.0.seal),
            self.0.data.clone(),
        );
        let report = self
            .0
            .writer
            .alone(move |db| {
                let starts = staged.continue_numbers(db)?;
                copy_database(&staged.database()?, db)?;
                if adopted && let Err(error) = QuicKey::adopt(&data) {
                    // The boards are restored: that their key is not would only keep them from QUIC.
                    tracing::error!(%error, "the backup's quic.key was not put in place; restore again for it");
                }
                memory.load(db, &seal, &data.join(SECRET_KEY))?;
                memory.generation.fetch_max(starts << 32, Ordering::AcqRel);
                Ok(RestoreReport {
                    backup,
                    images_added,
                })
            })
            .await??;
        if let Some(key) = quic_key {
            *super::memory::lock(&self.0.quic_key) = key;
        }
        Ok(report)
    }
}

fn key_fault(dir: &Path, error: &io::Error) -> StoreError {
    StoreError::Io {
        action: "cannot read or write",
        path: dir.join(QUIC_KEY),
        detail: error.to_string(),
    }
}

/// A backup, unpacked and checked, its keys sealed under this directory's key.
struct Staged {
    dir: Scratch,
    facts: BackupFacts,
}

impl Staged {
    fn unpack(data: &Path, archive: &Path, seal: &Seal) -> Result<Self, StoreError> {
        let dir = Scratch::new(data)?;
        let facts = unpack(archive, &dir.0, data)?;
        let mut staged = Self { dir, facts };
        if staged.facts.format > FORMAT {
            return Err(StoreError::NewerVersion {
                path: archive.into(),
                found: staged.facts.format,
                known: FORMAT,
            });
        }
        let not_whole = |error: StoreError| {
            StoreError::invalid(
                "bad_backup",
                format!("the backup's database is unusable: {error}"),
            )
        };
        let mut db = sqlite::open_for_writing(&staged.dir.0).map_err(not_whole)?;
        (staged.facts.images, staged.facts.image_files) = staged.check_images(&db)?;
        let key =
            zeroize::Zeroizing::new(fs::read(staged.dir.0.join(SECRET_KEY)).unwrap_or_default());
        let wrong_key = || {
            StoreError::invalid(
                "bad_backup",
                "the backup's secret.key does not open the keys in it",
            )
        };
        let theirs = Seal::from_bytes(&key).ok_or_else(wrong_key)?;
        let staged_path = staged.dir.0.join(DATABASE);
        let change = db
            .transaction()
            .map_err(|error| explain(&staged_path, error))?;
        let ids: Vec<String> = records(&change, "SELECT json_quote(id) FROM device_secret", [])?;
        for id in ids {
            let sealed: Vec<u8> = value(
                &change,
                "SELECT sealed FROM device_secret WHERE id = ?1",
                [&id],
            )?
            .unwrap_or_default();
            let keys = theirs.open_keys(&id, &sealed).ok_or_else(wrong_key)?;
            run(
                &change,
                "UPDATE device_secret SET sealed = ?2 WHERE id = ?1",
                (&id, seal.seal(&id, &keys)?),
            )?;
        }
        run(
            &change,
            "UPDATE device_state SET connected = 0 WHERE connected = 1",
            [],
        )?;
        change
            .commit()
            .map_err(|error| explain(&staged_path, error))?;
        Ok(staged)
    }

    fn database(&self) -> Result<Connection, StoreError> {
        sqlite::open_for_writing(&self.dir.0)
    }

    /// The key that its boards know the gateway by over QUIC, where the backup has one.
    fn quic_key(&self) -> Result<Option<QuicKey>, StoreError> {
        let seed = match fs::read(self.dir.0.join(QUIC_KEY)) {
            Ok(seed) => zeroize::Zeroizing::new(seed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(key_fault(&self.dir.0, &error)),
        };
        let wrong = || StoreError::invalid("bad_backup", "the backup's quic.key is no key");
        QuicKey::from_bytes(&seed).ok_or_else(wrong).map(Some)
    }

    /// Every image of the database has its files, and each file is what its name says. How many images there are,
    /// and how many files of theirs: older versions stated the one as the other.
    fn check_images(&self, db: &Connection) -> Result<(u64, u64), StoreError> {
        let images: Vec<ImageRecord> = records(db, "SELECT body FROM image", [])?;
        let mut files = BTreeSet::new();
        for image in &images {
            for stated in image.digests() {
                let path = self.dir.0.join("images").join(&stated);
                let digest = File::open(&path).and_then(sha256);
                if digest.ok().is_none_or(|digest| digest != stated) {
                    return Err(StoreError::invalid(
                        "bad_backup",
                        format!(
                            "the backup's file of image {} is missing or damaged",
                            image.name
                        ),
                    ));
                }
                files.insert(stated);
            }
        }
        Ok((images.len() as u64, files.len() as u64))
    }

    fn install_images(&self, to: &Path) -> Result<u64, StoreError> {
        let fault = |path: &Path, error: io::Error| match error.kind() {
            io::ErrorKind::StorageFull => StoreError::DiskFull { path: to.into() },
            _ => StoreError::Io {
                action: "cannot restore",
                path: path.into(),
                detail: error.to_string(),
            },
        };
        fs::create_dir_all(to).map_err(|error| fault(to, error))?;
        let from = self.dir.0.join("images");
        let mut added = 0;
        let Ok(files) = fs::read_dir(&from) else {
            return Ok(0);
        };
        for file in files {
            let file = file.map_err(|error| fault(&from, error))?;
            let name = file.file_name();
            let folder = to.join(name.to_string_lossy().get(..2).unwrap_or("xx"));
            let target = folder.join(&name);
            if !target.exists() {
                fs::create_dir_all(&folder).map_err(|error| fault(&folder, error))?;
                File::open(file.path())
                    .and_then(|file| file.sync_all())
                    .map_err(|error| fault(&file.path(), error))?;
                fs::rename(file.path(), &target).map_err(|error| fault(&target, error))?;
                File::open(&folder)
                    .and_then(|dir| dir.sync_all())
                    .map_err(|error| fault(&folder, error))?;
                added += 1;
            }
        }
        File::open(to)
            .and_then(|dir| dir.sync_all())
            .map_err(|error| fault(to, error))?;
        Ok(added)
    }

    /// Lifts the numbers that must not repeat above those of the store in use; the count of starts.
    fn continue_numbers(&self, live: &Connection) -> Result<u64, StoreError> {
        let staged = self.database()?;
        let seq = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'event'), 0)";
        let starts = "SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'starts'";
        let most =
            |sql| Ok::<_, StoreError>(count(&staged, sql)?.max(count(live, sql)?).cast_signed());
        let (seq, starts) = (most(seq)?, most(starts)? + 1);
        run(
            &staged,
            "DELETE FROM sqlite_sequence WHERE name = 'event'",
            [],
        )?;
        run(
            &staged,
            "INSERT INTO sqlite_sequence (name, seq) VALUES ('event', ?1)",
            [seq],
        )?;
        run(
            &staged,
            "UPDATE meta SET value = ?1 WHERE key = 'starts'",
            [starts.to_string()],
        )?;
        Ok(starts.unsigned_abs())
    }
}

/// Unpacks the archive's members into `dir`, whatever paths they claim.
fn unpack(archive: &Path, dir: &Path, data: &Path) -> Result<BackupFacts, StoreError> {
    let bad = |why: &str| {
        StoreError::invalid(
            "bad_backup",
            format!("this is not a whole Dialhome backup: {why}"),
        )
    };
    let file = File::open(archive).map_err(|error| StoreError::Io {
        action: "cannot read",
        path: archive.into(),
        detail: error.to_string(),
    })?;
    fs::create_dir_all(dir.join("images")).map_err(|error| StoreError::Io {
        action: "cannot make",
        path: dir.into(),
        detail: error.to_string(),
    })?;
    let mut facts = None;
    let mut complete = false;
    let mut tar = tar::Archive::new(file);
    for member in tar.entries().map_err(|_| bad("it is no tar archive"))? {
        let mut member = member.map_err(|_| bad("it is cut off or damaged"))?;
        let name = member
            .path()
            .map_err(|_| bad("a name in it is damaged"))?
            .to_string_lossy()
            .into_owned();
        if facts.is_none() {
            if name != FACTS {
                return Err(bad("it does not begin as one"));
            }
            let mut text = String::new();
            member
                .by_ref()
                .take(4096)
                .read_to_string(&mut text)
                .map_err(|_| bad("its first member is damaged"))?;
            facts =
                Some(serde_json::from_str(&text).map_err(|_| bad("its first member is damaged"))?);
            continue;
        }
        let target = match name.strip_prefix("images/") {
            Some(digest)
                if digest.len() == 64 && digest.bytes().all(|digit| digit.is_ascii_hexdigit()) =>
            {
                dir.join("images").join(digest)
            }
            None if [DATABASE, SECRET_KEY, QUIC_KEY].contains(&&*name) => dir.join(&name),
            None if name == COMPLETE => {
                complete = true;
                continue;
            }
            _ => return Err(bad(&format!("it has a member {name}"))),
        };
        let copied = File::create(&target).and_then(|mut file| io::copy(&mut member, &mut file));
        copied.map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull => StoreError::DiskFull { path: data.into() },
            _ => bad(&error.to_string()),
        })?;
    }
    match facts {
        Some(facts) if complete => Ok(facts),
        _ => Err(bad("its end is missing")),
    }
}

/// Copies one database over another, in one transaction of the other.
fn copy_database(from: &Connection, to: &mut Connection) -> Result<(), StoreError> {
    let path = PathBuf::from(to.path().unwrap_or(DATABASE));
    let fault = |error| explain(&path, error);
    let copy = Backup::new(from, to).map_err(fault)?;
    for _ in 0..100 {
        match copy.step(-1).map_err(fault)? {
            rusqlite::backup::StepResult::Done => return Ok(()),
            _ => std::thread::sleep(std::time::Duration::from_millis(50)),
        }
    }
    Err(StoreError::Locked { path })
}

fn append(tar: &mut tar::Builder<impl Write>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o600);
    header.set_cksum();
    tar.append_data(&mut header, name, bytes)
}

fn count(db: &Connection, sql: &str) -> Result<u64, StoreError> {
    Ok(value::<i64>(db, sql, [])?.unwrap_or(0).unsigned_abs())
}

fn sha256(mut file: File) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&buffer[..read]);
    }
}

/// A directory for files on their way, inside the data directory (renames must not cross a disk); gone at the end.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(data: &Path) -> Result<Self, StoreError> {
        let mut random = [0; 8];
        aws_lc_rs::rand::fill(&mut random)
            .map_err(|_| StoreError::Database("the system gave no random bytes".into()))?;
        let dir = data.join("tmp").join(hex(&random));
        match fs::create_dir_all(&dir) {
            Ok(()) => Ok(Self(dir)),
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                Err(StoreError::DiskFull { path: data.into() })
            }
            Err(error) => Err(StoreError::Io {
                action: "cannot make",
                path: dir,
                detail: error.to_string(),
            }),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
