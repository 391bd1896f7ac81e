//! A board without storage: it authenticates, says Hello, pings, and declines what it is offered.

use super::Seat;
use super::process::say;
use super::quic::Proven;
use crate::Error;
use crate::compare::clients::Word;
use crate::measure::clock;
use crate::site::PRODUCT;
use dialhome_device::crypto::Initiator;
use dialhome_gateway::link::LcAead;
use dialhome_proto::code::{BootReason, CloseCode, DigestFrom, Link, Reason, Revert};
use dialhome_proto::frame::{Component, Decline, DeviceFrame, GatewayFrame, Hello, Ping, Pong};
use dialhome_proto::id::Digest;
use dialhome_proto::limits::{BOARD_RECORD_MAX, RECORD_HEADER};
use dialhome_proto::link::{ACCEPTED_LEN, DeviceKey, FIRST_FLIGHT_LEN, Records, TransportKeys};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// A session that was welcomed.
pub(super) struct Board {
    stream: Stream,
    records: Records,
    id: String,
    /// Ciphertext that has come and is not a whole record yet.
    came: Vec<u8>,
    /// When the first byte of `came` came.
    first_ns: u64,
}

/// What a session is on.
enum Stream {
    Tcp(TcpStream),
    Quic(Box<Proven>),
}

impl Stream {
    async fn write_all(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes).await.map_err(broken),
            Self::Quic(proven) => match proven.send.write_all(bytes).await {
                Ok(()) => Ok(()),
                Err(error) => Err(Error::of("the connection broke", &error)),
            },
        }
    }

    /// Waits until something has come, and only then makes room for it. May be dropped.
    async fn read(&mut self, came: &mut Vec<u8>) -> Result<(), Error> {
        match self {
            Self::Tcp(stream) => {
                stream.readable().await.map_err(broken)?;
                match stream.try_read_buf(came) {
                    Ok(0) => Err(Error::new("the gateway closed the connection")),
                    Ok(_) => Ok(()),
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
                    Err(error) => Err(broken(error)),
                }
            }
            Self::Quic(proven) => match proven.receive.read_chunk(usize::MAX, true).await {
                Ok(Some(chunk)) => {
                    came.extend_from_slice(&chunk.bytes);
                    Ok(())
                }
                Ok(None) | Err(_) => Err(Error::of("the connection broke", &proven.end())),
            },
        }
    }
}

/// The handshake, up to the gateway's answer.
pub(super) async fn handshake(
    mut stream: TcpStream,
    seat: &Seat,
) -> Result<(TcpStream, TransportKeys), Error> {
    let key = DeviceKey::new(seat.key);
    let mut flight = [0; FIRST_FLIGHT_LEN];
    let initiator = Initiator::start(&key, rand::random(), &mut flight);
    stream.write_all(&flight).await.map_err(broken)?;
    let mut answer = [0; ACCEPTED_LEN];
    let mut filled = 0;
    loop {
        let needed = Initiator::needed(answer.get(..filled).unwrap_or_default());
        let Some(room) = answer.get_mut(filled..filled + needed) else {
            return Err(Error::new("the gateway's answer is too long"));
        };
        if room.is_empty() {
            break;
        }
        stream.read_exact(room).await.map_err(broken)?;
        filled += needed;
    }
    let keys = initiator
        .finish(answer.get(..filled).unwrap_or_default())
        .map_err(|fault| Error::new(format!("the handshake was not answered: {fault:?}")))?;
    Ok((stream, keys))
}

fn broken(error: std::io::Error) -> Error {
    Error::of("the connection broke", &error)
}

impl Board {
    /// Handshake and Hello, up to the gateway's Welcome.
    pub(super) async fn open(stream: TcpStream, seat: &Seat, ping_s: u32) -> Result<Self, Error> {
        let (stream, keys) = handshake(stream, seat).await?;
        Self::greet(Stream::Tcp(stream), Records::new(&keys), seat, ping_s).await
    }

    /// Hello on a connection over QUIC, up to the gateway's Welcome.
    pub(super) async fn open_over_quic(
        proven: Proven,
        seat: &Seat,
        ping_s: u32,
    ) -> Result<Self, Error> {
        let stream = Stream::Quic(Box::new(proven));
        Self::greet(stream, Records::plain(), seat, ping_s).await
    }

