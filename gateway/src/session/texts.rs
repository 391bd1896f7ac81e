//! Longer texts of boards, put together from their numbered parts (spec/protocol.md section 12).

use super::run::{End, Running};
use crate::store::Change;
use dialhome_proto::clipped;
use dialhome_proto::frame::{Output, Report};
use dialhome_proto::limits::{TEXT_PART_MAX, TEXT_PARTS_MAX};

/// A text that comes in parts: in any order, some twice, some never.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts(Vec<Option<Box<str>>>);

impl Parts {
    /// Takes a part; false where its numbers cannot be. Another number of parts is another text.
    pub(super) fn put(&mut self, part: u8, parts: u8, text: &str) -> bool {
        if part == 0 || part > parts || parts > TEXT_PARTS_MAX {
            return false;
        }
        if self.0.len() != usize::from(parts) {
            self.0.clear();
            self.0.resize(usize::from(parts), None);
        }
        if let Some(place) = self.0.get_mut(usize::from(part) - 1) {
            *place = Some(clipped(text, TEXT_PART_MAX).into());
        }
        true
    }

    /// Whether every part has come.
    pub(super) fn is_whole(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(Option::is_some)
    }

    /// The text as far as it has come, with a line for each part that has not. A terminal shows it:
    /// no control character but the line feed is left in.
    pub(super) fn text(&self) -> String {
        let parts = self.0.len();
        let mut whole = String::new();
        for (number, part) in (1..).zip(&self.0) {
            match part {
                Some(text) => whole.extend(text.chars().map(|letter| match letter {
                    '\n' => letter,
                    letter if letter.is_control() => ' ',
                    letter => letter,
                })),
                None => whole.push_str(&format!("\n[part {number} of {parts} is missing]\n")),
            }
        }
        whole
    }
}

/// The output that belongs to the Report of this sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Awaiting {
    sequence: u32,
    parts: Parts,
}

impl Awaiting {
    /// Takes a part; what was kept for another sequence is put aside.
    fn put(&mut self, output: &Output<'_>) {
        if self.sequence != output.sequence {
            *self = Self {
                sequence: output.sequence,
                parts: Parts::default(),
            };
        }
        self.parts.put(output.part, output.parts, output.text);
    }

    /// The text for this Report, if it is for this one.
    fn take(self, sequence: u32) -> Option<String> {
        let text = self.parts.text();
        (sequence != 0 && self.sequence == sequence && !text.is_empty()).then_some(text)
    }
}

impl Running {
    /// Keeps a part until its Report comes.
    pub(super) fn keep_output(&mut self, output: &Output<'_>) {
        let told = self.told.get_or_insert_default();
        told.output.get_or_insert_default().put(output);
    }

    /// Stores what came before this Report with its update, before the outcome is stored.
    pub(super) async fn store_output(&mut self, report: &Report<'_>) -> Result<(), End> {
        let kept = self.told.as_mut().and_then(|told| told.output.take());
        let Some(text) = kept.and_then(|kept| kept.take(report.sequence)) else {
            return Ok(());
        };
        let known = self
            .gateway
            .store
            .intent(report.update)
            .await
            .map_err(|fault| self.store_failed(&fault))?;
        if known.is_none_or(|known| known.device != *self.key.device) {
            return Ok(());
        }
        let change = Change {
            output: Some(text),
            stated: true,
            ..Change::default()
        };
        self.record(report.update, change).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(sequence: u32, part: u8, parts: u8, text: &str) -> Output<'_> {
        Output {
            sequence,
            part,
            parts,
            text,
        }
    }

    #[test]
    fn parts_are_put_together_in_whatever_order_they_come() {
        let mut kept = Awaiting::default();
        for (part, text) in [(3, "c"), (1, "wrong"), (2, "b\n"), (1, "a")] {
            kept.put(&output(7, part, 3, text));
        }
        assert!(kept.parts.is_whole());
        assert_eq!(kept.clone().take(7).unwrap(), "ab\nc");
        assert_eq!(kept.clone().take(8), None);
        assert_eq!(kept.take(0), None);
    }

    #[test]
    fn what_is_missing_is_named_and_what_cannot_be_is_dropped() {
        let mut kept = Awaiting::default();
        for (part, parts) in [(0, 3), (4, 3), (1, 9), (255, 255), (0, 0), (1, 0)] {
            kept.put(&output(7, part, parts, "no"));
        }
        assert_eq!(kept.clone().take(7), None);
        kept.put(&output(7, 1, 3, "a"));
        kept.put(&output(7, 3, 3, "c"));
        assert!(!kept.parts.is_whole());
        assert_eq!(
            kept.clone().take(7).unwrap(),
            "a\n[part 2 of 3 is missing]\nc"
        );
        kept.put(&output(7, 1, 2, "another text"));
        assert_eq!(
            kept.clone().take(7).unwrap(),
            "another text\n[part 2 of 2 is missing]\n"
        );
        kept.put(&output(8, 1, 1, "the next"));
        assert_eq!(kept.clone().take(7), None);
        assert_eq!(kept.take(8).unwrap(), "the next");
    }

    #[test]
    fn a_text_is_bounded_and_has_nothing_that_a_terminal_obeys() {
        let mut kept = Awaiting::default();
        let long = "x".repeat(990);
        for part in 1..=8 {
            kept.put(&output(1, part, 8, &long));
        }
        assert_eq!(kept.take(1).unwrap().len(), 8 * TEXT_PART_MAX);
        let mut kept = Awaiting::default();
        kept.put(&output(1, 1, 1, "a\x1b[2Jb\r\x07\u{9b}c\n"));
        assert_eq!(kept.take(1).unwrap(), "a [2Jb   c\n");
    }

    /// Whatever comes, nothing panics, and nothing grows.
    #[test]
    fn any_parts_are_survived() {
        let mut kept = Awaiting::default();
        let mut number = 1_u32;
        for _ in 0..100_000 {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let [a, b, c, _] = number.to_be_bytes();
            kept.put(&output(u32::from(a % 3), b % 11, c % 11, "part"));
            assert!(kept.parts.0.len() <= 8);
        }
    }
}
