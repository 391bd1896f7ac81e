//! A gateway and boards from their real executables, for tests that span both.
//!
//! ```ignore
//! let mut bench = Bench::start().await;
//! let image = bench.image("1.0.0", &random_bytes(7, 200_000)).await;
//! let board = bench.board("board-1", Faults::default(), BOARD).await;
//! bench.relay("board-1").cut_after_bytes(Direction::ToBoard, 100_000);
//! let update = bench.push("board-1", &image.name, &[]).await.confirmed();
//! assert!(update["resent"].as_u64().unwrap() > 0);
//! ```
//!
//! Nothing here measures time: a wait ends when the thing happens, and panics
//! with the ends of all logs when it does not happen for [`PATIENCE`]. A test
//! that fails leaves its directory behind, and says where.
#![allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "each test takes the part that it needs"
)]

pub(crate) mod bundle;
pub(crate) mod datagrams;
pub(crate) mod line;
pub(crate) mod peer;
pub(crate) mod quic_client;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dialhome_gateway::demo::process::Process;
use dialhome_gateway::demo::relay::Faults;
use dialhome_gateway::demo::site::{Board, Cli, Outcome, Programs, Site};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};
use tokio::time::timeout;

use self::line::Line;
use self::peer::Door;

/// A wait that takes this long will not end any more, however busy the machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The product of every board and image here.
pub(crate) const PRODUCT: &str = "testboard";

/// Settings of a board that redials quickly and installs by copying. `FOLDER`
/// stands for the board's own directory.
pub(crate) const BOARD: &str = r#"
[agent]
ping_s = 5
window = 32768

[reconnect]
first_ms = 20
max_ms = 200

[install]
command = ["sh", "-c", "cp \"$DIALHOME_IMAGE\" FOLDER/installed.new && mv FOLDER/installed.new FOLDER/installed"]

[self_test]
command = ["sh", "-c", "cmp \"$DIALHOME_IMAGE\" FOLDER/installed"]
"#;

/// What boards dial over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Quic,
}

impl Transport {
    /// Settings of a board that uses nothing else. TCP is what a site chooses by itself.
    pub(crate) fn settings(self, settings: &str) -> String {
        if self == Self::Tcp {
            return settings.to_owned();
        }
        let line = "[agent]\nquic = \"only\"\n";
        if settings.contains("[agent]\n") {
            settings.replacen("[agent]\n", line, 1)
        } else {
            format!("{line}\n{settings}")
        }
    }
}

/// Each of these runs over TCP and over QUIC, as `tcp::NAME` and `quic::NAME`.
macro_rules! over_both {
    ($($name:ident),+ $(,)?) => {
        mod tcp {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::support::Transport::Tcp).await;
            })+
        }
        mod quic {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::support::Transport::Quic).await;
            })+
        }
    };
}
pub(crate) use over_both;

/// The next image's counter.
static COUNTER: AtomicU64 = AtomicU64::new(1);

/// A gateway, boards behind relays, and the operator's command line.
pub(crate) struct Bench {
    pub(crate) site: Site,
    transport: Transport,
    lines: BTreeMap<String, Line>,
    boards: BTreeMap<String, Board>,
    agents: BTreeMap<String, Process>,
    /// Declared last, so that it goes after the processes that write to it.
    folder: TempDir,
}

/// An image that the gateway holds.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    /// `P@V`.
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    /// SHA-256, 64 hexadecimal digits, as the gateway says.
    pub(crate) digest: String,
    /// The signed file.
    pub(crate) signed: PathBuf,
}

/// The two executables: `dialhome`, which cargo names for tests of this package,
/// and the agent, which it builds into the same directory.
pub(crate) fn programs() -> Programs {
    Programs::beside(Path::new(env!("CARGO_BIN_EXE_dialhome")))
        .unwrap_or_else(|error| panic!("{error}, or run the tests by `cargo test --workspace`"))
}

/// Bytes that no two places share, the same for the same seed.
pub(crate) fn random_bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

impl Bench {
    /// A running gateway and an operator's key. No boards yet. They will dial over TCP.
    pub(crate) async fn start() -> Self {
        Self::start_over(Transport::Tcp).await
    }

    /// The same with boards that will dial over this.
    pub(crate) async fn start_over(transport: Transport) -> Self {
        let mut bench = Self::prepare_over(transport);
        bench.start_gateway().await;
        let made = bench.site.make_key().await;
        bench.must(made);
        bench
    }

    /// The same, with nothing running and no key.
    pub(crate) fn prepare() -> Self {
        Self::prepare_over(Transport::Tcp)
    }

