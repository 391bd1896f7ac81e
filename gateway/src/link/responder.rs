//! The gateway's half of the handshake (spec/protocol.md sections 1 and 2).

use std::fmt;
use std::sync::LazyLock;

use aws_lc_rs::rand;
use dialhome_proto::code;
use dialhome_proto::id::Handle;
use dialhome_proto::link::{
    ACCEPTED, ACCEPTED_LEN, DeviceKey, KEY_LEN, MESSAGE_1_LEN, NOISE_NAME, Preamble, TransportKeys,
};
use snow::params::NoiseParams;
use snow::{Builder, HandshakeState};

use super::replays::{HANDLES_REMEMBERED_MIN, Replays};
use super::resolver::LcResolver;

static PARAMS: LazyLock<NoiseParams> = LazyLock::new(|| {
    NOISE_NAME
        .parse()
        .expect("the name of suite 1 is one that snow knows")
});

/// Answers handshakes. One for the whole gateway: it holds what must be
/// remembered from one handshake to the next.
#[derive(Debug)]
pub struct Responder {
    replays: Replays,
}

impl Default for Responder {
    fn default() -> Self {
        Self::new(Replays::new(HANDLES_REMEMBERED_MIN))
    }
}

impl Responder {
    /// A responder with this memory of first messages.
    #[must_use]
    pub const fn new(replays: Replays) -> Self {
        Self { replays }
    }

    /// Checks a board's first message, without any X25519: symmetric work of some 4
    /// microseconds, so that a stranger's flood is cheap to refuse.
    ///
    /// `key` is the device key whose handle the preamble names, `None` where no
    /// device has it: the same work is then done with a random key, so that the
    /// time of the refusal does not say which handles exist.
    ///
    /// # Errors
    /// [`Rejected::WrongKey`] and [`Rejected::Replayed`]. The peer is told the
    /// same of either ([`Rejected::code`]).
    pub fn check(
        &self,
        preamble: &Preamble,
        message_1: &[u8; MESSAGE_1_LEN],
        key: Option<&DeviceKey>,
    ) -> Result<Checked, Rejected> {
        self.check_with(preamble, message_1, key, None)
    }

    fn check_with(
        &self,
        preamble: &Preamble,
        message_1: &[u8; MESSAGE_1_LEN],
        key: Option<&DeviceKey>,
        fixed_ephemeral: Option<&[u8; KEY_LEN]>,
    ) -> Result<Checked, Rejected> {
        let psk = match key {
            Some(key) => key.noise_psk(),
            None => {
                let mut nobodys = [0; KEY_LEN];
                rand::fill(&mut nobodys).map_err(|_| Rejected::Internal)?;
                DeviceKey::new(nobodys).noise_psk()
            }
        };
        let prologue = preamble.encode();
        let mut builder = Builder::with_resolver(PARAMS.clone(), Box::new(LcResolver))
            .prologue(&prologue)
            .and_then(|builder| builder.psk(0, &psk))
            .map_err(|_| Rejected::Internal)?;
        if let Some(ephemeral) = fixed_ephemeral {
            builder = builder.fixed_ephemeral_key_for_testing_only(ephemeral);
        }
        let mut noise = builder.build_responder().map_err(|_| Rejected::Internal)?;
        noise
            .read_message(message_1, &mut [])
            .map_err(|_| Rejected::WrongKey)?;
        let (ephemeral, _) = message_1
            .split_first_chunk::<KEY_LEN>()
            .ok_or(Rejected::Internal)?;
        if key.is_none() {
            // Cannot be: it would take a forged tag. It must not depend on luck.
            return Err(Rejected::WrongKey);
        }
        if !self.replays.admit(preamble.handle, ephemeral) {
            return Err(Rejected::Replayed);
        }
        Ok(Checked {
            noise,
            handle: preamble.handle,
        })
    }

    /// [`check`](Self::check) with an ephemeral key that a test vector fixes.
    #[cfg(test)]
    pub(super) fn check_with_ephemeral(
        &self,
        preamble: &Preamble,
        message_1: &[u8; MESSAGE_1_LEN],
        key: &DeviceKey,
        ephemeral: &[u8; KEY_LEN],
    ) -> Result<Checked, Rejected> {
        self.check_with(preamble, message_1, Some(key), Some(ephemeral))
    }
}

/// A first message that was made with the board's key and not seen before. It
/// proves nothing yet about who sent it now: only the session's first record does.
pub struct Checked {
    noise: HandshakeState,
    handle: Handle,
}

impl Checked {
    /// Which key the message was made with.
    #[must_use]
    pub const fn handle(&self) -> Handle {
        self.handle
    }

    /// Makes the answer and the session's keys. Costs two X25519, some 0.06 ms
    /// of one core.
    ///
    /// # Errors
    /// [`Rejected::WeakEphemeral`], or [`Rejected::Internal`] where the system
    /// has no randomness to give.
    pub fn reply(mut self) -> Result<Accepted, Rejected> {
        let mut answer = [ACCEPTED; ACCEPTED_LEN];
        self.noise
            .write_message(&[], &mut answer[1..])
            .map_err(|fault| match fault {
                snow::Error::Dh => Rejected::WeakEphemeral,
                _ => Rejected::Internal,
            })?;
        let (receive, send) = self.noise.dangerously_get_raw_split();
        Ok(Accepted {
            answer,
            keys: TransportKeys { send, receive },
        })
    }
}

impl fmt::Debug for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checked(handle {}, keys not shown)", self.handle)
    }
}

/// A handshake that is complete on the gateway's side.
#[derive(Debug)]
pub struct Accepted {
    /// To be sent to the board as it is: the byte D2 and the second message.
    pub answer: [u8; ACCEPTED_LEN],
    /// The session's keys.
    pub keys: TransportKeys,
}

/// Why a handshake is refused. For the log and the metrics; the peer is told the
/// code and nothing more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rejected {
    /// No device has this handle, or the message was not made with its key.
    WrongKey,
    /// The message was seen before: a recording, sent again.
    Replayed,
    /// The board's ephemeral key has small order: its random source is broken.
    WeakEphemeral,
    /// The gateway itself could not: no randomness, or no memory.
    Internal,
}

impl Rejected {
    /// The code of the refusal that the peer gets. It does not tell a wrong key
    /// from an unknown handle or a replay.
    #[must_use]
    pub const fn code(self) -> code::Refusal {
        match self {
            Self::WrongKey | Self::Replayed | Self::WeakEphemeral => code::Refusal::REFUSED,
            Self::Internal => code::Refusal::BUSY,
        }
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WrongKey => {
                "no device has this key; if the board is yours, compare the handle with \
                 `dialhome device list` and provision it again"
            }
            Self::Replayed => "a first message that was seen before was sent again",
            Self::WeakEphemeral => {
                "the board's ephemeral key is of small order; its random source is broken"
            }
            Self::Internal => "the system gave no randomness or no memory for a handshake",
        })
    }
}

impl std::error::Error for Rejected {}
