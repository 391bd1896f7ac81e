//! 100 KB in both directions through each kind of fault, in virtual time: what arrives is
//! what was sent, and it arrives.

mod support;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use dialhome_device::modem::Config as ModemConfig;
use dialhome_device::transport::Transport as _;
use dialhome_modem::{Config, Faults, Key, Kind};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use support::{Bench, GATEWAY, Peer};

/// Bytes each way.
const LEN: usize = 100_000;
/// Bytes of one record, at most.
const RECORD: usize = 700;
/// Length and check.
const HEADER: usize = 6;
/// A transfer that takes longer has failed, whatever the faults.
const TIME_MAX: Duration = Duration::from_secs(4 * 3600);

fn payload(seed: u64) -> Rc<Vec<u8>> {
    let mut dice = StdRng::seed_from_u64(seed);
    Rc::new((0..LEN).map(|_| dice.random()).collect())
}

/// FNV-1a, in the place of the protocol's authentication.
fn check(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811C_9DC5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

fn record(bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).expect("a short record");
    [&len.to_le_bytes()[..], &check(bytes).to_le_bytes(), bytes].concat()
}

/// One end of the transfer: it sends its count of what it has first, and then from where
/// the other end's count says.
struct End {
    has: Vec<u8>,
    wants: Rc<Vec<u8>>,
    gives: Rc<Vec<u8>>,
    /// Where to go on, once the other end has said.
    given: Option<usize>,
    arrived: Vec<u8>,
    to_send: VecDeque<u8>,
    corrupted: u32,
}

impl End {
    fn new(gives: &Rc<Vec<u8>>, wants: &Rc<Vec<u8>>) -> Self {
        Self {
            has: Vec::new(),
            wants: Rc::clone(wants),
            gives: Rc::clone(gives),
            given: None,
            arrived: Vec::new(),
            to_send: VecDeque::new(),
            corrupted: 0,
        }
    }

    fn connected(&mut self) {
        self.given = None;
        self.arrived.clear();
        self.to_send = record(&u32::try_from(self.has.len()).expect("short").to_le_bytes()).into();
    }

    /// False: what came is not what the other end sent.
    fn received(&mut self, bytes: &[u8]) -> bool {
        self.arrived.extend(bytes);
        loop {
            let Some((header, rest)) = self.arrived.split_first_chunk::<HEADER>() else {
                return true;
            };
            let len = usize::from(u16::from_le_bytes([header[0], header[1]]));
            if len > RECORD {
                self.corrupted += 1;
                return false;
            }
            let Some(body) = rest.get(..len) else {
                return true;
            };
            if check(body).to_le_bytes() != header[2..] {
                self.corrupted += 1;
                return false;
            }
            if self.given.is_none() {
                let count = body.try_into().map(u32::from_le_bytes).expect("a count");
                self.given = Some(count as usize);
            } else {
                self.has.extend(body);
                assert!(
                    self.wants.starts_with(&self.has),
                    "other bytes than were sent"
                );
            }
            self.arrived.drain(..HEADER + len);
        }
    }

    fn fill(&mut self) {
        let Some(given) = &mut self.given else {
            return;
        };
        if self.to_send.is_empty() && *given < self.gives.len() {
            // Lengths that fit no limit of the modem.
            let len = (1 + *given * 7 % RECORD).min(self.gives.len() - *given);
            self.to_send
                .extend(record(&self.gives[*given..*given + len]));
            *given += len;
        }
    }

    fn is_done(&self) -> bool {
        self.has.len() == self.wants.len()
    }
}

#[derive(Clone)]
struct Gateway {
    end: Rc<RefCell<End>>,
    current: Option<Key>,
}

