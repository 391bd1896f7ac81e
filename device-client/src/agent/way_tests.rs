use super::*;
use crate::agent::{
    quic_gateway::{Gateway, LONG, Quirks},
    signals::Signals,
};
use dialhome_proto::code::Link;
use std::{
    fs,
    net::{TcpListener, UdpSocket},
    path::Path,
    string::ToString as _,
};

/// Both on one port of the loopback.
fn ports() -> (TcpListener, UdpSocket) {
    for _ in 0..100 {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
            return (tcp, udp);
        }
    }
    panic!("no port is free of both TCP and UDP");
}

fn way(dir: &Path, choice: Quic, pins: &[[u8; 32]], network: &str, time: Duration) -> Way {
    let signals = Signals::none().unwrap();
    let tcp = TcpTransport::new(time, Link::LTE, network, signals.clone());
    let quic = QuicTransport::new(pins, Duration::ZERO, signals).unwrap();
    let networks = Networks::open(dir.join("networks"), pins);
    Way::new(tcp, choice, Some(quic), networks)
}

/// Takes the connections that are there, and forgets them; how many there were.
fn taken(tcp: &TcpListener) -> usize {
    tcp.set_nonblocking(true).unwrap();
    core::iter::from_fn(|| tcp.accept().ok()).count()
}

/// Takes the datagrams that are there; how many of them may begin a connection.
fn initials(udp: &UdpSocket) -> usize {
    udp.set_nonblocking(true).unwrap();
    let mut room = [0; 2000];
    let mut next = || udp.recv(&mut room).ok();
    core::iter::from_fn(&mut next)
        .filter(|len| *len >= 1200)
        .count()
}

#[test]
fn quic_goes_first_where_it_works_and_the_network_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let (tcp, udp) = ports();
    let address = udp.local_addr().unwrap().to_string();
    let gateway = Gateway::start(udp, &Quirks::default());
    let served = gateway.serve(|connection, mut send, mut receive| async move {
        receive.read_exact(&mut [0; 1]).await.unwrap();
        send.write_all(b"y").await.unwrap();
        connection.closed().await
    });
    let mut way = way(dir.path(), Quic::Prefer, &[gateway.pin], "", LONG);
    assert!(way.exporter(&Handle([0; 8])).is_none());
    way.connect(&address).unwrap();
    assert!(way.exporter(&Handle([0; 8])).is_some());
    assert_eq!(way.send(b"x").unwrap(), 1);
    let end = Instant::now() + LONG;
    while way.receive(&mut [0; 1]).unwrap() == 0 {
        assert!(Instant::now() < end, "nothing came");
        way.wait(true, false, Duration::from_secs(1)).unwrap();
    }
    way.proven();
    way.close();
    gateway.end(served);
    assert_eq!(taken(&tcp), 0);
    let noted = fs::read_to_string(dir.path().join("networks")).unwrap();
    assert!(noted.ends_with(&std::format!(" {address} lo\n")), "{noted}");
    assert_eq!(noted.lines().nth(1).unwrap().split(' ').next(), Some("0"));
}

#[test]
fn where_udp_is_blocked_it_is_tcp_and_the_next_dial_does_not_wait_for_quic() {
    let dir = tempfile::tempdir().unwrap();
    let (tcp, udp) = ports();
    let address = udp.local_addr().unwrap().to_string();
    let time = Duration::from_secs(2);
    let mut first = way(dir.path(), Quic::Prefer, &[[1; 32]], "cellar", time);
    first.connect(&address).unwrap();
    assert!(first.exporter(&Handle([0; 8])).is_none());
    first.close();
    assert!(initials(&udp) > 0);
    first.connect(&address).unwrap();
    // And so after a start of the agent.
    let mut second = way(dir.path(), Quic::Prefer, &[[1; 32]], "cellar", time);
    second.connect(&address).unwrap();
    assert_eq!((initials(&udp), taken(&tcp)), (0, 3));
    // Another network may let it through.
    let mut other = way(dir.path(), Quic::Prefer, &[[1; 32]], "attic", time);
    other.connect(&address).unwrap();
    assert!(initials(&udp) > 0);
    // A damaged memory costs a try.
    fs::write(dir.path().join("networks"), "scribble").unwrap();
    let mut third = way(dir.path(), Quic::Prefer, &[[1; 32]], "cellar", time);
    third.connect(&address).unwrap();
    assert!(initials(&udp) > 0);
}

#[test]
fn off_sends_no_datagram_and_only_opens_no_tcp() {
    let dir = tempfile::tempdir().unwrap();
    let (tcp, udp) = ports();
    let address = udp.local_addr().unwrap().to_string();
    let time = Duration::from_millis(500);
    let mut off = way(dir.path(), Quic::Off, &[[1; 32]], "", time);
    off.connect(&address).unwrap();
    assert_eq!((initials(&udp), taken(&tcp)), (0, 1));
    let mut only = way(dir.path(), Quic::Only, &[[1; 32]], "", time);
    for _ in 0..2 {
        let error = only.connect(&address).unwrap_err();
        assert!(
            matches!(error, WayError::Quic(QuicError::NotReached)),
            "{error}"
        );
        assert!(initials(&udp) > 0);
    }
    assert_eq!(taken(&tcp), 0);
    drop(udp);
    let error = only.connect(&address).unwrap_err();
    assert!(
        matches!(error, WayError::Quic(QuicError::Refused)),
        "{error}"
    );
}

#[test]
fn a_gateway_with_another_key_is_spoken_to_over_tcp_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (tcp, udp) = ports();
    let address = udp.local_addr().unwrap().to_string();
    let gateway = Gateway::start(udp, &Quirks::default()).take_all();
    let mut only = way(dir.path(), Quic::Only, &[[9; 32]], "", LONG);
    let error = only.connect(&address).unwrap_err();
    assert!(
        matches!(error, WayError::Quic(QuicError::WrongPin)),
        "{error}"
    );
    assert!(error.to_string().contains("wrong_pin"), "{error}");
    assert_eq!(taken(&tcp), 0);
    let mut prefer = way(dir.path(), Quic::Prefer, &[[9; 32]], "", LONG);
    prefer.connect(&address).unwrap();
    assert!(prefer.exporter(&Handle([0; 8])).is_none());
    assert_eq!(taken(&tcp), 1);
    // With the right pins what was noted with the wrong ones says nothing.
    let mut right = way(dir.path(), Quic::Prefer, &[gateway.pin], "", LONG);
    right.connect(&address).unwrap();
    assert!(right.exporter(&Handle([0; 8])).is_some());
    // Whatever it says, the device key is not proven on it: the next dial does without.
    right.close();
    right.connect(&address).unwrap();
    assert!(right.exporter(&Handle([0; 8])).is_none());
}

#[test]
fn a_gateway_without_quic_is_reached_without_a_wait() {
    let dir = tempfile::tempdir().unwrap();
    let (tcp, udp) = ports();
    let address = udp.local_addr().unwrap().to_string();
    drop(udp);
    let mut way = way(dir.path(), Quic::Prefer, &[[1; 32]], "", LONG);
    way.connect(&address).unwrap();
    assert_eq!(taken(&tcp), 1);
    assert!(
        way.said.ends_with("nobody listens on that UDP port"),
        "{}",
        way.said
    );
}
