//! Frames that carry longer texts in numbered parts (spec/protocol.md section 12).

use crate::wire::fields;
use serde::Serialize;

fields! {
    /// A part of what commands printed that failed, before the Report of the outcome.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
    pub struct Output<'a> {
        /// Number in the outbox of the Report that follows.
        pub sequence: u32,
        /// Which part it is, from 1.
        pub part: u8,
        /// How many there are, 1 to 8.
        pub parts: u8,
        /// The text, at most 768 bytes.
        pub text: &'a str,
    }
}

fields! {
    /// A part of the board's log.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
    pub struct LogPart<'a> {
        /// The number of the request.
        pub request: u8,
        /// Which part it is, from 1; 0 where there is none.
        pub part: u8,
        /// How many there are, at most 8.
        pub parts: u8,
        /// The text, at most 768 bytes.
        pub text: &'a str,
    }
}

fields! {
    /// Asks for the end of the board's log.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
    pub struct ReadLog {
        /// Repeated by the parts.
        pub request: u8,
        /// Most lines.
        pub lines: u16,
        /// Most bytes of text.
        pub bytes: u16,
    }
}
