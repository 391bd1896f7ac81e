//! Records: a length and one ciphertext (spec/protocol.md section 3).

use core::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::aead::Aead;
use super::keys::{KEY_LEN, TransportKeys};
use crate::code::CloseCode;
use crate::limits::{RECORD_HEADER, RECORDS_MAX, TAG};

/// Why a record cannot be sealed or opened. After any of them the session is
/// over: the receiver can trust nothing that follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordFault {
    /// The length is zero, or, where records are sealed, too short for a tag and one byte.
    TooShort,
    /// The length is beyond what the receiver takes, or the room for the record is too small.
    TooLong,
    /// The ciphertext does not open under the session's key at this number.
    BadRecord,
    /// The direction has used its 2^32 records.
    RecordLimit,
}

impl RecordFault {
    /// The fault's name in spec/vectors/records.json.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooShort => "too_short",
            Self::TooLong => "too_long",
            Self::BadRecord => "bad_record",
            Self::RecordLimit => "record_limit",
        }
    }

    /// What the gateway puts into Close because of this fault.
    #[must_use]
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::TooShort | Self::BadRecord => CloseCode::BAD_RECORD,
            Self::TooLong => CloseCode::OVERSIZED,
            Self::RecordLimit => CloseCode::RECORD_LIMIT,
        }
    }
}

impl fmt::Display for RecordFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooShort => "a record is shorter than any may be",
            Self::TooLong => "a record is longer than its receiver takes",
            Self::BadRecord => "a record was changed on the way, or is out of order",
            Self::RecordLimit => "the session has sent all the records that its keys allow",
        })
    }
}

impl core::error::Error for RecordFault {}

/// Checks a record's header against the shortest ([`Records::least`]) and `max`, the longest
/// ciphertext that the receiver takes, in bytes. Returns the length of the ciphertext that follows.
///
/// # Errors
/// [`RecordFault::TooShort`] below `least`, [`RecordFault::TooLong`] above `max`.
pub const fn record_len(
    header: [u8; RECORD_HEADER],
    least: usize,
    max: usize,
) -> Result<usize, RecordFault> {
    // Lossless: usize has at least 16 bits on every target.
    let len = u16::from_be_bytes(header) as usize;
    if len < least {
        Err(RecordFault::TooShort)
    } else if len > max {
        Err(RecordFault::TooLong)
    } else {
        Ok(len)
    }
}

/// Everything that an idle session keeps of its link: two keys and two counters.
pub struct Records {
    send: [u8; KEY_LEN],
    receive: [u8; KEY_LEN],
    sent: u64,
    received: u64,
    /// The transport protects them: they go as they are, without a tag.
    #[cfg(feature = "quic")]
    plain: bool,
}

// The gateway's memory per idle session rests on this (spec/limits.md).
const _: () = assert!(size_of::<Records>() <= 88);

impl Records {
    /// The records of a session whose handshake gave `keys`.
    #[must_use]
    pub fn new(keys: &TransportKeys) -> Self {
        Self {
            send: keys.send,
            receive: keys.receive,
            sent: 0,
            received: 0,
            #[cfg(feature = "quic")]
            plain: false,
        }
    }

    /// The records of a session on a transport that protects them itself, as QUIC does: plaintext
    /// stands where ciphertext would, without a tag (spec/protocol.md section 3.5).
    #[cfg(feature = "quic")]
    #[must_use]
    pub const fn plain() -> Self {
        Self {
            send: [0; KEY_LEN],
            receive: [0; KEY_LEN],
            sent: 0,
            received: 0,
            plain: true,
        }
    }

    /// Bytes of each ciphertext that are not plaintext: the tag, or none.
    #[must_use]
    pub const fn overhead(&self) -> usize {
        #[cfg(feature = "quic")]
        if self.plain {
            return 0;
        }
        TAG
    }

    /// The least length of a ciphertext: one byte of plaintext, and [`Self::overhead`].
    #[must_use]
    pub const fn least(&self) -> usize {
        self.overhead() + 1
    }

    /// Seals one record in place. `buf` holds 2 bytes of room for the length,
    /// then `plaintext_len` bytes of plaintext, then [`Self::overhead`] bytes of room for the
    /// tag; more may follow and is not touched, so that records can be sealed
    /// one after another into one buffer and go out in one write. Returns the
    /// record's length on the wire, `2 + plaintext_len + overhead`.
    ///
    /// # Errors
    /// [`RecordFault::TooShort`] for an empty plaintext, [`RecordFault::TooLong`]
    /// when the record does not fit into `buf` or a 16-bit length,
    /// [`RecordFault::RecordLimit`] when this direction is used up. None of them
    /// uses a record number.
    pub fn seal(
        &mut self,
        aead: &mut impl Aead,
        plaintext_len: usize,
        buf: &mut [u8],
    ) -> Result<usize, RecordFault> {
        if plaintext_len == 0 {
            return Err(RecordFault::TooShort);
        }
        if self.sent >= RECORDS_MAX {
            return Err(RecordFault::RecordLimit);
        }
        let len = plaintext_len
            .checked_add(self.overhead())
            .ok_or(RecordFault::TooLong)?;
        let header = u16::try_from(len).map_err(|_| RecordFault::TooLong)?;
        let (head, rest) = buf
            .split_first_chunk_mut::<RECORD_HEADER>()
            .ok_or(RecordFault::TooLong)?;
        let in_out = rest.get_mut(..len).ok_or(RecordFault::TooLong)?;
        *head = header.to_be_bytes();
        if self.overhead() > 0 {
            aead.seal(&self.send, self.sent, in_out);
        }
        self.sent += 1;
        Ok(RECORD_HEADER + len)
    }

    /// Opens one record in place: `ciphertext` is what follows the length, whole.
    /// Returns the plaintext, a part of `ciphertext`.
    ///
    /// # Errors
    /// [`RecordFault::TooShort`], [`RecordFault::BadRecord`],
    /// [`RecordFault::RecordLimit`]. `ciphertext` is then unusable.
    pub fn open<'a>(
        &mut self,
        aead: &mut impl Aead,
        ciphertext: &'a mut [u8],
    ) -> Result<&'a mut [u8], RecordFault> {
        if ciphertext.len() < self.least() {
            return Err(RecordFault::TooShort);
        }
        if self.received >= RECORDS_MAX {
            return Err(RecordFault::RecordLimit);
        }
        if self.overhead() > 0 && !aead.open(&self.receive, self.received, ciphertext) {
            return Err(RecordFault::BadRecord);
        }
        self.received += 1;
        let plaintext_len = ciphertext.len() - self.overhead();
        Ok(&mut ciphertext[..plaintext_len])
    }

    /// Records sealed so far.
    #[must_use]
    pub const fn sent(&self) -> u64 {
        self.sent
    }

    /// Records opened so far.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Records that are left in the direction that has fewer. A session is
    /// closed (`record_limit`) while enough are left for what is under way.
    #[must_use]
    pub const fn remaining(&self) -> u64 {
        let used = if self.sent > self.received {
            self.sent
        } else {
            self.received
        };
        RECORDS_MAX.saturating_sub(used)
    }

    /// Moves both counters, to test what happens near the limit.
    #[doc(hidden)]
    pub const fn set_counters_for_test(&mut self, sent: u64, received: u64) {
        self.sent = sent;
        self.received = received;
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        self.send.zeroize();
        self.receive.zeroize();
    }
}

impl ZeroizeOnDrop for Records {}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Records(sent {}, received {}, keys not shown)",
            self.sent, self.received
        )
    }
}
