//! A QUIC client of a test's own, packet by packet, for what no library lets its user do: any frame on an
//! established connection, first packets without a second, bytes counted as they come on the socket.
//!
//! It sends packets of version 1 with a packet number of four bytes, acknowledges nothing and repeats
//! nothing; the loopback interface loses nothing. TLS is rustls'.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustls::Side;
use rustls::quic::{ClientConnection, DirectionalKeys, KeyChange, Keys, Version};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::client::Dial;
use crate::support::PATIENCE;

/// Least size of a datagram with a first packet.
pub(crate) const INITIAL_LEN: usize = 1_200;
/// Bytes of a tag.
const TAG: usize = 16;

/// The kinds of a packet, by the bits of its first byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Initial,
    ZeroRtt,
    Handshake,
    Retry,
    OneRtt,
}

impl Kind {
    fn of(first: u8) -> Self {
        match (first & 0x80, first >> 4 & 3) {
            (0, _) => Self::OneRtt,
            (_, 0) => Self::Initial,
            (_, 1) => Self::ZeroRtt,
            (_, 2) => Self::Handshake,
            _ => Self::Retry,
        }
    }
}

/// A client at its own address.
pub(crate) struct Raw {
    pub(crate) socket: UdpSocket,
    gateway: SocketAddr,
    tls: ClientConnection,
    ours: [u8; 8],
    theirs: Vec<u8>,
    initial: Keys,
    handshake: Option<Keys>,
    one_rtt: Option<Keys>,
    sent: u32,
}

fn varint(out: &mut Vec<u8>, value: usize) {
    let value = u32::try_from(value).unwrap();
    out.extend((value | 0x8000_0000).to_be_bytes());
}

/// Takes a varint from the front.
fn take(bytes: &mut &[u8]) -> usize {
    let len = 1 << (bytes[0] >> 6);
    let value = bytes[..len]
        .iter()
        .fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    *bytes = &bytes[len..];
    usize::try_from(value & !(3 << (8 * len - 2))).unwrap()
}

fn skip<'a>(bytes: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (skipped, rest) = bytes.split_at(len);
    *bytes = rest;
    skipped
}

