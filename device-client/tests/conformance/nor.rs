//! Slot, journal and boot side on NOR flash, with the boot stage, in one flash in memory.

use dialhome_device::conformance::{
    self, Board, Check, Context, Finding, SCRATCH_LEN, SecondImage, Stage, Verdict,
};
use dialhome_device::nor::{
    BootLayout, BootStage, Decision, JournalLayout, NorBoot, NorJournal, NorSlot, Partition,
    Porter, Region,
};
use dialhome_proto::code::{BootReason, SelfTest};
use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashErrorKind, ReadNorFlash, check_erase, check_read, check_write,
};
use std::cell::RefCell;

/// Flash whose operations end after a number of them, as by a cut; what was under way
/// then is half done.
struct Flash<const WRITE: usize, const ERASE: usize> {
    bytes: Vec<u8>,
    left: Option<u32>,
}

impl<const WRITE: usize, const ERASE: usize> Flash<WRITE, ERASE> {
    /// How much of `len` bytes this operation does.
    fn done(&mut self, len: usize) -> usize {
        match &mut self.left {
            None => len,
            Some(0) => 0,
            Some(left) => {
                *left -= 1;
                if *left == 0 { len / 2 } else { len }
            }
        }
    }

    fn powered(&self) -> Result<(), NorFlashErrorKind> {
        if self.left == Some(0) {
            Err(NorFlashErrorKind::Other)
        } else {
            Ok(())
        }
    }
}

impl<const WRITE: usize, const ERASE: usize> ErrorType for Flash<WRITE, ERASE> {
    type Error = NorFlashErrorKind;
}

impl<const WRITE: usize, const ERASE: usize> ReadNorFlash for Flash<WRITE, ERASE> {
    const READ_SIZE: usize = 4;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        check_read(self, offset, bytes.len())?;
        self.powered()?;
        let at = offset as usize;
        bytes.copy_from_slice(&self.bytes[at..at + bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.bytes.len()
    }
}

impl<const WRITE: usize, const ERASE: usize> NorFlash for Flash<WRITE, ERASE> {
    const WRITE_SIZE: usize = WRITE;
    const ERASE_SIZE: usize = ERASE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), NorFlashErrorKind> {
        check_erase(self, from, to)?;
        for unit in (from as usize..to as usize).step_by(ERASE) {
            self.powered()?;
            let done = self.done(ERASE);
            self.bytes[unit..unit + done].fill(0xFF);
        }
        self.powered()
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
        check_write(self, offset, bytes.len())?;
        self.powered()?;
        let done = self.done(bytes.len());
        for (to, from) in self.bytes[offset as usize..].iter_mut().zip(&bytes[..done]) {
            assert_eq!(*to, 0xFF, "a write to what was not erased, at {offset}");
            *to = *from;
        }
        self.powered()
    }
}

/// Which image lies in the active slot, by its first byte.
const OLD: u8 = 0x0D;
const NEW: u8 = 0xE1;
/// An image that ends within a write unit.
const IMAGE: u32 = 5_003;

fn conforms<const WRITE: usize, const ERASE: usize>(granule: u32, write_unit: u32, cut_after: u32) {
    let erase = u32::try_from(ERASE).unwrap();
    let journal_layout = JournalLayout::least(erase, granule, 1);
    let journal_at = Region {
        offset: 0,
        len: journal_layout.len(),
    };
    let behind = |region: Region, len| Region {
        offset: region.offset + region.len,
        len,
    };
    let active = behind(journal_at, (4 * erase).max(8 * 1024));
    let download = behind(active, active.len + erase);
    let state = behind(download, 4 * erase.max(1024));
    let layout = BootLayout {
        active,
        download,
        state,
        banks: 2,
        swap_unit: erase,
        granule,
    };
    let mut bytes = vec![0xFF; (state.offset + state.len) as usize];
    bytes[..active.offset as usize].fill(0xA5);
    bytes[active.offset as usize..][..IMAGE as usize].fill(OLD);
    let flash = RefCell::new(Flash::<WRITE, ERASE> { bytes, left: None });
    let whole = Region {
        offset: 0,
        len: state.offset + state.len,
    };
    let part = |region| Partition::new(&flash, region).unwrap();
    let mut stage = Stage::FIRST;
    let mut skipped = Vec::new();
    for turn in 0.. {
        assert!(turn < 30, "the run does not end");
        // The bootloader has its turn.
        let decision = BootStage::run(&mut *flash.borrow_mut(), &layout);
        assert!(matches!(decision, Decision::Start(_)), "{decision:?}");
        let runs = flash.borrow().bytes[active.offset as usize];
        let porter = Porter {
            self_test: |_| SelfTest::PASSED,
            restart: |_| Ok(()),
            started: BootReason::POWER_ON,
            size: Some(IMAGE),
            version: "",
            counter: 0,
        };
        let mut slot = NorSlot::new(part(download), active.len, write_unit);
        let mut journal = NorJournal::new(part(journal_at), &journal_layout).unwrap();
        let mut boot = NorBoot::new(part(whole), &layout, porter).unwrap();
        let mut board = Board {
            slot: &mut slot,
            journal: &mut journal,
            boot: &mut boot,
        };
        let mut scratch = [0; SCRATCH_LEN];
        let mut watch = |check, finding| {
            if matches!(finding, Finding::Skipped(_)) {
                skipped.push(check);
            }
        };
        let other = if runs == OLD { NEW } else { OLD };
        let read = |_, piece: &mut [u8]| piece.fill(other);
        let mut context = Context::new(&mut scratch, &mut watch);
        context.cuts = 2;
        context.image = Some(SecondImage {
            size: IMAGE,
            read: &read,
        });
        match conformance::run(&mut board, &mut context, stage) {
            Verdict::Reset { next } => stage = next,
            Verdict::CutPower { next } => {
                flash.borrow_mut().left = Some(cut_after);
                let cut = conformance::churn(&mut board, &mut context, next, 20);
                assert!(cut.is_err(), "nothing was cut");
                flash.borrow_mut().left = None;
                stage = next;
            }
            Verdict::Done => break,
            Verdict::Failed(fault) => panic!("write unit {WRITE}, erase unit {ERASE}: {fault}"),
        }
    }
    assert_eq!(skipped, [Check::Components]);
    assert_eq!(flash.borrow().bytes[active.offset as usize], NEW);
}

#[test]
fn slot_journal_and_boot_side_on_nor_flash_conform() {
    // SAMD21, nRF51, STM32 with pages of 2 KB, a serial flash with sectors of 4 KB.
    for cut_after in [1, 3, 10, 37, 101] {
        conforms::<4, 256>(32, 64, cut_after);
        conforms::<4, 1024>(16, 4, cut_after);
        conforms::<8, 2048>(16, 8, cut_after);
        conforms::<256, 4096>(256, 256, cut_after);
    }
}
