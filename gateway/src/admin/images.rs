//! /v1/images

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::BodyDataStream;
use axum::extract::State;
use axum::http::StatusCode;
use bytes::Bytes;
use dialhome_proto::id::Digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use utoipa::ToSchema;

use super::error::{ApiError, Args, ErrorDoc, Name};
use super::{Admin, Api, Page, Paging};
use crate::image::check::{CheckFault, FRONT_LEN};
use crate::image::container::{ContainerError, HEAD_LEN_MAX, Head};
use crate::image::store::{ImageStore, NewImage};
use crate::store::{EntryRecord, ImageRecord, StoreError};

/// Largest image that is taken, in bytes, all its payloads together (1 GiB).
const IMAGE_MAX: u32 = 1 << 30;
/// Parts of a body on their way to the disk: so many times what hyper reads at once, some 400 KiB, bound an upload's memory.
const PARTS: usize = 8;
/// Time that a client may be silent within a body.
pub(super) const BODY_SILENCE: Duration = Duration::from_secs(60);

/// An image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageDoc {
    /// `P[/component]@V`; for several components `P/1,0@2.0,1.4`.
    pub image: String,
    /// The product.
    pub product: String,
    /// The component; of several the first, whose are `version`, `digest`, `source_digest`, `counter`, `floor`,
    /// `hardware` and `check` too: `entries` has them of all.
    pub component: u8,
    /// The version text.
    pub version: String,
    /// SHA-256 of the payload, 64 hexadecimal digits.
    pub digest: String,
    /// SHA-256 of the file that it was made from; the same as `digest` where the file went unchanged.
    pub source_digest: String,
    /// SHA-256 of the manifest's body.
    pub manifest_digest: String,
    /// The size of all payloads in bytes.
    pub size: u32,
    /// The counter.
    pub counter: u64,
    /// The lowest counter that may follow once it is confirmed.
    pub floor: u64,
    /// Hardware revisions, first and last.
    pub hardware: (u16, u16),
    /// Devices that it is for; empty: every device of the product.
    pub devices: Vec<String>,
    /// The signers' ids, 16 hexadecimal digits each.
    pub signers: Vec<String>,
    /// What the payload was checked for, as in `sdu:0x2000`; null where nothing was asked.
    #[serde(default)]
    pub check: Option<String>,
    /// Every component of the image, in the order of installation.
    #[serde(default)]
    pub entries: Vec<ImageEntryDoc>,
    /// When it was added.
    #[schema(value_type = String, format = DateTime)]
    pub added: Timestamp,
}

/// One component of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageEntryDoc {
    /// The component.
    pub component: u8,
    /// The version text.
    pub version: String,
    /// SHA-256 of the payload, 64 hexadecimal digits.
    pub digest: String,
    /// SHA-256 of the file that it was made from; the same as `digest` where the file went unchanged.
    pub source_digest: String,
    /// The payload's size in bytes.
    pub size: u32,
    /// The counter.
    pub counter: u64,
    /// The lowest counter that may follow once it is confirmed.
    pub floor: u64,
    /// Hardware revisions, first and last.
    pub hardware: (u16, u16),
    /// What the payload was checked for; null where nothing was asked.
    pub check: Option<String>,
}

impl From<EntryRecord> for ImageEntryDoc {
    fn from(record: EntryRecord) -> Self {
        Self {
            component: record.component,
            version: record.version,
            source_digest: record
                .source_digest
                .unwrap_or_else(|| record.digest.clone()),
            digest: record.digest,
            size: record.size,
            counter: record.counter,
            floor: record.floor,
            hardware: record.hardware,
            check: record.check,
        }
    }
}

impl From<ImageRecord> for ImageDoc {
    fn from(record: ImageRecord) -> Self {
        let entries = record.entries().into_iter().map(Into::into).collect();
        Self {
            entries,
            image: record.name,
            product: record.product,
            component: record.component,
            version: record.version,
            source_digest: record
                .source_digest
                .unwrap_or_else(|| record.digest.clone()),
            digest: record.digest,
            manifest_digest: record.manifest_digest,
            size: record.size,
            counter: record.counter,
            floor: record.floor,
            hardware: record.hardware,
            devices: record.devices,
            signers: record.signers,
            check: record.check,
            added: record.added,
        }
    }
}

/// An image that was added.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ImageAdded {
    /// The image.
    #[serde(flatten)]
    pub image: ImageDoc,
    /// The very same was there already.
    pub existed: bool,
    /// What images of its product and component must be checked for is now this image's check.
    #[serde(default)]
    pub check_changed: bool,
}

#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct HowToAdd {
    /// The image's check, or that it has none, takes the place of the one that its product and component need.
    #[serde(default)]
    change_check: bool,
}

