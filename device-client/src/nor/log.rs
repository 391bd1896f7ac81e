//! Numbered values in a ring of banks, each bank a log (spec/storage.md section 3).
//!
//! A record is its body, then a seal that repeats its head: who reads the seal knows that
//! the body was written to its end. A bank becomes valid by its header, written after
//! everything that it took over from the bank before; the header as well is written in
//! pairs, so that its second half proves the first. A bank that was not begun since the
//! last start is never written to, but for another pair of headers. What cannot be read is
//! no header, no head and no seal, and is not blank either.

use super::PIECE;
use crate::journal::JournalError;
use dialhome_proto::crc::{Crc32, crc32};
use embedded_storage::nor_flash::NorFlash;

/// Bytes of a record's head, of a seal and of a header, before they are padded.
pub(crate) const MARK: u32 = 12;
/// Places for a bank's header: three pairs.
pub(crate) const HEADERS: u32 = 6;
/// Cells are numbered below it.
const CELLS: u8 = 32;
/// The first byte of a header, and the format's version.
const BANK: u8 = 0xD1;

type Mark = [u8; MARK as usize];

/// What a record is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Value,
    /// The cell was erased.
    Erased,
    /// The cell's value was found damaged when its bank was left; or a kind that a later
    /// firmware writes.
    Lost,
}

/// A record's head, and where it lies in its bank.
#[derive(Clone, Copy)]
struct Record {
    kind: Kind,
    cell: u8,
    len: u16,
    crc: [u8; 4],
    at: u32,
}

/// What a scan finds next.
enum Next {
    Record { record: Record, sealed: bool },
    End { clean: bool },
}

/// Where a value comes from.
#[derive(Clone, Copy)]
enum Source<'a> {
    Bytes(&'a [u8]),
    /// The flash's offset.
    Flash(u32),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Nothing was read yet.
    New,
    /// No bank is valid.
    Empty,
    /// Written before the last start: records are read, none is added.
    Read,
    /// Begun since the last start.
    Open,
}

/// The ring of banks; the flash comes with each call.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    base: u32,
    bank_len: u32,
    generation: u32,
    /// End of the records in the bank.
    tail: u32,
    /// Where the last record lies, if the cut may have fallen into it; 0: nowhere.
    doubtful: u32,
    banks: u8,
    bank: u8,
    /// The granule is 2 to this power.
    shift: u8,
    state: State,
    /// The bank's header was written to its end, for certain.
    solid: bool,
}

/// Length that is written for so many bytes.
const fn padded(len: u32, shift: u8) -> u32 {
    let granule = 1_u32 << (shift & 15);
    len.saturating_add(granule - 1) & !(granule - 1)
}

/// Bytes of a record with its seal, for a value of `len` bytes.
pub(crate) const fn record_len(len: u32, shift: u8) -> u32 {
    padded(MARK.saturating_add(len), shift).saturating_add(1 << (shift & 15))
}

fn failed<E>(_: E) -> JournalError {
    JournalError::Io
}

fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0xFF)
}

fn check(tag: u8, generation: u32, head: &[u8]) -> [u8; 4] {
    let mut crc = Crc32::new();
    crc.update(&[tag]);
    crc.update(&generation.to_le_bytes());
    crc.update(head);
    crc.finish()
}

fn with_check(tag: u8, generation: u32, head: [u8; 8]) -> Mark {
    let [a, b, c, d, e, f, g, h] = head;
    let [i, j, k, l] = check(tag, generation, &head);
    [a, b, c, d, e, f, g, h, i, j, k, l]
}

const HEAD: u8 = b'H';
const SEAL: u8 = b'S';

/// The seal of the record with this head.
fn sealing(mark: &Mark, generation: u32) -> Mark {
    let [a, b, c, d, e, f, g, h, ..] = *mark;
    with_check(SEAL, generation, [a, b, c, d, e, f, g, h])
}

impl Record {
    fn head(&self, generation: u32) -> Mark {
        let kind = match self.kind {
            Kind::Value => 1,
            Kind::Erased => 2,
            Kind::Lost => 3,
        };
        let [low, high] = self.len.to_le_bytes();
        let [a, b, c, d] = self.crc;
        with_check(HEAD, generation, [kind, self.cell, low, high, a, b, c, d])
    }

