//! The operator's side against the real `dialhome`: commands, exit codes, JSON, and a gateway that is killed or starved.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use dialhome_gateway::store::FORMAT;
use serde_json::Value;

const DIALHOME: &str = env!("CARGO_BIN_EXE_dialhome");

/// A gateway's data directory, its process, and an operator's files.
struct Site {
    dir: tempfile::TempDir,
    gateway: Option<Child>,
}

impl Site {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            gateway: None,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn start(&mut self) {
        let mut serve = Command::new(DIALHOME);
        serve
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(self.path("data"));
        self.start_as(serve);
    }

    fn start_as(&mut self, mut serve: Command) {
        self.gateway = Some(
            serve
                .stderr(Stdio::null())
                .stdin(Stdio::null())
                .spawn()
                .unwrap(),
        );
        let until = Instant::now() + Duration::from_secs(60);
        while self.run(&["status"]).0 != 0 {
            assert!(Instant::now() < until, "the gateway does not answer");
            assert!(
                self.gateway.as_mut().unwrap().try_wait().unwrap().is_none(),
                "the gateway ended"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn kill(&mut self) {
        let mut gateway = self.gateway.take().unwrap();
        gateway.kill().unwrap();
        gateway.wait().unwrap();
    }

    /// A command with `--json`: its exit code and what it printed.
    fn run(&self, args: &[&str]) -> (i32, Value) {
        let output = self.output(args);
        let json = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        (output.status.code().unwrap(), json)
    }

    fn output(&self, args: &[&str]) -> Output {
        Command::new(DIALHOME)
            .arg("--json")
            .args(args)
            .env("DIALHOME_SOCKET", self.path("data/admin.sock"))
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// A command that must succeed.
    fn done(&self, args: &[&str]) -> Value {
        let output = self.output(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// A key, a device `b1`, and the images pump@1 and pump@2.
    fn furnish(&self) {
        self.done(&["key", "generate", "--out", "op.key"]);
        self.add_device("b1");
        for version in ["1", "2"] {
            std::fs::write(self.path("fw.bin"), version.repeat(5000)).unwrap();
            self.done(&[
                "image",
                "add",
                "fw.bin",
                "--product",
                "pump",
                "--version",
                version,
                "--key",
                "op.key",
            ]);
        }
    }

    fn add_device(&self, id: &str) {
        let out = format!("{id}.toml");
        self.done(&[
            "device",
            "add",
            id,
            "--product",
            "pump",
            "--trust",
            "op.key.pub",
            "--gateway",
            "gw.example:7040",
            "--out",
            &out,
        ]);
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if self.gateway.is_some() {
            self.kill();
        }
    }
}

fn code(json: &Value) -> &str {
    json["error"]["code"].as_str().unwrap_or("none")
}

#[test]
fn a_push_is_joined_refused_replaced_and_canceled() {
    let mut site = Site::new();
    site.start();
    site.furnish();
    let (exit, first) = site.run(&["push", "b1", "pump@1", "--no-wait"]);
    assert_eq!((exit, &first["state"]), (3, &"queued".into()));
    for field in ["reason", "detail"] {
        assert!(first[field].is_null() && first.as_object().unwrap().contains_key(field));
    }
    let (exit, again) = site.run(&["push", "b1", "pump@1", "--wait", "1s"]);
    assert_eq!((exit, &again["update"]), (3, &first["update"]));
    let (exit, refused) = site.run(&["push", "b1", "pump@2", "--no-wait"]);
    assert_eq!((exit, code(&refused)), (1, "update_open"));
    let (exit, second) = site.run(&["push", "b1", "pump@2", "--no-wait", "--replace"]);
    assert_eq!((exit, &second["image"]), (3, &"pump@2".into()));
    let old = site.done(&["update", "show", first["update"].as_str().unwrap()]);
    assert_eq!(
        (&old["state"], &old["reason"]),
        (&"canceled".into(), &"replaced".into())
    );
    assert_eq!(code(&site.run(&["image", "remove", "pump@2"]).1), "in_use");
    let canceled = site.done(&["update", "cancel", second["update"].as_str().unwrap()]);
    assert_eq!(canceled["state"], "canceled");
    site.done(&["image", "remove", "pump@2"]);
    let (exit, ended) = site.run(&["update", "cancel", second["update"].as_str().unwrap()]);
    assert_eq!((exit, code(&ended)), (1, "ended"));
}

#[test]
fn exit_codes_and_errors_are_what_scripts_rely_on() {
    let mut site = Site::new();
    let (exit, error) = site.run(&["status"]);
    assert_eq!((exit, code(&error)), (4, "not_reached"));
    site.start();
    site.furnish();
    for wrong in [
        &["rollout"][..],
        &["push", "b1"],
        &["push", "b 1", "pump@1"],
        &["push", "b1", "pump"],
        &["push", "b1", "pump@1", "--wait", "5"],
    ] {
        let (exit, error) = site.run(wrong);
        assert_eq!((exit, code(&error)), (2, "wrong_use"), "{wrong:?}");
    }
    let (exit, error) = site.run(&["push", "nobody", "pump@1"]);
    assert_eq!((exit, code(&error)), (1, "not_found"));
    assert!(
        error["error"]["hint"]
            .as_str()
            .unwrap()
            .contains("device list")
    );
    let (exit, error) = site.run(&[
        "device",
        "add",
        "b1",
        "--product",
        "p",
        "--trust",
        "op.key.pub",
        "--gateway",
        "h:1",
    ]);
    assert_eq!((exit, code(&error)), (1, "exists"));
    let long = format!("/tmp/{}", "x".repeat(110));
    let (exit, error) = site.run(&["status", "--socket", &long]);
    assert_eq!((exit, code(&error)), (2, "socket_path_too_long"));
    let list = site.done(&["device", "list"]);
    assert_eq!(
        (list["items"].as_array().unwrap().len(), &list["next"]),
        (1, &Value::Null)
    );
    let device = &list["items"][0];
    assert_eq!(
        (&device["online"], &device["presence"]),
        (&false.into(), &"offline".into())
    );
    let toml: toml::Table = std::fs::read_to_string(site.path("b1.toml"))
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(toml["key"].as_str().unwrap().len(), 64);
    assert_eq!(toml["trust"]["keys"].as_array().unwrap().len(), 1);
    let shown = site.output(&["device", "show", "b1"]);
    assert!(!String::from_utf8_lossy(&shown.stdout).contains(toml["key"].as_str().unwrap()));
}

#[test]
fn what_was_acknowledged_outlives_a_kill_and_a_hold_too() {
    let mut site = Site::new();
    site.start();
    site.furnish();
    site.done(&["hold"]);
    let adding: Vec<_> = (0..4)
        .map(|thread| {
            let (dir, socket) = (site.path(""), site.path("data/admin.sock"));
            std::thread::spawn(move || {
                let mut told = Vec::new();
                for number in 0.. {
                    let id = format!("t{thread}-{number}");
                    let added = Command::new(DIALHOME)
                        .args([
                            "device",
                            "add",
                            &id,
                            "--product",
                            "pump",
                            "--trust",
                            "op.key.pub",
                            "--gateway",
                            "h:1",
                        ])
                        .env("DIALHOME_SOCKET", &socket)
                        .current_dir(&dir)
                        .output()
                        .unwrap();
                    if !added.status.success() {
                        return told;
                    }
                    told.push(id);
                }
                told
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(700));
    site.kill();
    let told: Vec<String> = adding
        .into_iter()
        .flat_map(|thread| thread.join().unwrap())
        .collect();
    assert!(!told.is_empty());
    site.start();
    for id in told {
        site.done(&["device", "show", &id]);
    }
    assert_eq!(site.done(&["status"])["hold"], true);
    site.done(&["release"]);
    assert_eq!(site.done(&["status"])["hold"], false);
}

#[test]
fn a_backup_brings_everything_back_and_no_number_comes_again() {
    let mut site = Site::new();
    site.start();
    site.furnish();
    let handle = site.done(&["device", "show", "b1"])["key_handle"].clone();
    site.done(&["backup", "all.tar"]);
    site.done(&["device", "remove", "b1"]);
    site.done(&["image", "remove", "pump@1"]);
    let before = site.done(&["status"])["last_seq"].as_u64().unwrap();
    let report = site.done(&["restore", "all.tar"]);
    assert_eq!(report["images_added"], 1);
    assert_eq!(site.done(&["device", "show", "b1"])["key_handle"], handle);
    site.done(&["image", "show", "pump@1"]);
    site.add_device("b2");
    assert!(site.done(&["status"])["last_seq"].as_u64().unwrap() > before);
    let whole = std::fs::read(site.path("all.tar")).unwrap();
    std::fs::write(site.path("cut.tar"), &whole[..whole.len() / 2]).unwrap();
    let (exit, error) = site.run(&["restore", "cut.tar"]);
    assert_eq!((exit, code(&error)), (1, "bad_backup"));
    site.done(&["device", "show", "b2"]);
    // On another machine, from the file alone.
    let mut other = Site::new();
    other.start();
    other.done(&["restore", &site.text("all.tar")]);
    assert_eq!(other.done(&["device", "show", "b1"])["key_handle"], handle);
    other.kill();
    other.start();
    assert_eq!(other.done(&["device", "show", "b1"])["key_handle"], handle);
}

/// What a second `serve` on this directory says.
fn refusal(data: &Path, socket: Option<&Path>) -> String {
    let mut serve = Command::new(DIALHOME);
    serve
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(data);
    if let Some(socket) = socket {
        serve.arg("--socket").arg(socket);
    }
    let output = serve.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_directory_or_socket_that_cannot_be_used_is_refused_in_words() {
    let mut site = Site::new();
    site.start();
    let data = site.path("data");
    assert!(refusal(&data, None).contains("already runs"));
    assert!(
        refusal(&site.path("other"), Some(&data.join("admin.sock"))).contains("already listens")
    );
    std::fs::write(site.path("file"), "x").unwrap();
    assert!(refusal(&site.path("third"), Some(&site.path("file"))).contains("no socket"));
    // The socket of a killed gateway is in nobody's way.
    site.kill();
    assert!(data.join("admin.sock").exists());
    site.start();
    site.kill();
    let db = rusqlite::Connection::open(data.join("dialhome.db")).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    assert!(refusal(&data, None).contains("newer version"));
    db.pragma_update(None, "user_version", FORMAT).unwrap();
    db.execute_batch("BEGIN EXCLUSIVE").unwrap();
    assert!(refusal(&data, None).contains("locked"));
    drop(db);
    std::fs::rename(data.join("secret.key"), data.join("secret.away")).unwrap();
    site.start();
    site.furnish_after_loss(&data);
    std::fs::write(data.join("dialhome.db"), vec![7; 8192]).unwrap();
    let _ = std::fs::remove_file(data.join("dialhome.db-wal"));
    assert!(refusal(&data, None).contains("damaged"));
}

impl Site {
    /// With a device in the database the sealing key must be the right one.
    fn furnish_after_loss(&mut self, data: &Path) {
        self.furnish();
        self.kill();
        std::fs::rename(data.join("secret.away"), data.join("secret.key")).unwrap();
        assert!(refusal(data, None).contains("does not open the keys"));
    }
}

#[test]
fn a_full_disk_is_said_nothing_is_acknowledged_and_reading_goes_on() {
    let mut site = Site::new();
    // A limit on the size of files stands for the disk: the same to SQLite, and needs no root.
    let mut serve = Command::new("sh");
    let script =
        "trap '' XFSZ; ulimit -f 400; exec \"$0\" serve --listen 127.0.0.1:0 --data \"$1\"";
    serve.args(["-c", script, DIALHOME]).arg(site.path("data"));
    site.start_as(serve);
    site.done(&["key", "generate", "--out", "op.key"]);
    let mut told = Vec::new();
    let refused = (0..2000).find_map(|number| {
        let id = format!("d{number}");
        let add = [
            "device",
            "add",
            &id,
            "--product",
            "p",
            "--trust",
            "op.key.pub",
            "--gateway",
            "h:1",
            "--out",
            &format!("{id}.toml"),
        ]
        .map(str::to_owned);
        let (exit, json) = site.run(&add.each_ref().map(String::as_str));
        if exit == 0 {
            told.push(id);
            return None;
        }
        Some((exit, json))
    });
    let (exit, error) = refused.expect("the limit was never reached");
    assert_eq!((exit, code(&error)), (1, "disk_full"), "{error}");
    let status = site.done(&["status"]);
    assert_eq!(status["store"]["writable"], false);
    for id in told {
        site.done(&["device", "show", &id]);
    }
}
