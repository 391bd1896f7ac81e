//! The board's half of the handshake (spec/protocol.md sections 1 and 2).

use core::fmt;

use dialhome_proto::link::{
    ACCEPTED, ACCEPTED_LEN, DeviceKey, FIRST_FLIGHT_LEN, MESSAGE_1_LEN, MESSAGE_2_LEN, Preamble,
    REFUSED_LEN, Refusal, TransportKeys, reply_missing,
};
use zeroize::Zeroize as _;

use super::noise::Handshake;

/// A handshake that waits for the gateway's answer.
pub struct Initiator {
    noise: Handshake,
}

impl Initiator {
    /// Begins a handshake: `out` becomes the preamble and the first message, to
    /// be sent in one write. Costs one X25519.
    ///
    /// `ephemeral` is the private half of this handshake's own key: 32 bytes
    /// from the board's random source, never used before and never stored.
    #[must_use]
    pub fn start(
        key: &DeviceKey,
        mut ephemeral: [u8; 32],
        out: &mut [u8; FIRST_FLIGHT_LEN],
    ) -> Self {
        let preamble = Preamble::new(key.handle()).encode();
        let mut message = [0; MESSAGE_1_LEN];
        let noise = Handshake::start(preamble, &key.noise_psk(), ephemeral, &mut message);
        ephemeral.zeroize();
        // Lossless: the first flight is the preamble and message 1.
        for (to, from) in out.iter_mut().zip(preamble.iter().chain(&message)) {
            *to = *from;
        }
        Self { noise }
    }

    /// How many more bytes of the answer must be read before
    /// [`finish`](Self::finish), given those that have come. 0: no more.
    #[must_use]
    pub const fn needed(answer: &[u8]) -> usize {
        reply_missing(answer)
    }

    /// Takes the gateway's whole answer. Costs one X25519 unless it is a refusal.
    ///
    /// # Errors
    /// [`HandshakeFault`] says which of the three bad ends it was; none of them
    /// may change anything on the board except how long it waits.
    pub fn finish(self, answer: &[u8]) -> Result<TransportKeys, HandshakeFault> {
        if let Ok(refusal) = <&[u8; REFUSED_LEN]>::try_from(answer)
            && let Some(refusal) = Refusal::decode(refusal)
        {
            return Err(HandshakeFault::Refused(refusal));
        }
        let answer: &[u8; ACCEPTED_LEN] =
            answer.try_into().map_err(|_| HandshakeFault::Malformed)?;
        let [ACCEPTED, message @ ..] = answer else {
            return Err(HandshakeFault::Malformed);
        };
        let message: &[u8; MESSAGE_2_LEN] = message;
        self.noise.finish(message).ok_or(HandshakeFault::BadTag)
    }
}

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Initiator(waits for the gateway's answer)")
    }
}

/// Why a handshake gave no session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandshakeFault {
    /// The gateway, or somebody in its place, refused. A hint, not a fact.
    Refused(Refusal),
    /// The answer was not made with this board's key: another gateway, or a changed answer.
    BadTag,
    /// The answer is neither an acceptance nor a refusal, or not whole.
    Malformed,
}

impl fmt::Display for HandshakeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => write!(
                f,
                "the gateway refused the handshake ({}); try again in {} s",
                refusal.code, refusal.retry_after_s
            ),
            Self::BadTag => f.write_str("the gateway's answer was not made with this board's key"),
            Self::Malformed => f.write_str("what answered is not a Dialhome gateway"),
        }
    }
}

impl core::error::Error for HandshakeFault {}
