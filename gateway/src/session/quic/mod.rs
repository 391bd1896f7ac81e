//! Accepting boards over QUIC, and the proofs of both sides, within the bounds of TCP
//! (spec/protocol.md sections 1.2 and 2.7).
//!
//! One socket and one endpoint serve all lanes; each connection is driven on the runtime of its session's lane.

mod socket;
pub(super) mod stream;
mod unproven;

pub use socket::bind_quic;

use super::listener::{Shaken, begin, keep};
use super::place::{Place, network_of};
use super::registry::{Handle, Registry, count};
use super::socket::Socket;
use super::{CLOSE_MS, Gateway, HANDSHAKES_MAX, HANDSHAKES_PER_MINUTE, RETRY_AFTER_S, clock};
use crate::admin::RefusedFor;
use crate::store::QuicKey;
use aws_lc_rs::hmac;
use dashmap::DashMap;
use dialhome_proto::code;
use dialhome_proto::limits::HANDSHAKE_MS;
use dialhome_proto::link::quic::{
    ALPN, DONE, EXPORTER_LABEL, EXPORTER_LEN, NO_HANDSHAKE, PROOF_FLIGHT_LEN, PROOF_LEN,
    PROVEN_LEN, Proofs, SUITE_QUIC_PROOF, refused,
};
use dialhome_proto::link::{
    ACCEPTED, DeviceKey, PREAMBLE_LEN, Preamble, PreambleFault, Records, Refusal,
};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    Connection, Endpoint, EndpointConfig, IdleTimeout, Incoming, ServerConfig, TokioRuntime,
    TransportConfig, VarInt,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use socket::Numbered;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use stream::{Counted, Stream};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use unproven::Unproven;

/// Half-open connections above which an address must prove itself (Retry) before anything is kept of it.
pub(super) const RETRY_ABOVE: usize = 64;
/// Connections that have no session, those that are being closed included.
pub(super) const WITHOUT_SESSION_MAX: usize = 2 * HANDSHAKES_MAX;
/// Connections of one network that proved their address and then got no session, within [`FAILED_PERIOD`]: what
/// is being closed is kept for a while, for longer where the peer asks for it, and one network must not have all.
pub(super) const FAILED_OF_NETWORK_MAX: u32 = 1_024;
const FAILED_PERIOD: Duration = Duration::from_secs(60);
/// First packets that wait to be looked at; the next are not answered, and sent again.
const INCOMING_MAX: usize = 1_024;
/// Datagrams that follow a first packet and wait with it: for one connection, and in all, in bytes.
const INCOMING_BYTES: u64 = 8 * 1024;
const INCOMING_BYTES_ALL: u64 = 1024 * 1024;
/// Bytes of records that a board may send before they are read.
const RECEIVE_WINDOW: u32 = 8 * 1024;
/// Bytes that leave before they are acknowledged, of one connection.
const SEND_WINDOW: u64 = 256 * 1024;
/// Bytes of a TLS handshake that may come out of order.
const CRYPTO_BUFFER: usize = 4 * 1024;
/// After so much silence QUIC itself gives a connection up: later than the longest silence that a session
/// allows, one and a half of the longest ping interval.
const IDLE_MS: u32 = 10 * 3_600 * 1_000;
/// Least time between two answers to packets of connections that are not known.
const RESET_EVERY: Duration = Duration::from_millis(1);

/// The endpoint, and what it is known by.
pub(super) struct Door {
    gateway: Arc<Gateway>,
    tasks: TaskTracker,
    endpoint: Endpoint,
    unproven: Arc<Unproven>,
    pin: [u8; 32],
    config: Arc<ServerConfig>,
    /// Connections that came so far: they are given to the lanes in turn.
    next: u32,
    half_open: Arc<AtomicUsize>,
    failed: Arc<Failed>,
}

/// Connections of each network that got no session lately, and since when they are counted.
#[derive(Debug, Default)]
struct Failed(DashMap<IpAddr, (Instant, u32)>);

