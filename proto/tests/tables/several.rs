//! The board's walk through an update with three entries: components 3, 0 and 7 in this
//! order, of which 0 needs a restart.

use crate::board::{NOW, UPDATE, config, name};
use dialhome_proto::code::{BootReason, DigestFrom, Reason, Revert, SelfTest};
use dialhome_proto::device::{
    BootAction, CELL_LEN, Cell, Cells, ComponentConfig, Config, EntryCell, LinkState, Machine,
    RunningImage, Said, TrialCell, Work,
};
use dialhome_proto::frame::{Activate, Confirm, DeviceFrame, GatewayFrame, Resume, Welcome};
use dialhome_proto::id::Digest;
use dialhome_proto::limits::STORE_AGAIN_MS;
use dialhome_proto::manifest::{Remembered, TrialBudget};
use dialhome_proto::time::Millis;
use dialhome_proto::trust::TrustSet;
use heapless::Vec as Fixed;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// The components, in the order of the configuration; their places in the manifest.
const COMPONENTS: [(u8, u8); 3] = [(0, 1), (3, 0), (7, 2)];

/// The call that goes wrong, of this component.
#[derive(Clone, Copy)]
enum Fault {
    None,
    Activate(u8),
    SelfTest(u8),
    Confirm(u8),
    /// No old image is kept of the component, and 7 fails its self-test.
    Revert(u8),
    /// The power fails before the step with this number.
    Cut(usize),
    /// The bootloader goes back from 0 in the restart.
    GoesBack,
    /// The power fails before that step, and the bootloader goes back from 0.
    CutBack(usize),
}

fn new_digest(component: u8) -> Digest {
    Digest([0x80 | component; 32])
}

fn configuration() -> Config<'static> {
    const fn of(component: u8) -> ComponentConfig {
        ComponentConfig {
            component,
            slot_size: 65_536,
            write_unit: 64,
            erase_unit: 1024,
            window: 2048,
            commit_ms: 10,
            claim_every: 1024,
        }
    }
    Config {
        components: &const { [of(0), of(3), of(7)] },
        ..config()
    }
}

/// What a board holds when Activate was taken.
fn activated() -> Cells {
    let mut cells = Cells::default();
    cells.make_room(COMPONENTS.len());
    for (place, (component, order)) in COMPONENTS.into_iter().enumerate() {
        let mut image = Remembered::default();
        image.manifest = Digest([1; 32]);
        image.component = component;
        image.size = 100;
        image.sha256 = new_digest(component);
        image.counter = 2;
        image.trial = TrialBudget::default().or_defaults();
        let mut entry = EntryCell::default();
        entry.order = order;
        entry.count = 3;
        entry.claim.committed = image.size;
        entry.claim.staged = true;
        entry.image = image.clone();
        cells.entries[place] = Some(entry);
        if order == 0 {
            cells.image = Some(image);
        }
    }
    cells.trial = Some(TrialCell {
        update: UPDATE,
        ..TrialCell::default()
    });
    cells
}

struct Walk {
    fault: Fault,
    /// The store with this number is refused, and those behind it while this holds.
    refuses: std::ops::Range<usize>,
    stores: usize,
    /// What runs, by the component's number: the new image.
    runs_new: BTreeMap<u8, bool>,
    pending: Option<bool>,
    came_back: bool,
    journal: BTreeMap<u8, Vec<u8>>,
    seen: Vec<String>,
    steps: usize,
}

impl Walk {
    fn running(&self, component: u8) -> RunningImage {
        let digest = if self.runs_new[&component] {
            new_digest(component)
        } else {
            Digest([component; 32])
        };
        RunningImage {
            digest,
            digest_from: DigestFrom::BOOTED,
            boot_reason: if self.came_back && component == 0 {
                BootReason::REVERT
            } else {
                BootReason::RESTART
            },
            revert: Revert::SWAP,
            ..RunningImage::UNKNOWN
        }
    }

