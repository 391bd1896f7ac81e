//! `dialhome image sign`: a firmware file to a signed image, on the operator's machine, without a gateway.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use dialhome_proto::id::Digest;
use dialhome_proto::manifest::{ManifestFault, Required, TrialBudget};
use ed25519_dalek::SigningKey;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::client::sentence;
use super::entries::EntryArg;
use super::error::CliError;
use crate::image::check::{Check, CheckFault};
use crate::image::container::{Container, ContainerError, Head, MAGIC, Origin};
use crate::image::hex::{HexError, Select};
use crate::image::key;
use crate::image::name::{ImageName, NameError};
use crate::image::sign::{Part, Release, SignError, sign_parts};
use crate::image::source::{Format, make};

/// A file and how it is to be signed: the arguments that `image sign` and `image add` share.
///
/// `image add` also takes a file that is signed already, so no option is required by the parser; [`run`] and
/// [`load`] say what is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct SignArgs {
    /// The firmware: .hex and .ihex become a flat image, every other file goes unchanged
    #[arg(
        value_name = "FILE",
        required_unless_present = "entry",
        conflicts_with = "entry"
    )]
    pub file: Option<PathBuf>,
    /// Instead of FILE, for several components in the order of installation: each one's firmware. Behind it
    /// counter=N, floor=N, hardware=A..B, require=COMPONENT=SHA256, check=CHECK, raw, segment=ADDR, skip=ADDR-ADDR
    /// may follow, with commas
    #[arg(long, value_name = "COMPONENT=FILE[@VERSION]", conflicts_with_all = ["component", "require", "check", "raw", "segment", "skip"])]
    pub entry: Vec<EntryArg>,
    /// The product that the image is for
    #[arg(long, value_name = "P")]
    pub product: Option<String>,
    /// The image's version, for people: letters, digits and . _ + ~ -; also of each --entry that names none
    #[arg(long, value_name = "V")]
    pub version: Option<String>,
    /// A private key that signs; up to three, for boards that ask for several signatures
    #[arg(long, value_name = "FILE")]
    pub key: Vec<PathBuf>,
    /// The component that it is for [default: 0, the main one]
    #[arg(long, value_name = "N")]
    pub component: Option<u8>,
    /// Its place in the order of images [default: the time in Unix seconds]
    #[arg(long, value_name = "N")]
    pub counter: Option<u64>,
    /// Once this image is confirmed, the board takes nothing with a lower counter, for ever [default: 0, which
    /// rules nothing out]
    #[arg(long, value_name = "N")]
    pub floor: Option<u64>,
    /// Hardware revisions that it is for, both ends included [default: 0..65535]
    #[arg(long, value_name = "A..B")]
    pub hardware: Option<Hardware>,
    /// Only for this device; up to four
    #[arg(long, value_name = "ID")]
    pub device: Vec<String>,
    /// Another component must run this image; up to two
    #[arg(long, value_name = "COMPONENT=SHA256")]
    pub require: Vec<Require>,
    /// Refuse the image unless it has what its boards' first boot stage needs: sdu or sdu:BASE for Arduino's SDU
    #[arg(long, value_name = "CHECK")]
    pub check: Option<Check>,
    /// Mark it as a security update
    #[arg(long)]
    pub security: bool,
    /// Boots that it has to prove itself [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    pub trial_boots: Option<u8>,
    /// Failed dials, while the link is up, that it has to prove itself [default: 20]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub trial_dials: Option<u16>,
    /// Time awake that it has to prove itself, as in 90m or 24h [default: 24h]
    #[arg(long, value_name = "DUR", value_parser = trial_awake)]
    pub trial_awake: Option<u32>,
    /// Take the file as it is, whatever it is called
    #[arg(long, conflicts_with_all = ["segment", "skip"])]
    pub raw: bool,
    /// Of an Intel HEX file, take the segment that holds this address
    #[arg(long, value_name = "ADDR", value_parser = address, conflicts_with = "skip")]
    pub segment: Option<u32>,
    /// Of an Intel HEX file, leave this range out, both ends included; may be repeated
    #[arg(long, value_name = "ADDR-ADDR")]
    pub skip: Vec<Skip>,
}

