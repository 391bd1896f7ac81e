//! The agent as small boards get it: one static file, built for size. The one for this
//! machine's processor runs here; the one for another runs in `qemu-user`, on the same kernel.
//! Both take a whole update from a real gateway.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use dialhome_gateway::demo::process::Process;
use dialhome_gateway::demo::relay::{Direction, Faults};
use support::{Bench, Transport, random_bytes};

mod support;

/// Resident memory of an agent and its launcher together, in KiB.
const RESIDENT_MAX: u64 = 6_000_000 / 1024;

/// Notes the most memory that the agent, its parent, and the launcher have had: by then the
/// agent has transferred.
const SETTINGS: &str = r#"
[agent]
self_update = true

[reconnect]
first_ms = 20
max_ms = 200

[[component]]
number = 1
name = "child"
slot_size = 4000000

[component.install]
command = ["sh", "-c", "launcher=$(sed -n 's/^PPid:\\t//p' /proc/$PPID/status) && grep -h VmHWM /proc/$PPID/status /proc/$launcher/status > FOLDER/memory && cp \"$DIALHOME_IMAGE\" FOLDER/installed"]

[component.check]
command = ["sh", "-c", "cmp \"$DIALHOME_IMAGE\" FOLDER/installed"]
"#;

/// A processor other than this machine's: its target, what the kernel knows its executables
/// by, and who runs them. `AGENT_TARGET` names another one of these.
struct Foreign {
    target: &'static str,
    /// Class, byte order and machine number of the ELF header.
    class: &'static str,
    order: &'static str,
    machine: &'static str,
    qemu: &'static str,
    processor: &'static str,
}

const FOREIGN: [Foreign; 4] = [
    Foreign {
        target: "aarch64-unknown-linux-musl",
        class: "02",
        order: "01",
        machine: r"\xb7\x00",
        qemu: "qemu-aarch64-static",
        processor: "cortex-a53",
    },
    Foreign {
        target: "x86_64-unknown-linux-musl",
        class: "02",
        order: "01",
        machine: r"\x3e\x00",
        qemu: "qemu-x86_64-static",
        processor: "qemu64",
    },
    Foreign {
        target: "armv7-unknown-linux-musleabihf",
        class: "01",
        order: "01",
        machine: r"\x28\x00",
        qemu: "qemu-arm-static",
        processor: "cortex-a7",
    },
    // The LinkIt Smart 7688's MT7688.
    Foreign {
        target: "mipsel-unknown-linux-musl",
        class: "01",
        order: "01",
        machine: r"\x08\x00",
        qemu: "qemu-mipsel-static",
        processor: "24KEc",
    },
];

impl Foreign {
    fn wanted() -> &'static Self {
        let other = if cfg!(target_arch = "aarch64") {
            &FOREIGN[1]
        } else {
            &FOREIGN[0]
        };
        match std::env::var("AGENT_TARGET") {
            Ok(target) => FOREIGN
                .iter()
                .find(|foreign| foreign.target == target)
                .unwrap_or_else(|| panic!("AGENT_TARGET={target}: who runs that is not known")),
            Err(_) => other,
        }
    }

    /// A shell script that starts its arguments where the kernel hands executables of this
    /// processor to QEMU: the agent starts itself again, as an executable of the board. A user
    /// namespace has a table of its own for that (Linux 6.7 or newer), which ends with it.
    fn script(&self) -> String {
        let Self {
            class,
            order,
            machine,
            qemu,
            ..
        } = self;
        let magic = format!(r"\x7fELF\x{class}\x{order}\x01{}", r"\x00".repeat(9));
        // The ABI's two bytes may be any, and a program may be position independent (2 or 3).
        let mask = format!(
            r"{}\x00\x00{}\xfe\xff\xff\xff",
            r"\xff".repeat(7),
            r"\xff".repeat(7)
        );
        format!(
            r#"set -eu
table=/proc/sys/fs/binfmt_misc
mount -t binfmt_misc none $table
printf '%s' ':board:M::{magic}\x02\x00{machine}:{mask}:'"$(command -v {qemu})"':' >$table/register
exec "$@"
"#
        )
    }
}

/// The agent for a target, built by what `make agent` runs.
fn agent(target: &str) -> PathBuf {
    static BUILT: OnceLock<Vec<PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        // Below the same folder as the tests' own programs: FOLDER/debug/dialhome.
        let folder = Path::new(env!("CARGO_BIN_EXE_dialhome"))
            .ancestors()
            .nth(2)
            .unwrap();
        let output = Command::new(root.join(".ci/agent"))
            .args([native(), Foreign::wanted().target.to_owned()])
            .env("CARGO_TARGET_DIR", folder)
            .env("QUIC", "yes")
            .stdin(Stdio::null())
            .output()
            .expect(".ci/agent");
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), ".ci/agent: {said}{errors}");
        eprintln!("{said}");
        let files = said.lines().filter_map(|line| line.split(' ').next());
        files.map(PathBuf::from).collect()
    });
    let mut files = built.iter();
    let file = files.find(|file| file.iter().any(|part| part == target));
    file.unwrap_or_else(|| panic!("no agent for {target}: {built:?}"))
        .clone()
}