    fn boot(&self, cells: Cells) -> Machine<'static> {
        let mut running = Fixed::new();
        for (component, _) in COMPONENTS {
            assert!(running.push(self.running(component)).is_ok(), "it fits");
        }
        Machine::new(configuration(), cells, running, 1, NOW)
    }

    fn reload(&self) -> Cells {
        let mut cells = Cells::default();
        cells.make_room(COMPONENTS.len());
        for cell in Cell::ALL {
            if let Some(bytes) = self.journal.get(&cell.number()) {
                assert!(cells.load(cell, bytes), "{cell:?} is read again");
            }
        }
        cells
    }

    fn store(&mut self, machine: &mut Machine<'_>, cell: Cell) {
        let mut out = [0; CELL_LEN];
        match machine.cell(cell, &[], &mut out) {
            Some(len) => self.journal.insert(cell.number(), out[..len].to_vec()),
            None => self.journal.remove(&cell.number()),
        };
    }

    /// Carries out one step of the boot side; true: the board restarts.
    fn step(&mut self, machine: &mut Machine<'_>, action: BootAction) -> bool {
        let at_hand = machine.cells().image.clone().expect("one is on its way");
        let component = machine.boot_component(&at_hand);
        self.steps += 1;
        if let Fault::Cut(at) | Fault::CutBack(at) = self.fault
            && at == self.steps
        {
            self.seen.push("power cut".to_owned());
            if matches!(self.fault, Fault::CutBack(_)) {
                self.came_back = true;
                self.runs_new.insert(0, false);
            }
            if let Some(new) = self.pending.take() {
                self.runs_new.insert(0, new);
            }
            return true;
        }
        let done = match action {
            BootAction::Restart(_) => {
                self.seen.push("restart".to_owned());
                let came_back = matches!(self.fault, Fault::GoesBack) && self.pending == Some(true);
                self.came_back = came_back;
                if let Some(new) = self.pending.take() {
                    self.runs_new.insert(0, new && !came_back);
                }
                return true;
            }
            BootAction::Look => {
                machine.looked(self.running(component), NOW);
                return false;
            }
            BootAction::SelfTest => {
                let fails = match self.fault {
                    Fault::SelfTest(of) => of == component,
                    Fault::Revert(_) => component == 7,
                    _ => false,
                };
                self.say("test", component, fails);
                let verdict = if fails {
                    SelfTest::FAILED
                } else {
                    SelfTest::PASSED
                };
                machine.self_tested(verdict, "", NOW);
                return false;
            }
            BootAction::Activate => {
                let fails = matches!(self.fault, Fault::Activate(of) if of == component);
                self.say("activate", component, fails);
                if fails {
                    Err(Reason::INSTALL_FAILED)
                } else {
                    Ok(self.change(component, true))
                }
            }
            BootAction::Confirm => {
                let fails = matches!(self.fault, Fault::Confirm(of) if of == component);
                self.say("confirm", component, fails);
                if fails {
                    Err(Reason::STORAGE)
                } else {
                    Ok(false)
                }
            }
            BootAction::Revert => {
                let fails = matches!(self.fault, Fault::Revert(of) if of == component)
                    && self.runs_new[&component];
                self.say("revert", component, fails);
                self.came_back = false;
                if fails {
                    Err(Reason::REVERT_FAILED)
                } else {
                    Ok(self.change(component, false))
                }
            }
        };
        machine.booted(done, "", NOW);
        false
    }

    fn say(&mut self, what: &str, component: u8, fails: bool) {
        let mark = if fails { " *x*" } else { "" };
        self.seen.push(format!("{what} {component}{mark}"));
    }

    /// Whether the change needs a restart.
    fn change(&mut self, component: u8, new: bool) -> bool {
        if component == 0 && self.runs_new[&0] != new {
            self.pending = Some(new);
            return true;
        }
        self.runs_new.insert(component, new);
        false
    }
}

/// All that the board does, to the outcome.
fn walk(fault: Fault) -> String {
    walk_with(fault, 0..0).seen.join(", ")
}