    fn read(mark: &Mark, tag: u8, generation: u32, at: u32) -> Option<Self> {
        let [kind, cell, low, high, a, b, c, d, i, j, k, l] = *mark;
        let head = [kind, cell, low, high, a, b, c, d];
        if check(tag, generation, &head) != [i, j, k, l] || cell >= CELLS {
            return None;
        }
        let kind = match kind {
            1 => Kind::Value,
            2 => Kind::Erased,
            _ => Kind::Lost,
        };
        Some(Self {
            kind,
            cell,
            len: u16::from_le_bytes([low, high]),
            crc: [a, b, c, d],
            at,
        })
    }

    fn body(&self, shift: u8) -> u32 {
        padded(MARK.saturating_add(u32::from(self.len)), shift)
    }

    fn end(&self, shift: u8) -> u32 {
        self.at
            .saturating_add(record_len(u32::from(self.len), shift))
    }
}

impl Log {
    /// A log in `banks` banks of `bank_len` bytes from `base` on. The caller has checked
    /// that they lie in the flash on its erase units, that there are at least two, and
    /// that the granule is a power of two, 16..=256, and a multiple of the write unit.
    pub(crate) const fn new(base: u32, bank_len: u32, banks: u8, granule: u32) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "at most 31")]
        let shift = granule.trailing_zeros() as u8;
        Self {
            base,
            bank_len,
            generation: 0,
            tail: 0,
            doubtful: 0,
            banks: if banks < 2 { 2 } else { banks },
            bank: 0,
            shift: if shift > 8 { 8 } else { shift },
            state: State::New,
            solid: false,
        }
    }

    const fn granule(&self) -> u32 {
        1 << (self.shift & 15)
    }

    /// Where the records of a bank begin, within it.
    const fn first(&self) -> u32 {
        HEADERS.saturating_mul(self.granule())
    }

    /// The flash's offset of a bank.
    fn start_of(&self, bank: u8) -> u32 {
        self.base
            .saturating_add(self.bank_len.saturating_mul(u32::from(bank)))
    }

    /// The flash's offset of what lies at `at` in the bank in use.
    fn place(&self, at: u32) -> u32 {
        self.start_of(self.bank).saturating_add(at)
    }

    /// Puts the cell's value into `buffer`, as [`crate::journal::Journal::load`].
    pub(crate) fn load<F: NorFlash>(
        &mut self,
        flash: &mut F,
        cell: u8,
        buffer: &mut [u8],
    ) -> Result<Option<usize>, JournalError> {
        self.mount(flash)?;
        let Some(record) = self.find(flash, cell)? else {
            return Ok(None);
        };
        match record.kind {
            Kind::Erased => return Ok(None),
            Kind::Lost => return Err(JournalError::Damaged),
            Kind::Value => {}
        }
        let len = usize::from(record.len);
        let room = buffer.get_mut(..len).ok_or(JournalError::TooLong)?;
        let at = self.place(record.at.saturating_add(MARK));
        if super::read(flash, at, room).is_err() || crc32(room) != record.crc {
            return Err(JournalError::Damaged);
        }
        Ok(Some(len))
    }

    /// Stores a value, as [`crate::journal::Journal::store`].
    pub(crate) fn store<F: NorFlash>(
        &mut self,
        flash: &mut F,
        cell: u8,
        value: &[u8],
    ) -> Result<(), JournalError> {
        self.put(flash, cell, Kind::Value, value)
    }

    /// Forgets a value, as [`crate::journal::Journal::erase`].
    pub(crate) fn erase<F: NorFlash>(
        &mut self,
        flash: &mut F,
        cell: u8,
    ) -> Result<(), JournalError> {
        self.mount(flash)?;
        match self.find(flash, cell)? {
            None => Ok(()),
            Some(record) if record.kind == Kind::Erased => Ok(()),
            Some(_) => self.put(flash, cell, Kind::Erased, &[]),
        }
    }

    fn put<F: NorFlash>(
        &mut self,
        flash: &mut F,
        cell: u8,
        kind: Kind,
        value: &[u8],
    ) -> Result<(), JournalError> {
        let len = u16::try_from(value.len()).map_err(|_| JournalError::TooLong)?;
        let needs = record_len(u32::from(len), self.shift);
        if cell >= CELLS || needs > self.bank_len.saturating_sub(self.first()) {
            return Err(JournalError::TooLong);
        }
        self.mount(flash)?;
        let mut record = Record {
            kind,
            cell,
            len,
            crc: crc32(value),
            at: self.tail,
        };
        if self.state == State::Open && record.end(self.shift) <= self.bank_len {
            let (bank, generation) = (self.bank, self.generation);
            match self.append(flash, bank, generation, &record, Source::Bytes(value)) {
                Ok(()) => {
                    self.tail = record.end(self.shift);
                    return Ok(());
                }
                // What is there now is not known: nothing more goes into this bank.
                Err(_) => self.state = State::Read,
            }
        }
        record.at = 0;
        self.move_on(flash, Some((record, value)))
    }

    /// Finds the bank in use, and brings to an end what a cut may have left half-way.
    fn mount<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), JournalError> {
        if self.state != State::New {
            return Ok(());
        }
        let mut newest = None;
        let mut answers = false;
        for bank in 0..self.banks {
            let Some((generation, solid)) = self.header(flash, bank, &mut answers) else {
                continue;
            };
            if newest.is_none_or(|(_, other, _)| generation > other) {
                newest = Some((bank, generation, solid));
            }
        }
        if !answers {
            // Not a new board: a flash that answers no read at all.
            return Err(JournalError::Io);
        }
        let Some((bank, generation, solid)) = newest else {
            // The first bank to be written is the one after this.
            self.bank = self.banks.saturating_sub(1);
            self.tail = self.first();
            self.solid = true;
            self.state = State::Empty;
            return Ok(());
        };
        (self.bank, self.generation, self.solid) = (bank, generation, solid);
        let clean = self.survey(flash);
        self.state = State::Read;
        // A flash that cannot be written can be read all the same: a failure shows itself
        // at the next store.
        if self.make_solid(flash).is_ok() && !clean {
            let moved = self.move_on(flash, None);
            if moved.is_err() && self.doubtful != 0 {
                // It read right once, and not again: the value before it holds.
                self.tail = self.doubtful;
                let _ = self.move_on(flash, None);
            }
        }
        Ok(())
    }

    /// A bank's generation, and whether its header was written to its end for certain;
    /// `answers`: a read succeeded.
    fn header<F: NorFlash>(
        &self,
        flash: &mut F,
        bank: u8,
        answers: &mut bool,
    ) -> Option<(u32, bool)> {
        let mut found = None;
        let mut solid = false;
        for place in 0..HEADERS {
            let at = self
                .start_of(bank)
                .saturating_add(place.saturating_mul(self.granule()));
            let Ok(mark) = read_mark(flash, at) else {
                continue;
            };
            *answers = true;
            let [_, _, _, _, a, b, c, d, ..] = mark;
            let generation = u32::from_le_bytes([a, b, c, d]);
            if mark != self.header_mark(place, generation) {
                continue;
            }
            if found.is_some_and(|other| other != generation) {
                continue;
            }
            found = Some(generation);
            solid |= place & 1 == 1;
        }
        found.map(|generation| (generation, solid))
    }

    fn header_mark(&self, place: u32, generation: u32) -> Mark {
        let [place, ..] = place.to_le_bytes();
        let [a, b, c, d] = generation.to_le_bytes();
        with_check(b'B', 0, [BANK, place, self.shift, self.banks, a, b, c, d])
    }

    /// Goes through the records of the bank in use, sets its tail, and says whether
    /// nothing in it was left half-way.
    fn survey<F: NorFlash>(&mut self, flash: &mut F) -> bool {
        let mut at = self.first();
        let mut whole = true;
        loop {
            match self.next(flash, at, self.bank_len) {
                Next::End { clean } => {
                    self.tail = at;
                    return clean && whole;
                }
                Next::Record { record, sealed } => {
                    let end = record.end(self.shift);
                    if !sealed && matches!(self.next(flash, end, self.bank_len), Next::End { .. }) {
                        // The cut fell into it, or before its seal was there.
                        whole = false;
                        if !self.holds(flash, &record) {
                            self.tail = at;
                            return false;
                        }
                        self.doubtful = record.at;
                    }
                    at = end;
                }
            }
        }
    }

    /// The record at `at` or, where its head cannot be read, the next one that can.
    fn next<F: NorFlash>(&self, flash: &mut F, at: u32, limit: u32) -> Next {
        let mut blank = true;
        let mut place = at;
        while place.saturating_add(self.granule()) <= limit {
            if let Ok(mark) = read_mark(flash, self.place(place)) {
                let head = Record::read(&mark, HEAD, self.generation, place)
                    .filter(|record| record.end(self.shift) <= limit);
                if let Some(record) = head {
                    let seal = self.place(place.saturating_add(record.body(self.shift)));
                    let sealed = read_mark(flash, seal)
                        .is_ok_and(|seal| seal == sealing(&mark, self.generation));
                    return Next::Record { record, sealed };
                }
                // The seal of a record whose head has been lost knows as much as the head.
                let sealed =
                    Record::read(&mark, SEAL, self.generation, 0).and_then(|mut record| {
                        record.at = place.checked_sub(record.body(self.shift))?;
                        (record.at >= at).then_some(record)
                    });
                if let Some(record) = sealed {
                    let sealed = true;
                    return Next::Record { record, sealed };
                }
            }
            blank = blank && self.is_blank(flash, self.place(place));
            place = place.saturating_add(self.granule());
        }
        Next::End { clean: blank }
    }

    /// Whether the granule at this offset of the flash reads as erased.
    fn is_blank<F: NorFlash>(&self, flash: &mut F, at: u32) -> bool {
        let mut piece = [0; 16];
        let mut done = 0;
        while done < self.granule() {
            let place = at.saturating_add(done);
            if super::read(flash, place, &mut piece).is_err() || !is_blank(&piece) {
                return false;
            }
            done = done.saturating_add(16);
        }
        true
    }

    /// Whether a record's value is what its head says.
    fn holds<F: NorFlash>(&self, flash: &mut F, record: &Record) -> bool {
        let start = self.place(record.at.saturating_add(MARK));
        sum(flash, start, u32::from(record.len)).is_ok_and(|sum| sum == record.crc)
    }

    /// The newest record of a cell.
    fn find<F: NorFlash>(&self, flash: &mut F, cell: u8) -> Result<Option<Record>, JournalError> {
        let mut newest = None;
        self.each(flash, |record| {
            if record.cell == cell {
                newest = Some(*record);
            }
        })?;
        Ok(newest)
    }

    fn each<F: NorFlash>(
        &self,
        flash: &mut F,
        mut visit: impl FnMut(&Record),
    ) -> Result<(), JournalError> {
        let mut at = self.first();
        while at < self.tail {
            match self.next(flash, at, self.tail) {
                // There was a record when the bank was first read.
                Next::End { .. } => return Err(JournalError::Io),
                Next::Record { record, .. } => {
                    visit(&record);
                    at = record.end(self.shift);
                }
            }
        }
        Ok(())
    }

    /// Sees to it that the header of the bank in use reads the same for ever: only then
    /// may the bank before it be erased.
    fn make_solid<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), JournalError> {
        if self.solid {
            return Ok(());
        }
        // Where no pair is left, cuts fell into three headers one after the other, and what
        // could be done was done.
        self.write_headers(flash, self.bank, self.generation, 2)?;
        self.solid = true;
        Ok(())
    }

    /// Writes the first pair of headers from place `first` on that is blank and takes it;
    /// false: none is blank.
    fn write_headers<F: NorFlash>(
        &self,
        flash: &mut F,
        bank: u8,
        generation: u32,
        first: u32,
    ) -> Result<bool, JournalError> {
        let mut result = Ok(());
        let mut place = first;
        while place < HEADERS {
            let at = self
                .start_of(bank)
                .saturating_add(place.saturating_mul(self.granule()));
            let next = at.saturating_add(self.granule());
            if self.is_blank(flash, at) && self.is_blank(flash, next) {
                let mark = self.header_mark(place, generation);
                result = self.write_mark(flash, at, &mark).and_then(|()| {
                    let mark = self.header_mark(place.saturating_add(1), generation);
                    self.write_mark(flash, next, &mark)
                });
                if result.is_ok() {
                    return Ok(true);
                }
            }
            place = place.saturating_add(2);
        }
        result.map(|()| false)
    }

    fn write_mark<F: NorFlash>(
        &self,
        flash: &mut F,
        at: u32,
        mark: &Mark,
    ) -> Result<(), JournalError> {
        let mut piece = [0xFF; PIECE];
        for (to, from) in piece.iter_mut().zip(mark) {
            *to = *from;
        }
        let len = usize::try_from(self.granule()).unwrap_or(PIECE);
        let piece = piece.get(..len).ok_or(JournalError::Io)?;
        flash.write(at, piece).map_err(failed)?;
        if read_mark(flash, at)? != *mark {
            return Err(JournalError::Io);
        }
        Ok(())
    }

    /// Begins a new bank with everything that counts in the bank in use, and with the new
    /// record; the header makes all of it valid at once.
    fn move_on<F: NorFlash>(
        &mut self,
        flash: &mut F,
        new: Option<(Record, &[u8])>,
    ) -> Result<(), JournalError> {
        let changed = new.map(|(record, _)| record.cell);
        let mut present = 0_u32;
        self.each(flash, |record| present |= 1 << (record.cell & 31))?;
        if let Some(cell) = changed {
            present &= !(1 << (cell & 31));
        }
        let kept = |cell: u8| present >> (cell & 31) & 1 == 1;
        let mut needs = new.map_or(0, |(record, _)| {
            if record.kind == Kind::Erased {
                0
            } else {
                record_len(u32::from(record.len), self.shift)
            }
        });
        for cell in (0..CELLS).filter(|cell| kept(*cell)) {
            if let Some(record) = self.find(flash, cell)?
                && record.kind != Kind::Erased
            {
                needs = needs.saturating_add(record_len(u32::from(record.len), self.shift));
            }
        }
        if needs > self.bank_len.saturating_sub(self.first()) {
            return Err(JournalError::Full);
        }
        self.make_solid(flash)?;
        let mut result = Err(JournalError::Io);
        // While no bank is valid, none is spared.
        let mut steps = self.banks;
        if self.state != State::Empty {
            steps = steps.saturating_sub(1);
            // The new bank may become valid without our knowing it: what would be appended
            // to the old one from here on could be gone at the next start.
            self.state = State::Read;
        }
        for step in 1..=steps {
            let bank = self.bank.saturating_add(step);
            let bank = if bank >= self.banks {
                bank.saturating_sub(self.banks)
            } else {
                bank
            };
            let generation = self.generation.saturating_add(u32::from(step));
            result = self.fill(flash, bank, generation, &kept, new);
            if let Ok(tail) = result {
                (self.bank, self.generation, self.tail) = (bank, generation, tail);
                self.state = State::Open;
                self.doubtful = 0;
                return Ok(());
            }
            let start = self.start_of(bank);
            let _ = flash.erase(start, start.saturating_add(self.bank_len));
        }
        result.map(|_| ())
    }

    /// Erases a bank and fills it; returns its tail.
    fn fill<F: NorFlash>(
        &self,
        flash: &mut F,
        bank: u8,
        generation: u32,
        kept: &impl Fn(u8) -> bool,
        new: Option<(Record, &[u8])>,
    ) -> Result<u32, JournalError> {
        let start = self.start_of(bank);
        flash
            .erase(start, start.saturating_add(self.bank_len))
            .map_err(failed)?;
        let mut at = self.first();
        for cell in (0..CELLS).filter(|cell| kept(*cell)) {
            let Some(old) = self.find(flash, cell)? else {
                continue;
            };
            let whole = match old.kind {
                Kind::Erased => continue,
                Kind::Lost => false,
                Kind::Value => self.holds(flash, &old),
            };
            if !whole && old.kind == Kind::Value && old.at == self.doubtful {
                return Err(JournalError::Io);
            }
            let source = Source::Flash(self.place(old.at.saturating_add(MARK)));
            let record = if whole {
                Record { at, ..old }
            } else {
                let (kind, len, crc) = (Kind::Lost, 0, crc32(&[]));
                Record {
                    kind,
                    cell,
                    len,
                    crc,
                    at,
                }
            };
            self.append(flash, bank, generation, &record, source)?;
            at = record.end(self.shift);
        }
        if let Some((new, value)) = new
            && new.kind != Kind::Erased
        {
            let record = Record { at, ..new };
            self.append(flash, bank, generation, &record, Source::Bytes(value))?;
            at = record.end(self.shift);
        }
        if !self.write_headers(flash, bank, generation, 0)? {
            return Err(JournalError::Io);
        }
        Ok(at)
    }

    /// Writes a record and, once it reads back right, its seal.
    fn append<F: NorFlash>(
        &self,
        flash: &mut F,
        bank: u8,
        generation: u32,
        record: &Record,
        source: Source<'_>,
    ) -> Result<(), JournalError> {
        let start = self.start_of(bank).saturating_add(record.at);
        let head = record.head(generation);
        let (body, len) = (record.body(self.shift), u32::from(record.len));
        let mut done = 0_u32;
        let mut taken = 0_u32;
        while done < body {
            let mut piece = [0xFF; PIECE];
            let most = usize::try_from(body.saturating_sub(done)).unwrap_or(PIECE);
            let piece = piece.get_mut(..most.min(PIECE)).ok_or(JournalError::Io)?;
            let mut room = &mut *piece;
            if done == 0 {
                let (to, rest) = room
                    .split_first_chunk_mut::<{ MARK as usize }>()
                    .ok_or(JournalError::Io)?;
                *to = head;
                room = rest;
            }
            let more = usize::try_from(len.saturating_sub(taken)).unwrap_or(PIECE);
            let more = more.min(room.len());
            let room = room.get_mut(..more).ok_or(JournalError::Io)?;
            match source {
                Source::Bytes(bytes) => {
                    let from = usize::try_from(taken).unwrap_or(usize::MAX);
                    let from = bytes.get(from..).unwrap_or(&[]);
                    for (to, from) in room.iter_mut().zip(from) {
                        *to = *from;
                    }
                }
                Source::Flash(from) if more != 0 => {
                    super::read(flash, from.saturating_add(taken), room).map_err(failed)?;
                }
                Source::Flash(_) => {}
            }
            flash
                .write(start.saturating_add(done), piece)
                .map_err(failed)?;
            done = done.saturating_add(u32::try_from(piece.len()).unwrap_or(body));
            taken = taken.saturating_add(u32::try_from(more).unwrap_or(len));
        }
        if read_mark(flash, start)? != head
            || sum(flash, start.saturating_add(MARK), len)? != record.crc
        {
            return Err(JournalError::Io);
        }
        let seal = sealing(&head, generation);
        self.write_mark(flash, start.saturating_add(body), &seal)
    }
}

fn read_mark<F: NorFlash>(flash: &mut F, at: u32) -> Result<Mark, JournalError> {
    let mut mark = [0; MARK as usize];
    super::read(flash, at, &mut mark).map_err(failed)?;
    Ok(mark)
}

/// CRC-32 of `len` bytes of the flash.
fn sum<F: NorFlash>(flash: &mut F, from: u32, len: u32) -> Result<[u8; 4], JournalError> {
    let mut crc = Crc32::new();
    let mut piece = [0; 32];
    let mut done = 0_u32;
    while done < len {
        let most = usize::try_from(len.saturating_sub(done)).unwrap_or(32);
        let piece = piece.get_mut(..most.min(32)).ok_or(JournalError::Io)?;
        super::read(flash, from.saturating_add(done), piece).map_err(failed)?;
        crc.update(piece);
        done = done.saturating_add(u32::try_from(piece.len()).unwrap_or(len));
    }
    Ok(crc.finish())
}