/// The arguments of `dialhome image sign`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct SignCommand {
    /// What to sign, and how.
    #[command(flatten)]
    pub sign: SignArgs,
    /// Where the signed image goes; a file that is there is replaced
    #[arg(long, value_name = "X.dhi")]
    pub out: PathBuf,
}

/// `A..B`, or `N` for one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hardware(pub RangeInclusive<u16>);

impl FromStr for Hardware {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) if first <= last => Ok(Self(first..=last)),
            (Ok::<u16, _>(_), Ok::<u16, _>(_)) => {
                Err("the first revision is above the last".into())
            }
            _ => Err("write A..B with numbers from 0 to 65535, as in 3..5".into()),
        }
    }
}

/// `ADDR-ADDR`, first and last address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip(pub RangeInclusive<u32>);

impl FromStr for Skip {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text
            .split_once('-')
            .ok_or("write the first and the last address, as in 0x10001000-0x100010FF")?;
        let (first, last) = (address(first)?, address(last)?);
        if first > last {
            return Err("the first address is above the last".into());
        }
        Ok(Self(first..=last))
    }
}

/// `COMPONENT=SHA256`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Require(pub Required);

impl FromStr for Require {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = "write COMPONENT=SHA256: a number from 0 to 255 and 64 hexadecimal digits";
        let (component, digest) = text.split_once('=').ok_or(form)?;
        Ok(Self(Required {
            component: component.parse().map_err(|_| form)?,
            digest: Digest::from_hex(digest).ok_or(form)?,
        }))
    }
}

/// An address in hexadecimal (`0x...`) or decimal digits.
pub(super) fn address(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("`{text}` is not an address: write it as in 0x10001000"))
}

fn trial_awake(text: &str) -> Result<u32, String> {
    let form = "write a time from 1s on, as in 90m or 24h";
    let duration: SignedDuration = text.parse().map_err(|_| form)?;
    match u32::try_from(duration.as_secs()) {
        Ok(seconds) if seconds > 0 => Ok(seconds),
        _ => Err(form.into()),
    }
}

/// A signed image, and what a person should know about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Manifest, sources and payloads.
    pub container: Container,
    /// How each payload was made; nothing where the file was signed before.
    pub flat: Vec<Flat>,
}

/// How a payload was made of Intel HEX.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flat {
    /// Address of the image's first byte.
    pub base: Option<u32>,
    /// Bytes that the file did not mention, filled with 0xFF.
    pub filled: usize,
}

impl Signed {
    /// The facts for people and scripts.
    #[must_use]
    pub fn summary(&self, out: Option<&Path>) -> Summary {
        let head = &self.container.head;
        let manifest = head.parsed();
        let entries: Vec<EntrySummary> = manifest
            .entries()
            .zip(&head.origins)
            .enumerate()
            .map(|(place, (entry, origin))| {
                let flat = self.flat.get(place).copied().unwrap_or_default();
                EntrySummary {
                    component: entry.component,
                    version: entry.version.into(),
                    counter: entry.counter,
                    floor: entry.floor,
                    hardware: [entry.hardware_min, entry.hardware_max],
                    size: entry.size,
                    digest: entry.sha256.to_string(),
                    source: origin.source.name.clone(),
                    source_format: origin.source.format.name(),
                    source_digest: origin.source.sha256.to_string(),
                    base: flat.base.map(|base| format!("{base:#010x}")),
                    filled: flat.filled,
                    check: origin.check.map(|check| check.to_string()),
                }
            })
            .collect();
        let first = entries.first().cloned().unwrap_or_default();
        Summary {
            image: head.name().to_string(),
            product: manifest.product().into(),
            component: first.component,
            version: first.version,
            counter: first.counter,
            floor: first.floor,
            hardware: first.hardware,
            size: head.size(),
            digest: first.digest,
            manifest_digest: manifest.digest().to_string(),
            source: first.source,
            source_format: first.source_format,
            source_digest: first.source_digest,
            base: first.base,
            filled: first.filled,
            signers: manifest
                .signatures()
                .map(|(signer, _)| signer.to_string())
                .collect(),
            check: first.check,
            entries,
            out: out.map(Path::to_path_buf),
        }
    }
}

