//! Children of a board: each with slots, a record and a rule of its own.

use super::*;
use dialhome_proto::id::UpdateId;
use std::format;

/// A board with children whose flash is `DIR/flash-N`, and whose other slot is
/// `DIR/other-N` where they have one.
struct Board {
    dir: tempfile::TempDir,
    state: State,
    children: Vec<Component>,
}

fn shell(script: &str) -> Option<CommandSettings> {
    Some(CommandSettings {
        command: vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()],
        timeout: Duration::from_secs(120),
    })
}

impl Board {
    fn new(rules: &[Rollback]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("state")).unwrap();
        let children = (1..).zip(rules).map(|(number, rollback)| {
            let flash = dir.path().join(format!("flash-{number}")).display().to_string();
            let other = dir.path().join(format!("other-{number}")).display().to_string();
            Component {
                number,
                name: format!("child-{number}"),
                slot_size: 1000,
                window: 5000,
                rollback: *rollback,
                commands: Commands {
                    install: shell(&format!(
                        "grep -q bad \"$DIALHOME_IMAGE\" && {{ echo half >{flash}; echo no such part; exit 4; }}; \
                         [ $DIALHOME_COMPONENT = {number} ] || exit 5; \
                         [ ! -e {flash} ] || cp {flash} {other}; cp \"$DIALHOME_IMAGE\" {flash}"
                    )),
                    running: shell(&format!("sha256sum {flash}")),
                    self_test: shell(&format!("cmp \"$DIALHOME_IMAGE\" {flash}")),
                    revert: (*rollback == Rollback::Swap).then(|| shell(&format!("cp {other} {flash}"))).flatten(),
                },
            }
        });
        let children = children.collect();
        Self {
            dir,
            state,
            children,
        }
    }

    fn start(&self) -> LinuxBoot {
        let mut boot = LinuxBoot::open(&self.state, Commands::default(), None).unwrap();
        for child in &self.children {
            boot.add(child).unwrap();
        }
        boot
    }

    /// Puts an image into the child's free slot, as a transfer does.
    fn receive(&self, component: u8, image: &str) {
        let images = Images::of_component(self.state.dir(), component);
        images.make().unwrap();
        fs::write(images.path(images.free_slot().unwrap()), image).unwrap();
    }

    fn installs(&self, component: u8, image: &str) -> Result<Restart, BootError> {
        self.receive(component, image);
        self.start().activate(&activation(component, image))
    }

    /// Brings the child to a confirmed image.
    fn has(&self, component: u8, image: &str) {
        assert_eq!(self.installs(component, image), Ok(Restart::NotNeeded));
        self.start().confirm(component).unwrap();
        assert!(self.runs(component, image));
    }

    fn running(&self, component: u8) -> Running {
        self.start().running(component, None).unwrap()
    }

    fn runs(&self, component: u8, image: &str) -> bool {
        let running = self.running(component);
        running.digest == digest(image)
            && running.digest_from == DigestFrom::READ_BACK
            && self.flash(component) == image
    }

    fn flash(&self, component: u8) -> String {
        let path = self.dir.path().join(format!("flash-{component}"));
        fs::read_to_string(path).unwrap_or_default()
    }

    /// How many images the agent keeps of this child.
    fn kept(&self, component: u8) -> usize {
        let slots = self
            .state
            .dir()
            .join(format!("components/{component}/slots"));
        fs::read_dir(slots).unwrap().count()
    }
}

fn digest(image: &str) -> Digest {
    Digest(Sha256::digest(image).into())
}

fn activation(component: u8, image: &str) -> Activation<'static> {
    Activation {
        update: UpdateId([7; 8]),
        component,
        digest: digest(image),
        size: u32::try_from(image.len()).unwrap(),
        version: "1.2.3",
        trial_boots: 5,
    }
}

#[test]
fn a_copy_that_the_agent_keeps_is_installed_again() {
    let board = Board::new(&[Rollback::RestoreCopy]);
    assert_eq!(board.running(1).revert, Revert::NONE);
    assert_eq!(board.installs(1, "first"), Ok(Restart::NotNeeded));
    // Nobody has what was in the flash before.
    let mut boot = board.start();
    assert_eq!(boot.revert(1), Err(BootError::NothingToRestore));
    assert!(boot.detail().starts_with("child-1: what ran before"));
    board.has(1, "second");
    assert_eq!(board.running(1).revert, Revert::RESTORE_COPY);

    assert_eq!(board.installs(1, "third"), Ok(Restart::NotNeeded));
    assert!(board.runs(1, "third") && board.running(1).on_trial);
    assert_eq!(board.start().self_test(1), SelfTest::PASSED);
    assert_eq!(board.start().revert(1), Ok(Restart::NotNeeded));
    assert!(board.runs(1, "second"));
    assert_eq!(board.start().revert(1), Ok(Restart::NotNeeded));

    board.receive(1, "bad");
    let mut boot = board.start();
    assert_eq!(
        boot.activate(&activation(1, "bad")),
        Err(BootError::Install)
    );
    assert_eq!(
        boot.detail(),
        "child-1: install ended with code 4: no such part"
    );
    assert_eq!(board.flash(1), "half\n");
    assert!(board.running(1).unfinished);
    assert_eq!(board.start().revert(1), Ok(Restart::NotNeeded));
    assert!(board.runs(1, "second"));
    assert_eq!(board.kept(1), 2);
}

