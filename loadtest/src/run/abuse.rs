//! Peers that are no good boards.

use super::scenario::Abuse;
use super::seats::{ABUSERS, source};
use crate::site::Device;
use dialhome_device::crypto::{Initiator, SoftAead};
use dialhome_proto::code::{BootReason, CloseCode, DigestFrom, Link, Revert};
use dialhome_proto::frame::{Component, DeviceFrame, Hello, Ping};
use dialhome_proto::id::Digest;
use dialhome_proto::link::{ACCEPTED_LEN, DeviceKey, FIRST_FLIGHT_LEN, PREAMBLE_LEN, Records};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// Pause of a peer between two connections: without one a closed port would be all that it does.
const PAUSE: Duration = Duration::from_millis(20);
/// Longest time that a peer which wants an answer waits for one.
const PATIENCE: Duration = Duration::from_secs(20);

/// Abusive peers; they stop when this value is dropped.
#[derive(Debug, Default)]
pub(super) struct Abusers {
    tasks: JoinSet<()>,
    connections: Arc<AtomicU64>,
}

#[derive(Clone, Copy)]
enum Kind {
    HalfOpen,
    Unknown,
    Rubbish,
}

impl Abusers {
    /// Begins; `never_readers` are devices that the gateway knows.
    pub(super) fn start(
        &mut self,
        abuse: &Abuse,
        gateway: SocketAddr,
        never_readers: &[Device],
        seed: u64,
    ) {
        let until = abuse.for_s.map(Duration::from_secs_f64);
        let kinds = [
            (Kind::HalfOpen, abuse.half_open),
            (Kind::Unknown, abuse.unknown),
            (Kind::Rubbish, abuse.rubbish),
        ];
        let kinds = kinds
            .into_iter()
            .flat_map(|(kind, count)| std::iter::repeat_n(kind, count));
        let mut number = 0;
        for kind in kinds {
            let from = source(ABUSERS, abuse.networks, number);
            let draw = StdRng::seed_from_u64(seed.wrapping_add(number as u64));
            number += 1;
            let count = Arc::clone(&self.connections);
            self.spawn(until, async move {
                let mut draw = draw;
                loop {
                    // A refusal, a reset or silence is what it is worth.
                    let _ = once(kind, from, gateway, &mut draw, &count).await;
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        for device in never_readers.iter().take(abuse.never_read) {
            let from = source(ABUSERS, abuse.networks, number);
            number += 1;
            let key = DeviceKey::new(device.key);
            let count = Arc::clone(&self.connections);
            self.spawn(until, async move {
                loop {
                    let _ = never_read(from, gateway, &key, &count).await;
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
    }

    fn spawn(&mut self, until: Option<Duration>, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            match until {
                Some(until) => drop(tokio::time::timeout(until, work).await),
                None => work.await,
            }
        });
    }

    /// Connections that they opened.
    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn connect(from: IpAddr, gateway: SocketAddr, count: &AtomicU64) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from, 0))?;
    let stream = socket.connect(gateway).await?;
    count.fetch_add(1, Ordering::Relaxed);
    Ok(stream)
}

async fn once(
    kind: Kind,
    from: IpAddr,
    gateway: SocketAddr,
    draw: &mut StdRng,
    count: &AtomicU64,
) -> io::Result<()> {
    let mut stream = connect(from, gateway, count).await?;
    let mut key = [0; 32];
    draw.fill_bytes(&mut key);
    let mut flight = [0; FIRST_FLIGHT_LEN];
    let mut answer = [0; 64];
    match kind {
        Kind::HalfOpen => {
            let _ = Initiator::start(&DeviceKey::new(key), key, &mut flight);
            stream.write_all(&flight[..PREAMBLE_LEN]).await?;
            // It stays as long as the gateway lets it.
            while stream.read(&mut answer).await? > 0 {}
        }
        Kind::Unknown => {
            // The second half of the random bytes makes no difference to who it is.
            let _ = Initiator::start(&DeviceKey::new(key), key, &mut flight);
            stream.write_all(&flight).await?;
            let _ = tokio::time::timeout(PATIENCE, stream.read(&mut answer)).await;
        }
        Kind::Rubbish => {
            let mut rubbish = [0; 512];
            draw.fill_bytes(&mut rubbish);
            stream.write_all(&rubbish).await?;
            let _ = tokio::time::timeout(PATIENCE, stream.read(&mut answer)).await;
        }
    }
    Ok(())
}

/// A good handshake and Hello, then pings whose answers are never read.
async fn never_read(
    from: IpAddr,
    gateway: SocketAddr,
    key: &DeviceKey,
    count: &AtomicU64,
) -> io::Result<()> {
    let mut stream = connect(from, gateway, count).await?;
    let mut flight = [0; FIRST_FLIGHT_LEN];
    let initiator = Initiator::start(key, rand::random(), &mut flight);
    stream.write_all(&flight).await?;
    let mut answer = [0; ACCEPTED_LEN];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer))
        .await
        .map_err(io::Error::other)??;
    let refused = |_| io::Error::other("the handshake was refused");
    let keys = initiator.finish(&answer).map_err(refused)?;
    let mut records = Records::new(&keys);
    send(&mut stream, &mut records, hello().into()).await?;
    let mut nonce = 0;
    loop {
        nonce += 1;
        send(&mut stream, &mut records, Ping { nonce }.into()).await?;
    }
}

async fn send(
    stream: &mut TcpStream,
    records: &mut Records,
    frame: DeviceFrame<'_>,
) -> io::Result<()> {
    let mut record = [0; 1_024];
    let wrong = |_| io::Error::other("the frame cannot be written");
    let len = frame.encode(&mut record[2..]).map_err(wrong)?;
    let len = records
        .seal(&mut SoftAead, len, &mut record)
        .map_err(|_| io::Error::other("the record cannot be sealed"))?;
    stream.write_all(&record[..len]).await
}

fn hello() -> Hello<'static> {
    let component = Component {
        component: 0,
        version: "0",
        counter: 0,
        floor: 0,
        digest: Digest([0; 32]),
        digest_from: DigestFrom::UNKNOWN,
        boot_reason: BootReason::UNKNOWN,
        revert: Revert::NONE,
        slot_size: 1 << 20,
        write_unit: 8,
        erase_unit: 4_096,
        window: 16 * 1_024,
        trial: None,
        claim: None,
    };
    Hello {
        product: crate::site::PRODUCT,
        hardware: 0,
        client: "never reads",
        receive_buffer: 1_088,
        network: "",
        link: Link::UNKNOWN,
        ping_s: 600,
        wake_s: 0,
        battery_percent: u8::MAX,
        signal_dbm: i8::MIN,
        temperature_c: i8::MIN,
        busy: false,
        last_close: CloseCode::LOST,
        failed_dials: 0,
        trust_epoch: 1,
        gateways_epoch: 0,
        tasks: 0,
        last_task: 0,
        components: std::iter::once(component).collect(),
    }
}
