//! The values of an information line, such as `0,0,"Example Mobile",2`.

/// Fields of a line that are kept; the lines used have at most four.
const FIELDS: usize = 4;

/// The numbers of one information line, by their place.
#[derive(Clone, Copy, Debug)]
pub struct Values {
    numbers: [u16; FIELDS],
    count: u8,
}

impl Values {
    /// No line has come.
    pub const NONE: Self = Self {
        numbers: [0; FIELDS],
        count: 0,
    };

    /// Takes the values of a line, without its prefix. What is no number counts as 0, and
    /// as 65,535 what is larger.
    #[must_use]
    pub fn of(line: &[u8]) -> Self {
        let mut values = Self::NONE;
        let mut number = 0_u32;
        let mut in_text = false;
        // The comma behind the last field ends it as the others.
        for byte in line.iter().copied().chain([b',']) {
            match byte {
                b'"' => in_text = !in_text,
                _ if in_text => {}
                b'0'..=b'9' => {
                    number = (number * 10 + u32::from(byte & 0x0F)).min(u32::from(u16::MAX));
                }
                b',' => {
                    if let Some(room) = values.numbers.get_mut(usize::from(values.count)) {
                        *room = u16::try_from(number).unwrap_or(u16::MAX);
                    }
                    values.count = values.count.saturating_add(1);
                    number = 0;
                }
                _ => {}
            }
        }
        values
    }

    /// The number at a place, 0 where there is none.
    #[must_use]
    pub fn number(&self, place: usize) -> u16 {
        self.numbers.get(place).copied().unwrap_or(0)
    }

    /// How many fields the line had; 0: there was no such line.
    #[must_use]
    pub const fn count(&self) -> u8 {
        self.count
    }
}

/// The first text in quotation marks of a line, without them.
#[must_use]
pub fn text(line: &[u8]) -> &[u8] {
    line.split(|byte| *byte == b'"').nth(1).unwrap_or(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operator_line_gives_name_and_technology() {
        let line = b"0,0,\"Example, 2 Mobile\",7";
        let values = Values::of(line);
        assert_eq!(text(line), b"Example, 2 Mobile");
        assert_eq!(
            (values.count(), values.number(0), values.number(3)),
            (4, 0, 7)
        );
        assert_eq!(text(b"1,2"), b"");
    }

    #[test]
    fn broken_fields_are_bounded() {
        let values = Values::of(b"x,,99999999999,7,8,9");
        assert_eq!(
            [0, 1, 2, 3, 4].map(|place| values.number(place)),
            [0, 0, 65535, 7, 0]
        );
        assert_eq!(values.count(), 6);
    }
}
