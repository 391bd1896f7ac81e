//! `dialhome image add | list | show | remove`; signing is in `sign.rs` and needs no gateway.

use std::io::{Cursor, IsTerminal as _, Read};
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::args::{AddArgs, ImageCommand};
use super::client::{Client, segment, stream};
use super::device::all;
use super::error::CliError;
use super::output::{Output, bytes, sheet, table, time};
use super::sign;
use crate::admin::{ImageAdded, ImageDoc, Page};

/// Time for the gateway to store an image once it has all of it, per image of any size.
const STORE_WITHIN: Duration = Duration::from_secs(600);

pub(crate) async fn run(
    command: ImageCommand,
    client: &Client,
    out: Output,
) -> Result<ExitCode, CliError> {
    match command {
        ImageCommand::Sign(_) => Ok(ExitCode::SUCCESS),
        ImageCommand::Add(command) => add(&command, client, out).await,
        ImageCommand::List => {
            let images: Page<ImageDoc> = all(client, "/v1/images").await?;
            out.show(&images, || list(&images.items))
        }
        ImageCommand::Show { image } => {
            let doc: ImageDoc = client.get(&path(&image)).await?;
            out.show(&doc, || describe(&doc))
        }
        ImageCommand::Remove { image } => {
            client.delete(&path(&image)).await?;
            out.show(&json!({"image": image, "removed": true}), || {
                format!("Image {image} is removed.")
            })
        }
    }
}

fn path(image: &str) -> String {
    format!("/v1/images/{}", segment(image))
}

async fn add(command: &AddArgs, client: &Client, out: Output) -> Result<ExitCode, CliError> {
    let signed = sign::load(&command.sign)?;
    let head = signed.container.head.to_bytes();
    let payload = signed.container.payload;
    let bar = upload_bar((head.len() + payload.len()) as u64);
    let body = stream(Cursor::new(head).chain(Cursor::new(payload)), {
        let bar = bar.clone();
        move |sent| bar.inc(sent)
    });
    let path = format!("/v1/images?change_check={}", command.change_check);
    let added = client.upload::<ImageAdded>(&path, body, STORE_WITHIN).await;
    bar.finish_and_clear();
    let (_, added) = added?;
    out.show(&added, || {
        let image = &added.image;
        let what = if added.existed {
            "was there already"
        } else {
            "is added"
        };
        let added_text = format!(
            "Image {} {what}: {}, sha256 {}",
            image.image,
            bytes(u64::from(image.size)),
            image.digest
        );
        let family = image.image.split('@').next().unwrap_or_default();
        match (added.check_changed, &image.check) {
            (false, _) => added_text,
            (true, Some(check)) => {
                format!("{added_text}\nImages of {family} need the check {check} from now on.")
            }
            (true, None) => format!("{added_text}\nImages of {family} need no check any more."),
        }
    })
}

/// A bar on a terminal, and nothing elsewhere.
pub(crate) fn upload_bar(size: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(size);
    match ProgressStyle::with_template(
        "{bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}",
    ) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn list(images: &[ImageDoc]) -> String {
    if images.is_empty() {
        return "There is no image yet: `dialhome image add` gives the gateway one.".into();
    }
    let rows: Vec<Vec<String>> = images
        .iter()
        .map(|image| {
            let digest: String = image.digest.chars().take(16).collect();
            vec![
                image.image.clone(),
                bytes(u64::from(image.size)),
                image.counter.to_string(),
                digest,
                time(image.added),
            ]
        })
        .collect();
    table(&["IMAGE", "SIZE", "COUNTER", "DIGEST", "ADDED"], &rows)
}

fn describe(image: &ImageDoc) -> String {
    sheet(&[
        ("image", Some(image.image.clone())),
        (
            "size",
            Some(format!(
                "{} ({} bytes)",
                bytes(u64::from(image.size)),
                image.size
            )),
        ),
        ("payload digest", Some(image.digest.clone())),
        ("source digest", Some(image.source_digest.clone())),
        ("manifest digest", Some(image.manifest_digest.clone())),
        (
            "counter",
            Some(format!("{}, floor {}", image.counter, image.floor)),
        ),
        (
            "hardware",
            Some(format!("{}..{}", image.hardware.0, image.hardware.1)),
        ),
        (
            "devices",
            (!image.devices.is_empty()).then(|| image.devices.join(", ")),
        ),
        ("signed by", Some(image.signers.join(", "))),
        ("check", image.check.clone()),
        ("added", Some(time(image.added))),
    ])
}