/// What limits the gateway, and who we are.
fn parameters(ours: &[u8; 8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (id, value) in [(4, 1 << 20), (5, 1 << 20)] {
        varint(&mut out, id);
        varint(&mut out, 4);
        varint(&mut out, value);
    }
    varint(&mut out, 0x0f);
    varint(&mut out, ours.len());
    out.extend(ours);
    out
}

/// The keys of first packets to this connection id.
fn initial_keys(to: &[u8]) -> Keys {
    let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let suite = suite.tls13().expect("a suite of TLS 1.3");
    suite
        .quic_suite()
        .unwrap()
        .keys(to, Side::Client, Version::V1)
}

impl Raw {
    /// A client that has sent nothing yet, at this address of the loopback interface.
    pub(crate) async fn at(address: Ipv4Addr, gateway: SocketAddr) -> Self {
        let socket = UdpSocket::bind((address, 0)).await.unwrap();
        let ours: [u8; 8] = rand::random();
        let theirs: [u8; 8] = rand::random();
        let (tls, _) = Dial::default().tls();
        let name = "gateway".try_into().unwrap();
        let tls =
            ClientConnection::new(Arc::new(tls), Version::V1, name, parameters(&ours)).unwrap();
        Self {
            socket,
            gateway,
            tls,
            ours,
            initial: initial_keys(&theirs),
            theirs: theirs.to_vec(),
            handshake: None,
            one_rtt: None,
            sent: 0,
        }
    }

    fn keys(&self, kind: Kind) -> Option<&Keys> {
        match kind {
            Kind::Initial => Some(&self.initial),
            Kind::Handshake => self.handshake.as_ref(),
            Kind::OneRtt => self.one_rtt.as_ref(),
            Kind::ZeroRtt | Kind::Retry => None,
        }
    }

    /// A packet with these frames, protected.
    fn packet(&mut self, kind: Kind, frames: &[u8]) -> Vec<u8> {
        let number = self.sent;
        self.sent += 1;
        let mut payload = frames.to_vec();
        // The sample of the header's protection needs some.
        payload.resize(payload.len().max(4), 0);
        let mut packet = Vec::new();
        match kind {
            Kind::OneRtt => {
                packet.push(0x43);
                packet.extend(&self.theirs);
            }
            _ => {
                packet.push(if kind == Kind::Initial { 0xC3 } else { 0xE3 });
                packet.extend(1_u32.to_be_bytes());
                for id in [&self.theirs[..], &self.ours] {
                    packet.push(u8::try_from(id.len()).unwrap());
                    packet.extend(id);
                }
                if kind == Kind::Initial {
                    // No token.
                    packet.push(0);
                    let least = INITIAL_LEN - packet.len() - 4 - 4 - TAG;
                    payload.resize(payload.len().max(least), 0);
                }
                varint(&mut packet, 4 + payload.len() + TAG);
            }
        }
        let at = packet.len();
        packet.extend(number.to_be_bytes());
        let DirectionalKeys {
            header: protection,
            packet: key,
        } = &self.keys(kind).expect("keys for this packet").local;
        let tag = key
            .encrypt_in_place(number.into(), &packet, &mut payload)
            .unwrap();
        packet.extend(payload);
        packet.extend(tag.as_ref());
        let sample = packet[at + 4..][..protection.sample_len()].to_vec();
        let (first, rest) = packet.split_at_mut(1);
        protection
            .encrypt_in_place(&sample, &mut first[0], &mut rest[at - 1..at + 3])
            .unwrap();
        packet
    }

    pub(crate) async fn send(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.gateway).await.unwrap();
    }

    /// A frame with what TLS has to say, and the keys that it has made meanwhile.
    fn said_by_tls(&mut self) -> (Vec<u8>, Option<KeyChange>) {
        let mut said = Vec::new();
        let change = self.tls.write_hs(&mut said);
        let mut frame = vec![0x06];
        varint(&mut frame, 0);
        varint(&mut frame, said.len());
        frame.extend(said);
        (frame, change)
    }

    /// The first packet, as it is sent.
    pub(crate) fn first_packet(&mut self) -> Vec<u8> {
        let (hello, _) = self.said_by_tls();
        self.packet(Kind::Initial, &hello)
    }

    /// Takes one datagram apart: the kinds of its packets, and the frames of those that can be opened.
    pub(crate) fn open(&mut self, datagram: &[u8]) -> Vec<(Kind, Vec<u8>)> {
        let mut packets = Vec::new();
        let mut rest = datagram.to_vec();
        while let Some(&first) = rest.first().filter(|first| **first != 0) {
            let kind = Kind::of(first);
            if kind == Kind::Retry {
                packets.push((kind, Vec::new()));
                break;
            }
            let (at, end) = if kind == Kind::OneRtt {
                (9, rest.len())
            } else {
                let mut reader = &rest[5..];
                for id in 0..2 {
                    let len = usize::from(skip(&mut reader, 1)[0]);
                    let named = skip(&mut reader, len);
                    if id == 1 {
                        self.theirs = named.to_vec();
                    }
                }
                if kind == Kind::Initial {
                    let len = take(&mut reader);
                    skip(&mut reader, len);
                }
                let len = take(&mut reader);
                let at = rest.len() - reader.len();
                (at, at + len)
            };
            let next = rest.split_off(end);
            let frames = self.unprotect(kind, &mut rest, at);
            packets.push((kind, frames.unwrap_or_default()));
            rest = next;
        }
        packets
    }

    fn unprotect(&self, kind: Kind, packet: &mut [u8], at: usize) -> Option<Vec<u8>> {
        let DirectionalKeys {
            header: protection,
            packet: key,
        } = &self.keys(kind)?.remote;
        let sample = packet
            .get(at + 4..)?
            .get(..protection.sample_len())?
            .to_vec();
        let (first, rest) = packet.split_at_mut(1);
        let number = rest.get_mut(at - 1..at + 3)?;
        protection
            .decrypt_in_place(&sample, &mut first[0], number)
            .ok()?;
        let len = usize::from(first[0] & 3) + 1;
        let number = packet[at..at + len].iter();
        let number = number.fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        let (head, payload) = packet.split_at_mut(at + len);
        let opened = key.decrypt_in_place(number, head, payload).ok()?;
        Some(opened.to_vec())
    }

    /// Reads the next datagram.
    pub(crate) async fn receive(&self) -> Vec<u8> {
        let mut datagram = vec![0; 2_048];
        let read = timeout(PATIENCE, self.socket.recv(&mut datagram)).await;
        let len = read.expect("a datagram").unwrap();
        datagram.truncate(len);
        datagram
    }

    /// Shakes hands; frames may be sent from here on.
    pub(crate) async fn connect(&mut self) {
        let first = self.first_packet();
        self.send(&first).await;
        while self.one_rtt.is_none() {
            let datagram = self.receive().await;
            let datagram = &mut datagram.clone();
            // Each packet may bring the keys of the next.
            let mut seen = 0;
            loop {
                let packets = self.open(datagram);
                let Some((_, frames)) = packets.into_iter().nth(seen) else {
                    break;
                };
                seen += 1;
                for said in crypto(&frames) {
                    self.tls.read_hs(&said).unwrap();
                }
                while self.one_rtt.is_none() {
                    let (frame, change) = self.said_by_tls();
                    match change {
                        Some(KeyChange::Handshake { keys }) => self.handshake = Some(keys),
                        Some(KeyChange::OneRtt { keys, .. }) => {
                            let finished = self.packet(Kind::Handshake, &frame);
                            self.send(&finished).await;
                            self.one_rtt = Some(keys);
                        }
                        None => break,
                    }
                }
            }
        }
    }

    /// Sends frames on the connection.
    pub(crate) async fn say(&mut self, frames: &[u8]) {
        let packet = self.packet(Kind::OneRtt, frames);
        self.send(&packet).await;
    }

    /// The error code and the reason with which the gateway closes the connection, and whether it is the
    /// application's.
    pub(crate) async fn closed(&mut self) -> (usize, String, bool) {
        loop {
            let datagram = self.receive().await;
            for (kind, frames) in self.open(&datagram) {
                if kind == Kind::OneRtt
                    && let Some(closed) = close(&frames)
                {
                    return closed;
                }
            }
        }
    }

    /// Bytes that have come and were not read.
    pub(crate) fn waiting(&self) -> Vec<Vec<u8>> {
        let mut datagram = [0; 2_048];
        std::iter::from_fn(|| {
            let len = self.socket.try_recv(&mut datagram).ok()?;
            Some(datagram[..len].to_vec())
        })
        .collect()
    }
}

