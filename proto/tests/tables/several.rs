//! The board's walk through an update with three entries: components 3, 0 and 7 in this
//! order, of which 0 needs a restart.

use crate::board::{NOW, UPDATE, config};
use dialhome_proto::code::{BootReason, DigestFrom, Reason, Revert, SelfTest};
use dialhome_proto::device::{
    BootAction, CELL_LEN, Cell, Cells, ComponentConfig, Config, EntryCell, Machine, RunningImage,
    Said, TrialCell, Work,
};
use dialhome_proto::frame::{Confirm, GatewayFrame, Welcome};
use dialhome_proto::id::Digest;
use dialhome_proto::manifest::{Remembered, TrialBudget};
use heapless::Vec as Fixed;
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
        if let Fault::Cut(at) = self.fault
            && at == self.steps
        {
            self.seen.push("power cut".to_owned());
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
                let fails = matches!(self.fault, Fault::Revert(of) if of == component);
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
    let mut walk = Walk {
        fault,
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
            return walk.seen.join(", ");
        }
        let mut buffer = [0; 1008];
        while machine.poll_transmit(&mut buffer, NOW).is_some() {}
        match machine.poll_work(NOW) {
            Some(Work::Store(cell)) => {
                walk.store(&mut machine, cell);
                machine.worked(Ok(()), NOW);
            }
            Some(Work::Boot(action)) => {
                if walk.step(&mut machine, action) {
                    machine = walk.boot(walk.reload());
                }
            }
            Some(Work::Dial { .. }) => {
                assert_eq!(machine.stage_name(), "Trial", "it dials on trial only");
                walk.seen.push("dial".to_owned());
                machine.dialed(Ok(()), NOW);
                while machine.poll_transmit(&mut buffer, NOW).is_some() {}
                let welcome = Welcome {
                    time_s: 0,
                    ping_s: 0,
                };
                hand(&mut machine, &welcome.into());
            }
            None if confirms < 2 => {
                confirms += 1;
                hand(&mut machine, &Confirm { update: UPDATE }.into());
            }
            None => {
                walk.seen.push("on trial until the budget ends".to_owned());
                return walk.seen.join(", ");
            }
            Some(other) => panic!("{other:?}"),
        }
    }
    panic!("no end of {:?}", walk.seen);
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
    ];
    let mut out = String::from("| what happens | what the board does |\n|---|---|\n");
    for (what, fault) in rows {
        out.push_str(&format!("| {what} | {} |\n", walk(fault)));
    }
    out
}
