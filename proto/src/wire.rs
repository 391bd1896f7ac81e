//! One field at a time out of bytes and into bytes, in the encoding of spec/frames.md section 1.
//!
//! Signed bodies are read so, and not as one struct, because a whole one would sit on a board's stack
//! beside the signature check.

use serde::{Deserialize, Serialize};

/// What is left of an encoded body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next field; `None` where the bytes end early or the value does not fit its type.
    pub(crate) fn take<T: Deserialize<'a>>(&mut self) -> Option<T> {
        let (value, rest) = postcard::take_from_bytes(self.0).ok()?;
        self.0 = rest;
        Some(value)
    }

    /// The next `N` bytes as they are.
    pub(crate) fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (value, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(value)
    }

    /// The next `count` times `N` bytes as they are.
    pub(crate) fn arrays<const N: usize>(&mut self, count: u32) -> Option<&'a [[u8; N]]> {
        let len = usize::try_from(count).ok()?.checked_mul(N)?;
        let (values, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(values.as_chunks().0)
    }

    /// A list's count; `None` where it is above `max`.
    pub(crate) fn count(&mut self, max: usize) -> Option<u32> {
        self.take::<u32>()
            .filter(|count| usize::try_from(*count).is_ok_and(|count| count <= max))
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Bytes not read yet.
    pub(crate) const fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// A list of texts that were all checked when it was read: names of devices, or gateways.
#[derive(Clone, Copy, Debug)]
pub struct Texts<'a> {
    left: u32,
    reader: Reader<'a>,
}

/// Why a list of texts cannot be read.
pub(crate) enum TextsFault {
    /// The bytes end early, or are no text.
    Malformed,
    /// There are too many, or one of them is not what it must be.
    Wrong,
}

impl<'a> Texts<'a> {
    /// Reads at most `max` texts, each of which must pass `check`.
    pub(crate) fn parse(
        reader: &mut Reader<'a>,
        max: usize,
        check: fn(&str) -> bool,
    ) -> Result<Self, TextsFault> {
        let left = reader.count(max).ok_or(TextsFault::Wrong)?;
        let texts = Self {
            left,
            reader: *reader,
        };
        for _ in 0..left {
            if !check(reader.take().ok_or(TextsFault::Malformed)?) {
                return Err(TextsFault::Wrong);
            }
        }
        Ok(texts)
    }

    /// Whether no text is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.left == 0
    }
}

impl<'a> Iterator for Texts<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.left = self.left.checked_sub(1)?;
        self.reader.take()
    }
}

/// Where the next field goes.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    out: &'a mut [u8],
    used: usize,
}

impl<'a> Writer<'a> {
    pub(crate) const fn new(out: &'a mut [u8]) -> Self {
        Self { out, used: 0 }
    }

    /// Appends a field; `None` where it does not fit any more.
    pub(crate) fn put<T: Serialize + ?Sized>(&mut self, value: &T) -> Option<()> {
        let used = postcard::to_slice(value, self.out.get_mut(self.used..)?)
            .ok()?
            .len();
        self.used += used;
        Some(())
    }

    /// Appends bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Option<()> {
        self.out
            .get_mut(self.used..)?
            .get_mut(..bytes.len())?
            .copy_from_slice(bytes);
        self.used += bytes.len();
        Some(())
    }

    /// Appends a list's count.
    pub(crate) fn count(&mut self, count: usize) -> Option<()> {
        self.put(&u32::try_from(count).ok()?)
    }

    /// Bytes written so far.
    pub(crate) const fn len(&self) -> usize {
        self.used
    }
}