    async fn greet(
        stream: Stream,
        records: Records,
        seat: &Seat,
        ping_s: u32,
    ) -> Result<Self, Error> {
        let mut board = Self {
            stream,
            records,
            id: seat.id.clone(),
            came: Vec::new(),
            first_ns: 0,
        };
        board.send(hello(ping_s).into()).await?;
        let mut welcomed = false;
        while !welcomed {
            board.more().await?;
            board.frames(|frame| {
                welcomed |= matches!(frame, GatewayFrame::Welcome(_));
                None
            })?;
        }
        Ok(board)
    }

    async fn send(&mut self, frame: DeviceFrame<'_>) -> Result<(), Error> {
        let mut out = [0; RECORD_HEADER + BOARD_RECORD_MAX];
        let len = out
            .get_mut(RECORD_HEADER..)
            .and_then(|room| frame.encode(room).ok())
            .ok_or_else(|| Error::new("a frame is too long"))?;
        let len = self
            .records
            .seal(&mut LcAead, len, &mut out)
            .map_err(|fault| Error::of("a record", &fault))?;
        self.stream
            .write_all(out.get(..len).unwrap_or_default())
            .await
    }

    /// Waits for more bytes. May be dropped at any time.
    async fn more(&mut self) -> Result<(), Error> {
        let begins = self.came.is_empty();
        self.stream.read(&mut self.came).await?;
        if begins {
            self.first_ns = clock::now_ns();
        }
        Ok(())
    }

    /// Opens the records that have come whole; gives the answers that `hear` made of them.
    fn frames(
        &mut self,
        mut hear: impl FnMut(GatewayFrame<'_>) -> Option<DeviceFrame<'static>>,
    ) -> Result<Vec<DeviceFrame<'static>>, Error> {
        let mut answers = Vec::new();
        while let Some((header, rest)) = self.came.split_first_chunk_mut::<RECORD_HEADER>() {
            let len = usize::from(u16::from_be_bytes(*header));
            let Some(record) = rest.get_mut(..len) else {
                break;
            };
            let plaintext = self
                .records
                .open(&mut LcAead, record)
                .map_err(|fault| Error::of("a record", &fault))?;
            match GatewayFrame::decode(plaintext) {
                Ok(GatewayFrame::Close(close)) => {
                    return Err(Error::new(format!("the gateway closed: {:?}", close.code)));
                }
                Ok(frame) => answers.extend(hear(frame)),
                Err(fault) => return Err(Error::new(format!("a frame: {fault:?}"))),
            }
            self.came.drain(..RECORD_HEADER + len);
        }
        if self.came.is_empty() {
            // An idle client holds no buffer.
            self.came = Vec::new();
        }
        Ok(answers)
    }

    /// Pings, declines offers, and says when the first byte of each came.
    pub(super) async fn idle(mut self, first: Duration, every: Duration) -> Result<(), Error> {
        let mut next = Instant::now() + first;
        loop {
            tokio::select! {
                came = self.more() => came?,
                () = tokio::time::sleep_until(next), if !every.is_zero() => {
                    next += every;
                    self.send(Ping { nonce: 1 }.into()).await?;
                    continue;
                }
            }
            let at_ns = self.first_ns;
            let mut offered = false;
            let answers = self.frames(|frame| match frame {
                GatewayFrame::Ping(Ping { nonce }) => Some(Pong { nonce }.into()),
                GatewayFrame::Offer(offer) => {
                    offered = true;
                    let (update, reason) = (offer.update, Reason::WRONG_HARDWARE);
                    Some(Decline { update, reason }.into())
                }
                _ => None,
            })?;
            if offered {
                let id = self.id.clone();
                say(&Word::Heard { id, at_ns });
            }
            for answer in answers {
                self.send(answer).await?;
            }
        }
    }
}

fn hello(ping_s: u32) -> Hello<'static> {
    let component = Component {
        component: 0,
        version: "1.0.0",
        counter: 1,
        floor: 0,
        digest: Digest([1; 32]),
        digest_from: DigestFrom::READ_BACK,
        boot_reason: BootReason::UNKNOWN,
        revert: Revert::NONE,
        slot_size: 1 << 20,
        write_unit: 8,
        erase_unit: 4096,
        window: 32 * 1024,
        trial: None,
        claim: None,
    };
    Hello {
        product: PRODUCT,
        hardware: 0,
        client: "compare",
        receive_buffer: 1088,
        network: "",
        link: Link::UNKNOWN,
        ping_s: if ping_s == 0 { 3600 } else { ping_s },
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
