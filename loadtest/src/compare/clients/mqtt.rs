//! A client of an MQTT broker, over the codec of `rumqttc` and a socket of its own.

use super::process::say;
use super::{Fetch, SHARED_TOPIC, Seat, Topics, Word, hex, topic};
use crate::Error;
use crate::measure::clock;
use bytes::BytesMut;
use rumqttc::mqttbytes::v4::{
    Connect, ConnectReturnCode, Packet, PubAck, Publish, Subscribe, SubscribeReasonCode,
};
use rumqttc::mqttbytes::{Error as Fault, QoS};
use sha2::{Digest as _, Sha256};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Packets are no longer than this.
const PACKET_MAX: usize = 1 << 20;

/// A connection that the broker has accepted.
#[derive(Debug)]
pub(in crate::compare) struct Mqtt {
    stream: TcpStream,
    id: String,
    /// It hears what is meant for it alone, and says so.
    own: bool,
    came: BytesMut,
    /// When the first byte of `came` came.
    first_ns: u64,
}

fn broken(error: std::io::Error) -> Error {
    Error::of("the connection broke", &error)
}

impl Mqtt {
    /// Connects with the seat's name as user and its key as password, and subscribes.
    pub(super) async fn open(
        stream: TcpStream,
        seat: &Seat,
        ping_s: u32,
        topics: Topics,
    ) -> Result<Self, Error> {
        let mut mqtt = Self {
            stream,
            id: seat.id.clone(),
            own: topics.own,
            came: BytesMut::new(),
            first_ns: 0,
        };
        let mut connect = Connect::new(&seat.id);
        connect.set_login(&seat.id, hex(&seat.key));
        connect.clean_session = true;
        connect.keep_alive = u16::try_from(ping_s).unwrap_or(u16::MAX);
        mqtt.send(&[Packet::Connect(connect)]).await?;
        match mqtt.next().await? {
            Packet::ConnAck(ack) if ack.code == ConnectReturnCode::Success => {}
            other => return Err(Error::new(format!("the broker said {other:?}"))),
        }
        let mut wanted = Vec::new();
        if topics.own {
            wanted.push(topic(&seat.id));
        }
        if topics.shared {
            wanted.push(SHARED_TOPIC.to_owned());
        }
        if let Some(first) = wanted.pop() {
            let mut subscribe = Subscribe::new(first, QoS::AtLeastOnce);
            for more in wanted {
                subscribe.add(more, QoS::AtLeastOnce);
            }
            subscribe.pkid = 1;
            mqtt.send(&[Packet::Subscribe(subscribe)]).await?;
            match mqtt.next().await? {
                Packet::SubAck(ack)
                    if ack
                        .return_codes
                        .iter()
                        .all(|code| *code == SubscribeReasonCode::Success(QoS::AtLeastOnce)) => {}
                other => return Err(Error::new(format!("the broker said {other:?}"))),
            }
        }
        Ok(mqtt)
    }

    /// A connection of this process to the broker, that subscribes to nothing: a publisher.
    pub(in crate::compare) async fn publisher(
        server: SocketAddr,
        seat: &Seat,
    ) -> Result<Self, Error> {
        let stream = TcpStream::connect(server).await.map_err(broken)?;
        stream.set_nodelay(true).map_err(broken)?;
        let none = Topics {
            own: false,
            shared: false,
        };
        Self::open(stream, seat, 0, none).await
    }

