use clap::{CommandFactory as _, Parser};
use dialhome_proto::manifest::Manifest;

use super::*;
use crate::image::source::digest;

/// From the Debian package firmware-microbit-micropython 1.0.1.
const MICROPYTHON: &str = "/usr/share/firmware-microbit-micropython/firmware.hex";

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    command: SignCommand,
}

struct Desk {
    dir: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        key::generate(&dir.path().join("op.key")).unwrap();
        fs::write(dir.path().join("fw.bin"), b"the firmware").unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `FILE --product pump --version 1.4.0 --key op.key --out x.dhi` and more, as the shell would give them.
    fn parse(&self, file: &str, more: &[&str]) -> Result<SignCommand, clap::Error> {
        let file = if file == MICROPYTHON {
            file.into()
        } else {
            self.path(file)
        };
        let (key, out) = (self.path("op.key"), self.path("x.dhi"));
        let mut words = vec!["sign", file.to_str().unwrap()];
        words.extend(["--product", "pump", "--version", "1.4.0"]);
        words.extend([
            "--key",
            key.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
        ]);
        words.extend(more);
        Program::try_parse_from(words).map(|program| program.command)
    }

    fn sign(&self, file: &str, more: &[&str]) -> Result<Signed, CliError> {
        run_to_file(&self.parse(file, more).unwrap())
    }

    fn file_only(&self, name: &str) -> SignArgs {
        SignArgs {
            file: Some(self.path(name)),
            ..SignArgs::default()
        }
    }
}

#[test]
fn the_parser_is_consistent() {
    Program::command().debug_assert();
}

#[test]
fn a_signed_file_reads_back_and_states_the_defaults() {
    let desk = Desk::new();
    let before = Timestamp::now().as_second();
    let signed = desk.sign("fw.bin", &[]).unwrap();
    let written = fs::read(desk.path("x.dhi")).unwrap();
    assert_eq!(Container::parse(&written).unwrap(), signed.container);
    assert_eq!(signed.container.payloads[0], b"the firmware");
    let head = &signed.container.head;
    let (manifest, entry) = (head.parsed(), head.entries()[0]);
    assert!(entry.counter >= before.unsigned_abs());
    assert_eq!((entry.component, entry.floor), (0, 0));
    assert_eq!((entry.hardware_min, entry.hardware_max), (0, u16::MAX));
    assert_eq!(
        (manifest.trial(), manifest.flags()),
        (TrialBudget::default(), 0)
    );
    assert_eq!(manifest.devices().count(), 0);
    assert_eq!(
        fs::read_dir(desk.dir.path()).unwrap().count(),
        4,
        "no part is left"
    );

    let summary = signed.summary(Some(&desk.path("x.dhi")));
    assert_eq!(summary.image, "pump@1.4.0");
    assert_eq!(summary.source_digest, summary.digest);
    let text = summary.to_string();
    assert!(
        text.contains(&summary.digest) && text.contains("x.dhi"),
        "{text}"
    );
}

#[test]
fn every_option_reaches_the_manifest() {
    let desk = Desk::new();
    key::generate(&desk.path("second.key")).unwrap();
    let required = format!("3={}", digest(b"bootloader"));
    let second = desk.path("second.key");
    let more = [
        "--component",
        "2",
        "--counter",
        "77",
        "--floor",
        "70",
        "--hardware",
        "3..5",
        "--device",
        "pump-7",
        "--device",
        "pump-8",
        "--require",
        &required,
        "--security",
        "--trial-boots",
        "1",
        "--trial-dials",
        "2",
        "--trial-awake",
        "90m",
        "--key",
        second.to_str().unwrap(),
    ];
    let signed = desk.sign("fw.bin", &more).unwrap();
    let manifest = Manifest::parse(&signed.container.head.manifest).unwrap();
    let entry = manifest.entry(2).unwrap();
    assert_eq!((entry.counter, entry.floor), (77, 70));
    assert_eq!((entry.hardware_min, entry.hardware_max), (3, 5));
    assert_eq!(manifest.devices().collect::<Vec<_>>(), ["pump-7", "pump-8"]);
    assert_eq!(
        entry.requires().next().unwrap().digest,
        digest(b"bootloader")
    );
    assert!(manifest.is_security());
    assert_eq!(
        manifest.trial(),
        TrialBudget {
            boots: 1,
            dials: 2,
            awake_s: 5400
        }
    );
    assert_eq!(manifest.signatures().count(), 2);
    assert_eq!(signed.summary(None).image, "pump/2@1.4.0");
}

