//! `dialhome device ...`

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::args::{DeviceAddArgs, DeviceCommand};
use super::client::{Client, segment};
use super::error::CliError;
use super::output::{Output, bytes, print, sheet, table, time};
use crate::admin::{DeviceAdded, DeviceToAdd, GatewaysToSet, Page};
use crate::image::key::{read_private, read_public};
use crate::image::sign::sign_gateways;
use crate::store::docs::{DeviceDoc, EventDoc};
use crate::store::hex;

/// The file that a device's agent takes as it is.
#[derive(Serialize)]
struct Provisioning<'a> {
    id: &'a str,
    product: &'a str,
    key: &'a str,
    gateways: &'a [String],
    pins: &'a [String],
    trust: Trust<'a>,
}

#[derive(Serialize)]
struct Trust<'a> {
    epoch: u32,
    threshold: u8,
    keys: &'a [String],
}

pub(crate) async fn run(
    command: DeviceCommand,
    client: &Client,
    out: Output,
) -> Result<ExitCode, CliError> {
    let post = |id: &str, action: &str| format!("/v1/devices/{}/{action}", segment(id));
    match command {
        DeviceCommand::Add(args) => add(&args, client, out).await,
        // Needs no gateway: the caller has done it.
        DeviceCommand::Pack(_) => Ok(ExitCode::SUCCESS),
        DeviceCommand::List => list(client, out).await,
        DeviceCommand::Show { id } => {
            let doc: DeviceDoc = client.get(&format!("/v1/devices/{}", segment(&id))).await?;
            out.show(&doc, || describe(&doc))
        }
        DeviceCommand::Log { id } => {
            let page: Page<EventDoc> = client
                .get(&format!("/v1/devices/{}/log?limit=1000", segment(&id)))
                .await?;
            out.show(&page, || {
                page.items
                    .iter()
                    .map(super::events::line)
                    .collect::<Vec<_>>()
                    .join("\n")
            })
        }
        DeviceCommand::Check { id, count, within } => {
            super::check::run(&id, count, within, client, out).await
        }
        DeviceCommand::Remove { id } => {
            client
                .delete(&format!("/v1/devices/{}", segment(&id)))
                .await?;
            out.show(&json!({"device": id, "removed": true}), || {
                format!("Device {id} and its key are removed.")
            })
        }
        DeviceCommand::RotateKey { id } => {
            let doc: DeviceDoc = client
                .send(Method::POST, &post(&id, "rotate-key"), None::<&()>)
                .await?;
            out.show(&doc, || {
                format!(
                    "Device {id} is given a new key{}; both keys work until it uses the new one.",
                    when(&doc)
                )
            })
        }
        DeviceCommand::SetGateways { id, gateways, key } => {
            set_gateways(&id, &gateways, &key, client, out).await
        }
    }
}

fn when(doc: &DeviceDoc) -> &'static str {
    if doc.online {
        ""
    } else {
        " when it dials home"
    }
}

async fn add(args: &DeviceAddArgs, client: &Client, out: Output) -> Result<ExitCode, CliError> {
    let trust = args
        .trust
        .iter()
        .map(|path| Ok(hex(&read_public(path)?)))
        .collect::<Result<_, CliError>>()?;
    // Made before the device is: a key that cannot be written would be lost.
    let file = args.out.as_deref().map(create).transpose()?;
    let new = DeviceToAdd {
        device: args.id.clone(),
        product: args.product.clone(),
        trust,
        gateways: args.gateway.clone(),
    };
    let added = client
        .send::<DeviceAdded>(Method::POST, "/v1/devices", Some(&new))
        .await;
    let added = match (added, &args.out) {
        (Ok(added), _) => added,
        (Err(error), Some(path)) => {
            let _ = std::fs::remove_file(path);
            return Err(error);
        }
        (Err(error), None) => return Err(error),
    };
    let text = provisioning(&added)?;
    match (file, &args.out) {
        (Some(mut file), Some(path)) => {
            let written = file
                .write_all(text.as_bytes())
                .and_then(|()| file.sync_all());
            if let Err(error) = written {
                return Err(CliError::failed("file", format!("{} cannot be written: {error}.", path.display()))
                    .hint(format!("The device is there, and its key is lost: `dialhome device remove {}` and add it again.", args.id)));
            }
            let doc = json!({"device": added.device, "provisioning_file": path});
            out.show(&flat(doc), || {
                format!(
                    "Device {} is added. Its agent takes {} (it holds the device's key).",
                    args.id,
                    path.display()
                )
            })
        }
        _ if out.json => {
            out.json_line(&flat(json!({"device": added.device, "provisioning": text})))?;
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            print(text.trim_end())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The device's document with the other fields beside its own.
fn flat(mut doc: serde_json::Value) -> serde_json::Value {
    let device = doc
        .as_object_mut()
        .and_then(|fields| fields.remove("device"));
    let (Some(serde_json::Value::Object(mut device)), serde_json::Value::Object(rest)) =
        (device, doc)
    else {
        return serde_json::Value::Null;
    };
    device.extend(rest);
    device.into()
}

fn provisioning(added: &DeviceAdded) -> Result<String, CliError> {
    let file = Provisioning {
        id: &added.device.device,
        product: &added.device.product,
        key: &added.key,
        gateways: &added.gateways,
        pins: &added.pins,
        trust: Trust {
            epoch: added.trust_epoch,
            threshold: added.trust_threshold,
            keys: &added.trust,
        },
    };
    let body =
        toml::to_string(&file).map_err(|error| CliError::failed("internal", error.to_string()))?;
    Ok(format!(
        "# Dialhome: what device {} is given. Whoever has the key is the device: keep this file secret.\n{body}",
        file.id
    ))
}

/// Makes a file for a key: mode 0600, and never over one that exists.
pub(crate) fn create(path: &Path) -> Result<File, CliError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => CliError::failed(
                "file_exists",
                format!(
                    "{} exists already, and a key is never overwritten.",
                    path.display()
                ),
            )
            .hint("Move it away, or give another name with --out."),
            _ => CliError::failed(
                "file",
                format!("{} cannot be written: {error}.", path.display()),
            ),
        })
}

