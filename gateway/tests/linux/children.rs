//! One update for an agent and the children beside it, through the real agent: installed in the
//! manifest's order, confirmed as one, and put back as one. Component 0 is the agent's own
//! executable, 1 and 2 are children of which the agent keeps the last good image, 3 keeps none.

use std::fs;
use std::path::PathBuf;

use crate::support::{Bench, PRODUCT, programs, random_bytes};
use dialhome_gateway::demo::process::Process;
use dialhome_gateway::demo::relay::Faults;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

const ID: &str = "linkit-1";

const AGENT: &str = "
[agent]
self_update = true
heartbeat_s = 5

[reconnect]
first_ms = 20
max_ms = 200
";

/// FOLDER/dark-N makes the check of component N fail.
const CHILD: &str = r#"
[[component]]
number = N
name = "lamp-N"
slot_size = 100000
rollback = "ROLLBACK"

[component.install]
command = ["sh", "-c", "cp $DIALHOME_IMAGE FOLDER/flash-N && echo N >>FOLDER/order"]

[component.running]
command = ["sh", "-c", "sha256sum FOLDER/flash-N"]

[component.check]
command = ["sh", "-c", "! cat FOLDER/dark-N 2>/dev/null"]
"#;

/// A gateway, and a board whose every component runs a first image.
struct Board {
    bench: Bench,
    folder: PathBuf,
    installed: Vec<u8>,
    counter: u32,
    _launcher: Process,
}

/// What an update brings to a component.
type Entry<'a> = (u8, &'a [u8]);

impl Board {
    async fn start(rollbacks: &[(u8, &str)]) -> Self {
        let mut bench = Bench::start().await;
        let children = rollbacks.iter().map(|(number, rollback)| {
            let child = CHILD.replace("ROLLBACK", rollback);
            child
                .replace("-N", &format!("-{number}"))
                .replace("= N", &format!("= {number}"))
                .replace("echo N", &format!("echo {number}"))
        });
        let settings = AGENT.to_owned() + &children.collect::<String>();
        let board = bench.add_board(ID, Faults::default(), &settings).await;
        let folder = bench.path().join("boards").join(ID);
        let installed = folder.join("dialhome-agent");
        let stripped = std::process::Command::new("strip")
            .arg("-o")
            .args([&installed, &programs().agent])
            .status();
        assert!(stripped.expect("strip").success());
        for (number, _) in rollbacks {
            fs::write(folder.join(format!("flash-{number}")), "by cable").unwrap();
        }
        let args = [
            "--config".as_ref(),
            board.config.as_os_str(),
            "--state".as_ref(),
            board.state.as_os_str(),
        ];
        let launcher = Process::spawn(ID, &installed, args, &bench.site.log(ID)).unwrap();
        bench.online(ID).await;
        let mut board = Self {
            installed: fs::read(&installed).unwrap(),
            bench,
            folder,
            counter: 0,
            _launcher: launcher,
        };
        let first: Vec<_> = rollbacks
            .iter()
            .map(|(number, _)| (*number, &b"first"[..]))
            .collect();
        let first = board.image(&first).await;
        board.bench.push(ID, &first, &[]).await.confirmed();
        board
    }

    /// The installed agent with this behind its end, where nothing is loaded from.
    fn agent(&self, version: &str) -> Vec<u8> {
        [&self.installed, version.as_bytes()].concat()
    }

