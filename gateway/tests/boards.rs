//! What an operator of boards without an operating system needs, against the real `dialhome`: records of
//! provisioning, warnings before a push that cannot be taken back, and checks of images.

use std::os::unix::fs::PermissionsExt as _;

use dialhome_proto::provision::Record;

use dialhome_gateway::demo::relay::Faults;
use dialhome_proto::code::Revert;
use serde_json::Value;
use support::peer::{Peer, component, hello, key_of};
use support::{BOARD, Bench, PRODUCT, random_bytes};

mod support;

/// Adds a device and returns the text of its file.
async fn device(bench: &Bench, id: &str) -> String {
    let file = bench.path().join(format!("{id}.toml"));
    let key = bench.site.key().with_extension("key.pub");
    let (file_text, key) = (file.to_str().unwrap(), key.to_str().unwrap());
    bench
        .json(&[
            "device",
            "add",
            id,
            "--product",
            PRODUCT,
            "--trust",
            key,
            "--gateway",
            "gw.example:7040",
            "[2001:db8::7]:7040",
            "--out",
            file_text,
        ])
        .await;
    std::fs::read_to_string(file).unwrap()
}

#[tokio::test]
async fn a_device_s_file_is_packed_into_the_record_that_a_board_reads() {
    let bench = Bench::start().await;
    let text = device(&bench, "mkr-1").await;
    let given: toml::Table = text.parse().unwrap();
    let path = |name: &str| bench.path().join(name).to_str().unwrap().to_owned();
    let (file, one, two) = (path("mkr-1.toml"), path("one.bin"), path("two.bin"));

    let packed = bench.json(&["device", "pack", &file, "--out", &one]).await;
    bench.json(&["device", "pack", &file, "--out", &two]).await;
    assert_eq!(packed["device"], "mkr-1");
    let mode = std::fs::metadata(&one).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "others can read the key");
    let (one, two) = (std::fs::read(&one).unwrap(), std::fs::read(&two).unwrap());
    assert_eq!(packed["bytes"], one.len());
    let (first, second) = (Record::parse(&one).unwrap(), Record::parse(&two).unwrap());
    assert_eq!((first.device, first.product), ("mkr-1", PRODUCT));
    assert_eq!(first.gateways, ["gw.example:7040", "[2001:db8::7]:7040"]);
    assert_eq!(
        given["key"].as_str().unwrap(),
        dialhome_proto::id::Digest(*first.key).to_string()
    );
    let trust = first.trust.as_ref().unwrap();
    assert_eq!((trust.epoch, trust.threshold, trust.keys.len()), (1, 1, 1));
    assert_ne!(first.seed, second.seed, "each record has a seed of its own");

    let again = bench
        .run(&["device", "pack", &file, "--out", &path("one.bin")])
        .await;
    assert_eq!(again.code, Some(1));
    assert_eq!(again.json["error"]["code"], "file_exists");
    assert_eq!(std::fs::read(path("one.bin")).unwrap(), one);
}