fn walk_with(fault: Fault, refuses: std::ops::Range<usize>) -> Walk {
    let mut walk = Walk {
        fault,
        refuses,
        stores: 0,
        runs_new: COMPONENTS.into_iter().map(|(of, _)| (of, false)).collect(),
        pending: None,
        came_back: false,
        journal: BTreeMap::new(),
        seen: Vec::new(),
        steps: 0,
    };
    let mut machine = walk.boot(activated());
    for cell in Cell::ALL {
        if !matches!(cell, Cell::Keys | Cell::Trust | Cell::Gateways) {
            walk.store(&mut machine, cell);
        }
    }
    let mut confirms = 0;
    let mut now = NOW;
    for _ in 0..200 {
        if let Some(entry) = machine.cells().outbox.entries().first()
            && machine.cells().trial.is_none()
        {
            let Said::Outcome {
                component,
                state,
                reason,
                ..
            } = entry.said
            else {
                panic!("{entry:?}");
            };
            let because = if reason == Reason::NONE {
                String::new()
            } else {
                format!(", {reason}")
            };
            walk.seen
                .push(format!("**{state}{because}**, component {component}"));
            return walk;
        }
        let mut buffer = [0; 1008];
        while machine.poll_transmit(&mut buffer, NOW).is_some() {}
        match machine.poll_work(now) {
            Some(Work::Store(cell)) => {
                walk.stores += 1;
                if walk.refuses.contains(&walk.stores) {
                    machine.worked(Err(Reason::STORAGE), now);
                } else {
                    walk.store(&mut machine, cell);
                    machine.worked(Ok(()), now);
                }
            }
            Some(Work::Boot(action)) => {
                if walk.step(&mut machine, action) {
                    machine = walk.boot(walk.reload());
                }
            }
            Some(Work::Dial { .. }) if machine.cells().trial.is_none() => {
                walk.seen.push("**given up**".to_owned());
                return walk;
            }
            Some(Work::HangUp) => machine.hung_up(now),
            Some(Work::Dial { .. }) => {
                assert_eq!(machine.stage_name(), "Trial", "it dials on trial only");
                walk.seen.push("dial".to_owned());
                machine.dialed(Ok(()), now);
            }
            None if matches!(machine.link_state(), LinkState::Greeting { .. }) => {
                let welcome = Welcome {
                    time_s: 0,
                    ping_s: 0,
                };
                hand(&mut machine, &welcome.into());
            }
            None if confirms < 2 && machine.wants_record() => {
                confirms += 1;
                hand(&mut machine, &Confirm { update: UPDATE }.into());
            }
            None if !walk.refuses.is_empty() && now < NOW.after(20 * STORE_AGAIN_MS) => {
                // The journal is asked again.
                now = later(now);
                machine.handle_timeout(now);
            }
            None => {
                walk.seen.push("on trial until the budget ends".to_owned());
                return walk;
            }
            Some(other) => panic!("{other:?}"),
        }
    }
    panic!("no end of {:?}", walk.seen);
}

fn later(now: Millis) -> Millis {
    now.after(STORE_AGAIN_MS)
}

#[test]
fn a_journal_that_refuses_a_store_of_several_makes_no_outcome_untrue() {
    let faults = [
        Fault::None,
        Fault::SelfTest(3),
        Fault::SelfTest(0),
        Fault::SelfTest(7),
        Fault::Activate(7),
        Fault::GoesBack,
        Fault::Revert(0),
    ];
    for fault in faults.into_iter().chain((2..16).map(Fault::Cut)) {
        for first in 1..40 {
            for more in [1, 2, 5] {
                let walk = walk_with(fault, first..first + more);
                let said = walk.seen.join(", ");
                let runs: Vec<bool> = walk.runs_new.values().copied().collect();
                if said.contains("**confirmed**") {
                    assert_eq!(runs, [true; 3], "{said}");
                    assert!(matches!(fault, Fault::None | Fault::Cut(_)), "{said}");
                } else if said.contains("**reverted") {
                    assert_eq!(runs, [false; 3], "{said}");
                } else {
                    let given_up = said == "**given up**";
                    assert!(
                        given_up || said.contains("**failed, revert_failed**"),
                        "{said}"
                    );
                    assert!(given_up || matches!(fault, Fault::Revert(_)), "{said}");
                    assert_eq!(runs, [!given_up, false, false], "{said}");
                }
            }
        }
    }
}

fn hand(machine: &mut Machine<'_>, frame: &GatewayFrame<'_>) {
    let mut record = [0; 64];
    let len = frame.encode(&mut record).expect("it fits");
    assert!(machine.wants_record());
    machine.handle_record(&record[..len], NOW);
}

pub(crate) fn table() -> String {
    let rows = [
        ("all is well", Fault::None),
        ("the self-test of 3 fails", Fault::SelfTest(3)),
        ("the self-test of 0 fails", Fault::SelfTest(0)),
        ("the self-test of 7 fails", Fault::SelfTest(7)),
        ("3 is refused", Fault::Activate(3)),
        ("0 is refused", Fault::Activate(0)),
        ("7 is refused", Fault::Activate(7)),
        ("the bootloader goes back from 0", Fault::GoesBack),
        ("7 fails, and 7 kept no old image", Fault::Revert(7)),
        ("7 fails, and 0 kept no old image", Fault::Revert(0)),
        ("7 fails, and 3 kept no old image", Fault::Revert(3)),
        ("3 cannot be made final", Fault::Confirm(3)),
        ("7 cannot be made final", Fault::Confirm(7)),
        ("power cut before the test of 3", Fault::Cut(3)),
        ("power cut before 0 is activated", Fault::Cut(4)),
        ("power cut before the restart", Fault::Cut(5)),
        ("power cut before 7 is activated", Fault::Cut(8)),
        ("power cut before 0 is made final", Fault::Cut(12)),
        (
            "power cut before 7 is activated, and the bootloader goes back from 0",
            Fault::CutBack(8),
        ),
    ];
    let mut out = String::from("| what happens | what the board does |\n|---|---|\n");
    for (what, fault) in rows {
        out.push_str(&format!("| {what} | {} |\n", walk(fault)));
    }
    out
}