async fn list(client: &Client, out: Output) -> Result<ExitCode, CliError> {
    let devices: Page<DeviceDoc> = all(client, "/v1/devices").await?;
    out.show(&devices, || {
        if devices.items.is_empty() {
            return "There is no device yet: `dialhome device add` makes one.".into();
        }
        let rows: Vec<Vec<String>> = devices
            .items
            .iter()
            .map(|device| {
                let version = device
                    .components
                    .first()
                    .map_or("-", |component| &component.version);
                vec![
                    device.device.clone(),
                    device.product.clone(),
                    device.presence.clone(),
                    version.to_owned(),
                    device.last_contact.map_or_else(|| "never".into(), time),
                    device.waiting_for.clone().unwrap_or_default(),
                ]
            })
            .collect();
        table(
            &[
                "DEVICE",
                "PRODUCT",
                "PRESENCE",
                "VERSION",
                "LAST CONTACT",
                "WAITING FOR",
            ],
            &rows,
        )
    })
}

/// Every page of a list, as one.
pub(crate) async fn all<T: for<'a> Deserialize<'a>>(
    client: &Client,
    path: &str,
) -> Result<Page<T>, CliError> {
    let mut whole = Page {
        items: Vec::new(),
        next: None,
    };
    let mut query = format!("{path}?limit=1000");
    loop {
        let page: Page<T> = client.get(&query).await?;
        whole.items.extend(page.items);
        let Some(next) = page.next else {
            return Ok(whole);
        };
        query = format!("{path}?limit=1000&after={}", segment(&next));
    }
}

fn describe(device: &DeviceDoc) -> String {
    let mut text = sheet(&[
        ("device", Some(device.device.clone())),
        ("product", Some(device.product.clone())),
        (
            "presence",
            Some(if device.hold {
                format!("{}, on hold", device.presence)
            } else {
                device.presence.clone()
            }),
        ),
        (
            "last contact",
            Some(device.last_contact.map_or_else(|| "never".into(), time)),
        ),
        (
            "last disconnect",
            device
                .last_disconnect
                .as_ref()
                .map(|last| format!("{} ({})", time(last.at), last.reason)),
        ),
        ("transport", device.transport.clone()),
        ("peer", device.peer.clone()),
        (
            "quic",
            device.quic.map(|quic| {
                format!(
                    "{} packets lost ({}), {} changes of address",
                    quic.lost_packets,
                    bytes(quic.lost_bytes),
                    quic.address_changes
                )
            }),
        ),
        ("network", device.network.clone()),
        ("key handle", Some(device.key_handle.clone())),
        ("gateways", Some(device.gateways.join(", "))),
        ("update", device.update.clone()),
        (
            "air bytes",
            Some(format!(
                "{} sent, {} received",
                bytes(device.air_bytes.sent),
                bytes(device.air_bytes.received)
            )),
        ),
        ("waiting for", device.waiting_for.clone()),
    ]);
    for component in &device.components {
        text.push_str(&format!("\ncomponent {}\n", component.component));
        let rows = sheet(&[
            ("  version", Some(component.version.clone())),
            (
                "  counter",
                component.counter.map(|counter| counter.to_string()),
            ),
            (
                "  digest",
                Some(format!(
                    "{} ({})",
                    component.digest.as_deref().unwrap_or("-"),
                    component.digest_from
                )),
            ),
            ("  booted by", Some(component.boot_reason.clone())),
            ("  on trial for", component.trial.clone()),
            ("  revert", Some(component.revert.clone())),
        ]);
        text.push_str(&rows);
    }
    text
}

async fn set_gateways(
    id: &str,
    gateways: &[String],
    keys: &[PathBuf],
    client: &Client,
    out: Output,
) -> Result<ExitCode, CliError> {
    let keys = keys
        .iter()
        .map(|path| read_private(path))
        .collect::<Result<Vec<_>, _>>()?;
    let path = format!("/v1/devices/{}/gateways", segment(id));
    let known: serde_json::Value = client.get(&path).await?;
    let known = known["epoch"].as_u64().unwrap_or(0);
    // The clock, so that an epoch does not come again after a restore from an older backup.
    let clock = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
    let epoch = u32::try_from(clock.max(known + 1)).unwrap_or(u32::MAX);
    let names: Vec<&str> = gateways.iter().map(String::as_str).collect();
    let statement = sign_gateways(id, epoch, &names, &keys).map_err(|error| {
        CliError::failed(
            "bad_statement",
            format!("The list of gateways cannot be signed: {error}."),
        )
    })?;
    let doc: DeviceDoc = client
        .send(
            Method::PUT,
            &path,
            Some(&GatewaysToSet {
                statement: hex(&statement),
            }),
        )
        .await?;
    out.show(&doc, || {
        format!(
            "Device {id} is given the list {}{}.",
            gateways.join(", "),
            when(&doc)
        )
    })
}
