//! What goes wrong on a Linux board: install commands that do not do their work, a disk without
//! room, one that becomes read-only, a second agent. Each has its reason at the gateway, and
//! afterwards the old image runs, the agent is connected, and nothing of it is left running.
//! (A child that is unplugged: `avrdude.rs`. Two agents with one identity: `trials.rs`.)

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Bench, Image, programs, random_bytes};
use dialhome_gateway::demo::process::Process;
use dialhome_gateway::demo::relay::Faults;
use dialhome_gateway::demo::site::Board;
use serde_json::Value;

const SETTINGS: &str = r#"
[reconnect]
first_ms = 20
max_ms = 200

[install]
command = ["FOLDER/install"]
timeout_s = 2
"#;

/// What a fault does comes first, and once.
const INSTALL: &str = r#"#!/bin/sh
if mv FOLDER/fault FOLDER/fault.done 2>/dev/null; then
    . FOLDER/fault.done
    exit
fi
cp "$DIALHOME_IMAGE" FOLDER/installed
"#;

const ID: &str = "board";

/// A gateway, and a board that runs a first image.
struct Bad {
    bench: Bench,
    board: Board,
    old: Image,
    /// The agent, where the bench did not start it.
    _agent: Option<Process>,
}

impl Bad {
    async fn start(run: impl Fn(&Bench, &Board) -> Option<Process>) -> Self {
        let mut bench = Bench::start().await;
        let board = bench.add_board(ID, Faults::default(), SETTINGS).await;
        let folder = bench.path().join("boards").join(ID);
        let text = INSTALL.replace("FOLDER", folder.to_str().unwrap());
        fs::write(folder.join("install"), text).unwrap();
        fs::set_permissions(folder.join("install"), PermissionsExt::from_mode(0o755)).unwrap();
        let agent = run(&bench, &board);
        if agent.is_none() {
            bench.start_agent(ID);
        }
        bench.online(ID).await;
        let old = bench.image("1.0", &random_bytes(1, 100_000)).await;
        bench.push(ID, &old.name, &[]).await.confirmed();
        Self {
            bench,
            board,
            old,
            _agent: agent,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.bench.path().join("boards").join(ID).join(name)
    }

    /// A push that ends badly; the record's detail. The old image runs afterwards.
    async fn fails(&self, image: &Image, state: &str, reason: &str) -> String {
        let pushed = self.bench.push(ID, &image.name, &[]).await;
        let update = pushed.ended(state, 1);
        assert_eq!(update["reason"], reason, "{update}");
        self.is_well(&self.old).await;
        update["detail"].as_str().unwrap_or_default().to_owned()
    }

    async fn is_well(&self, image: &Image) {
        let says = |device: &Value| {
            device["online"] == true && device["components"][0]["digest"] == image.digest.as_str()
        };
        self.bench.until(&["device", "show", ID], says).await;
        assert_eq!(self.bench.installed(ID).unwrap(), image.bytes);
        // Zombies would be listed as well.
        let pid = self.agent();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        assert_eq!(children, "", "children of the agent");
    }

    /// The agent's process, as it wrote it down: a restart does not change it.
    fn agent(&self) -> u32 {
        let lock = fs::read_to_string(root_of(&self.board).join("lock")).unwrap();
        lock.trim().parse().unwrap()
    }
}

/// The state directory as the agent sees it, where that is a mount of its own.
fn root_of(board: &Board) -> PathBuf {
    let inside = fs::read_to_string(board.state.with_file_name("pid")).map(|pid| {
        let root = Path::new("/proc").join(pid.trim()).join("root");
        root.join(board.state.strip_prefix("/").unwrap())
    });
    inside.unwrap_or_else(|_| board.state.clone())
}

#[tokio::test]
async fn an_install_command_that_fails_in_any_way_leaves_the_old_image() {
    let bad = Bad::start(|_, _| None).await;
    let new = bad.bench.image("2.0", &random_bytes(2, 100_000)).await;
    let agent = bad.agent();
    let pids = bad.file("pids");
    let note = format!("echo $! >>{}", pids.display());
    for (fault, says) in [
        (
            format!("trap '' TERM; sleep 1000 & {note}; wait; sleep 1000"),
            "install ran over its 2 s and was ended",
        ),
        (
            format!("for one in 1 2 3; do sleep 1000 & {note}; done"),
            "install left 3 running in its group, now ended",
        ),
        (
            "yes 'and no end'".to_owned(),
            "install printed over 4194304 bytes and was ended: ",
        ),
        (
            "head -c 3000000 /dev/zero | tr '\\0' x; echo no such part; exit 4".to_owned(),
            "no such part",
        ),
    ] {
        fs::write(bad.file("fault"), fault).unwrap();
        let detail = bad.fails(&new, "reverted", "install_failed").await;
        assert!(detail.contains(says), "{detail}");
    }
    for pid in fs::read_to_string(&pids).unwrap().lines() {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        // One that its parent left behind is init's to reap.
        assert!(stat.is_err() || stat.unwrap().contains(") Z "), "{pid}");
    }

    // One that is not there has changed nothing, and is not needed to put anything back.
    fs::rename(bad.file("install"), bad.file("away")).unwrap();
    let detail = bad.fails(&new, "reverted", "install_failed").await;
    assert!(detail.starts_with("install is not there"), "{detail}");
    fs::rename(bad.file("away"), bad.file("install")).unwrap();

    // A second agent on the same directory is refused, and disturbs nothing.
    let second = Command::new(programs().agent)
        .arg("--config")
        .arg(&bad.board.config)
        .arg("--state")
        .arg(&bad.board.state)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains("another dialhome-agent"), "{said}");

