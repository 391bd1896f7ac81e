//! Manifests that must not be installed: refused at the push where the record tells, else
//! declined by the board; the operator reads why, and the board keeps what it has.

mod support;

use dialhome_gateway::demo::relay::Faults;
use dialhome_gateway::demo::site::Outcome;
use serde_json::Value;
use support::{BOARD, Bench, PRODUCT, Pushed, Transport, random_bytes};

support::over_both! {
    what_only_the_board_knows_is_declined_with_its_reason,
    a_board_that_trusts_others_declines_by_name,
}

/// The board's answer, as the operator gets it: exit code 1 and a sentence.
#[track_caller]
fn declined(pushed: Pushed, reason: &str) {
    let stderr = pushed.outcome.stderr.clone();
    let update = pushed.ended("declined", 1);
    assert_eq!(update["reason"], reason, "{update}");
    assert_eq!(update["sent"], 0, "{update}");
    let sentence = stderr.trim().lines().next_back().unwrap_or_default();
    let (what, then) = sentence
        .split_once(&format!("declined ({reason}). "))
        .unwrap_or_default();
    assert!(
        !what.is_empty() && then.ends_with('.'),
        "no sentence that says what to do: {stderr}"
    );
}

/// The gateway's own refusal: exit code, code, and words that the sentence has.
#[track_caller]
fn refused(outcome: &Outcome, code: &str, words: &[&str]) {
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert_eq!(outcome.json["error"]["code"], code, "{outcome:?}");
    for word in words {
        assert!(outcome.stderr.contains(word), "no `{word}`: {outcome:?}");
    }
    assert_ne!(outcome.json["error"]["hint"], Value::Null, "{outcome:?}");
}