impl Failed {
    fn count(&self, peer: IpAddr) {
        count(&self.0, network_of(peer), FAILED_PERIOD);
    }

    fn is_too_many(&self, peer: IpAddr) -> bool {
        self.0.get(&network_of(peer)).is_some_and(|entry| {
            entry.1 >= FAILED_OF_NETWORK_MAX && entry.0.elapsed() <= FAILED_PERIOD
        })
    }

    fn forget_old(&self) {
        self.0.retain(|_, entry| entry.0.elapsed() <= FAILED_PERIOD);
    }
}

/// One of the half-open connections.
struct HalfOpen(Arc<AtomicUsize>);

impl Drop for HalfOpen {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Door {
    /// Opens it. Must be called within a runtime.
    ///
    /// # Errors
    /// Of the system, or the key is unusable.
    pub(super) fn open(
        gateway: Arc<Gateway>,
        tasks: TaskTracker,
        socket: UdpSocket,
    ) -> io::Result<Self> {
        let key = gateway.store.quic_key();
        let config = Arc::new(server_config(&key)?);
        let mut names = EndpointConfig::new(Arc::new(ResetKey(hmac::Key::new(
            hmac::HMAC_SHA256,
            &*key.derive("quic stateless reset"),
        ))));
        // The same after a restart: a board that goes on with a connection of before it is told at once that
        // it is gone, as a TCP connection would be reset.
        let of_ids = key.derive("quic connection ids");
        let of_ids = u64::from_be_bytes(*of_ids.first_chunk().unwrap_or(&[0; 8]));
        names.cid_generator(move || Box::new(Numbered::new(of_ids)));
        names.min_reset_interval(RESET_EVERY);
        let runtime = Arc::new(TokioRuntime);
        let unproven = Arc::<Unproven>::default();
        let socket = socket::Socket::new(&*runtime, socket, Arc::clone(&unproven))?;
        let of_server = Some((*config).clone());
        let endpoint = Endpoint::new_with_abstract_socket(names, of_server, socket, runtime)?;
        Ok(Self {
            gateway,
            tasks,
            endpoint,
            unproven,
            pin: key.pin(),
            config,
            next: 0,
            half_open: Arc::default(),
            failed: Arc::default(),
        })
    }

    /// The next connection; none where the endpoint is broken.
    pub(super) async fn next(&self) -> Option<Incoming> {
        self.endpoint.accept().await
    }

    /// Counts what is open.
    pub(super) fn look(&self) {
        let open = self.endpoint.open_connections() as u64;
        let totals = &self.gateway.registry.quic;
        totals.connections.store(open, Ordering::Relaxed);
        self.unproven.look();
        self.failed.forget_old();
    }

    /// Looks at a first packet: lets its connection in, lets it prove its address first, or refuses it.
    pub(super) fn arrived(&mut self, incoming: Incoming) {
        let registry = &self.gateway.registry;
        let half_open = self.half_open.load(Ordering::Relaxed);
        if half_open >= RETRY_ABOVE && !incoming.remote_address_validated() {
            registry.quic.retries.fetch_add(1, Ordering::Relaxed);
            // It may be asked to, since it has not proven its address.
            let _ = incoming.retry();
            return;
        }
        let sessions = registry.quic.sessions.load(Ordering::Relaxed);
        let open = self.endpoint.open_connections() as u64;
        let peer = incoming.remote_address();
        let place = if open.saturating_sub(sessions) >= WITHOUT_SESSION_MAX as u64 {
            Err(RefusedFor::Busy)
        } else if self.failed.is_too_many(peer.ip()) {
            Err(RefusedFor::NetworkBusy)
        } else {
            registry.places.take(peer.ip(), false)
        };
        let place = match place {
            Ok(place) => place,
            Err(reason) => {
                registry.count_refused(reason);
                return incoming.refuse();
            }
        };
        let config = match self.config() {
            Ok(config) => config,
            Err(error) => {
                tracing::error!(%error, "the key for QUIC is unusable");
                return incoming.refuse();
            }
        };
        self.half_open.fetch_add(1, Ordering::Relaxed);
        let half_open = HalfOpen(Arc::clone(&self.half_open));
        self.next = self.next.wrapping_add(1);
        self.let_in(incoming, peer, config, place, half_open);
    }

