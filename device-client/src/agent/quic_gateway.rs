//! A gateway's end of QUIC connections, for tests: quinn on a runtime of its own.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
    vec,
    vec::Vec,
};

use dialhome_proto::link::quic::ALPN;
use quinn_proto::{EndpointConfig, ServerConfig, TransportConfig, VarInt};
use rustls::{
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    server::AlwaysResolvesServerRawPublicKeys,
    sign::{CertifiedKey, SigningKey},
};
use sha2::{Digest as _, Sha256};
use tokio::runtime::{Builder, Runtime};

/// A wait that takes this long will not end any more.
pub(super) const LONG: Duration = Duration::from_secs(60);

/// How a test's gateway differs from a right one.
pub(super) struct Quirks {
    pub(super) protocol: &'static [u8],
    /// Whom it says to be.
    pub(super) shown: [u8; 32],
    /// Who it is.
    pub(super) own: [u8; 32],
    /// Bytes that it takes without reading them.
    pub(super) window: u32,
}

impl Default for Quirks {
    fn default() -> Self {
        Self {
            protocol: ALPN,
            shown: [1; 32],
            own: [1; 32],
            window: 1 << 20,
        }
    }
}

/// An endpoint that takes connections.
pub(super) struct Gateway {
    pub(super) runtime: Runtime,
    pub(super) endpoint: quinn::Endpoint,
    pub(super) address: SocketAddr,
    /// Of the key that it shows.
    pub(super) pin: [u8; 32],
}

impl Gateway {
    pub(super) fn start(socket: UdpSocket, quirks: &Quirks) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let shown = public(&*key(quirks.shown));
        let pin = Sha256::digest(&shown).into();
        let certified = CertifiedKey::new(vec![CertificateDer::from(shown)], key(quirks.own));
        let resolver = AlwaysResolvesServerRawPublicKeys::new(Arc::new(certified));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        tls.alpn_protocols = vec![quirks.protocol.to_vec()];
        let tls = quinn_proto::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
        let mut config = ServerConfig::with_crypto(Arc::new(tls));
        let mut transport = TransportConfig::default();
        transport
            .max_idle_timeout(None)
            .stream_receive_window(VarInt::from_u32(quirks.window));
        config.transport_config(Arc::new(transport));
        let address = socket.local_addr().unwrap();
        let endpoint = {
            let _inside = runtime.enter();
            let system = Arc::new(quinn::TokioRuntime);
            quinn::Endpoint::new(EndpointConfig::default(), Some(config), socket, system).unwrap()
        };
        Self {
            runtime,
            endpoint,
            address,
            pin,
        }
    }

    /// On a free port of this address; `None` where the machine has no such address.
    pub(super) fn at(address: &str, quirks: &Quirks) -> Option<Self> {
        UdpSocket::bind(address)
            .ok()
            .map(|socket| Self::start(socket, quirks))
    }

    /// The next board's connection and stream, on another thread.
    pub(super) fn serve<T: Send + 'static, F: Future<Output = T> + Send>(
        &self,
        session: impl FnOnce(quinn::Connection, quinn::SendStream, quinn::RecvStream) -> F
        + Send
        + 'static,
    ) -> Served<T> {
        let endpoint = self.endpoint.clone();
        Served(self.runtime.spawn(async move {
            let connection = endpoint.accept().await.unwrap().await.unwrap();
            let (send, receive) = connection.accept_bi().await.unwrap();
            session(connection, send, receive).await
        }))
    }

    /// Takes every connection that comes, and nothing on it.
    pub(super) fn take_all(self) -> Self {
        let endpoint = self.endpoint.clone();
        self.runtime.spawn(async move {
            let mut taken = Vec::new();
            while let Some(incoming) = endpoint.accept().await {
                if let Ok(connection) = incoming.await {
                    taken.push(connection);
                }
            }
        });
        self
    }

    /// What a session gave.
    pub(super) fn end<T>(&self, served: Served<T>) -> T {
        let ended = async { tokio::time::timeout(LONG, served.0).await };
        self.runtime
            .block_on(ended)
            .expect("the session at the gateway does not end")
            .unwrap()
    }
}

/// A session at the gateway.
pub(super) struct Served<T>(tokio::task::JoinHandle<T>);

fn key(seed: [u8; 32]) -> Arc<dyn SigningKey> {
    // RFC 8410: the version, Ed25519, and the seed in an octet string of an octet string.
    let mut der = vec![
        0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
    ];
    der.extend_from_slice(&seed);
    rustls::crypto::ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(der)).unwrap()
}

fn public(key: &dyn SigningKey) -> Vec<u8> {
    key.public_key().unwrap().as_ref().to_vec()
}
