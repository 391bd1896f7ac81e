//! The board's machine.

use dialhome_proto::code::{
    BootReason, CloseCode, DigestFrom, Link, Reason, Refusal, Revert, SelfTest,
};
use dialhome_proto::crc::crc32;
use dialhome_proto::device::{
    BootAction, Cell, Cells, ComponentConfig, Config, DialFault, LinkState, Machine, RunningImage,
    TrialPhase, Work,
};
use dialhome_proto::frame::{
    ACK_NOW, Activate, Cancel, Chunk, Close, Component, Confirm, DeviceFrame, GatewayFrame, Hello,
    Keepalive, NewKey, Offer, Ping, Pong, RESTART, Resume, SetGateways, Settled, Unsupported,
    Welcome,
};
use dialhome_proto::id::{Digest, SignerId, UpdateId};
use dialhome_proto::manifest::{
    EntryFields, Manifest, ManifestFields, TrialBudget, assemble, encode_body,
};
use dialhome_proto::statement;
use dialhome_proto::time::Millis;
use dialhome_proto::trust::{TrustSet, VerifySignature, signer_id};
use heapless::Vec as Fixed;
use sha2::Digest as _;

const UPDATE: UpdateId = UpdateId([1; 8]);
const SIZE: u32 = 2048;
const NOW: Millis = Millis(1000);

/// A verifier that finds every signature as it is told.
struct Finds(bool);

impl VerifySignature for Finds {
    fn verify(&mut self, _: &[u8; 32], _: &[u8], _: &[u8; 64]) -> bool {
        self.0
    }
}

