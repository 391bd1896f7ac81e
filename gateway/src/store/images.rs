//! Images: their signed manifests by name. The payloads are files, named by digest (`image/store.rs`).

use std::sync::Arc;

use rusqlite::Connection;

use super::sqlite::{json, record, records, run, value};
use super::writer::{NewEvent, Write};
use super::{ImageRecord, Store, StoreError, devices};

/// What adding an image did.
#[derive(Clone, Debug)]
pub struct Added {
    /// The record.
    pub image: ImageRecord,
    /// The image was there already, the same.
    pub existed: bool,
    /// What images of its product and component must be checked for is now this image's check.
    pub check_changed: bool,
}

impl Store {
    /// Adds an image whose payload file is in place already, and has passed its check. The same image again changes
    /// nothing. The first check that an image of a product and component brings is needed from then on; with
    /// `change_check` this image's, or that it has none, takes its place.
    ///
    /// # Errors
    /// `Conflict` where the name stands for other bytes, an open update uses the manifest that this would replace,
    /// or the image has not the check that is needed.
    pub async fn add_image(
        &self,
        image: ImageRecord,
        change_check: bool,
    ) -> Result<Added, StoreError> {
        self.change(move |write| {
            let check_changed = keep_check(write, &image, change_check)?;
            if let Some(known) = find(write.db, &image.name)? {
                let same = known.manifest_digest == image.manifest_digest
                    && known.manifest == image.manifest;
                if same && known.check == image.check {
                    return Ok(Added {
                        image: known,
                        existed: true,
                        check_changed,
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
                if !same {
                    in_use(write.db, &known.name)?;
                }
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
                reason: check_changed.then_some("check_changed"),
                ..NewEvent::default()
            })?;
            Ok(Added {
                image,
                existed: false,
                check_changed,
            })
        })
        .await
    }

    /// Whether an image may be added, so far as its check goes: asked before its payload is read.
    ///
    /// # Errors
    /// `Conflict` where it has not the check that its product and component need.
    pub async fn allow_image(
        &self,
        image: &ImageRecord,
        change_check: bool,
    ) -> Result<(), StoreError> {
        if change_check {
            return Ok(());
        }
        let (name, check) = (image.name.clone(), image.check.clone());
        self.read(move |db| has_needed_check(db, &name, check.as_deref(), WHEN_ADDING))
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

/// What to do about an image without its check that was to be added.
const WHEN_ADDING: &str =
    "Sign it with that --check; or, if the boards have changed, add it with --change-check.";
/// The same, of one that was to be pushed.
pub(super) const WHEN_PUSHING: &str = "Push an image that has it; or, if the boards have changed, add this one again with --change-check.";

/// Product and component: `P` or `P/component`.
fn family(name: &str) -> &str {
    name.split_once('@').map_or(name, |(family, _)| family)
}

/// The key of what images of this product and component must be checked for.
fn check_key(name: &str) -> String {
    format!("check:{}", family(name))
}

fn needed_check(db: &Connection, name: &str) -> Result<Option<String>, StoreError> {
    value(
        db,
        "SELECT value FROM meta WHERE key = ?1",
        [check_key(name)],
    )
}

/// Refuses an image that has not the check that its product and component need.
pub(super) fn has_needed_check(
    db: &Connection,
    name: &str,
    check: Option<&str>,
    hint: &str,
) -> Result<(), StoreError> {
    let Some(needed) = needed_check(db, name)?.filter(|needed| Some(&**needed) != check) else {
        return Ok(());
    };
    let has = check.map_or_else(
        || "no check".to_owned(),
        |check| format!("the check {check}"),
    );
    Err(StoreError::conflict(
        "check_missing",
        format!(
            "{name} has {has}, and images of {} need {needed}",
            family(name)
        ),
        hint,
    ))
}

/// Keeps the image's check for its product and component; true where it is another than before.
fn keep_check(
    write: &mut Write<'_>,
    image: &ImageRecord,
    change: bool,
) -> Result<bool, StoreError> {
    let check = image.check.as_deref();
    if needed_check(write.db, &image.name)?.as_deref() == check {
        return Ok(false);
    }
    if !change {
        has_needed_check(write.db, &image.name, check, WHEN_ADDING)?;
    }
    let key = check_key(&image.name);
    let Some(check) = check else {
        run(write.db, "DELETE FROM meta WHERE key = ?1", [&key])?;
        return Ok(true);
    };
    // What is open was pushed before the check was needed, and would be offered without it.
    let sql = "SELECT update_intent.id || ' of device ' || update_intent.device || ' to ' || image.name FROM update_state
               JOIN update_intent ON update_intent.id = update_state.id JOIN image ON image.name = update_intent.image
               WHERE update_state.open = 1 AND substr(image.name, 1, ?1) = ?2 AND image.name <> ?3
               AND json_extract(image.body, '$.check') IS NOT ?4 LIMIT 1";
    let family = format!("{}@", family(&image.name));
    let open: Option<String> = value(
        write.db,
        sql,
        (
            i64::try_from(family.len()).unwrap_or(i64::MAX),
            &family,
            &image.name,
            check,
        ),
    )?;
    if let Some(open) = open {
        return Err(StoreError::conflict(
            "update_open",
            format!("update {open} has not ended, and its image has not the check {check}"),
            "Wait for it or cancel it, then add this image again.",
        ));
    }
    run(
        write.db,
        "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (&key, check),
    )?;
    Ok(true)
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