    /// The configuration with the key that boards know: a restore may have changed it.
    fn config(&mut self) -> io::Result<Arc<ServerConfig>> {
        let key = self.gateway.store.quic_key();
        if key.pin() != self.pin {
            self.config = Arc::new(server_config(&key)?);
            self.pin = key.pin();
        }
        Ok(Arc::clone(&self.config))
    }

    fn let_in(
        &self,
        incoming: Incoming,
        peer: SocketAddr,
        config: Arc<ServerConfig>,
        mut place: Place,
        half_open: HalfOpen,
    ) {
        let gateway = Arc::clone(&self.gateway);
        let unproven = Arc::clone(&self.unproven);
        let sessions = self.tasks.clone();
        let named = place.task();
        let number = self.next;
        let lane = gateway.lanes.of(number).runtime.clone();
        let failed = Arc::clone(&self.failed);
        let shaking = async move {
            let _half_open = half_open;
            let lane = gateway.lanes.of(number);
            let within = Duration::from_millis(HANDSHAKE_MS);
            let mut accepted = Accepted {
                registry: Arc::clone(&gateway.registry),
                failed,
                connection: None,
                in_time: true,
                spoke: false,
            };
            let shaking = shake(
                &gateway,
                &lane.cryptography,
                (incoming, config, unproven),
                &mut accepted,
                &mut place,
            );
            match tokio::time::timeout(within, shaking).await {
                Ok(Ok((shaken, stream))) => {
                    accepted.connection = None;
                    let handle = Handle::new(shaken.2, peer, lane.parking.names()).over_quic();
                    begin(
                        &gateway,
                        &sessions,
                        Socket::Quic(stream),
                        shaken,
                        handle,
                        place,
                    );
                }
                Ok(Err(reason)) => {
                    accepted.close(NO_HANDSHAKE, b"no_handshake");
                    gateway.registry.count_refused(reason);
                }
                Err(_) => {
                    accepted.in_time = false;
                    gateway.registry.count_refused(if accepted.spoke {
                        RefusedFor::Busy
                    } else {
                        RefusedFor::Silent
                    });
                }
            }
        };
        let task = self.tasks.spawn_on(shaking, &lane);
        let _ = named.set(task.abort_handle());
    }

    /// Refuses whoever comes, for as long as it is polled: the gateway stops.
    pub(super) async fn refuse_all(&self) {
        while let Some(incoming) = self.next().await {
            incoming.refuse();
        }
        std::future::pending().await
    }

