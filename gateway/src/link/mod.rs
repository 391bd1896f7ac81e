//! The gateway's end of the secured link (spec/protocol.md sections 1 to 3):
//! the responder of the handshake, and the AEAD of the records by AWS-LC.
//!
//! What a session keeps of all this is one `dialhome_proto::link::Records`,
//! 80 bytes; Noise's own state lives from the first message to the second.

mod aead;
mod replays;
mod resolver;
mod responder;
#[cfg(test)]
mod tests;

pub use aead::LcAead;
pub use replays::{HANDLES_REMEMBERED_MIN, Replays};
pub use responder::{Accepted, Checked, Rejected, Responder};
