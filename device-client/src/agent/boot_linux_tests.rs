use super::*;
use dialhome_proto::id::UpdateId;
use std::{format, time::Duration};

/// A state directory with commands that write down what they saw.
struct Board {
    dir: tempfile::TempDir,
    state: State,
    commands: Commands,
}

fn settings(script: &str) -> Option<CommandSettings> {
    Some(CommandSettings {
        command: vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()],
        timeout: Duration::from_secs(120),
    })
}

impl Board {
    /// With an install command that copies the image to `DIR/installed`.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("state")).unwrap();
        let place = dir.path().display().to_string();
        let commands = Commands {
            install: settings(&format!(
                "cat \"$DIALHOME_IMAGE\" > {place}/installed; \
                 echo \"$DIALHOME_COMPONENT $DIALHOME_VERSION $DIALHOME_UPDATE\" >> {place}/log"
            )),
            ..Commands::default()
        };
        Self {
            dir,
            state,
            commands,
        }
    }

    /// Starts the agent's boot side again, as a restart does.
    fn start(&self) -> LinuxBoot {
        LinuxBoot::open(&self.state, self.commands.clone(), None).unwrap()
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }

    /// Puts an image into the free slot, as a transfer does.
    fn receive(&self, image: &str) {
        let images = Images::new(self.state.dir());
        fs::write(images.path(images.free_slot().unwrap()), image).unwrap();
    }

    /// Brings the board to a confirmed image.
    fn with_image(image: &str) -> Self {
        let board = Self::new();
        board.receive(image);
        board.start().activate(&activation(image)).unwrap();
        board.start().confirm(0).unwrap();
        board
    }

    fn running(&self) -> Running {
        self.start().running(0, None).unwrap()
    }

    /// The running image, where its digest is known.
    fn runs(&self, image: &str) -> bool {
        let running = self.running();
        running.digest == digest(image)
            && running.digest_from == DigestFrom::SLOT_FILE
            && self.file("installed") == image
    }
}

fn digest(image: &str) -> Digest {
    Digest(Sha256::digest(image).into())
}

fn activation(image: &str) -> Activation<'static> {
    Activation {
        update: UpdateId([7; 8]),
        component: 0,
        digest: digest(image),
        size: u32::try_from(image.len()).unwrap(),
        version: "1.2.3",
        trial_boots: 5,
    }
}

#[test]
fn a_first_start_knows_no_image() {
    let board = Board::new();
    let running = board.running();
    assert_eq!(running.digest_from, DigestFrom::UNKNOWN);
    assert_eq!(running.digest, Digest([0; 32]));
    assert_eq!(running.revert, Revert::NONE);
}

#[test]
fn an_activated_image_is_installed_and_can_be_confirmed() {
    let board = Board::with_image("first");
    assert!(board.runs("first"));
    assert_eq!(board.running().revert, Revert::SWAP);
    assert_eq!(board.file("log"), "0 1.2.3 0707070707070707\n");
    board.receive("second");
    let mut boot = board.start();
    assert_eq!(boot.activate(&activation("second")), Ok(Restart::Needed));
    assert_eq!(boot.restart(BootReason::UPDATE), Ok(()));
    assert!(board.runs("second"));
    board.start().confirm(0).unwrap();
    board.start().confirm(0).unwrap();
    assert!(board.runs("second"));
    // Confirmed is final: there is nothing to go back to.
    assert_eq!(board.start().revert(0), Ok(Restart::NotNeeded));
    assert!(board.runs("second"));
}

#[test]
fn an_open_trial_is_told_until_it_is_confirmed_or_undone() {
    let board = Board::with_image("first");
    assert!(!board.running().on_trial);
    board.receive("second");
    board.start().activate(&activation("second")).unwrap();
    assert!(board.running().on_trial);
    board.start().revert(0).unwrap();
    assert!(!board.running().on_trial);
    board.start().activate(&activation("second")).unwrap();
    board.start().confirm(0).unwrap();
    assert!(!board.running().on_trial);
}

#[test]
fn a_revert_installs_the_old_image_again() {
    let board = Board::with_image("first");
    board.receive("second");
    board.start().activate(&activation("second")).unwrap();
    assert_eq!(board.start().revert(0), Ok(Restart::Needed));
    assert!(board.runs("first"));
    assert_eq!(board.start().revert(0), Ok(Restart::NotNeeded));
    assert!(board.runs("first"));
    // The image is still staged: it can be activated again without one chunk.
    board.start().activate(&activation("second")).unwrap();
    assert!(board.runs("second"));
}