#[test]
fn several_components_are_signed_as_one_file_in_their_order() {
    let desk = Desk::new();
    fs::write(desk.path("main.bin"), b"the main one's").unwrap();
    let (child, main) = (MICROPYTHON, desk.path("main.bin"));
    let command = |entries: &[String], more: &[&str]| {
        let (key, out) = (desk.path("op.key"), desk.path("x.dhi"));
        let mut words = vec!["sign", "--product", "lamp"];
        words.extend(["--key", key.to_str().unwrap()]);
        words.extend(["--out", out.to_str().unwrap()]);
        for entry in entries {
            words.extend(["--entry", entry]);
        }
        words.extend(more);
        Program::try_parse_from(words).map(|program| program.command)
    };
    let entries = [
        format!("1={child}@2.0,counter=20,floor=19,hardware=3..5,segment=0"),
        format!("0={}", main.display()),
    ];
    let more = ["--version", "1.4", "--counter", "14", "--hardware", "1..9"];
    let signed = run_to_file(&command(&entries, &more).unwrap()).unwrap();
    let written = fs::read(desk.path("x.dhi")).unwrap();
    assert_eq!(Container::parse(&written).unwrap(), signed.container);
    let head = &signed.container.head;
    let found: Vec<_> = head
        .entries()
        .iter()
        .map(|entry| {
            let hardware = (entry.hardware_min, entry.hardware_max);
            (
                entry.component,
                entry.version,
                entry.counter,
                entry.floor,
                hardware,
            )
        })
        .map(|(component, version, counter, floor, hardware)| {
            (component, version.to_owned(), counter, floor, hardware)
        })
        .collect();
    assert_eq!(
        found,
        [
            (1, "2.0".into(), 20, 19, (3, 5)),
            (0, "1.4".into(), 14, 0, (1, 9))
        ]
    );
    assert_eq!(signed.container.payloads[1], b"the main one's");
    let summary = signed.summary(None);
    assert_eq!(summary.image, "lamp/1,0@2.0,1.4");
    assert_eq!(summary.entries[0].source_format, "hex");
    assert_eq!(summary.size, signed.container.head.size());
    let text = summary.to_string();
    assert!(
        text.contains("component 1  2.0") && text.contains("component 0  1.4"),
        "{text}"
    );

    // The same file is what `image add` reads; one entry alone is a file like any other.
    let again = SignArgs {
        file: Some(desk.path("x.dhi")),
        ..SignArgs::default()
    };
    assert_eq!(load(&again).unwrap().container, signed.container);
    let one = run(&command(&entries[1..], &more).unwrap().sign).unwrap();
    let alone = desk
        .parse("main.bin", &["--counter", "14", "--hardware", "1..9"])
        .unwrap();
    let alone = SignArgs {
        product: Some("lamp".into()),
        version: Some("1.4".into()),
        ..alone.sign
    };
    assert_eq!(one.container, run(&alone).unwrap().container);

    let wrong = |entries: &[&str], more: &[&str]| {
        let entries: Vec<String> = entries.iter().map(|&entry| entry.into()).collect();
        let error = run_to_file(&command(&entries, more).unwrap()).unwrap_err();
        assert!(error.message.ends_with('.'), "{error}");
        (error.exit, error.to_string())
    };
    let main = main.to_str().unwrap();
    let at = |component: u8, version: &str| format!("{component}={main}@{version}");
    let (exit, text) = wrong(&[&at(1, "2"), &format!("0={main}")], &[]);
    assert!(
        exit == 2 && text.contains("a version for component 0 (--entry 0="),
        "{text}"
    );
    let (exit, text) = wrong(&[&at(1, "2"), &at(1, "3")], &[]);
    assert!(
        exit == 2 && text.contains("two images for component 1"),
        "{text}"
    );
    assert!(text.contains("each component one --entry"), "{text}");
    let long = format!("{},require=9={}", "v".repeat(32), digest(b"the loader"));
    let four: Vec<String> = (0..4).map(|component| at(component, &long)).collect();
    let four: Vec<&str> = four.iter().map(String::as_str).collect();
    let devices = ["a", "b", "c", "d"].map(|device| device.repeat(64));
    let devices: Vec<&str> = devices
        .iter()
        .flat_map(|device| ["--device", device.as_str()])
        .collect();
    let (exit, text) = wrong(&four, &devices);
    assert!(
        exit == 2 && text.contains("longer than 768 bytes") && text.contains("fewer devices"),
        "{text}"
    );
    let five: Vec<String> = (0..5).map(|component| at(component, "1")).collect();
    let five: Vec<&str> = five.iter().map(String::as_str).collect();
    let (exit, text) = wrong(&five, &[]);
    assert!(exit == 2 && text.contains("1 to 4 images"), "{text}");
    let (exit, text) = wrong(&[&format!("{},segment=0", at(1, "2"))], &[]);
    assert!(exit == 2 && text.contains("Intel HEX"), "{text}");
    let signed = desk.path("x.dhi");
    let (exit, text) = wrong(&[&format!("1={}@2", signed.display())], &[]);
    assert!(exit == 1 && text.contains("signed image already"), "{text}");
    let (exit, text) = wrong(&["1=/nowhere/x.bin@2"], &[]);
    assert!(exit == 1 && text.contains("cannot be read"), "{text}");
    for more in [
        &["--component", "1"][..],
        &["--raw"],
        &["--check", "sdu"],
        &["--require", "1=00"],
        &["fw.bin"],
        &["--entry", "1"],
    ] {
        assert!(command(&entries, more).is_err(), "{more:?}");
    }
    assert!(command(&[], &[]).is_err(), "neither FILE nor --entry");
}