/// What `image sign` reports of one component.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EntrySummary {
    /// The component.
    pub component: u8,
    /// The version.
    pub version: String,
    /// The counter.
    pub counter: u64,
    /// The lowest counter that may follow once it is confirmed.
    pub floor: u64,
    /// Hardware revisions, first and last.
    pub hardware: [u16; 2],
    /// Bytes of the payload.
    pub size: u32,
    /// SHA-256 of the payload.
    pub digest: String,
    /// The file's name.
    pub source: String,
    /// `raw` or `hex`.
    pub source_format: &'static str,
    /// The file's SHA-256.
    pub source_digest: String,
    /// Of Intel HEX: address of the first byte.
    pub base: Option<String>,
    /// Of Intel HEX: bytes filled with 0xFF.
    pub filled: usize,
    /// What the payload was checked for.
    pub check: Option<String>,
}

impl EntrySummary {
    /// The payload's lines.
    fn payload(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  payload   sha256 {}", self.digest)?;
        writeln!(
            f,
            "  source    sha256 {}  {}",
            self.source_digest, self.source
        )?;
        match &self.base {
            Some(base) => writeln!(
                f,
                "  flat      from {base}, {} bytes filled with 0xFF",
                self.filled
            ),
            None => Ok(()),
        }
    }

    /// The line of its order and hardware, without an end.
    fn order(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "  counter   {}, floor {}, hardware {}..{}",
            self.counter, self.floor, self.hardware[0], self.hardware[1],
        )
    }
}

/// What `image sign` reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// `P[/component]@V`; of several components `P/1,0@2.0,1.4`.
    pub image: String,
    /// The product.
    pub product: String,
    /// The component; of several the first, whose are the other values of one component too.
    pub component: u8,
    /// The version.
    pub version: String,
    /// The counter.
    pub counter: u64,
    /// The lowest counter that may follow once it is confirmed.
    pub floor: u64,
    /// Hardware revisions, first and last.
    pub hardware: [u16; 2],
    /// Bytes of all payloads.
    pub size: u64,
    /// SHA-256 of the payload.
    pub digest: String,
    /// SHA-256 of the manifest's body.
    pub manifest_digest: String,
    /// The file's name.
    pub source: String,
    /// `raw` or `hex`.
    pub source_format: &'static str,
    /// The file's SHA-256.
    pub source_digest: String,
    /// Of Intel HEX: address of the first byte.
    pub base: Option<String>,
    /// Of Intel HEX: bytes filled with 0xFF.
    pub filled: usize,
    /// The signers' ids.
    pub signers: Vec<String>,
    /// What the payload was checked for.
    pub check: Option<String>,
    /// Every component, in the order of installation.
    pub entries: Vec<EntrySummary>,
    /// The file that was written.
    pub out: Option<PathBuf>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}  {} bytes", self.image, self.size)?;
        match self.entries.as_slice() {
            [entry] => {
                entry.payload(f)?;
                writeln!(f, "  manifest  {}", self.manifest_digest)?;
                entry.order(f)?;
                write!(f, "\n  signed by {}", self.signers.join(", "))?;
                if let Some(check) = &entry.check {
                    write!(f, "\n  check     {check} passed")?;
                }
            }
            entries => {
                for entry in entries {
                    writeln!(
                        f,
                        "component {}  {}  {} bytes",
                        entry.component, entry.version, entry.size
                    )?;
                    entry.payload(f)?;
                    entry.order(f)?;
                    writeln!(f)?;
                    if let Some(check) = &entry.check {
                        writeln!(f, "  check     {check} passed")?;
                    }
                }
                write!(
                    f,
                    "all components\n  manifest  {}\n  signed by {}",
                    self.manifest_digest,
                    self.signers.join(", ")
                )?;
            }
        }
        match &self.out {
            Some(out) => write!(f, "\n  written   {}", out.display()),
            None => Ok(()),
        }
    }
}

