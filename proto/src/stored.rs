//! What the journal holds, field by field, in the encoding of spec/frames.md section 1.
//!
//! Each cell is described once, for both ways: half the flash of a reader and a writer
//! for each, and no field is copied on its way into the cell.

use crate::wire::{Reader, Writer};
use heapless::Vec;
use heapless::string::StringView;

/// Out of a cell's bytes, or into them.
pub(crate) enum Way<'a> {
    /// Every field is read; what they are after a failure means nothing.
    Load(Reader<'a>),
    /// Every field is written and stays as it is.
    Store(Writer<'a>),
}

/// Something that stands in a cell.
pub(crate) trait Stored {
    /// Passes each field, in order.
    fn pass(&mut self, way: &mut Way<'_>);
}

impl Way<'_> {
    #[inline(never)]
    pub(crate) fn byte(&mut self, value: &mut u8) {
        match self {
            Self::Load(reader) => *value = reader.byte(),
            Self::Store(writer) => writer.byte(*value),
        }
    }

    /// A byte that is 0 or 1.
    #[inline(never)]
    pub(crate) fn flag(&mut self, value: &mut bool) {
        let mut byte = (*value).into();
        self.byte(&mut byte);
        if byte > 1 {
            self.fail();
        }
        *value = byte == 1;
    }

    #[inline(never)]
    fn varint(&mut self, value: &mut u64, bits: u32) {
        match self {
            Self::Load(reader) => *value = reader.varint(bits),
            Self::Store(writer) => writer.counter(*value),
        }
    }

    /// A counter of 64 bits.
    pub(crate) fn counter(&mut self, value: &mut u64) {
        self.varint(value, 64);
    }

    /// A number of 32 bits.
    #[inline(never)]
    #[expect(clippy::cast_possible_truncation, reason = "it has 32 bits")]
    pub(crate) fn number(&mut self, value: &mut u32) {
        let mut wide = (*value).into();
        self.varint(&mut wide, 32);
        *value = wide as u32;
    }

    /// A number of 16 bits.
    #[inline(never)]
    #[expect(clippy::cast_possible_truncation, reason = "it has 16 bits")]
    pub(crate) fn short(&mut self, value: &mut u16) {
        let mut wide = (*value).into();
        self.varint(&mut wide, 16);
        *value = wide as u16;
    }

    /// Bytes without a length.
    #[inline(never)]
    pub(crate) fn bytes(&mut self, value: &mut [u8]) {
        for byte in value {
            self.byte(byte);
        }
    }

    /// A text, behind its length.
    #[inline(never)]
    pub(crate) fn text(&mut self, value: &mut StringView) {
        match self {
            Self::Load(reader) => {
                value.clear();
                if value.push_str(reader.text()).is_err() {
                    reader.fail();
                }
            }
            Self::Store(writer) => writer.text(value),
        }
    }

    /// 32 bytes that may be missing, behind a flag.
    #[inline(never)]
    pub(crate) fn key(&mut self, value: &mut Option<[u8; 32]>) {
        let mut is_there = value.is_some();
        self.flag(&mut is_there);
        if is_there {
            self.bytes(value.get_or_insert([0; 32]));
        } else {
            *value = None;
        }
    }

    /// A list, behind its count.
    pub(crate) fn list<T, const N: usize>(&mut self, items: &mut Vec<T, N>)
    where
        T: Stored + Default + Clone,
    {
        let mut count = u32::try_from(items.len()).unwrap_or(0);
        self.number(&mut count);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if items.resize_default(count).is_err() {
            self.fail();
        }
        for item in items {
            item.pass(self);
        }
    }

    /// What has a length of its own before it, at most 255 bytes, at the start of a cell.
    pub(crate) fn head(&mut self, value: &mut impl Stored) {
        match self {
            Self::Load(reader) => {
                let len = reader.byte();
                let mut head = Self::Load(Reader::new(reader.slice(len.into())));
                value.pass(&mut head);
                if !head.is_done() {
                    self.fail();
                }
            }
            Self::Store(writer) => {
                writer.byte(0);
                value.pass(self);
                self.note_len();
            }
        }
    }

    fn note_len(&mut self) {
        if let Self::Store(writer) = self {
            match u8::try_from(writer.len().saturating_sub(1)) {
                Ok(len) => writer.set_first(len),
                Err(_) => writer.fail(),
            }
        }
    }

    /// Whether fields are read, and bytes are left.
    pub(crate) const fn has_more(&self) -> bool {
        matches!(self, Self::Load(reader) if !reader.is_empty())
    }

    /// Whether fields are read.
    pub(crate) const fn is_load(&self) -> bool {
        matches!(self, Self::Load(_))
    }

    #[inline(never)]
    pub(crate) const fn fail(&mut self) {
        match self {
            Self::Load(reader) => reader.fail(),
            Self::Store(writer) => writer.fail(),
        }
    }

    /// Whether every field was there, and every byte was used.
    #[inline(never)]
    pub(crate) const fn is_done(&self) -> bool {
        match self {
            Self::Load(reader) => reader.is_empty(),
            Self::Store(_) => false,
        }
    }
}

impl Way<'_> {
    /// Bytes written; `None` where something did not fit, or nothing was to be written.
    pub(crate) fn finish(self) -> Option<usize> {
        match self {
            Self::Load(_) => None,
            Self::Store(writer) => writer.finish(),
        }
    }
}

/// Reads `value` from all of `bytes`; false, with nothing in `value`, where they are not one.
pub(crate) fn load<T: Stored + Default>(value: &mut T, bytes: &[u8]) -> bool {
    let mut way = Way::Load(Reader::new(bytes));
    value.pass(&mut way);
    let is_done = way.is_done();
    if !is_done {
        *value = T::default();
    }
    is_done
}

impl Stored for [u8; 32] {
    fn pass(&mut self, way: &mut Way<'_>) {
        way.bytes(self);
    }
}
