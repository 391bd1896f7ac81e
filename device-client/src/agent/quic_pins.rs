//! TLS 1.3 below QUIC as the agent speaks it: no certificate, but a raw public key (RFC 7250)
//! whose digest the provisioning file has (spec/protocol.md section 1).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    vec,
    vec::Vec,
};

use quinn_proto::crypto::rustls::QuicClientConfig;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms,
        ring::{cipher_suite, default_provider, kx_group},
        verify_tls13_signature_with_raw_key,
    },
    pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    version::TLS13,
};
use sha2::{Digest as _, Sha256};

/// Signatures that a gateway may make: Ed25519 alone.
const SIGNATURES: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[webpki::ring::ED25519],
    mapping: &[(SignatureScheme::ED25519, &[webpki::ring::ED25519])],
};

/// Knows a gateway by the SHA-256 of its public key, and whether one was seen that it does not
/// know: TLS tells the caller no more than that the certificate was bad.
#[derive(Debug)]
pub(super) struct Pins {
    pins: Vec<[u8; 32]>,
    stranger: AtomicBool,
}

impl Pins {
    pub(super) fn new(pins: &[[u8; 32]]) -> Arc<Self> {
        Arc::new(Self {
            pins: pins.to_vec(),
            stranger: AtomicBool::new(false),
        })
    }

    /// Whether a key was refused since this was last asked.
    pub(super) fn take_stranger(&self) -> bool {
        self.stranger.swap(false, Ordering::Relaxed)
    }
}

impl ServerCertVerifier for Pins {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let digest: [u8; 32] = Sha256::digest(key.as_ref()).into();
        if others.is_empty() && self.pins.contains(&digest) {
            return Ok(ServerCertVerified::assertion());
        }
        self.stranger.store(true, Ordering::Relaxed);
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("QUIC has no TLS 1.2".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signature, &SIGNATURES)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SIGNATURES.supported_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// The cipher suites, the one that this processor is quicker with first.
fn provider() -> CryptoProvider {
    let aes = cipher_suite::TLS13_AES_128_GCM_SHA256;
    let chacha = cipher_suite::TLS13_CHACHA20_POLY1305_SHA256;
    CryptoProvider {
        cipher_suites: if has_aes() {
            vec![aes, chacha]
        } else {
            vec![chacha, aes]
        },
        kx_groups: vec![kx_group::X25519],
        signature_verification_algorithms: SIGNATURES,
        ..default_provider()
    }
}

#[cfg(target_arch = "x86_64")]
fn has_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes")
}

#[cfg(target_arch = "aarch64")]
fn has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const fn has_aes() -> bool {
    false
}

/// TLS for a connection to a gateway that `pins` knows, under this protocol's name, without
/// tickets, early data or a server name.
///
/// # Errors
/// rustls takes none of what it is offered.
pub(super) fn client(pins: Arc<Pins>, protocol: &[u8]) -> Result<QuicClientConfig, Error> {
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(pins)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    QuicClientConfig::try_from(config).map_err(|error| Error::General(std::format!("{error}")))
}
