//! A board that a test plays by hand, frame by frame, over TCP or QUIC.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use dialhome_device::crypto::{Initiator, SoftAead};
use dialhome_proto::code::{BootReason, CloseCode, DigestFrom, Link, Revert};
use dialhome_proto::frame::{Accept, Component, DeviceFrame, GatewayFrame, Hello, Offer, Ping};
use dialhome_proto::id::{Digest, UpdateId};
use dialhome_proto::link::{DeviceKey, FIRST_FLIGHT_LEN, Records};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::{PATIENCE, Transport, quic_client};

/// Where a peer dials, and over what: an address alone is TCP.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Door {
    pub(crate) transport: Transport,
    pub(crate) gateway: SocketAddr,
}

impl From<SocketAddr> for Door {
    fn from(gateway: SocketAddr) -> Self {
        let transport = Transport::Tcp;
        Self { transport, gateway }
    }
}

/// The stream of a session.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Quic(Box<quic_client::Peer>),
}

impl Stream {
    /// The socket, where it is one.
    #[track_caller]
    pub(crate) fn tcp(&mut self) -> &mut TcpStream {
        match self {
            Self::Tcp(stream) => stream,
            Self::Quic(_) => panic!("a stream of QUIC has no socket of its own"),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Quic(peer) => AsyncRead::poll_read(Pin::new(&mut peer.receive), context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Quic(peer) => AsyncWrite::poll_write(Pin::new(&mut peer.send), context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Quic(peer) => AsyncWrite::poll_flush(Pin::new(&mut peer.send), context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Quic(peer) => AsyncWrite::poll_shutdown(Pin::new(&mut peer.send), context),
        }
    }
}

/// A connection that speaks as the board does, until it does not.
pub(crate) struct Peer {
    pub(crate) stream: Stream,
    pub(crate) records: Records,
    /// Of the handshake of TCP; zeros over QUIC.
    pub(crate) first_flight: [u8; FIRST_FLIGHT_LEN],
}

pub(crate) fn key_of(config: &Path) -> DeviceKey {
    let text = std::fs::read_to_string(config).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("key = \""));
    let hex = line.unwrap().trim_end_matches('"');
    let mut key = [0; 32];
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap();
    }
    DeviceKey::new(key)
}

/// A first flight with this key, and what finishes the handshake.
pub(crate) fn first_flight(key: &DeviceKey) -> ([u8; FIRST_FLIGHT_LEN], Initiator) {
    let mut flight = [0; FIRST_FLIGHT_LEN];
    let initiator = Initiator::start(key, rand::random(), &mut flight);
    (flight, initiator)
}

impl Peer {
    /// After the handshake, before Hello.
    pub(crate) async fn dial(door: impl Into<Door>, key: &DeviceKey) -> Self {
        let Door { transport, gateway } = door.into();
        if transport == Transport::Tcp {
            let stream = TcpStream::connect(gateway).await.unwrap();
            return Self::dial_over(stream, key).await;
        }
        Self {
            stream: Stream::Quic(Box::new(quic_client::Peer::dial(gateway, key).await)),
            records: Records::plain(),
            first_flight: [0; FIRST_FLIGHT_LEN],
        }
    }

    /// The same over a socket whose own receive buffer takes next to nothing: what the gateway sends stays there.
    pub(crate) async fn dial_narrow(gateway: SocketAddr, key: &DeviceKey) -> Self {
        let socket = match gateway {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        };
        let socket = socket.unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        Self::dial_over(socket.connect(gateway).await.unwrap(), key).await
    }

    async fn dial_over(mut stream: TcpStream, key: &DeviceKey) -> Self {
        let (flight, initiator) = first_flight(key);
        stream.write_all(&flight).await.unwrap();
        let mut answer = Vec::new();
        while Initiator::needed(&answer) > 0 {
            let mut more = vec![0; Initiator::needed(&answer)];
            timeout(PATIENCE, stream.read_exact(&mut more))
                .await
                .expect("an answer")
                .expect("a whole answer");
            answer.extend(more);
        }
        let keys = initiator.finish(&answer).expect("a session");
        Self {
            stream: Stream::Tcp(stream),
            records: Records::new(&keys),
            first_flight: flight,
        }
    }

    /// After Welcome.
    pub(crate) async fn greet(door: impl Into<Door>, key: &DeviceKey) -> Self {
        Self::greet_as(door, key, hello()).await
    }

    /// After the Welcome to this Hello.
    pub(crate) async fn greet_as(door: impl Into<Door>, key: &DeviceKey, hello: Hello<'_>) -> Self {
        let mut peer = Self::dial(door, key).await;
        peer.hello(hello).await;
        peer
    }

    /// Says Hello and is welcomed.
    pub(crate) async fn hello(&mut self, hello: Hello<'_>) {
        self.send(hello).await;
        self.expect(|frame| matches!(frame, GatewayFrame::Welcome(_)))
            .await;
    }

