//! AWS-LC's primitives for the crate `snow`.

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey};
use aws_lc_rs::{digest, rand};
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use zeroize::{Zeroize as _, Zeroizing};

use super::aead::{open_detached, seal_detached};

/// Resolves the primitives of suite 1 and no others.
pub(super) struct LcResolver;

impl CryptoResolver for LcResolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(LcRandom))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| Box::<X25519>::default() as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        matches!(choice, HashChoice::SHA256).then(|| Box::new(Sha256::new()) as Box<dyn Hash>)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        matches!(choice, CipherChoice::ChaChaPoly)
            .then(|| Box::<ChaChaPoly>::default() as Box<dyn Cipher>)
    }
}

struct LcRandom;

impl Random for LcRandom {
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), snow::Error> {
        rand::fill(out).map_err(|_| snow::Error::Rng)
    }
}

/// X25519. Making one costs nothing: snow makes two when it is built, before the
/// tag of the first message is known to be right.
#[derive(Default)]
struct X25519 {
    private: Option<PrivateKey>,
    public: [u8; 32],
}

impl X25519 {
    fn take(&mut self, private: PrivateKey) -> Result<(), snow::Error> {
        #[cfg(test)]
        super::tests::count_x25519();
        let public = private.compute_public_key().map_err(|_| snow::Error::Dh)?;
        self.public = public.as_ref().try_into().map_err(|_| snow::Error::Dh)?;
        self.private = Some(private);
        Ok(())
    }
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, private: &[u8]) {
        // Reached with the fixed key of a test only: suite 1 has no static keys.
        // A key that is not taken leaves none, and the handshake then fails.
        self.private = None;
        if let Ok(private) = PrivateKey::from_private_key(&agreement::X25519, private) {
            let _ = self.take(private);
        }
    }

    fn generate(&mut self, _: &mut dyn Random) -> Result<(), snow::Error> {
        let private = PrivateKey::generate(&agreement::X25519).map_err(|_| snow::Error::Rng)?;
        self.take(private)
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        // snow asks for it only in `Builder::generate_keypair`, for static keys.
        &[]
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        #[cfg(test)]
        super::tests::count_x25519();
        let private = self.private.as_ref().ok_or(snow::Error::Dh)?;
        let public = public.get(..32).ok_or(snow::Error::Dh)?;
        let public = UnparsedPublicKey::new(&agreement::X25519, public);
        // AWS-LC refuses a public key of small order (RFC 7748 section 6.1).
        agreement::agree(private, public, snow::Error::Dh, |shared| {
            out.get_mut(..shared.len())
                .ok_or(snow::Error::Dh)?
                .copy_from_slice(shared);
            Ok(())
        })
    }
}

/// SHA-256 in one call at the end: what Noise hashes here is at most 129 bytes,
/// and AWS-LC's one-shot digest needs no allocation where its context does.
struct Sha256 {
    input: Zeroizing<Vec<u8>>,
}

impl Sha256 {
    fn new() -> Self {
        Self {
            input: Zeroizing::new(Vec::with_capacity(192)),
        }
    }
}

impl Hash for Sha256 {
    fn name(&self) -> &'static str {
        "SHA256"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.input.clear();
    }

    fn input(&mut self, data: &[u8]) {
        self.input.extend_from_slice(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        let digest = digest::digest(&digest::SHA256, &self.input);
        out[..32].copy_from_slice(digest.as_ref());
    }
}

/// ChaCha20-Poly1305. snow sets keys more often than it uses them, so the key is
/// expanded on use.
#[derive(Default)]
struct ChaChaPoly {
    key: [u8; 32],
}

impl Drop for ChaChaPoly {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.key = *key;
    }

    fn encrypt(&self, nonce: u64, associated: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let (body, tag) = out[..plaintext.len() + 16].split_at_mut(plaintext.len());
        body.copy_from_slice(plaintext);
        tag.copy_from_slice(&seal_detached(&self.key, nonce, associated, body));
        plaintext.len() + 16
    }

    fn decrypt(
        &self,
        nonce: u64,
        associated: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, snow::Error> {
        let (body, tag) = ciphertext
            .split_last_chunk::<16>()
            .ok_or(snow::Error::Decrypt)?;
        let out = out.get_mut(..body.len()).ok_or(snow::Error::Decrypt)?;
        out.copy_from_slice(body);
        if open_detached(&self.key, nonce, associated, out, tag) {
            Ok(body.len())
        } else {
            Err(snow::Error::Decrypt)
        }
    }
}
