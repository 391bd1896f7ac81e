//! The boot stage: swaps the two images, counts boots on trial, and goes back
//! (spec/storage.md section 4). A bootloader calls [`BootStage::run`] and starts what it
//! says; nothing of the client is linked into it.

use super::record::{BootLayout, BootLog, BootRecord, Phase};
use super::{PIECE, read};
use crate::journal::JournalError;
use dialhome_proto::crc::Crc32;
use embedded_storage::nor_flash::NorFlash;

/// Times that a unit is erased and written before it counts as bad.
pub const COPY_TRIES: u8 = 3;

/// What the bootloader is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Start the image in the active slot.
    Start(Started),
    /// A unit of the active slot, or the state, does not take what is written to it, and
    /// the active slot is not whole: start nothing. Run the stage again after some
    /// seconds; it goes on where it stopped.
    Stuck {
        /// The flash's offset of the unit.
        offset: u32,
    },
}

/// Which image it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    /// The one that ran before.
    Usual,
    /// A new one on trial.
    Trial {
        /// Boots of it, this one included.
        boots: u8,
    },
    /// The old one, after a new one that did not prove itself.
    Returned,
}

/// The stage between reset and image.
#[derive(Clone, Copy, Debug)]
pub struct BootStage;

/// Why a swap does not go on.
enum Fault {
    /// A unit reads back wrong, however often it is written.
    Unit(u32),
    /// The progress cannot be noted.
    State,
}

impl BootStage {
    /// Goes on with a swap or a return that is under way, begins one that was asked for,
    /// counts a boot on trial, and says what to start. May take as long as copying both
    /// images. Safe to cut at any instant: the next run goes on.
    ///
    /// With a layout that does not fit the flash it does nothing and starts the image.
    pub fn run<F: NorFlash>(flash: &mut F, layout: &BootLayout) -> Decision {
        const {
            assert!(
                F::WRITE_SIZE <= PIECE,
                "a write unit of more than 256 bytes"
            )
        };
        if !layout.fits(flash) {
            return Decision::Start(Started::Usual);
        }
        let log = BootLog::new(layout);
        Swap { flash, layout, log }.run()
    }
}

struct Swap<'a, F> {
    flash: &'a mut F,
    layout: &'a BootLayout,
    log: BootLog,
}

