//! `dialhome backup` and `dialhome restore`.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::time::timeout;

use super::client::{Client, stream};
use super::error::CliError;
use super::image::upload_bar;
use super::output::{Output, bytes};
use crate::store::RestoreReport;

/// Time that the gateway may be silent within a backup: it copies its database first.
const SILENCE: Duration = Duration::from_secs(600);
/// Time for the gateway to check and take over a backup that it has whole.
const RESTORE_WITHIN: Duration = Duration::from_secs(3600);

pub(crate) async fn backup(
    file: &Path,
    client: &Client,
    out: Output,
) -> Result<ExitCode, CliError> {
    if file.exists() {
        return Err(CliError::failed(
            "file_exists",
            format!(
                "{} exists already, and a backup is never overwritten.",
                file.display()
            ),
        )
        .hint("Give another name."));
    }
    // Under its own name only once it is whole.
    let draft = PathBuf::from(format!("{}.part", file.display()));
    let outcome = receive(&draft, client).await;
    let kept = outcome.and_then(|size| {
        std::fs::rename(&draft, file)
            .map(|()| size)
            .map_err(|error| broken(file, &error))
    });
    if kept.is_err() {
        let _ = std::fs::remove_file(&draft);
    }
    let size = kept?;
    out.show(&json!({"file": file, "size": size}), || {
        format!(
            "{} holds everything, {} with every key: keep it as secret as the gateway itself.",
            file.display(),
            bytes(size)
        )
    })
}

async fn receive(path: &Path, client: &Client) -> Result<u64, CliError> {
    let fault = |error: std::io::Error| broken(path, &error);
    let mut body = client.stream("/v1/backup").await?;
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(fault)?;
    let bar = upload_bar(0);
    let mut size = 0;
    let cut = || {
        CliError::failed("cut_short", "The backup was cut off.")
            .hint("The gateway's log says why; nothing was kept.")
    };
    loop {
        match timeout(SILENCE, body.frame()).await {
            Err(_) | Ok(Some(Err(_))) => return Err(cut()),
            Ok(None) => break,
            Ok(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    file.write_all(data).map_err(fault)?;
                    size += data.len() as u64;
                    bar.set_length(size);
                    bar.set_position(size);
                }
            }
        }
    }
    bar.finish_and_clear();
    file.sync_all().map_err(fault)?;
    Ok(size)
}

fn broken(path: &Path, error: &std::io::Error) -> CliError {
    CliError::failed(
        "file",
        format!("{} cannot be written: {error}.", path.display()),
    )
}

pub(crate) async fn restore(
    path: &Path,
    client: &Client,
    out: Output,
) -> Result<ExitCode, CliError> {
    let file = File::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            CliError::failed("file", format!("There is no file {}.", path.display()))
        }
        _ => CliError::failed(
            "file",
            format!("{} cannot be read: {error}.", path.display()),
        ),
    })?;
    let size = file.metadata().map_or(0, |file| file.len());
    let bar = upload_bar(size);
    let body = stream(file, {
        let bar = bar.clone();
        move |sent| bar.inc(sent)
    });
    let restored = client
        .upload::<RestoreReport>("/v1/restore", body, RESTORE_WITHIN)
        .await;
    bar.finish_and_clear();
    let (_, report) = restored?;
    out.show(&report, || {
        let RestoreReport { backup, images_added } = &report;
        format!(
            "The gateway is as it was at {}: {} devices, {} images in {} files ({images_added} of these were missing). Every session was closed; the boards dial again.",
            super::output::time(backup.created),
            backup.devices,
            backup.images,
            backup.image_files
        )
    })
}
