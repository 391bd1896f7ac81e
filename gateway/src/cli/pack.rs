//! `dialhome device pack`: a provisioning file to the record for boards that read no TOML
//! (spec/protocol.md section 11.2), on the operator's machine, without a gateway.

use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use dialhome_proto::id::decode_hex;
use dialhome_proto::limits::{GATEWAYS_MAX, PINS_MAX, TRUST_KEYS_MAX, TRUST_MINIMUMS_MAX};
use dialhome_proto::provision::{RECORD_MAX, Record};
use dialhome_proto::trust::TrustSet;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::device::create;
use super::error::CliError;

/// The arguments of `dialhome device pack`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub(crate) struct PackArgs {
    /// The file that `device add --out` wrote
    #[arg(value_name = "FILE.toml")]
    file: PathBuf,
    /// Where the record goes (mode 0600); it must not exist
    #[arg(long, value_name = "FILE.bin")]
    out: PathBuf,
}

/// A record that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Packed {
    /// The device.
    device: String,
    /// Its product.
    product: String,
    /// The file that was written.
    record: PathBuf,
    /// Its length in bytes.
    bytes: usize,
}

impl fmt::Display for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "The record of device {}, {} bytes, is in {} (it holds the device's key).",
            self.device,
            self.bytes,
            self.record.display()
        )
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Provisioning {
    id: String,
    product: String,
    key: String,
    gateways: Vec<String>,
    #[serde(default)]
    pins: Vec<String>,
    trust: Option<Trust>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Trust {
    epoch: u32,
    #[serde(default = "one")]
    threshold: u8,
    keys: Vec<String>,
    #[serde(default)]
    minimums: Vec<Minimum>,
}

const fn one() -> u8 {
    1
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Minimum {
    component: u8,
    counter: u64,
}

/// Packs the file.
pub(crate) fn run(args: &PackArgs) -> Result<Packed, CliError> {
    let text = std::fs::read_to_string(&args.file).map(Zeroizing::new);
    let text = text.map_err(|error| {
        CliError::failed(
            "file",
            format!("{} cannot be read: {error}.", args.file.display()),
        )
        .hint("Give the file that `dialhome device add --out FILE` wrote.")
    })?;
    let mut given = read(&text, &args.file)?;
    let key = Zeroizing::new(std::mem::take(&mut given.key));
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).map_err(|error| {
        CliError::failed(
            "system",
            format!("The system gave no random bytes for the seed: {error}."),
        )
    })?;
    let mut bytes = Zeroizing::new([0; RECORD_MAX]);
    let len = encode(&given, &key, &seed, &mut bytes).map_err(|fault| fault.told(&args.file))?;
    let mut file = create(&args.out)?;
    let written = bytes
        .get(..len)
        .map_or(Ok(()), |record| file.write_all(record))
        .and_then(|()| file.sync_all());
    if let Err(error) = written {
        drop(std::fs::remove_file(&args.out));
        return Err(CliError::failed(
            "file",
            format!("{} cannot be written: {error}.", args.out.display()),
        ));
    }
    Ok(Packed {
        device: given.id,
        product: given.product,
        record: args.out.clone(),
        bytes: len,
    })
}

/// What is wrong with one key of the file. The device key itself is never part of the message.
struct Fault {
    key: &'static str,
    problem: String,
}

impl Fault {
    fn told(&self, path: &Path) -> CliError {
        CliError::failed(
            "bad_provisioning",
            format!("{}, key `{}`: {}.", path.display(), self.key, self.problem),
        )
        .hint("Correct it, or take the file as `dialhome device add` wrote it.")
    }
}

fn read(text: &str, path: &Path) -> Result<Provisioning, CliError> {
    toml::from_str(text).map_err(|fault: toml::de::Error| {
        let place = fault
            .span()
            .and_then(|span| text.get(..span.start))
            .map(|before| format!(", line {}", before.matches('\n').count() + 1));
        let message = fault.message();
        // "invalid type: string "SECRET", expected ..." shows the value: it is left out.
        let message = match (message.starts_with("invalid"), message.find(", expected ")) {
            (true, Some(expected)) => {
                let kind = message.split(':').next().unwrap_or("invalid value");
                format!("{kind}{}", &message[expected..])
            }
            _ => message.trim_end_matches('.').to_owned(),
        };
        let failed = CliError::failed(
            "bad_provisioning",
            format!("{}{}: {message}.", path.display(), place.unwrap_or_default()),
        );
        if message.starts_with("unknown field") {
            failed.hint("A record has room for what `dialhome device add` writes; settings of the Linux agent stay out of it.")
        } else {
            failed.hint("Correct this line, or take the file as `dialhome device add` wrote it.")
        }
    })
}

fn encode(
    given: &Provisioning,
    key_digits: &str,
    seed: &[u8; 32],
    out: &mut [u8; RECORD_MAX],
) -> Result<usize, Fault> {
    let mut key = Zeroizing::new([0; 32]);
    if !decode_hex(key_digits, &mut *key) {
        return Err(Fault {
            key: "key",
            problem: "it is not 64 hexadecimal digits".into(),
        });
    }
    let pins = given
        .pins
        .iter()
        .map(|pin| digits("pins", pin))
        .collect::<Result<Vec<_>, _>>()?;
    at_most("pins", pins.len(), PINS_MAX)?;
    at_most("gateways", given.gateways.len(), GATEWAYS_MAX)?;
    let record = Record {
        device: &given.id,
        product: &given.product,
        key: &key,
        seed,
        gateways: given.gateways.iter().map(String::as_str).collect(),
        pins: &pins,
        trust: given.trust.as_ref().map(trust).transpose()?,
    };
    record.encode(out).map_err(|fault| {
        use dialhome_proto::provision::RecordFault;
        out.zeroize();
        let key = match fault {
            RecordFault::Device => "id",
            RecordFault::Product => "product",
            RecordFault::Gateways => "gateways",
            RecordFault::Trust(_) => "trust",
            _ => "pins",
        };
        Fault {
            key,
            problem: fault.to_string(),
        }
    })
}

fn trust(given: &Trust) -> Result<TrustSet, Fault> {
    at_most("trust.keys", given.keys.len(), TRUST_KEYS_MAX)?;
    at_most("trust.minimums", given.minimums.len(), TRUST_MINIMUMS_MAX)?;
    Ok(TrustSet {
        epoch: given.epoch,
        threshold: given.threshold,
        keys: given
            .keys
            .iter()
            .map(|key| digits("trust.keys", key))
            .collect::<Result<_, _>>()?,
        minimums: given
            .minimums
            .iter()
            .map(|minimum| (minimum.component, minimum.counter))
            .collect(),
    })
}

fn digits(key: &'static str, text: &str) -> Result<[u8; 32], Fault> {
    let mut bytes = [0; 32];
    if decode_hex(text, &mut bytes) {
        return Ok(bytes);
    }
    Err(Fault {
        key,
        problem: format!("\"{text}\" is not 64 hexadecimal digits"),
    })
}

fn at_most(key: &'static str, found: usize, max: usize) -> Result<(), Fault> {
    if found <= max {
        return Ok(());
    }
    Err(Fault {
        key,
        problem: format!("there are {found}, and at most {max} fit"),
    })
}