/// A Hello as a test wants it.
pub(crate) fn hello(change: impl FnOnce(&mut Hello<'static>)) -> Hello<'static> {
    let component = Component {
        component: 0,
        version: "1",
        counter: 1,
        floor: 0,
        digest: Digest([0; 32]),
        digest_from: DigestFrom::UNKNOWN,
        boot_reason: BootReason::POWER_ON,
        revert: Revert::SWAP,
        slot_size: 65_536,
        write_unit: 64,
        erase_unit: 1024,
        window: 4096,
        trial: None,
        claim: None,
    };
    let mut hello = Hello {
        product: "board",
        hardware: 1,
        client: "test",
        receive_buffer: 1088,
        network: "",
        link: Link::UNKNOWN,
        ping_s: 60,
        wake_s: 0,
        battery_percent: 255,
        signal_dbm: -128,
        temperature_c: -128,
        busy: false,
        last_close: CloseCode::UNKNOWN,
        failed_dials: 0,
        trust_epoch: 0,
        gateways_epoch: 0,
        tasks: 0,
        last_task: 0,
        components: [component].into_iter().collect(),
    };
    change(&mut hello);
    hello
}

fn image() -> Vec<u8> {
    (0..SIZE).map(|at| at.to_le_bytes()[0]).collect()
}

fn image_digest() -> Digest {
    Digest(sha2::Sha256::digest(image()).into())
}

fn signed(sign: impl FnOnce(&mut [u8], SignerId) -> usize) -> Vec<u8> {
    let mut out = vec![0; 1024];
    let len = sign(&mut out, signer_id(&[5; 32]));
    out.truncate(len);
    out
}

fn manifest() -> Vec<u8> {
    let entry = EntryFields {
        component: 0,
        version: "2",
        counter: 2,
        floor: 0,
        size: SIZE,
        sha256: image_digest(),
        hardware_min: 0,
        hardware_max: 9,
        requires: &[],
    };
    let fields = ManifestFields {
        product: "board",
        flags: 0,
        trial: TrialBudget::default(),
        devices: &[],
        entries: &[entry],
    };
    signed(|out, signer| {
        let body = encode_body(&fields, out).expect("it is right");
        assemble(out, body, &[(signer, [0; 64])]).expect("it fits")
    })
}

fn gateways() -> Vec<u8> {
    signed(|out, signer| {
        let body = statement::encode_body("b1", 1, &["a:1"], out).expect("it is right");
        statement::assemble(out, body, &[(signer, [0; 64])]).expect("it fits")
    })
}

fn config() -> Config<'static> {
    Config {
        device: "b1",
        product: "board",
        hardware: 1,
        client: "test",
        receive_buffer: 1088,
        tasks: 0,
        ping_s: 60,
        ping_s_min: 60,
        wake_s: 0,
        backoff_ms: (1000, 900_000),
        gateways: 2,
        components: &[ComponentConfig {
            component: 0,
            slot_size: 65_536,
            write_unit: 64,
            erase_unit: 1024,
            window: 2048,
            commit_ms: 10,
            claim_every: 1024,
        }],
    }
}

fn running(digest: Digest, digest_from: DigestFrom, boot_reason: BootReason) -> RunningImage {
    RunningImage {
        digest,
        digest_from,
        boot_reason,
        revert: Revert::SWAP,
        version: heapless::String::new(),
        counter: 1,
        unfinished: false,
    }
}

/// A board, and the record that is in its buffer.
struct Board {
    machine: Machine<'static>,
    record: Vec<u8>,
}

impl Board {
    fn start(cells: Cells, running: RunningImage) -> Self {
        let mut all = Fixed::new();
        all.push(running).expect("one fits");
        Self {
            machine: Machine::new(config(), cells, all, 1, NOW),
            record: Vec::new(),
        }
    }

    fn new(change: impl FnOnce(&mut Cells)) -> Self {
        let mut cells = Cells {
            trust: Some(TrustSet {
                epoch: 1,
                threshold: 1,
                keys: [[5; 32]].into_iter().collect(),
                minimums: Fixed::new(),
            }),
            ..Cells::default()
        };
        cells.images.push(Default::default()).expect("one fits");
        change(&mut cells);
        Self::start(cells, old())
    }

    /// Stores and sends all there is, and names it; stops at other work.
    fn drain(&mut self) -> (Vec<String>, Option<Work>) {
        let mut seen: Vec<String> = Vec::new();
        loop {
            let mut buffer = [0; 1008];
            if let Some(len) = self.machine.poll_transmit(&mut buffer, NOW) {
                let frame = DeviceFrame::decode(&buffer[..len]).expect("it made it");
                let name = name(&frame);
                if seen.last() != Some(&name) {
                    seen.push(name);
                }
                continue;
            }
            match self.machine.poll_work(NOW) {
                Some(Work::Store(cell)) => {
                    seen.push(format!("stores {}", cell_name(cell)));
                    self.machine.worked(Ok(()), NOW);
                }
                other => return (seen, other),
            }
        }
    }

    fn online(mut self) -> Self {
        let (_, work) = self.drain();
        assert!(matches!(work, Some(Work::Dial { .. })), "{work:?}");
        self.machine.dialed(Ok(()), NOW);
        self.drain();
        self.frame(
            &Welcome {
                time_s: 0,
                ping_s: 0,
            }
            .into(),
        );
        self
    }

    /// Hands a frame in; false: the machine does not take one now.
    fn frame(&mut self, frame: &GatewayFrame<'_>) -> bool {
        if !self.machine.wants_record() {
            return false;
        }
        self.record = vec![0; 1200];
        let len = frame.encode(&mut self.record).expect("it fits");
        self.record.truncate(len);
        self.machine.handle_record(&self.record, NOW);
        true
    }

    /// Carries out one piece of work, well.
    fn carry_out(&mut self, work: Work) {
        match work {
            Work::CheckManifest => self
                .machine
                .check_manifest(&self.record, &mut Finds(true), NOW),
            Work::CheckGateways => self.machine.check_gateways(&self.record, &mut Finds(true)),
            Work::Read { offset, len, .. } => {
                let start = usize::try_from(offset).expect("fits");
                let end = start + usize::try_from(len).expect("fits");
                self.machine.read_back(&image()[start..end]);
                self.machine.worked(Ok(()), NOW);
            }
            Work::HangUp => self.machine.hung_up(NOW),
            Work::Boot(BootAction::SelfTest) => self.machine.self_tested(SelfTest::PASSED, "", NOW),
            Work::Boot(_) | Work::Dial { .. } => panic!("{work:?} is for a test to answer"),
            _ => self.machine.worked(Ok(()), NOW),
        }
    }

    /// Goes on until the machine is in this stage.
    fn until(mut self, stage: &str) -> Self {
        for _ in 0..64 {
            if self.machine.stage_name() == stage && self.machine.wants_record() {
                return self;
            }
            let (_, Some(work)) = self.drain() else {
                break;
            };
            self.carry_out(work);
        }
        assert_eq!(self.machine.stage_name(), stage);
        self
    }

    /// As the tables name a state.
    fn name(&self) -> String {
        match self.machine.link_state() {
            LinkState::Leaving { .. } => format!("{}, leaving", self.machine.stage_name()),
            LinkState::Greeting { .. } => "Greeting".to_owned(),
            LinkState::Down { .. } | LinkState::Dialing => {
                format!("{}, no link", self.machine.stage_name())
            }
            LinkState::Online => self.machine.stage_name().to_owned(),
        }
    }

    /// What changed since the state was `before`.
    fn outcome(&mut self, before: &str) -> String {
        let (seen, work) = self.drain();
        let mut parts = Vec::new();
        if self.name() != before {
            parts.push(format!("*{}*", self.name()));
        }
        parts.extend(seen);
        match work {
            Some(Work::CheckGateways) => parts.push("checks it".to_owned()),
            Some(Work::Write { .. }) => parts.push("writes it".to_owned()),
            _ => {}
        }
        if parts.is_empty() {
            "–".to_owned()
        } else {
            parts.join(", ")
        }
    }
}

fn old() -> RunningImage {
    running(Digest([9; 32]), DigestFrom::BOOTED, BootReason::POWER_ON)
}

fn new() -> RunningImage {
    running(image_digest(), DigestFrom::BOOTED, BootReason::UPDATE)
}

fn unknown() -> RunningImage {
    running(Digest([0; 32]), DigestFrom::UNKNOWN, BootReason::UNKNOWN)
}

fn name(frame: &DeviceFrame<'_>) -> String {
    match frame {
        DeviceFrame::Report(report) if report.reason == Reason::NONE => {
            format!("Report({})", report.state)
        }
        DeviceFrame::Report(report) => format!("Report({}, {})", report.state, report.reason),
        DeviceFrame::Defer(defer) => format!("Defer({})", defer.reason),
        DeviceFrame::Decline(decline) => format!("Decline({})", decline.reason),
        DeviceFrame::Nack(nack) => format!("Nack({})", nack.reason),
        DeviceFrame::Bye(bye) => format!("Bye({})", bye.reason),
        DeviceFrame::Progress(progress) => format!("Progress({})", progress.phase),
        other => other.name().to_owned(),
    }
}

fn cell_name(cell: Cell) -> String {
    format!("{cell:?}")
        .split('(')
        .next()
        .unwrap_or("")
        .to_owned()
}

fn offer(manifest: &[u8], flags: u8) -> GatewayFrame<'_> {
    Offer {
        update: UPDATE,
        group: 0,
        order: 0,
        component: 0,
        flags,
        encoding: 0,
        base: None,
        payload_size: SIZE,
        manifest,
    }
    .into()
}