/// Changes one line of the board's own configuration: what the record does not know of.
async fn reconfigure(bench: &mut Bench, id: &str, from: &str, to: &str) {
    let config = bench.path().join("boards").join(id).join("agent.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(text.contains(from), "no `{from}` in {text}");
    let change = || std::fs::write(&config, text.replacen(from, to, 1)).unwrap();
    bench.restart_agent_after(id, change).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_record_tells_is_refused_at_the_push() {
    let mut bench = Bench::start().await;
    bench.board("board", Faults::default(), BOARD).await;
    let bytes = random_bytes(1, 20_000);
    let file = bench.path().join("image.bin");
    std::fs::write(&file, &bytes).unwrap();
    let file = file.to_str().unwrap().to_owned();
    let path = |name: &str| bench.path().join(name).to_str().unwrap().to_owned();
    let sign = async |product: &str, version: &str, key: &str, more: &[&str]| {
        let out = path(&format!("{product}-{version}.dhi"));
        let mut args = vec!["image", "sign", &file, "--product", product];
        args.extend(["--version", version, "--key", key, "--out", &out]);
        args.extend(more);
        bench.json(&args).await;
        bench.json(&["image", "add", &out]).await;
    };
    let key = path("operator.key");
    let other = path("other.key");
    bench.json(&["key", "generate", "--out", &other]).await;

    sign("kettle", "1.0", &key, &[]).await;
    let outcome = bench.run(&["push", "board", "kettle@1.0"]).await;
    refused(&outcome, "wrong_product", &["kettle", PRODUCT, "board"]);

    sign(PRODUCT, "2.0", &other, &[]).await;
    let outcome = bench
        .run(&["push", "board", &format!("{PRODUCT}@2.0")])
        .await;
    refused(&outcome, "not_trusted", &["board", "--trust"]);

    sign(PRODUCT, "3.0", &key, &["--device", "another"]).await;
    let outcome = bench
        .run(&["push", "board", &format!("{PRODUCT}@3.0")])
        .await;
    refused(&outcome, "wrong_device", &["another"]);

    // One bit of the signature: the file says nothing about who may sign, the device does.
    let out = path("changed.dhi");
    let mut args = vec!["image", "sign", &file, "--product", PRODUCT];
    args.extend(["--version", "4.0", "--key", &key, "--out", &out]);
    bench.json(&args).await;
    let signed = std::fs::read(&out).unwrap();
    // "DHI1", the manifest's length, the manifest, whose end is the signature.
    let end = 6 + usize::from(u16::from_be_bytes([signed[4], signed[5]]));
    let mut changed = signed.clone();
    changed[end - 20] ^= 1;
    std::fs::write(&out, changed).unwrap();
    bench.json(&["image", "add", &out]).await;
    let outcome = bench
        .run(&["push", "board", &format!("{PRODUCT}@4.0")])
        .await;
    refused(&outcome, "not_trusted", &["board", "signature"]);
    // And one of the image itself.
    let mut changed = signed.clone();
    *changed.last_mut().unwrap() ^= 1;
    std::fs::write(&out, changed).unwrap();
    let outcome = bench.run(&["image", "add", &out]).await;
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let device = bench.online("board").await;
    assert_eq!(device["update"], Value::Null, "{device}");
}

async fn what_only_the_board_knows_is_declined_with_its_reason(transport: Transport) {
    let mut bench = Bench::start_over(transport).await;
    let small = BOARD.replace("window = 32768", "window = 32768\nslot_size = 50000");
    bench.board("board", Faults::default(), &small).await;
    let good = bench
        .image_with(
            "1.0",
            &random_bytes(1, 20_000),
            &["--counter", "10", "--floor", "8"],
        )
        .await;
    bench.push("board", &good.name, &[]).await.confirmed();

    let options = ["--counter", "20", "--hardware", "5..9"];
    let image = bench
        .image_with("2.0", &random_bytes(2, 20_000), &options)
        .await;
    declined(
        bench.push("board", &image.name, &[]).await,
        "wrong_hardware",
    );

    let image = bench
        .image_with("3.0", &random_bytes(3, 50_001), &["--counter", "20"])
        .await;
    declined(bench.push("board", &image.name, &[]).await, "too_big");

    // Below the floor that 1.0 has set, asked for or not.
    let image = bench
        .image_with("4.0", &random_bytes(4, 20_000), &["--counter", "7"])
        .await;
    declined(bench.push("board", &image.name, &[]).await, "below_floor");
    declined(
        bench.push("board", &image.name, &["--downgrade"]).await,
        "below_floor",
    );

    // Above the floor and older: only where it is meant.
    let image = bench
        .image_with("5.0", &random_bytes(5, 20_000), &["--counter", "9"])
        .await;
    declined(
        bench.push("board", &image.name, &[]).await,
        "downgrade_not_asked",
    );
    let update = bench.push("board", &image.name, &["--downgrade"]).await;
    assert_eq!(update.confirmed()["digest"], image.digest.as_str());
    assert_eq!(bench.installed("board").as_deref(), Some(&*image.bytes));

    // The counter of the image that runs, on another one.
    let image = bench
        .image_with("6.0", &random_bytes(6, 20_000), &["--counter", "9"])
        .await;
    declined(
        bench.push("board", &image.name, &[]).await,
        "counter_conflict",
    );

    let required = format!("0={}", good.digest);
    let options = ["--counter", "30", "--require", &required];
    let image = bench
        .image_with("7.0", &random_bytes(7, 20_000), &options)
        .await;
    declined(
        bench.push("board", &image.name, &[]).await,
        "required_digest",
    );

    let file = bench.path().join("7.0.bin").to_str().unwrap().to_owned();
    let out = bench.path().join("child.dhi").to_str().unwrap().to_owned();
    let key = bench.site.key().to_str().unwrap().to_owned();
    let mut args = vec![
        "image",
        "sign",
        &file,
        "--product",
        PRODUCT,
        "--version",
        "8.0",
    ];
    args.extend(["--key", &key, "--component", "3", "--out", &out]);
    bench.json(&args).await;
    bench.json(&["image", "add", &out]).await;
    let name = format!("{PRODUCT}/3@8.0");
    declined(bench.push("board", &name, &[]).await, "wrong_component");

    // What the board has been given since is not in the gateway's record.
    let image = bench
        .image_with("9.0", &random_bytes(9, 20_000), &["--counter", "40"])
        .await;
    reconfigure(
        &mut bench,
        "board",
        &format!("product = \"{PRODUCT}\""),
        "product = \"kettle\"",
    )
    .await;
    declined(bench.push("board", &image.name, &[]).await, "wrong_product");
    reconfigure(
        &mut bench,
        "board",
        "product = \"kettle\"",
        &format!("product = \"{PRODUCT}\""),
    )
    .await;
    let update = bench.push("board", &image.name, &[]).await.confirmed();
    assert_eq!(update["digest"], image.digest.as_str());
    assert_eq!(bench.installed("board").as_deref(), Some(&*image.bytes));
}

async fn a_board_that_trusts_others_declines_by_name(transport: Transport) {
    let mut bench = Bench::start_over(transport).await;
    let key = bench.path().join("other.key").to_str().unwrap().to_owned();
    bench.json(&["key", "generate", "--out", &key]).await;
    let config = bench
        .add_board("board", Faults::default(), BOARD)
        .await
        .config;
    let mut text = std::fs::read_to_string(&config).unwrap();
    let keys = text
        .lines()
        .find(|line| line.starts_with("keys = "))
        .unwrap()
        .to_owned();
    // Another key of the right form: any point of the curve is.
    let stranger = format!("{key}.pub");
    let out = bench
        .path()
        .join("stranger.toml")
        .to_str()
        .unwrap()
        .to_owned();
    let mut args = vec!["device", "add", "stranger", "--product", PRODUCT];
    args.extend([
        "--trust",
        &stranger,
        "--gateway",
        "localhost:7040",
        "--out",
        &out,
    ]);
    bench.json(&args).await;
    let other = std::fs::read_to_string(out).unwrap();
    let theirs = other
        .lines()
        .find(|line| line.starts_with("keys = "))
        .unwrap();
    text = text.replace(&keys, theirs);
    std::fs::write(&config, &text).unwrap();
    bench.start_agent("board");
    bench.online("board").await;
    let image = bench.image("1.0", &random_bytes(1, 20_000)).await;
    declined(
        bench.push("board", &image.name, &[]).await,
        "unknown_signer",
    );

    // Both keys, and both must have signed: one does not do.
    let both = format!(
        "{}, {}",
        keys.trim_end_matches(']'),
        theirs.trim_start_matches("keys = [")
    );
    reconfigure(&mut bench, "board", theirs, &both).await;
    reconfigure(&mut bench, "board", "threshold = 1", "threshold = 2").await;
    declined(bench.push("board", &image.name, &[]).await, "bad_signature");

    // Nobody is trusted.
    let text = std::fs::read_to_string(&config).unwrap();
    let (before, rest) = text.split_once("[trust]").unwrap();
    let after = rest.split_once("\n[").map_or("", |(_, after)| after);
    let nobody = format!("{before}\n[{after}");
    let change = || std::fs::write(&config, nobody).unwrap();
    bench.restart_agent_after("board", change).await;
    declined(bench.push("board", &image.name, &[]).await, "no_trust");
    assert_eq!(bench.installed("board"), None);
}
