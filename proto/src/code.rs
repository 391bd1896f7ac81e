//! Codes on the wire: a byte with named values, where a value that this version
//! does not know is kept as it is (spec/frames.md section 4).

use crate::wire::{Field, Reader, Writer};
use core::fmt;
use serde::Serialize;

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($value:literal $constant:ident $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Default)]
        pub struct $name(pub u8);

        impl $name {
            $(#[doc = concat!("`", $text, "`, ", stringify!($value), " on the wire.")]
            pub const $constant: Self = Self($value);)+

            /// Every value that has a name, in order.
            pub const NAMED: &'static [Self] = &[$(Self($value)),+];

            /// The value's name in spec/frames.md; `None` where this version has none.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($text),)+
                    _ => None,
                }
            }

            /// The value with this name, `code_N` included; `None` for any other text.
            #[must_use]
            pub fn from_name(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(Self($value)),)+
                    other => other.strip_prefix("code_")?.parse().ok().map(Self),
                }
            }
        }

        impl Field<'_> for $name {
            fn read(reader: &mut Reader<'_>) -> Self {
                Self(u8::read(reader))
            }

            fn write(&self, writer: &mut Writer<'_>) {
                self.0.write(writer);
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "code_{}", self.0),
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

codes! {
    /// How the board reaches its network.
    Link {
        0 UNKNOWN "unknown",
        1 ETHERNET "ethernet",
        2 WIFI "wifi",
        3 GSM "gsm",
        4 UMTS "umts",
        5 LTE "lte",
        6 LTE_M "lte_m",
        7 NB_IOT "nb_iot",
        8 OTHER "other",
    }
}
codes! {
    /// How a running image's digest is known.
    DigestFrom {
        0 UNKNOWN "unknown",
        1 BOOTED "booted",
        2 READ_BACK "read_back",
        3 SLOT_FILE "slot_file",
    }
}
codes! {
    /// Why the running image was started.
    BootReason {
        0 UNKNOWN "unknown",
        1 POWER_ON "power_on",
        2 RESTART "restart",
        3 WATCHDOG "watchdog",
        4 PANIC "panic",
        5 UPDATE "update",
        6 REVERT "revert",
    }
}
codes! {
    /// What a board can do about a bad image of a component, and who puts the old one back
    /// (spec/protocol.md section 9.4).
    Revert {
        0 NONE "none",
        1 RESTORE_COPY "restore_copy",
        2 SWAP "swap",
        3 BY_IMAGE "by_image",
    }
}
codes! {
    /// The verdict of a trial image on itself.
    SelfTest {
        0 NOT_RUN "not_run",
        1 PASSED "passed",
        2 FAILED "failed",
    }
}
codes! {
    /// What a board is busy with while it sends Progress.
    Phase {
        1 PROVING "proving",
        2 PREPARING "preparing",
        3 VERIFYING "verifying",
        4 ACTIVATING "activating",
    }
}
codes! {
    /// The state that a Report states.
    Statement {
        1 STAGED "staged",
        2 ACTIVATING "activating",
        3 CONFIRMED "confirmed",
        4 REVERTED "reverted",
        5 FAILED "failed",
        6 CANCELED "canceled",
    }
}
codes! {
    /// Why the board ends a session.
    ByeReason {
        0 UNKNOWN "unknown",
        1 RESTART "restart",
        2 SLEEP "sleep",
        3 PROTOCOL_ERROR "protocol_error",
        4 STOPPING "stopping",
        5 NO_PONG "no_pong",
        6 MOVING "moving",
    }
}
codes! {
    /// Why the gateway ends a session.
    CloseCode {
        0 UNKNOWN "unknown",
        1 STOPPING "stopping",
        2 SUPERSEDED "superseded",
        3 BAD_RECORD "bad_record",
        4 BAD_FRAME "bad_frame",
        5 FRAME_NOT_ALLOWED "frame_not_allowed",
        6 OVERSIZED "oversized",
        7 IDLE "idle",
        8 ACK_BEYOND_SENT "ack_beyond_sent",
        9 ACK_OVERDUE "ack_overdue",
        10 REMOVED "removed",
        11 REKEY "rekey",
        12 BUSY "busy",
        13 HELLO_OVERDUE "hello_overdue",
        14 BAD_HELLO "bad_hello",
        15 LOST "lost",
        16 NO_PONG "no_pong",
        17 INTERNAL "internal",
        18 RECORD_LIMIT "record_limit",
    }
}
codes! {
    /// Why the gateway refused a preamble, before the handshake.
    Refusal {
        1 REFUSED "refused",
        2 VERSION "version",
        3 SUITE "suite",
        4 BUSY "busy",
    }
}
codes! {
    /// Why a Defer, Decline, Nack or Report says what it says.
    Reason {
        0 NONE "none",
        1 BUSY "busy",
        2 BATTERY_LOW "battery_low",
        3 TOO_HOT "too_hot",
        4 OUTBOX_FULL "outbox_full",
        5 STORAGE "storage",
        10 CRC "crc",
        11 READ_BACK "read_back",
        12 REWOUND "rewound",
        20 NO_TRUST "no_trust",
        21 BAD_MANIFEST "bad_manifest",
        22 BAD_SIGNATURE "bad_signature",
        23 UNKNOWN_SIGNER "unknown_signer",
        24 WRONG_PRODUCT "wrong_product",
        25 WRONG_COMPONENT "wrong_component",
        26 WRONG_HARDWARE "wrong_hardware",
        27 WRONG_DEVICE "wrong_device",
        28 TOO_BIG "too_big",
        29 BELOW_FLOOR "below_floor",
        30 DOWNGRADE_NOT_ASKED "downgrade_not_asked",
        31 COUNTER_CONFLICT "counter_conflict",
        32 REQUIRED_DIGEST "required_digest",
        33 UNKNOWN_ENCODING "unknown_encoding",
        34 MANIFEST_UNKNOWN "manifest_unknown",
        35 SIZE_MISMATCH "size_mismatch",
        36 WITHDRAWN "withdrawn",
        37 ALREADY_RUNNING "already_running",
        38 TOO_LATE "too_late",
        39 ON_TRIAL "on_trial",
        40 BAD_FLASH "bad_flash",
        41 DIGEST_MISMATCH "digest_mismatch",
        42 INSTALL_FAILED "install_failed",
        43 SELF_TEST "self_test",
        44 CRASHED "crashed",
        45 NO_CONTACT "no_contact",
        46 GATEWAY_SILENT "gateway_silent",
        47 OLD_IMAGE_RUNNING "old_image_running",
        48 REVERT_FAILED "revert_failed",
        49 CANCELED "canceled",
        50 NOT_STAGED "not_staged",
        51 POWER_LOST "power_lost",
        52 WRONG_IMAGE_RUNNING "wrong_image_running",
    }
}

#[cfg(test)]
mod tests {
    use super::Reason;
    use core::fmt::Write as _;

    #[test]
    fn every_named_value_comes_back_from_its_name() {
        for code in Reason::NAMED {
            assert_eq!(Reason::from_name(code.name().unwrap()), Some(*code));
        }
    }

    #[test]
    fn a_value_without_a_name_keeps_its_number() {
        let mut text = heapless::String::<16>::new();
        write!(text, "{}", Reason(200)).unwrap();
        assert_eq!(text, "code_200");
        assert_eq!(Reason::from_name("code_200"), Some(Reason(200)));
        assert_eq!(Reason::from_name("nonsense"), None);
    }
}