/// A cut after every durable step of an activation, then the same call again.
#[test]
fn an_activation_cut_at_any_step_is_finished_by_the_next_call() {
    let mut cuts = 0;
    loop {
        let board = Board::with_image("first");
        board.receive("second");
        let mut boot = board.start();
        boot.cut_after = Some(cuts);
        let finished = boot.activate(&activation("second")).is_ok();
        let running = board.running();
        let known = running.digest_from != DigestFrom::UNKNOWN;
        assert!(!known || running.digest == digest("first") || board.file("installed") == "second");
        assert_eq!(
            board.start().activate(&activation("second")),
            Ok(Restart::Needed)
        );
        assert!(board.runs("second"), "cut after {cuts}");
        board.start().revert(0).unwrap();
        assert!(board.runs("first"), "cut after {cuts}");
        if finished {
            break;
        }
        cuts += 1;
    }
    assert_eq!(cuts, 3);
}

/// A cut after every durable step of an activation, then a revert instead.
#[test]
fn an_activation_cut_at_any_step_can_be_reverted() {
    for cut in 0..3 {
        let board = Board::with_image("first");
        board.receive("second");
        let mut boot = board.start();
        boot.cut_after = Some(cut);
        boot.activate(&activation("second")).unwrap_err();
        board.start().revert(0).unwrap();
        assert!(board.runs("first"), "cut after {cut}");
    }
}

#[test]
fn a_revert_cut_at_any_step_is_finished_by_the_next_call() {
    let mut cuts = 0;
    loop {
        let board = Board::with_image("first");
        board.receive("second");
        board.start().activate(&activation("second")).unwrap();
        let mut boot = board.start();
        boot.cut_after = Some(cuts);
        let finished = boot.revert(0).is_ok();
        let running = board.running();
        let known = running.digest_from != DigestFrom::UNKNOWN;
        assert!(
            !known || running.digest == digest("first"),
            "cut after {cuts}"
        );
        board.start().revert(0).unwrap();
        assert!(board.runs("first"), "cut after {cuts}");
        if finished {
            break;
        }
        cuts += 1;
    }
    assert_eq!(cuts, 3);
}

#[test]
fn the_first_image_cannot_be_undone_once_it_was_installed() {
    let board = Board::new();
    board.receive("first");
    board.start().activate(&activation("first")).unwrap();
    let mut boot = board.start();
    assert_eq!(boot.revert(0), Err(BootError::NothingToRestore));
    assert!(boot.detail().contains("not known"));
    assert_eq!(board.running().digest_from, DigestFrom::UNKNOWN);
    // The board takes another image.
    board.receive("second");
    board.start().activate(&activation("second")).unwrap();
    assert!(board.runs("second"));
}

#[test]
fn without_an_install_command_the_first_image_can_be_taken_away() {
    let mut board = Board::new();
    board.commands = Commands::default();
    board.receive("first");
    board.start().activate(&activation("first")).unwrap();
    assert_eq!(board.running().digest, digest("first"));
    assert_eq!(board.start().revert(0), Ok(Restart::Needed));
    assert_eq!(board.running().digest_from, DigestFrom::UNKNOWN);
    assert!(!board.state.dir().join("current").exists());
}

#[test]
fn a_slot_that_holds_other_bytes_is_not_activated() {
    let board = Board::with_image("first");
    let mut boot = board.start();
    let refused = boot.activate(&activation("second"));
    assert_eq!(refused, Err(BootError::DigestMismatch));
    board.receive("secone");
    let mut boot = board.start();
    assert_eq!(
        boot.activate(&activation("second")),
        Err(BootError::DigestMismatch)
    );
    assert!(boot.detail().contains("6 bytes"), "{}", boot.detail());
    board.receive("second and more");
    let mut boot = board.start();
    assert_eq!(
        boot.activate(&activation("second")),
        Err(BootError::DigestMismatch)
    );
    assert!(board.runs("first"));
    assert_eq!(board.start().revert(0), Ok(Restart::NotNeeded));
}

#[test]
fn a_failed_installation_is_reverted_with_the_tail_of_its_output() {
    let mut board = Board::with_image("first");
    let place = board.dir.path().display().to_string();
    board.commands.install = settings(&format!(
        "if grep -q second \"$DIALHOME_IMAGE\"; then echo no such part; exit 4; fi; \
         cat \"$DIALHOME_IMAGE\" > {place}/installed"
    ));
    board.receive("second");
    let mut boot = board.start();
    assert_eq!(
        boot.activate(&activation("second")),
        Err(BootError::Install)
    );
    assert_eq!(boot.detail(), "install ended with code 4: no such part");
    assert_eq!(board.running().digest_from, DigestFrom::UNKNOWN);
    assert_eq!(board.start().revert(0), Ok(Restart::Needed));
    assert!(board.runs("first"));
}

