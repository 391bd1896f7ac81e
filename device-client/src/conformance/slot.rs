//! The slot's contract.

use super::check::{Check, Fault, What};
use super::{Run, SCRATCH_LEN, pattern};
use crate::boot::Running;
use crate::slot::{Geometry, SlotError};
use dialhome_proto::code::DigestFrom;
use dialhome_proto::limits::WRITE_UNIT_MAX;

/// The scratch as a length in the slot.
const SCRATCH: u32 = 768;
const _: () = assert!(SCRATCH as usize == SCRATCH_LEN);
/// Bytes of one read while a slot is compared.
const PIECE: u32 = 256;

/// The fills of a component's slot, in the order in which they are made.
#[derive(Clone, Copy)]
enum Fill {
    /// Unit by unit: erase one, write it.
    Units = 1,
    /// All erased at once, then written in small pieces.
    Erased = 2,
    /// All erased at once, then written in long pieces.
    Long = 3,
    /// An image that ends within a write unit.
    Short = 4,
    /// What is left for the reset.
    Left = 5,
    /// What is written behind it after the reset.
    Resumed = 6,
    /// What is written while the power is cut.
    Cut = 7,
}

/// How a fill is written.
#[derive(Clone, Copy, PartialEq)]
enum Pieces {
    /// Of one, two or three write units, never over an erase unit's border.
    Small,
    /// As long as fits the scratch.
    Long,
}

/// A slot under test.
#[derive(Clone, Copy)]
pub(super) struct Place {
    component: u8,
    geometry: Geometry,
    /// Bytes from the beginning that are used, in whole erase units.
    extent: u32,
}

impl Place {
    fn tag(&self, fill: Fill) -> u32 {
        0x5107_0000 | u32::from(self.component) << 4 | fill as u32
    }

    /// Bytes that are used.
    pub(super) const fn bytes(&self) -> u32 {
        self.extent
    }

    /// Where the last erase unit begins.
    fn last(&self) -> u32 {
        self.extent - self.geometry.erase_unit
    }
}

impl Run<'_, '_> {
    pub(super) fn slot_contract(&mut self) -> Result<(), Fault> {
        let before = self.boot_running(Check::Overlap)?;
        self.selects()?;
        let components = self.context.components;
        for &component in components {
            let place = self.place(component)?;
            self.fills(&place)?;
            self.short_image(&place)?;
            if self.slot.geometry() != place.geometry {
                let found = "its geometry is another than before";
                return Err(self.says(Check::Constant, component, found));
            }
        }
        self.passed(Check::Constant);
        for &component in components {
            let place = self.place(component)?;
            self.fill(&place, Fill::Left, Pieces::Long, Check::Components)?;
        }
        for &component in components {
            let place = self.place(component)?;
            self.expect_fill(&place, Fill::Left, 0, place.extent, Check::Components)?;
        }
        if components.len() > 1 {
            self.passed(Check::Components);
        } else {
            self.skipped(Check::Components, "the board has one slot");
        }
        self.not_where_it_runs(&before)
    }

    fn selects(&mut self) -> Result<(), Fault> {
        let check = Check::Select;
        let components = self.context.components;
        if let Some(none) = (0..=u8::MAX).find(|number| !components.contains(number)) {
            match self.slot.select(none) {
                Err(SlotError::OutOfRange) => {}
                Err(error) => return Err(self.fault(check, none, 0, What::Slot(error))),
                Ok(()) => {
                    let found = "a component without a slot was selected";
                    return Err(self.says(check, none, found));
                }
            }
        }
        for &component in components {
            let selected = self.slot.select(component);
            selected.map_err(|error| self.fault(check, component, 0, What::Slot(error)))?;
        }
        self.passed(check);
        Ok(())
    }

    /// Selects the component, and looks at its geometry.
    pub(super) fn place(&mut self, component: u8) -> Result<Place, Fault> {
        let selected = self.slot.select(component);
        selected.map_err(|error| self.fault(Check::Select, component, 0, What::Slot(error)))?;
        let geometry = self.slot.geometry();
        let Geometry {
            size,
            write_unit,
            erase_unit,
        } = geometry;
        let sound = (1..=WRITE_UNIT_MAX).contains(&write_unit)
            && erase_unit > 0
            && erase_unit.is_multiple_of(write_unit)
            && size >= erase_unit
            && size.is_multiple_of(erase_unit);
        if !sound {
            return Err(self.says(Check::Units, component, "its geometry has other units"));
        }
        // Two units at least, so that one can be another's neighbour.
        let most = self.context.extent.max(erase_unit.saturating_mul(2));
        let extent = size.min(most);
        Ok(Place {
            component,
            geometry,
            extent: extent - extent % erase_unit,
        })
    }

