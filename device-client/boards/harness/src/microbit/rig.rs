//! A gateway, an emulated modem, and a microbit between them.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use dialhome_modem::{Config, Options, Program};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;

use super::{BOOTLOADER, FIRMWARE, Flash, Pace, Settings, map};
use crate::Error;
use crate::firmware::{self, Behaviour, Image};
use crate::qemu::Qemu;
use crate::site::Bench;

/// The device's id.
pub const BOARD: &str = "board-1";
/// The product of board and images.
pub const PRODUCT: &str = "buoy";

/// The instruction with which the core sleeps until an interrupt.
const WFI: [u8; 2] = [0x30, 0xbf];
/// Times that a moment is looked for.
const LOOKS_MAX: u32 = 200;

/// What the board was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The bootloader ran.
    Bootloader,
    /// The image ran.
    Busy,
    /// The image waited for bytes or for a time.
    Asleep,
}

/// A board that runs version 1.0.0, and everything around it.
#[derive(Debug)]
pub struct Rig {
    /// The gateway and its operator.
    pub bench: Bench,
    /// The modem. It stays on when the board's power is cut.
    pub modem: Program,
    /// What lies in the flash while the board is off; while it runs, what lay there when
    /// it was started.
    pub flash: Flash,
    /// The image of version 1.0.0.
    pub first: Vec<u8>,
    /// Bytes of the bootloader.
    pub bootloader_len: usize,
    /// How fast the board runs when it is switched on.
    pub pace: Pace,
    machine: Option<Qemu>,
    built: Image,
}

/// An image that the gateway holds.
#[derive(Clone, Debug)]
pub struct Added {
    /// `P@V`.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A modem for quick tests: no time passes but what bytes need.
#[must_use]
pub fn quick_modem() -> Options {
    Options {
        config: Config {
            latency: Duration::ZERO,
            start: Duration::from_millis(100),
            register: Duration::from_millis(50),
            context: Duration::from_millis(5),
            ..Config::default()
        },
        ..Options::default()
    }
}

impl Rig {
    /// Starts gateway and modem, and makes a board; the board is off.
    ///
    /// # Errors
    /// Something could not be built or started.
    pub async fn make(settings: &Settings, modem: Options) -> Result<Self, Error> {
        let programs = firmware::build()?;
        let bootloader = programs.image(BOOTLOADER, map::BOOTLOADER.start)?;
        let built = programs.image(FIRMWARE, map::ACTIVE.start)?;
        let bench = Bench::start(PRODUCT).await?;
        let modem = Program::start(Options {
            trace: Some(bench.path().join("logs/modem.log")),
            ..modem
        })
        .map_err(Error::io("the modem"))?;
        let gateway = format!("127.0.0.1:{}", bench.port());
        let record = bench.provision(BOARD, &gateway).await?;
        let first = built.variant("1.0.0", 1, Behaviour::Good)?.bytes;
        let flash = Flash::new(&bootloader.bytes, &first, &record, settings)?;
        Ok(Self {
            bench,
            modem,
            flash,
            first,
            bootloader_len: bootloader.bytes.len(),
            pace: Pace::Unpaced,
            machine: None,
            built,
        })
    }

    /// The same, and the board is online.
    ///
    /// # Errors
    /// As [`Self::make`], or the board does not dial.
    pub async fn start(settings: &Settings, modem: Options) -> Result<Self, Error> {
        let mut rig = Self::make(settings, modem).await?;
        rig.switch_on().await?;
        rig.online().await?;
        Ok(rig)
    }

    /// Puts another program of the board's into the active slot, while it is off.
    ///
    /// # Errors
    /// It is not built, or does not fit.
    pub fn load(&mut self, program: &str) -> Result<(), Error> {
        let image = firmware::build()?.image(program, map::ACTIVE.start)?;
        let image = image.variant("1.0.0", 1, Behaviour::Good)?;
        self.flash.load(&image.bytes)
    }

    /// Gives the board power.
    ///
    /// # Errors
    /// QEMU did not start.
    pub async fn switch_on(&mut self) -> Result<(), Error> {
        let (folder, log, modem) = (self.bench.path(), self.log(), self.modem.uart().port());
        let machine = super::start(folder, &log, &self.flash, modem, self.pace).await?;
        self.machine = Some(machine);
        Ok(())
    }

