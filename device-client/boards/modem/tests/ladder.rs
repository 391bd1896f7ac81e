//! Dialling, the recovery ladder and the deadlines, in virtual time.

mod support;

use std::time::Duration;

use dialhome_device::modem::{Authentication, CALL_MS, Config as ModemConfig, Fault};
use dialhome_device::transport::Transport;
use dialhome_modem::{Config, Faults};
use dialhome_proto::code::Link;

use support::{Bench, Device, Echo, GATEWAY, Silent};

fn bench() -> Bench {
    Bench::new(Config::default(), Faults::none(), Echo::default())
}

/// How long something takes.
fn timed<T>(bench: &Bench, what: impl FnOnce() -> T) -> (T, Duration) {
    let start = bench.now();
    let value = what();
    (value, bench.now() - start)
}

/// Sends a word, and gets it back from the echo.
fn exchange(bench: &Bench, device: &mut Device<'_>) {
    assert_eq!(device.send(b"hello"), Ok(5));
    assert_eq!(take(bench, device, 5), b"hello");
}

fn take(bench: &Bench, device: &mut Device<'_>, len: usize) -> Vec<u8> {
    let mut taken = Vec::new();
    let start = bench.now();
    while taken.len() < len {
        let mut room = [0; 64];
        let len = device.receive(&mut room).expect("an open connection");
        taken.extend(&room[..len]);
        bench.pass(Duration::from_millis(5));
        assert!(bench.now() < start + Duration::from_secs(60), "{taken:?}");
    }
    taken
}

#[test]
fn first_dial_tells_what_the_network_is() {
    let bench = bench();
    let config = ModemConfig::new("internet");
    let mut device = bench.device(&config, &mut []);
    assert!(!device.link_up());
    assert_eq!(device.connect(GATEWAY), Ok(()));
    assert!(device.link_up());
    let facts = device.facts();
    assert_eq!(
        (facts.link, facts.network, facts.signal_dbm),
        (Link::UMTS, "Emulated Mobile", -79)
    );
    assert_eq!(bench.sent("AT+USOCL="), 7, "sockets of the last life");
    assert_eq!(bench.sent("AT+UPSD=0,6"), 0);
    exchange(&bench, &mut device);
    device.close();
    assert_eq!(device.send(b"x"), Err(Fault::Closed));
    assert_eq!(device.receive(&mut [0; 4]), Err(Fault::Closed));
    // The context is still there, and the sockets are known.
    assert_eq!(device.connect(GATEWAY), Ok(()));
    assert_eq!(bench.sent("AT+UPSDA=0,3"), 1);
    assert_eq!(bench.sent("AT+USOCL="), 8);
}

#[test]
fn configured_link_goes_before_what_the_modem_says() {
    let bench = bench();
    let config = ModemConfig {
        link: Link::LTE_M,
        user: "board",
        password: "secret",
        authentication: Authentication::Chap,
        setup: &["AT&K0", "AT+UPSV=0", "AT+NONSENSE"],
        ..ModemConfig::new("internet")
    };
    let mut device = bench.device(&config, &mut []);
    assert_eq!(device.connect(GATEWAY), Ok(()));
    assert_eq!(device.facts().link, Link::LTE_M);
    assert_eq!(bench.sent("AT+UPSD=0,2,\"board\""), 1);
    assert_eq!(bench.sent("AT+UPSD=0,3,\"secret\""), 1);
    assert_eq!(bench.sent("AT+UPSD=0,6,2"), 1);
    assert_eq!(bench.sent("AT+NONSENSE"), 1);
}

#[test]
fn sockets_of_an_earlier_life_do_not_run_out() {
    let bench = bench();
    let config = ModemConfig::new("internet");
    for _ in 0..9 {
        // A board that loses its power, and its modem does not.
        let mut device = bench.device(&config, &mut []);
        assert_eq!(device.connect(GATEWAY), Ok(()));
        exchange(&bench, &mut device);
    }
}

#[test]
fn bad_names_are_refused_at_once() {
    let bench = bench();
    let config = ModemConfig::new("internet");
    let mut device = bench.device(&config, &mut []);
    for name in ["gateway", "gate\"way:1", ":1", "gateway:0"] {
        assert_eq!(device.connect(name), Err(Fault::BadName), "{name}");
    }
    assert_eq!(bench.sent("AT"), 0);
}