    fn fills(&mut self, place: &Place) -> Result<(), Fault> {
        self.passed(Check::Units);
        let Geometry {
            size, erase_unit, ..
        } = place.geometry;
        if let Some(above) = size.checked_add(1) {
            let prepared = self.slot.prepare(above);
            self.out_of_range(prepared, Check::TooBig, place)?;
            self.passed(Check::TooBig);
        }
        self.prepare(place, place.extent, Check::PrepareKeeps)?;
        // Unit by unit, each read back before the next: first in the slot's own units.
        let mut unit = 0;
        while unit < place.extent {
            self.erase(place, unit, erase_unit, Check::ReadBack)?;
            let check = Check::ReadBack;
            let tag = place.tag(Fill::Units);
            self.write(place, tag, unit..unit + erase_unit, Pieces::Small, check)?;
            self.expect_fill(place, Fill::Units, unit, unit + erase_unit, check)?;
            unit += erase_unit;
        }
        self.passed(Check::ReadBack);
        self.expect_fill(place, Fill::Units, 0, place.extent, Check::Neighbours)?;
        self.passed(Check::Neighbours);
        self.odd_reads(place)?;
        self.outside(place)?;
        self.prepare(place, place.extent, Check::PrepareKeeps)?;
        self.expect_fill(place, Fill::Units, 0, place.extent, Check::PrepareKeeps)?;
        self.passed(Check::PrepareKeeps);
        self.fill(place, Fill::Erased, Pieces::Small, Check::EraseAgain)?;
        self.expect_fill(place, Fill::Erased, 0, place.extent, Check::EraseAgain)?;
        self.passed(Check::EraseAgain);
        self.fill(place, Fill::Long, Pieces::Long, Check::Crossing)?;
        self.expect_fill(place, Fill::Long, 0, place.extent, Check::Crossing)?;
        if erase_unit.is_multiple_of(Self::longest_write(place)) {
            let why = "the working memory is too short for a write over a border";
            self.skipped(Check::Crossing, why);
        } else {
            self.passed(Check::Crossing);
        }
        Ok(())
    }

    fn odd_reads(&mut self, place: &Place) -> Result<(), Fault> {
        let check = Check::OddReads;
        let tag = place.tag(Fill::Units);
        let mut border = 0;
        while border <= place.extent {
            for (before, len) in [(1_u32, 1_u32), (1, 2), (3, 7), (0, 5), (13, 13), (5, 251)] {
                let offset = border.saturating_sub(before);
                if len <= place.extent && offset <= place.extent - len {
                    self.expect_bytes(place, tag, offset, len, check)?;
                }
            }
            // A small unit's neighbours were within those reads.
            border += place.geometry.erase_unit.max(PIECE);
        }
        self.passed(check);
        Ok(())
    }

    fn outside(&mut self, place: &Place) -> Result<(), Fault> {
        let check = Check::Outside;
        let Geometry {
            size,
            write_unit,
            erase_unit,
        } = place.geometry;
        if size > u32::MAX - SCRATCH.max(erase_unit) {
            self.skipped(check, "the slot ends where offsets end");
            return Ok(());
        }
        let piece = self.context.scratch.get_mut(..2).unwrap_or_default();
        let read = self.slot.read(size - 1, piece);
        self.out_of_range(read, check, place)?;
        let len = usize::try_from(write_unit).unwrap_or(0);
        let piece = self.context.scratch.get(..len).unwrap_or_default();
        let written = self.slot.write(size, piece);
        self.out_of_range(written, check, place)?;
        let erased = self.slot.erase(size, erase_unit);
        self.out_of_range(erased, check, place)?;
        self.passed(check);
        Ok(())
    }

    /// Images whose last write is less than a unit.
    fn short_image(&mut self, place: &Place) -> Result<(), Fault> {
        let check = Check::LastWrite;
        let Geometry {
            write_unit,
            erase_unit,
            ..
        } = place.geometry;
        let whole = place.extent.min(erase_unit) - write_unit.min(erase_unit);
        for tail in [1, write_unit.div_ceil(2), write_unit.max(2) - 1] {
            let size = whole + tail;
            self.prepare(place, size, check)?;
            self.erase(place, 0, erase_unit, check)?;
            let tag = place.tag(Fill::Short) ^ tail << 8;
            self.write(place, tag, 0..size, Pieces::Small, check)?;
            self.expect_range(place, tag, 0, size, check)?;
            self.flush(place, check)?;
            self.expect_range(place, tag, 0, size, check)?;
        }
        self.passed(check);
        Ok(())
    }

