use super::*;
use crate::agent::quic_gateway::{Gateway, LONG, Quirks, Served};
use dialhome_proto::link::quic::DONE;
use quinn_proto::{TransportErrorCode, VarInt};
use std::{format, net::UdpSocket, vec};

fn transport(pin: [u8; 32]) -> QuicTransport {
    QuicTransport::new(&[[9; 32], pin], Duration::ZERO, Signals::none().unwrap()).unwrap()
}

fn dial(gateway: &Gateway) -> Result<QuicTransport, QuicError> {
    let mut transport = transport(gateway.pin);
    transport
        .connect(&[gateway.address], Instant::now() + LONG)
        .map(|_| transport)
}

fn gateway() -> Gateway {
    Gateway::at("127.0.0.1:0", &Quirks::default()).unwrap()
}

/// Waits for what `step` does, woken by the connection.
fn until<T>(
    transport: &mut QuicTransport,
    mut step: impl FnMut(&mut QuicTransport) -> Option<T>,
) -> T {
    let end = Instant::now() + LONG;
    loop {
        if let Some(done) = step(transport) {
            return done;
        }
        assert!(Instant::now() < end, "nothing came");
        transport.wait(true, false, Duration::from_secs(1)).unwrap();
    }
}

/// Everything until the gateway's end of it.
fn read_all(transport: &mut QuicTransport) -> Vec<u8> {
    let mut all = Vec::new();
    until(transport, |transport| {
        let mut room = [0; 1000];
        match transport.receive(&mut room) {
            Ok(len) => {
                all.extend_from_slice(&room[..len]);
                None
            }
            Err(QuicError::Closed) => Some(()),
            Err(error) => panic!("{error}"),
        }
    });
    all
}

fn send_all(transport: &mut QuicTransport, mut bytes: &[u8]) {
    let end = Instant::now() + LONG;
    while !bytes.is_empty() {
        assert!(Instant::now() < end, "nothing is taken");
        bytes = &bytes[transport.send(bytes).unwrap()..];
        if !bytes.is_empty() {
            transport.wait(false, true, Duration::from_secs(1)).unwrap();
        }
    }
}

#[test]
fn bytes_go_both_ways_over_ipv4_and_ipv6() {
    let mut tried = 0;
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let Some(gateway) = Gateway::at(address, &Quirks::default()) else {
            continue;
        };
        tried += 1;
        let served = gateway.serve(|connection, mut send, mut receive| async move {
            let said = receive.read_to_end(100).await.unwrap();
            send.write_all(&said).await.unwrap();
            send.finish().unwrap();
            connection.closed().await
        });
        let mut transport = dial(&gateway).unwrap();
        send_all(&mut transport, b"hello");
        let link = transport.link.as_mut().unwrap();
        let stream = link.stream.unwrap();
        link.connection.send_stream(stream).finish().unwrap();
        link.drive();
        assert_eq!(read_all(&mut transport), b"hello");
        transport.close();
        gateway.end(served);
    }
    assert!(tried > 0);
}

#[test]
fn both_ends_have_the_same_exporter_and_no_other_connection_has_it() {
    let gateway = gateway();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let served = gateway.serve(|connection, _send, _receive| async move {
            let mut theirs = [0; EXPORTER_LEN];
            connection
                .export_keying_material(&mut theirs, EXPORTER_LABEL, &[7; 8])
                .unwrap();
            theirs
        });
        let mut transport = dial(&gateway).unwrap();
        send_all(&mut transport, b"x");
        let ours = transport.exporter(&[7; 8]).unwrap();
        assert_ne!(transport.exporter(&[8; 8]), Some(ours));
        assert_eq!(gateway.end(served), ours);
        seen.push(ours);
    }
    assert_ne!(seen[0], seen[1]);
    assert_eq!(transport(gateway.pin).exporter(&[7; 8]), None);
}

#[test]
fn much_arrives_whole_and_the_windows_hold() {
    let gateway = gateway();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let sent = bytes.clone();
    let served = gateway.serve(|connection, mut send, _receive| async move {
        send.write_all(&sent).await.unwrap();
        send.finish().unwrap();
        connection.closed().await
    });
    let mut transport = dial(&gateway).unwrap();
    send_all(&mut transport, b"x");
    assert!(read_all(&mut transport) == bytes);
    transport.close();
    gateway.end(served);
}

#[test]
fn a_full_window_takes_nothing_and_goes_on_when_it_is_read() {
    let quirks = Quirks {
        window: 10_000,
        ..Quirks::default()
    };
    let gateway = Gateway::at("127.0.0.1:0", &quirks).unwrap();
    let (go, gone) = tokio::sync::oneshot::channel();
    let served = gateway.serve(|_connection, _send, mut receive| async move {
        gone.await.unwrap();
        receive.read_to_end(1 << 20).await.unwrap().len()
    });
    let mut transport = dial(&gateway).unwrap();
    let mut sent = 0;
    let end = Instant::now() + LONG;
    // What was taken is acknowledged, and the window still full.
    while sent < 10_000 {
        assert!(Instant::now() < end, "{sent} were taken");
        sent += transport.send(&[7; 4096]).unwrap();
        transport
            .wait(true, false, Duration::from_millis(10))
            .unwrap();
    }
    assert_eq!(sent, 10_000);
    assert_eq!(transport.send(b"more").unwrap(), 0);
    go.send(()).unwrap();
    send_all(&mut transport, &[8; 100_000]);
    transport.close();
    assert_eq!(gateway.end(served), 110_000);
}

