//! The files that start the agent on a board: read by what will read them there, as far as
//! that is to be had.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn service(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("service")
        .join(name)
}

fn run(program: &str, args: &[&str]) -> Output {
    let output = Command::new(program).args(args).output();
    output.unwrap_or_else(|error| panic!("{program}: {error}"))
}

fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// The shipped settings, behind a provisioning file, as a board has them.
#[cfg(feature = "agent")]
#[test]
fn the_shipped_settings_are_taken() {
    use dialhome_device::agent::{component::Rollback, config::Config};
    let key = "00".repeat(32);
    let provisioned = format!(
        "id = \"board-7\"\nproduct = \"sensor\"\nkey = \"{key}\"\n\
         gateways = [\"gw.example:7040\"]\npins = []\n\n\
         [trust]\nepoch = 1\nthreshold = 1\nkeys = [\"{key}\"]\n"
    );
    let mut seen = 0;
    for entry in fs::read_dir(service("avr")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let shipped = fs::read_to_string(&path).unwrap();
        let parse = |text: &str| {
            let config = Config::parse(&format!("{provisioned}\n{text}"), &path);
            config.unwrap_or_else(|error| panic!("{error}"))
        };
        let config = parse(&shipped);
        let [avr] = &config.components[..] else {
            panic!("{:?}", config.components);
        };
        assert_eq!((avr.number, avr.rollback), (1, Rollback::RestoreCopy));
        let commands = &avr.commands;
        for (command, what) in [
            (&commands.install, "install"),
            (&commands.running, "running"),
        ] {
            let command = command.as_ref().unwrap();
            assert_eq!(command.command[..2], ["/usr/bin/dialhome-avr", what]);
        }
        // What stands there as an example is one.
        let with_check = shipped
            .replace("# [component", "[component")
            .replace("# command", "command")
            .replace("# timeout_s", "timeout_s");
        assert!(
            parse(&with_check).components[0]
                .commands
                .self_test
                .is_some()
        );
        seen += 1;
    }
    assert_eq!(seen, 2);
}

#[test]
fn systemd_takes_the_unit_and_finds_it_closed() {
    let dir = tempfile::tempdir().unwrap();
    let unit = dir.path().join("dialhome-agent.service");
    let text = fs::read_to_string(service("dialhome-agent.service")).unwrap();
    // Any program that is there: it is not started.
    let program = "/usr/local/bin/dialhome-agent";
    assert!(text.contains(&format!("\nExecStart={program} ")));
    fs::write(&unit, text.replace(program, "/bin/true")).unwrap();
    let unit = unit.to_str().unwrap();
    let verified = run("systemd-analyze", &["verify", "--man=no", unit]);
    assert!(verified.status.success(), "{}", said(&verified));
    // Of this unit: the machine has others, which it may have something to say about.
    let own: Vec<_> = said(&verified)
        .lines()
        .filter(|line| line.contains("dialhome-agent"))
        .map(str::to_owned)
        .collect();
    assert!(own.is_empty(), "{own:?}");
    // The sum of what it could still do, of 100, as systemd counts.
    let security = ["security", "--offline=yes", "--threshold=20", unit];
    let security = run("systemd-analyze", &security);
    assert!(security.status.success(), "{}", said(&security));
}

/// Stands for OpenWrt's rc.common: says what it is asked for.
const RC_COMMON: &str = r#"
user_exists() { return 1; }
group_exists() { return 1; }
chown() { echo "chown $*"; }
logger() { echo "logger $*"; }
for name in group_add user_add procd_open_instance procd_set_param procd_close_instance; do
    eval "$name() { echo \"$name \$*\"; }"
done
"#;

/// Starts the service in a shell with these settings; what it asked for, without FOLDER.
fn start(folder: &Path, settings: &str) -> (bool, Vec<String>) {
    let path = folder.to_str().unwrap();
    let init = service("dialhome-agent.init");
    let script = format!(
        "set -u\nCONFIG={path}/board.toml STATE={path}/state {settings}\n{RC_COMMON}\n. {}\nstart_service",
        init.display()
    );
    let output = run("sh", &["-c", &script]);
    let lines = said(&output).replace(path, "FOLDER");
    (
        output.status.success(),
        lines.lines().map(str::to_owned).collect(),
    )
}

#[test]
fn procd_is_asked_for_an_agent_that_is_not_root() {
    let dir = tempfile::tempdir().unwrap();
    let (started, said) = start(dir.path(), "");
    assert!(!started);
    assert!(
        said[0].contains("there is no FOLDER/board.toml"),
        "{said:?}"
    );

    fs::write(dir.path().join("board.toml"), "id = \"lamp-1\"\n").unwrap();
    let (started, said) = start(dir.path(), "");
    assert!(started, "{said:?}");
    for line in [
        "group_add dialhome 7040",
        "user_add dialhome 7040 7040 Dialhome agent FOLDER/state",
        "chown -R dialhome FOLDER/board.toml FOLDER/state",
        "procd_set_param command /usr/bin/dialhome-agent --config FOLDER/board.toml --state FOLDER/state",
        "procd_set_param user dialhome",
        "procd_set_param respawn 3600 10 0",
    ] {
        assert!(said.iter().any(|said| said == line), "{line}: {said:#?}");
    }
    assert_eq!(said.last().unwrap().trim(), "procd_close_instance");

    let (started, said) = start(dir.path(), "RUN_AS=root");
    assert!(started, "{said:?}");
    assert!(said.iter().any(|said| said == "procd_set_param user root"));
    assert!(!said.iter().any(|said| said.starts_with("user_add")));
}