/// Signs the file.
///
/// # Errors
/// Exit code 2 where an option is missing or wrong, 1 where the file, a key or the manifest is.
pub fn run(args: &SignArgs) -> Result<Signed, CliError> {
    run_at(args, Timestamp::now())
}

/// Signs the file and writes the signed image.
///
/// # Errors
/// As [`run`], and exit code 1 where the signed image cannot be written.
pub fn run_to_file(command: &SignCommand) -> Result<Signed, CliError> {
    let signed = run(&command.sign)?;
    write_whole(&command.out, &signed.container).map_err(|error| {
        CliError::failed(
            "file",
            format!("{} cannot be written: {error}.", command.out.display()),
        )
    })?;
    Ok(signed)
}

/// For `image add`: a file that is signed already is read and checked, every other one is signed.
///
/// # Errors
/// As [`run`]; exit code 2 also where a signed file comes with options of signing, 1 where it is damaged.
pub fn load(args: &SignArgs) -> Result<Signed, CliError> {
    let Some(file) = &args.file else {
        return run(args);
    };
    let content = read(file)?;
    if !content.starts_with(MAGIC) {
        return sign_contents(args, vec![(whole(args, file), content)], Timestamp::now());
    }
    let only_file = SignArgs {
        file: args.file.clone(),
        ..SignArgs::default()
    };
    if *args != only_file {
        return Err(
            CliError::wrong_use(format!("{} is signed already.", file.display()))
                .hint("Leave the options of signing out, or sign the original file again."),
        );
    }
    let container = Container::parse(&content)?;
    Ok(Signed {
        container,
        flat: Vec::new(),
    })
}

/// The one file of the command, with what its entry says.
fn whole(args: &SignArgs, file: &Path) -> EntryArg {
    EntryArg {
        component: args.component.unwrap_or(0),
        file: file.into(),
        version: None,
        counter: None,
        floor: None,
        hardware: None,
        require: args.require.clone(),
        check: args.check,
        raw: args.raw,
        segment: args.segment,
        skip: args.skip.clone(),
    }
}

fn run_at(args: &SignArgs, now: Timestamp) -> Result<Signed, CliError> {
    let entries = match &args.file {
        Some(file) => vec![whole(args, file)],
        None => args.entry.clone(),
    };
    let mut contents = Vec::with_capacity(entries.len());
    for entry in entries {
        let content = read(&entry.file)?;
        if content.starts_with(MAGIC) && !entry.raw {
            let raw = if args.file.is_some() { "--raw" } else { "raw" };
            return Err(CliError::failed(
                "signed_already",
                format!("{} is a signed image already.", entry.file.display()),
            )
            .hint(format!(
                "Sign the original file, or take this one as it is with {raw}."
            )));
        }
        contents.push((entry, content));
    }
    sign_contents(args, contents, now)
}