#[tokio::test]
async fn a_wrong_file_is_refused_in_words_that_hide_the_key() {
    let bench = Bench::prepare();
    let path = |name: &str| bench.path().join(name).to_str().unwrap().to_owned();
    let key = "5ec2e7".repeat(10) + "abcd";
    let whole = format!(
        "id = \"b1\"\nproduct = \"p\"\nkey = \"{key}\"\ngateways = [\"gw:1\"]\npins = []\n\
         [trust]\nepoch = 1\nthreshold = 1\nkeys = [\"{}\"]\n",
        "11".repeat(32)
    );
    let cases = [
        (whole.replace("b1", "b 1"), "key `id`"),
        (whole.replace("\"p\"", "\"\""), "key `product`"),
        (whole.replace("abcd", "abc"), "key `key`"),
        (whole.replace("gw:1", "gw"), "key `gateways`"),
        (whole.replace("[\"gw:1\"]", "[]"), "key `gateways`"),
        (
            whole.replace(
                "[\"gw:1\"]",
                "[\"a:1\", \"b:1\", \"c:1\", \"d:1\", \"e:1\"]",
            ),
            "at most 4",
        ),
        (whole.replace("pins = []", "pins = [\"12\"]"), "key `pins`"),
        (whole.replace("epoch = 1", "epoch = 0"), "epoch is 0"),
        (
            whole.replace("threshold = 1", "threshold = 2"),
            "key `trust`",
        ),
        (whole.replace("1111", "zz"), "key `trust.keys`"),
        (
            whole.replace("pins = []", "[agent]\nping_s = 5"),
            "unknown field `agent`",
        ),
        (whole.replace("product = \"p\"\n", ""), "missing field"),
        (
            whole.replace(&format!("\"{key}\""), &format!("[\"{key}\"]")),
            "invalid type",
        ),
        (whole.replace("id =", "id"), "line 1"),
    ];
    for (text, says) in cases {
        std::fs::write(path("wrong.toml"), &text).unwrap();
        let refused = bench
            .run(&[
                "device",
                "pack",
                &path("wrong.toml"),
                "--out",
                &path("wrong.bin"),
            ])
            .await;
        let said = refused.json["error"].to_string() + &refused.stderr;
        assert_eq!(refused.code, Some(1), "{text}\n{said}");
        assert_eq!(refused.json["error"]["code"], "bad_provisioning", "{said}");
        assert!(
            said.contains(says) && !said.contains("5ec2e75ec2e7"),
            "{said}"
        );
        assert!(!bench.path().join("wrong.bin").exists(), "{said}");
    }
    let missing = bench
        .run(&[
            "device",
            "pack",
            &path("none.toml"),
            "--out",
            &path("x.bin"),
        ])
        .await;
    assert_eq!(missing.json["error"]["code"], "file");
    assert!(missing.stderr.contains("device add"), "{}", missing.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_cannot_be_taken_back_warns_before_anything_is_sent() {
    let mut bench = Bench::start().await;
    let board = bench.add_board("board", Faults::default(), BOARD).await;
    let key = key_of(&board.config);
    let image = bench.image("1.0", &random_bytes(1, 4000)).await;

    // Nobody knows yet, and nobody is frightened.
    let unseen = bench
        .run(&["push", "board", &image.name, "--no-wait"])
        .await;
    assert_eq!(
        (&unseen.json["revert"], &unseen.json["warning"]),
        (&Value::Null, &Value::Null)
    );
    assert!(!unseen.stderr.contains("Warning"), "{}", unseen.stderr);
    let update = unseen.json["update"].as_str().unwrap().to_owned();
    let shown = bench.cli().command(&["update", "show", &update]);
    let shown = without_json(shown).await;
    assert!(
        shown.contains("unknown: the device has not dialed home"),
        "{shown}"
    );

    // The record follows what the board says when it is offered.
    for (revert, warns) in [
        (
            Revert::BY_IMAGE,
            Some("crashes before it can dial home stays"),
        ),
        (Revert::NONE, Some("keeps no older image")),
        (Revert::RESTORE_COPY, None),
        (Revert::SWAP, None),
        (Revert(77), None),
    ] {
        let mut hello = hello();
        hello.components.clear();
        hello
            .components
            .push(dialhome_proto::frame::Component {
                revert,
                ..component()
            })
            .unwrap();
        let mut peer = Peer::greet_as(bench.site.listen(), &key, hello).await;
        let (offered, _) = peer.offer().await;
        assert_eq!(offered.to_string(), update);
        let recorded = bench.json(&["update", "show", &update]).await;
        assert_eq!(recorded["revert"], revert.to_string(), "{recorded}");
        let again = bench
            .run(&["push", "board", &image.name, "--no-wait"])
            .await;
        assert_eq!(again.json["update"], update.as_str());
        for (said, of) in [
            (recorded["warning"].as_str(), "the record"),
            (again.json["warning"].as_str(), "the push"),
            (
                again
                    .stderr
                    .lines()
                    .find(|line| line.starts_with("Warning: ")),
                "standard error",
            ),
        ] {
            match warns {
                Some(words) => assert!(
                    said.is_some_and(|said| said.contains(words)),
                    "{of}: {said:?}"
                ),
                None => assert_eq!(said, None, "{of}, {revert}"),
            }
        }
        let first = again.stderr.lines().next().unwrap_or_default();
        assert_eq!(
            first.starts_with("Warning: "),
            warns.is_some(),
            "{}",
            again.stderr
        );
        drop(peer);
        bench.offline("board").await;
    }
}

/// What a command prints for people.
async fn without_json(command: tokio::process::Command) -> String {
    let mut plain = tokio::process::Command::new(command.as_std().get_program());
    plain.args(command.as_std().get_args().filter(|arg| *arg != "--json"));
    for (name, value) in command.as_std().get_envs() {
        plain.env(name, value.unwrap_or_default());
    }
    let output = plain.output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// An image as Arduino's build makes it for a SAMD21: the SDU stage, and a sketch behind it. `base` is the
/// address that it is linked for.
fn sdu_image(seed: u64, base: u32) -> Vec<u8> {
    let mut image = sketch(seed, base, 40_000);
    let reset = base + 0x4000 + 0x1235;
    image[0x4000..0x4004].copy_from_slice(&0x2000_8000_u32.to_le_bytes());
    image[0x4004..0x4008].copy_from_slice(&reset.to_le_bytes());
    image
}

/// A sketch without the stage: one vector table, and code.
fn sketch(seed: u64, base: u32, len: usize) -> Vec<u8> {
    // No byte of it is 0x20, so that nothing in it looks like a stack pointer.
    let mut image = random_bytes(seed, len);
    for byte in &mut image {
        *byte |= 0x40;
    }
    image[..4].copy_from_slice(&0x2000_8000_u32.to_le_bytes());
    image[4..8].copy_from_slice(&(base + 0x11d).to_le_bytes());
    image
}

/// `image sign` or `image add`, and how it ended.
async fn sign(
    bench: &Bench,
    command: &str,
    version: &str,
    bytes: &[u8],
    options: &[&str],
) -> dialhome_gateway::demo::site::Outcome {
    let file = bench.path().join(format!("{version}.bin"));
    std::fs::write(&file, bytes).unwrap();
    let (file, key) = (file.to_str().unwrap(), bench.site.key());
    let mut args = vec!["image", command, file, "--version", version];
    args.extend(["--product", PRODUCT, "--key", key.to_str().unwrap()]);
    args.extend(options);
    bench.run(&args).await
}

fn said(outcome: &dialhome_gateway::demo::site::Outcome, code: &str) -> String {
    assert_eq!(outcome.json["error"]["code"], code, "{outcome:?}");
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let error = &outcome.json["error"];
    format!(
        "{} {}",
        error["message"].as_str().unwrap(),
        error["hint"].as_str().unwrap_or_default()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_without_the_sdu_stage_is_refused_before_it_is_signed() {
    let bench = Bench::start().await;
    let out = bench.path().join("x.dhi");
    let options = |check| ["--out", out.to_str().unwrap(), "--check", check];

    let plain = sign(
        &bench,
        "sign",
        "1",
        &sketch(1, 0x2000, 40_000),
        &options("sdu"),
    )
    .await;
    let words = said(&plain, "check_failed");
    assert!(
        words.contains("stage is missing") && words.contains("#include <SDU.h>"),
        "{words}"
    );
    let blink = sign(
        &bench,
        "sign",
        "1",
        &sketch(1, 0x2000, 11_000),
        &options("sdu"),
    )
    .await;
    let words = said(&blink, "check_failed");
    assert!(
        words.contains("11000 bytes") && words.contains("#include <SDU.h>"),
        "{words}"
    );
    let from_zero = sign(&bench, "sign", "1", &sdu_image(1, 0), &options("sdu")).await;
    let words = said(&from_zero, "check_failed");
    assert!(
        words.contains("0x2000") && words.contains("--check sdu:0x0"),
        "{words}"
    );
    assert!(!out.exists(), "a refused image was written");
    let unknown = sign(&bench, "sign", "1", &sdu_image(1, 0), &options("ssu")).await;
    assert_eq!(unknown.code, Some(2), "{unknown:?}");

    let good = sign(&bench, "sign", "1", &sdu_image(1, 0x2000), &options("sdu")).await;
    assert_eq!(
        (good.code, &good.json["check"]),
        (Some(0), &"sdu:0x2000".into()),
        "{good:?}"
    );
    let lm3s = sign(&bench, "sign", "1", &sdu_image(1, 0), &options("sdu:0")).await;
    assert_eq!(
        (lm3s.code, &lm3s.json["check"]),
        (Some(0), &"sdu:0x0".into()),
        "{lm3s:?}"
    );

    // A signed file whose payload is a plain sketch after all: the note alone convinces nobody.
    let path = out.to_str().unwrap();
    let unchecked = sign(&bench, "sign", "2", &sketch(2, 0, 40_000), &["--out", path]).await;
    assert_eq!(unchecked.code, Some(0), "{unchecked:?}");
    let mut forged = std::fs::read(&out).unwrap();
    let manifest = usize::from(u16::from_be_bytes([forged[4], forged[5]]));
    let source_at = 6 + manifest;
    let source = u16::from_be_bytes([forged[source_at], forged[source_at + 1]]);
    let end = source_at + 2 + usize::from(source);
    forged.splice(end..end, *b"\x07sdu:0x0");
    forged[source_at..source_at + 2].copy_from_slice(&(source + 8).to_be_bytes());
    std::fs::write(&out, &forged).unwrap();
    let words = said(&bench.run(&["image", "add", path]).await, "check_failed");
    assert!(words.contains("stage is missing"), "{words}");
    let (status, answer) = upload(&bench, &forged).await;
    assert_eq!(status, 400, "{answer}");
    assert_eq!(answer["error"]["code"], "check_failed", "{answer}");
    assert!(
        answer["error"]["hint"]
            .as_str()
            .unwrap()
            .contains("#include <SDU.h>"),
        "{answer}"
    );
    let images = bench.json(&["image", "list"]).await;
    assert_eq!(images["items"], Value::Array(Vec::new()), "{images}");
}

/// What another client of the API sends, which checks nothing itself.
async fn upload(bench: &Bench, dhi: &[u8]) -> (u16, Value) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::UnixStream::connect(bench.site.socket())
        .await
        .unwrap();
    let head = format!(
        "POST /v1/images HTTP/1.1\r\nHost: dialhome\r\nConnection: close\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\n\r\n",
        dhi.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(dhi).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_product_whose_images_have_a_check_takes_none_without_it() {
    let mut bench = Bench::start().await;
    bench.add_board("board", Faults::default(), BOARD).await;
    let image = |version: &str| format!("{PRODUCT}@{version}");
    let push = async |version: &str| {
        let image = image(version);
        bench
            .run(&["push", "board", image.as_str(), "--no-wait"])
            .await
    };
    let added = sign(&bench, "add", "plain", &sketch(1, 0x2000, 40_000), &[]).await;
    assert_eq!(
        (&added.json["check"], &added.json["check_changed"]),
        (&Value::Null, &false.into())
    );
    let open = push("plain").await;
    let update = open.json["update"].as_str().unwrap().to_owned();

    // What is open would be offered without the check.
    let checked = async |version: &str, options: &[&str]| {
        let options = [&["--check", "sdu"], options].concat();
        sign(&bench, "add", version, &sdu_image(2, 0x2000), &options).await
    };
    let words = said(&checked("2", &[]).await, "update_open");
    assert!(
        words.contains(&update) && words.contains("cancel"),
        "{words}"
    );
    bench.json(&["update", "cancel", &update]).await;
    let added = checked("2", &[]).await;
    assert_eq!(added.code, Some(0), "{added:?}");
    assert_eq!(
        (&added.json["check"], &added.json["check_changed"]),
        (&"sdu:0x2000".into(), &true.into())
    );
    let shown = bench.json(&["image", "show", image("2").as_str()]).await;
    assert_eq!(shown["check"], "sdu:0x2000", "{shown}");

    // From now on nothing without it comes in, or goes out.
    let words = said(
        &sign(&bench, "add", "3", &sdu_image(3, 0x2000), &[]).await,
        "check_missing",
    );
    assert!(
        words.contains("no check") && words.contains("--change-check"),
        "{words}"
    );
    let other = sign(&bench, "add", "3", &sdu_image(3, 0), &["--check", "sdu:0"]).await;
    let words = said(&other, "check_missing");
    assert!(words.contains("the check sdu:0x0"), "{words}");
    let words = said(&push("plain").await, "check_missing");
    assert!(
        words.contains("need sdu:0x2000") && words.contains("--change-check"),
        "{words}"
    );
    let device = bench.json(&["device", "show", "board"]).await;
    assert_eq!(device["update"], Value::Null, "{device}");
    // Another component of the product is another matter.
    let side = sign(
        &bench,
        "add",
        "3",
        &sketch(4, 0, 900),
        &["--component", "1"],
    )
    .await;
    assert_eq!(
        (side.code, &side.json["check_changed"]),
        (Some(0), &false.into()),
        "{side:?}"
    );
    // It outlives the gateway.
    bench.kill_gateway().await;
    bench.start_gateway().await;
    let refused = bench
        .run(&["push", "board", &image("plain"), "--no-wait"])
        .await;
    said(&refused, "check_missing");

    // With intent it is changed, and back.
    let changed = sign(
        &bench,
        "add",
        "3",
        &sketch(3, 0x2000, 900),
        &["--change-check"],
    )
    .await;
    assert_eq!(
        (changed.code, &changed.json["check_changed"]),
        (Some(0), &true.into()),
        "{changed:?}"
    );
    let pushed = bench
        .run(&["push", "board", &image("plain"), "--no-wait"])
        .await;
    assert_eq!(pushed.code, Some(3), "{pushed:?}");
    let events = bench.run(&["events"]).await.stdout;
    assert_eq!(events.matches("check_changed").count(), 2, "{events}");
}
