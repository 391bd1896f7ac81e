//! The secured link under the frames: preamble, keys, refusal and records
//! (spec/protocol.md sections 1 to 3). The handshake itself is done by the two
//! ends with different libraries (`dialhome-device` and `dialhome-gateway`), so
//! that each tests the other; what both must agree on is here.

mod aead;
mod keys;
mod preamble;
#[cfg(feature = "quic")]
pub mod quic;
mod record;
mod refusal;

pub use aead::{Aead, nonce};
pub use keys::{DeviceKey, KEY_LEN, TransportKeys};
pub use preamble::{
    FIRST_FLIGHT_LEN, MAGIC, MESSAGE_1_LEN, MESSAGE_2_LEN, NOISE_NAME, PREAMBLE_LEN, Preamble,
    PreambleFault, SUITE_NOISE_NN_PSK0, VERSION,
};
pub use record::{RecordFault, Records, record_len};
pub use refusal::{
    ACCEPTED, ACCEPTED_LEN, REFUSED, REFUSED_LEN, Refusal, reply_missing, reply_missing_of,
};
