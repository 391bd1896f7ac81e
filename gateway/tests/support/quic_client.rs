//! A board over QUIC that a test plays by hand: quinn with the gateway's pin, and everything that a hostile
//! peer may do with it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use dialhome_device::crypto::SoftAead;
use dialhome_proto::code::CloseCode;
use dialhome_proto::frame::{DeviceFrame, GatewayFrame, Hello, Ping};
use dialhome_proto::id::Handle;
use dialhome_proto::link::quic::{
    ALPN, EXPORTER_LABEL, EXPORTER_LEN, PROOF_LEN, PROVEN_LEN, Proofs, SUITE_QUIC_PROOF,
};
use dialhome_proto::link::{ACCEPTED, DeviceKey, Preamble, REFUSED_LEN, Records, Refusal};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig,
};
use rustls::DigitallySignedStruct;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use tokio::time::timeout;

use crate::support::PATIENCE;
use crate::support::peer::hello;

/// Takes any raw public key, checks that the peer has it, and keeps it for the test.
#[derive(Debug)]
struct Seen {
    key: Mutex<Vec<u8>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        assert!(intermediates.is_empty(), "there is no chain");
        *self.key.lock().unwrap() = end_entity.to_vec();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2".into()))
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

/// How a peer dials.
pub(crate) struct Dial {
    pub(crate) alpn: Vec<Vec<u8>>,
    pub(crate) transport: TransportConfig,
    pub(crate) early_data: bool,
}

impl Default for Dial {
    fn default() -> Self {
        let mut transport = TransportConfig::default();
        // The protocol decides when silence ends a session.
        transport.max_idle_timeout(None);
        Self {
            alpn: vec![ALPN.to_vec()],
            transport,
            early_data: false,
        }
    }
}

/// A connection before anything was said on it.
pub(crate) struct Dialed {
    pub(crate) endpoint: Endpoint,
    pub(crate) connection: Connection,
    /// The SubjectPublicKeyInfo that the gateway showed.
    pub(crate) key: Vec<u8>,
}

impl Dial {
    /// TLS as this dial has it, and the key that the gateway shows.
    pub(crate) fn tls(&self) -> (rustls::ClientConfig, impl Fn() -> Vec<u8> + use<>) {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let seen = Arc::new(Seen {
            key: Mutex::default(),
            provider: Arc::clone(&provider),
        });
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&seen) as _)
            .with_no_client_auth();
        tls.alpn_protocols = self.alpn.clone();
        tls.enable_early_data = self.early_data;
        (tls, move || seen.key.lock().unwrap().clone())
    }

    /// The settings of this dial; one client's may be used again, and have its tickets then.
    pub(crate) fn config(self) -> (ClientConfig, impl Fn() -> Vec<u8>) {
        let (tls, key) = self.tls();
        let tls = QuicClientConfig::try_from(tls).unwrap();
        let mut config = ClientConfig::new(Arc::new(tls));
        config.transport_config(Arc::new(self.transport));
        (config, key)
    }

    pub(crate) async fn dial(self, gateway: SocketAddr) -> Result<Dialed, ConnectionError> {
        let (config, key) = self.config();
        let endpoint = endpoint();
        let connecting = endpoint.connect_with(config, gateway, "gateway").unwrap();
        let connection = timeout(PATIENCE, connecting).await.expect("an answer")?;
        Ok(Dialed {
            endpoint,
            connection,
            key: key(),
        })
    }
}

pub(crate) fn endpoint() -> Endpoint {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let runtime = Arc::new(quinn::TokioRuntime);
    let config = quinn::EndpointConfig::default();
    Endpoint::new(config, None, socket, runtime).unwrap()
}

/// A connection with its stream, that speaks as the board does, until it does not.
pub(crate) struct Peer {
    pub(crate) endpoint: Endpoint,
    pub(crate) connection: Connection,
    pub(crate) send: SendStream,
    pub(crate) receive: RecvStream,
    pub(crate) records: Records,
}

/// The proofs with this key on this connection.
pub(crate) fn proofs(connection: &Connection, key: &DeviceKey) -> Proofs {
    let mut exporter = [0; EXPORTER_LEN];
    connection
        .export_keying_material(&mut exporter, EXPORTER_LABEL, &key.handle().0)
        .unwrap();
    Proofs::new(key, &exporter)
}

/// What a board writes first.
pub(crate) fn flight(handle: Handle, suite: u8, proof: &[u8; PROOF_LEN]) -> Vec<u8> {
    let preamble = Preamble::with_suite(handle, suite).encode();
    [&preamble[..], proof].concat()
}

