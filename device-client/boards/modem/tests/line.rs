//! The serial line: a modem that holds CTS back, lines that come late, and texts that
//! would be commands of their own.

mod support;

use std::time::Duration;

use dialhome_device::modem::{CALL_MS, CONNECT_MS, Config as ModemConfig, Fault};
use dialhome_device::transport::Transport;
use dialhome_modem::{Config, Faults};

use support::{Bench, Device, Echo, GATEWAY};

/// What a modem that takes no bytes adds to each bound.
const CTS: Duration = Duration::from_secs(3);
/// The longest time without a turn of the board's main loop, where its watchdog is fed.
const TURN: Duration = Duration::from_secs(3);

fn bench() -> Bench {
    Bench::new(Config::default(), Faults::none(), Echo::default())
}

/// Whether it ended in time, with the watchdog fed all the while.
fn assert_bounded(bench: &Bench, start: Duration, most_ms: u32, what: &str) {
    let time = bench.now() - start;
    let bound = Duration::from_millis(u64::from(most_ms)) + CTS;
    assert!(time <= bound, "{what}: {time:?}");
    let turn = bench.world().longest_turn;
    assert!(turn <= TURN, "{what}: {turn:?} without a turn");
}

#[test]
fn dial_over_a_line_that_takes_no_bytes_is_bounded() {
    for connect_ms in [10_000, CONNECT_MS] {
        for takes in [0, 1, 2, 30, 150] {
            let bench = bench();
            let config = ModemConfig {
                connect_ms,
                ..ModemConfig::new("internet")
            };
            let mut device = bench.device(&config, &mut []);
            // A dial needs more than 200 bytes.
            for rung in 0..6 {
                let start = bench.now();
                bench.hold_cts(takes);
                let what = format!("{takes} bytes, dial {rung}");
                assert_eq!(device.connect(GATEWAY), Err(Fault::NoAnswer), "{what}");
                assert_bounded(&bench, start, connect_ms, &what);
            }
            bench.hold_cts(usize::MAX);
            assert_eq!(device.connect(GATEWAY), Ok(()), "the line is free again");
        }
    }
}

#[test]
fn calls_over_a_line_that_takes_no_bytes_are_bounded() {
    for hex in [false, true] {
        for takes in [0, 3, 20, 500] {
            for call in 0..3 {
                let bench = bench();
                let config = ModemConfig {
                    hex,
                    ..ModemConfig::new("internet")
                };
                let mut device = bench.device(&config, &mut []);
                assert_eq!(device.connect(GATEWAY), Ok(()));
                bench.pass(Duration::from_secs(6));
                let start = bench.now();
                bench.hold_cts(takes);
                match call {
                    0 => drop(device.send(&[2; 1024])),
                    1 => drop(device.receive(&mut [0; 100])),
                    _ => device.close(),
                }
                assert_bounded(&bench, start, CALL_MS, &format!("{takes}, call {call}"));
            }
        }
    }
}

/// A dial in which the modem says something late about the socket's life before.
fn late<'c>(bench: &Bench, config: &'c ModemConfig<'c>, text: &'static str) -> Device<'c> {
    bench.world().late = Some(("AT+USOCR=6\r", Duration::from_millis(100), text));
    bench.device(config, &mut [])
}

#[test]
fn late_close_does_not_hit_the_next_connection() {
    let bench = bench();
    let config = ModemConfig::new("internet");
    let mut device = late(&bench, &config, "\r\n+UUSOCL: 0\r\n");
    assert_eq!(device.connect(GATEWAY), Ok(()));
    assert_eq!(bench.world().late, None, "it was said");
    assert_eq!(device.send(b"hello"), Ok(5));
    bench.pass(Duration::from_secs(1));
    let mut room = [0; 8];
    assert_eq!(device.receive(&mut room), Ok(5));
    assert_eq!(device.receive(&mut room), Ok(0));
}

#[test]
fn late_word_of_a_connection_is_not_of_the_next() {
    let bench = bench();
    let config = ModemConfig {
        connect_async: true,
        ..ModemConfig::new("internet")
    };
    let mut device = late(&bench, &config, "\r\n+UUSOCO: 0,0\r\n");
    // Nothing is there before the network moves again.
    let moves_at = bench.now() + Duration::from_secs(30);
    bench.order("stall 30000");
    assert_eq!(device.connect(GATEWAY), Ok(()));
    assert!(bench.now() >= moves_at, "{:?}", bench.now());
    assert_eq!(bench.world().late, None, "it was said");
}

#[test]
fn texts_that_would_be_commands_are_refused_at_once() {
    let plain = ModemConfig::new("internet");
    for bad in ["x\"", "x\r", "x\nAT+CFUN=0", "x\0"] {
        let setup = [bad];
        let configs = [
            ModemConfig { apn: bad, ..plain },
            ModemConfig { user: bad, ..plain },
            ModemConfig {
                password: bad,
                ..plain
            },
            ModemConfig {
                setup: &setup,
                ..plain
            },
        ];
        for (place, config) in configs.iter().enumerate() {
            // A quotation mark may stand in a command of the board's own.
            if place == 3 && bad.contains('"') {
                continue;
            }
            let bench = bench();
            let mut device = bench.device(config, &mut []);
            assert_eq!(device.connect(GATEWAY), Err(Fault::BadName), "{bad:?}");
            assert_eq!(bench.sent("x"), 0);
        }
    }
}

#[test]
fn secrets_do_not_show() {
    let config = ModemConfig {
        user: "someone",
        password: "secret",
        setup: &["AT+CPIN=\"1234\""],
        ..ModemConfig::new("internet")
    };
    let shown = format!("{config:?}");
    assert!(shown.contains("internet"), "{shown}");
    for hidden in ["someone", "secret", "1234"] {
        assert!(!shown.contains(hidden), "{shown}");
    }
}
