//! Fields out of bytes and into bytes, in the encoding of spec/frames.md section 1.
//!
//! Written out, and not derived by serde for postcard, because a board's flash has no
//! room for the difference: some 8 KB on a Cortex-M0. A reader that fails goes on with
//! zeros and remembers it, so that a struct's fields need no check after each.
//! spec/vectors, which another program made, hold both to the specification.

use heapless::{String, Vec};

/// What is left of an encoded body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    /// `None` after a failure.
    rest: Option<&'a [u8]>,
}

/// Something with a place in a body.
pub(crate) trait Field<'a>: Sized {
    /// The next field; what it is after a failure means nothing.
    fn read(reader: &mut Reader<'a>) -> Self;

    /// Appends the field.
    fn write(&self, writer: &mut Writer<'_>);
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: Some(bytes) }
    }

    /// Remembers that the bytes are not what was expected, and ends them.
    pub(crate) const fn fail(&mut self) {
        self.rest = None;
    }

    #[inline(never)]
    pub(crate) fn byte(&mut self) -> u8 {
        if let Some((first, rest)) = self.rest.and_then(<[u8]>::split_first) {
            self.rest = Some(rest);
            *first
        } else {
            self.fail();
            0
        }
    }

    /// A number of so many bits: groups of 7, the least significant first.
    #[inline(never)]
    pub(crate) fn varint(&mut self, bits: u32) -> u64 {
        let mut value = 0_u64;
        let mut shift = 0;
        while shift < bits {
            let byte = self.byte();
            let group = byte & 0x7F;
            // The last group may have fewer bits than 7.
            let left = bits - shift;
            if left < 7 && group >> left != 0 {
                break;
            }
            value |= u64::from(group) << shift;
            if byte & 0x80 == 0 {
                return value;
            }
            shift += 7;
        }
        self.fail();
        0
    }

    /// The next bytes as they are.
    #[inline(never)]
    pub(crate) fn slice(&mut self, len: u32) -> &'a [u8] {
        let split = self
            .rest
            .zip(usize::try_from(len).ok())
            .and_then(|(rest, len)| rest.split_at_checked(len));
        if let Some((slice, rest)) = split {
            self.rest = Some(rest);
            slice
        } else {
            self.fail();
            &[]
        }
    }

    /// The next text, behind its length.
    #[inline(never)]
    pub(crate) fn text(&mut self) -> &'a str {
        let len = self.len();
        core::str::from_utf8(self.slice(len)).unwrap_or_else(|_| {
            self.fail();
            ""
        })
    }

    /// Fills `out` with the next bytes as they are.
    #[inline(never)]
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            *byte = self.byte();
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "the number has 32 bits")]
    fn len(&mut self) -> u32 {
        self.varint(32) as u32
    }

    /// Whether every field so far was there.
    pub(crate) const fn is_good(&self) -> bool {
        self.rest.is_some()
    }

    /// The next field; `None` where the bytes end early or the value does not fit its type.
    pub(crate) fn take<T: Field<'a>>(&mut self) -> Option<T> {
        let value = T::read(self);
        self.is_good().then_some(value)
    }

    /// The next `N` bytes as they are.
    pub(crate) fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let Some((value, rest)) = self.rest.and_then(<[u8]>::split_first_chunk) else {
            self.fail();
            return None;
        };
        self.rest = Some(rest);
        Some(value)
    }

    /// The next `count` times `N` bytes as they are.
    pub(crate) fn arrays<const N: usize>(&mut self, count: u32) -> Option<&'a [[u8; N]]> {
        let len = u32::try_from(N).ok().and_then(|one| count.checked_mul(one));
        let bytes = self.slice(len.unwrap_or(u32::MAX));
        self.is_good().then_some(bytes.as_chunks().0)
    }

    /// A list's count; `None` where it is above `max`.
    pub(crate) fn count(&mut self, max: usize) -> Option<u32> {
        let count = self.len();
        let fits = usize::try_from(count).is_ok_and(|count| count <= max);
        (fits && self.is_good()).then_some(count)
    }

    pub(crate) const fn is_empty(self) -> bool {
        matches!(self.rest, Some([]))
    }

    /// Bytes not read yet.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest.unwrap_or(&[])
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

    /// Texts that are left; there are never more than a few.
    pub(crate) const fn left(&self) -> u8 {
        self.left.to_le_bytes()[0]
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

/// As much of the text as fits into `max` bytes, in whole characters.
#[inline(never)]
#[must_use]
pub fn clipped(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    loop {
        if let Some(part) = text.get(..end) {
            return part;
        }
        end = end.saturating_sub(1);
    }
}

/// What comes before `rest`, its last part, in `bytes`.
pub(crate) fn before<'a>(bytes: &'a [u8], rest: &[u8]) -> &'a [u8] {
    let len = bytes.len().saturating_sub(rest.len());
    bytes.get(..len).unwrap_or(bytes)
}