    fn not_where_it_runs(&mut self, before: &Running) -> Result<(), Fault> {
        let check = Check::Overlap;
        if before.digest_from == DigestFrom::UNKNOWN {
            self.skipped(check, "the board does not know the digest of what runs");
            return Ok(());
        }
        let after = self.boot_running(check)?;
        if (after.digest, after.digest_from) != (before.digest, before.digest_from) {
            let found = "filling the slots changed the running image";
            return Err(self.says(check, 0, found));
        }
        self.passed(check);
        Ok(())
    }

    /// After the reset.
    pub(super) fn slot_kept(&mut self) -> Result<(), Fault> {
        let components = self.context.components;
        for &component in components {
            let place = self.place(component)?;
            let mut first = [0; 1];
            let read = self.slot.read(0, &mut first);
            let check = Check::ReadAfterReset;
            read.map_err(|error| self.fault(check, component, 0, What::Slot(error)))?;
            self.expect_fill(&place, Fill::Left, 0, place.extent, Check::FlushKeeps)?;
        }
        self.passed(Check::ReadAfterReset);
        self.passed(Check::FlushKeeps);
        for &component in components {
            let place = self.place(component)?;
            self.prepare(&place, place.extent, Check::PrepareKeeps)?;
            self.expect_fill(&place, Fill::Left, 0, place.extent, Check::PrepareKeeps)?;
            self.rewrite_last(&place, place.tag(Fill::Resumed), Check::Resume)?;
            let tag = place.tag(Fill::Resumed);
            self.expect_range(&place, tag, place.last(), place.extent, Check::Resume)?;
            self.expect_fill(&place, Fill::Left, 0, place.last(), Check::Resume)?;
        }
        self.passed(Check::Resume);
        Ok(())
    }

    /// Before a cut: the first slot as `slot_kept` left it, whatever an earlier cut did.
    pub(super) fn slot_before_cut(&mut self) -> Result<(), Fault> {
        let place = self.first_place()?;
        self.prepare(&place, place.extent, Check::CutSlot)?;
        self.rewrite_last(&place, place.tag(Fill::Cut), Check::CutSlot)
    }

    /// One erase and writes of the last unit.
    pub(super) fn slot_churn(&mut self, round: u32) -> Result<(), Fault> {
        let place = self.first_place()?;
        let tag = place.tag(Fill::Cut) ^ round << 8;
        self.rewrite_last(&place, tag, Check::CutSlot)
    }

    pub(super) fn slot_after_cut(&mut self) -> Result<(), Fault> {
        let place = self.first_place()?;
        self.expect_fill(&place, Fill::Left, 0, place.last(), Check::CutSlot)
    }

    fn first_place(&mut self) -> Result<Place, Fault> {
        let component = self.context.components.first().copied().unwrap_or(0);
        self.place(component)
    }

    fn rewrite_last(&mut self, place: &Place, tag: u32, check: Check) -> Result<(), Fault> {
        self.erase(place, place.last(), place.geometry.erase_unit, check)?;
        let last = place.last()..place.extent;
        self.write(place, tag, last, Pieces::Long, check)?;
        self.flush(place, check)
    }

    /// Prepares, erases everything in one call, writes, and flushes.
    fn fill(
        &mut self,
        place: &Place,
        fill: Fill,
        pieces: Pieces,
        check: Check,
    ) -> Result<(), Fault> {
        self.prepare(place, place.extent, check)?;
        self.erase(place, 0, place.extent, check)?;
        self.write(place, place.tag(fill), 0..place.extent, pieces, check)?;
        self.flush(place, check)
    }

    pub(super) fn prepare(&mut self, place: &Place, size: u32, check: Check) -> Result<(), Fault> {
        let prepared = self.slot.prepare(size);
        prepared.map_err(|error| self.fault(check, place.component, 0, What::Slot(error)))
    }

    fn erase(&mut self, place: &Place, offset: u32, len: u32, check: Check) -> Result<(), Fault> {
        let erased = self.slot.erase(offset, len);
        erased.map_err(|error| self.fault(check, place.component, offset, What::Slot(error)))
    }

    pub(super) fn flush(&mut self, place: &Place, check: Check) -> Result<(), Fault> {
        let flushed = self.slot.flush();
        flushed.map_err(|error| self.fault(check, place.component, 0, What::Slot(error)))
    }

