//! The boards' firmware: built once per test program, taken out of the ELF files as the
//! bytes that go into flash, and patched into the variants that the tests need.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::{env, fs};

use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, elf};

use crate::Error;

/// The block of constants in an image begins with this (`dialhome_board::constants`).
const MAGIC: &[u8; 16] = b"DIALHOME IMAGE 1";
/// Places in that block.
const VERSION: std::ops::Range<usize> = 16..48;
const COUNTER: std::ops::Range<usize> = 48..56;
const BEHAVIOUR: usize = 56;
const BLOCK_LEN: usize = 64;

/// What an image does, as `dialhome_board::constants::Behaviour`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Behaviour {
    /// What it should.
    Good = 0,
    /// Panics before the client starts.
    CrashesAtStart = 1,
    /// Does nothing, for ever, before the client starts.
    Hangs = 2,
    /// Runs well, and never dials.
    NeverDials = 3,
    /// Its self-test fails.
    FailsSelfTest = 4,
    /// Panics once, when it is online for the first time.
    PanicsOnce = 5,
}

/// The folder of the built programs.
#[derive(Clone, Debug)]
pub struct Firmware {
    programs: PathBuf,
}

/// Builds every board's firmware; the first call of a test program does it, the others
/// wait for it and get the same answer.
///
/// # Errors
/// cargo could not be started, or the build failed; its words are in the error.
pub fn build() -> Result<&'static Firmware, Error> {
    static BUILT: OnceLock<Result<Firmware, String>> = OnceLock::new();
    BUILT
        .get_or_init(run_cargo)
        .as_ref()
        .map_err(|text| Error::Build(text.clone()))
}

fn run_cargo() -> Result<Firmware, String> {
    let boards = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .ok_or("the harness has no parent folder")?;
    // Beside the programs of this workspace, so that one variable moves all of it.
    let target = match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => PathBuf::from(dir).join("boards"),
        None => boards.join("../../target/boards"),
    };
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--release", "--target", "thumbv6m-none-eabi"])
        .args(["--locked", "--color", "never", "--bins"])
        .current_dir(boards)
        .env("CARGO_TARGET_DIR", &target)
        // Flags for the host would go before those of the boards' own configuration.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .map_err(|error| format!("cargo could not be started: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(Firmware {
        programs: target.join("thumbv6m-none-eabi/release"),
    })
}

impl Firmware {
    /// The ELF file of a program by its crate's name.
    #[must_use]
    pub fn elf(&self, program: &str) -> PathBuf {
        self.programs.join(program)
    }

    /// The bytes of a program as they lie in flash from the address `base` on.
    ///
    /// # Errors
    /// The file is not there, is no ELF file of 32 bits, or has a part below `base`.
    pub fn image(&self, program: &str, base: u32) -> Result<Image, Error> {
        let path = self.elf(program);
        let file = fs::read(&path).map_err(Error::file(&path))?;
        let bytes = raw(&file, base).map_err(|problem| Error::Image {
            path: path.clone(),
            problem,
        })?;
        Ok(Image { bytes })
    }
}

/// The loaded parts of an ELF file by their physical addresses; gaps are erased flash.
fn raw(file: &[u8], base: u32) -> Result<Vec<u8>, String> {
    let header = elf::FileHeader32::<Endianness>::parse(file).map_err(|e| e.to_string())?;
    let endian = header.endian().map_err(|e| e.to_string())?;
    let segments = header
        .program_headers(endian, file)
        .map_err(|e| e.to_string())?;
    let mut bytes = Vec::new();
    for segment in segments {
        if segment.p_type(endian) != elf::PT_LOAD || segment.p_filesz(endian) == 0 {
            continue;
        }
        let address = segment.p_paddr(endian);
        let data = segment
            .data(endian, file)
            .map_err(|()| "a segment lies outside the file".to_owned())?;
        let start = address
            .checked_sub(base)
            .and_then(|at| usize::try_from(at).ok())
            .ok_or(format!("a segment at {address:#x} lies below {base:#x}"))?;
        let end = start + data.len();
        if bytes.len() < end {
            bytes.resize(end, 0xff);
        }
        bytes[start..end].copy_from_slice(data);
    }
    if bytes.is_empty() {
        return Err("nothing in it is loaded".to_owned());
    }
    Ok(bytes)
}

/// The bytes of an image as the operator signs them.
#[derive(Clone, Debug)]
pub struct Image {
    /// From the image's first byte to its last.
    pub bytes: Vec<u8>,
}

impl Image {
    /// This image with another version, counter and behaviour: variants differ in these
    /// 41 bytes and in nothing else.
    ///
    /// # Errors
    /// The image has no block of constants, or two, or the text is longer than 32 bytes.
    pub fn variant(
        &self,
        version: &str,
        counter: u64,
        behaviour: Behaviour,
    ) -> Result<Self, Error> {
        let wrong = |problem: &str| Error::Image {
            path: PathBuf::from(version),
            problem: problem.to_owned(),
        };
        let mut found = self
            .bytes
            .windows(MAGIC.len())
            .enumerate()
            .filter(|(_, window)| window == MAGIC)
            .map(|(at, _)| at);
        let at = found
            .next()
            .ok_or_else(|| wrong("it has no block of constants"))?;
        if found.next().is_some() {
            return Err(wrong("it has two blocks of constants"));
        }
        let mut bytes = self.bytes.clone();
        let block = bytes
            .get_mut(at..at + BLOCK_LEN)
            .ok_or_else(|| wrong("its block of constants is cut off"))?;
        let text = block[VERSION]
            .get_mut(..version.len())
            .ok_or_else(|| wrong("the version is too long"))?;
        text.copy_from_slice(version.as_bytes());
        block[VERSION][version.len()..].fill(0);
        block[COUNTER].copy_from_slice(&counter.to_le_bytes());
        block[BEHAVIOUR] = behaviour as u8;
        Ok(Self { bytes })
    }
}