fn chunk(offset: u32, bytes: &[u8]) -> GatewayFrame<'_> {
    Chunk {
        offset,
        crc: crc32(bytes),
        flags: ACK_NOW,
        bytes,
    }
    .into()
}

fn offered() -> Board {
    let mut board = Board::new(|_| {}).online();
    assert!(board.frame(&offer(&manifest(), 0)));
    board
}

fn claiming(committed: u32) -> Board {
    let mut cells = offered().until("Receiving").machine.cells().clone();
    if let Some(claim) = &mut cells.claim {
        claim.committed = committed;
    }
    let mut board = Board::start(cells, old()).online();
    assert!(board.frame(&offer(&manifest(), 0)));
    let (_, work) = board.drain();
    board.carry_out(work.expect("the check"));
    board
}

fn staged() -> Board {
    let mut board = offered().until("Receiving");
    for at in [0, 1024] {
        let bytes = image();
        let start = usize::try_from(at).expect("fits");
        assert!(board.frame(&chunk(at, &bytes[start..start + 1024])));
        board = board.until(if at == 0 { "Receiving" } else { "Staged" });
    }
    board.drain();
    board
}

/// After a boot in this phase.
fn after_boot(phase: TrialPhase, running: RunningImage) -> Board {
    let mut board = staged();
    assert!(board.frame(&Activate { update: UPDATE }.into()));
    let mut cells = board.machine.cells().clone();
    if let Some(trial) = &mut cells.trial {
        trial.phase = phase;
        trial.reason = Reason::SELF_TEST;
    }
    Board::start(cells, running)
}

