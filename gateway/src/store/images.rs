//! Images: their signed manifests by name. The payloads are files, named by digest (`image/store.rs`).

use std::sync::Arc;

use rusqlite::Connection;

use super::sqlite::{json, record, records, run, value};
use super::writer::{NewEvent, Write};
use super::{EntryRecord, ImageRecord, Store, StoreError, devices};

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
            let check_changed = keep_checks(write, &image, change_check)?;
            if let Some(known) = find(write.db, &image.name)? {
                let same = known.manifest_digest == image.manifest_digest
                    && known.manifest == image.manifest;
                if same && checks(&known) == checks(&image) {
                    return Ok(Added {
                        image: known,
                        existed: true,
                        check_changed,
                    });
                }
                if payloads(&known) != payloads(&image) {
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
        let image = image.clone();
        self.read(move |db| has_needed_checks(db, &image, WHEN_ADDING))
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

    /// Keeps every file of images in its place until what it returns is dropped: for who has written one, and not
    /// added its image yet.
    pub async fn keep_files(&self) -> tokio::sync::RwLockReadGuard<'_, ()> {
        self.0.files.read().await
    }

    /// Removes an image; then calls `remove_file` with the digest of each payload that no other image has.
    ///
    /// # Errors
    /// `NotFound`, or `Conflict` while an open update needs it.
    pub async fn remove_image(
        &self,
        name: &str,
        remove_file: impl Fn(&str) + Send,
    ) -> Result<(), StoreError> {
        let name = name.to_owned();
        let _no_backup = self.0.files.write().await;
        let orphans = self
            .change(move |write| {
                let image =
                    find(write.db, &name)?.ok_or_else(|| StoreError::not_found("image", &name))?;
                in_use(write.db, &name)?;
                run(write.db, "DELETE FROM image WHERE name = ?1", [&name])?;
                let mut orphans = Vec::new();
                for digest in image.digests() {
                    if !is_used(write.db, &digest)? {
                        orphans.push(digest);
                    }
                }
                Ok(orphans)
            })
            .await?;
        for digest in orphans {
            remove_file(&digest);
        }
        Ok(())
    }
}

/// The digest of each payload, in order.
fn payloads(image: &ImageRecord) -> Vec<String> {
    let entries = image.entries().into_iter();
    entries.map(|entry| entry.digest).collect()
}

/// What each payload was checked for.
fn checks(image: &ImageRecord) -> Vec<Option<String>> {
    let entries = image.entries().into_iter();
    entries.map(|entry| entry.check).collect()
}

/// Whether an image has this payload, alone or among others.
fn is_used(db: &Connection, digest: &str) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM image WHERE digest = ?1
               UNION ALL SELECT 1 FROM image, json_each(image.body, '$.entries') AS entry
               WHERE entry.value ->> '$.digest' = ?1 LIMIT 1";
    Ok(value::<i64>(db, sql, [digest])?.is_some())
}

/// What to do about an image without its check that was to be added.
const WHEN_ADDING: &str =
    "Sign it with that --check; or, if the boards have changed, add it with --change-check.";
/// The same, of one that was to be pushed.
pub(super) const WHEN_PUSHING: &str = "Push an image that has it; or, if the boards have changed, add this one again with --change-check.";

/// Product and component, as images of this one component are called: `P` or `P/component`.
fn family(product: &str, component: u8) -> String {
    match component {
        0 => product.to_owned(),
        component => format!("{product}/{component}"),
    }
}

fn needed_check(db: &Connection, family: &str) -> Result<Option<String>, StoreError> {
    value(
        db,
        "SELECT value FROM meta WHERE key = ?1",
        [format!("check:{family}")],
    )
}

/// Refuses an image of which a component has not the check that its product and component need.
pub(super) fn has_needed_checks(
    db: &Connection,
    image: &ImageRecord,
    hint: &str,
) -> Result<(), StoreError> {
    for entry in image.entries() {
        has_needed_check(db, image, &entry, hint)?;
    }
    Ok(())
}

fn has_needed_check(
    db: &Connection,
    image: &ImageRecord,
    entry: &EntryRecord,
    hint: &str,
) -> Result<(), StoreError> {
    let family = family(&image.product, entry.component);
    let check = entry.check.as_deref();
    let Some(needed) = needed_check(db, &family)?.filter(|needed| Some(&**needed) != check) else {
        return Ok(());
    };
    let has = check.map_or_else(
        || "no check".to_owned(),
        |check| format!("the check {check}"),
    );
    let of = if image.entries.is_empty() {
        String::new()
    } else {
        format!(" for component {}", entry.component)
    };
    Err(StoreError::conflict(
        "check_missing",
        format!(
            "{} has {has}{of}, and images of {family} need {needed}",
            image.name
        ),
        hint,
    ))
}

/// Keeps the image's checks for its product and components; true where one is another than before.
fn keep_checks(
    write: &mut Write<'_>,
    image: &ImageRecord,
    change: bool,
) -> Result<bool, StoreError> {
    let mut changed = false;
    for entry in image.entries() {
        changed |= keep_check(write, image, &entry, change)?;
    }
    Ok(changed)
}

fn keep_check(
    write: &mut Write<'_>,
    image: &ImageRecord,
    entry: &EntryRecord,
    change: bool,
) -> Result<bool, StoreError> {
    let family = family(&image.product, entry.component);
    let check = entry.check.as_deref();
    if needed_check(write.db, &family)?.as_deref() == check {
        return Ok(false);
    }
    if !change {
        has_needed_check(write.db, image, entry, WHEN_ADDING)?;
    }
    let key = format!("check:{family}");
    let Some(check) = check else {
        run(write.db, "DELETE FROM meta WHERE key = ?1", [&key])?;
        return Ok(true);
    };
    // What is open was pushed before the check was needed, and would be offered without it.
    let sql = "SELECT DISTINCT image.body FROM update_state
               JOIN update_intent ON update_intent.id = update_state.id JOIN image ON image.name = update_intent.image
               WHERE update_state.open = 1 AND image.body ->> '$.product' = ?1 AND image.name <> ?2";
    let open: Vec<ImageRecord> = records(write.db, sql, (&image.product, &image.name))?;
    let without = open.iter().find(|open| {
        let mut entries = open.entries().into_iter();
        entries.any(|other| {
            other.component == entry.component && other.check.as_deref() != Some(check)
        })
    });
    if let Some(without) = without {
        let sql = "SELECT update_intent.id || ' of device ' || update_intent.device || ' to ' || image FROM update_state
                   JOIN update_intent ON update_intent.id = update_state.id
                   WHERE update_state.open = 1 AND image = ?1 LIMIT 1";
        let open: Option<String> = value(write.db, sql, [&without.name])?;
        return Err(StoreError::conflict(
            "update_open",
            format!(
                "update {} has not ended, and its image has not the check {check}",
                open.as_deref().unwrap_or(&without.name)
            ),
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
