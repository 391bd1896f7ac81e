//! The gateways statement: where a board may dial, signed under its TrustSet
//! (spec/protocol.md section 7).

use core::fmt;

use crate::code::Reason;
use crate::id::{SignerId, is_name, is_word};
use crate::limits::{GATEWAY_MAX, GATEWAY_MIN, GATEWAYS_MAX, SIGNATURES_MAX, STATEMENT_MAX};
use crate::trust::{SignatureVerified, Signatures, TrustSet, VerifySignature, encode_signatures};
use crate::wire::{self, Reader, Texts, TextsFault, Writer};

/// The bytes that every gateways statement begins with.
pub const PREFIX: &[u8; 19] = b"dialhome gateways 1";

/// A gateways statement whose layout is right. Nothing is known about its signatures yet.
#[derive(Clone, Copy, Debug)]
pub struct GatewaysStatement<'a> {
    body: &'a [u8],
    fields: Body<'a>,
    signatures: Signatures<'a>,
}

impl<'a> GatewaysStatement<'a> {
    /// Reads a whole statement, signatures included.
    ///
    /// # Errors
    /// The first [`StatementFault`] found.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, StatementFault> {
        if bytes.len() > STATEMENT_MAX {
            return Err(StatementFault::TooLong);
        }
        let (fields, rest) = Body::parse(bytes)?;
        Ok(Self {
            body: wire::before(bytes, rest),
            fields,
            signatures: Signatures::parse(rest).ok_or(StatementFault::Signatures)?,
        })
    }

    /// The device that it is for.
    #[must_use]
    pub const fn device(&self) -> &'a str {
        self.fields.device
    }

    /// Which statement this is; a later one has a higher epoch. Never 0.
    #[must_use]
    pub const fn epoch(&self) -> u32 {
        self.fields.epoch
    }

    /// The gateways, HOST:PORT each, in the order of dialling: 1..=4.
    #[must_use]
    pub const fn gateways(&self) -> Texts<'a> {
        self.fields.gateways
    }

    /// How many gateways there are.
    #[must_use]
    pub const fn count(&self) -> u8 {
        self.fields.gateways.left()
    }

    /// The signed bytes, prefix included.
    #[must_use]
    pub const fn body(&self) -> &'a [u8] {
        self.body
    }

    /// The signatures over [`body`](Self::body), not checked.
    #[must_use]
    pub const fn signatures(&self) -> Signatures<'a> {
        self.signatures
    }
}

/// Decides whether the board takes the statement: it is signed under `trust`, meant for `device`, and its
/// epoch is above `epoch_in_force` (0: the provisioned list).
///
/// # Errors
/// The first [`Refused`] that applies, in its order. None of them goes over the wire: the answer is
/// GatewaysStored with sequence 0 and the epoch in force.
pub fn check<'a>(
    statement: &'a [u8],
    device: &str,
    trust: Option<&TrustSet>,
    epoch_in_force: u32,
    verifier: &mut impl VerifySignature,
) -> Result<(GatewaysStatement<'a>, SignatureVerified), Refused> {
    let trust = trust.ok_or(Refused::NoTrust)?;
    let statement = GatewaysStatement::parse(statement).map_err(Refused::Malformed)?;
    let verified = trust
        .verify(statement.body, statement.signatures, verifier)
        .map_err(|reason| match reason {
            Reason::UNKNOWN_SIGNER => Refused::UnknownSigner,
            Reason::NO_TRUST => Refused::NoTrust,
            _ => Refused::BadSignature,
        })?;
    if statement.device() != device {
        return Err(Refused::WrongDevice);
    }
    if statement.epoch() <= epoch_in_force {
        return Err(Refused::OldEpoch);
    }
    Ok((statement, verified))
}

/// Why a board leaves its list of gateways as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The board has no TrustSet.
    NoTrust,
    /// The layout or a value is wrong.
    Malformed(StatementFault),
    /// No signature names a key of the TrustSet.
    UnknownSigner,
    /// Too few signatures are valid.
    BadSignature,
    /// It is for another device.
    WrongDevice,
    /// Its epoch is not above the one in force.
    OldEpoch,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoTrust => "no_trust",
            Self::Malformed(_) => "malformed",
            Self::UnknownSigner => "unknown_signer",
            Self::BadSignature => "bad_signature",
            Self::WrongDevice => "wrong_device",
            Self::OldEpoch => "old_epoch",
        })
    }
}

impl core::error::Error for Refused {}

#[derive(Clone, Copy, Debug)]
struct Body<'a> {
    device: &'a str,
    epoch: u32,
    gateways: Texts<'a>,
}