fn on_trial() -> Board {
    let mut board = after_boot(TrialPhase::Switched, new());
    let (_, work) = board.drain();
    board.carry_out(work.expect("the self-test"));
    board.online()
}

const STATES: [&str; 10] = [
    "Greeting",
    "Idle",
    "Checking",
    "Proving",
    "Preparing",
    "Receiving",
    "Staged",
    "Trial",
    "Confirming",
    "Activating, leaving",
];

fn at(state: &str) -> Board {
    let mut board = match state {
        "Greeting" => {
            let mut board = Board::new(|_| {});
            board.drain();
            board.machine.dialed(Ok(()), NOW);
            board.drain();
            board
        }
        "Idle" => Board::new(|_| {}).online(),
        "Checking" => offered(),
        "Proving" => claiming(1024),
        "Preparing" => {
            let mut board = offered();
            board.machine.poll_work(NOW);
            board.carry_out(Work::CheckManifest);
            while !board.machine.wants_record() {
                let work = board.machine.poll_work(NOW);
                assert_eq!(work, Some(Work::Store(Cell::Claim)));
                board.machine.worked(Ok(()), NOW);
            }
            board
        }
        "Receiving" => offered().until("Receiving"),
        "Staged" => staged(),
        "Trial" => on_trial(),
        "Confirming" => {
            let mut board = on_trial();
            assert!(board.frame(&Confirm { update: UPDATE }.into()));
            board
        }
        _ => {
            let mut board = staged();
            assert!(board.frame(&Activate { update: UPDATE }.into()));
            board
        }
    };
    // What it had to say before is out; its work is not begun.
    while {
        let mut buffer = [0; 1008];
        board.machine.poll_transmit(&mut buffer, NOW).is_some()
    } {}
    assert_eq!(board.name(), state, "the way there");
    board
}