/// The address number `n` of the loopback interface, each in a /24 of its own.
pub(crate) fn source(n: u16) -> Ipv4Addr {
    let [high, low] = n.to_be_bytes();
    Ipv4Addr::new(127, 1 + high, low, 7)
}

/// A frame of a stream, with these bytes from its beginning.
pub(crate) fn stream(id: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x0A];
    varint(&mut frame, id);
    varint(&mut frame, bytes.len());
    frame.extend(bytes);
    frame
}

/// A datagram of the application.
pub(crate) fn datagram(bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x31];
    varint(&mut frame, bytes.len());
    frame.extend(bytes);
    frame
}

/// Goes over frames; `each` is given the type, and what TLS says or the close.
fn walk(frames: &[u8], mut each: impl FnMut(usize, usize, &[u8])) {
    let mut rest = frames;
    while !rest.is_empty() {
        let kind = take(&mut rest);
        match kind {
            0x00 | 0x01 | 0x1e => {}
            0x02 | 0x03 => {
                let (_, _) = (take(&mut rest), take(&mut rest));
                let ranges = take(&mut rest);
                let numbers = 1 + 2 * ranges + if kind == 3 { 3 } else { 0 };
                for _ in 0..numbers {
                    take(&mut rest);
                }
            }
            0x06 => {
                let offset = take(&mut rest);
                let len = take(&mut rest);
                each(kind, offset, skip(&mut rest, len));
            }
            0x08..=0x0f => {
                take(&mut rest);
                if kind & 4 != 0 {
                    take(&mut rest);
                }
                let len = if kind & 2 == 0 {
                    rest.len()
                } else {
                    take(&mut rest)
                };
                skip(&mut rest, len);
            }
            0x10 | 0x12 | 0x13 | 0x14 | 0x16 | 0x17 | 0x19 => {
                take(&mut rest);
            }
            0x11 | 0x15 | 0x05 => {
                let (_, _) = (take(&mut rest), take(&mut rest));
            }
            0x18 => {
                let (_, _) = (take(&mut rest), take(&mut rest));
                let len = usize::from(skip(&mut rest, 1)[0]);
                skip(&mut rest, len + 16);
            }
            0x1c | 0x1d => {
                let code = take(&mut rest);
                if kind == 0x1c {
                    take(&mut rest);
                }
                let len = take(&mut rest);
                each(kind, code, skip(&mut rest, len));
            }
            other => panic!("a frame of type {other:#x}"),
        }
    }
}

fn crypto(frames: &[u8]) -> Vec<Vec<u8>> {
    let mut said = Vec::new();
    walk(frames, |kind, _, bytes| {
        if kind == 0x06 {
            said.push(bytes.to_vec());
        }
    });
    said
}

fn close(frames: &[u8]) -> Option<(usize, String, bool)> {
    let mut closed = None;
    walk(frames, |kind, code, reason| {
        if kind == 0x1c || kind == 0x1d {
            let reason = String::from_utf8_lossy(reason).into_owned();
            closed = Some((code, reason, kind == 0x1d));
        }
    });
    closed
}
