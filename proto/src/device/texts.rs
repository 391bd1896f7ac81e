//! Longer texts in numbered parts (spec/protocol.md section 12): the machine says which is
//! due, the shell has the words.

use super::link::LinkState;
use super::machine::Machine;
use super::outbox::{Entry, Said};
use super::work::Work;
use crate::clipped;
use crate::frame::{LogPart, Output, ReadLog, say};
use crate::id::UpdateId;
use crate::limits::TEXT_PART_MAX;
use crate::time::Millis;
use crate::wire::Writer;

/// A text that the shell is to send now, part by part, with [`Machine::say_part`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TextDue {
    /// What the commands printed that failed for this update, before the Report of this sequence.
    Output {
        /// The Report's number in the outbox.
        sequence: u32,
        /// The update.
        update: UpdateId,
    },
    /// The end of the board's log.
    Log(ReadLog),
}

/// What was said of texts in this session.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Texts {
    /// The sequence whose Output was said; 0: none.
    said: u32,
    log: Option<ReadLog>,
}

impl Machine<'_> {
    /// Takes a request for the log, in place of an older one.
    pub(super) const fn read_log(&mut self, read: ReadLog) {
        self.texts.log = Some(read);
    }

    /// Another session, or the outbox is stated anew: its outputs are, too.
    pub(super) const fn forget_outputs(&mut self) {
        self.texts.said = 0;
    }

    pub(super) const fn forget_log(&mut self) {
        self.texts.log = None;
    }

    /// The text that is due before what [`Self::poll_transmit`] says next; `None` where none is,
    /// or the log has to wait for what is more urgent. To be asked again after each part.
    #[must_use]
    pub fn text_due(&self) -> Option<TextDue> {
        let speaks = matches!(
            self.link,
            LinkState::Greeting { .. } | LinkState::Online | LinkState::Leaving { .. }
        );
        let storing = self.dirty != 0 || matches!(self.work, Some(Work::Store(_)));
        if !speaks || storing || self.hello_due {
            return None;
        }
        if !self.is_outbox_held()
            && let Some(Entry { sequence, said }) =
                self.cells.outbox.entries().get(usize::from(self.restate))
        {
            return match said {
                Said::Outcome { update, .. } if *sequence != self.texts.said => {
                    Some(TextDue::Output {
                        sequence: *sequence,
                        update: *update,
                    })
                }
                _ => None,
            };
        }
        self.texts
            .log
            .filter(|_| self.out.is_empty())
            .map(TextDue::Log)
    }

    /// Writes a part of the text that is due to `buffer`, which takes
    /// [`FRAME_MAX`](super::FRAME_MAX) bytes, and returns the frame's length; `None` where it
    /// does not fit.
    pub fn say_part(
        &mut self,
        due: TextDue,
        (part, parts): (u8, u8),
        text: &str,
        buffer: &mut [u8],
        now: Millis,
    ) -> Option<usize> {
        let text = clipped(text, TEXT_PART_MAX);
        let mut writer = Writer::new(buffer);
        match due {
            TextDue::Output { sequence, .. } => say(
                &mut writer,
                &Output {
                    sequence,
                    part,
                    parts,
                    text,
                },
            ),
            TextDue::Log(ReadLog { request, .. }) => say(
                &mut writer,
                &LogPart {
                    request,
                    part,
                    parts,
                    text,
                },
            ),
        }
        let len = writer.finish()?;
        self.sent_at = now;
        Some(len)
    }

    /// Every part of it was said, or there is none.
    pub fn text_said(&mut self, due: TextDue) {
        match due {
            TextDue::Output { sequence, .. } => self.texts.said = sequence,
            // A newer request may have come meanwhile.
            TextDue::Log(read) if self.texts.log == Some(read) => self.texts.log = None,
            TextDue::Log(_) => {}
        }
    }
}
