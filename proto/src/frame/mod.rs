//! Frames: one byte of frame number and a body of fields (spec/frames.md).
//!
//! The two directions are two enums, so that a frame of the wrong direction is
//! unknown by construction. Bodies borrow from the record that carried them.

mod session;
mod text;
mod transfer;

pub use session::{
    Bye, Claim, Close, Component, GatewaysStored, Hello, Keepalive, KeyStored, NewKey, Ping, Pong,
    SetGateways, Settled, Trial, Unsupported, Welcome,
};
pub use text::{LogPart, Output, ReadLog};
pub use transfer::{
    ACK_NOW, Accept, Ack, Activate, Cancel, Chunk, Confirm, DOWNGRADE, Decline, Defer, Nack, Offer,
    Progress, RESTART, Report, Resume,
};

use crate::wire::{Field, Reader, Writer};

/// Why a record's plaintext is not a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameFault {
    /// The plaintext is empty.
    Empty,
    /// The number has no frame in this direction: answer `Unsupported` with it.
    Unknown(u8),
    /// The body of this frame number does not decode: the session ends with `bad_frame`.
    Malformed(u8),
    /// The frame does not fit the buffer that was given for it: a misuse by the caller.
    NoRoom,
}

/// A frame of the direction, to be written without the enum of all of them.
pub(crate) trait Numbered<Direction> {
    /// The first byte of the plaintext.
    const NUMBER: u8;
}

/// Appends a board's frame, its number first.
pub(crate) fn say<'a, F>(writer: &mut Writer<'_>, frame: &F)
where
    F: Field<'a> + Numbered<DeviceFrame<'a>>,
{
    writer.byte(F::NUMBER);
    frame.write(writer);
}

macro_rules! direction {
    ($(#[$doc:meta])* $name:ident { $($number:literal $frame:ident $(<$life:lifetime>)?,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum $name<'a> {
            $(#[doc = concat!("Frame number ", stringify!($number), ".")]
            $frame($frame $(<$life>)?),)+
        }

        impl<'a> $name<'a> {
            /// The numbers of this direction, in order.
            pub const NUMBERS: &'static [u8] = &[$($number),+];

            /// The frame number, the first byte of the plaintext.
            #[must_use]
            pub const fn number(&self) -> u8 {
                match self { $(Self::$frame(_) => $number,)+ }
            }

            /// The frame's name in the specification.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$frame(_) => stringify!($frame),)+ }
            }

            /// Reads a record's plaintext.
            ///
            /// # Errors
            /// `Empty`, `Unknown` or `Malformed`, as [`FrameFault`] says.
            pub fn decode(plaintext: &'a [u8]) -> Result<Self, FrameFault> {
                let (&number, body) = plaintext.split_first().ok_or(FrameFault::Empty)?;
                let mut reader = Reader::new(body);
                let mut frame = None;
                Self::read_body(number, &mut reader, &mut frame);
                let frame = frame.ok_or(FrameFault::Unknown(number))?;
                // Every byte of the body is used (spec/frames.md section 1.5).
                if reader.is_empty() {
                    Ok(frame)
                } else {
                    Err(FrameFault::Malformed(number))
                }
            }

            /// Apart, so that each frame is read to where it stays, and not taken to pieces.
            #[inline(never)]
            fn read_body(number: u8, reader: &mut Reader<'a>, frame: &mut Option<Self>) {
                match number {
                    $($number => *frame = Some(Self::$frame(Field::read(reader))),)+
                    _ => {}
                }
            }

            /// Writes the plaintext to the start of `out` and returns its length in bytes.
            ///
            /// # Errors
            /// `NoRoom` where `out` is too short.
            pub fn encode(&self, out: &mut [u8]) -> Result<usize, FrameFault> {
                let (number, body) = out.split_first_mut().ok_or(FrameFault::NoRoom)?;
                *number = self.number();
                let mut writer = Writer::new(body);
                match self {
                    $(Self::$frame(frame) => frame.write(&mut writer),)+
                }
                writer.finish().map(|len| len + 1).ok_or(FrameFault::NoRoom)
            }
        }

        $(impl<'a> Numbered<$name<'a>> for $frame $(<$life>)? {
            const NUMBER: u8 = $number;
        }

        impl<'a> From<$frame $(<$life>)?> for $name<'a> {
            fn from(frame: $frame $(<$life>)?) -> Self {
                Self::$frame(frame)
            }
        })+
    };
}