fn sign_contents(
    args: &SignArgs,
    contents: Vec<(EntryArg, Vec<u8>)>,
    now: Timestamp,
) -> Result<Signed, CliError> {
    let entries: Vec<&EntryArg> = contents.iter().map(|(entry, _)| entry).collect();
    let (release, parts) = describe(args, &entries, now)?;
    let selects = entries
        .iter()
        .map(|entry| select(entry))
        .collect::<Result<Vec<_>, _>>()?;
    let keys = read_keys(args)?;
    let (mut origins, mut payloads, mut flat) = (Vec::new(), Vec::new(), Vec::new());
    for ((entry, content), (format, select)) in contents.into_iter().zip(selects) {
        let made = make(&entry.file, content, format, &select)
            .map_err(|error| hex_error(&entry.file, &error))?;
        if made.payload.is_empty() {
            return Err(CliError::failed(
                "empty_file",
                format!("{} is empty.", entry.file.display()),
            ));
        }
        if let Some(check) = entry.check {
            check.verify(&made.payload, made.payload.len() as u64)?;
        }
        origins.push(Origin {
            source: made.source,
            check: entry.check,
        });
        flat.push(Flat {
            base: made.base,
            filled: made.filled,
        });
        payloads.push(made.payload);
    }
    let images: Vec<(&Part, &[u8])> = parts
        .iter()
        .zip(payloads.iter().map(Vec::as_slice))
        .collect();
    let manifest = sign_parts(&release, &images, &keys)?;
    let head = Head { manifest, origins };
    Ok(Signed {
        container: Container { head, payloads },
        flat,
    })
}

/// What the manifest is to say: of all, and of each.
fn describe(
    args: &SignArgs,
    entries: &[&EntryArg],
    now: Timestamp,
) -> Result<(Release, Vec<Part>), CliError> {
    let without: Vec<&&EntryArg> = entries
        .iter()
        .filter(|entry| entry.version.is_none() && args.version.is_none())
        .collect();
    let mut missing = Vec::new();
    if args.product.is_none() {
        missing.push("--product P".to_owned());
    }
    if args.file.is_some() && !without.is_empty() {
        missing.push("--version V".to_owned());
    } else {
        missing.extend(without.iter().map(|entry| {
            let (component, file) = (entry.component, entry.file.display());
            format!("a version for component {component} (--entry {component}={file}@VERSION)")
        }));
    }
    if args.key.is_empty() {
        missing.push("--key FILE".to_owned());
    }
    let Some(product) = args.product.as_ref().filter(|_| missing.is_empty()) else {
        let files: Vec<String> = entries
            .iter()
            .map(|entry| entry.file.display().to_string())
            .collect();
        return Err(CliError::wrong_use(format!(
            "{} {} not signed yet, and signing needs {}.",
            files.join(" and "),
            if files.len() == 1 { "is" } else { "are" },
            missing.join(" and ")
        )));
    };
    let mut parts = Vec::with_capacity(entries.len());
    for entry in entries {
        let version = entry.version.as_ref().or(args.version.as_ref());
        let version = version.map(String::as_str).unwrap_or_default();
        let name = ImageName::new(product, entry.component, version)?;
        // A clock before 1970 would make a counter that every board has passed.
        let counter = match entry.counter.or(args.counter) {
            Some(counter) => counter,
            None => u64::try_from(now.as_second())
                .ok()
                .filter(|seconds| *seconds > 0)
                .ok_or_else(|| {
                    CliError::failed("clock", "This machine's clock stands before 1970.")
                        .hint("Set the clock, or state the --counter.")
                })?,
        };
        let hardware = entry.hardware.as_ref().or(args.hardware.as_ref());
        parts.extend(name.parts.into_iter().map(|part| Part {
            component: part.component,
            version: part.version,
            counter,
            floor: entry.floor.or(args.floor).unwrap_or(0),
            hardware: hardware.map_or(0..=u16::MAX, |hardware| hardware.0.clone()),
            requires: entry.require.iter().map(|require| require.0).collect(),
        }));
    }
    let release = Release {
        product: product.clone(),
        devices: args.device.clone(),
        security: args.security,
        trial: TrialBudget {
            boots: args.trial_boots.unwrap_or(0),
            dials: args.trial_dials.unwrap_or(0),
            awake_s: args.trial_awake.unwrap_or(0),
        },
    };
    Ok((release, parts))
}

