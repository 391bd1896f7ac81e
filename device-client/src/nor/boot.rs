//! The boot side of an image on NOR flash, the other end of [`super::BootStage`]
//! (spec/storage.md section 4).

use super::record::{BootLayout, BootLog, BootRecord, Phase};
use super::stage::going_back;
use super::{PIECE, read};
use crate::boot::{Activation, Boot, BootError, Restart, Running};
use crate::journal::JournalError;
use dialhome_proto::code::{BootReason, DigestFrom, Revert, SelfTest};
use dialhome_proto::crc::Crc32;
use dialhome_proto::hash::Sha256;
use dialhome_proto::id::Digest;
use dialhome_proto::limits::TRIAL_BOOTS;
use embedded_storage::nor_flash::NorFlash;

/// What only the board's own program can say or do.
#[derive(Clone, Copy, Debug)]
pub struct Porter {
    /// The image's verdict on itself, as [`Boot::self_test`].
    pub self_test: fn(u8) -> SelfTest,
    /// Restarts the board, as [`Boot::restart`].
    pub restart: fn(BootReason) -> Result<(), BootError>,
    /// Why the board was started, as far as its hardware or a marker in RAM tells: power
    /// on, watchdog, panic. `update` and `revert` are found on the flash.
    pub started: BootReason,
    /// Bytes of the image that this program is, where its linker knows: the whole file
    /// that is signed. Without it the digest of an image that no update brought is
    /// unknown.
    pub size: Option<u32>,
    /// Version that this program knows of itself; empty: unknown.
    pub version: &'static str,
    /// Its counter; 0: unknown.
    pub counter: u64,
}

/// [`Boot`] for component 0, with a [`super::BootStage`] before the image. The layout's
/// offsets are those of `flash`.
#[derive(Clone, Debug)]
pub struct NorBoot<F> {
    flash: F,
    layout: BootLayout,
    log: BootLog,
    porter: Porter,
    /// The old image was brought back for this start, and the client has taken note.
    returned: bool,
}

impl<F: NorFlash> NorBoot<F> {
    /// The boot side of this board; `None` where the layout does not fit the flash.
    #[must_use]
    pub fn new(flash: F, layout: &BootLayout, porter: Porter) -> Option<Self> {
        if !layout.fits(&flash) {
            return None;
        }
        Some(Self {
            flash,
            layout: *layout,
            log: BootLog::new(layout),
            porter,
            returned: false,
        })
    }

    /// The flash, back.
    pub fn into_inner(self) -> F {
        self.flash
    }

    fn record(&mut self, component: u8) -> Result<BootRecord, BootError> {
        if component != 0 {
            return Err(BootError::Unsupported);
        }
        self.log.record(&mut self.flash).map_err(failed)
    }

    /// The record; where it rotted, that of an image that runs and nothing under way: the
    /// boot stage treats it so.
    fn record_or_rest(&mut self, component: u8) -> Result<(BootRecord, bool), BootError> {
        if component != 0 {
            return Err(BootError::Unsupported);
        }
        match self.log.record(&mut self.flash) {
            Err(JournalError::Damaged) => Ok((BootRecord::REST, true)),
            other => Ok((other.map_err(failed)?, false)),
        }
    }

    fn set(&mut self, record: &BootRecord) -> Result<(), BootError> {
        self.log.set_record(&mut self.flash, record).map_err(failed)
    }

    /// Whether the boot stage stands in the middle of a swap. It starts no image then;
    /// a program that runs all the same must not believe what it reads.
    fn is_half_way(&mut self, record: &BootRecord) -> Result<bool, BootError> {
        if !matches!(record.phase, Phase::Asked | Phase::Back) {
            return Ok(false);
        }
        let step = self.log.step(&mut self.flash, record).map_err(failed)?;
        Ok(step != 0)
    }

    /// SHA-256 and CRC of the flash's `len` bytes from `from` on.
    fn sums(&mut self, from: u32, len: u32) -> Result<(Digest, [u8; 4]), BootError> {
        let mut digest = Sha256::new();
        let mut crc = Crc32::new();
        self.each_piece(from, len, |piece| {
            digest.update(piece);
            crc.update(piece);
        })?;
        Ok((Digest(digest.finish()), crc.finish()))
    }