pub(crate) fn frame_table() -> String {
    let (manifest, gateways, image) = (manifest(), gateways(), image());
    let digest = Manifest::parse(&manifest).expect("it is one").digest();
    let other = UpdateId([2; 8]);
    let resume = |manifest| -> GatewayFrame<'static> {
        Resume {
            update: UPDATE,
            group: 0,
            order: 0,
            component: 0,
            flags: 0,
            encoding: 0,
            base: None,
            payload_size: SIZE,
            manifest,
        }
        .into()
    };
    let frames: Vec<(&str, GatewayFrame<'_>)> = vec![
        (
            "Welcome",
            Welcome {
                time_s: 0,
                ping_s: 0,
            }
            .into(),
        ),
        (
            "Close",
            Close {
                code: CloseCode::STOPPING,
                reconnect_after_s: 0,
            }
            .into(),
        ),
        ("Ping", Ping { nonce: 1 }.into()),
        ("Pong, not asked for", Pong { nonce: 1 }.into()),
        ("Unsupported", Unsupported { number: 1 }.into()),
        ("Keepalive", Keepalive { ping_s: 60 }.into()),
        ("Settled, unknown sequence", Settled { sequence: 77 }.into()),
        ("NewKey", NewKey { key: [3; 32] }.into()),
        (
            "SetGateways",
            SetGateways {
                statement: &gateways,
            }
            .into(),
        ),
        ("Offer", offer(&manifest, 0)),
        ("Offer(restart)", offer(&manifest, RESTART)),
        ("Resume of the claim", resume(digest)),
        ("Resume of another manifest", resume(Digest([8; 32]))),
        ("Chunk", chunk(0, &image[..1024])),
        ("Chunk out of place", chunk(1024, &image[1024..])),
        ("Activate", Activate { update: UPDATE }.into()),
        (
            "Activate of another update",
            Activate { update: other }.into(),
        ),
        ("Cancel", Cancel { update: UPDATE }.into()),
        ("Cancel of another update", Cancel { update: other }.into()),
        ("Confirm", Confirm { update: UPDATE }.into()),
        (
            "Confirm of another update",
            Confirm { update: other }.into(),
        ),
    ];
    let mut rows: Vec<(&str, Vec<String>)> = frames
        .iter()
        .map(|(name, frame)| {
            let cells = STATES.map(|state| {
                let mut board = at(state);
                if board.frame(frame) {
                    board.outcome(state)
                } else if state == "Activating, leaving" {
                    "ignored".to_owned()
                } else {
                    "waits".to_owned()
                }
            });
            (*name, cells.to_vec())
        })
        .collect();
    for (name, record) in [
        ("a number not known", &[0x70_u8][..]),
        ("a malformed body", &[0x43, 1]),
    ] {
        let cells = STATES.map(|state| {
            let mut board = at(state);
            if !board.machine.wants_record() {
                let leaving = state == "Activating, leaving";
                return if leaving { "ignored" } else { "waits" }.to_owned();
            }
            board.machine.handle_record(record, NOW);
            board.outcome(state)
        });
        rows.push((name, cells.to_vec()));
    }
    let lost = STATES.map(|state| {
        let mut board = at(state);
        board.machine.link_lost(NOW);
        let name = board.name();
        format!("*{name}*")
    });
    rows.push(("the link is lost", lost.to_vec()));
    crate::table(&STATES, &rows)
}

