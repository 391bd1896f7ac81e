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
use crate::admin::{ImageAdded, ImageDoc, ImageEntryDoc, Page};

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
    let payloads = signed.container.payloads;
    let len: usize = payloads.iter().map(Vec::len).sum();
    let bar = upload_bar((head.len() + len) as u64);
    let body: Box<dyn Read + Send> = Box::new(Cursor::new(head));
    let body = payloads.into_iter().fold(body, |body, payload| {
        Box::new(body.chain(Cursor::new(payload)))
    });
    let body = stream(body, {
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
        let size = bytes(u64::from(image.size));
        let mut text = format!("Image {} {what}: {size}", image.image);
        if image.entries.len() > 1 {
            for entry in &image.entries {
                let size = bytes(u64::from(entry.size));
                text.push_str(&format!(
                    "\n  component {}: {size}, sha256 {}",
                    entry.component, entry.digest
                ));
            }
        } else {
            text.push_str(&format!(", sha256 {}", image.digest));
        }
        for entry in image.entries.iter().filter(|_| added.check_changed) {
            let family = match entry.component {
                0 => image.product.clone(),
                component => format!("{}/{component}", image.product),
            };
            text.push_str(&match &entry.check {
                Some(check) => format!("\nImages of {family} need the check {check} from now on."),
                None if image.entries.len() > 1 => format!("\nImages of {family} need no check."),
                None => format!("\nImages of {family} need no check any more."),
            });
        }
        text
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
            let of_each = |text: fn(&ImageEntryDoc) -> String| -> String {
                let entries: Vec<String> = image.entries.iter().map(text).collect();
                entries.join(",")
            };
            vec![
                image.image.clone(),
                bytes(u64::from(image.size)),
                of_each(|entry| entry.counter.to_string()),
                of_each(|entry| entry.digest.chars().take(16).collect()),
                time(image.added),
            ]
        })
        .collect();
    table(&["IMAGE", "SIZE", "COUNTER", "DIGEST", "ADDED"], &rows)
}

fn describe(image: &ImageDoc) -> String {
    let size = (
        "size",
        Some(format!(
            "{} ({} bytes)",
            bytes(u64::from(image.size)),
            image.size
        )),
    );
    let all = [
        ("manifest digest", Some(image.manifest_digest.clone())),
        (
            "devices",
            (!image.devices.is_empty()).then(|| image.devices.join(", ")),
        ),
        ("signed by", Some(image.signers.join(", "))),
        ("added", Some(time(image.added))),
    ];
    let [manifest, devices, signers, added] = all;
    if let [entry] = image.entries.as_slice() {
        return sheet(&[
            ("image", Some(image.image.clone())),
            size,
            ("payload digest", Some(entry.digest.clone())),
            ("source digest", Some(entry.source_digest.clone())),
            manifest,
            ("counter", Some(order(entry))),
            ("hardware", Some(hardware(entry))),
            devices,
            signers,
            ("check", entry.check.clone()),
            added,
        ]);
    }
    let mut text = sheet(&[
        ("image", Some(image.image.clone())),
        size,
        manifest,
        devices,
        signers,
        added,
    ]);
    for entry in &image.entries {
        text.push_str(&format!("\ncomponent {}\n", entry.component));
        text.push_str(&sheet(&[
            ("  version", Some(entry.version.clone())),
            (
                "  size",
                Some(format!(
                    "{} ({} bytes)",
                    bytes(u64::from(entry.size)),
                    entry.size
                )),
            ),
            ("  payload digest", Some(entry.digest.clone())),
            ("  source digest", Some(entry.source_digest.clone())),
            ("  counter", Some(order(entry))),
            ("  hardware", Some(hardware(entry))),
            ("  check", entry.check.clone()),
        ]));
    }
    text
}

fn order(entry: &ImageEntryDoc) -> String {
    format!("{}, floor {}", entry.counter, entry.floor)
}

fn hardware(entry: &ImageEntryDoc) -> String {
    format!("{}..{}", entry.hardware.0, entry.hardware.1)
}