impl Peer for Gateway {
    fn connected(&mut self, key: Key) -> bool {
        self.current = Some(key);
        self.end.borrow_mut().connected();
        true
    }
    fn received(&mut self, key: Key, bytes: &[u8]) -> bool {
        self.current != Some(key) || self.end.borrow_mut().received(bytes)
    }
    fn next(&mut self, key: Key, most: usize) -> Vec<u8> {
        if self.current != Some(key) {
            return Vec::new();
        }
        let mut end = self.end.borrow_mut();
        end.fill();
        let most = most.min(end.to_send.len());
        end.to_send.drain(..most).collect()
    }
    fn closed(&mut self, key: Key) {
        if self.current == Some(key) {
            self.current = None;
        }
    }
}

struct Result {
    dials: u32,
    faults: u64,
    corrupted: u32,
    time: Duration,
}

fn transfer(config: Config, faults: Faults, modem: &ModemConfig<'_>, ahead: usize) -> Result {
    let (up, down) = (payload(1), payload(2));
    let mut board = End::new(&up, &down);
    let gateway = Rc::new(RefCell::new(End::new(&down, &up)));
    let bench = Bench::new(
        config,
        faults,
        Gateway {
            end: Rc::clone(&gateway),
            current: None,
        },
    );
    let mut buffer = vec![0; ahead];
    let mut device = bench.device(modem, &mut buffer);
    let mut dials = 0;
    let mut is_open = false;
    let mut last_moved = Duration::ZERO;
    while !board.is_done() || !gateway.borrow().is_done() {
        let log = || bench.log();
        assert!(
            bench.now() < TIME_MAX,
            "after {dials} dials {} of {LEN} bytes are down, {} up\n{}",
            board.has.len(),
            gateway.borrow().has.len(),
            log()
        );
        if !is_open {
            dials += 1;
            is_open = device.connect(GATEWAY).is_ok();
            if !is_open {
                bench.pass(Duration::from_secs(1));
                continue;
            }
            board.connected();
            last_moved = bench.now();
        }
        board.fill();
        let mut moved = false;
        let (piece, _) = board.to_send.as_slices();
        if !piece.is_empty() {
            match device.send(piece) {
                Ok(len) => {
                    board.to_send.drain(..len);
                    moved |= len > 0;
                }
                Err(_) => is_open = false,
            }
        }
        let mut room = [0; 300];
        match device.receive(&mut room) {
            Ok(len) => {
                moved |= len > 0;
                is_open &= board.received(&room[..len]);
            }
            Err(_) => is_open = false,
        }
        if moved {
            last_moved = bench.now();
        } else {
            bench.pass(Duration::from_millis(1));
        }
        // As the protocol's deadlines do.
        is_open &= bench.now() < last_moved + Duration::from_secs(60);
        if !is_open {
            device.close();
        }
    }
    assert_eq!((&board.has, &gateway.borrow().has), (&*down, &*up));
    let corrupted = board.corrupted + gateway.borrow().corrupted;
    let world = bench.world();
    Result {
        dials,
        faults: world.modem.counts().faults,
        corrupted,
        time: world.now,
    }
}

fn modem_config(hex: bool) -> ModemConfig<'static> {
    ModemConfig {
        hex,
        ..ModemConfig::new("internet")
    }
}

/// Both modes of data through one kind of fault, so many times in a thousand.
fn through(kind: Kind, per_mille: u16) {
    for hex in [false, true] {
        let faults = Faults::only(u64::from(per_mille), &[(kind, per_mille)]);
        let result = transfer(Config::default(), faults, &modem_config(hex), 600);
        assert!(result.faults > 0, "{} did not happen", kind.name());
        // A modem that was left in the middle of a write gets made-up data, to come back to
        // commands: its connection is given up by then. No other fault gets past the AT layer.
        if !matches!(kind, Kind::Lose | Kind::Freeze | Kind::Mute) {
            assert_eq!(result.corrupted, 0, "{} got through", kind.name());
        }
    }
}