fn content(component: u8) -> [u8; 100] {
    [component; 100]
}

/// A board whose journal has every entry staged, in a new session.
fn staged() -> Machine<'static> {
    let mut cells = activated();
    cells.trial = None;
    cells.image = None;
    cells.trust = Some(TrustSet {
        epoch: 1,
        threshold: 1,
        keys: [[5; 32]].into_iter().collect(),
        minimums: Fixed::new(),
    });
    for entry in cells.entries.iter_mut().flatten() {
        entry.image.sha256 = Digest(Sha256::digest(content(entry.image.component)).into());
        entry.image.trust_epoch = 1;
    }
    let walk = Walk {
        fault: Fault::None,
        refuses: 0..0,
        stores: 0,
        runs_new: COMPONENTS.into_iter().map(|(of, _)| (of, false)).collect(),
        pending: None,
        came_back: false,
        journal: BTreeMap::new(),
        seen: Vec::new(),
        steps: 0,
    };
    let mut machine = walk.boot(cells);
    online(&mut machine);
    machine
}

fn online(machine: &mut Machine<'_>) {
    let later = machine.deadline().unwrap_or(NOW);
    assert!(matches!(machine.poll_work(later), Some(Work::Dial { .. })));
    machine.dialed(Ok(()), NOW);
    said(machine);
    let welcome = Welcome {
        time_s: 0,
        ping_s: 0,
    };
    hand(machine, &welcome.into());
}

/// Everything that it says and does, reads carried out.
fn said(machine: &mut Machine<'_>) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        let mut buffer = [0; 1008];
        if let Some(len) = machine.poll_transmit(&mut buffer, NOW) {
            let frame = DeviceFrame::decode(&buffer[..len]).expect("it made it");
            seen.push(name(&frame));
            continue;
        }
        match machine.poll_work(NOW) {
            Some(Work::Read { component, len, .. }) => {
                machine.read_back(&content(component)[..usize::try_from(len).unwrap()]);
                machine.worked(Ok(()), NOW);
            }
            Some(Work::Store(_)) => machine.worked(Ok(()), NOW),
            Some(Work::HangUp) => machine.hung_up(NOW),
            _ => return seen,
        }
    }
}

fn resume(machine: &mut Machine<'_>, component: u8) -> Vec<String> {
    let resume = Resume {
        update: UPDATE,
        group: 0,
        order: 0,
        component,
        flags: 0,
        encoding: 0,
        base: None,
        payload_size: 100,
        manifest: Digest([1; 32]),
    };
    hand(machine, &resume.into());
    said(machine)
}

fn activate(machine: &mut Machine<'_>) -> Vec<String> {
    hand(machine, &Activate { update: UPDATE }.into());
    said(machine)
}

#[test]
fn nothing_is_activated_before_every_entry_was_proven_in_the_same_session() {
    let (whole, wrong) = (["Accept", "Report(staged)"], ["Bye(protocol_error)"]);
    for proven in [&[][..], &[3], &[3, 0], &[0, 7], &[7, 7, 7]] {
        let mut machine = staged();
        for component in proven {
            assert_eq!(resume(&mut machine, *component), whole);
        }
        assert_eq!(activate(&mut machine), wrong, "{proven:?}");
        assert!(machine.cells().trial.is_none());
    }
    // In any order; and what was proven before the link was lost does not count.
    let mut machine = staged();
    for component in [7, 3, 0] {
        assert_eq!(resume(&mut machine, component), whole);
    }
    machine.link_lost(NOW);
    said(&mut machine);
    online(&mut machine);
    assert_eq!(resume(&mut machine, 0), whole);
    assert_eq!(activate(&mut machine), wrong);
    said(&mut machine);
    online(&mut machine);
    for component in [3, 0, 7] {
        assert_eq!(resume(&mut machine, component), whole);
    }
    assert_eq!(
        activate(&mut machine),
        ["Report(activating)", "Bye(restart)"]
    );
    let (image, _) = machine.cells().tried().expect("the trial begins");
    assert_eq!(image.component, 3, "with the first of the manifest");
}

#[test]
fn an_update_of_which_an_entry_is_lost_is_offered_again() {
    let mut machine = staged();
    let mut cells = machine.cells().clone();
    cells.entries[2] = None;
    let mut running = Fixed::<RunningImage, 4>::new();
    for _ in COMPONENTS {
        assert!(running.push(RunningImage::UNKNOWN).is_ok());
    }
    machine = Machine::new(configuration(), cells, running, 1, NOW);
    online(&mut machine);
    assert_eq!(
        resume(&mut machine, 3),
        ["Decline(manifest_unknown)"],
        "a part of it would never be activated"
    );
}