    /// Cuts the board's power, between two instructions. What is left is in
    /// [`Self::flash`].
    ///
    /// # Errors
    /// QEMU refused a command, or the board was off.
    pub async fn cut(&mut self) -> Result<Moment, Error> {
        self.cut_at(|_| true).await
    }

    /// The same at a moment of a wanted kind, which is looked for again and again, and
    /// for a while only.
    ///
    /// # Errors
    /// As [`Self::cut`].
    pub async fn cut_at(
        &mut self,
        mut wanted: impl FnMut(Moment) -> bool,
    ) -> Result<Moment, Error> {
        let mut machine = self.machine.take().ok_or_else(|| self.is_off())?;
        let mut looks = 0;
        let moment = loop {
            machine.stop().await?;
            let moment = self.moment(super::program_counter(&mut machine).await?);
            looks += 1;
            if wanted(moment) || looks == LOOKS_MAX {
                break moment;
            }
            machine.cont().await?;
        };
        self.flash = super::cut(machine, self.bench.path()).await?;
        Ok(moment)
    }

    fn moment(&self, at: u32) -> Moment {
        // Every image here is the same program at the same place.
        let before = at.checked_sub(map::ACTIVE.start + 2);
        let before = before.and_then(|from| self.first.get(from as usize..from as usize + 2));
        if at < map::BOOTLOADER.end() {
            Moment::Bootloader
        } else if before == Some(&WFI) {
            Moment::Asleep
        } else {
            Moment::Busy
        }
    }

    /// The machine, while it is on.
    ///
    /// # Errors
    /// It is off.
    pub fn machine(&mut self) -> Result<&mut Qemu, Error> {
        let off = self.is_off();
        self.machine.as_mut().ok_or(off)
    }

    fn is_off(&self) -> Error {
        Error::ended("it was to be asked", &self.log())
    }

    /// Reads the flash of the running board.
    ///
    /// # Errors
    /// QEMU refused a command, or the board is off.
    pub async fn look(&mut self) -> Result<Flash, Error> {
        let folder = self.bench.path().to_owned();
        super::read(self.machine()?, &folder).await
    }

    /// What the board prints goes there.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.bench.site.log(BOARD)
    }

    /// A variant of the firmware, as an image that the gateway holds. `options` are more
    /// of `image sign`.
    ///
    /// # Errors
    /// The gateway refused it.
    pub async fn image(
        &self,
        version: &str,
        counter: u64,
        behaviour: Behaviour,
        options: &[&str],
    ) -> Result<Added, Error> {
        let bytes = self.built.variant(version, counter, behaviour)?.bytes;
        self.add(version, counter, bytes, options).await
    }

    /// Any bytes, as an image that the gateway holds.
    ///
    /// # Errors
    /// The gateway refused it.
    pub async fn add(
        &self,
        version: &str,
        counter: u64,
        bytes: Vec<u8>,
        options: &[&str],
    ) -> Result<Added, Error> {
        let name = self.bench.image(version, counter, &bytes, options).await?;
        Ok(Added { name, bytes })
    }

    /// Waits until the board is online.
    ///
    /// # Errors
    /// It is not in time.
    pub async fn online(&self) -> Result<Value, Error> {
        self.bench.online(BOARD).await
    }

    /// The end of the board's log, for the message of a failed test.
    #[must_use]
    pub fn tail(&self) -> String {
        crate::error::tail(&self.log())
    }
}

/// The dice of a test: the seed is printed, and `SEED=` gives it back.
#[must_use]
pub fn dice(test: &str) -> StdRng {
    let given = std::env::var("SEED").ok();
    let given = given.and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| rand::rng().random());
    report(&format!("{test}: SEED={seed}"));
    StdRng::seed_from_u64(seed)
}

/// One line for who runs the tests, also where the test's output is kept back.
pub fn report(line: &str) {
    // Nobody is there to be told where this fails.
    let _ = writeln!(std::io::stderr(), "{line}");
}
