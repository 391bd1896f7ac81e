//! The other end, in the same memory: it shakes hands, offers one image, and answers what
//! the board says until the outcome is settled. No part of what is measured.

use chacha20poly1305::{AeadInOut as _, ChaCha20Poly1305, KeyInit as _};
use dialhome_device::crypto::SoftAead;
use dialhome_proto::code::Statement;
use dialhome_proto::crc::crc32;
use dialhome_proto::frame::{
    ACK_NOW, Activate, Chunk, Confirm, DeviceFrame, GatewayFrame, Offer, Settled, Welcome,
};
use dialhome_proto::hash::{Hkdf, sha256};
use dialhome_proto::id::UpdateId;
use dialhome_proto::link::{
    ACCEPTED, DeviceKey, FIRST_FLIGHT_LEN, NOISE_NAME, PREAMBLE_LEN, Records, TransportKeys,
};
use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};

use crate::parts::Wire;

const MANIFEST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/manifest"));
const UPDATE: UpdateId = UpdateId([3; 8]);
const IMAGE_LEN: u32 = 8192;
const CHUNK_LEN: u32 = 1024;

pub(crate) struct Gateway<'k> {
    key: &'k DeviceKey,
    records: Option<Records>,
    is_settled: bool,
}

impl<'k> Gateway<'k> {
    pub(crate) const fn new(key: &'k DeviceKey) -> Self {
        Self {
            key,
            records: None,
            is_settled: false,
        }
    }

    pub(crate) const fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// Answers everything that has come.
    pub(crate) fn serve(&mut self, wire: &mut Wire) {
        if !wire.is_open {
            self.records = None;
            return;
        }
        if self.records.is_none() && wire.to_gateway.len() >= FIRST_FLIGHT_LEN {
            self.shake(wire);
        }
        while let Some(records) = &mut self.records {
            let Some(len) = wire
                .to_gateway
                .first_chunk()
                .map(|head| u16::from_be_bytes(*head))
            else {
                return;
            };
            let end = 2 + usize::from(len);
            let Some(ciphertext) = wire.to_gateway.get_mut(2..end) else {
                return;
            };
            let Ok(plaintext) = records.open(&mut SoftAead, ciphertext) else {
                return;
            };
            let mut answer = Answer {
                records,
                to_board: &mut wire.to_board,
            };
            match DeviceFrame::decode(plaintext) {
                Ok(DeviceFrame::Hello(hello)) => {
                    answer.send(
                        &Welcome {
                            time_s: 0,
                            ping_s: 0,
                        }
                        .into(),
                    );
                    let on_trial = hello.components.iter().any(|of| of.trial.is_some());
                    if on_trial {
                        answer.send(&Confirm { update: UPDATE }.into());
                    } else {
                        answer.send(&offer());
                    }
                }
                Ok(DeviceFrame::Ack(ack)) if ack.committed < IMAGE_LEN => {
                    answer.chunk(ack.committed)
                }
                Ok(DeviceFrame::Report(report)) if report.sequence != 0 => {
                    let sequence = report.sequence;
                    self.is_settled = report.state == Statement::CONFIRMED;
                    answer.send(&Settled { sequence }.into());
                }
                Ok(DeviceFrame::Report(report)) if report.state == Statement::STAGED => {
                    answer.send(&Activate { update: UPDATE }.into());
                }
                _ => {}
            }
            wire.to_gateway.rotate_left(end);
            wire.to_gateway.truncate(wire.to_gateway.len() - end);
        }
    }

    /// The responder's half of NNpsk0.
    fn shake(&mut self, wire: &mut Wire) {
        let Some(flight) = wire.to_gateway.first_chunk::<FIRST_FLIGHT_LEN>().copied() else {
            return;
        };
        wire.to_gateway.clear();
        let (preamble, message) = flight.split_at(PREAMBLE_LEN);
        let Some((theirs, tag)) = message.split_first_chunk::<32>() else {
            return;
        };
        let ephemeral = [0x77; 32];
        let ours = x25519(ephemeral, X25519_BASEPOINT_BYTES);
        let mut noise = Noise::new();
        noise.mix_hash(preamble);
        let temporary = noise.mix_key(&*self.key.noise_psk()).0;
        noise.mix_hash(&temporary);
        noise.mix_hash(theirs);
        noise.mix_key(theirs);
        noise.mix_hash(tag);
        noise.mix_hash(&ours);
        noise.mix_key(&ours);
        let key = noise.mix_key(&x25519(ephemeral, *theirs)).0;
        let cipher = ChaCha20Poly1305::new(&key.into());
        let Ok(tag) =
            cipher.encrypt_inout_detached(&[0; 12].into(), &noise.hash, (&mut [][..]).into())
        else {
            return;
        };
        let (to_gateway, to_board) = noise.split();
        self.records = Some(Records::new(&TransportKeys {
            send: to_board,
            receive: to_gateway,
        }));
        wire.to_board.clear();
        // Lossless: the answer is shorter than the buffer.
        let _ = wire.to_board.push(ACCEPTED);
        let _ = wire.to_board.extend_from_slice(&ours);
        let _ = wire.to_board.extend_from_slice(&tag);
    }
}

fn offer() -> GatewayFrame<'static> {
    Offer {
        update: UPDATE,
        group: 0,
        order: 0,
        component: 0,
        flags: 0,
        encoding: 0,
        base: None,
        payload_size: IMAGE_LEN,
        manifest: MANIFEST,
    }
    .into()
}

struct Noise {
    chaining: [u8; 32],
    hash: [u8; 32],
}

impl Noise {
    fn new() -> Self {
        let name = sha256(&[NOISE_NAME.as_bytes()]);
        Self {
            chaining: name,
            hash: name,
        }
    }

    fn mix_hash(&mut self, data: &[u8]) {
        self.hash = sha256(&[&self.hash, data]);
    }

    /// The outputs after the chaining key.
    fn mix_key(&mut self, input: &[u8]) -> ([u8; 32], [u8; 32]) {
        let (chaining, second) = self.derive(input);
        self.chaining = chaining;
        (second, chaining)
    }

    fn split(&self) -> ([u8; 32], [u8; 32]) {
        self.derive(&[])
    }

    fn derive(&self, input: &[u8]) -> ([u8; 32], [u8; 32]) {
        let out: [u8; 64] = Hkdf::extract(&self.chaining, &[input]).expand(&[]);
        let halves = out.as_chunks::<32>().0;
        (
            halves.first().copied().unwrap_or_default(),
            halves.last().copied().unwrap_or_default(),
        )
    }
}

struct Answer<'a> {
    records: &'a mut Records,
    to_board: &'a mut heapless::Vec<u8, 2048>,
}

impl Answer<'_> {
    fn send(&mut self, frame: &GatewayFrame<'_>) {
        let mut buffer = [0; 1090];
        let (_, room) = buffer.split_at_mut(2);
        let Ok(len) = frame.encode(room) else { return };
        if let Ok(len) = self.records.seal(&mut SoftAead, len, &mut buffer) {
            let _ = self
                .to_board
                .extend_from_slice(buffer.get(..len).unwrap_or(&[]));
        }
    }

    fn chunk(&mut self, offset: u32) {
        let mut bytes = [0; CHUNK_LEN as usize];
        for (byte, at) in bytes.iter_mut().zip(offset..) {
            *byte = (at % 251).to_le_bytes()[0];
        }
        self.send(
            &Chunk {
                offset,
                crc: crc32(&bytes),
                flags: ACK_NOW,
                bytes: &bytes,
            }
            .into(),
        );
    }
}
