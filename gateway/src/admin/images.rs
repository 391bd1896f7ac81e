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
use crate::store::{ImageRecord, StoreError};

/// Largest image that is taken, in bytes (1 GiB).
const IMAGE_MAX: u32 = 1 << 30;
/// Parts of a body on their way to the disk: so many times what hyper reads at once, some 400 KiB, bound an upload's memory.
const PARTS: usize = 8;
/// Time that a client may be silent within a body.
pub(super) const BODY_SILENCE: Duration = Duration::from_secs(60);

/// An image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageDoc {
    /// `P[/component]@V`.
    pub image: String,
    /// The product.
    pub product: String,
    /// The component.
    pub component: u8,
    /// The version text.
    pub version: String,
    /// SHA-256 of the payload, 64 hexadecimal digits.
    pub digest: String,
    /// SHA-256 of the file that it was made from; the same as `digest` where the file went unchanged.
    pub source_digest: String,
    /// SHA-256 of the manifest's body.
    pub manifest_digest: String,
    /// The payload's size in bytes.
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
    /// When it was added.
    #[schema(value_type = String, format = DateTime)]
    pub added: Timestamp,
}

impl From<ImageRecord> for ImageDoc {
    fn from(record: ImageRecord) -> Self {
        Self {
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

/// Adds a signed image: the body is a `.dhi` file. 201: added; 200: the very same was there already.
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
    if record.size > IMAGE_MAX {
        return Err(ApiError::bad(
            "too_big",
            format!(
                "an image of {} bytes is too big: at most {IMAGE_MAX} are taken",
                record.size
            ),
        ));
    }
    let (send, receive) = mpsc::channel(PARTS);
    let (images, size) = (Arc::clone(&admin.images), record.size);
    let writing = tokio::task::spawn_blocking(move || write(&images, &head, size, receive));
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
    let kept = tokio::task::spawn_blocking(move || images.keep(new))
        .await
        .map_err(|_| ApiError::from(StoreError::Stopped))?;
    kept.map_err(|error| UploadError::Io(error).into_api(&admin))?;
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
    Check(CheckFault),
    Io(std::io::Error),
}

impl UploadError {
    fn into_api(self, admin: &Admin) -> ApiError {
        match self {
            Self::Bad(message) => ApiError::bad("bad_image", message),
            Self::Check(fault) => {
                ApiError::bad("check_failed", fault.to_string()).hint(fault.hint())
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

fn write(
    images: &ImageStore,
    head: &Head,
    size: u32,
    mut parts: mpsc::Receiver<Bytes>,
) -> Result<NewImage, UploadError> {
    let mut new = images.begin().map_err(UploadError::Io)?;
    let mut left = u64::from(size);
    let mut front = Vec::new();
    while let Some(part) = parts.blocking_recv() {
        left = left.checked_sub(part.len() as u64).ok_or_else(|| {
            UploadError::Bad(format!(
                "the payload is longer than the {size} bytes that the manifest says"
            ))
        })?;
        front.extend(part.iter().take(FRONT_LEN - front.len()));
        new.write(&part).map_err(UploadError::Io)?;
    }
    let (size, digest) = new.measured();
    head.check_payload(size, digest, &front)
        .map_err(|error| match error {
            ContainerError::Check(fault) => UploadError::Check(fault),
            other => UploadError::Bad(other.to_string()),
        })?;
    Ok(new)
}