pub(crate) fn link_table() -> String {
    let states = ["Down", "Dialing", "Greeting", "Online", "Leaving"];
    let reach = |state: &str| -> Board {
        let mut board = match state {
            "Greeting" => at("Greeting"),
            "Online" => at("Idle"),
            "Leaving" => {
                let mut board = at("Idle");
                board.frame(
                    &Close {
                        code: CloseCode::STOPPING,
                        reconnect_after_s: 0,
                    }
                    .into(),
                );
                board
            }
            _ => Board::new(|_| {}),
        };
        if matches!(state, "Dialing" | "Leaving") {
            board.drain();
        }
        board
    };
    let name = |board: &Board| match board.machine.link_state() {
        LinkState::Down { .. } => "Down",
        LinkState::Dialing => "Dialing",
        LinkState::Greeting { .. } => "Greeting",
        LinkState::Online => "Online",
        LinkState::Leaving { .. } => "Leaving",
    };
    type Event = (
        &'static str,
        &'static [&'static str],
        fn(&mut Machine<'static>),
    );
    let events: [Event; 10] = [
        ("the wait is over", &["Down"], |machine| {
            let _ = machine.poll_work(NOW.after(900_000));
        }),
        ("the handshake is done", &["Dialing"], |machine| {
            machine.dialed(Ok(()), NOW)
        }),
        ("no network", &["Dialing"], |machine| {
            machine.dialed(Err(DialFault::NoLink), NOW)
        }),
        ("no answer", &["Dialing"], |machine| {
            machine.dialed(Err(DialFault::NoAnswer), NOW)
        }),
        ("refused", &["Dialing"], |machine| {
            let fault = DialFault::Refused {
                code: Refusal::REFUSED,
                retry_after_s: 1,
            };
            machine.dialed(Err(fault), NOW);
        }),
        ("the answer is not of this key", &["Dialing"], |machine| {
            machine.dialed(Err(DialFault::WrongKey), NOW)
        }),
        (
            "the link is lost",
            &["Down", "Dialing", "Greeting", "Online", "Leaving"],
            |machine| machine.link_lost(NOW),
        ),
        ("the connection is closed", &["Leaving"], |machine| {
            machine.hung_up(NOW)
        }),
        ("its deadline", &["Greeting", "Online"], |machine| {
            let due = machine.deadline().expect("it has one");
            machine.handle_timeout(due);
        }),
        ("no Pong for that Ping", &["Online"], |machine| {
            for _ in 0..2 {
                let due = machine.deadline().expect("it has one");
                machine.handle_timeout(due);
            }
        }),
    ];
    let rows: Vec<(&str, Vec<String>)> = events
        .iter()
        .map(|(event, in_states, apply)| {
            let cells = states.map(|state| {
                if !in_states.contains(&state) {
                    return "cannot be".to_owned();
                }
                let mut board = reach(state);
                apply(&mut board.machine);
                let next = name(&board);
                let mut buffer = [0; 1008];
                let sent = board.machine.poll_transmit(&mut buffer, NOW);
                let sent = sent.map(|len| {
                    DeviceFrame::decode(&buffer[..len])
                        .expect("it made it")
                        .name()
                        .to_owned()
                });
                let moved = (next != state).then(|| format!("*{next}*"));
                let parts: Vec<String> = [moved, sent].into_iter().flatten().collect();
                if parts.is_empty() {
                    "–".to_owned()
                } else {
                    parts.join(", ")
                }
            });
            (*event, cells.to_vec())
        })
        .collect();
    crate::table(&states, &rows)
}

pub(crate) fn boot_table() -> String {
    let phases = [
        ("activating", TrialPhase::Activating),
        ("switched", TrialPhase::Switched),
        ("testing", TrialPhase::Testing),
        ("confirming", TrialPhase::Confirming),
        ("reverting", TrialPhase::Reverting),
    ];
    let gone_back = running(Digest([9; 32]), DigestFrom::BOOTED, BootReason::REVERT);
    let found = [new(), old(), gone_back, unknown()];
    let rows: Vec<(&str, Vec<String>)> = phases
        .iter()
        .map(|(name, phase)| {
            let cells = found.iter().map(|running| {
                let mut board = after_boot(*phase, running.clone());
                let stage = board.machine.stage_name();
                // What it will say when it has dialed.
                if board.machine.cells().outbox.entries().is_empty() {
                    return format!("*{stage}*");
                }
                board.drain();
                board.machine.dialed(Ok(()), NOW);
                let said = board.drain().0.pop().unwrap_or_default();
                format!("*{stage}*, {said}")
            });
            (*name, cells.collect())
        })
        .collect();
    crate::table(
        &[
            "the new image runs",
            "another image runs",
            "another, and the bootloader went back",
            "unknown what runs",
        ],
        &rows,
    )
}

type Answer = fn(&mut Board, Work);

fn fails(board: &mut Board, work: Work) {
    match work {
        Work::CheckManifest => {
            let record = board.record.clone();
            board
                .machine
                .check_manifest(&record, &mut Finds(false), NOW);
        }
        Work::CheckGateways => {
            let record = board.record.clone();
            board.machine.check_gateways(&record, &mut Finds(false));
        }
        Work::Boot(BootAction::SelfTest) => board.machine.self_tested(SelfTest::FAILED, "", NOW),
        Work::Boot(BootAction::Look) => board.machine.looked(unknown(), NOW),
        Work::Boot(_) => board.machine.booted(Err(Reason::INSTALL_FAILED), "", NOW),
        _ => board.machine.worked(Err(Reason::STORAGE), NOW),
    }
}