#[test]
fn a_close_is_an_error_after_the_last_byte() {
    let gateway = gateway();
    let served = gateway.serve(|connection, mut send, _receive| async move {
        send.write_all(b"end").await.unwrap();
        // At once: as a refusal and the close behind it.
        connection.close(VarInt::from_u32(0x104), b"busy");
        connection.closed().await
    });
    let mut transport = dial(&gateway).unwrap();
    // The close may overtake what is on the way, and never comes twice.
    send_all(&mut transport, b"x");
    let said = read_all(&mut transport);
    assert!(said.is_empty() || said == b"end", "{said:?}");
    gateway.end(served);
    assert!(matches!(
        transport.receive(&mut [0; 1]),
        Err(QuicError::Closed)
    ));
    transport.close();
    assert!(matches!(transport.send(b"x"), Err(QuicError::Closed)));
    assert!(matches!(
        transport.receive(&mut [0; 1]),
        Err(QuicError::Closed)
    ));
    assert!(!transport.is_open());
}

#[test]
fn what_was_sent_before_a_close_arrives_though_bytes_were_unread() {
    let gateway = gateway();
    let served = gateway.serve(|connection, mut send, mut receive| async move {
        send.write_all(&[1; 1000]).await.unwrap();
        let said = receive.read_to_end(10_000).await.unwrap();
        (said, connection.closed().await)
    });
    let mut transport = dial(&gateway).unwrap();
    send_all(&mut transport, b"x");
    until(&mut transport, |transport| {
        Some(transport.receive(&mut [0; 1]).unwrap()).filter(|len| *len > 0)
    });
    send_all(&mut transport, &[2; 5000]);
    transport.close();
    let (said, closed) = gateway.end(served);
    assert_eq!(said.len(), 5001);
    let ConnectionError::ApplicationClosed(close) = closed else {
        panic!("{closed}");
    };
    assert_eq!(close.error_code, VarInt::from_u32(DONE));
}

#[test]
fn a_gateway_that_is_gone_does_not_hold_up_a_close() {
    let gateway = gateway();
    let served = gateway.serve(|_connection, _send, mut receive| async move {
        receive.read_to_end(100).await.map(|said| said.len())
    });
    let mut transport = dial(&gateway).unwrap();
    send_all(&mut transport, b"x");
    let link = transport.link.as_mut().unwrap();
    // From here on everything goes to a socket that nobody reads.
    let nowhere = UdpSocket::bind("127.0.0.1:0").unwrap();
    link.socket = nowhere;
    link.socket.set_nonblocking(true).unwrap();
    link.socket.connect("127.0.0.1:9").unwrap();
    let start = Instant::now();
    transport.send(b"y").unwrap();
    transport.close();
    let took = start.elapsed();
    assert!(took < LONG / 2, "{took:?}");
    drop(served);
}

#[test]
fn another_key_than_the_pins_is_named() {
    let gateway = gateway().take_all();
    let mut transport = transport([3; 32]);
    let error = transport
        .connect(&[gateway.address], Instant::now() + LONG)
        .unwrap_err();
    assert!(matches!(error, QuicError::WrongPin), "{error}");
    assert!(error.to_string().starts_with("wrong_pin: "), "{error}");
    // It is the pin that was wrong.
    assert!(dial(&gateway).is_ok());
}

#[test]
fn a_key_without_its_secret_is_worth_nothing() {
    let quirks = Quirks {
        own: [2; 32],
        ..Quirks::default()
    };
    let gateway = Gateway::at("127.0.0.1:0", &quirks).unwrap().take_all();
    let error = dial(&gateway).unwrap_err();
    let QuicError::Failed(ConnectionError::TransportError(fault)) = &error else {
        panic!("{error}");
    };
    // TLS's alert decrypt_error.
    assert_eq!(fault.code, TransportErrorCode::crypto(51), "{error}");
}

#[test]
fn another_protocol_is_no_gateway() {
    let quirks = Quirks {
        protocol: b"h3",
        ..Quirks::default()
    };
    let gateway = Gateway::at("127.0.0.1:0", &quirks).unwrap().take_all();
    let error = dial(&gateway).unwrap_err();
    assert!(matches!(error, QuicError::Failed(_)), "{error}");
}

#[test]
fn a_port_where_nobody_listens_is_said_at_once() {
    let gone = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let mut transport = transport([1; 32]);
    let error = transport
        .connect(&[address], Instant::now() + LONG)
        .unwrap_err();
    assert!(matches!(error, QuicError::Refused), "{error}");
}

