//! The real avrdude against the emulated board: Intel HEX in, flash compared byte for byte,
//! and everything that goes wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use dialhome_stk500::{Options, Part, Program};
use ihex::{Record, create_object_file_representation};
use tempfile::TempDir;

/// Whatever takes longer has failed.
const TIME_MAX: Duration = Duration::from_secs(120);

/// A board, and a folder with images for it.
struct Bench {
    folder: TempDir,
    part: Part,
    program: Program,
}

impl Bench {
    fn new(part: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let part = part.parse().expect("a part");
        let program = start(folder.path(), part);
        Self {
            folder,
            part,
            program,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes an image as Intel HEX.
    fn image(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, intel_hex(bytes)).expect("a file");
        path
    }

    /// avrdude with `-U` and this; the word FILE stands for a path.
    fn avrdude(&self, update: &str, file: &Path) -> Command {
        let mut command = Command::new("avrdude");
        let update = update.replace("FILE", &file.display().to_string());
        command
            .args(["-c", "arduino", "-b", "115200", "-D", "-p", self.part.name])
            .arg("-P")
            .arg(self.program.line())
            .args(["-U", &update])
            .stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    fn run(&self, update: &str, file: &Path) -> Output {
        let output = self.avrdude(update, file).output();
        output.expect("avrdude: install the package of that name")
    }

    fn programs(&self, image: &Path) {
        let output = self.run("flash:w:FILE:i", image);
        assert!(output.status.success(), "{}", said(&output));
    }

    /// Starts it, and waits until the board says that this is its state.
    fn run_until(&self, image: &Path, state: &str) -> Running {
        let child = self
            .avrdude("flash:w:FILE:i", image)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("avrdude: install the package of that name");
        let running = Running(child);
        let end = Instant::now() + TIME_MAX;
        let wanted = format!("ok state={state} ");
        loop {
            let status = self.order("status");
            if status.starts_with(&wanted) {
                return running;
            }
            assert!(Instant::now() < end, "not {state}: {status}");
            // Nothing tells when a board changes; it is asked again.
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn order(&self, order: &str) -> String {
        let answer = self.program.order(order);
        assert!(answer.starts_with("ok"), "{order}: {answer}");
        answer
    }

    fn flash(&self) -> Vec<u8> {
        fs::read(self.path("flash")).expect("the flash")
    }

    /// The flash begins with this.
    fn holds(&self, bytes: &[u8]) {
        assert!(self.flash()[..bytes.len()] == *bytes, "another image");
    }
}

/// An avrdude that will not end by itself.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(folder: &Path, part: Part) -> Program {
    let options = Options {
        part,
        link: Some(folder.join("tty")),
        ..Options::new(folder.join("flash"))
    };
    Program::start(options).expect("a board")
}

fn intel_hex(bytes: &[u8]) -> String {
    let mut records: Vec<_> = (0_u16..)
        .step_by(16)
        .zip(bytes.chunks(16))
        .map(|(offset, data)| Record::Data {
            offset,
            value: data.to_vec(),
        })
        .collect();
    records.push(Record::EndOfFile);
    create_object_file_representation(&records).expect("records of 16 bytes")
}

/// Bytes that no two places near each other share, and no 0xFF, which is erased flash.
fn bytes(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24).to_le_bytes()[0].min(0xFE)
    };
    (0..len).map(|_| next()).collect()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn images_are_programmed_and_read_back() {
    let bench = Bench::new("m328p");
    let large = bytes(1, bench.part.for_programs());
    bench.programs(&bench.image("large.hex", &large));
    bench.holds(&large);
    // A shorter one leaves what is behind it: avrdude fills its last page from the flash.
    let small = bytes(2, 1001);
    bench.programs(&bench.image("small.hex", &small));
    bench.holds(&small);
    assert_eq!(bench.flash()[1001..large.len()], large[1001..]);
    let back = bench.path("back.bin");
    let output = bench.run("flash:r:FILE:r", &back);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(fs::read(back).expect("what was read"), bench.flash());
    assert_eq!(
        bench.order("status"),
        format!("ok state=program sessions=3 pages={} starts=3", 252 + 8)
    );
}

#[test]
fn the_chip_of_a_linkit_keeps_its_flash_over_a_restart() {
    let mut bench = Bench::new("m32u4");
    let image = bytes(3, 4000);
    bench.programs(&bench.image("image.hex", &image));
    let line = bench.program.line().to_owned();
    drop(bench.program);
    assert!(!fs::exists(&line).expect("the folder"), "the line is there");
    bench.program = start(bench.folder.path(), bench.part);
    assert_eq!(bench.program.line(), line);
    bench.holds(&image);
    let output = bench.run("flash:v:FILE:i", &bench.path("image.hex"));
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn a_byte_that_does_not_keep_is_found() {
    let bench = Bench::new("m328p");
    let image = bytes(4, 3000);
    let file = bench.image("image.hex", &image);
    bench.order("faults stuck=123:ff,sessions=1");
    let output = bench.run("flash:w:FILE:i", &file);
    assert!(!output.status.success());
    let said = said(&output);
    assert!(said.contains("verification mismatch"), "{said}");
    assert!(said.contains("0x0123"), "{said}");
    assert_eq!(bench.flash()[0x123], 0xFF);
    // One session only.
    bench.programs(&file);
    bench.holds(&image);
}

#[test]
fn another_signature_is_refused_before_anything_is_written() {
    let bench = Bench::new("m328p");
    let old = bytes(5, 500);
    bench.programs(&bench.image("old.hex", &old));
    bench.order("faults wrong_signature,sessions=1");
    let output = bench.run("flash:w:FILE:i", &bench.image("new.hex", &bytes(6, 500)));
    assert!(!output.status.success());
    let said = said(&output);
    assert!(said.contains("expected signature for ATmega328P"), "{said}");
    bench.holds(&old);
}

#[test]
fn a_board_that_hangs_in_the_middle_takes_the_old_image_again() {
    let bench = Bench::new("m328p");
    let (old, new) = (bytes(7, 3000), bytes(8, 3000));
    let old_file = bench.image("old.hex", &old);
    bench.programs(&old_file);
    bench.order("faults silent_after=5,sessions=1");
    // avrdude asks for each page again for minutes: whoever started it must end it.
    let running = bench.run_until(&bench.image("new.hex", &new), "silent");
    drop(running);
    assert_eq!(bench.flash()[..640], new[..640]);
    assert_eq!(bench.flash()[640..3000], old[640..]);
    bench.programs(&old_file);
    bench.holds(&old);
}

#[test]
fn a_board_that_is_unplugged_in_the_middle_comes_back_under_its_name() {
    let bench = Bench::new("m328p");
    let image = bytes(9, 3000);
    let file = bench.image("image.hex", &image);
    bench.order("faults unplug_after=7,sessions=1");
    let running = bench.run_until(&file, "unplugged");
    assert!(fs::symlink_metadata(bench.program.line()).is_err());
    // avrdude waits at a line that is gone, for ever.
    drop(running);
    let output = bench.run("flash:w:FILE:i", &file);
    assert!(!output.status.success());
    let said = said(&output);
    assert!(said.contains("No such file or directory"), "{said}");
    assert_eq!(bench.flash()[..7 * 128], image[..7 * 128]);
    assert_eq!(bench.flash()[7 * 128], 0xFF);
    bench.order("plug");
    bench.programs(&file);
    bench.holds(&image);
}

#[test]
fn a_slow_board_is_programmed() {
    let bench = Bench::new("m328p");
    let image = bytes(10, 2000);
    bench.order("faults slow=5");
    bench.programs(&bench.image("image.hex", &image));
    bench.holds(&image);
}

#[test]
fn a_board_that_is_deaf_at_first_is_programmed() {
    let bench = Bench::new("m328p");
    let image = bytes(11, 2000);
    // avrdude asks twice without listening; its next request is lost, and one more comes.
    bench.order("faults deaf=3");
    bench.programs(&bench.image("image.hex", &image));
    bench.holds(&image);
}