direction! {
    /// What a board sends.
    #[expect(clippy::large_enum_variant, reason = "a frame lives on the stack for one call; without allocation there is no box")]
    DeviceFrame {
        0x01 Ping,
        0x02 Pong,
        0x03 Unsupported,
        0x10 Hello<'a>,
        0x11 Accept,
        0x12 Defer,
        0x13 Decline,
        0x14 Progress,
        0x15 Ack,
        0x16 Nack,
        0x17 Report<'a>,
        0x1A KeyStored,
        0x1B GatewaysStored,
        0x1C Bye,
        0x1D Output<'a>,
        0x1E LogPart<'a>,
    }
}

direction! {
    /// What a gateway sends.
    GatewayFrame {
        0x01 Ping,
        0x02 Pong,
        0x03 Unsupported,
        0x40 Welcome,
        0x41 Offer<'a>,
        0x42 Resume,
        0x43 Chunk<'a>,
        0x44 Activate,
        0x45 Cancel,
        0x46 Confirm,
        0x47 Settled,
        0x49 NewKey,
        0x4B SetGateways<'a>,
        0x4C Keepalive,
        0x4D Close,
        0x4E ReadLog,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::CloseCode;

    #[test]
    fn decode_names_each_fault() {
        assert_eq!(DeviceFrame::decode(&[]), Err(FrameFault::Empty));
        assert_eq!(
            DeviceFrame::decode(&[0x40, 0, 0]),
            Err(FrameFault::Unknown(0x40))
        );
        assert_eq!(
            DeviceFrame::decode(&[0x01]),
            Err(FrameFault::Malformed(0x01))
        );
        assert_eq!(
            DeviceFrame::decode(&[0x01, 7, 0]),
            Err(FrameFault::Malformed(0x01)),
            "bytes left over"
        );
        assert_eq!(
            DeviceFrame::decode(&[0x01, 7]),
            Ok(Ping { nonce: 7 }.into())
        );
    }

    #[test]
    fn a_frame_comes_back_from_its_bytes() {
        let mut buffer = [0; 64];
        let close = GatewayFrame::from(Close {
            code: CloseCode::SUPERSEDED,
            reconnect_after_s: 600,
        });
        let len = close.encode(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], &[0x4D, 2, 0xD8, 0x04]);
        assert_eq!(GatewayFrame::decode(&buffer[..len]), Ok(close));
    }

    #[test]
    fn encode_into_too_little_room_is_refused() {
        let chunk = GatewayFrame::from(Chunk {
            offset: 0,
            crc: [0; 4],
            flags: 0,
            bytes: &[1; 32],
        });
        assert_eq!(chunk.encode(&mut [0; 16]), Err(FrameFault::NoRoom));
        assert_eq!(chunk.encode(&mut []), Err(FrameFault::NoRoom));
    }

    #[test]
    fn the_longest_parts_of_texts_fit_a_record_to_the_gateway() {
        let bytes = [b'x'; crate::limits::TEXT_PART_MAX];
        let text = core::str::from_utf8(&bytes).unwrap();
        let (part, parts) = (u8::MAX, u8::MAX);
        let output = Output {
            sequence: u32::MAX,
            part,
            parts,
            text,
        };
        let log = LogPart {
            request: u8::MAX,
            part,
            parts,
            text,
        };
        let lens = [DeviceFrame::from(output), log.into()]
            .map(|frame| frame.encode(&mut [0; 1024]).unwrap());
        assert_eq!(lens, [778, 774]);
        assert!(lens[0] + crate::limits::TAG <= crate::limits::BOARD_RECORD_MAX);
    }

    #[test]
    fn the_longest_offer_fits_the_least_receive_buffer() {
        let manifest = [7; crate::limits::MANIFEST_MAX];
        let offer = GatewayFrame::from(Offer {
            update: crate::id::UpdateId([0xFF; 8]),
            group: u32::MAX,
            order: 255,
            component: 255,
            flags: 255,
            encoding: 255,
            base: Some([255; 8]),
            payload_size: u32::MAX,
            manifest: &manifest,
        });
        let len = offer.encode(&mut [0; 1024]).unwrap();
        assert_eq!(len, 802);
        assert!(len + crate::limits::TAG <= crate::limits::RECEIVE_BUFFER_MIN);
    }
}