#[test]
fn gateway_that_does_not_answer_climbs_every_rung() {
    let bench = bench();
    let config = ModemConfig::new("internet");
    let mut device = bench.device(&config, &mut []);
    assert_eq!(device.connect(GATEWAY), Ok(()));
    exchange(&bench, &mut device);
    device.close();
    assert_eq!(device.rung(), 0);
    bench.order("no_network");
    let marks = || {
        (
            bench.sent("AT+USOCL="),
            bench.sent("AT+UPSDA=0,4"),
            bench.sent("AT+CFUN=16"),
            bench.world().resets,
        )
    };
    let before = marks();
    // Nothing was wrong before, so the first failure costs nothing.
    assert!(device.connect(GATEWAY).is_err());
    assert!(
        device.link_up(),
        "the network is there: the gateway does not answer"
    );
    assert_eq!(marks(), (before.0 + 1, 0, 0, 0));
    assert!(device.connect(GATEWAY).is_err());
    assert_eq!(
        marks(),
        (before.0 + 1 + 7 + 1, 0, 0, 0),
        "all sockets closed"
    );
    assert!(device.connect(GATEWAY).is_err());
    assert_eq!(
        (marks().1, marks().2, marks().3),
        (1, 0, 0),
        "context off and on"
    );
    assert!(device.connect(GATEWAY).is_err());
    assert_eq!((marks().1, marks().2, marks().3), (1, 1, 0), "restarted");
    assert!(device.connect(GATEWAY).is_err());
    assert_eq!(
        (marks().1, marks().2, marks().3),
        (1, 1, 1),
        "reset by its pin"
    );
    assert!(device.link_up());
    assert_eq!(device.rung(), 1, "and from the start");
    bench.order("network");
    assert_eq!(device.connect(GATEWAY), Ok(()));
    exchange(&bench, &mut device);
    assert_eq!(device.rung(), 0);
}

#[test]
fn gateway_that_takes_connections_and_says_nothing_climbs_too() {
    let bench = Bench::new(Config::default(), Faults::none(), Silent);
    let config = ModemConfig::new("internet");
    let mut device = bench.device(&config, &mut []);
    for rung in 0..5 {
        assert_eq!(device.rung(), rung);
        assert_eq!(device.connect(GATEWAY), Ok(()));
        assert!(device.send(b"hello").is_ok());
        device.close();
    }
    assert_eq!(bench.world().resets, 1);
}

#[test]
fn no_registration_is_no_link() {
    let bench = bench();
    let config = ModemConfig::new("internet");
    let mut device = bench.device(&config, &mut []);
    bench.order("drop_registration 600000");
    let (dialled, time) = timed(&bench, || device.connect(GATEWAY));
    assert_eq!(dialled, Err(Fault::NoLink));
    assert!(!device.link_up());
    assert!(time < Duration::from_secs(70), "{time:?}");
    bench.pass(Duration::from_secs(600));
    assert_eq!(device.connect(GATEWAY), Ok(()));
    assert!(device.link_up());
}

#[test]
fn registration_lost_in_a_connection_is_noticed() {
    for urcs_are_lost in [false, true] {
        let bench = bench();
        let config = ModemConfig::new("internet");
        let mut device = bench.device(&config, &mut []);
        assert_eq!(device.connect(GATEWAY), Ok(()));
        if urcs_are_lost {
            bench.order("lose_urcs 1000");
        }
        bench.order("drop_registration 120000");
        let start = bench.now();
        while device.link_up() {
            assert_eq!(device.receive(&mut [0; 8]), Ok(0));
            bench.pass(Duration::from_millis(100));
            assert!(bench.now() < start + Duration::from_secs(30));
        }
        // The connection outlives it.
        bench.pass(Duration::from_secs(130));
        exchange(&bench, &mut device);
        assert!(device.link_up());
    }
}

#[test]
fn mute_modem_is_restarted() {
    let bench = bench();
    bench.world().has_reset_pin = false;
    let config = ModemConfig::new("internet");
    let mut device = bench.device(&config, &mut []);
    assert_eq!(device.connect(GATEWAY), Ok(()));
    bench.order("mute");
    assert_eq!(device.send(b"hello"), Err(Fault::NoAnswer));
    assert!(!device.link_up());
    assert_eq!(device.connect(GATEWAY), Err(Fault::NoAnswer));
    assert_eq!(device.rung(), 3);
    // The modem still hears.
    assert_eq!(device.connect(GATEWAY), Ok(()));
    assert_eq!(bench.sent("AT+CFUN=16"), 1);
    exchange(&bench, &mut device);
}

#[test]
fn hanging_modem_is_reset_by_its_pin() {
    let bench = bench();
    let config = ModemConfig::new("internet");
    let mut device = bench.device(&config, &mut []);
    assert_eq!(device.connect(GATEWAY), Ok(()));
    bench.order("hang");
    let (received, time) = timed(&bench, || {
        loop {
            match device.receive(&mut [0; 8]) {
                Ok(0) => bench.pass(Duration::from_millis(100)),
                other => break other,
            }
        }
    });
    assert_eq!(received, Err(Fault::NoAnswer));
    assert!(time < Duration::from_secs(10), "{time:?}");
    let mut dials = 0;
    while device.connect(GATEWAY).is_err() {
        assert!(!device.link_up());
        dials += 1;
        assert!(dials < 5);
    }
    assert_eq!((dials, bench.world().resets), (2, 1));
    exchange(&bench, &mut device);
}

#[test]
fn modem_left_in_the_middle_of_a_write_comes_back() {
    let bench = bench();
    let config = ModemConfig::new("internet");
    let mut device = bench.device(&config, &mut []);
    assert_eq!(device.connect(GATEWAY), Ok(()));
    // The board loses its power between the prompt and the data.
    let mut line = bench.clone();
    embedded_io::Write::write_all(&mut line, b"AT+USOWR=0,1024\r").expect("infallible");
    bench.pass(Duration::from_secs(1));
    let mut device = bench.device(&config, &mut []);
    assert_eq!(device.connect(GATEWAY), Ok(()));
    exchange(&bench, &mut device);
}