    /// Signs and adds an image; its name.
    async fn image(&mut self, entries: &[Entry<'_>]) -> String {
        self.counter += 1;
        let version = format!("{}.0", self.counter);
        let out = self.folder.join(format!("{version}.dhi"));
        let key = self.bench.site.key();
        let text = |path: &PathBuf| path.to_str().unwrap().to_owned();
        let (key, out, counter) = (text(&key), text(&out), self.counter.to_string());
        let mut args = vec![
            "image",
            "sign",
            "--product",
            PRODUCT,
            "--key",
            &key,
            "--out",
            &out,
        ];
        args.extend(["--counter", &counter, "--trial-boots", "2"]);
        let entries: Vec<_> = entries
            .iter()
            .map(|(component, bytes)| {
                let file = self.folder.join(format!("{version}-{component}.bin"));
                fs::write(&file, bytes).unwrap();
                format!("{component}={}@{version}", file.display())
            })
            .collect();
        for entry in &entries {
            args.extend(["--entry", entry]);
        }
        let signed = self.bench.json(&args).await;
        self.bench.json(&["image", "add", &out]).await;
        signed["image"].as_str().unwrap().to_owned()
    }

    /// Pushes an update that does not come to be; its record.
    async fn fails(&mut self, entries: &[Entry<'_>], state: &str, reason: &str) -> Value {
        let image = self.image(entries).await;
        let update = self.bench.push(ID, &image, &[]).await.ended(state, 1);
        assert_eq!(update["reason"], reason, "{update}\n{}", self.bench.logs());
        update
    }

    /// Every component runs this, and the gateway knows it.
    async fn run(&self, all: &[Entry<'_>]) {
        let runs = |device: &Value| {
            all.iter().all(|(number, bytes)| {
                let digest: String = Sha256::digest(bytes)
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                let components = device["components"].as_array().unwrap();
                let mut components = components.iter();
                components
                    .any(|one| one["component"] == *number && one["digest"] == digest.as_str())
            })
        };
        let online = |device: &Value| device["online"] == true && runs(device);
        self.bench.until(&["device", "show", ID], online).await;
        for (number, bytes) in all.iter().filter(|(number, _)| *number > 0) {
            let flash = fs::read(self.folder.join(format!("flash-{number}"))).unwrap();
            assert!(flash == *bytes, "component {number}");
        }
    }

    /// The components whose install command ran, in their order, since the last time.
    fn order(&self) -> String {
        let file = self.folder.join("order");
        let order = fs::read_to_string(&file)
            .unwrap_or_default()
            .replace('\n', "");
        let _ = fs::remove_file(&file);
        order
    }

    fn fault(&self, name: &str) {
        fs::write(self.folder.join(name), name).unwrap();
    }

    fn mend(&self, name: &str) {
        fs::remove_file(self.folder.join(name)).unwrap();
    }
}

#[tokio::test]
async fn an_update_of_several_components_is_confirmed_and_put_back_as_one() {
    let mut board = Board::start(&[(1, "restore_copy"), (2, "restore_copy")]).await;
    assert_eq!(board.order(), "12");
    let agent = board.agent("second");
    let lamp = random_bytes(1, 30_000);
    // A child before the agent, and one behind it.
    let second: [Entry<'_>; 3] = [(2, &lamp), (0, &agent), (1, &lamp[..9_000])];
    let image = board.image(&second).await;
    assert_eq!(image, format!("{PRODUCT}/2,0,1@2.0,2.0,2.0"));
    board.bench.push(ID, &image, &[]).await.confirmed();
    board.run(&second).await;
    assert_eq!(board.order(), "21");

    // The new agent's first act is the second child, which is not well then.
    let newer = board.agent("third");
    let third: [Entry<'_>; 3] = [(2, b"third"), (0, &newer), (1, b"third")];
    board.fault("dark-1");
    let update = board.fails(&third, "reverted", "self_test").await;
    let detail = update["detail"].as_str().unwrap_or_default();
    assert!(
        detail.contains("lamp-1: check ended with code 1: dark-1"),
        "{update}"
    );
    board.run(&second).await;
    // In the opposite order.
    assert_eq!(board.order(), "2112");
    board.mend("dark-1");

    // An agent that does not come up takes the child before it along; the other was not touched.
    let dies = b"#!/bin/sh\n[ \"$1\" = --version ] && echo dialhome-agent 9 && exit\nexit 3\n";
    let fourth: [Entry<'_>; 3] = [(2, b"fourth"), (0, dies), (1, b"fourth")];
    let update = board.fails(&fourth, "reverted", "crashed").await;
    let detail = update["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("exit status: 3"), "{update}");
    board.run(&second).await;
    assert_eq!(board.order(), "22");

    // What runs already is left alone.
    let fifth: [Entry<'_>; 3] = [(2, &lamp), (0, &agent), (1, b"fifth")];
    let image = board.image(&fifth).await;
    board.bench.push(ID, &image, &[]).await.confirmed();
    board.run(&fifth).await;
    assert_eq!(board.order(), "1");
}

#[tokio::test]
async fn a_child_that_cannot_be_put_back_is_named_and_the_others_are_put_back() {
    let mut board = Board::start(&[(1, "restore_copy"), (3, "none")]).await;
    board.fault("dark-3");
    let second: [Entry<'_>; 2] = [(1, b"second"), (3, b"second")];
    let update = board.fails(&second, "failed", "revert_failed").await;
    let detail = update["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("lamp-3"), "{update}");
    board.run(&[(1, b"first"), (3, b"second")]).await;
    // It takes the next one.
    board.mend("dark-3");
    let third: [Entry<'_>; 2] = [(1, b"third"), (3, b"third")];
    let image = board.image(&third).await;
    board.bench.push(ID, &image, &[]).await.confirmed();
    board.run(&third).await;
}