    /// Publishes with QoS 1; does not wait for the broker's PUBACK.
    pub(in crate::compare) async fn publish(
        &mut self,
        topic: &str,
        number: u16,
        payload: &[u8],
    ) -> Result<(), Error> {
        let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload);
        publish.pkid = number;
        self.send(&[Packet::Publish(publish)]).await
    }

    /// Waits for so many PUBACKs of the broker.
    pub(in crate::compare) async fn acknowledged(&mut self, count: usize) -> Result<(), Error> {
        for _ in 0..count {
            match self.next().await? {
                Packet::PubAck(_) => {}
                other => return Err(Error::new(format!("the broker said {other:?}"))),
            }
        }
        Ok(())
    }

    async fn send(&mut self, packets: &[Packet]) -> Result<(), Error> {
        let mut out = BytesMut::new();
        for packet in packets {
            packet
                .write(&mut out, PACKET_MAX)
                .map_err(|fault| Error::of("an MQTT packet", &fault))?;
        }
        self.stream.write_all(&out).await.map_err(broken)
    }

    /// Waits for more bytes. May be dropped at any time.
    async fn more(&mut self) -> Result<(), Error> {
        self.stream.readable().await.map_err(broken)?;
        if self.came.is_empty() {
            self.first_ns = clock::now_ns();
            self.came.reserve(32 * 1024);
        }
        match self.stream.try_read_buf(&mut self.came) {
            Ok(0) => Err(Error::new("the broker closed the connection")),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(broken(error)),
        }
    }

    /// A packet that has come whole.
    fn packet(&mut self) -> Result<Option<Packet>, Error> {
        match Packet::read(&mut self.came, PACKET_MAX) {
            Ok(packet) => Ok(Some(packet)),
            Err(Fault::InsufficientBytes(more)) => {
                self.came.reserve(more);
                Ok(None)
            }
            Err(fault) => Err(Error::of("an MQTT packet", &fault)),
        }
    }

    async fn next(&mut self) -> Result<Packet, Error> {
        loop {
            if let Some(packet) = self.packet()? {
                return Ok(packet);
            }
            self.more().await?;
        }
    }

    /// Publishes a file piece by piece, as fast as it can, and waits for all PUBACKs.
    pub(in crate::compare) async fn publish_file(
        &mut self,
        topic: &str,
        file: &[u8],
        piece: usize,
    ) -> Result<(), Error> {
        let pieces = file.chunks(piece);
        let count = pieces.len();
        for (number, piece) in (1..).zip(pieces) {
            self.publish(topic, number, piece).await?;
        }
        self.acknowledged(count).await
    }

    /// Takes what is published to all, acknowledges each message, and checks the whole.
    pub(super) async fn fetch(&mut self, fetch: &Fetch) -> Result<(), Error> {
        let (mut size, mut sha256) = (0, Sha256::new());
        let mut acks = Vec::new();
        while size < fetch.size {
            match self.packet()? {
                Some(Packet::Publish(publish)) => {
                    size += publish.payload.len();
                    sha256.update(&publish.payload);
                    acks.push(Packet::PubAck(PubAck::new(publish.pkid)));
                }
                Some(other) => return Err(Error::new(format!("the broker said {other:?}"))),
                None => {
                    self.send(&acks).await?;
                    acks.clear();
                    self.more().await?;
                }
            }
        }
        self.send(&acks).await?;
        if size != fetch.size || *sha256.finalize() != fetch.sha256 {
            return Err(Error::new(format!(
                "{}: the file is not what was sent",
                self.id
            )));
        }
        Ok(())
    }

    /// Pings, acknowledges what comes, and says when its first byte did.
    pub(super) async fn idle(mut self, first: Duration, every: Duration) -> Result<(), Error> {
        let mut next = Instant::now() + first;
        // An idle client holds no buffer.
        self.came = BytesMut::new();
        loop {
            tokio::select! {
                came = self.more() => came?,
                () = tokio::time::sleep_until(next), if !every.is_zero() => {
                    next += every;
                    self.send(&[Packet::PingReq]).await?;
                    continue;
                }
            }
            let at_ns = self.first_ns;
            let mut acks = Vec::new();
            while let Some(packet) = self.packet()? {
                if let Packet::Publish(publish) = packet {
                    acks.push(Packet::PubAck(PubAck::new(publish.pkid)));
                }
            }
            if !acks.is_empty() {
                if self.own {
                    let id = self.id.clone();
                    say(&Word::Heard { id, at_ns });
                }
                self.send(&acks).await?;
            }
            if self.came.is_empty() {
                self.came = BytesMut::new();
            }
        }
    }
}