fn select(entry: &EntryArg) -> Result<(Format, Select), CliError> {
    let format = if entry.raw {
        Format::Raw
    } else {
        Format::of(&entry.file)
    };
    let select = match entry.segment {
        Some(address) => Select::Segment(address),
        None if entry.skip.is_empty() => Select::Whole,
        None => Select::Without(entry.skip.iter().map(|skip| skip.0.clone()).collect()),
    };
    if format == Format::Raw && select != Select::Whole {
        return Err(CliError::wrong_use(format!(
            "--segment and --skip are for Intel HEX, and {} is taken as it is.",
            entry.file.display()
        ))
        .hint("Intel HEX files are called .hex or .ihex."));
    }
    Ok((format, select))
}

fn read_keys(args: &SignArgs) -> Result<Vec<SigningKey>, CliError> {
    // Counted before they are read: the error is about the command line.
    if args.key.len() > dialhome_proto::limits::SIGNATURES_MAX {
        return Err(SignError::Keys(args.key.len()).into());
    }
    let keys = args.key.iter().map(|path| key::read_private(path));
    keys.collect::<Result<_, _>>().map_err(CliError::from)
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    fs::read(path).map_err(|error| {
        CliError::failed(
            "file",
            format!("{} cannot be read: {error}.", path.display()),
        )
    })
}

/// Writes beside `out` and renames, so that a reader never sees half a file under that name.
fn write_whole(out: &Path, container: &Container) -> io::Result<()> {
    let mut beside = out.as_os_str().to_owned();
    beside.push(format!(".{}.part", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = File::create(&beside).and_then(|file| {
        let mut writer = BufWriter::new(file);
        container.write(&mut writer)?;
        writer.flush()?;
        writer.get_ref().sync_all()?;
        fs::rename(&beside, out)
    });
    if written.is_err() {
        drop(fs::remove_file(&beside));
    }
    written
}

fn hex_error(path: &Path, error: &HexError) -> CliError {
    let failed = CliError::failed("bad_hex", format!("{}: {error}.", path.display()));
    match error.hint() {
        Some(hint) => failed.hint(hint),
        None => failed,
    }
}

impl From<SignError> for CliError {
    fn from(error: SignError) -> Self {
        match error {
            SignError::Keys(_) | SignError::DuplicateKey(_) => Self::wrong_use(format!("{error}.")),
            SignError::TooBig(_) => Self::failed("image_too_big", format!("{error}.")),
            SignError::Manifest(fault) => {
                let refused = Self::wrong_use(format!("A board would refuse this: {error}."));
                match fault {
                    ManifestFault::TooLong => refused.hint(
                        "Name fewer devices and requirements, write shorter versions, or sign with fewer keys.",
                    ),
                    ManifestFault::DuplicateComponent(_) => {
                        refused.hint("Give each component one --entry.")
                    }
                    ManifestFault::Entries => refused.hint(
                        "Sign what is more as another file, and push it when this one is confirmed.",
                    ),
                    _ => refused,
                }
            }
            SignError::Statement(_) => {
                Self::wrong_use(format!("A board would refuse this: {error}."))
            }
        }
    }
}

impl From<NameError> for CliError {
    fn from(error: NameError) -> Self {
        Self::wrong_use(format!("{error}."))
    }
}

impl From<CheckFault> for CliError {
    fn from(fault: CheckFault) -> Self {
        Self::failed("check_failed", sentence(&fault.to_string())).hint(fault.hint())
    }
}

impl From<ContainerError> for CliError {
    fn from(error: ContainerError) -> Self {
        if let ContainerError::Check(fault) = error {
            return fault.into();
        }
        if let ContainerError::Of { component, fault } = &error
            && let ContainerError::Check(fault) = &**fault
        {
            let text = format!("Component {component}: {fault}.");
            return Self::failed("check_failed", text).hint(fault.hint());
        }
        let failed = Self::failed("bad_image", format!("{error}."));
        match error {
            ContainerError::NotContainer => failed.hint("Make one with `dialhome image sign`."),
            ContainerError::UnknownCheck(_) => failed.hint("Use a newer version of dialhome."),
            _ => failed.hint("Copy the file again, or sign the image again."),
        }
    }
}

#[cfg(test)]
#[path = "sign_tests.rs"]
mod tests;
