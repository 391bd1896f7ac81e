//! Files for several components, from the operator's side: wrong ones are refused in words, payloads are kept as long
//! as an image has them, and names and checks count for each component.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use crate::support::bundle::{Image, add, bench, sign};
use crate::support::{Bench, PRODUCT, random_bytes};
use dialhome_gateway::demo::site::Outcome;
use serde_json::{Value, json};

/// What the gateway answers to an upload of these bytes.
fn upload(bench: &Bench, bytes: &[u8]) -> (u16, Value) {
    let socket = bench.path().join("data/admin.sock");
    let mut stream = UnixStream::connect(socket).unwrap();
    let head = format!(
        "POST /v1/images HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\
         Content-Type: application/octet-stream\r\nContent-Length: {}\r\n\r\n",
        bytes.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    // The gateway may answer, and close, before it has read everything.
    let _ = stream.write_all(bytes);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    (status, serde_json::from_str(body).unwrap())
}

fn message(answer: &Value) -> &str {
    answer["error"]["message"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_whose_payloads_are_not_those_of_its_manifest_is_refused_in_words() {
    let bench = Bench::start().await;
    // As long as each other, so that only their digests tell them apart.
    let payloads = [random_bytes(1, 3_000), random_bytes(2, 3_000)];
    let image = sign(&bench, ("2.0", "1.4"), payloads, 7).await;
    let whole = std::fs::read(&image.file).unwrap();
    let head = &whole[..whole.len() - 6_000];
    let [child, main] = &image.payloads;
    let damaged = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let cases = [
        (
            [head, child].concat(),
            "the payload of component 0 is missing",
        ),
        (head.to_vec(), "the payload of component 1 is missing"),
        (
            whole[..whole.len() - 1].to_vec(),
            "component 0: the payload is 2999 bytes long",
        ),
        ([&whole[..], b"!"].concat(), "longer than its 2 payloads"),
        (
            [head, main, child].concat(),
            "that of component 0 stands where that of component 1 belongs",
        ),
        (
            damaged(whole.len() - 1),
            "component 0: the payload is damaged",
        ),
        (
            damaged(whole.len() - 3_001),
            "component 1: the payload is damaged",
        ),
        (head[..head.len() - 1].to_vec(), "cut short"),
    ];
    for (bytes, words) in &cases {
        let (status, answer) = upload(&bench, bytes);
        assert!(
            status == 400 && message(&answer).contains(words),
            "{words}: {answer}"
        );
        // The operator's own command finds the same before it sends anything.
        let file = bench.path().join("wrong.dhi");
        std::fs::write(&file, bytes).unwrap();
        let refused = bench.run(&["image", "add", file.to_str().unwrap()]).await;
        assert_eq!(refused.code, Some(1));
        assert!(
            message(&refused.json).contains(words),
            "{words}: {refused:?}"
        );
    }
    assert_eq!(bench.json(&["image", "list"]).await["items"], json!([]));
    let left = std::fs::read_dir(bench.path().join("data/images/new")).unwrap();
    assert_eq!(left.count(), 0, "nothing half written stays");
    let (status, added) = upload(&bench, &whole);
    assert_eq!((status, &added["existed"]), (201, &json!(false)), "{added}");
    assert_eq!(upload(&bench, &whole).0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payloads_are_kept_as_long_as_an_image_has_them_and_come_back_from_a_backup() {
    let (mut bench, _, image) = bench().await;
    let shown = bench.json(&["image", "show", &image.name]).await;
    assert_eq!(
        (&shown["size"], &shown["component"]),
        (&json!(image.size()), &json!(1))
    );
    let entries = shown["entries"].as_array().unwrap();
    for (place, (version, floor)) in [("2.0", 1), ("1.4", 0)].into_iter().enumerate() {
        let entry = &entries[place];
        assert_eq!(
            (&entry["version"], &entry["counter"], &entry["floor"]),
            (&json!(version), &json!(7), &json!(floor)),
            "{entry}"
        );
        assert_eq!(entry["digest"], image.digest(place).to_string());
    }
    let listed = bench.json(&["image", "list"]).await;
    assert_eq!(listed["items"][0]["entries"][1]["component"], 0, "{listed}");

    // The child's payload is also an image of its own.
    let key = bench.site.key().to_str().unwrap().to_owned();
    let child = bench
        .path()
        .join("child-2.0.bin")
        .to_str()
        .unwrap()
        .to_owned();
    let alone = format!("{PRODUCT}/1@2.0");
    let add_alone = [
        "image",
        "add",
        &child,
        "--product",
        PRODUCT,
        "--component",
        "1",
        "--version",
        "2.0",
        "--key",
        &key,
        "--counter",
        "7",
    ];
    bench.json(&add_alone).await;
    assert_eq!(files(&bench, &image), [true, true]);
    bench.json(&["image", "remove", &image.name]).await;
    assert_eq!(files(&bench, &image), [true, false]);
    add(&bench, &image).await;
    let shown = bench.json(&["image", "show", &image.name]).await;
    bench.json(&["image", "remove", &alone]).await;
    assert_eq!(files(&bench, &image), [true, true]);

    // While an update needs it, it stays; and its name stands for its bytes.
    let update = bench.push_no_wait("lamp-1", &image.name, &[]).await;
    let refused = bench.run(&["image", "remove", &image.name]).await;
    assert_eq!(refused.json["error"]["code"], "in_use", "{refused:?}");
    let others = [random_bytes(1, 5_000), random_bytes(9, 9_000)];
    let others = sign(&bench, ("2.0", "1.4"), others, 7).await;
    let file = others.file.to_str().unwrap();
    let refused = bench.run(&["image", "add", file]).await;
    assert_eq!(refused.json["error"]["code"], "exists", "{refused:?}");
    assert_eq!(files(&bench, &image), [true, true]);

    let backup = bench.path().join("backup.tar").to_str().unwrap().to_owned();
    let facts = bench.json(&["backup", &backup]).await;
    bench.json(&["update", "cancel", &update]).await;
    bench.json(&["image", "remove", &image.name]).await;
    assert_eq!(files(&bench, &image), [false, false]);
    let restored = bench.json(&["restore", &backup]).await;
    assert_eq!(restored["images_added"], 2, "{facts}, {restored}");
    // One image of two components is one image, in two files.
    let backup_of = &restored["backup"];
    assert_eq!(
        (&backup_of["images"], &backup_of["image_files"]),
        (&1.into(), &2.into()),
        "{restored}"
    );
    assert_eq!(bench.json(&["image", "show", &image.name]).await, shown);
    assert_eq!(files(&bench, &image), [true, true]);

    // A backup without one of them is none.
    let main = bench.path().join("data/images").join(place_of(&image, 1));
    std::fs::write(&main, b"not the image").unwrap();
    let damaged = bench
        .path()
        .join("damaged.tar")
        .to_str()
        .unwrap()
        .to_owned();
    bench.json(&["backup", &damaged]).await;
    let refused = bench.run(&["restore", &damaged]).await;
    assert!(message(&refused.json).contains(&image.name), "{refused:?}");

    // After a restart it is all still there.
    bench.kill_gateway().await;
    bench.start_gateway().await;
    assert_eq!(bench.json(&["image", "show", &image.name]).await, shown);
    let update = bench.json(&["update", "show", &update]).await;
    assert_eq!(update["entries"][0]["size"], 5_000, "{update}");
}

/// Where a payload is, below the gateway's folder of images.
fn place_of(image: &Image, place: usize) -> String {
    let digest = image.digest(place).to_string();
    format!("{}/{digest}", &digest[..2])
}

/// Whether the gateway has each payload.
fn files(bench: &Bench, image: &Image) -> [bool; 2] {
    let images = bench.path().join("data/images");
    [0, 1].map(|place| images.join(place_of(image, place)).exists())
}

fn refused(outcome: &Outcome, exit: i32, words: &str) {
    let said = outcome.json.to_string() + &outcome.stderr;
    assert!(
        outcome.code == Some(exit) && said.contains(words),
        "{words}: {outcome:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_names_and_components_without_their_check_are_refused_in_words() {
    let (bench, _, image) = bench().await;
    for (name, words) in [
        ("testboard/1,0@2.0", "2 components and 1 version"),
        ("testboard/1,1@2.0,2.0", "component 1 twice"),
        ("testboard/0,1,2,3,4@1,1,1,1,1", "more than 4"),
        ("testboard/1,x@1,1", "`x` is not a component"),
        ("testboard@1,", "`` is not a version"),
    ] {
        for command in [
            &["push", "lamp-1", name][..],
            &["image", "show", name],
            &["image", "remove", name],
        ] {
            refused(&bench.run(command).await, 2, words);
        }
    }
    // In the other order it is another image.
    let swapped = format!("{PRODUCT}/0,1@1.4,2.0");
    refused(
        &bench.run(&["push", "lamp-1", &swapped]).await,
        1,
        "not_found",
    );

    // Once images of component 1 need a check, one for both components needs it too.
    let key = bench.site.key().to_str().unwrap().to_owned();
    let mut firmware = random_bytes(5, 40_000);
    for byte in &mut firmware {
        *byte |= 0x40;
    }
    for (at, reset) in [(0, 0x211d_u32), (0x4000, 0x7235)] {
        firmware[at..at + 4].copy_from_slice(&0x2000_8000_u32.to_le_bytes());
        firmware[at + 4..at + 8].copy_from_slice(&reset.to_le_bytes());
    }
    let file = bench.path().join("checked.bin");
    std::fs::write(&file, &firmware).unwrap();
    let file = file.to_str().unwrap();
    let checked = [
        "image",
        "add",
        file,
        "--product",
        PRODUCT,
        "--component",
        "1",
        "--version",
        "3.0",
        "--key",
        &key,
        "--check",
        "sdu",
    ];
    bench.json(&checked).await;
    let push = bench
        .run(&["push", "lamp-1", &image.name, "--no-wait"])
        .await;
    refused(
        &push,
        1,
        "has no check for component 1, and images of testboard/1 need sdu:0x2000",
    );
    let main = bench.path().join("main-1.4.bin");
    let entries = |check: &str| {
        [
            format!("1={file}@3.1{check}"),
            format!("0={}@1.5", main.display()),
        ]
    };
    let add = |entries: [String; 2]| {
        let [one, zero] = entries;
        let key = key.clone();
        let bench = &bench;
        async move {
            let args = [
                "image",
                "add",
                "--product",
                PRODUCT,
                "--key",
                &key,
                "--entry",
                &one,
                "--entry",
                &zero,
            ];
            bench.run(&args).await
        }
    };
    refused(&add(entries("")).await, 1, "check_missing");
    let added = add(entries(",check=sdu")).await;
    assert_eq!(added.json["entries"][0]["check"], "sdu:0x2000", "{added:?}");
    assert_eq!(
        added.json["image"],
        format!("{PRODUCT}/1,0@3.1,1.5").as_str()
    );
    // One of them fails its check: nothing is signed, and the file is named by its component at the gateway.
    let wrong = entries(",check=sdu").map(|entry| entry.replace(file, main.to_str().unwrap()));
    refused(&add(wrong).await, 1, "check_failed");
}