#[test]
fn a_gateway_that_does_not_answer_ends_with_the_dials_time_and_leaves_some_to_others() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent_at = silent.local_addr().unwrap();
    let mut transport = transport([1; 32]);
    let bound = Duration::from_millis(300);
    let error = transport
        .connect(&[silent_at], Instant::now() + bound)
        .unwrap_err();
    assert!(matches!(error, QuicError::NotReached), "{error}");
    let gateway = gateway().take_all();
    let mut transport =
        QuicTransport::new(&[gateway.pin], Duration::ZERO, Signals::none().unwrap()).unwrap();
    let peer = transport.connect(
        &[silent_at, gateway.address],
        Instant::now() + Duration::from_secs(8),
    );
    assert_eq!(peer.unwrap(), gateway.address);
}

#[test]
fn a_request_to_end_ends_a_dial() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut transport =
        QuicTransport::new(&[[1; 32]], Duration::ZERO, Signals::stopped().unwrap()).unwrap();
    let error = transport
        .connect(&[silent.local_addr().unwrap()], Instant::now() + LONG)
        .unwrap_err();
    assert!(matches!(error, QuicError::Stopping), "{error}");
}

#[test]
fn a_session_goes_on_after_work_during_which_nobody_served_it() {
    let gateway = gateway();
    let served = gateway.serve(|connection, mut send, mut receive| async move {
        receive.read_exact(&mut [0; 1]).await.unwrap();
        send.write_all(b"are you there?").await.unwrap();
        // Nobody acknowledges it, so it is sent again, and again.
        let sent = connection.stats().udp_tx.datagrams;
        while connection.stats().udp_tx.datagrams < sent + 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        (connection, send, receive)
    });
    let mut transport = dial(&gateway).unwrap();
    send_all(&mut transport, b"x");
    // The work: it ends when the gateway has probed three times.
    let (_connection, _send, mut receive) = gateway.end(served);
    let mut room = [0; 100];
    let len = until(&mut transport, |transport| {
        Some(transport.receive(&mut room).unwrap()).filter(|len| *len > 0)
    });
    assert_eq!(&room[..len], b"are you there?");
    send_all(&mut transport, b"yes");
    let mut said = [0; 3];
    gateway
        .runtime
        .block_on(receive.read_exact(&mut said))
        .unwrap();
    assert_eq!(&said, b"yes");
}

/// A NAT between the board and the gateway, whose mapping can be made anew.
struct Nat {
    address: SocketAddr,
    renew: tokio::sync::mpsc::Sender<()>,
}

impl Nat {
    fn start(gateway: &Gateway) -> Self {
        let (renew, mut renewals) = tokio::sync::mpsc::channel(1);
        let inside = gateway
            .runtime
            .block_on(tokio::net::UdpSocket::bind("127.0.0.1:0"))
            .unwrap();
        let address = inside.local_addr().unwrap();
        let to = gateway.address;
        gateway.runtime.spawn(async move {
            let outside = || tokio::net::UdpSocket::bind("127.0.0.1:0");
            let mut mapped = outside().await.unwrap();
            // Whether the board has sent anything by this mapping.
            let mut board = None;
            let (mut out, mut back) = (vec![0; 2000], vec![0; 2000]);
            loop {
                tokio::select! {
                    Ok((len, from)) = inside.recv_from(&mut out) => {
                        board = Some(from);
                        let _ = mapped.send_to(&out[..len], to).await;
                    }
                    Ok((len, _)) = mapped.recv_from(&mut back) => {
                        if let Some(board) = board {
                            let _ = inside.send_to(&back[..len], board).await;
                        }
                    }
                    Some(()) = renewals.recv() => {
                        mapped = outside().await.unwrap();
                        board = None;
                    }
                    else => return,
                }
            }
        });
        Self { address, renew }
    }
}

#[test]
fn a_mapping_that_has_expired_is_noticed_while_something_is_expected() {
    let gateway = gateway();
    let nat = Nat::start(&gateway);
    let renew = nat.renew.clone();
    let served: Served<_> = gateway.serve(|connection, mut send, mut receive| async move {
        receive.read_exact(&mut [0; 1]).await.unwrap();
        send.write_all(&[1; 1000]).await.unwrap();
        receive.read_exact(&mut [0; 1]).await.unwrap();
        let before = connection.remote_address();
        renew.send(()).await.unwrap();
        send.write_all(&[2; 50_000]).await.unwrap();
        receive.read_exact(&mut [0; 1]).await.unwrap();
        (before, connection.remote_address())
    });
    let mut transport = transport(gateway.pin);
    transport
        .connect(&[nat.address], Instant::now() + LONG)
        .unwrap();
    send_all(&mut transport, b"x");
    transport.expect(true);
    for len in [1000, 50_000] {
        let mut missing = len;
        until(&mut transport, |transport| {
            let mut room = vec![0; missing];
            missing -= transport.receive(&mut room).unwrap();
            (missing == 0).then_some(())
        });
        send_all(&mut transport, b"x");
    }
    let (before, after) = gateway.end(served);
    assert_ne!(before, after);
    let text = format!("{:?}", transport.link);
    assert!(text.contains(&nat.address.to_string()), "{text}");
}