    /// The same with boards that will dial over this.
    pub(crate) fn prepare_over(transport: Transport) -> Self {
        Self::prepare_as(transport, programs())
    }

    /// The same with other programs, such as ones that run elsewhere.
    pub(crate) fn prepare_as(transport: Transport, programs: Programs) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("dialhome-test-")
            .tempdir()
            .expect("a temporary directory");
        let site = Site::new(folder.path(), programs).expect("a site");
        Self {
            site,
            transport,
            lines: BTreeMap::new(),
            boards: BTreeMap::new(),
            agents: BTreeMap::new(),
            folder,
        }
    }

    /// The directory of everything.
    pub(crate) fn path(&self) -> &Path {
        self.site.root()
    }

    /// Where a board that the test plays dials, over the transport of this bench's boards.
    pub(crate) fn door(&self) -> Door {
        Door {
            transport: self.transport,
            gateway: self.site.listen(),
        }
    }

    pub(crate) fn cli(&self) -> Cli {
        self.site.cli()
    }

    /// The value, or a panic that shows the error and the end of every log.
    pub(crate) fn must<T, E: std::fmt::Display>(&self, result: Result<T, E>) -> T {
        result.unwrap_or_else(|error| panic!("{error}\n{}", self.logs()))
    }

    /// The end of every process's log.
    pub(crate) fn logs(&self) -> String {
        ["gateway"]
            .into_iter()
            .chain(self.boards.keys().map(String::as_str))
            .map(|name| {
                format!(
                    "--- {}\n{}\n",
                    self.site.log(name).display(),
                    self.site.log_tail(name)
                )
            })
            .collect()
    }

    /// Starts the gateway, or starts it again, and waits until it answers.
    pub(crate) async fn start_gateway(&mut self) {
        let started = self.site.start_gateway().await;
        self.must(started);
    }

    pub(crate) async fn kill_gateway(&mut self) {
        let killed = self.site.kill_gateway().await;
        self.must(killed);
    }

    /// Runs a command that must succeed, and gives its JSON.
    pub(crate) async fn json<S: AsRef<str>>(&self, args: &[S]) -> Value {
        self.must(self.cli().json(args).await)
    }

    /// Runs a command to its end, whatever that is.
    pub(crate) async fn run<S: AsRef<str>>(&self, args: &[S]) -> Outcome {
        self.must(self.cli().run(args).await)
    }

    /// Writes, signs and adds an image.
    pub(crate) async fn image(&self, version: &str, bytes: &[u8]) -> Image {
        self.image_with(version, bytes, &[]).await
    }

    /// The same, with more options of `image sign`.
    pub(crate) async fn image_with(&self, version: &str, bytes: &[u8], options: &[&str]) -> Image {
        let file = self.path().join(format!("{version}.bin"));
        std::fs::write(&file, bytes).expect("a file for the image");
        self.image_of(version, &file, options).await
    }

    /// Signs and adds a file that is there already. `bytes` are those of the file.
    pub(crate) async fn image_of(&self, version: &str, file: &Path, options: &[&str]) -> Image {
        let signed = self.path().join(format!("{version}.dhi"));
        let (source, out) = (text(file), text(&signed));
        let key = text(&self.site.key());
        let mut args = vec![
            "image",
            "sign",
            &source,
            "--product",
            PRODUCT,
            "--version",
            version,
        ];
        args.extend(["--key", &key, "--out", &out]);
        // By default it is the second of signing, and two images may be signed in one.
        let counter = COUNTER.fetch_add(1, Ordering::Relaxed).to_string();
        if !options.contains(&"--counter") {
            args.extend(["--counter", &counter]);
        }
        args.extend(options);
        self.json(&args).await;
        self.json(&["image", "add", &out]).await;
        let component = options.iter().position(|&option| option == "--component");
        let component = component.map_or(String::new(), |at| format!("/{}", options[at + 1]));
        let name = format!("{PRODUCT}{component}@{version}");
        let shown = self.json(&["image", "show", &name]).await;
        let digest = shown["digest"]
            .as_str()
            .unwrap_or_else(|| panic!("image show has no digest: {shown}"));
        let bytes = std::fs::read(file).expect("the image's file");
        Image {
            name,
            bytes,
            digest: digest.to_owned(),
            signed,
        }
    }

    /// Adds a device behind a relay of its own, starts its agent, and waits until it is online.
    pub(crate) async fn board(&mut self, id: &str, faults: Faults, settings: &str) -> Board {
        let board = self.add_board(id, faults, settings).await;
        self.start_agent(id);
        self.online(id).await;
        board
    }

    /// The same without an agent.
    pub(crate) async fn add_board(&mut self, id: &str, faults: Faults, settings: &str) -> Board {
        let line = Line::start(self.transport, self.site.listen(), faults).await;
        self.add_board_behind(id, line, settings).await
    }

    /// The same behind a line that the test has made.
    pub(crate) async fn add_board_behind(&mut self, id: &str, line: Line, settings: &str) -> Board {
        let address = line.address().to_string();
        self.lines.insert(id.to_owned(), line);
        let settings = self.transport.settings(settings);
        self.add_board_at(id, &address, &settings).await
    }

    /// Adds a device that dials this address with nothing between, and no more settings than these.
    pub(crate) async fn add_board_at(&mut self, id: &str, address: &str, settings: &str) -> Board {
        let folder = text(&self.path().join("boards").join(id));
        let settings = settings.replace("FOLDER", &folder);
        let added = self.site.add_board(id, PRODUCT, address, &settings).await;
        let board = self.must(added);
        self.boards.insert(id.to_owned(), board.clone());
        board
    }

    /// What is between this board and the gateway.
    pub(crate) fn relay(&self, id: &str) -> &Line {
        &self.lines[id]
    }

    pub(crate) fn start_agent(&mut self, id: &str) {
        let agent = self.must(self.site.start_agent(&self.boards[id]));
        self.agents.insert(id.to_owned(), agent);
    }

    /// `kill -9`, as a power cut does it.
    pub(crate) async fn kill_agent(&mut self, id: &str) {
        let agent = self
            .agents
            .remove(id)
            .unwrap_or_else(|| panic!("no agent of {id} runs"));
        let killed = agent.kill9().await;
        self.must(killed);
    }

    /// `kill -9`, and a start: waits for the session of the new process. Over TCP the gateway hears of the old one's
    /// end at once; over QUIC it is the new session that tells.
    pub(crate) async fn restart_agent(&mut self, id: &str) -> Value {
        self.restart_agent_after(id, || ()).await
    }

    /// The same with something done while no agent runs.
    pub(crate) async fn restart_agent_after(&mut self, id: &str, done: impl FnOnce()) -> Value {
        let before = self.json(&["device", "show", id]).await["peer"].clone();
        self.kill_agent(id).await;
        done();
        self.start_agent(id);
        // The socket of another session has another port.
        self.until(&["device", "show", id], |device| {
            device["online"] == true && device["peer"] != before
        })
        .await
    }

    /// Waits until the agent ends by itself.
    pub(crate) async fn agent_ends(&mut self, id: &str) -> std::process::ExitStatus {
        let mut agent = self
            .agents
            .remove(id)
            .unwrap_or_else(|| panic!("no agent of {id} runs"));
        let ended = timeout(PATIENCE, agent.wait()).await;
        ended
            .unwrap_or_else(|_| panic!("{id} does not end\n{}", self.logs()))
            .expect("its exit status")
    }

    /// Waits until the gateway has a session of this board.
    pub(crate) async fn online(&self, id: &str) -> Value {
        self.until(&["device", "show", id], |device| {
            device["online"] == Value::Bool(true)
        })
        .await
    }

    /// Waits until the gateway has none.
    pub(crate) async fn offline(&self, id: &str) -> Value {
        self.until(&["device", "show", id], |device| {
            device["online"] == Value::Bool(false)
        })
        .await
    }

    /// Waits until the update is in this state.
    pub(crate) async fn reaches(&self, update: &str, state: &str) -> Value {
        self.until(&["update", "show", update], |update| {
            update["state"] == state
        })
        .await
    }

    /// Asks again after each event of the gateway until the answer is as wanted. A
    /// gateway that is down is waited for.
    pub(crate) async fn until<S: AsRef<str>>(
        &self,
        args: &[S],
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let mut last = Value::Null;
        let asking = async {
            let mut events = None;
            loop {
                let answer = self.run(args).await;
                match answer.code {
                    Some(0) if wanted(&answer.json) => return answer.json,
                    Some(0) => last = answer.json,
                    Some(4) => {}
                    _ => panic!("{:?}\n{}", answer.done(), self.logs()),
                }
                // The stream is opened after the first answer and before the second,
                // so that no change falls between; a tick stands in for what has no event.
                match &mut events {
                    None => events = Some(Events::follow(&self.cli())),
                    Some(stream) => {
                        if let Ok(None) = timeout(Duration::from_millis(250), stream.next()).await {
                            // The gateway went away, and the stream with it.
                            tokio::time::sleep(Duration::from_millis(50)).await;
                            events = None;
                        }
                    }
                }
            }
        };
        let found = timeout(PATIENCE, asking).await;
        found.unwrap_or_else(|_| {
            let asked = args.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" ");
            panic!(
                "`{asked}` does not come to what is wanted; last: {last:#}\n{}",
                self.logs()
            )
        })
    }

    /// Pushes and waits for the end.
    pub(crate) async fn push(&self, id: &str, image: &str, options: &[&str]) -> Pushed {
        let cli = self.cli();
        let pushed = push(
            cli,
            id.to_owned(),
            image.to_owned(),
            options.iter().map(|&o| o.to_owned()).collect(),
        );
        match timeout(PATIENCE * 2, pushed).await {
            Ok(pushed) => Pushed {
                logs: self.logs(),
                ..pushed
            },
            Err(_) => panic!("the push to {id} does not end\n{}", self.logs()),
        }
    }

    /// Starts a push that the test does not wait for yet; await the handle later.
    pub(crate) fn push_in_background(
        &self,
        id: &str,
        image: &str,
        options: &[&str],
    ) -> tokio::task::JoinHandle<Pushed> {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        tokio::spawn(push(self.cli(), id.to_owned(), image.to_owned(), options))
    }

    /// Starts a push that returns at once, and gives the update's id.
    pub(crate) async fn push_no_wait(&self, id: &str, image: &str, options: &[&str]) -> String {
        let pushed = push(
            self.cli(),
            id.to_owned(),
            image.to_owned(),
            ["--no-wait"]
                .iter()
                .chain(options)
                .map(|&option| option.to_owned())
                .collect(),
        )
        .await;
        let update = pushed.outcome.json["update"]
            .as_str()
            .map(ToOwned::to_owned);
        update.unwrap_or_else(|| panic!("no update from {:?}\n{}", pushed.outcome, self.logs()))
    }

    /// What the board installed.
    pub(crate) fn installed(&self, id: &str) -> Option<Vec<u8>> {
        std::fs::read(self.path().join("boards").join(id).join("installed")).ok()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.folder.disable_cleanup(true);
            eprintln!(
                "everything of this test is in {}",
                self.folder.path().display()
            );
        }
    }
}