#[test]
fn wrong_words_on_the_command_line_are_refused_by_the_parser() {
    let desk = Desk::new();
    for more in [
        &["--hardware", "5..3"][..],
        &["--hardware", "a..b"],
        &["--hardware", "0..65536"],
        &["--component", "256"],
        &["--counter", "-1"],
        &["--skip", "0x10"],
        &["--skip", "0x20-0x10"],
        &["--segment", "here"],
        &["--segment", "0x100000000"],
        &["--segment", "0", "--skip", "0-1"],
        &["--raw", "--segment", "0"],
        &["--raw", "--skip", "0-1"],
        &["--require", "3=abc"],
        &["--trial-boots", "0"],
        &["--trial-awake", "soon"],
        &["--trial-awake", "0s"],
    ] {
        assert!(desk.parse("fw.bin", more).is_err(), "{more:?}");
    }
    let one = desk.parse("fw.bin", &["--hardware", "4"]).unwrap();
    assert_eq!(one.sign.hardware, Some(Hardware(4..=4)));
}

#[test]
fn what_cannot_be_signed_is_explained() {
    let desk = Desk::new();
    let error = |file: &str, more: &[&str]| {
        let error = desk.sign(file, more).unwrap_err();
        assert!(error.message.ends_with('.'), "{error}");
        assert!(!desk.path("x.dhi").exists());
        (error.exit, error.code, error.to_string())
    };
    fs::write(desk.path("empty.bin"), b"").unwrap();
    fs::write(desk.path("empty.hex"), b"").unwrap();
    let (exit, code, text) = error("empty.bin", &[]);
    assert_eq!((exit, code), (1, "empty_file"), "{text}");
    let (exit, code, text) = error("empty.hex", &[]);
    assert_eq!((exit, code), (1, "bad_hex"));
    assert!(text.contains("no data"), "{text}");
    let (exit, _, text) = error("missing.bin", &[]);
    assert!(
        exit == 1 && text.contains("missing.bin cannot be read"),
        "{text}"
    );
    let (exit, _, text) = error("fw.bin", &["--segment", "0"]);
    assert!(exit == 2 && text.contains("Intel HEX"), "{text}");
    let (exit, _, text) = error("fw.bin", &["--floor", "9", "--counter", "8"]);
    assert!(exit == 2 && text.contains("floor is above"), "{text}");
    let (exit, _, text) = error("fw.bin", &["--device", "pump 7"]);
    assert!(exit == 2 && text.contains("devices"), "{text}");
    let key = desk.path("op.key");
    let (exit, _, text) = error("fw.bin", &["--key", key.to_str().unwrap()]);
    assert!(exit == 2 && text.contains("given twice"), "{text}");
    let public = desk.path("op.key.pub");
    let (exit, code, text) = error("fw.bin", &["--key", public.to_str().unwrap()]);
    assert!(
        (exit, code) == (1, "bad_key") && text.contains("public key"),
        "{text}"
    );

    let nothing = run(&desk.file_only("fw.bin")).unwrap_err();
    assert_eq!(nothing.exit, 2);
    assert!(
        nothing
            .message
            .contains("--product P and --version V and --key FILE"),
        "{nothing}"
    );
    let mut named = desk.parse("fw.bin", &[]).unwrap();
    named.sign.version = Some("1.0 beta".into());
    assert_eq!(run(&named.sign).unwrap_err().exit, 2);
    named.sign.version = Some("1.0".into());
    named.out = desk.path("no/such/folder/x.dhi");
    let unwritten = run_to_file(&named).unwrap_err();
    assert!(
        unwritten.message.contains("cannot be written"),
        "{unwritten}"
    );
}