    /// Closes what is left, and waits until the peers were told, at most [`CLOSE_MS`].
    pub(super) async fn close(self) {
        self.endpoint.close(VarInt::from_u32(DONE), b"done");
        let most = Duration::from_millis(CLOSE_MS);
        let _ = tokio::time::timeout(most, self.endpoint.wait_idle()).await;
    }
}

/// A connection while its handshake is under way, which may be broken off at any time.
struct Accepted {
    registry: Arc<Registry>,
    failed: Arc<Failed>,
    /// From the end of the TLS handshake on.
    connection: Option<Connection>,
    /// The time for its handshake is not over.
    in_time: bool,
    /// Its first flight was read.
    spoke: bool,
}

impl Accepted {
    /// Closes the connection, if it is not closed yet.
    fn close(&mut self, code: u32, name: &[u8]) {
        if let Some(connection) = self.connection.take() {
            // Its address is proven: nobody is blamed for what another sends in its name.
            self.failed.count(connection.remote_address().ip());
            connection.close(VarInt::from_u32(code), name);
        }
    }
}

impl Drop for Accepted {
    /// Its place went to another, or its time is over: as over TCP, who spoke or had time left hears `busy`.
    fn drop(&mut self) {
        if self.connection.is_none() {
            return;
        }
        if self.in_time || self.spoke {
            // Counted, so that those who come back do so over a time that grows with their number.
            let _ = self.registry.busy_retry_s();
            self.close(refused(code::Refusal::BUSY), b"busy");
        } else {
            self.close(NO_HANDSHAKE, b"no_handshake");
        }
    }
}

async fn shake(
    gateway: &Gateway,
    cryptography: &Semaphore,
    (incoming, config, unproven): (Incoming, Arc<ServerConfig>, Arc<Unproven>),
    accepted: &mut Accepted,
    place: &mut Place,
) -> Result<(Shaken, Box<Stream>), RefusedFor> {
    let (peer, proven) = (
        incoming.remote_address(),
        incoming.remote_address_validated(),
    );
    let turn = cryptography.acquire().await;
    // The agreement of keys and the signature are made here.
    let connecting = incoming
        .accept_with(config)
        .map_err(|_| RefusedFor::NoHandshake)?;
    drop(turn);
    // Before the first answer leaves: this task has not waited since.
    let doubt = (!proven).then(|| unproven.begins(peer));
    let connection = connecting.await.map_err(|_| RefusedFor::NoHandshake)?;
    if let Some(doubt) = doubt {
        doubt.proven();
    }
    accepted.connection = Some(connection.clone());
    let lost = |_| RefusedFor::NoHandshake;
    let (mut send, mut receive) = connection.accept_bi().await.map_err(lost)?;
    let lost = |_| RefusedFor::NoHandshake;
    let mut flight = [0; PROOF_FLIGHT_LEN];
    let (head, proof) = flight.split_at_mut(PREAMBLE_LEN);
    // A stranger's first bytes are enough to see that they are not for us; a board's come at once.
    receive.read_exact(head).await.map_err(lost)?;
    let head = (&*head).try_into().map_err(|_| RefusedFor::NoHandshake)?;
    let refusal = match Preamble::decode_suite(head, SUITE_QUIC_PROOF) {
        Ok(preamble) => Ok(preamble),
        Err(PreambleFault::NotMagic) => return Err(RefusedFor::NoHandshake),
        Err(PreambleFault::Version(_)) => Err((code::Refusal::VERSION, RefusedFor::Version)),
        Err(PreambleFault::Suite(_)) => Err((code::Refusal::SUITE, RefusedFor::Suite)),
    };
    let preamble = match refusal {
        Ok(preamble) => preamble,
        Err((code, reason)) => return Err(refuse(accepted, place, send, code, reason).await),
    };
    receive.read_exact(proof).await.map_err(lost)?;
    let proof: [u8; PROOF_LEN] = (&*proof).try_into().map_err(|_| RefusedFor::NoHandshake)?;
    accepted.spoke = true;
    keep(place).await;
    let known = gateway.store.find_key(preamble.handle);
    if known
        .as_ref()
        .is_some_and(|key| key.suites & (1 << preamble.suite) == 0)
    {
        let (code, reason) = (code::Refusal::SUITE, RefusedFor::Suite);
        return Err(refuse(accepted, place, send, code, reason).await);
    }
    let mut exporter = [0; EXPORTER_LEN];
    connection
        .export_keying_material(&mut exporter, EXPORTER_LABEL, &preamble.handle.0)
        .map_err(|_| RefusedFor::NoHandshake)?;
    // For a handle that nobody has the same work is done, with a key that nobody has.
    let key = known.as_ref().map_or_else(
        || DeviceKey::new(rand::random()),
        |known| DeviceKey::new(known.key),
    );
    let proofs = Proofs::new(&key, &exporter);
    let (true, Some(known)) = (proofs.is_board(&proof), known) else {
        tracing::debug!(handle = %preamble.handle, "refused a proof");
        let (code, reason) = (code::Refusal::REFUSED, RefusedFor::Key);
        return Err(refuse(accepted, place, send, code, reason).await);
    };
    if known.dials.count(clock()) > HANDSHAKES_PER_MINUTE {
        // Delayed, never locked out: the board's own dials must get through.
        place.waits(None);
        tokio::time::sleep(Duration::from_secs(1)).await;
        keep(place).await;
    }
    // Before the answer leaves: a board that dials again after it has a higher one.
    let generation = gateway.store.next_generation();
    let mut answer = [ACCEPTED; PROVEN_LEN];
    if let Some(room) = answer.last_chunk_mut() {
        *room = *proofs.gateway();
    }
    let lost = |_| RefusedFor::NoHandshake;
    send.write_all(&answer).await.map_err(lost)?;
    let counted = Counted::new(Arc::clone(&gateway.registry));
    let stream = Box::new(Stream::new(connection, send, receive, counted));
    Ok(((Records::plain(), known, generation), stream))
}

/// Refuses in words, and closes the connection when they have arrived.
async fn refuse(
    accepted: &mut Accepted,
    place: &mut Place,
    mut send: quinn::SendStream,
    code: code::Refusal,
    reason: RefusedFor,
) -> RefusedFor {
    // While it is told, another may have its place.
    let _ = place.spoke();
    place.waits(None);
    let refusal = Refusal::new(code, rand::random_range(RETRY_AFTER_S)).encode();
    let said = async {
        send.write_all(&refusal).await.ok()?;
        send.finish().ok()?;
        send.stopped().await.ok()?
    };
    let most = Duration::from_millis(CLOSE_MS);
    let _ = tokio::time::timeout(most, said).await;
    accepted.close(DONE, b"done");
    reason
}

/// TLS 1.3 with the gateway's raw public key, and the limits of a connection.
fn server_config(key: &QuicKey) -> io::Result<ServerConfig> {
    let mut tls = provider(key).map_err(io::Error::other)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    // Nothing of a session outlives it: no tickets, no early data.
    tls.send_tls13_tickets = 0;
    tls.max_early_data_size = 0;
    tls.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    let tls = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    config
        .transport_config(Arc::new(transport()))
        .migration(true)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES_ALL);
    // No NEW_TOKEN.
    config.validation_token.sent(0);
    Ok(config)
}

