//! The provisioning record: what a board is given, for boards that read no TOML
//! (spec/protocol.md section 11.2).
//!
//! [`Record::parse`] borrows from the bytes, which may be flash itself; nothing is allocated.

use core::fmt;

use heapless::Vec;

use crate::crc::crc32;
use crate::id::is_name;
use crate::limits::{GATEWAY_MAX, GATEWAYS_MAX, NAME_MAX, PINS_MAX, TRUST_SET_LEN};
use crate::statement::is_endpoint;
use crate::trust::{TrustFault, TrustSet};
use crate::wire::{Reader, Texts, TextsFault, Writer};

/// The bytes that every provisioning record begins with.
pub const MAGIC: &[u8; 4] = b"DHPR";
/// The one version of the record.
pub const VERSION: u8 = 1;
/// Bytes before the body: magic, version, length.
const HEAD: usize = MAGIC.len() + 1 + 2;
/// Longest body: two names, key, seed, gateways, pins, TrustSet, each with its length or count. Bytes.
pub const BODY_MAX: usize = 2 * (1 + NAME_MAX)
    + 2 * 32
    + (1 + GATEWAYS_MAX * (2 + GATEWAY_MAX))
    + (1 + PINS_MAX * 32)
    + (2 + TRUST_SET_LEN);
/// Longest record, in bytes: what is before the body, the body, the CRC.
pub const RECORD_MAX: usize = HEAD + BODY_MAX + 4;

/// What a board was provisioned with. Key and seed are secret; whoever copies them out wipes the copy.
#[derive(Clone, PartialEq, Eq)]
pub struct Record<'a> {
    /// The device's id.
    pub device: &'a str,
    /// The product.
    pub product: &'a str,
    /// The device key (spec/protocol.md section 2.1).
    pub key: &'a [u8; 32],
    /// Random bytes of this record alone (spec/security.md section 7).
    pub seed: &'a [u8; 32],
    /// The provisioned list, HOST:PORT each: 1..=4.
    pub gateways: Vec<&'a str, GATEWAYS_MAX>,
    /// SHA-256 of gateway keys, for suites that use them: at most 4.
    pub pins: &'a [[u8; 32]],
    /// Whom images are trusted from; without it the board refuses every update.
    pub trust: Option<TrustSet>,
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("device", &self.device)
            .field("product", &self.product)
            .finish_non_exhaustive()
    }
}