/// How a push ended.
#[derive(Debug)]
pub(crate) struct Pushed {
    pub(crate) outcome: Outcome,
    logs: String,
}

impl Pushed {
    /// The update's document, which must say `confirmed`, with exit code 0.
    pub(crate) fn confirmed(self) -> Value {
        self.ended("confirmed", 0)
    }

    /// The update's document, which must be in this state, with this exit code.
    pub(crate) fn ended(self, state: &str, code: i32) -> Value {
        let Outcome { json, stderr, .. } = &self.outcome;
        assert!(
            self.outcome.code == Some(code) && json["state"] == state,
            "expected {state} and exit code {code}, got {:?}:\n{json:#}\n{stderr}\n{}",
            self.outcome.code,
            self.logs
        );
        self.outcome.json
    }
}

async fn push(cli: Cli, id: String, image: String, options: Vec<String>) -> Pushed {
    let mut args = vec!["push".to_owned(), id, image];
    args.extend(options);
    let outcome = cli
        .run(&args)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    Pushed {
        outcome,
        logs: String::new(),
    }
}

/// The gateway's events, as `dialhome events --follow` prints them.
pub(crate) struct Events {
    lines: Lines<BufReader<ChildStdout>>,
    /// Killed when dropped.
    _child: Child,
}

impl Events {
    pub(crate) fn follow(cli: &Cli) -> Self {
        Self::from(cli, &["events", "--follow"])
    }

    /// With what has happened after `seq` first.
    pub(crate) fn since(cli: &Cli, seq: u64) -> Self {
        Self::from(cli, &["events", "--follow", "--since", &seq.to_string()])
    }

    fn from(cli: &Cli, args: &[&str]) -> Self {
        let mut command = cli.command(args);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("dialhome events");
        let output = child.stdout.take().expect("its output");
        Self {
            lines: BufReader::new(output).lines(),
            _child: child,
        }
    }

    /// The next event; none when the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        let line = self.lines.next_line().await.ok().flatten()?;
        Some(
            serde_json::from_str(&line)
                .unwrap_or_else(|error| panic!("not an event: {error}: {line}")),
        )
    }

    /// The next event that is as wanted.
    pub(crate) async fn wait(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        let waiting = async {
            loop {
                let event = self.next().await.expect("the stream of events goes on");
                if wanted(&event) {
                    return event;
                }
            }
        };
        timeout(PATIENCE, waiting)
            .await
            .expect("the event that is waited for")
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}