/// A value that uses every byte.
#[cfg(test)]
pub(crate) fn whole<'a, T: Field<'a>>(bytes: &'a [u8]) -> Option<T> {
    let mut reader = Reader::new(bytes);
    let value = T::read(&mut reader);
    reader.is_empty().then_some(value)
}

/// Where the next field goes.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    out: &'a mut [u8],
    used: usize,
    full: bool,
}

impl<'a> Writer<'a> {
    pub(crate) const fn new(out: &'a mut [u8]) -> Self {
        Self {
            out,
            used: 0,
            full: false,
        }
    }

    #[inline(never)]
    pub(crate) fn byte(&mut self, byte: u8) {
        match self.out.get_mut(self.used) {
            Some(room) => {
                *room = byte;
                self.used += 1;
            }
            None => self.full = true,
        }
    }

    /// Numbers come by value, so that what they are a part of need not stand in memory.
    #[inline(never)]
    pub(crate) fn number(&mut self, value: u32) {
        self.counter(value.into());
    }

    #[inline(never)]
    pub(crate) fn slice(&mut self, bytes: &[u8]) {
        let end = self.used.saturating_add(bytes.len());
        match self.out.get_mut(self.used..end) {
            Some(room) => {
                // As one copy: a chunk is thousands of bytes. Without a way to panic, too.
                for (room, byte) in room.iter_mut().zip(bytes) {
                    *room = *byte;
                }
                self.used = end;
            }
            None => self.full = true,
        }
    }

    #[inline(never)]
    pub(crate) fn counter(&mut self, mut value: u64) {
        while value > 0x7F {
            let [low, ..] = value.to_le_bytes();
            self.byte(low | 0x80);
            value >>= 7;
        }
        let [low, ..] = value.to_le_bytes();
        self.byte(low);
    }

    /// Appends a text, its length first.
    #[inline(never)]
    pub(crate) fn text(&mut self, text: &str) {
        self.len_of(text.len());
        self.slice(text.as_bytes());
    }

    fn len_of(&mut self, len: usize) {
        match u32::try_from(len) {
            Ok(len) => self.number(len),
            Err(_) => self.full = true,
        }
    }

    fn is_good(&self) -> Option<()> {
        (!self.full).then_some(())
    }

    /// Appends a field; `None` where it does not fit any more.
    pub(crate) fn put<'b, T: Field<'b>>(&mut self, value: &T) -> Option<()> {
        value.write(self);
        self.is_good()
    }

    /// Appends bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Option<()> {
        self.slice(bytes);
        self.is_good()
    }

    /// Appends a list's count.
    pub(crate) fn count(&mut self, count: usize) -> Option<()> {
        self.len_of(count);
        self.is_good()
    }

    /// Remembers that what was to be written cannot be.
    pub(crate) const fn fail(&mut self) {
        self.full = true;
    }

    /// Writes the first byte anew.
    pub(crate) const fn set_first(&mut self, byte: u8) {
        if let Some(first) = self.out.first_mut() {
            *first = byte;
        }
    }

    /// Bytes written so far.
    pub(crate) const fn len(&self) -> usize {
        self.used
    }

    /// Bytes written; `None` where something did not fit.
    pub(crate) const fn finish(self) -> Option<usize> {
        if self.full { None } else { Some(self.used) }
    }
}