#[test]
fn a_clock_before_1970_needs_a_counter() {
    let desk = Desk::new();
    let mut args = desk.parse("fw.bin", &[]).unwrap().sign;
    let dawn = Timestamp::UNIX_EPOCH;
    let error = run_at(&args, dawn).unwrap_err();
    assert_eq!(error.code, "clock");
    args.counter = Some(5);
    assert_eq!(
        run_at(&args, dawn).unwrap().container.head.entries()[0].counter,
        5
    );
}

#[test]
fn image_add_takes_both_kinds_of_file() {
    let desk = Desk::new();
    let signed = desk.sign("fw.bin", &[]).unwrap();
    assert_eq!(
        load(&desk.file_only("x.dhi")).unwrap().container,
        signed.container
    );
    // Signed on the spot.
    let args = desk.parse("fw.bin", &["--counter", "5"]).unwrap().sign;
    assert_eq!(load(&args).unwrap().container.head.entries()[0].counter, 5);
    // A plain file without the options of signing.
    let missing = load(&desk.file_only("fw.bin")).unwrap_err();
    assert!(
        missing.exit == 2 && missing.message.contains("not signed yet"),
        "{missing}"
    );
    // A signed file with them: which of the two is meant?
    let both = load(&desk.parse("x.dhi", &[]).unwrap().sign).unwrap_err();
    assert!(
        both.exit == 2 && both.message.contains("signed already"),
        "{both}"
    );
    let again = run(&desk.parse("x.dhi", &[]).unwrap().sign).unwrap_err();
    assert_eq!(again.code, "signed_already");
    // A damaged one.
    let mut bytes = fs::read(desk.path("x.dhi")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(desk.path("bad.dhi"), bytes).unwrap();
    let damaged = load(&desk.file_only("bad.dhi")).unwrap_err();
    assert_eq!((damaged.exit, damaged.code), (1, "bad_image"));
    assert!(damaged.hint.is_some());
}

#[test]
fn the_real_micropython_is_signed_once_the_far_bytes_are_decided() {
    assert!(
        Path::new(MICROPYTHON).exists(),
        "{MICROPYTHON} is missing\nrun: apt-get install -y firmware-microbit-micropython"
    );
    let desk = Desk::new();
    let undecided = desk.sign(MICROPYTHON, &[]).unwrap_err();
    assert_eq!((undecided.exit, undecided.code), (1, "bad_hex"));
    assert!(
        undecided
            .message
            .contains("0x100010C0-0x100010DB (28 bytes)"),
        "{undecided}"
    );
    assert!(undecided.hint.unwrap().contains("--segment 0x00000000"));
    let segment = desk.sign(MICROPYTHON, &["--segment", "0x0"]).unwrap();
    let skip = desk
        .sign(MICROPYTHON, &["--skip", "0x100010C0-0x100010DB"])
        .unwrap();
    assert_eq!(segment.container.payloads, skip.container.payloads);
    let summary = skip.summary(None);
    assert_eq!(
        (summary.size, summary.base.as_deref()),
        (243_852, Some("0x00000000"))
    );
    assert_ne!(summary.source_digest, summary.digest);
    // With --raw the text itself is the image.
    let raw = desk.sign(MICROPYTHON, &["--raw"]).unwrap();
    assert_eq!(raw.container.payloads[0], fs::read(MICROPYTHON).unwrap());
}