    fn write(
        &mut self,
        place: &Place,
        tag: u32,
        range: core::ops::Range<u32>,
        pieces: Pieces,
        check: Check,
    ) -> Result<(), Fault> {
        let Geometry {
            write_unit,
            erase_unit,
            ..
        } = place.geometry;
        let long = SCRATCH - SCRATCH % write_unit;
        let mut offset = range.start;
        let mut turn = 0_u32;
        while offset < range.end {
            let len = match pieces {
                Pieces::Long => long,
                Pieces::Small => {
                    let unit_left = erase_unit - offset % erase_unit;
                    // The smallest writes at the borders of a unit of bytes, longer ones within.
                    let inner = offset % erase_unit >= 8 && unit_left > PIECE;
                    let units = if inner && write_unit < 16 {
                        PIECE.div_ceil(write_unit) - 1
                    } else {
                        1 + turn % 3
                    };
                    (units * write_unit).min(unit_left).min(long)
                }
            };
            turn += 1;
            self.write_piece(place, tag, offset, len.min(range.end - offset), check)?;
            offset = offset.saturating_add(len);
        }
        Ok(())
    }

    fn write_piece(
        &mut self,
        place: &Place,
        tag: u32,
        offset: u32,
        len: u32,
        check: Check,
    ) -> Result<(), Fault> {
        let len = usize::try_from(len).unwrap_or(SCRATCH_LEN);
        let piece = self.context.scratch.get_mut(..len).unwrap_or_default();
        pattern::fill(tag, offset, piece);
        let written = self.slot.write(offset, piece);
        written.map_err(|error| self.fault(check, place.component, offset, What::Slot(error)))
    }

    /// Writes bytes that the caller has put into the scratch.
    pub(super) fn write_scratch(
        &mut self,
        place: &Place,
        offset: u32,
        len: usize,
        check: Check,
    ) -> Result<(), Fault> {
        let piece = self.context.scratch.get(..len).unwrap_or_default();
        let written = self.slot.write(offset, piece);
        written.map_err(|error| self.fault(check, place.component, offset, What::Slot(error)))
    }

    /// Makes room for an image, in whole units.
    pub(super) fn erase_for(
        &mut self,
        place: &Place,
        size: u32,
        check: Check,
    ) -> Result<(), Fault> {
        let Geometry { size: slot, .. } = place.geometry;
        if size > slot {
            return Err(self.says(check, place.component, "the image is larger than the slot"));
        }
        let len = size.next_multiple_of(place.geometry.erase_unit);
        self.erase(place, 0, len, check)
    }

    /// Longest write that the scratch and the slot's unit allow.
    pub(super) fn longest_write(place: &Place) -> u32 {
        SCRATCH - SCRATCH % place.geometry.write_unit
    }

    fn expect_fill(
        &mut self,
        place: &Place,
        fill: Fill,
        from: u32,
        to: u32,
        check: Check,
    ) -> Result<(), Fault> {
        self.expect_range(place, place.tag(fill), from, to, check)
    }

    fn expect_range(
        &mut self,
        place: &Place,
        tag: u32,
        from: u32,
        to: u32,
        check: Check,
    ) -> Result<(), Fault> {
        let mut offset = from;
        while offset < to {
            let len = PIECE.min(to - offset);
            self.expect_bytes(place, tag, offset, len, check)?;
            offset += len;
        }
        Ok(())
    }

    fn expect_bytes(
        &mut self,
        place: &Place,
        tag: u32,
        offset: u32,
        len: u32,
        check: Check,
    ) -> Result<(), Fault> {
        let part = place.component;
        // What lies there must not look like what was written.
        self.context.scratch.fill(0xA5);
        let len = usize::try_from(len).unwrap_or(SCRATCH_LEN);
        let piece = self.context.scratch.get_mut(..len).unwrap_or_default();
        let read = self.slot.read(offset, piece);
        let differs = pattern::differs(tag, offset, piece);
        read.map_err(|error| self.fault(check, part, offset, What::Slot(error)))?;
        match differs {
            None => Ok(()),
            Some(place) => {
                let what = What::Found("the slot holds other bytes");
                Err(self.fault(check, part, offset + place, what))
            }
        }
    }

    fn out_of_range(
        &self,
        result: Result<(), SlotError>,
        check: Check,
        place: &Place,
    ) -> Result<(), Fault> {
        match result {
            Err(SlotError::OutOfRange) => Ok(()),
            Err(error) => Err(self.fault(check, place.component, 0, What::Slot(error))),
            Ok(()) => Err(self.says(check, place.component, "it was accepted")),
        }
    }
}