/// The images, by name.
#[utoipa::path(get, path = "/v1/images", params(Paging), responses((status = 200, body = Page<ImageDoc>)))]
pub(super) async fn list(
    State(admin): Api,
    Args(paging): Args<Paging>,
) -> Result<Json<Page<ImageDoc>>, ApiError> {
    let (images, next) = admin
        .store
        .images(paging.after.clone(), paging.limit())
        .await?;
    Ok(Json(Page {
        items: images.into_iter().map(Into::into).collect(),
        next,
    }))
}

/// One image. A `/` in its name is written `%2F` in the path.
#[utoipa::path(get, path = "/v1/images/{name}", responses((status = 200, body = ImageDoc), (status = 404, body = ErrorDoc)))]
pub(super) async fn show(State(admin): Api, Name(name): Name) -> Result<Json<ImageDoc>, ApiError> {
    let found = admin
        .store
        .image(&name)
        .await?
        .ok_or(StoreError::NotFound {
            what: "image",
            name,
        })?;
    Ok(Json(ImageRecord::clone(&found).into()))
}

/// Removes an image that no open update needs.
#[utoipa::path(delete, path = "/v1/images/{name}", responses((status = 204), (status = 404, body = ErrorDoc), (status = 409, body = ErrorDoc)))]
pub(super) async fn remove(State(admin): Api, Name(name): Name) -> Result<StatusCode, ApiError> {
    let images = Arc::clone(&admin.images);
    let remove_file = move |digest: &str| {
        let Some(digest) = Digest::from_hex(digest) else {
            return;
        };
        if let Err(error) = images.remove(&digest) {
            tracing::warn!(%digest, %error, "an image's file could not be removed");
        }
    };
    admin.store.remove_image(&name, remove_file).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Adds a signed image: the body is a `.dhi` file. 201: added; 200: the very same was there already. Its files are
/// put in place in both cases, and updates that waited for them go on.
#[utoipa::path(post, path = "/v1/images", params(HowToAdd), request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, body = ImageAdded), (status = 200, body = ImageAdded), (status = 400, body = ErrorDoc),
        (status = 409, body = ErrorDoc), (status = 507, body = ErrorDoc)))]
pub(super) async fn add(
    State(admin): Api,
    Args(how): Args<HowToAdd>,
    body: axum::body::Body,
) -> Result<(StatusCode, Json<ImageAdded>), ApiError> {
    let mut parts = body.into_data_stream();
    let (head, first) = read_head(&mut parts).await?;
    let record = head.record(crate::store::now());
    admin.store.allow_image(&record, how.change_check).await?;
    if head.size() > u64::from(IMAGE_MAX) {
        return Err(ApiError::bad(
            "too_big",
            format!(
                "an image of {} bytes is too big: at most {IMAGE_MAX} are taken",
                head.size()
            ),
        ));
    }
    let (send, receive) = mpsc::channel(PARTS);
    let images = Arc::clone(&admin.images);
    let writing = tokio::task::spawn_blocking(move || write(&images, &head, receive));
    let mut part = Some(first);
    let mut cut = None;
    while let Some(bytes) = part.take() {
        // The writer has stopped: it says why below.
        if send.send(bytes).await.is_err() {
            break;
        }
        match next(&mut parts).await {
            Ok(bytes) => part = bytes,
            Err(error) => cut = Some(error),
        }
    }
    drop(send);
    let written = writing
        .await
        .map_err(|_| ApiError::from(StoreError::Stopped))?;
    if let Some(error) = cut {
        return Err(error);
    }
    let new = written.map_err(|error| error.into_api(&admin))?;
    let images = Arc::clone(&admin.images);
    // Until the record names them, another image that goes must not take a payload with it.
    let _files = admin.store.keep_files().await;
    let keep = move || {
        new.into_iter()
            .try_for_each(|new| images.keep(new).map(drop))
    };
    let kept = tokio::task::spawn_blocking(keep)
        .await
        .map_err(|_| ApiError::from(StoreError::Stopped))?;
    kept.map_err(|error| UploadError::Io(error).into_api(&admin))?;
    // Its files are in place whatever becomes of the record: an update may wait for just that.
    admin.live.images_changed();
    let added = admin.store.add_image(record, how.change_check).await?;
    let status = if added.existed {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    Ok((
        status,
        Json(ImageAdded {
            image: added.image.into(),
            existed: added.existed,
            check_changed: added.check_changed,
        }),
    ))
}

/// Reads until the head is whole: the head, and what came after it.
async fn read_head(parts: &mut BodyDataStream) -> Result<(Head, Bytes), ApiError> {
    let bad = |error: ContainerError| ApiError::bad("bad_image", error.to_string());
    let mut seen = Vec::new();
    loop {
        if let Some((head, len)) = Head::parse(&seen).map_err(bad)? {
            return Ok((head, Bytes::from(seen.split_off(len))));
        }
        match next(parts).await? {
            Some(bytes) if seen.len() < HEAD_LEN_MAX => seen.extend_from_slice(&bytes),
            _ => return Err(bad(ContainerError::CutShort)),
        }
    }
}

/// The next part of a body.
pub(super) async fn next(parts: &mut BodyDataStream) -> Result<Option<Bytes>, ApiError> {
    match tokio::time::timeout(BODY_SILENCE, parts.next()).await {
        Err(_) => Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "timeout",
            "nothing of the file came for 60 s",
        )),
        Ok(None) => Ok(None),
        Ok(Some(part)) => part
            .map(Some)
            .map_err(|error| ApiError::bad("cut_short", format!("the upload was cut: {error}"))),
    }
}

