//! One client's connection, whatever it speaks.

use super::board::Board;
use super::http::Http;
use super::mqtt::Mqtt;
use super::quic::Sockets;
use super::{Fetch, Kind, Roll, Seat};
use crate::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

/// What all connections of a process have in common.
pub(super) struct Way {
    pub(super) roll: Roll,
    tls: Option<TlsConnector>,
    quic: Option<Sockets>,
}

impl Way {
    pub(super) fn new(roll: Roll) -> Result<Self, Error> {
        let tls = match &roll.kind {
            Kind::Http {
                trusted: Some(pem), ..
            } => Some(super::http::connector(pem)?),
            _ => None,
        };
        let quic = match &roll.kind {
            Kind::Quic { pin } => Some(Sockets::new(pin)?),
            _ => None,
        };
        Ok(Self { roll, tls, quic })
    }
}

/// A connection that is authenticated.
pub(super) enum Connection {
    Board(Box<Board>),
    Mqtt(Box<Mqtt>),
    Http(Box<Http>),
    /// A handshake that was answered; the socket is kept open.
    Answered {
        _stream: TcpStream,
    },
}

impl Connection {
    /// Connects and authenticates the seat with this number.
    pub(super) async fn open(way: &Arc<Way>, number: usize) -> Result<Self, Error> {
        let seats = &way.roll.seats;
        let Some(seat) = seats.get(number % seats.len().max(1)) else {
            return Err(Error::new("a process of clients has no seats"));
        };
        let failed = |error: &dyn std::fmt::Display| Error::of(&seat.id, error);
        if let Some(sockets) = &way.quic {
            let opening = async {
                let proven = sockets.dial(way.roll.server, seat, number).await?;
                Board::open_over_quic(proven, seat, way.roll.ping_s).await
            };
            return match opening.await {
                Ok(board) => Ok(Self::Board(Box::new(board))),
                Err(error) => Err(failed(&error)),
            };
        }
        let stream = connect(way.roll.server, seat)
            .await
            .map_err(|error| failed(&explained(&error)))?;
        match &way.roll.kind {
            // The one over QUIC has its sockets.
            Kind::Board | Kind::Quic { .. } => Board::open(stream, seat, way.roll.ping_s)
                .await
                .map(|board| Self::Board(Box::new(board))),
            Kind::Handshake => super::board::handshake(stream, seat)
                .await
                .map(|(stream, _)| Self::Answered { _stream: stream }),
            Kind::Mqtt(topics) => Mqtt::open(stream, seat, way.roll.ping_s, *topics)
                .await
                .map(|mqtt| Self::Mqtt(Box::new(mqtt))),
            Kind::Http { first, .. } => Http::open(stream, way.tls.as_ref(), first)
                .await
                .map(|http| Self::Http(Box::new(http))),
        }
        .map_err(|error| failed(&error))
    }

    /// Takes a file, and checks it.
    pub(super) async fn fetch(&mut self, fetch: &Fetch) -> Result<(), Error> {
        match self {
            Self::Mqtt(mqtt) => mqtt.fetch(fetch).await,
            Self::Http(http) => http.fetch(fetch).await,
            Self::Board(_) | Self::Answered { .. } => {
                Err(Error::new("a board without storage takes no image"))
            }
        }
    }

    /// Publishes a file to all.
    pub(super) async fn publish(&mut self, file: &[u8], piece: usize) -> Result<(), Error> {
        match self {
            Self::Mqtt(mqtt) => mqtt.publish_file(super::SHARED_TOPIC, file, piece).await,
            _ => Err(Error::new("only a client of a broker publishes")),
        }
    }

    /// Is idle: pings `first` from now and then at this interval, and tells first bytes.
    /// Returns only when the connection has failed.
    pub(super) async fn idle(self, first: Duration, every: Duration) -> Result<(), Error> {
        match self {
            Self::Board(board) => board.idle(first, every).await,
            Self::Mqtt(mqtt) => mqtt.idle(first, every).await,
            Self::Http(http) => http.idle().await,
            Self::Answered { _stream } => std::future::pending().await,
        }
    }
}

async fn connect(server: SocketAddr, seat: &Seat) -> std::io::Result<TcpStream> {
    let socket = match server {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(source) = seat.source {
        socket.bind((source, 0).into())?;
    }
    let stream = socket.connect(server).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The limits that a run can meet are named.
fn explained(error: &std::io::Error) -> String {
    use rustix::io::Errno;
    match Errno::from_io_error(error) {
        Some(Errno::MFILE) => {
            format!("{error}: a process may have no more open files (`ulimit -n`)")
        }
        Some(Errno::ADDRNOTAVAIL | Errno::ADDRINUSE) => {
            format!("{error}: no port is left (net.ipv4.ip_local_port_range)")
        }
        _ => error.to_string(),
    }
}