impl<'a> Body<'a> {
    fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), StatementFault> {
        let fields = bytes.strip_prefix(PREFIX).ok_or(StatementFault::Prefix)?;
        let mut reader = Reader::new(fields);
        let device = reader.take().ok_or(StatementFault::Malformed)?;
        if !is_name(device) {
            return Err(StatementFault::Device);
        }
        let epoch = reader.take().ok_or(StatementFault::Malformed)?;
        if epoch == 0 {
            return Err(StatementFault::EpochZero);
        }
        let gateways = Texts::parse(&mut reader, GATEWAYS_MAX, is_endpoint)?;
        if gateways.is_empty() {
            return Err(StatementFault::Gateways);
        }
        Ok((
            Self {
                device,
                epoch,
                gateways,
            },
            reader.rest(),
        ))
    }
}

/// Whether `text` is HOST:PORT of 3 to 128 bytes: a name or IPv4 address of letters, digits, `.`, `-` and
/// `_`, or an IPv6 address in brackets; the port 1..=65535, in decimal digits without a leading zero.
#[must_use]
pub fn is_endpoint(text: &str) -> bool {
    if !(GATEWAY_MIN..=GATEWAY_MAX).contains(&text.len()) {
        return false;
    }
    let text = text.as_bytes();
    let Some((host, [_, port @ ..])) = text
        .iter()
        .rposition(|byte| *byte == b':')
        .and_then(|colon| text.split_at_checked(colon))
    else {
        return false;
    };
    let is_host = match host {
        [b'[', address @ .., b']'] => is_ipv6(address),
        _ => !host.is_empty() && is_word(host, b".-_"),
    };
    is_host && port != b"0" && is_decimal(port, u16::MAX.into())
}

/// Whether `text` is a number up to `max`, which has at most 5 digits: decimal, without a
/// leading zero.
fn is_decimal(text: &[u8], max: u32) -> bool {
    let one_way = matches!(text, [b'0'] | [b'1'..=b'9', ..]);
    one_way
        && text.len() <= 5
        && text.iter().all(u8::is_ascii_digit)
        && text
            .iter()
            .fold(0, |value, digit| value * 10 + u32::from(digit & 15))
            <= max
}

/// Whether `text` is an IPv6 address as `core::net` reads it, without a scope. Written out,
/// because the parser of the standard library takes 2 KB of a board's flash; a test holds
/// the two together.
fn is_ipv6(text: &[u8]) -> bool {
    // A gap stands for one group of zeros at least.
    let (mut rest, mut has_gap) = match text {
        [b':', b':'] => return true,
        [b':', b':', rest @ ..] => (rest, true),
        _ => (text, false),
    };
    let mut groups = 0_u32;
    while let Some(colon) = rest.iter().position(|byte| *byte == b':') {
        let Some((group, [_, after @ ..])) = rest.split_at_checked(colon) else {
            return false;
        };
        if !is_group(group) {
            return false;
        }
        groups = groups.saturating_add(1);
        rest = after;
        if let [b':', after @ ..] = rest {
            if has_gap {
                return false;
            }
            (rest, has_gap) = (after, true);
            if rest.is_empty() {
                return groups <= 7;
            }
        }
    }
    groups = groups.saturating_add(if is_group(rest) {
        1
    } else if is_ipv4(rest) {
        2
    } else {
        return false;
    });
    if has_gap { groups <= 7 } else { groups == 8 }
}

fn is_group(text: &[u8]) -> bool {
    (1..=4).contains(&text.len()) && text.iter().all(u8::is_ascii_hexdigit)
}

fn is_ipv4(text: &[u8]) -> bool {
    let mut parts = 0_u32;
    let all = text.split(|byte| *byte == b'.').all(|part| {
        parts = parts.saturating_add(1);
        is_decimal(part, 255)
    });
    all && parts == 4
}

/// Writes the body, prefix included, to `out` and returns its length in bytes: the bytes to sign.
///
/// # Errors
/// The [`StatementFault`] with which a board would refuse it; [`StatementFault::TooLong`] also where
/// `out` is too short.
pub fn encode_body(
    device: &str,
    epoch: u32,
    gateways: &[&str],
    out: &mut [u8],
) -> Result<usize, StatementFault> {
    let len = write(device, epoch, gateways, out).ok_or(StatementFault::TooLong)?;
    match Body::parse(&out[..len])? {
        (_, []) => Ok(len),
        _ => Err(StatementFault::Malformed),
    }
}

