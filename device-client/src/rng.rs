//! Randomness (spec/security.md, board randomness).

/// A source of noise.
///
/// The client never uses these bytes alone: at boot it mixes them with the journal's
/// 32-byte seed, the seed that the board was provisioned with
/// ([`Provision::seed`](crate::client::Provision::seed)) and the device key, and stores
/// the journal's next seed before it uses the first output. So a microcontroller without a
/// generator may give what noise it has (clock jitter, a floating ADC input, its serial
/// number), as long as it does not claim more: with the provisioned seed that is enough. A
/// system with a generator gives cryptographic bytes.
pub trait Rng {
    /// Fills `bytes`. It does not fail: a source that can must be checked when it is
    /// opened, before the client starts.
    fn fill(&mut self, bytes: &mut [u8]);
}