    fn each_piece(
        &mut self,
        from: u32,
        len: u32,
        mut visit: impl FnMut(&[u8]),
    ) -> Result<(), BootError> {
        let mut room = [0; PIECE];
        let mut done = 0_u32;
        while done < len {
            let most = usize::try_from(len.saturating_sub(done)).unwrap_or(PIECE);
            let piece = room.get_mut(..most.min(PIECE)).ok_or(BootError::Storage)?;
            let at = from.saturating_add(done);
            read(&mut self.flash, at, piece).map_err(|_| BootError::Storage)?;
            visit(piece);
            done = done.saturating_add(u32::try_from(piece.len()).unwrap_or(u32::MAX));
        }
        Ok(())
    }

    /// Swap units that hold anything in the active slot, counted from its start.
    fn units_in_use(&mut self) -> Result<u32, BootError> {
        let unit = self.layout.swap_unit;
        let mut units = self.layout.units();
        while let Some(last) = units.checked_sub(1) {
            let start = last.saturating_mul(unit);
            let mut blank = true;
            let at = self.layout.active.offset.saturating_add(start);
            self.each_piece(at, unit, |piece| {
                blank &= piece.iter().all(|byte| *byte == 0xFF);
            })?;
            if !blank {
                break;
            }
            units = last;
        }
        Ok(units)
    }
}

fn failed(_: JournalError) -> BootError {
    BootError::Storage
}

/// The first bytes of a digest, enough to know an activation again.
fn tag(digest: &Digest) -> [u8; 10] {
    digest.0.first_chunk().copied().unwrap_or([0; 10])
}

impl<F: NorFlash> Boot for NorBoot<F> {
    fn running(&mut self, component: u8, known_size: Option<u32>) -> Result<Running, BootError> {
        let (record, _) = self.record_or_rest(component)?;
        let unfinished = self.is_half_way(&record)?;
        let on_trial = matches!(record.phase, Phase::Trial | Phase::Back);
        let boot_reason = match record.phase {
            Phase::Trial if record.boots <= 1 => BootReason::UPDATE,
            Phase::Returned => BootReason::REVERT,
            _ if self.returned => BootReason::REVERT,
            _ => self.porter.started,
        };
        let size = if on_trial {
            Some(record.size)
        } else {
            self.porter.size.or(known_size)
        };
        let size = size.filter(|size| *size <= self.layout.active.len && !unfinished);
        let digest = match size {
            Some(size) => Some(self.sums(self.layout.active.offset, size)?.0),
            None => None,
        };
        Ok(Running {
            digest: digest.unwrap_or(Running::UNKNOWN.digest),
            digest_from: match digest {
                Some(_) => DigestFrom::BOOTED,
                None => DigestFrom::UNKNOWN,
            },
            boot_reason,
            revert: Revert::SWAP,
            version: self.porter.version,
            counter: self.porter.counter,
            unfinished,
            on_trial,
        })
    }

    fn activate(&mut self, activation: &Activation<'_>) -> Result<Restart, BootError> {
        let (record, _) = self.record_or_rest(activation.component)?;
        let tag = tag(&activation.digest);
        match record.phase {
            Phase::Trial if record.tag == tag => return Ok(Restart::NotNeeded),
            Phase::Trial | Phase::Back => return Err(BootError::NotAllowed),
            Phase::Asked if self.is_half_way(&record)? => return Err(BootError::NotAllowed),
            Phase::Rest | Phase::Asked | Phase::Returned => {}
        }
        let size = activation.size;
        if size == 0 || size > self.layout.active.len {
            return Err(BootError::NotAllowed);
        }
        let (digest, crc) = self.sums(self.layout.download.offset, size)?;
        if digest != activation.digest {
            return Err(BootError::DigestMismatch);
        }
        if record.phase == Phase::Asked && record.tag == tag {
            return Ok(Restart::Needed);
        }
        let new_units = size.div_ceil(self.layout.swap_unit.max(1));
        let units = self.units_in_use()?.max(new_units);
        let asked = BootRecord {
            phase: Phase::Asked,
            serial: record.serial.wrapping_add(1),
            budget: match activation.trial_boots {
                0 => TRIAL_BOOTS,
                boots => boots,
            },
            boots: 0,
            first: 0,
            units: u16::try_from(units).map_err(|_| BootError::NotAllowed)?,
            size,
            crc,
            tag,
            layout: self.layout.check(),
        };
        // No progress of an earlier swap may count for this one, nor may its rot stop it.
        self.log
            .set_step(&mut self.flash, &asked, 0)
            .map_err(failed)?;
        self.set(&asked)?;
        self.returned = false;
        Ok(Restart::Needed)
    }

