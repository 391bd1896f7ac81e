//! Images: their signed manifests by name. The payloads are files, named by digest (`image/store.rs`).

use std::sync::Arc;

use rusqlite::Connection;

use super::sqlite::{json, record, records, run, value};
use super::writer::NewEvent;
use super::{ImageRecord, Store, StoreError, devices};

/// What adding an image did.
#[derive(Clone, Debug)]
pub struct Added {
    /// The record.
    pub image: ImageRecord,
    /// The image was there already, the same.
    pub existed: bool,
}

impl Store {
    /// Adds an image whose payload file is in place already. The same image again changes nothing.
    ///
    /// # Errors
    /// `Conflict` where the name stands for other bytes, or an open update uses the manifest that this would replace.
    pub async fn add_image(&self, image: ImageRecord) -> Result<Added, StoreError> {
        self.change(move |write| {
            if let Some(known) = find(write.db, &image.name)? {
                if known.manifest_digest == image.manifest_digest
                    && known.manifest == image.manifest
                {
                    return Ok(Added {
                        image: known,
                        existed: true,
                    });
                }
                if known.digest != image.digest {
                    return Err(StoreError::conflict(
                        "exists",
                        format!(
                            "{} is already there, with other bytes ({})",
                            known.name, known.digest
                        ),
                        "Sign the new bytes under a version of their own.",
                    ));
                }
                in_use(write.db, &known.name)?;
            }
            run(
                write.db,
                "INSERT INTO image (name, digest, revision, body) VALUES (?1, ?2, 1, ?3)
                 ON CONFLICT (name) DO UPDATE SET revision = revision + 1, body = excluded.body",
                (&image.name, &image.digest, json(&image)?),
            )?;
            write.event(NewEvent {
                kind: "image.added",
                to: Some(&image.name),
                ..NewEvent::default()
            })?;
            Ok(Added {
                image,
                existed: false,
            })
        })
        .await
    }

    /// The image with this name.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn image(&self, name: &str) -> Result<Option<Arc<ImageRecord>>, StoreError> {
        let name = name.to_owned();
        self.read(move |db| Ok(find(db, &name)?.map(Arc::new)))
            .await
    }

    /// Images by name, at most `limit` of them, those after `after`; and the name to go on after.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn images(
        &self,
        after: Option<String>,
        limit: u32,
    ) -> Result<(Vec<ImageRecord>, Option<String>), StoreError> {
        let limit = limit.clamp(1, devices::PAGE_MAX);
        self.read(move |db| {
            let sql = "SELECT body FROM image WHERE name > ?1 ORDER BY name LIMIT ?2";
            let mut images: Vec<ImageRecord> =
                records(db, sql, (after.unwrap_or_default(), limit + 1))?;
            let more = images.len() > limit as usize;
            images.truncate(limit as usize);
            let next = images
                .last()
                .filter(|_| more)
                .map(|image| image.name.clone());
            Ok((images, next))
        })
        .await
    }

    /// Removes an image; then calls `remove_file` with the digest, if no other image has the same payload.
    ///
    /// # Errors
    /// `NotFound`, or `Conflict` while an open update needs it.
    pub async fn remove_image(
        &self,
        name: &str,
        remove_file: impl FnOnce(&str) + Send,
    ) -> Result<(), StoreError> {
        let name = name.to_owned();
        let _no_backup = self.0.files.write().await;
        let orphan = self
            .change(move |write| {
                let image =
                    find(write.db, &name)?.ok_or_else(|| StoreError::not_found("image", &name))?;
                in_use(write.db, &name)?;
                run(write.db, "DELETE FROM image WHERE name = ?1", [&name])?;
                let other = value::<i64>(
                    write.db,
                    "SELECT 1 FROM image WHERE digest = ?1 LIMIT 1",
                    [&image.digest],
                )?;
                Ok(other.is_none().then_some(image.digest))
            })
            .await?;
        if let Some(digest) = orphan {
            remove_file(&digest);
        }
        Ok(())
    }
}

/// The image with this name.
pub(super) fn find(db: &Connection, name: &str) -> Result<Option<ImageRecord>, StoreError> {
    record(db, "SELECT body FROM image WHERE name = ?1", [name])
}

fn in_use(db: &Connection, name: &str) -> Result<(), StoreError> {
    let sql = "SELECT update_state.id FROM update_state JOIN update_intent ON update_intent.id = update_state.id
               WHERE open = 1 AND image = ?1 LIMIT 1";
    match value::<String>(db, sql, [name])? {
        None => Ok(()),
        Some(update) => Err(StoreError::conflict(
            "in_use",
            format!("update {update} still needs image {name}"),
            format!("Wait for its end, or `dialhome update cancel {update}`."),
        )),
    }
}
