//! An AVR beside a Linux board, as component 1 of its agent: Intel HEX is signed, sent, and
//! programmed by the real avrdude, as the recipe in `device-client/service/avr` has it. What runs is what is read back from the flash, and a board that fails gets the last good image
//! again, which the agent keeps.

use std::path::PathBuf;

use crate::support::{Bench, Image, PATIENCE, random_bytes};
use dialhome_gateway::demo::relay::Faults;
use dialhome_stk500::{Options, Program};
use ihex::{Record, create_object_file_representation};
use serde_json::Value;

/// The shipped recipe, on the line FOLDER/tty. The deadline is for boards that fall silent:
/// avrdude has none.
fn settings() -> String {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../device-client/service/avr");
    let recipe = std::fs::read_to_string(format!("{shipped}/arduino.toml")).unwrap();
    let mut settings = "[reconnect]\nfirst_ms = 20\nmax_ms = 200\n\n".to_owned() + &recipe;
    for (from, to) in [
        ("/usr/bin/dialhome-avr", &*format!("{shipped}/dialhome-avr")),
        ("/dev/ttyUSB0", "FOLDER/tty"),
        ("timeout_s = 120", "timeout_s = 20"),
    ] {
        assert_eq!(settings.matches(from).count(), 2, "{from}: {settings}");
        settings = settings.replace(from, to);
    }
    settings
}

const ID: &str = "lamp-1";

/// A gateway, an agent, and an AVR that runs a first image, confirmed.
struct Lamp {
    bench: Bench,
    avr: Program,
    old: Image,
}

impl Lamp {
    async fn start() -> Self {
        let mut bench = Bench::start().await;
        let folder = bench.path().join("boards").join(ID);
        std::fs::create_dir_all(&folder).unwrap();
        let avr = Program::start(Options {
            link: Some(folder.join("tty")),
            ..Options::new(folder.join("flash"))
        })
        .unwrap();
        bench.board(ID, Faults::default(), &settings()).await;
        let old = hex_image(&bench, "1.0", 1).await;
        bench.push(ID, &old.name, &[]).await.confirmed();
        let lamp = Self { bench, avr, old };
        lamp.holds(&lamp.old).await;
        lamp
    }

    fn order(&self, order: &str) {
        let answer = self.avr.order(order);
        assert!(answer.starts_with("ok"), "{order}: {answer}");
    }

    /// A push that fails; what the record has to add.
    async fn fails(&self, image: &Image) -> String {
        let update = self.put_back(image).await;
        update["detail"].as_str().unwrap_or_default().to_owned()
    }

    /// A push that fails: the update as it ends.
    async fn put_back(&self, image: &Image) -> Value {
        let pushed = self.bench.push(ID, &image.name, &[]).await;
        let update = pushed.ended("reverted", 1);
        assert_eq!(update["reason"], "install_failed", "{update}");
        update
    }

    /// The flash holds this image byte for byte, and the gateway knows it.
    async fn holds(&self, image: &Image) {
        let file: PathBuf = self.bench.path().join("boards").join(ID).join("flash");
        let flash = std::fs::read(file).unwrap();
        let end = image.bytes.len();
        assert!(flash[..end] == image.bytes, "another image is in the flash");
        let device = self.bench.online(ID).await;
        let components = device["components"].as_array().unwrap();
        let lamp = components.iter().find(|one| one["component"] == 1).unwrap();
        assert_eq!(lamp["digest"], image.digest.as_str(), "{device}");
        assert_eq!(lamp["digest_from"], "read_back", "{device}");
    }
}

/// An image that comes as Intel HEX. Its bytes are those of the flash.
async fn hex_image(bench: &Bench, version: &str, seed: u64) -> Image {
    let bytes = random_bytes(seed, 6_001);
    let mut records: Vec<_> = (0_u16..)
        .step_by(16)
        .zip(bytes.chunks(16))
        .map(|(offset, data)| Record::Data {
            offset,
            value: data.to_vec(),
        })
        .collect();
    records.push(Record::EndOfFile);
    let file = bench.path().join(format!("{version}.hex"));
    std::fs::write(&file, create_object_file_representation(&records).unwrap()).unwrap();
    let image = bench.image_of(version, &file, &["--component", "1"]).await;
    Image { bytes, ..image }
}

#[tokio::test]
async fn intel_hex_is_in_the_flash_byte_for_byte() {
    let lamp = Lamp::start().await;
    let new = hex_image(&lamp.bench, "2.0", 2).await;
    lamp.bench.push(ID, &new.name, &[]).await.confirmed();
    lamp.holds(&new).await;
    let device: Value = lamp.bench.online(ID).await;
    let components = device["components"].as_array().unwrap();
    assert_eq!(components.len(), 2, "{device}");
    assert_eq!(components[1]["revert"], "restore_copy", "{device}");
}

#[tokio::test]
async fn a_byte_that_does_not_keep_brings_the_old_image_back() {
    let lamp = Lamp::start().await;
    let new = hex_image(&lamp.bench, "2.0", 2).await;
    let wrong = !new.bytes[0x123];
    lamp.order(&format!("faults stuck=123:{wrong:x},sessions=1"));
    let update = lamp.put_back(&new).await;
    let detail = update["detail"].as_str().unwrap_or_default();
    assert!(
        detail.starts_with("avr: install ended with code 1: "),
        "{detail}"
    );
    // Behind that a pseudo-terminal has a complaint of its own; the whole comes in numbered parts.
    let said = update["output"].as_str().unwrap_or_default();
    assert!(
        said.starts_with("avr: install ended with code 1\n"),
        "{said}"
    );
    assert!(said.contains("at addr 0x0123 (error)"), "{said}");
    lamp.holds(&lamp.old).await;
    // The same again, on a board that is well.
    lamp.bench.push(ID, &new.name, &[]).await.confirmed();
    lamp.holds(&new).await;
}

#[tokio::test]
async fn a_board_that_falls_silent_gets_the_old_image_back() {
    let lamp = Lamp::start().await;
    let new = hex_image(&lamp.bench, "2.0", 2).await;
    lamp.order("faults silent_after=9,sessions=1");
    let detail = lamp.fails(&new).await;
    assert!(detail.contains("ran over its 20 s"), "{detail}");
    lamp.holds(&lamp.old).await;
}

/// Avrdude would read the end of its line for ever. The old image waits for the plug.
#[tokio::test]
async fn a_board_that_is_unplugged_in_the_middle_gets_the_old_image_when_it_is_back() {
    let lamp = Lamp::start().await;
    let new = hex_image(&lamp.bench, "2.0", 2).await;
    lamp.order("faults unplug_after=9,sessions=1");
    let log = lamp.bench.site.log(ID);
    let plug = async {
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        // The new image's deadline, then an attempt at the old one that finds no line.
        while !said().contains("command `install` ended with code 1") {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert!(said().contains("ran over its 20 s"), "{}", said());
        lamp.order("plug");
    };
    let (detail, plugged) = tokio::join!(lamp.fails(&new), tokio::time::timeout(PATIENCE, plug));
    plugged.expect("an attempt at the old image");
    assert!(
        detail.starts_with("avr: install ran over its 20 s"),
        "{detail}"
    );
    lamp.holds(&lamp.old).await;
}