    fn confirm(&mut self, component: u8) -> Result<(), BootError> {
        let record = self.record(component)?;
        match record.phase {
            Phase::Trial => self.set(&BootRecord {
                phase: Phase::Rest,
                ..record
            }),
            // It is not the new image that runs.
            Phase::Asked | Phase::Back | Phase::Returned => Err(BootError::NotAllowed),
            Phase::Rest => Ok(()),
        }
    }

    fn revert(&mut self, component: u8) -> Result<Restart, BootError> {
        let (record, was_damaged) = self.record_or_rest(component)?;
        let rest = BootRecord {
            phase: Phase::Rest,
            ..record
        };
        match record.phase {
            Phase::Rest => {
                if was_damaged {
                    self.set(&rest)?;
                }
                Ok(Restart::NotNeeded)
            }
            Phase::Returned => {
                self.set(&rest)?;
                self.returned = true;
                Ok(Restart::NotNeeded)
            }
            Phase::Asked if self.is_half_way(&record)? => Err(BootError::Storage),
            Phase::Asked => {
                self.set(&rest)?;
                Ok(Restart::NotNeeded)
            }
            Phase::Trial => {
                self.set(&going_back(&record, 0))?;
                Ok(Restart::Needed)
            }
            Phase::Back => Ok(Restart::Needed),
        }
    }

    fn self_test(&mut self, component: u8) -> SelfTest {
        (self.porter.self_test)(component)
    }

    fn restart(&mut self, why: BootReason) -> Result<(), BootError> {
        (self.porter.restart)(why)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::super::ram::Ram;
    use super::super::{BootStage, Decision, Region, Started};
    use super::*;
    use dialhome_proto::id::UpdateId;
    use std::vec;
    use std::vec::Vec;

    const LAYOUT: BootLayout = BootLayout {
        active: region(0, 8),
        download: region(8, 9),
        state: region(17, 2),
        banks: 2,
        swap_unit: 1024,
        granule: 16,
    };

    const PORTER: Porter = Porter {
        self_test: |_| SelfTest::PASSED,
        restart: |_| Ok(()),
        started: BootReason::POWER_ON,
        size: None,
        version: "",
        counter: 0,
    };

    const fn region(first: u32, units: u32) -> Region {
        Region {
            offset: first * 1024,
            len: units * 1024,
        }
    }

    fn image(fill: u8, len: usize) -> Vec<u8> {
        (0..len)
            .map(|at| fill ^ u8::try_from(at % 251).unwrap())
            .collect()
    }

    /// A board with this image, and another in its download slot.
    fn board(old: &[u8], new: &[u8]) -> NorBoot<Ram> {
        let mut bytes = vec![0xFF; 24 * 1024];
        bytes[..old.len()].copy_from_slice(old);
        bytes[8 * 1024..8 * 1024 + new.len()].copy_from_slice(new);
        NorBoot::new(Ram(bytes), &LAYOUT, PORTER).expect("it fits")
    }

    fn activation(image: &[u8], trial_boots: u8) -> Activation<'static> {
        Activation {
            update: UpdateId([1; 8]),
            component: 0,
            digest: Digest(dialhome_proto::hash::sha256(&[image])),
            size: u32::try_from(image.len()).unwrap(),
            version: "2",
            trial_boots,
        }
    }

    fn start(boot: NorBoot<Ram>) -> (NorBoot<Ram>, Decision) {
        let mut flash = boot.into_inner();
        let decision = BootStage::run(&mut flash, &LAYOUT);
        let boot = NorBoot::new(flash, &LAYOUT, PORTER).expect("it fits");
        (boot, decision)
    }

    fn runs(boot: &NorBoot<Ram>, image: &[u8]) -> bool {
        boot.flash.0.starts_with(image)
    }

    #[test]
    fn a_good_image_is_swapped_in_tried_and_kept() {
        for (old_len, new_len) in [(8192, 100), (100, 8192), (5000, 4097), (1, 1)] {
            let (old, new) = (image(1, old_len), image(2, new_len));
            let mut boot = board(&old, &new);
            assert_eq!(boot.activate(&activation(&new, 3)), Ok(Restart::Needed));
            assert_eq!(boot.activate(&activation(&new, 3)), Ok(Restart::Needed));
            assert!(runs(&boot, &old));
            let (boot, decision) = start(boot);
            assert_eq!(decision, Decision::Start(Started::Trial { boots: 1 }));
            // A cut in the trial does not undo it.
            let (mut boot, decision) = start(boot);
            assert_eq!(decision, Decision::Start(Started::Trial { boots: 2 }));
            let running = boot.running(0, None).unwrap();
            assert_eq!(running.digest, activation(&new, 3).digest);
            assert!(running.on_trial && !running.unfinished);
            assert_eq!(boot.activate(&activation(&new, 3)), Ok(Restart::NotNeeded));
            boot.confirm(0).unwrap();
            for _ in 0..9 {
                let decision;
                (boot, decision) = start(boot);
                assert_eq!(decision, Decision::Start(Started::Usual));
            }
            assert!(runs(&boot, &new));
            assert!(!boot.running(0, None).unwrap().on_trial);
        }
    }