impl<'a> Record<'a> {
    /// Reads the record at the front of `bytes`; what follows it, as the rest of a flash page, is not looked at.
    ///
    /// # Errors
    /// The first [`RecordFault`] found.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RecordFault> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(RecordFault::NoRecord)?;
        let (&version, rest) = rest.split_first().ok_or(RecordFault::CutShort)?;
        if version != VERSION {
            return Err(RecordFault::Version);
        }
        let (len, rest) = rest.split_first_chunk::<2>().ok_or(RecordFault::CutShort)?;
        let len = usize::from(u16::from_be_bytes(*len));
        if len > BODY_MAX {
            return Err(RecordFault::Length);
        }
        let (body, rest) = rest.split_at_checked(len).ok_or(RecordFault::CutShort)?;
        let crc = rest.first_chunk().ok_or(RecordFault::CutShort)?;
        let covered = bytes.get(..HEAD + len).ok_or(RecordFault::CutShort)?;
        if crc32(covered) != *crc {
            return Err(RecordFault::Crc);
        }
        Self::parse_body(body)
    }

    fn parse_body(body: &'a [u8]) -> Result<Self, RecordFault> {
        let mut reader = Reader::new(body);
        let device = reader.take().ok_or(RecordFault::Malformed)?;
        if !is_name(device) {
            return Err(RecordFault::Device);
        }
        let product = reader.take().ok_or(RecordFault::Malformed)?;
        if !is_name(product) {
            return Err(RecordFault::Product);
        }
        let key = reader.array().ok_or(RecordFault::Malformed)?;
        let seed = reader.array().ok_or(RecordFault::Malformed)?;
        let gateways: Vec<_, GATEWAYS_MAX> =
            Texts::parse(&mut reader, GATEWAYS_MAX, is_endpoint)?.collect();
        if gateways.is_empty() {
            return Err(RecordFault::Gateways);
        }
        let pins = reader.count(PINS_MAX).ok_or(RecordFault::Pins)?;
        let pins = reader.arrays(pins).ok_or(RecordFault::Malformed)?;
        let trust: &[u8] = reader.take().ok_or(RecordFault::Malformed)?;
        let trust = match trust {
            [] => None,
            set => Some(TrustSet::decode(set).map_err(RecordFault::Trust)?),
        };
        if !reader.is_empty() {
            return Err(RecordFault::Malformed);
        }
        Ok(Self {
            device,
            product,
            key,
            seed,
            gateways,
            pins,
            trust,
        })
    }

    /// Writes the record to `out` and returns its length, at most [`RECORD_MAX`] bytes.
    ///
    /// # Errors
    /// The [`RecordFault`] with which a board would refuse it; [`RecordFault::Length`] also where `out` is too
    /// short.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, RecordFault> {
        let len = self.write(out)?.ok_or(RecordFault::Length)?;
        out.get(..len)
            .ok_or(RecordFault::Length)
            .and_then(Record::parse)?;
        Ok(len)
    }

    fn write(&self, out: &mut [u8]) -> Result<Option<usize>, RecordFault> {
        let mut set = [0; TRUST_SET_LEN];
        let trust = match &self.trust {
            Some(trust) => trust.encode(&mut set).map_err(RecordFault::Trust)?,
            None => 0,
        };
        Ok(set.get(..trust).and_then(|trust| self.put(trust, out)))
    }

    fn put(&self, trust: &[u8], out: &mut [u8]) -> Option<usize> {
        let mut body = Writer::new(out.get_mut(HEAD..)?);
        body.put(&self.device)?;
        body.put(&self.product)?;
        body.bytes(self.key)?;
        body.bytes(self.seed)?;
        body.count(self.gateways.len())?;
        for gateway in &self.gateways {
            body.put(gateway)?;
        }
        body.count(self.pins.len())?;
        for pin in self.pins {
            body.bytes(pin)?;
        }
        body.count(trust.len())?;
        body.bytes(trust)?;
        let len = body.len();
        let mut head = Writer::new(out);
        head.bytes(MAGIC)?;
        head.bytes(&[VERSION])?;
        head.bytes(&u16::try_from(len).ok()?.to_be_bytes())?;
        let crc = crc32(out.get(..HEAD + len)?);
        Writer::new(out.get_mut(HEAD + len..)?).bytes(&crc)?;
        Some(HEAD + len + crc.len())
    }
}

/// Which part of a provisioning record is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordFault {
    /// The bytes do not begin with [`MAGIC`]: nothing was written here, or something else.
    NoRecord,
    /// A version that this program does not know.
    Version,
    /// The body is said to be longer than any can be; in [`Record::encode`] also: `out` is too short.
    Length,
    /// The bytes end before the record does.
    CutShort,
    /// The checksum does not match: a byte is not what was written.
    Crc,
    /// The body ends early or goes on too long, or holds a value that does not fit.
    Malformed,
    /// The device is not a name.
    Device,
    /// The product is not a name.
    Product,
    /// No gateway, more than 4, or one that is not HOST:PORT.
    Gateways,
    /// More than 4 pins.
    Pins,
    /// The TrustSet.
    Trust(TrustFault),
}

impl RecordFault {
    /// One plain sentence without a full stop. For [`RecordFault::Trust`] `Display` says more.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::NoRecord => "there is no provisioning record here: it would begin with \"DHPR\"",
            Self::Version => {
                "the provisioning record is of a version that this program does not know"
            }
            Self::Length => "the provisioning record's length is impossible",
            Self::CutShort => "the provisioning record is cut short",
            Self::Crc => "the provisioning record is damaged: its checksum does not match",
            Self::Malformed => "the provisioning record's body is malformed",
            Self::Device => "the device id is not a name of 1 to 64 letters, digits, _ and -",
            Self::Product => "the product is not a name of 1 to 64 letters, digits, _ and -",
            Self::Gateways => {
                "the gateways are not 1 to 4 HOST:PORT of at most 128 characters, an IPv6 address in brackets"
            }
            Self::Pins => "there are more than 4 pins",
            Self::Trust(_) => "the TrustSet is wrong",
        }
    }
}

impl From<TextsFault> for RecordFault {
    fn from(fault: TextsFault) -> Self {
        match fault {
            TextsFault::Malformed => Self::Malformed,
            TextsFault::Wrong => Self::Gateways,
        }
    }
}

impl fmt::Display for RecordFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trust(fault) => fault.fmt(f),
            other => f.write_str(other.text()),
        }
    }
}

impl core::error::Error for RecordFault {}
