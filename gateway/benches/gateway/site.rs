//! A gateway and boards from their real executables, everything on tmpfs.

use super::Outcome;
use dialhome_gateway::image::container::Head;
use dialhome_gateway::image::sign::{Description, sign};
use dialhome_gateway::image::source::{self, Format, Source};
use dialhome_gateway::image::store::ImageStore;
use dialhome_gateway::store::{NewDevice, Store, now};
use dialhome_proto::link::DeviceKey;
use dialhome_proto::manifest::TrialBudget;
use ed25519_dalek::SigningKey;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A wait that takes this long will not end any more.
const PATIENCE: Duration = Duration::from_secs(300);
const PRODUCT: &str = "bench";

/// A directory with a gateway's data and the files of boards.
pub(crate) struct Site {
    folder: TempDir,
    operator: SigningKey,
    /// Where the gateway listens for boards.
    pub(crate) listen: String,
}

/// A provisioned board.
pub(crate) struct Board {
    pub(crate) id: String,
    pub(crate) key: DeviceKey,
    config: PathBuf,
    state: PathBuf,
}

impl Site {
    pub(crate) fn new(listen: String) -> Outcome<Self> {
        let folder = tempfile::Builder::new()
            .prefix("dialhome-bench-")
            .tempdir_in("/dev/shm")
            .map_err(|error| format!("the benchmarks write to /dev/shm: {error}"))?;
        Ok(Self {
            folder,
            operator: SigningKey::from_bytes(&[7; 32]),
            listen,
        })
    }