/// Why an upload did not reach the disk.
enum UploadError {
    Bad(String),
    Check(Option<u8>, CheckFault),
    Io(std::io::Error),
}

impl UploadError {
    fn into_api(self, admin: &Admin) -> ApiError {
        match self {
            Self::Bad(message) => ApiError::bad("bad_image", message),
            Self::Check(component, fault) => {
                let of = component.map_or_else(String::new, |of| format!("component {of}: "));
                ApiError::bad("check_failed", format!("{of}{fault}")).hint(fault.hint())
            }
            Self::Io(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::StorageFull
                        | std::io::ErrorKind::FileTooLarge
                        | std::io::ErrorKind::QuotaExceeded
                ) =>
            {
                StoreError::DiskFull {
                    path: admin.store.data().into(),
                }
                .into()
            }
            Self::Io(error) => StoreError::Io {
                action: "cannot write the image in",
                path: admin.store.images_dir(),
                detail: error.to_string(),
            }
            .into(),
        }
    }
}

impl From<ContainerError> for UploadError {
    fn from(error: ContainerError) -> Self {
        match error {
            ContainerError::Check(fault) => Self::Check(None, fault),
            ContainerError::Of { component, fault } => match *fault {
                ContainerError::Check(fault) => Self::Check(Some(component), fault),
                fault => Self::Bad(format!("component {component}: {fault}")),
            },
            other => Self::Bad(other.to_string()),
        }
    }
}

/// A payload on its way to the disk.
struct Taking {
    new: NewImage,
    left: usize,
    front: Vec<u8>,
}

impl Taking {
    fn begin(images: &ImageStore, size: u32) -> Result<Self, UploadError> {
        Ok(Self {
            new: images.begin().map_err(UploadError::Io)?,
            left: size as usize,
            front: Vec::new(),
        })
    }

    /// Takes of `part` what belongs to this payload.
    fn take(&mut self, part: &mut Bytes) -> Result<(), UploadError> {
        let bytes = part.split_to(part.len().min(self.left));
        self.left -= bytes.len();
        let front = bytes.iter().take(FRONT_LEN - self.front.len());
        self.front.extend(front);
        self.new.write(&bytes).map_err(UploadError::Io)
    }

    /// It is whole, or no more comes.
    fn end(self, head: &Head, place: usize) -> Result<NewImage, UploadError> {
        let (size, digest) = self.new.measured();
        head.check_payload(place, size, digest, &self.front)?;
        Ok(self.new)
    }
}

/// Writes the payloads, one behind the other as the manifest says.
fn write(
    images: &ImageStore,
    head: &Head,
    mut parts: mpsc::Receiver<Bytes>,
) -> Result<Vec<NewImage>, UploadError> {
    let sizes: Vec<u32> = head.entries().iter().map(|entry| entry.size).collect();
    let mut whole = Vec::with_capacity(sizes.len());
    let mut taking = None;
    while let Some(mut part) = parts.blocking_recv() {
        while !part.is_empty() {
            let Some(size) = sizes.get(whole.len()) else {
                return Err(UploadError::Bad(match sizes.as_slice() {
                    [size] => format!(
                        "the payload is longer than the {size} bytes that the manifest says"
                    ),
                    _ => ContainerError::TooLong(sizes.len()).to_string(),
                }));
            };
            let mut payload = match taking.take() {
                Some(payload) => payload,
                None => Taking::begin(images, *size)?,
            };
            payload.take(&mut part)?;
            if payload.left == 0 {
                whole.push(payload.end(head, whole.len())?);
            } else {
                taking = Some(payload);
            }
        }
    }
    if let Some(size) = sizes.get(whole.len()) {
        let cut = match taking {
            Some(payload) => payload,
            None => Taking::begin(images, *size)?,
        };
        whole.push(cut.end(head, whole.len())?);
    }
    Ok(whole)
}