fn provider(key: &QuicKey) -> Result<rustls::ServerConfig, rustls::Error> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    // What boards have, and no more: the rest would only be more to send.
    provider.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::X25519];
    let unusable = || rustls::Error::General("the gateway's key is unusable".into());
    let der = PrivatePkcs8KeyDer::from(key.pkcs8().ok_or_else(unusable)?.to_vec());
    let signing = rustls::crypto::aws_lc_rs::sign::any_eddsa_type(&der)?;
    let spki = CertificateDer::from(key.spki().ok_or_else(unusable)?);
    let certified = rustls::sign::CertifiedKey::new(vec![spki], signing);
    let presented = AlwaysResolvesServerRawPublicKeys::new(Arc::new(certified));
    Ok(
        rustls::ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(presented)),
    )
}

/// One stream that the board opens, nothing else; and little memory for it.
fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .send_window(SEND_WINDOW)
        .crypto_buffer_size(CRYPTO_BUFFER)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MS))))
        // Probes of a larger packet cost a session some kilobytes of air, and save it 1 % of an image.
        .mtu_discovery_config(None);
    transport
}

/// Makes the tokens of stateless resets.
struct ResetKey(hmac::Key);

impl quinn::crypto::HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(hmac::sign(&self.0, data).as_ref());
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), quinn::crypto::CryptoError> {
        hmac::verify(&self.0, data, signature).map_err(|_| quinn::crypto::CryptoError)
    }
}
