//! A board's machine that a test drives into the state that it wants.

use dialhome_proto::code::{BootReason, CloseCode, DigestFrom, Link, Reason, Revert, SelfTest};
use dialhome_proto::crc::crc32;
use dialhome_proto::device::{
    BootAction, Cell, Cells, ComponentConfig, Config, LinkState, Machine, RunningImage, TrialPhase,
    Work,
};
use dialhome_proto::frame::{
    ACK_NOW, Activate, Chunk, Component, Confirm, DeviceFrame, GatewayFrame, Hello, Offer, Welcome,
};
use dialhome_proto::id::{Digest, SignerId, UpdateId};
use dialhome_proto::manifest::{EntryFields, ManifestFields, TrialBudget, assemble, encode_body};
use dialhome_proto::statement;
use dialhome_proto::time::Millis;
use dialhome_proto::trust::{TrustSet, VerifySignature, signer_id};
use heapless::Vec as Fixed;
use sha2::Digest as _;

pub(crate) const UPDATE: UpdateId = UpdateId([1; 8]);
pub(crate) const SIZE: u32 = 2048;
pub(crate) const NOW: Millis = Millis(1000);

/// A verifier that finds every signature as it is told.
pub(crate) struct Finds(pub(crate) bool);

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

pub(crate) fn image() -> Vec<u8> {
    (0..SIZE).map(|at| at.to_le_bytes()[0]).collect()
}

pub(crate) fn image_digest() -> Digest {
    Digest(sha2::Sha256::digest(image()).into())
}

pub(crate) fn signed(sign: impl FnOnce(&mut [u8], SignerId) -> usize) -> Vec<u8> {
    let mut out = vec![0; 1024];
    let len = sign(&mut out, signer_id(&[5; 32]));
    out.truncate(len);
    out
}

pub(crate) fn manifest() -> Vec<u8> {
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

pub(crate) fn gateways() -> Vec<u8> {
    signed(|out, signer| {
        let body = statement::encode_body("b1", 1, &["a:1"], out).expect("it is right");
        statement::assemble(out, body, &[(signer, [0; 64])]).expect("it fits")
    })
}

pub(crate) fn config() -> Config<'static> {
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

pub(crate) fn running(
    digest: Digest,
    digest_from: DigestFrom,
    boot_reason: BootReason,
) -> RunningImage {
    RunningImage {
        digest,
        digest_from,
        boot_reason,
        revert: Revert::SWAP,
        version: "",
        counter: 1,
        unfinished: false,
        on_trial: false,
    }
}

/// A board, and the record that is in its buffer.
pub(crate) struct Board {
    pub(crate) machine: Machine<'static>,
    pub(crate) record: Vec<u8>,
}

impl Board {
    pub(crate) fn start(cells: Cells, running: RunningImage) -> Self {
        let mut all = Fixed::new();
        all.push(running).expect("one fits");
        Self {
            machine: Machine::new(config(), cells, all, 1, NOW),
            record: Vec::new(),
        }
    }

    pub(crate) fn new(change: impl FnOnce(&mut Cells)) -> Self {
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
    pub(crate) fn drain(&mut self) -> (Vec<String>, Option<Work>) {
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

    pub(crate) fn online(mut self) -> Self {
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
    pub(crate) fn frame(&mut self, frame: &GatewayFrame<'_>) -> bool {
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
    pub(crate) fn carry_out(&mut self, work: Work) {
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
    pub(crate) fn until(mut self, stage: &str) -> Self {
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
    pub(crate) fn name(&self) -> String {
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
    pub(crate) fn outcome(&mut self, before: &str) -> String {
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

pub(crate) fn old() -> RunningImage {
    running(Digest([9; 32]), DigestFrom::BOOTED, BootReason::POWER_ON)
}

pub(crate) fn new() -> RunningImage {
    running(image_digest(), DigestFrom::BOOTED, BootReason::UPDATE)
}

pub(crate) fn unknown() -> RunningImage {
    running(Digest([0; 32]), DigestFrom::UNKNOWN, BootReason::UNKNOWN)
}

pub(crate) fn name(frame: &DeviceFrame<'_>) -> String {
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

pub(crate) fn cell_name(cell: Cell) -> String {
    format!("{cell:?}")
        .split('(')
        .next()
        .unwrap_or("")
        .to_owned()
}

pub(crate) fn offer(manifest: &[u8], flags: u8) -> GatewayFrame<'_> {
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

pub(crate) fn chunk(offset: u32, bytes: &[u8]) -> GatewayFrame<'_> {
    Chunk {
        offset,
        crc: crc32(bytes),
        flags: ACK_NOW,
        bytes,
    }
    .into()
}

pub(crate) fn offered() -> Board {
    let mut board = Board::new(|_| {}).online();
    assert!(board.frame(&offer(&manifest(), 0)));
    board
}

pub(crate) fn claiming(committed: u32) -> Board {
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

pub(crate) fn staged() -> Board {
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
pub(crate) fn after_boot(phase: TrialPhase, running: RunningImage) -> Board {
    let mut board = staged();
    assert!(board.frame(&Activate { update: UPDATE }.into()));
    let mut cells = board.machine.cells().clone();
    if let Some(trial) = &mut cells.trial {
        trial.phase = phase;
        trial.reason = Reason::SELF_TEST;
    }
    Board::start(cells, running)
}

pub(crate) fn on_trial() -> Board {
    let mut board = after_boot(TrialPhase::Switched, new());
    let (_, work) = board.drain();
    board.carry_out(work.expect("the self-test"));
    board.online()
}

pub(crate) const STATES: [&str; 10] = [
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

pub(crate) fn at(state: &str) -> Board {
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
