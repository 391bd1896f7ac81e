//! Connections over QUIC, many to a socket, as lean as quinn's can be.

use super::Seat;
use crate::Error;
use dialhome_proto::link::quic::{
    ALPN, EXPORTER_LABEL, EXPORTER_LEN, PROOF_LEN, PROVEN_LEN, Proofs, SUITE_QUIC_PROOF,
};
use dialhome_proto::link::{ACCEPTED, DeviceKey, Preamble};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, TransportConfig};
use rustls::DigitallySignedStruct;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

/// Connections of one socket, most.
const PER_SOCKET: usize = 100;

/// The sockets of a process of clients.
pub(super) struct Sockets {
    config: ClientConfig,
    /// By the number of their seats over [`PER_SOCKET`].
    open: Mutex<HashMap<usize, Endpoint>>,
}

/// A connection whose both ends have proven the device key, with its one stream.
pub(super) struct Proven {
    connection: Connection,
    pub(super) send: SendStream,
    pub(super) receive: RecvStream,
}

fn failed(error: &dyn std::fmt::Display) -> Error {
    Error::of("QUIC", error)
}

impl Sockets {
    /// Clients that trust the gateway's key with this pin, in hex, alone.
    pub(super) fn new(pin: &str) -> Result<Self, Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| failed(&error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned {
                pin: pin.to_owned(),
                provider,
            }))
            .with_no_client_auth();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls.resumption = Resumption::disabled();
        let tls = QuicClientConfig::try_from(tls).map_err(|error| failed(&error))?;
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(0_u32.into())
            .max_concurrent_uni_streams(0_u32.into())
            .datagram_receive_buffer_size(None)
            .max_idle_timeout(None);
        let mut config = ClientConfig::new(Arc::new(tls));
        config.transport_config(Arc::new(transport));
        Ok(Self {
            config,
            open: Mutex::default(),
        })
    }

    /// Dials for seat `number`, and proves its key. Within a runtime.
    pub(super) async fn dial(
        &self,
        server: SocketAddr,
        seat: &Seat,
        number: usize,
    ) -> Result<Proven, Error> {
        let endpoint = self.socket(seat, number)?;
        let connection = endpoint
            .connect_with(self.config.clone(), server, "gateway")
            .map_err(|error| failed(&error))?
            .await
            .map_err(|error| failed(&error))?;
        let (mut send, mut receive) = connection.open_bi().await.map_err(|error| failed(&error))?;
        let key = DeviceKey::new(seat.key);
        let handle = key.handle();
        let mut exporter = [0; EXPORTER_LEN];
        connection
            .export_keying_material(&mut exporter, EXPORTER_LABEL, &handle.0)
            .map_err(|_| failed(&"nothing can be exported"))?;
        let proofs = Proofs::new(&key, &exporter);
        let mut flight = Preamble::with_suite(handle, SUITE_QUIC_PROOF)
            .encode()
            .to_vec();
        flight.extend(proofs.board());
        send.write_all(&flight)
            .await
            .map_err(|error| failed(&error))?;
        let mut answer = [0; PROVEN_LEN];
        receive
            .read_exact(&mut answer)
            .await
            .map_err(|error| failed(&error))?;
        let [first, proof @ ..] = answer;
        let proof: [u8; PROOF_LEN] = proof;
        if first != ACCEPTED || !proofs.is_gateway(&proof) {
            return Err(failed(&"the gateway has not proven the device key"));
        }
        Ok(Proven {
            connection,
            send,
            receive,
        })
    }

    fn socket(&self, seat: &Seat, number: usize) -> Result<Endpoint, Error> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let number = number / PER_SOCKET;
        if let Some(endpoint) = open.get(&number) {
            return Ok(endpoint.clone());
        }
        let source = seat.source.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let endpoint = Endpoint::client((source, 0).into()).map_err(|error| failed(&error))?;
        open.insert(number, endpoint.clone());
        Ok(endpoint)
    }
}

impl Proven {
    /// Why the connection has ended, where it has.
    pub(super) fn end(&self) -> String {
        match self.connection.close_reason() {
            Some(reason) => reason.to_string(),
            None => "the gateway closed the stream".to_owned(),
        }
    }
}

/// Trusts the public key whose digest is the pin.
#[derive(Debug)]
struct Pinned {
    pin: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if super::hex(&Sha256::digest(key)) == self.pin {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::General(
                "the key is not the pinned one".into(),
            ))
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("QUIC has no TLS 1.2".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature_with_raw_key(
            message,
            &SubjectPublicKeyInfoDer::from(key.as_ref()),
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
