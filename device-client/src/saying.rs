//! Longer texts on their way out, part by part (spec/protocol.md section 12).

use crate::boot::{Boot, Text};
use dialhome_proto::device::{Machine, TextDue};
use dialhome_proto::frame::ReadLog;
use dialhome_proto::limits::TEXT_PARTS_MAX;
use dialhome_proto::time::Millis;

/// How far a text is said.
#[derive(Clone, Copy, Default)]
pub(crate) struct Saying {
    due: Option<TextDue>,
    parts: u8,
    /// The next part.
    part: u8,
}

/// Writes the next part of a text that is due, if one is; its length.
pub(crate) fn next_part(
    machine: &mut Machine<'_>,
    boot: &mut impl Boot,
    saying: &mut [Saying; 2],
    room: &mut [u8],
    now: Millis,
) -> Option<usize> {
    // One after the other: what is said of one may make the next one due.
    while let Some(due) = machine.text_due() {
        let [output, log] = saying;
        let (saying, text) = match due {
            TextDue::Output { update, .. } => (output, Text::Output(update)),
            TextDue::Log(ReadLog { lines, bytes, .. }) => (log, Text::Log { lines, bytes }),
        };
        if saying.due != Some(due) {
            *saying = Saying {
                due: Some(due),
                parts: boot.text(text).min(TEXT_PARTS_MAX),
                part: 1,
            };
            if saying.parts == 0 && matches!(due, TextDue::Log(_)) {
                // Nothing is an answer, too.
                *saying = Saying::default();
                machine.text_said(due);
                return machine.say_part(due, (0, 0), "", room, now);
            }
        }
        if saying.part > saying.parts {
            *saying = Saying::default();
            machine.text_said(due);
            continue;
        }
        let words = boot.text_part(text, saying.part);
        let said = machine.say_part(due, (saying.part, saying.parts), words, room, now);
        saying.part += 1;
        return said;
    }
    None
}