fn native() -> String {
    format!("{}-unknown-linux-musl", std::env::consts::ARCH)
}

/// An update of a child, then one of the agent itself; over TCP on a link that breaks.
async fn takes_updates(
    bench: &mut Bench,
    id: &str,
    program: &Path,
    over: Transport,
    start: impl Fn(&Bench, &[&str]) -> Process,
) {
    let board = match over {
        Transport::Tcp => bench.add_board(id, Faults::default(), SETTINGS).await,
        Transport::Quic => {
            let gateway = bench.site.listen().to_string();
            let settings = over.settings(SETTINGS);
            bench.add_board_at(id, &gateway, &settings).await
        }
    };
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (config, state) = (path(&board.config), path(&board.state));
    let _agent = start(bench, &["--config", &config, "--state", &state]);
    bench.online(id).await;
    let first = random_bytes(1, 2_000_001);
    let first = bench
        .image_with("1.0.0", &first, &["--component", "1"])
        .await;
    bench.push(id, &first.name, &[]).await.confirmed();
    assert_eq!(bench.installed(id), Some(first.bytes));

    let mut second = std::fs::read(program).unwrap();
    second.extend_from_slice(b"2.0.0");
    let second = bench.image("2.0.0", &second).await;
    if over == Transport::Tcp {
        let relay = bench.relay(id).tcp();
        relay.cut_after_bytes(Direction::ToBoard, 400_000);
    }
    bench.push(id, &second.name, &[]).await.confirmed();
    assert_eq!(
        std::fs::read(board.current().unwrap()).unwrap(),
        second.bytes
    );
    let device = bench.online(id).await;
    let agent = &device["components"][0];
    assert_eq!(agent["digest"], second.digest.as_str(), "{device}");
    assert_eq!(agent["digest_from"], "booted", "{device}");
    let name = match over {
        Transport::Tcp => "tcp",
        Transport::Quic => "quic",
    };
    assert_eq!(device["transport"], name, "{device}");
}

async fn native_stays_small(over: Transport) {
    let program = agent(&native());
    let mut bench = Bench::start().await;
    let id = "native-1";
    takes_updates(&mut bench, id, &program, over, |bench, args| {
        Process::spawn(id, &program, args, &bench.site.log(id)).unwrap()
    })
    .await;
    let noted = bench.path().join("boards").join(id).join("memory");
    let noted = std::fs::read_to_string(noted).unwrap();
    let words = noted.split_whitespace();
    let each: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
    assert_eq!(each.len(), 2, "{noted}");
    let kib: u64 = each.iter().sum();
    eprintln!("over {over:?}: at most {each:?} KiB resident, agent and launcher");
    assert!(kib < RESIDENT_MAX, "{noted}");
}

#[tokio::test]
async fn the_agent_for_this_processor_stays_small() {
    native_stays_small(Transport::Tcp).await;
}

#[tokio::test]
async fn the_agent_for_this_processor_stays_small_over_quic() {
    native_stays_small(Transport::Quic).await;
}

async fn foreign_takes_updates(over: Transport) {
    let foreign = Foreign::wanted();
    let program = agent(foreign.target);
    let mut bench = Bench::start().await;
    let script = bench.path().join("as-board");
    std::fs::write(&script, foreign.script()).unwrap();
    let id = "foreign-1";
    takes_updates(&mut bench, id, &program, over, |bench, args| {
        // As its own root: a table of executables belongs to root of the namespace.
        let cpu = format!("QEMU_CPU={}", foreign.processor);
        let before = ["--user", "--map-root-user", "--mount", "env", &cpu, "sh"];
        let before = before.into_iter().map(OsStr::new);
        let files = [script.as_os_str(), program.as_os_str()];
        let args = before.chain(files).chain(args.iter().map(OsStr::new));
        Process::spawn(id, Path::new("unshare"), args, &bench.site.log(id)).unwrap()
    })
    .await;
}

#[tokio::test]
async fn the_agent_for_another_processor_takes_updates() {
    foreign_takes_updates(Transport::Tcp).await;
}

#[tokio::test]
async fn the_agent_for_another_processor_takes_updates_over_quic() {
    foreign_takes_updates(Transport::Quic).await;
}