    #[test]
    fn an_image_that_never_confirms_is_taken_back_and_stays_staged() {
        for (old_len, new_len) in [(8192, 100), (100, 8192), (5000, 4097)] {
            let (old, new) = (image(1, old_len), image(2, new_len));
            let mut boot = board(&old, &new);
            boot.activate(&activation(&new, 2)).unwrap();
            let mut decision;
            for boots in 1..=2 {
                (boot, decision) = start(boot);
                assert_eq!(decision, Decision::Start(Started::Trial { boots }));
            }
            for _ in 0..3 {
                (boot, decision) = start(boot);
                assert_eq!(decision, Decision::Start(Started::Returned));
                let running = boot.running(0, None).unwrap();
                assert_eq!(running.boot_reason, BootReason::REVERT);
            }
            assert!(runs(&boot, &old));
            assert_eq!(boot.revert(0), Ok(Restart::NotNeeded));
            let running = boot.running(0, Some(100)).unwrap();
            assert_eq!(running.boot_reason, BootReason::REVERT);
            (boot, decision) = start(boot);
            assert_eq!(decision, Decision::Start(Started::Usual));
            // The new image is still there.
            assert_eq!(boot.activate(&activation(&new, 2)), Ok(Restart::Needed));
            (boot, _) = start(boot);
            assert!(runs(&boot, &new));
            assert_eq!(boot.revert(0), Ok(Restart::Needed));
            assert_eq!(boot.revert(0), Ok(Restart::Needed));
            (boot, decision) = start(boot);
            assert_eq!(decision, Decision::Start(Started::Returned));
            assert!(runs(&boot, &old));
        }
    }

    #[test]
    fn what_is_not_in_the_slot_is_not_started() {
        let (old, new) = (image(1, 3000), image(2, 3000));
        let mut boot = board(&old, &new);
        let wrong = activation(&image(3, 3000), 2);
        assert_eq!(boot.activate(&wrong), Err(BootError::DigestMismatch));
        boot.activate(&activation(&new, 2)).unwrap();
        assert_eq!(boot.revert(0), Ok(Restart::NotNeeded));
        let (mut boot, decision) = start(boot);
        assert_eq!(decision, Decision::Start(Started::Usual));
        // It rots between the order and the restart.
        boot.activate(&activation(&new, 2)).unwrap();
        boot.flash.0[8 * 1024 + 77] ^= 1;
        let (boot, decision) = start(boot);
        assert_eq!(decision, Decision::Start(Started::Returned));
        assert!(runs(&boot, &old));
    }

    const OTHER_UNIT: BootLayout = BootLayout {
        active: region(0, 8),
        download: region(8, 10),
        state: region(18, 2),
        swap_unit: 2048,
        ..LAYOUT
    };

    #[test]
    fn an_image_built_for_other_swap_units_is_not_swapped_in() {
        let image_layout = BootLayout {
            swap_unit: 1024,
            ..OTHER_UNIT
        };
        let (old, new) = (image(1, 8000), image(2, 8000));
        let flash = board(&old, &new).into_inner();
        let mut boot = NorBoot::new(flash, &image_layout, PORTER).unwrap();
        boot.activate(&activation(&new, 3)).unwrap();
        let mut flash = boot.into_inner();
        let before = flash.0.clone();
        for _ in 0..2 {
            let decision = BootStage::run(&mut flash, &OTHER_UNIT);
            assert_eq!(decision, Decision::Start(Started::Returned));
        }
        let images = 18 * 1024;
        assert_eq!(flash.0[..images], before[..images]);
        assert_eq!(flash.0[20 * 1024..], before[20 * 1024..]);
    }

    #[test]
    fn what_does_not_run_on_trial_is_not_confirmed() {
        let (old, new) = (image(1, 3000), image(2, 3000));
        let mut boot = board(&old, &new);
        boot.activate(&activation(&new, 1)).unwrap();
        assert_eq!(boot.confirm(0), Err(BootError::NotAllowed));
        (boot, _) = start(boot);
        let decision;
        (boot, decision) = start(boot);
        assert_eq!(decision, Decision::Start(Started::Returned));
        assert_eq!(boot.confirm(0), Err(BootError::NotAllowed));
    }