#[test]
fn a_child_that_keeps_two_images_is_told_to_swap() {
    let board = Board::new(&[Rollback::Swap]);
    fs::write(board.dir.path().join("flash-1"), "by cable").unwrap();
    assert_eq!(board.running(1).revert, Revert::SWAP);
    assert_eq!(board.installs(1, "first"), Ok(Restart::NotNeeded));
    assert!(board.runs(1, "first"));
    // It needs no copy: what came by cable is back.
    assert_eq!(board.start().revert(1), Ok(Restart::NotNeeded));
    assert!(board.runs(1, "by cable"));
    board.has(1, "second");
    assert_eq!(board.installs(1, "third"), Ok(Restart::NotNeeded));
    assert_eq!(board.start().revert(1), Ok(Restart::NotNeeded));
    assert!(board.runs(1, "second"));
}

#[test]
fn a_child_without_an_older_image_keeps_the_new_one_and_says_so() {
    let board = Board::new(&[Rollback::None]);
    board.has(1, "first");
    assert_eq!(board.kept(1), 1);
    assert_eq!(board.running(1).revert, Revert::NONE);
    assert_eq!(board.installs(1, "second"), Ok(Restart::NotNeeded));
    let mut boot = board.start();
    assert_eq!(boot.revert(1), Err(BootError::NothingToRestore));
    assert_eq!(
        boot.detail(),
        "child-1: it keeps no older image (rollback = \"none\")"
    );
    assert!(board.runs(1, "second") && !board.running(1).on_trial);
    board.receive(1, "bad");
    board.start().activate(&activation(1, "bad")).unwrap_err();
    assert_eq!(board.start().revert(1), Err(BootError::NothingToRestore));
    assert_eq!(board.flash(1), "half\n");
    board.has(1, "third");
}

#[test]
fn a_check_that_fails_names_the_child() {
    let mut board = Board::new(&[Rollback::RestoreCopy]);
    board.has(1, "first");
    board.children[0].commands.self_test = shell("echo lamp is dark; exit 3");
    assert_eq!(board.installs(1, "second"), Ok(Restart::NotNeeded));
    let mut boot = board.start();
    assert_eq!(boot.self_test(1), SelfTest::FAILED);
    assert_eq!(
        boot.detail(),
        "child-1: check ended with code 3: lamp is dark"
    );
    board.children[0].commands.self_test = None;
    assert_eq!(board.start().self_test(1), SelfTest::NOT_RUN);
    // As much as the journal keeps, and of the output the end.
    let long = "x".repeat(400);
    board.children[0].commands.self_test = shell(&format!("echo {long} dark; exit 3"));
    let mut boot = board.start();
    boot.self_test(1);
    assert_eq!(boot.detail().len(), OUTBOX_DETAIL_MAX);
    assert!(boot.detail().ends_with("xx dark"), "{}", boot.detail());
}

/// An update of several components has them all on trial at a time, and brings them back in
/// the other order.
#[test]
fn several_are_on_trial_at_a_time() {
    let board = Board::new(&[Rollback::RestoreCopy, Rollback::Swap, Rollback::RestoreCopy]);
    for component in 1..=3 {
        board.has(component, "old");
    }
    for component in 1..=3 {
        assert_eq!(board.installs(component, "new"), Ok(Restart::NotNeeded));
    }
    for component in 1..=3 {
        assert!(board.runs(component, "new") && board.running(component).on_trial);
    }
    for component in (2..=3).rev() {
        board.start().revert(component).unwrap();
    }
    board.start().confirm(1).unwrap();
    assert!(board.runs(1, "new") && board.runs(2, "old") && board.runs(3, "old"));
    assert!((1..=3).all(|component| !board.running(component).on_trial));
    // Of component 0 nothing was touched.
    assert_eq!(board.running(0).digest_from, DigestFrom::UNKNOWN);
    assert!(!board.state.dir().join("switch").exists());
}

/// A cut after every durable step, then the same call again.
#[test]
fn each_step_can_be_cut_and_repeated() {
    for rule in [Rollback::RestoreCopy, Rollback::Swap, Rollback::None] {
        for cut in 0..4 {
            let board = Board::new(&[rule]);
            board.has(1, "first");
            board.receive(1, "second");
            let mut boot = board.start();
            boot.cut_after = Some(cut);
            let _ = boot.activate(&activation(1, "second"));
            board.start().activate(&activation(1, "second")).unwrap();
            assert!(board.runs(1, "second"), "{rule:?}, cut after {cut}");
            let mut boot = board.start();
            boot.cut_after = Some(cut);
            let _ = boot.revert(1);
            let again = board.start().revert(1);
            assert!(!board.running(1).on_trial);
            if rule == Rollback::None {
                assert!(again.is_ok() || again == Err(BootError::NothingToRestore));
                assert!(board.runs(1, "second"));
            } else {
                assert_eq!(again, Ok(Restart::NotNeeded), "{rule:?}, cut after {cut}");
                assert!(board.runs(1, "first"), "{rule:?}, cut after {cut}");
            }
        }
    }
}

#[test]
fn a_child_that_was_unplugged_gets_its_old_image_when_it_is_back() {
    let mut board = Board::new(&[Rollback::RestoreCopy]);
    board.has(1, "first");
    board.installs(1, "second").unwrap();
    let plugged = board.children[0].commands.install.take();
    board.children[0].commands.install = shell("exit 1");
    let mut boot = board.start();
    assert_eq!(boot.revert(1), Err(BootError::Install));
    assert!(board.running(1).unfinished);
    boot.parts[1].commands.install = plugged;
    let start = std::time::Instant::now();
    assert_eq!(boot.revert(1), Ok(Restart::NotNeeded));
    assert!(start.elapsed() >= Duration::from_secs(1), "no pause");
    assert!(board.runs(1, "first"));
}
