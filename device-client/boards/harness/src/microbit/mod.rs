//! The microbit: its flash as bytes, and the machine that runs from them.
//!
//! QEMU is given the bootloader alone, and the rest of the flash is put in through the
//! debugger's port: so the guest's resets keep what it has written, as on the chip.

#[path = "../../../microbit/chip/src/map.rs"]
pub mod map;

pub mod rig;

use std::path::Path;

use crate::Error;
use crate::gdb;
use crate::qemu::{Qemu, Spec};
use map::Part;
use serde_json::json;

/// The firmware's name among the built programs.
pub const FIRMWARE: &str = "microbit";
/// The name of the program that runs the conformance checks.
pub const CONFORMANCE: &str = "microbit-conformance";
/// The bootloader's.
pub const BOOTLOADER: &str = "microbit-bootloader";

/// Settings of a board, in the order of `microbit/src/settings.rs`; none: as usual.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// Ping interval to begin with, in seconds.
    pub ping_s: Option<u32>,
    /// First wait between dials, in milliseconds.
    pub backoff_first_ms: Option<u32>,
    /// Longest wait between dials, in milliseconds.
    pub backoff_max_ms: Option<u32>,
    /// Bytes under way and not committed.
    pub window: Option<u32>,
    /// Committed bytes between two notes of progress.
    pub claim_every: Option<u32>,
    /// Largest image that is taken, in bytes.
    pub image_max: Option<u32>,
    /// Address of a page that behaves as if it were worn out.
    pub worn_page: Option<u32>,
}

impl Settings {
    /// Redials at once, for tests.
    pub const QUICK: Self = Self {
        ping_s: Some(5),
        backoff_first_ms: Some(50),
        backoff_max_ms: Some(500),
        window: None,
        claim_every: None,
        image_max: None,
        worn_page: None,
    };

    fn words(&self) -> [Option<u32>; 7] {
        [
            self.ping_s,
            self.backoff_first_ms,
            self.backoff_max_ms,
            self.window,
            self.claim_every,
            self.image_max,
            self.worn_page,
        ]
    }
}

/// The contents of the whole flash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flash(Vec<u8>);

impl Flash {
    /// A board as it leaves the factory: bootloader, first image, provisioning record,
    /// settings, and everything else erased.
    ///
    /// # Errors
    /// One of them is longer than its part.
    pub fn new(
        bootloader: &[u8],
        image: &[u8],
        record: &[u8],
        settings: &Settings,
    ) -> Result<Self, Error> {
        let mut flash = Self(vec![0xff; map::FLASH_LEN as usize]);
        flash.put(map::BOOTLOADER, bootloader)?;
        flash.put(map::ACTIVE, image)?;
        flash.put(map::PROVISION, record)?;
        let words = settings.words().map(|word| word.unwrap_or(u32::MAX));
        let words: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        flash.put(map::SETTINGS, &words)?;
        Ok(flash)
    }

    fn put(&mut self, part: Part, bytes: &[u8]) -> Result<(), Error> {
        let room = &mut self.0[part.start as usize..part.end() as usize];
        match room.get_mut(..bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(Error::Image {
                path: format!("part at {:#x}", part.start).into(),
                problem: format!("{} bytes do not fit into {}", bytes.len(), part.len),
            }),
        }
    }

    /// Puts an image into the active slot, as a cable does.
    ///
    /// # Errors
    /// It is longer than the slot.
    pub fn load(&mut self, image: &[u8]) -> Result<(), Error> {
        self.0[map::ACTIVE.start as usize..map::ACTIVE.end() as usize].fill(0xff);
        self.put(map::ACTIVE, image)
    }

    /// One part of it.
    #[must_use]
    pub fn part(&self, part: Part) -> &[u8] {
        &self.0[part.start as usize..part.end() as usize]
    }

    /// Whether the active slot begins with this image, byte for byte.
    #[must_use]
    pub fn runs(&self, image: &[u8]) -> bool {
        self.part(map::ACTIVE).starts_with(image)
    }
}