fn write(device: &str, epoch: u32, gateways: &[&str], out: &mut [u8]) -> Option<usize> {
    let mut writer = Writer::new(out);
    writer.bytes(PREFIX)?;
    writer.put(&device)?;
    writer.put(&epoch)?;
    writer.count(gateways.len())?;
    for gateway in gateways {
        writer.put(gateway)?;
    }
    Some(writer.len())
}

/// Appends `count || signatures` to the body in `out[..body_len]` and returns the statement's length.
///
/// # Errors
/// [`StatementFault::Signatures`] unless there are 1..=3, [`StatementFault::TooLong`] above 700 bytes or
/// where `out` is too short.
pub fn assemble(
    out: &mut [u8],
    body_len: usize,
    signatures: &[(SignerId, [u8; 64])],
) -> Result<usize, StatementFault> {
    if !(1..=SIGNATURES_MAX).contains(&signatures.len()) {
        return Err(StatementFault::Signatures);
    }
    let len = out
        .get_mut(body_len..)
        .and_then(|rest| encode_signatures(signatures, rest))
        .map(|added| body_len + added)
        .filter(|len| *len <= STATEMENT_MAX);
    len.ok_or(StatementFault::TooLong)
}

/// What is wrong with the layout or the values of a gateways statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatementFault {
    /// More than 700 bytes.
    TooLong,
    /// It does not begin with [`PREFIX`].
    Prefix,
    /// A field ends early, or does not fit its type.
    Malformed,
    /// The device is not a name.
    Device,
    /// The epoch is 0, which means "the provisioned list".
    EpochZero,
    /// No gateway, more than 4, or one that is not HOST:PORT ([`is_endpoint`]).
    Gateways,
    /// Not 1..=3 signatures, or bytes after the last one.
    Signatures,
}

impl From<TextsFault> for StatementFault {
    fn from(fault: TextsFault) -> Self {
        match fault {
            TextsFault::Malformed => Self::Malformed,
            TextsFault::Wrong => Self::Gateways,
        }
    }
}

impl fmt::Display for StatementFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the statement is longer than 700 bytes",
            Self::Prefix => "this is not a gateways statement: it does not begin with \"dialhome gateways 1\"",
            Self::Malformed => "the statement is cut short or malformed",
            Self::Device => "the device is not a name of 1 to 64 letters, digits, _ and -",
            Self::EpochZero => "the statement's epoch is 0",
            Self::Gateways => {
                "a statement names 1 to 4 gateways as HOST:PORT of at most 128 characters, an IPv6 address in brackets"
            }
            Self::Signatures => "a statement ends with 1 to 3 signatures and nothing after them",
        })
    }
}

impl core::error::Error for StatementFault {}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv6Addr;
    use proptest::prelude::*;

    fn agrees(text: &str) {
        let theirs = text.parse::<Ipv6Addr>().is_ok();
        assert_eq!(is_ipv6(text.as_bytes()), theirs, "{text}");
    }

    #[test]
    fn addresses_at_the_edges_are_those_of_the_standard_library() {
        for text in [
            "",
            ":",
            "::",
            ":::",
            "::1",
            "1::",
            "1:2:3:4:5:6:7:8",
            "1:2:3:4:5:6:7",
            "1:2:3:4:5:6:7::",
            "::2:3:4:5:6:7:8",
            "1:2:3:4:5:6:7:8::",
            "::1:2:3:4:5:6:7:8",
            "1::2::3",
            "12345::",
            "::1.2.3.4",
            "1:2:3:4:5:6:1.2.3.4",
            "1:2:3:4:5:6:7:1.2.3.4",
            "1:2:3:4:5::1.2.3.4",
            "1:2:3:4:5:6::1.2.3.4",
            "::1.2.3.256",
            "::1.2.3",
            "::1.2.3.4.5",
            "::01.2.3.4",
            "::1.2.3.4:5",
            "1.2.3.4",
            "::g",
            "1:",
            ":1",
            "::1.2.3.0",
            "::1.2.3.",
            "1:::2",
            "fe80::1%1",
        ] {
            agrees(text);
        }
    }

    proptest! {
        #[test]
        fn addresses_are_those_of_the_standard_library(
            text in "[0-9a-f:.]{0,20}",
            groups in "([0-9a-f]{1,5}:{1,2}){0,8}[0-9a-f]{0,4}",
            mixed in ":{0,2}([0-9a-f]{1,4}:{1,2}){0,7}[0-9]{1,3}[.][0-9]{1,3}[.][0-9]{1,3}[.][0-9]{1,3}",
        ) {
            agrees(&text);
            agrees(&groups);
            agrees(&mixed);
        }
    }
}
