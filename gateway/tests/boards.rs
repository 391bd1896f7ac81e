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
