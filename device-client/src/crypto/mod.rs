//! The board's cryptography: portable Rust, no allocation, small enough for a
//! Cortex-M0+ (spec/protocol.md sections 2 and 3). Randomness is always a
//! parameter: where it comes from is the porter's business.

mod aead;
#[cfg(not(dialhome_stub_crypto))]
mod agreement;
mod handshake;
mod noise;
#[cfg(feature = "quic")]
mod prover;
mod signature;

pub use aead::SoftAead;
pub use handshake::{HandshakeFault, Initiator};
#[cfg(feature = "quic")]
pub use prover::Prover;
pub use signature::Ed25519;