    /// Adds devices and images before the gateway starts. `settings` are TOML tables
    /// of the agents, one entry for each board.
    pub(crate) fn fill(
        &self,
        boards: &[(String, String)],
        images: &[Vec<u8>],
    ) -> Outcome<Vec<Board>> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let store = Store::open(&self.data())?;
            for (index, image) in images.iter().enumerate() {
                self.add_image(&store, index, image).await?;
            }
            let mut made = Vec::new();
            for (id, settings) in boards {
                made.push(self.add_board(&store, id, settings).await?);
            }
            store.flush().await?;
            Ok(made)
        })
    }

    async fn add_image(&self, store: &Store, index: usize, image: &[u8]) -> Outcome {
        let about = Description {
            product: PRODUCT.into(),
            version: index.to_string(),
            component: 0,
            counter: index as u64 + 1,
            floor: 0,
            hardware: 0..=u16::MAX,
            devices: Vec::new(),
            security: false,
            trial: TrialBudget {
                boots: 0,
                dials: 0,
                awake_s: 0,
            },
            requires: Vec::new(),
        };
        let manifest = sign(image, &about, std::slice::from_ref(&self.operator))?;
        let source = Source {
            name: "bench.bin".into(),
            format: Format::Raw,
            size: image.len() as u64,
            sha256: source::digest(image),
        };
        let head = Head {
            manifest,
            source,
            check: None,
        };
        ImageStore::open(&self.data())?.put(image)?;
        store.add_image(head.record(now()), false).await?;
        Ok(())
    }

    async fn add_board(&self, store: &Store, id: &str, settings: &str) -> Outcome<Board> {
        let operator = self.operator.verifying_key().to_bytes();
        let provisioned = store
            .add_device(NewDevice {
                id: id.into(),
                product: PRODUCT.into(),
                trust_keys: vec![operator],
                gateways: vec![self.listen.clone()],
            })
            .await?;
        let config = self.folder.path().join(format!("{id}.toml"));
        let text = format!(
            "id = \"{id}\"\nproduct = \"{PRODUCT}\"\nkey = \"{}\"\ngateways = [\"{}\"]\npins = []\n\n\
             [trust]\nepoch = 1\nthreshold = 1\nkeys = [\"{}\"]\n\n\
             [reconnect]\nfirst_ms = 20\nmax_ms = 1000\n\n{settings}\n",
            hex(&*provisioned.key),
            self.listen,
            hex(&operator),
        );
        fs::write(&config, text)?;
        fs::set_permissions(&config, fs::Permissions::from_mode(0o600))?;
        Ok(Board {
            id: id.into(),
            key: DeviceKey::new(*provisioned.key),
            config,
            state: self.folder.path().join(format!("{id}.state")),
        })
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn socket(&self) -> PathBuf {
        self.data().join("admin.sock")
    }

    /// Starts the gateway, `within` a network namespace where one is named.
    pub(crate) fn gateway(&self, within: Option<&str>) -> Outcome<Gateway> {
        let log = self.folder.path().join("gateway.log");
        let mut command = program(Path::new(env!("CARGO_BIN_EXE_dialhome")), within);
        command
            .arg("serve")
            .arg("--data")
            .arg(self.data())
            .args(["--listen", &self.listen]);
        let gateway = Gateway {
            process: Process::start(command, &log)?,
            socket: self.socket(),
        };
        let until = Instant::now() + PATIENCE;
        while UnixStream::connect(&gateway.socket).is_err() {
            if Instant::now() > until {
                return Err(
                    format!("the gateway did not start:\n{}", fs::read_to_string(&log)?).into(),
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(gateway)
    }

    /// Starts a board's agent.
    pub(crate) fn agent(
        &self,
        agent: &Path,
        board: &Board,
        within: Option<&str>,
    ) -> Outcome<Process> {
        let mut command = program(agent, within);
        command
            .arg("--config")
            .arg(&board.config)
            .arg("--state")
            .arg(&board.state);
        Process::start(
            command,
            &self.folder.path().join(format!("{}.log", board.id)),
        )
    }
}

/// A process that ends with this value.
pub(crate) struct Process(Child);

impl Process {
    fn start(mut command: Command, log: &Path) -> Outcome<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .map_err(|error| {
                format!(
                    "{} cannot be started: {error}",
                    command.get_program().display()
                )
            })?;
        Ok(Self(child))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The gateway's process and its command line.
pub(crate) struct Gateway {
    process: Process,
    socket: PathBuf,
}

impl Gateway {
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dialhome"));
        command
            .arg("--socket")
            .arg(&self.socket)
            .arg("--json")
            .args(args);
        command.stdin(Stdio::null());
        command
    }

    /// Runs an operator's command, and gives its JSON.
    pub(crate) fn operate(&self, args: &[&str]) -> Outcome<Value> {
        let output = self.command(args).output()?;
        // 3: not finished yet.
        if !matches!(output.status.code(), Some(0 | 3)) {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("`dialhome {}` failed: {said}", args.join(" ")).into());
        }
        Ok(serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
    }

    /// Begins an update, and gives its id.
    pub(crate) fn push(&self, board: &str, image: usize) -> Outcome<String> {
        let image = format!("{PRODUCT}@{image}");
        let update = self.operate(&["push", board, &image, "--no-wait"])?;
        let id = update["update"]
            .as_str()
            .ok_or("a push printed no update")?;
        Ok(id.to_owned())
    }

    /// Waits until so many sessions are open.
    pub(crate) fn sessions(&self, count: usize) -> Outcome {
        let until = Instant::now() + PATIENCE;
        loop {
            let open = self.operate(&["status"])?["sessions"].as_u64();
            if open == Some(count as u64) {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("{open:?} sessions are open, not {count}").into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Everything that happened, and happens from now on.
    pub(crate) fn events(&self) -> Outcome<Events> {
        let mut command = self.command(&["events", "--follow", "--since", "0"]);
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().ok_or("no output of `events`")?;
        let (send, events) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Ok(event) = serde_json::from_str(&line)
                    && send.send((Instant::now(), event)).is_err()
                {
                    break;
                }
            }
        });
        Ok(Events {
            _process: Process(child),
            events,
        })
    }
}

/// The gateway's events.
pub(crate) struct Events {
    _process: Process,
    events: Receiver<(Instant, Value)>,
}

impl Events {
    /// Waits until each of the updates has come into one of `states`, and says when
    /// the last one did.
    pub(crate) fn reached(&self, updates: &[String], states: &[&str]) -> Outcome<Instant> {
        let mut missing: Vec<&str> = updates.iter().map(String::as_str).collect();
        loop {
            let (at, event) = self
                .events
                .recv_timeout(PATIENCE)
                .map_err(|_| format!("{} updates did not come to {states:?}", missing.len()))?;
            let to = event["to"].as_str().unwrap_or_default();
            if event["type"] != "update.state" {
                continue;
            }
            if ["failed", "reverted", "declined", "canceled"].contains(&to) {
                return Err(format!("an update ended badly: {event}").into());
            }
            if states.contains(&to) {
                missing.retain(|update| event["update"] != **update);
            }
            if missing.is_empty() {
                return Ok(at);
            }
        }
    }
}

/// The agent, built by the cargo that builds this: it belongs to another package.
pub(crate) fn agent_program() -> Outcome<PathBuf> {
    let dialhome = Path::new(env!("CARGO_BIN_EXE_dialhome"));
    let target = dialhome
        .ancestors()
        .nth(2)
        .ok_or("the target directory is not known")?;
    let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "build",
            "--quiet",
            "--release",
            "--package",
            "dialhome-device",
        ])
        .args(["--bin", "dialhome-agent", "--target-dir"])
        .arg(target)
        .status()?;
    let agent = dialhome.with_file_name("dialhome-agent");
    if built.success() && agent.is_file() {
        Ok(agent)
    } else {
        Err(format!("there is no {}", agent.display()).into())
    }
}

/// Bytes that no two places share.
pub(crate) fn image(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// A loopback address that nobody listens on.
pub(crate) fn loopback() -> Outcome<String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.to_string())
}

fn program(program: &Path, within: Option<&str>) -> Command {
    match within {
        None => Command::new(program),
        Some(namespace) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", namespace]).arg(program);
            command
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
