//! /v1/backup and /v1/restore: one file with everything, keys included.

use std::io::{self, Write};
use std::path::PathBuf;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use dialhome_proto::code::CloseCode;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::error::{ApiError, ErrorDoc};
use super::images::next;
use super::{Admin, Api};
use crate::store::{RestoreReport, StoreError};

/// Parts of a backup on their way to the client.
const PARTS: usize = 8;
/// Bytes of a part.
const PART: usize = 64 * 1024;

/// A backup of everything, keys included, as a tar archive. It is made while the gateway works. Its last member is
/// `complete`: an archive without it was cut off.
#[utoipa::path(get, path = "/v1/backup", responses((status = 200, body = Vec<u8>, content_type = "application/x-tar"), (status = 500, body = ErrorDoc)))]
pub(super) async fn backup(State(admin): Api) -> Response {
    let (send, receive) = mpsc::channel(PARTS);
    tokio::task::spawn_blocking(move || {
        let out = Parts {
            send: send.clone(),
            part: Vec::with_capacity(PART),
        };
        if let Err(error) = admin.store.backup(out) {
            tracing::warn!(%error, "a backup was not finished");
            // Breaks the response, so that the client sees that it is not whole.
            let _ = send.blocking_send(Err(io::Error::other(error.to_string())));
        }
    });
    (
        [(CONTENT_TYPE, "application/x-tar")],
        Body::from_stream(ReceiverStream::new(receive)),
    )
        .into_response()
}

/// Gathers what is written into parts of a body.
struct Parts {
    send: mpsc::Sender<Result<Bytes, io::Error>>,
    part: Vec<u8>,
}

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.part.extend_from_slice(bytes);
        if self.part.len() >= PART {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.part.is_empty() {
            return Ok(());
        }
        let part = std::mem::replace(&mut self.part, Vec::with_capacity(PART));
        self.send
            .blocking_send(Ok(part.into()))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Puts a backup in place of everything. It is checked whole first: where it is not whole, nothing changes. Then
/// every session is closed; the boards dial again.
#[utoipa::path(post, path = "/v1/restore", request_body(content = Vec<u8>, content_type = "application/x-tar"),
    responses((status = 200, body = RestoreReport), (status = 400, body = ErrorDoc), (status = 507, body = ErrorDoc)))]
pub(super) async fn restore(
    State(admin): Api,
    body: Body,
) -> Result<Json<RestoreReport>, ApiError> {
    // On its own: a client that goes away must not leave the store swapped and the sessions of the old one open.
    let restoring = tokio::spawn(async move {
        let upload = admin.store.upload_path()?;
        let report = match receive(&admin, &upload, body).await {
            Ok(()) => admin
                .store
                .restore(upload.clone())
                .await
                .map_err(ApiError::from),
            Err(error) => Err(error),
        };
        let _ = tokio::task::spawn_blocking(move || std::fs::remove_file(upload)).await;
        let report = report?;
        admin.live.close_all(CloseCode::STOPPING);
        Ok(Json(report))
    });
    restoring
        .await
        .map_err(|_| ApiError::from(StoreError::Stopped))?
}

/// Writes a body to a file.
async fn receive(admin: &Admin, path: &std::path::Path, body: Body) -> Result<(), ApiError> {
    let mut parts = body.into_data_stream();
    let (send, mut receive) = mpsc::channel::<Bytes>(PARTS);
    let target: PathBuf = path.into();
    let writing = tokio::task::spawn_blocking(move || {
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(target)?;
        while let Some(part) = receive.blocking_recv() {
            file.write_all(&part)?;
        }
        Ok::<_, io::Error>(())
    });
    let mut cut = None;
    loop {
        match next(&mut parts).await {
            Ok(Some(part)) => {
                if send.send(part).await.is_err() {
                    break;
                }
            }
            Ok(None) => break,
            Err(error) => {
                cut = Some(error);
                break;
            }
        }
    }
    drop(send);
    let written = writing
        .await
        .map_err(|_| ApiError::from(StoreError::Stopped))?;
    match (written, cut) {
        (Ok(()), None) => Ok(()),
        (_, Some(error)) => Err(error),
        (Err(error), None) if error.kind() == io::ErrorKind::StorageFull => {
            Err(StoreError::DiskFull {
                path: admin.store.data().into(),
            }
            .into())
        }
        (Err(error), None) => Err(StoreError::Io {
            action: "cannot write",
            path: path.into(),
            detail: error.to_string(),
        }
        .into()),
    }
}
