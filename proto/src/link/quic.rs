//! What the protocol adds to a QUIC connection: its names, the proofs of the device key, and
//! the codes with which it is closed (spec/protocol.md sections 1.2 and 2.7).

use core::fmt;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::keys::DeviceKey;
use super::preamble::PREAMBLE_LEN;
use crate::code::{CloseCode, Refusal};

/// The application protocol that both sides name in the TLS handshake.
pub const ALPN: &[u8] = b"dialhome/1";
/// Label of the TLS exporter whose 32 bytes the proofs are about; its context is the key's handle.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-dialhome-1";
/// Bytes that are taken from the exporter.
pub const EXPORTER_LEN: usize = 32;
/// The suite in a preamble that a proof follows.
pub const SUITE_QUIC_PROOF: u8 = 3;
/// Bytes of a proof.
pub const PROOF_LEN: usize = 32;
/// Bytes of what the board writes first on the stream: preamble and proof.
pub const PROOF_FLIGHT_LEN: usize = PREAMBLE_LEN + PROOF_LEN;
/// Bytes of an answer that begins with `ACCEPTED`.
pub const PROVEN_LEN: usize = 1 + PROOF_LEN;

/// Application error code of a connection whose session ended in words: after Bye, after Close,
/// or after a refusal was said.
pub const DONE: u32 = 0;
/// Application error code where no first flight came in time, or what came was none.
pub const NO_HANDSHAKE: u32 = 0x110;

/// The application error code of a session that ends so.
#[must_use]
pub const fn closed(code: CloseCode) -> u32 {
    code.0 as u32
}

/// The application error code of a connection that is refused before its stream was read.
#[must_use]
pub const fn refused(code: Refusal) -> u32 {
    0x100 + code.0 as u32
}

/// What each side says to prove that it has the device key, on one connection only: the
/// exporter's bytes are another connection's never.
pub struct Proofs {
    board: [u8; PROOF_LEN],
    gateway: [u8; PROOF_LEN],
}

impl Proofs {
    /// The proofs with this key over what the connection's exporter gave.
    #[must_use]
    pub fn new(key: &DeviceKey, exporter: &[u8; EXPORTER_LEN]) -> Self {
        // HMAC fills a short key up to a block of the hash with zeros (RFC 2104).
        let mut block = Zeroizing::new([0; 64]);
        if let Some(start) = block.first_chunk_mut() {
            *start = *key.quic_proof();
        }
        let proof = |label: &[u8]| {
            let mut mac = Hmac::<Sha256>::new((&*block).into());
            mac.update(label);
            mac.update(exporter);
            mac.finalize().into_bytes().into()
        };
        Self {
            board: proof(b"board"),
            gateway: proof(b"gateway"),
        }
    }

    /// The board's.
    #[must_use]
    pub const fn board(&self) -> &[u8; PROOF_LEN] {
        &self.board
    }

    /// The gateway's.
    #[must_use]
    pub const fn gateway(&self) -> &[u8; PROOF_LEN] {
        &self.gateway
    }

    /// Whether this is the board's proof; the time that it takes does not say where it differs.
    #[must_use]
    pub fn is_board(&self, said: &[u8; PROOF_LEN]) -> bool {
        self.board.ct_eq(said).into()
    }

    /// Whether this is the gateway's proof; the time that it takes does not say where it differs.
    #[must_use]
    pub fn is_gateway(&self, said: &[u8; PROOF_LEN]) -> bool {
        self.gateway.ct_eq(said).into()
    }
}

impl Drop for Proofs {
    fn drop(&mut self) {
        self.board.zeroize();
        self.gateway.zeroize();
    }
}

impl ZeroizeOnDrop for Proofs {}

impl fmt::Debug for Proofs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proofs(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_of_one_key_one_connection_and_one_side() {
        let key = DeviceKey::new([7; 32]);
        let proofs = Proofs::new(&key, &[9; 32]);
        assert!(proofs.is_board(proofs.board()) && proofs.is_gateway(proofs.gateway()));
        assert!(!proofs.is_board(proofs.gateway()) && !proofs.is_gateway(proofs.board()));
        let elsewhere = Proofs::new(&key, &[8; 32]);
        assert!(!elsewhere.is_board(proofs.board()));
        let other = Proofs::new(&DeviceKey::new([6; 32]), &[9; 32]);
        assert!(!other.is_board(proofs.board()));
        let mut nearly = *proofs.board();
        nearly[31] ^= 1;
        assert!(!proofs.is_board(&nearly));
    }
}