macro_rules! numbers {
    ($($name:ident $bits:literal,)+) => {
        $(impl Field<'_> for $name {
            #[expect(clippy::cast_possible_truncation, reason = "the number has so many bits")]
            fn read(reader: &mut Reader<'_>) -> Self {
                reader.varint($bits) as Self
            }

            #[inline(always)]
            fn write(&self, writer: &mut Writer<'_>) {
                writer.number((*self).into());
            }
        })+
    };
}

numbers! { u16 16, u32 32, }

impl Field<'_> for u64 {
    fn read(reader: &mut Reader<'_>) -> Self {
        reader.varint(64)
    }

    #[inline(always)]
    fn write(&self, writer: &mut Writer<'_>) {
        writer.counter(*self);
    }
}

impl Field<'_> for u8 {
    fn read(reader: &mut Reader<'_>) -> Self {
        reader.byte()
    }

    #[inline(always)]
    fn write(&self, writer: &mut Writer<'_>) {
        writer.byte(*self);
    }
}

impl Field<'_> for i8 {
    fn read(reader: &mut Reader<'_>) -> Self {
        reader.byte().cast_signed()
    }

    #[inline(always)]
    fn write(&self, writer: &mut Writer<'_>) {
        writer.byte(self.cast_unsigned());
    }
}

impl Field<'_> for bool {
    fn read(reader: &mut Reader<'_>) -> Self {
        let byte = reader.byte();
        if byte > 1 {
            reader.fail();
        }
        byte == 1
    }

    #[inline(always)]
    fn write(&self, writer: &mut Writer<'_>) {
        writer.byte((*self).into());
    }
}

impl<const N: usize> Field<'_> for [u8; N] {
    fn read(reader: &mut Reader<'_>) -> Self {
        let mut out = [0; N];
        reader.fill(&mut out);
        out
    }

    #[inline(always)]
    fn write(&self, writer: &mut Writer<'_>) {
        writer.slice(self);
    }
}

impl<'a> Field<'a> for &'a [u8] {
    fn read(reader: &mut Reader<'a>) -> Self {
        let len = reader.len();
        reader.slice(len)
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.len_of(self.len());
        writer.slice(self);
    }
}

impl<'a> Field<'a> for &'a str {
    fn read(reader: &mut Reader<'a>) -> Self {
        reader.text()
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.text(self);
    }
}

impl<const N: usize> Field<'_> for String<N> {
    fn read(reader: &mut Reader<'_>) -> Self {
        Self::try_from(<&str>::read(reader)).unwrap_or_else(|_| {
            reader.fail();
            Self::new()
        })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.text(self);
    }
}

impl<'a, T: Field<'a>> Field<'a> for Option<T> {
    fn read(reader: &mut Reader<'a>) -> Self {
        bool::read(reader).then(|| T::read(reader))
    }

    fn write(&self, writer: &mut Writer<'_>) {
        self.is_some().write(writer);
        if let Some(value) = self {
            value.write(writer);
        }
    }
}

impl<'a, T: Field<'a>, const N: usize> Field<'a> for Vec<T, N> {
    fn read(reader: &mut Reader<'a>) -> Self {
        let mut all = Self::new();
        for _ in 0..reader.len() {
            if all.push(T::read(reader)).is_err() {
                reader.fail();
            }
            if !reader.is_good() {
                break;
            }
        }
        all
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.len_of(self.len());
        for value in self {
            value.write(writer);
        }
    }
}