/// The first flight of a good board.
pub(crate) fn good_flight(connection: &Connection, key: &DeviceKey) -> Vec<u8> {
    let proofs = proofs(connection, key);
    flight(key.handle(), SUITE_QUIC_PROOF, proofs.board())
}

/// Opens the stream, writes, and reads what the gateway answers; then its end or what closed the connection.
pub(crate) async fn answer_to(connection: &Connection, bytes: &[u8]) -> (Vec<u8>, String) {
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let reading = async {
        let mut more = [0; 256];
        while let Ok(Some(len)) = receive.read(&mut more).await {
            answer.extend_from_slice(&more[..len]);
        }
        connection.closed().await
    };
    let closed = timeout(PATIENCE, reading).await.expect("a close");
    (answer, closed.to_string())
}

/// The refusal that an answer is.
pub(crate) fn refusal(answer: &[u8]) -> Refusal {
    let answer: &[u8; REFUSED_LEN] = answer.try_into().expect("the length of a refusal");
    Refusal::decode(answer).expect("a refusal")
}

impl Peer {
    /// After both proofs, before Hello.
    pub(crate) async fn dial(gateway: SocketAddr, key: &DeviceKey) -> Self {
        Self::dial_as(Dial::default(), gateway, key).await
    }

    pub(crate) async fn dial_as(dial: Dial, gateway: SocketAddr, key: &DeviceKey) -> Self {
        let Dialed {
            endpoint,
            connection,
            ..
        } = dial.dial(gateway).await.expect("a connection");
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        let flight = good_flight(&connection, key);
        send.write_all(&flight).await.unwrap();
        let mut answer = [0; PROVEN_LEN];
        timeout(PATIENCE, receive.read_exact(&mut answer))
            .await
            .expect("an answer")
            .expect("a whole answer");
        assert_eq!(answer[0], ACCEPTED);
        let said = answer.last_chunk().unwrap();
        assert!(proofs(&connection, key).is_gateway(said));
        Self {
            endpoint,
            connection,
            send,
            receive,
            records: Records::plain(),
        }
    }

    /// After Welcome.
    pub(crate) async fn greet(gateway: SocketAddr, key: &DeviceKey) -> Self {
        let mut peer = Self::dial(gateway, key).await;
        peer.hello(hello()).await;
        peer
    }

    /// Says Hello and is welcomed.
    pub(crate) async fn hello(&mut self, hello: Hello<'_>) {
        self.send(hello).await;
        let welcome = self.next().await.expect("Welcome");
        let frame = GatewayFrame::decode(&welcome).unwrap();
        assert!(matches!(frame, GatewayFrame::Welcome(_)), "{frame:?}");
    }

    pub(crate) async fn send<'a>(&mut self, frame: impl Into<DeviceFrame<'a>>) {
        let mut record = [0; 1026];
        let len = frame.into().encode(&mut record[2..]).unwrap();
        let len = self.records.seal(&mut SoftAead, len, &mut record).unwrap();
        self.send.write_all(&record[..len]).await.unwrap();
    }

    /// The next frame's plaintext; none where the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<Vec<u8>> {
        let mut header = [0; 2];
        let read = timeout(PATIENCE, self.receive.read_exact(&mut header)).await;
        read.expect("a record or the end").ok()?;
        let mut record = vec![0; usize::from(u16::from_be_bytes(header))];
        timeout(PATIENCE, self.receive.read_exact(&mut record))
            .await
            .expect("the rest of a record")
            .ok()?;
        let plaintext = self.records.open(&mut SoftAead, &mut record).unwrap();
        Some(plaintext.to_vec())
    }

    /// The session still answers.
    pub(crate) async fn alive(&mut self) {
        self.send(Ping { nonce: 99 }).await;
        let pong = self.next().await.expect("Pong");
        let frame = GatewayFrame::decode(&pong).unwrap();
        assert!(
            matches!(&frame, GatewayFrame::Pong(pong) if pong.nonce == 99),
            "{frame:?}"
        );
    }

    /// Reads on until the Close; its code, and how the connection was closed then.
    pub(crate) async fn closed(mut self) -> (CloseCode, String) {
        loop {
            let plaintext = self.next().await.expect("Close before the end");
            if let Ok(GatewayFrame::Close(close)) = GatewayFrame::decode(&plaintext) {
                assert!(self.next().await.is_none(), "something after Close");
                return (close.code, self.lost().await);
            }
        }
    }

    /// How the gateway closes the connection.
    pub(crate) async fn lost(&self) -> String {
        let closed = timeout(PATIENCE, self.connection.closed()).await;
        closed.expect("the gateway closes").to_string()
    }
}
