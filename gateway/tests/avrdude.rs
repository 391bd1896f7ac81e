//! An AVR beside a Linux board: Intel HEX is signed, sent, and programmed by the real avrdude,
//! as the recipe in `device-client/boards/stk500/README.md` has it. What runs is what is read
//! back from the flash, and a board that fails gets its old image again.

use std::path::PathBuf;

use dialhome_gateway::demo::relay::Faults;
use dialhome_stk500::{Options, Program};
use ihex::{Record, create_object_file_representation};
use serde_json::Value;
use support::{Bench, Image, random_bytes};

mod support;

/// FOLDER/tty is the line. The deadline is for boards that fall silent: avrdude has none.
const SETTINGS: &str = r#"
[reconnect]
first_ms = 20
max_ms = 200

[install]
command = ["sh", "-c", "exec avrdude -q -c arduino -p m328p -P FOLDER/tty -b 115200 -D -U flash:w:$DIALHOME_IMAGE:r"]
timeout_s = 20

[running]
command = ["sh", "-c", "avrdude -q -q -A -c arduino -p m328p -P FOLDER/tty -b 115200 -U flash:r:FOLDER/copy:r && head -c $(wc -c <$DIALHOME_IMAGE) FOLDER/copy | sha256sum"]
timeout_s = 60
"#;

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
        bench.board(ID, Faults::default(), SETTINGS).await;
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

    /// A push that fails; the update.
    async fn fails(&self, image: &Image) -> Value {
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
        let component = &device["components"][0];
        assert_eq!(component["digest"], image.digest.as_str(), "{device}");
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
    let image = bench.image_of(version, &file, &[]).await;
    Image { bytes, ..image }
}

#[tokio::test]
async fn intel_hex_is_in_the_flash_byte_for_byte() {
    let lamp = Lamp::start().await;
    let new = hex_image(&lamp.bench, "2.0", 2).await;
    lamp.bench.push(ID, &new.name, &[]).await.confirmed();
    lamp.holds(&new).await;
}

#[tokio::test]
async fn a_byte_that_does_not_keep_brings_the_old_image_back() {
    let lamp = Lamp::start().await;
    let new = hex_image(&lamp.bench, "2.0", 2).await;
    let wrong = !new.bytes[0x123];
    lamp.order(&format!("faults stuck=123:{wrong:x},sessions=1"));
    let update = lamp.fails(&new).await;
    let detail = update["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("at addr 0x0123"), "{update}");
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
    let update = lamp.fails(&new).await;
    let detail = update["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("ran over its 20 s"), "{update}");
    lamp.holds(&lamp.old).await;
}