    #[test]
    fn a_boot_record_that_rotted_stops_no_later_update() {
        let (old, new) = (image(1, 3000), image(2, 3000));
        for by_revert in [false, true] {
            let mut boot = board(&old, &new);
            boot.activate(&activation(&new, 3)).unwrap();
            (boot, _) = start(boot);
            boot.confirm(0).unwrap();
            let rest = boot.record(0).unwrap();
            let places: Vec<usize> = (0..boot.flash.0.len() - 10)
                .filter(|at| boot.flash.0[*at..].starts_with(&rest.tag))
                .collect();
            for at in places {
                boot.flash.0[at + 2] ^= 0x10;
            }
            let mut decision;
            (boot, decision) = start(boot);
            assert_eq!(decision, Decision::Start(Started::Usual));
            assert_eq!(boot.record(0), Err(BootError::Storage));
            assert!(!boot.running(0, Some(3000)).unwrap().on_trial);
            if by_revert {
                assert_eq!(boot.revert(0), Ok(Restart::NotNeeded));
                assert_eq!(boot.record(0), Ok(BootRecord::REST));
            }
            boot.flash.0[8 * 1024..17 * 1024].fill(0xFF);
            boot.flash.0[8 * 1024..8 * 1024 + old.len()].copy_from_slice(&old);
            boot.activate(&activation(&old, 3)).unwrap();
            (boot, decision) = start(boot);
            assert_eq!(decision, Decision::Start(Started::Trial { boots: 1 }));
            assert!(runs(&boot, &old));
        }
    }

    #[test]
    fn a_serial_that_comes_round_again_takes_no_step_for_done() {
        let (old, new) = (image(1, 3000), image(2, 3000));
        let mut boot = board(&old, &new);
        boot.activate(&activation(&new, 3)).unwrap();
        (boot, _) = start(boot);
        boot.confirm(0).unwrap();
        boot.flash.0[8 * 1024..17 * 1024].fill(0xFF);
        boot.flash.0[8 * 1024..8 * 1024 + old.len()].copy_from_slice(&old);
        for _ in 0..255 {
            boot.activate(&activation(&old, 3)).unwrap();
            assert_eq!(boot.revert(0), Ok(Restart::NotNeeded));
        }
        boot.activate(&activation(&old, 3)).unwrap();
        let decision;
        (boot, decision) = start(boot);
        assert_eq!(decision, Decision::Start(Started::Trial { boots: 1 }));
        assert!(runs(&boot, &old));
    }

    /// A flash whose state region has become read-only.
    struct Worn(Ram);

    impl embedded_storage::nor_flash::ErrorType for Worn {
        type Error = embedded_storage::nor_flash::NorFlashErrorKind;
    }

    impl embedded_storage::nor_flash::ReadNorFlash for Worn {
        const READ_SIZE: usize = 4;

        fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
            self.0.read(offset, bytes)
        }

        fn capacity(&self) -> usize {
            self.0.capacity()
        }
    }

    impl NorFlash for Worn {
        const WRITE_SIZE: usize = 8;
        const ERASE_SIZE: usize = 1024;

        fn erase(&mut self, _: u32, _: u32) -> Result<(), Self::Error> {
            Err(embedded_storage::nor_flash::NorFlashErrorKind::Other)
        }

        fn write(&mut self, _: u32, _: &[u8]) -> Result<(), Self::Error> {
            Err(embedded_storage::nor_flash::NorFlashErrorKind::Other)
        }
    }

    #[test]
    fn an_image_whose_boots_are_spent_is_not_started_though_the_state_is_worn() {
        let (old, new) = (image(1, 3000), image(2, 3000));
        let mut boot = board(&old, &new);
        boot.activate(&activation(&new, 1)).unwrap();
        (boot, _) = start(boot);
        let mut worn = Worn(boot.into_inner());
        for _ in 0..3 {
            let stuck = Decision::Stuck {
                offset: LAYOUT.state.offset,
            };
            assert_eq!(BootStage::run(&mut worn, &LAYOUT), stuck);
        }
        // It can be written again.
        let decision = BootStage::run(&mut worn.0, &LAYOUT);
        assert_eq!(decision, Decision::Start(Started::Returned));
        assert!(worn.0.0.starts_with(&old));
    }
}
