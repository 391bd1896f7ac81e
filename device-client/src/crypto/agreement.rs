//! X25519 in portable Rust.

/// The public half of an ephemeral key.
pub(super) fn public_key(secret: &[u8; 32]) -> [u8; 32] {
    x25519_dalek::x25519(*secret, x25519_dalek::X25519_BASEPOINT_BYTES)
}

/// What both ends compute; `None` where the other end's key has a small order, which
/// gives zeros (RFC 7748 section 6.1).
pub(super) fn shared_secret(secret: &[u8; 32], public: &[u8; 32]) -> Option<[u8; 32]> {
    let shared = x25519_dalek::x25519(*secret, *public);
    (shared != [0; 32]).then_some(shared)
}