    /// The record of this plaintext.
    pub(crate) fn seal(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let mut record = vec![0; 2 + plaintext.len() + 16];
        record[2..2 + plaintext.len()].copy_from_slice(plaintext);
        let len = self
            .records
            .seal(&mut SoftAead, plaintext.len(), &mut record)
            .unwrap();
        record.truncate(len);
        record
    }

    pub(crate) async fn send<'a>(&mut self, frame: impl Into<DeviceFrame<'a>>) {
        let mut plaintext = [0; 1024];
        let len = frame.into().encode(&mut plaintext).unwrap();
        let record = self.seal(&plaintext[..len]);
        self.send_bytes(&record).await;
    }

    pub(crate) async fn send_plaintext(&mut self, plaintext: &[u8]) {
        let record = self.seal(plaintext);
        self.send_bytes(&record).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next frame's plaintext; none where the connection has ended.
    pub(crate) async fn next(&mut self) -> Option<Vec<u8>> {
        let mut header = [0; 2];
        let read = timeout(PATIENCE, self.stream.read_exact(&mut header)).await;
        read.expect("a record or the end").ok()?;
        let mut record = vec![0; usize::from(u16::from_be_bytes(header))];
        timeout(PATIENCE, self.stream.read_exact(&mut record))
            .await
            .expect("the rest of a record")
            .ok()?;
        let plaintext = self.records.open(&mut SoftAead, &mut record).unwrap();
        Some(plaintext.to_vec())
    }

    /// Whether the next frame is as wanted.
    pub(crate) async fn expect(&mut self, wanted: impl Fn(&GatewayFrame<'_>) -> bool) -> bool {
        let plaintext = self.next().await.expect("a frame");
        let frame = GatewayFrame::decode(&plaintext).expect("a frame that is known");
        assert!(wanted(&frame), "not what was expected: {frame:?}");
        true
    }

    /// Reads on until the Close, and then the end of the connection.
    pub(crate) async fn closed(mut self) -> CloseCode {
        loop {
            let plaintext = self.next().await.expect("Close before the end");
            if let Ok(GatewayFrame::Close(close)) = GatewayFrame::decode(&plaintext) {
                let shut = self.stream.shutdown().await;
                // Over QUIC the gateway has closed the connection by now.
                assert!(
                    shut.is_ok() || matches!(self.stream, Stream::Quic(_)),
                    "{shut:?}"
                );
                assert!(self.next().await.is_none(), "something after Close");
                return close.code;
            }
        }
    }

    /// The session still answers.
    pub(crate) async fn alive(&mut self) {
        self.send(Ping { nonce: 99 }).await;
        self.expect(|frame| matches!(frame, GatewayFrame::Pong(pong) if pong.nonce == 99))
            .await;
    }

    pub(crate) async fn offer(&mut self) -> (UpdateId, u8) {
        let plaintext = self.next().await.expect("an offer");
        match GatewayFrame::decode(&plaintext).unwrap() {
            GatewayFrame::Offer(Offer { update, flags, .. }) => (update, flags),
            other => panic!("not an offer: {other:?}"),
        }
    }

    pub(crate) async fn chunk(&mut self) -> (u32, usize) {
        let plaintext = self.next().await.expect("a chunk");
        match GatewayFrame::decode(&plaintext).unwrap() {
            GatewayFrame::Chunk(chunk) => (chunk.offset, chunk.bytes.len()),
            other => panic!("not a chunk: {other:?}"),
        }
    }
}

pub(crate) fn component() -> Component<'static> {
    Component {
        component: 0,
        version: "",
        counter: 0,
        floor: 0,
        digest: Digest([0; 32]),
        digest_from: DigestFrom::UNKNOWN,
        boot_reason: BootReason::UNKNOWN,
        revert: Revert::SWAP,
        slot_size: 1 << 20,
        write_unit: 1,
        erase_unit: 1,
        window: 4096,
        trial: None,
        claim: None,
    }
}

pub(crate) fn hello() -> Hello<'static> {
    let mut hello = Hello {
        product: super::PRODUCT,
        hardware: 0,
        client: "peer",
        receive_buffer: 1088,
        network: "",
        link: Link::UNKNOWN,
        ping_s: 300,
        wake_s: 0,
        battery_percent: 255,
        signal_dbm: -128,
        temperature_c: -128,
        busy: false,
        last_close: CloseCode::UNKNOWN,
        failed_dials: 0,
        trust_epoch: 1,
        gateways_epoch: 0,
        tasks: 0,
        last_task: 0,
        components: Default::default(),
    };
    hello.components.push(component()).unwrap();
    hello
}

pub(crate) fn accept(update: UpdateId, offset: u32, prefix: Digest) -> Accept {
    Accept {
        update,
        image_offset: offset,
        prefix,
        payload_offset: offset,
        limit: offset,
        commit_ms: 1000,
    }
}

pub(crate) fn nothing() -> Digest {
    Digest(Sha256::digest([]).into())
}