/// Declares structs whose fields stand in a body in the order in which they are declared.
macro_rules! fields {
    () => {};
    ($(#[$meta:meta])* pub struct $name:ident {
        $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)+
    } $($more:tt)*) => {
        $(#[$meta])*
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)+
        }

        impl $crate::wire::Field<'_> for $name {
            fn read(reader: &mut $crate::wire::Reader<'_>) -> Self {
                Self { $($field: $crate::wire::Field::read(reader),)+ }
            }

            fn write(&self, writer: &mut $crate::wire::Writer<'_>) {
                $($crate::wire::Field::write(&self.$field, writer);)+
            }
        }

        $crate::wire::fields! { $($more)* }
    };
    ($(#[$meta:meta])* pub struct $name:ident<$life:lifetime> {
        $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)+
    } $($more:tt)*) => {
        $(#[$meta])*
        pub struct $name<$life> {
            $($(#[$field_meta])* pub $field: $type,)+
        }

        impl<$life> $crate::wire::Field<$life> for $name<$life> {
            fn read(reader: &mut $crate::wire::Reader<$life>) -> Self {
                Self { $($field: $crate::wire::Field::read(reader),)+ }
            }

            fn write(&self, writer: &mut $crate::wire::Writer<'_>) {
                $($crate::wire::Field::write(&self.$field, writer);)+
            }
        }

        $crate::wire::fields! { $($more)* }
    };
}
pub(crate) use fields;

#[cfg(test)]
mod tests {
    use super::*;

    fn read<'a, T: Field<'a>>(bytes: &'a [u8]) -> Option<T> {
        whole(bytes)
    }

    #[test]
    fn numbers_are_those_of_the_specification() {
        assert_eq!(read::<u16>(&[0xFF, 0xFF, 0x03]), Some(u16::MAX));
        assert_eq!(read::<u16>(&[0xFF, 0xFF, 0x04]), None, "17 bits");
        assert_eq!(read::<u16>(&[0x80, 0x80, 0x80, 0x00]), None, "4 bytes");
        assert_eq!(read::<u16>(&[0x80, 0x00]), Some(0), "longer than needed");
        assert_eq!(read::<u16>(&[0x80]), None, "cut short");
        assert_eq!(read::<u32>(&[0xFF, 0xFF, 0xFF, 0xFF, 0x0F]), Some(u32::MAX));
        assert_eq!(read::<u32>(&[0xFF, 0xFF, 0xFF, 0xFF, 0x1F]), None);
        let mut most = [0xFF; 10];
        most[9] = 1;
        assert_eq!(read::<u64>(&most), Some(u64::MAX));
        most[9] = 2;
        assert_eq!(read::<u64>(&most), None);
        assert_eq!(read::<bool>(&[2]), None);
        assert_eq!(read::<Option<u8>>(&[2, 0]), None);
        assert_eq!(read::<i8>(&[0x80]), Some(-128));
    }

    #[test]
    fn texts_and_lists_end_where_their_length_says() {
        assert_eq!(read::<&str>(&[2, b'a', b'b']), Some("ab"));
        assert_eq!(read::<&str>(&[3, b'a', b'b']), None);
        assert_eq!(read::<&str>(&[1, 0xFF]), None, "not UTF-8");
        assert_eq!(read::<&[u8]>(&[1, 0xFF]), Some(&[0xFF][..]));
        assert_eq!(read::<String<1>>(&[2, b'a', b'b']), None);
        assert_eq!(read::<Vec<u8, 2>>(&[2, 7, 8]).as_deref(), Some(&[7, 8][..]));
        assert_eq!(read::<Vec<u8, 2>>(&[3, 7, 8, 9]), None);
        assert_eq!(read::<Vec<u8, 2>>(&[0xFF, 0xFF, 0xFF, 0xFF, 0x0F]), None);
    }

    #[test]
    fn what_does_not_fit_is_not_written() {
        for (value, len) in [(0_u64, 1), (0x7F, 1), (0x80, 2), (u64::MAX, 10)] {
            let mut out = [0; 16];
            let mut writer = Writer::new(&mut out);
            value.write(&mut writer);
            let used = writer.finish().unwrap();
            assert_eq!(used, len);
            assert_eq!(read::<u64>(&out[..used]), Some(value));
            let mut short = [0; 16];
            let mut writer = Writer::new(&mut short[..len - 1]);
            value.write(&mut writer);
            assert_eq!(writer.finish(), None);
        }
    }
}