#[test]
fn nothing_wrong_takes_one_dial() {
    for hex in [false, true] {
        for ahead in [0, 64, 1100] {
            let result = transfer(Config::default(), Faults::none(), &modem_config(hex), ahead);
            assert_eq!((result.dials, result.faults, result.corrupted), (1, 0, 0));
        }
    }
}

#[test]
fn paced_line_takes_its_time() {
    let config = Config {
        baud: 115_200,
        ..Config::default()
    };
    let result = transfer(config, Faults::none(), &modem_config(false), 1100);
    assert_eq!((result.dials, result.corrupted), (1, 0));
    // 100 KB each way at 11,520 bytes a second; the line is never used in both directions.
    let bytes_alone = Duration::from_millis(2 * 100_000 * 1000 / 11_520);
    assert!(result.time > bytes_alone, "{:?}", result.time);
    assert!(result.time < bytes_alone * 4, "{:?}", result.time);
}

#[test]
fn connecting_asynchronously_works_too() {
    let modem = ModemConfig {
        connect_async: true,
        ..modem_config(false)
    };
    let faults = Faults::only(3, &[(Kind::UrcLost, 500)]);
    let result = transfer(Config::default(), faults, &modem, 600);
    assert_eq!((result.dials, result.corrupted), (1, 0));
}

#[test]
fn urcs_in_answers() {
    through(Kind::UrcInAnswer, 500);
}

#[test]
fn urcs_after_the_prompt() {
    let faults = Faults::only(1, &[(Kind::UrcAfterPrompt, 700)]);
    let result = transfer(Config::default(), faults, &modem_config(false), 600);
    assert_eq!((result.dials, result.corrupted), (1, 0));
}

#[test]
fn lost_urcs() {
    through(Kind::UrcLost, 500);
}

#[test]
fn every_urc_lost() {
    through(Kind::UrcLost, 1000);
}

#[test]
fn lines_that_pause_in_the_middle() {
    through(Kind::Split, 300);
}

#[test]
fn garbage_before_answers() {
    through(Kind::Garbage, 100);
}

#[test]
fn garbage_among_data() {
    through(Kind::GarbageInData, 60);
}

#[test]
fn bytes_lost_on_the_way_to_the_modem() {
    through(Kind::Lose, 3);
}

#[test]
fn errors() {
    through(Kind::Error, 40);
}

#[test]
fn answers_that_do_not_come() {
    through(Kind::Silent, 15);
}

#[test]
fn answers_of_rubbish() {
    through(Kind::Rubbish, 15);
}

#[test]
fn network_that_stalls_for_up_to_30_s() {
    through(Kind::Stall, 40);
}

#[test]
fn modem_that_freezes_for_up_to_30_s() {
    through(Kind::Freeze, 20);
}

#[test]
fn registration_lost_for_a_while() {
    through(Kind::Registration, 20);
}

#[test]
fn connections_closed_by_the_network() {
    through(Kind::Close, 15);
}

#[test]
fn contexts_ended_by_the_network() {
    through(Kind::Context, 15);
}

#[test]
fn modem_that_restarts_by_itself() {
    through(Kind::Reboot, 10);
}

#[test]
fn modem_that_falls_silent_until_restarted() {
    through(Kind::Mute, 10);
}

/// `SEED=7` runs one seed, `SEEDS=500` so many.
#[test]
fn everything_together() {
    let from_environment = |name| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().expect("SEED and SEEDS are numbers"))
    };
    let seeds = match from_environment("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..from_environment("SEEDS").unwrap_or(6),
    };
    for seed in seeds {
        eprintln!("SEED={seed}");
        let baud = [0, 9600, 115_200][usize::try_from(seed % 3).expect("below 3")];
        let config = Config {
            baud,
            ..Config::default()
        };
        let modem = ModemConfig {
            connect_async: seed % 5 == 0,
            ..modem_config(seed % 2 == 1)
        };
        let result = transfer(config, Faults::all(seed), &modem, 600);
        assert!(result.dials > 1 && result.faults > 100);
    }
}