#[test]
fn bytes_before_the_close_are_received_first() {
    for urcs_are_lost in [false, true] {
        let bench = bench();
        let config = ModemConfig::new("internet");
        let mut device = bench.device(&config, &mut []);
        assert_eq!(device.connect(GATEWAY), Ok(()));
        if urcs_are_lost {
            bench.order("lose_urcs 1000");
        }
        assert_eq!(device.send(&[7; 300]), Ok(300));
        bench.pass(Duration::from_secs(1));
        bench.order("close_socket");
        assert_eq!(take(&bench, &mut device, 300), [7; 300]);
        let start = bench.now();
        let last = loop {
            match device.receive(&mut [0; 8]) {
                Ok(0) => bench.pass(Duration::from_millis(50)),
                other => break other,
            }
        };
        assert!(last.is_err(), "{last:?}");
        assert!(bench.now() < start + Duration::from_secs(10));
        assert!(device.link_up());
    }
}

#[test]
fn full_modem_takes_bytes_later() {
    let bench = bench();
    let config = ModemConfig::new("internet");
    let mut device = bench.device(&config, &mut []);
    assert_eq!(device.connect(GATEWAY), Ok(()));
    bench.order("stall 20000");
    let mut sent = 0;
    let start = bench.now();
    loop {
        match device.send(&[5; 1000]) {
            Ok(0) => break,
            Ok(len) => sent += len,
            Err(fault) => panic!("{fault:?}"),
        }
    }
    assert_eq!(sent, 4000, "the modem's buffer has 4096 bytes");
    while bench.now() < start + Duration::from_secs(19) {
        assert_eq!(device.send(&[5; 1000]), Ok(0));
        bench.pass(Duration::from_millis(100));
    }
    bench.pass(Duration::from_secs(3));
    assert_eq!(device.send(&[5; 1000]), Ok(1000));
    assert_eq!(take(&bench, &mut device, 5000), [5; 5000]);
}

#[test]
fn nothing_is_asked_of_a_quiet_modem() {
    let bench = bench();
    let config = ModemConfig::new("internet");
    let mut device = bench.device(&config, &mut []);
    assert_eq!(device.connect(GATEWAY), Ok(()));
    let start = bench.now();
    let before = bench.sent("AT+");
    while bench.now() < start + Duration::from_secs(100) {
        assert_eq!(device.receive(&mut [0; 8]), Ok(0));
        bench.pass(Duration::from_millis(10));
    }
    // A look every 5 s, and at the registration every 20.
    let asked = bench.sent("AT+") - before;
    assert!((20..=27).contains(&asked), "{asked}");
}

/// What may go wrong at any moment.
const TROUBLES: [&str; 9] = [
    "hang",
    "mute",
    "freeze 3600000",
    "silent 1000",
    "error 1000",
    "rubbish 1000",
    "cut_power 3600000",
    "drop_registration 3600000",
    "stall 3600000",
];

#[test]
fn no_dial_takes_longer_than_it_may() {
    for trouble in TROUBLES {
        for connect_ms in [10_000, 180_000] {
            for rung in 0..5 {
                let bench = bench();
                let config = ModemConfig {
                    connect_ms,
                    ..ModemConfig::new("internet")
                };
                let mut device = bench.device(&config, &mut []);
                bench.order("no_network");
                while device.rung() < rung {
                    assert!(device.connect(GATEWAY).is_err());
                }
                bench.order("network");
                bench.order(trouble);
                let (dialled, time) = timed(&bench, || device.connect(GATEWAY));
                // A step of the clock, and the bytes of the last command.
                let bound = Duration::from_millis(u64::from(connect_ms) + 100);
                assert!(time <= bound, "{trouble}, rung {rung}: {time:?}");
                // Only a restart helps, and a network that stalls is found out later.
                let may_work = rung >= 3 || trouble == "stall 3600000";
                assert!(may_work || dialled.is_err(), "{trouble}, rung {rung}");
            }
        }
    }
}

#[test]
fn no_call_takes_longer_than_it_may() {
    let bound = Duration::from_millis(u64::from(CALL_MS));
    for trouble in TROUBLES {
        for hex in [false, true] {
            for call in 0..3 {
                let bench = bench();
                let config = ModemConfig {
                    hex,
                    ..ModemConfig::new("internet")
                };
                let mut device = bench.device(&config, &mut []);
                assert_eq!(device.connect(GATEWAY), Ok(()));
                assert_eq!(device.send(&[1; 200]), Ok(200));
                bench.pass(Duration::from_secs(1));
                bench.order(trouble);
                let ((), time) = timed(&bench, || match call {
                    0 => drop(device.send(&[2; 100])),
                    1 => drop(device.receive(&mut [0; 100])),
                    _ => device.close(),
                });
                assert!(time <= bound, "{trouble}, call {call}: {time:?}");
            }
        }
    }
}