    bad.bench.push(ID, &new.name, &[]).await.confirmed();
    bad.is_well(&new).await;
    assert_eq!(bad.agent(), agent, "another process");
}

/// Room for two images of 100 KB, and not for one of 2 MB. A namespace has mounts of its own,
/// which end with it; as root of it they need no rights of the system's.
#[tokio::test]
async fn a_disk_that_is_full_or_read_only_is_told_and_the_agent_stays() {
    let bad = Bad::start(|bench, board| {
        let script = "echo $$ >\"$2/../pid\"; mount -t tmpfs -o size=1m none \"$2\" && \
                      exec \"$0\" --config \"$1\" --state \"$2\"";
        let program = programs().agent;
        let args = [
            "--user".as_ref(),
            "--map-root-user".as_ref(),
            "--mount".as_ref(),
            "sh".as_ref(),
            "-c".as_ref(),
            script.as_ref(),
            program.as_os_str(),
            board.config.as_os_str(),
            board.state.as_os_str(),
        ];
        let agent = Process::spawn(ID, Path::new("unshare"), args, &bench.site.log(ID));
        Some(agent.unwrap())
    })
    .await;
    let large = bad.bench.image("2.0", &random_bytes(2, 2_000_000)).await;
    let detail = bad.fails(&large, "failed", "storage").await;
    assert!(detail.starts_with("no room for the image"), "{detail}");

    let new = bad.bench.image("3.0", &random_bytes(3, 100_000)).await;
    let remount = |how: &str| {
        let pid = bad.agent().to_string();
        let done = Command::new("nsenter")
            .args(["--target", &pid, "--user", "--mount"])
            .args(["--preserve-credentials", "mount", "-o", how])
            .arg(&bad.board.state)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{how}: {said}");
    };
    remount("remount,ro");
    // No journal, no update: it waits, and says for what.
    let update = bad.bench.push_no_wait(ID, &new.name, &[]).await;
    let deferred = bad.bench.reaches(&update, "deferred").await;
    assert_eq!(deferred["reason"], "storage", "{deferred}");
    bad.is_well(&bad.old).await;
    remount("remount,rw");
    // A new session tries again at once.
    bad.bench.relay(ID).cut_all();
    bad.bench.reaches(&update, "confirmed").await;
    bad.is_well(&new).await;
}