impl<F: NorFlash> Swap<'_, F> {
    fn run(&mut self) -> Decision {
        // A phase leads to another at most three times: asked, given up, returned.
        for _ in 0..4 {
            let record = match self.log.record(self.flash) {
                Ok(record) => record,
                // Rot: nothing tells which image it was.
                Err(JournalError::Damaged) => break,
                // A swap may stand half-way.
                Err(_) => {
                    let offset = self.layout.state.offset;
                    return Decision::Stuck { offset };
                }
            };
            match record.phase {
                Phase::Rest => break,
                Phase::Returned => return Decision::Start(Started::Returned),
                Phase::Trial if record.boots < record.budget => {
                    let boots = record.boots.saturating_add(1);
                    // A boot that cannot be counted is not the image's fault.
                    let _ = self
                        .log
                        .set_record(self.flash, &BootRecord { boots, ..record });
                    return Decision::Start(Started::Trial { boots });
                }
                Phase::Trial => {
                    // It had its boots: where that cannot be noted, it gets no more of them.
                    let back = going_back(&record, 0);
                    if self.log.set_record(self.flash, &back).is_err() {
                        let offset = self.layout.state.offset;
                        return Decision::Stuck { offset };
                    }
                }
                Phase::Asked | Phase::Back if !self.can_do(&record) => {
                    // Asked for by an image that sees the flash otherwise.
                    if self.set(&record, Phase::Returned).is_err() {
                        break;
                    }
                }
                Phase::Asked => match self.forward(&record) {
                    Ok(()) => {}
                    Err(Stop::Start) => break,
                    Err(Stop::Stuck(offset)) => return Decision::Stuck { offset },
                },
                Phase::Back => match self.back(&record) {
                    Ok(()) => {}
                    Err(Stop::Start) => break,
                    Err(Stop::Stuck(offset)) => return Decision::Stuck { offset },
                },
            }
        }
        Decision::Start(Started::Usual)
    }

    /// Whether the record speaks of the same regions and units as this stage.
    fn can_do(&self, record: &BootRecord) -> bool {
        record.layout == self.layout.check()
            && u32::from(record.units) <= self.layout.units()
            && record.size <= self.layout.active.len
    }

    /// Swaps from the last unit to the first; leaves the phase trial, back or returned.
    fn forward(&mut self, record: &BootRecord) -> Result<(), Stop> {
        let step = self
            .log
            .step(self.flash, record)
            .map_err(|_| self.stuck())?;
        if step == 0 && !self.download_is_whole(record) {
            // What was verified is not there any more.
            return self.set(record, Phase::Returned).map_err(|_| Stop::Start);
        }
        let steps = record.units.saturating_mul(2);
        let mut step = step;
        while step < steps {
            match self.forward_step(record, step) {
                Ok(()) => step = step.saturating_add(1),
                Err(Fault::State) if step == 0 => return Err(Stop::Start),
                Err(Fault::State) => return Err(self.stuck()),
                Err(Fault::Unit(_)) => return self.give_up(record, step),
            }
        }
        self.set(record, Phase::Trial).map_err(|_| self.stuck())
    }

    fn forward_step(&mut self, record: &BootRecord, step: u16) -> Result<(), Fault> {
        let unit = record.units.saturating_sub(1).saturating_sub(step / 2);
        let unit = u32::from(unit);
        if step.is_multiple_of(2) {
            // The old image moves one unit up, into the room that is free there.
            let whole = self.layout.swap_unit;
            self.copy(
                self.active(unit),
                self.download(unit.saturating_add(1)),
                whole,
            )?;
        } else {
            let start = unit.saturating_mul(self.layout.swap_unit);
            let len = record.size.saturating_sub(start).min(self.layout.swap_unit);
            self.copy(self.download(unit), self.active(unit), len)?;
        }
        self.note(record, step)
    }

    /// The new image cannot be put in place: the old one goes back to where it was.
    fn give_up(&mut self, record: &BootRecord, step: u16) -> Result<(), Stop> {
        let done = step / 2;
        let first = if step.is_multiple_of(2) {
            // This unit of the active slot is still the old one.
            record.units.saturating_sub(done).saturating_mul(2)
        } else {
            let unit = record.units.saturating_sub(done).saturating_sub(1);
            unit.saturating_mul(2).saturating_add(1)
        };
        let back = going_back(record, first);
        self.log
            .set_record(self.flash, &back)
            .map_err(|_| self.stuck())
    }

    /// Puts the old image back, from the first unit to the last.
    fn back(&mut self, record: &BootRecord) -> Result<(), Stop> {
        let mut step = self
            .log
            .step(self.flash, record)
            .map_err(|_| self.stuck())?;
        let steps = record.units.saturating_mul(2);
        while step < steps {
            let unit = u32::from(step / 2);
            let whole = self.layout.swap_unit;
            if step.is_multiple_of(2) {
                // The new image is kept where that can be done: nobody needs it now.
                let _ = self.copy(self.active(unit), self.download(unit), whole);
            } else {
                let from = self.download(unit.saturating_add(1));
                if let Err(Fault::Unit(offset)) = self.copy(from, self.active(unit), whole) {
                    return Err(Stop::Stuck(offset));
                }
            }
            if self.note(record, step).is_err() {
                return Err(self.stuck());
            }
            step = step.saturating_add(1);
        }
        self.set(record, Phase::Returned).map_err(|_| self.stuck())
    }

    fn stuck(&self) -> Stop {
        Stop::Stuck(self.layout.state.offset)
    }

    fn set(&mut self, record: &BootRecord, phase: Phase) -> Result<(), JournalError> {
        let boots = 0;
        self.log.set_record(
            self.flash,
            &BootRecord {
                phase,
                boots,
                ..*record
            },
        )
    }

    fn note(&mut self, record: &BootRecord, step: u16) -> Result<(), Fault> {
        self.log
            .set_step(self.flash, record, step.saturating_add(1))
            .map_err(|_| Fault::State)
    }

    fn active(&self, unit: u32) -> u32 {
        let at = unit.saturating_mul(self.layout.swap_unit);
        self.layout.active.offset.saturating_add(at)
    }

    fn download(&self, unit: u32) -> u32 {
        let at = unit.saturating_mul(self.layout.swap_unit);
        self.layout.download.offset.saturating_add(at)
    }

    fn download_is_whole(&mut self, record: &BootRecord) -> bool {
        let mut crc = Crc32::new();
        let mut piece = [0; PIECE];
        let mut done = 0_u32;
        while done < record.size {
            let most = usize::try_from(record.size.saturating_sub(done)).unwrap_or(PIECE);
            let Some(piece) = piece.get_mut(..most.min(PIECE)) else {
                return false;
            };
            let at = self.layout.download.offset.saturating_add(done);
            if read(self.flash, at, piece).is_err() {
                return false;
            }
            crc.update(piece);
            done = done.saturating_add(u32::try_from(piece.len()).unwrap_or(u32::MAX));
        }
        crc.finish() == record.crc
    }

    /// Makes the swap unit at `to` hold the first `len` bytes of the one at `from`, and
    /// nothing else; reads it back.
    fn copy(&mut self, from: u32, to: u32, len: u32) -> Result<(), Fault> {
        for _ in 0..COPY_TRIES {
            if matches!(self.try_copy(from, to, len), Ok(true)) {
                return Ok(());
            }
        }
        Err(Fault::Unit(to))
    }

    fn try_copy(&mut self, from: u32, to: u32, len: u32) -> Result<bool, F::Error> {
        let end = to.saturating_add(self.layout.swap_unit);
        self.flash.erase(to, end)?;
        let mut done = 0_u32;
        while done < len {
            let mut piece = [0xFF; PIECE];
            let size = piece_len::<F>(len, done);
            // What lies behind the image's end goes along to the end of the piece.
            if let Some(piece) = piece.get_mut(..size) {
                read(self.flash, from.saturating_add(done), piece)?;
                if piece.iter().any(|byte| *byte != 0xFF) {
                    self.flash.write(to.saturating_add(done), piece)?;
                }
            }
            done = done.saturating_add(PIECE_LEN);
        }
        let mut same = true;
        let mut done = 0_u32;
        while done < len && same {
            let mut ours = [0; CHECK];
            let mut theirs = [0; CHECK];
            let most = usize::try_from(len.saturating_sub(done)).unwrap_or(CHECK);
            if let (Some(ours), Some(theirs)) = (
                ours.get_mut(..most.min(CHECK)),
                theirs.get_mut(..most.min(CHECK)),
            ) {
                read(self.flash, to.saturating_add(done), ours)?;
                read(self.flash, from.saturating_add(done), theirs)?;
                same = ours == theirs;
            }
            done = done.saturating_add(CHECK_LEN);
        }
        Ok(same)
    }
}

/// Why the stage ends here.
enum Stop {
    /// Nothing was changed: the image in the active slot can start.
    Start,
    /// At this offset.
    Stuck(u32),
}

/// Bytes of one comparison.
const CHECK: usize = 32;
const CHECK_LEN: u32 = 32;
#[expect(clippy::cast_possible_truncation, reason = "256")]
const PIECE_LEN: u32 = PIECE as u32;

/// Bytes of the piece at `done`, in whole write units.
fn piece_len<F: NorFlash>(len: u32, done: u32) -> usize {
    const { assert!(PIECE.is_multiple_of(F::WRITE_SIZE), "no power of two") };
    let rest = usize::try_from(len.saturating_sub(done)).unwrap_or(PIECE);
    let unit = F::WRITE_SIZE.max(1);
    let units = rest.min(PIECE).saturating_add(unit - 1) / unit;
    units.saturating_mul(unit)
}

/// The record that sends the board back to its old image.
pub(crate) fn going_back(record: &BootRecord, first: u16) -> BootRecord {
    BootRecord {
        phase: Phase::Back,
        serial: record.serial.wrapping_add(1),
        boots: 0,
        first,
        ..*record
    }
}
