//! A crew's process, a gateway's, and what a test says to them.

use dialhome_loadtest::fleet::words::{Client, Link, Order, Roll, Seat, Tick, Word};
use dialhome_loadtest::site::admin::Admin;
use dialhome_loadtest::site::gateway::{self, Gateway};
use dialhome_loadtest::site::{Device, PRODUCT, Site, image};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, timeout};

/// What has not happened after so long never will.
const PATIENCE: Duration = Duration::from_secs(60);

/// A gateway with boards and images.
pub(crate) struct Field {
    pub(crate) gateway: Gateway,
    pub(crate) admin: Admin,
    pub(crate) devices: Vec<Device>,
    address: SocketAddr,
    site: Site,
    images: Vec<PathBuf>,
}

impl Field {
    /// So many boards, and images of these sizes in bytes.
    pub(crate) async fn new(boards: usize, images: &[usize]) -> Self {
        let site = Site::new().unwrap();
        let images: Vec<_> = images
            .iter()
            .enumerate()
            .map(|(number, len)| image(number as u64, *len))
            .collect();
        let ids: Vec<_> = (0..boards)
            .map(|number| format!("board-{number}"))
            .collect();
        let devices = site.fill(&ids, &images).await.unwrap();
        let paths = images
            .iter()
            .enumerate()
            .map(|(number, bytes)| {
                let path = site.folder().join(format!("image-{number}"));
                std::fs::write(&path, bytes).unwrap();
                path
            })
            .collect();
        // The port is free again when the gateway takes it; nobody else is given it so soon.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .unwrap()
            .local_addr()
            .unwrap();
        let program = gateway::program(Some(&beside())).unwrap();
        let gateway = Gateway::start(&program, &site, address, &[], None)
            .await
            .unwrap();
        let admin = gateway.admin().await.unwrap();
        Self {
            gateway,
            admin,
            devices,
            address,
            site,
            images: paths,
        }
    }

    /// All boards, over this link.
    pub(crate) fn roll(&self, link: Link) -> Roll {
        Roll {
            seed: 1,
            gateway: self.address,
            trust: hex(&self.site.trusted()),
            product: PRODUCT.into(),
            links: vec![link],
            images: self.images.clone(),
            client: Client {
                receive_buffer: 1088,
                window: 16 * 1024,
                erase_unit: 4096,
                ping_s: 30,
                redial_ms: [100, 1000],
                restart_ms: 20,
            },
            boards: self
                .devices
                .iter()
                .zip(0..)
                .map(|(device, number)| Seat {
                    id: device.id.clone(),
                    key: hex(&device.key),
                    source: IpAddr::from([127, 0, 1, 1 + number % 2]),
                    link: 0,
                    on_at_ms: 0,
                    deaf_after: None,
                })
                .collect(),
            gangs: Vec::new(),
            tick_ms: 50,
        }
    }

    /// Pushes an image to every board.
    pub(crate) async fn push_all(&mut self, number: usize) {
        for device in &self.devices {
            self.admin.push(&device.id, number).await.unwrap();
        }
    }
}

/// The gateway's program; this test's own is in `deps`.
fn beside() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_dialhome-loadtest")).with_file_name("dialhome")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A crew that plays.
pub(crate) struct Crew {
    child: Child,
    orders: Option<ChildStdin>,
    words: Lines<BufReader<ChildStdout>>,
    /// The last tick.
    pub(crate) tick: Tick,
}

impl Crew {
    /// Gives it its roll, and waits until it has read that.
    pub(crate) async fn new(roll: &Roll) -> Self {
        let mut crew = Self::start(roll, 1024).await;
        assert!(matches!(crew.word().await, Word::Ready));
        crew
    }

    /// Gives it its roll, and lets it open so many files.
    pub(crate) async fn start(roll: &Roll, files: usize) -> Self {
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(format!("ulimit -n {files} && exec \"$0\" crew"))
            .arg(env!("CARGO_BIN_EXE_dialhome-loadtest"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let orders = child.stdin.take();
        let words = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut crew = Self {
            child,
            orders,
            words,
            tick: Tick::default(),
        };
        crew.write(&serde_json::to_string(roll).unwrap()).await;
        crew
    }

    pub(crate) async fn order(&mut self, order: Order) {
        self.write(&serde_json::to_string(&order).unwrap()).await;
    }

    async fn write(&mut self, line: &str) {
        let orders = self.orders.as_mut().expect("its input is open");
        orders.write_all(line.as_bytes()).await.unwrap();
        orders.write_all(b"\n").await.unwrap();
    }

    /// The next word.
    pub(crate) async fn word(&mut self) -> Word {
        let line = timeout(PATIENCE, self.words.next_line())
            .await
            .expect("a crew that says nothing for a minute")
            .unwrap()
            .expect("a crew that says no more");
        serde_json::from_str(&line).unwrap()
    }

    /// Waits for a tick that is as wanted. No promise may be broken meanwhile.
    pub(crate) async fn until(&mut self, what: &str, wanted: impl Fn(&Tick) -> bool) {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.word().await {
                Word::Tick(tick) => {
                    self.tick = *tick;
                    if wanted(&self.tick) {
                        return;
                    }
                }
                Word::FirstByte { .. } => {}
                word => panic!("{word:?} while waiting for {what}"),
            }
            assert!(
                Instant::now() < until,
                "{what} did not happen within a minute: {:?}",
                self.tick
            );
        }
    }

    /// Closes its input, and waits until it has ended in order.
    pub(crate) async fn end(mut self) -> Tick {
        self.orders = None;
        loop {
            match self.word().await {
                Word::Tick(tick) => self.tick = *tick,
                Word::Ended => break,
                Word::FirstByte { .. } => {}
                word => panic!("{word:?} at the end"),
            }
        }
        let status = timeout(PATIENCE, self.child.wait()).await;
        assert!(
            status
                .expect("a crew that does not exit")
                .unwrap()
                .success()
        );
        self.tick
    }
}