fn works(board: &mut Board, work: Work) {
    match work {
        Work::Boot(BootAction::SelfTest) => board.machine.self_tested(SelfTest::PASSED, "", NOW),
        Work::Boot(BootAction::Look) => board.machine.looked(new(), NOW),
        Work::Boot(_) => board.machine.booted(Ok(true), "", NOW),
        other => board.carry_out(other),
    }
}

fn works_without_restart(board: &mut Board, work: Work) {
    match work {
        Work::Boot(BootAction::Look) => board.machine.looked(old(), NOW),
        Work::Boot(BootAction::SelfTest) => board.machine.self_tested(SelfTest::NOT_RUN, "", NOW),
        Work::Boot(_) => board.machine.booted(Ok(false), "", NOW),
        other => board.carry_out(other),
    }
}

/// A board that has this work to do next.
fn working(name: &str) -> Board {
    let chunked = || {
        let mut board = at("Receiving");
        assert!(board.frame(&chunk(0, &image()[..1024])));
        board
    };
    let mut board = match name {
        "CheckGateways" => {
            let mut board = at("Idle");
            assert!(
                board.frame(
                    &SetGateways {
                        statement: &gateways()
                    }
                    .into()
                )
            );
            board
        }
        "CheckManifest" => at("Checking"),
        "Read, proving" => at("Proving"),
        "Prepare" | "Erase" => at("Preparing"),
        "Write" | "Read, what was written" | "Flush" | "Read, into the digest" => chunked(),
        "Activate" | "Restart(update)" | "Look" => after_boot(TrialPhase::Activating, old()),
        "SelfTest" => after_boot(TrialPhase::Switched, new()),
        "Confirm" => at("Confirming"),
        _ => after_boot(TrialPhase::Reverting, new()),
    };
    let before = match name {
        "Erase" | "Read, what was written" | "Restart(update)" | "Look" => 1,
        "Flush" => 2,
        "Read, into the digest" => 3,
        _ => 0,
    };
    for _ in 0..before {
        let (_, work) = board.drain();
        let work = work.expect("there is work");
        if name == "Look" {
            works_without_restart(&mut board, work);
        } else {
            works(&mut board, work);
        }
    }
    board
}

pub(crate) fn work_table() -> String {
    let names = [
        "CheckGateways",
        "CheckManifest",
        "Read, proving",
        "Prepare",
        "Erase",
        "Write",
        "Read, what was written",
        "Flush",
        "Read, into the digest",
        "Activate",
        "Restart(update)",
        "Look",
        "SelfTest",
        "Confirm",
        "Revert",
    ];
    let rows: Vec<(&str, Vec<String>)> = names
        .iter()
        .map(|name| {
            let answers: [Answer; 3] = [works, works_without_restart, fails];
            let stage = working(name).machine.stage_name();
            let mut cells = vec![format!("*{stage}*")];
            cells.extend(answers.iter().enumerate().map(|(place, answer)| {
                let boots = matches!(
                    *name,
                    "Activate" | "Restart(update)" | "Look" | "SelfTest" | "Revert"
                );
                if place == 1 && !boots {
                    return String::new();
                }
                let mut board = working(name);
                let (_, work) = board.drain();
                let work = work.expect("there is work");
                let before = board.name();
                answer(&mut board, work);
                board.outcome(&before)
            }));
            (*name, cells)
        })
        .collect();
    crate::table(
        &[
            "in",
            "done (Boot: a restart is needed; Look: the new image; SelfTest: passed)",
            "no restart is needed (Look: the old image; SelfTest: not_run)",
            "failed (Look: unknown)",
        ],
        &rows,
    )
}
