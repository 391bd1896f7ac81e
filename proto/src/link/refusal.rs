//! The gateway's first byte, and the refusal that may follow it
//! (spec/protocol.md sections 1.1.3 and 1.1.4).

use super::preamble::{MESSAGE_2_LEN, VERSION};
use crate::code;

/// First byte of an answer that goes on with the second handshake message.
pub const ACCEPTED: u8 = 0xD2;
/// First byte of an answer that is a refusal.
pub const REFUSED: u8 = 0xD3;
/// Bytes of an answer that begins with [`ACCEPTED`]; no answer is longer.
pub const ACCEPTED_LEN: usize = 1 + MESSAGE_2_LEN;
/// Bytes of an answer that begins with [`REFUSED`].
pub const REFUSED_LEN: usize = 5;

/// A refusal before the handshake. Nobody vouches for it: a board takes it as a
/// hint to wait longer, and changes nothing else because of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Why.
    pub code: code::Refusal,
    /// The highest protocol version that the gateway speaks.
    pub highest_version: u8,
    /// The board should not dial again for so many seconds.
    pub retry_after_s: u16,
}

impl Refusal {
    /// A refusal by a gateway of this version.
    #[must_use]
    pub const fn new(code: code::Refusal, retry_after_s: u16) -> Self {
        Self {
            code,
            highest_version: VERSION,
            retry_after_s,
        }
    }

    /// The whole answer on the wire, [`REFUSED`] included.
    #[must_use]
    pub const fn encode(&self) -> [u8; REFUSED_LEN] {
        let [high, low] = self.retry_after_s.to_be_bytes();
        [REFUSED, self.code.0, self.highest_version, high, low]
    }

    /// Reads a whole answer, [`REFUSED`] included; `None` where it is not a refusal.
    #[must_use]
    pub const fn decode(answer: &[u8; REFUSED_LEN]) -> Option<Self> {
        let [REFUSED, code, highest_version, high, low] = *answer else {
            return None;
        };
        Some(Self {
            code: code::Refusal(code),
            highest_version,
            retry_after_s: u16::from_be_bytes([high, low]),
        })
    }
}

/// How many more bytes of the gateway's answer must be read, given the bytes
/// that have come. 0: the answer is whole, or its first byte already makes it
/// malformed.
#[must_use]
pub const fn reply_missing(answer: &[u8]) -> usize {
    reply_missing_of(answer, ACCEPTED_LEN)
}

/// [`reply_missing`] where an answer that begins with [`ACCEPTED`] has this length.
#[must_use]
pub const fn reply_missing_of(answer: &[u8], accepted_len: usize) -> usize {
    let whole = match answer {
        [] => 1,
        [ACCEPTED, ..] => accepted_len,
        [REFUSED, ..] => REFUSED_LEN,
        _ => 0,
    };
    whole.saturating_sub(answer.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_comes_back_as_it_went_even_with_an_unknown_code() {
        let refusal = Refusal {
            code: code::Refusal(200),
            highest_version: 7,
            retry_after_s: 0x0102,
        };
        assert_eq!(refusal.encode(), [0xD3, 200, 7, 1, 2]);
        assert_eq!(Refusal::decode(&refusal.encode()), Some(refusal));
        assert_eq!(Refusal::decode(&[0xD2, 1, 1, 0, 0]), None);
    }

    #[test]
    fn the_reader_is_told_how_much_is_missing() {
        assert_eq!(reply_missing(&[]), 1);
        assert_eq!(reply_missing(&[ACCEPTED]), 48);
        assert_eq!(reply_missing(&[REFUSED, 1]), 3);
        assert_eq!(reply_missing(&[REFUSED, 1, 1, 0, 0]), 0);
        assert_eq!(reply_missing(&[0x15]), 0);
    }
}
