//! The values of an information line, such as `0,0,"Example Mobile",2`.

/// Fields of a line that are kept; the lines used have at most four.
const FIELDS: usize = 4;
/// Longest text kept, in bytes: an IPv6 address has 39, an operator's name at most 32.
const TEXT_LEN: usize = 40;

/// The fields of one information line, without its prefix.
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    numbers: [u32; FIELDS],
    fields: usize,
    text: [u8; TEXT_LEN],
    text_len: usize,
}

impl Reply {
    /// No line has come yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            numbers: [0; FIELDS],
            fields: 0,
            text: [0; TEXT_LEN],
            text_len: 0,
        }
    }

    /// Takes the values of a line: numbers by their place, and the first text in quotes.
    /// What is neither counts as a field without a number.
    #[must_use]
    pub fn of(line: &[u8]) -> Self {
        let mut reply = Self::new();
        let mut quotes = 0_u8;
        let mut number = None;
        let mut valid = true;
        // The comma behind the last field ends it as the others.
        for byte in line.iter().copied().chain([b',']) {
            let in_text = quotes == 1;
            match byte {
                b'"' => quotes = quotes.saturating_add(1),
                _ if in_text => {
                    if let Some(room) = reply.text.get_mut(reply.text_len) {
                        *room = byte;
                        reply.text_len += 1;
                    }
                }
                b',' => {
                    if let (Some(room), Some(value), true) =
                        (reply.numbers.get_mut(reply.fields), number, valid)
                    {
                        *room = value;
                    }
                    reply.fields = reply.fields.saturating_add(1);
                    number = None;
                    valid = true;
                }
                b'0'..=b'9' => {
                    let digit = u32::from(byte & 0x0F);
                    let value = number.unwrap_or(0_u32);
                    number = Some(value.saturating_mul(10).saturating_add(digit));
                }
                b' ' => {}
                _ => valid = false,
            }
        }
        reply
    }

    /// The number at a place, 0 where there is none.
    #[must_use]
    pub fn number(&self, place: usize) -> u32 {
        self.numbers.get(place).copied().unwrap_or(0)
    }

    /// How many fields the line had; 0: there was no such line.
    #[must_use]
    pub const fn fields(&self) -> usize {
        self.fields
    }

    /// The first text in quotes.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        self.text.get(..self.text_len).unwrap_or(&[])
    }
}

impl Default for Reply {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operator_line_gives_name_and_technology() {
        let reply = Reply::of(b"0,0,\"Example, Mobile\",2");
        assert_eq!(reply.text(), b"Example, Mobile");
        assert_eq!(
            (reply.fields(), reply.number(0), reply.number(3)),
            (4, 0, 2)
        );
    }

    #[test]
    fn broken_fields_are_zero() {
        let reply = Reply::of(b"1x2,,99999999999,7,8,9");
        assert_eq!(reply.number(0), 0);
        assert_eq!(reply.number(1), 0);
        assert_eq!(reply.number(2), u32::MAX);
        assert_eq!(reply.number(3), 7);
        assert_eq!((reply.fields(), reply.number(4)), (6, 0));
    }

    #[test]
    fn text_that_does_not_fit_is_cut() {
        let mut line = [b'a'; 100];
        line[0] = b'"';
        assert_eq!(Reply::of(&line).text(), &[b'a'; TEXT_LEN]);
    }
}