#[test]
fn a_restoration_that_fails_is_tried_again_and_a_new_image_is_still_taken() {
    let mut board = Board::with_image("first");
    board.receive("second");
    board.start().activate(&activation("second")).unwrap();
    let good = board.commands.install.clone();
    board.commands.install = settings("exit 1");
    assert_eq!(board.start().revert(0), Err(BootError::Install));
    assert_eq!(board.running().digest_from, DigestFrom::UNKNOWN);
    board.commands.install = good;
    let mut again = board.start();
    assert_eq!(again.revert(0), Ok(Restart::Needed));
    assert!(board.runs("first"));
    // And where it never succeeds:
    board.start().activate(&activation("second")).unwrap();
    let good = board.commands.install.take();
    board.commands.install = settings("exit 1");
    board.start().revert(0).unwrap_err();
    board.commands.install = good;
    board.receive("third");
    board.start().activate(&activation("third")).unwrap();
    assert!(board.runs("third"));
    board.start().revert(0).unwrap();
    assert!(board.runs("first"));
}

#[test]
fn an_image_changed_behind_the_agents_back_is_hashed_afresh() {
    let board = Board::with_image("first");
    fs::write(board.state.dir().join("current"), "other").unwrap();
    let running = board.running();
    assert_eq!(running.digest, digest("other"));
}

#[test]
fn a_command_may_say_what_runs() {
    let mut board = Board::with_image("first");
    let place = board.dir.path().display().to_string();
    board.commands.running = settings(&format!("echo now:; sha256sum {place}/installed"));
    let running = board.running();
    assert_eq!(running.digest, digest("first"));
    assert_eq!(running.digest_from, DigestFrom::BOOTED);
    for script in ["echo nothing", "exit 1"] {
        board.commands.running = settings(script);
        assert_eq!(board.running().digest_from, DigestFrom::UNKNOWN);
    }
}

#[test]
fn the_self_test_executes_the_image_that_runs() {
    let mut board = Board::new();
    assert_eq!(board.start().self_test(0), SelfTest::NOT_RUN);
    board.commands.self_test = settings("\"$DIALHOME_IMAGE\" $DIALHOME_VERSION");
    for (image, verdict, detail) in [
        ("#!/bin/sh\ntest \"$1\" = 1.2.3\n", SelfTest::PASSED, ""),
        (
            "#!/bin/sh\necho sensor missing; exit 2\n",
            SelfTest::FAILED,
            "self_test ended with code 2: sensor missing",
        ),
    ] {
        board.receive(image);
        board.start().activate(&activation(image)).unwrap();
        let mut boot = board.start();
        assert_eq!(boot.self_test(0), verdict);
        assert_eq!(boot.detail(), detail);
        board.start().confirm(0).unwrap();
    }
}

#[test]
fn a_second_image_is_refused_while_one_is_on_trial() {
    let board = Board::with_image("first");
    board.receive("second");
    board.start().activate(&activation("second")).unwrap();
    let mut boot = board.start();
    assert_eq!(
        boot.activate(&activation("third")),
        Err(BootError::NotAllowed)
    );
    assert!(boot.detail().contains("on trial"));
    assert!(board.runs("second"));
}

#[test]
fn an_install_command_that_is_missing_leaves_the_old_image_as_it_was() {
    let mut board = Board::with_image("first");
    let log = board.file("log");
    board.commands.install = Some(CommandSettings {
        command: vec!["/nonexistent/tool".to_owned()],
        timeout: Duration::from_secs(5),
    });
    board.receive("second");
    let mut boot = board.start();
    assert_eq!(
        boot.activate(&activation("second")),
        Err(BootError::Install)
    );
    assert!(boot.detail().starts_with("install is not there"));
    // There is nothing to undo, and so nothing that could fail.
    assert_eq!(boot.revert(0), Ok(Restart::NotNeeded));
    assert!(board.runs("first"));
    assert_eq!(board.file("log"), log);
}

#[test]
fn another_component_is_refused() {
    let board = Board::new();
    let mut boot = board.start();
    assert_eq!(boot.running(1, None), Err(BootError::Unsupported));
    assert_eq!(boot.revert(1), Err(BootError::Unsupported));
    assert_eq!(boot.confirm(1), Err(BootError::Unsupported));
    assert_eq!(boot.self_test(1), SelfTest::NOT_RUN);
}

#[test]
fn the_machines_start_is_told_from_the_agents() {
    let board = Board::new();
    assert_eq!(board.running().boot_reason, BootReason::POWER_ON);
    assert_eq!(board.running().boot_reason, BootReason::RESTART);
    fs::write(board.state.dir().join("boot_id"), "another").unwrap();
    assert_eq!(board.running().boot_reason, BootReason::POWER_ON);
}