/// How fast the core runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// As fast as this machine can.
    #[default]
    Unpaced,
    /// About as the chip: an instruction takes 64 ns.
    Chip,
}

/// Starts a board with this flash and its UART at `modem`, a TCP port of this machine.
/// It runs when this returns.
///
/// # Errors
/// QEMU did not start, or nobody listens on the port.
pub async fn start(
    folder: &Path,
    log: &Path,
    flash: &Flash,
    modem: u16,
    pace: Pace,
) -> Result<Qemu, Error> {
    // Only these bytes are loaded again at a reset; nobody writes them.
    let kernel = folder.join("bootloader.bin");
    std::fs::write(&kernel, flash.part(map::BOOTLOADER)).map_err(Error::file(&kernel))?;
    let port = gdb::Port::new(folder)?;
    let mut args = port.args();
    args.extend([
        "-serial".to_owned(),
        format!("tcp:127.0.0.1:{modem},nodelay=on"),
    ]);
    if pace == Pace::Chip {
        args.extend(["-icount".to_owned(), "shift=6,sleep=on".to_owned()]);
    }
    let spec = Spec {
        machine: "microbit",
        kernel,
        guest_args: Vec::new(),
        args,
        stop_at_reset: false,
        folder: folder.to_owned(),
        log: log.to_owned(),
    };
    let (machine, debugger) = tokio::join!(Qemu::start(&spec), port.accept());
    let mut machine = machine?;
    let behind = map::BOOTLOADER.end() as usize;
    debugger?.write(behind, &flash.0[behind..]).await?;
    machine.cont().await?;
    Ok(machine)
}

/// The flash of a running machine, which stands still meanwhile.
///
/// # Errors
/// QEMU refused a command.
pub async fn read(machine: &mut Qemu, folder: &Path) -> Result<Flash, Error> {
    machine.stop().await?;
    let flash = save(machine, folder).await?;
    machine.cont().await?;
    Ok(flash)
}

/// Cuts the power of a machine that stands still, and gives what is left: the flash.
///
/// # Errors
/// QEMU refused a command, or did not end.
pub async fn cut(mut machine: Qemu, folder: &Path) -> Result<Flash, Error> {
    let flash = save(&mut machine, folder).await?;
    machine.cut_power().await?;
    Ok(flash)
}

/// Where the core of a machine that stands still is: the address of its next instruction.
///
/// # Errors
/// QEMU refused the command.
pub async fn program_counter(machine: &mut Qemu) -> Result<u32, Error> {
    let arguments = json!({ "command-line": "info registers" });
    let registers = machine.command("human-monitor-command", arguments).await?;
    registers
        .as_str()
        .and_then(|text| text.split_once("R15="))
        .and_then(|(_, rest)| u32::from_str_radix(rest.get(..8)?, 16).ok())
        .ok_or_else(|| Error::Refused {
            command: "info registers".to_owned(),
            answer: registers.to_string(),
        })
}

async fn save(machine: &mut Qemu, folder: &Path) -> Result<Flash, Error> {
    let file = folder.join("flash.bin");
    machine.memsave(0, map::FLASH_LEN, &file).await?;
    let bytes = std::fs::read(&file).map_err(Error::file(&file))?;
    if bytes.len() != map::FLASH_LEN as usize {
        return Err(Error::Image {
            path: file,
            problem: format!("{} bytes of flash were saved", bytes.len()),
        });
    }
    Ok(Flash(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readme_has_the_map() {
        let readme = include_str!("../../../microbit/README.md");
        let parts = [
            ("bootloader", map::BOOTLOADER),
            ("state", map::STATE),
            ("active", map::ACTIVE),
            ("download", map::DOWNLOAD),
            ("journal", map::JOURNAL),
            ("provision", map::PROVISION),
            ("settings", map::SETTINGS),
        ];
        for (name, part) in parts {
            let (start, end, len) = (part.start, part.end(), part.len / 1024);
            let row = format!("| {name} | {start:#07x} | {end:#07x} | {len} |");
            assert!(readme.contains(&row), "no row `{row}`");
        }
    }
}
