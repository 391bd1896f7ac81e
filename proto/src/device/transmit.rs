//! Frames on their way out, in order: Hello, the outbox, then what waits.

use super::config::{GATEWAY_LISTS, ROTATION};
use super::link::LinkState;
use super::machine::Machine;
use super::outbox::{Entry, Said};
use super::stage::Stage;
use super::work::Work;
use crate::code::{Phase, Reason, Statement};
use crate::frame::{
    Accept, Ack, Bye, Decline, Defer, GatewaysStored, KeyStored, Nack, Ping, Pong, Progress,
    Report, Unsupported, say,
};
use crate::id::UpdateId;
use crate::time::Millis;
use crate::wire::Writer;

/// A frame that waits to be sent; it borrows nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Out {
    Ping(u8),
    Pong(u8),
    Unsupported(u8),
    /// Made of what holds when it is sent; left out where the transfer has stopped.
    Accept,
    Defer {
        update: UpdateId,
        reason: Reason,
        for_s: u16,
    },
    Decline {
        update: UpdateId,
        reason: Reason,
    },
    /// As `Accept`.
    Progress,
    Ack(Ack),
    Nack(Nack),
    Passing {
        update: UpdateId,
        component: u8,
        state: Statement,
        reason: Reason,
    },
    GatewaysRefused,
    Bye(Bye),
}

impl Machine<'_> {
    /// Writes the next frame's plaintext to `buffer`, which takes
    /// [`FRAME_MAX`](super::FRAME_MAX) bytes, and returns its length.
    #[inline(never)]
    pub fn poll_transmit(&mut self, buffer: &mut [u8], now: Millis) -> Option<usize> {
        let len = self.next_frame(buffer)?;
        // Only what is sent is a sign of life to the gateway.
        self.sent_at = now;
        Some(len)
    }

    fn next_frame(&mut self, buffer: &mut [u8]) -> Option<usize> {
        if self.dirty != 0 || matches!(self.work, Some(Work::Store(_))) {
            return None;
        }
        if !matches!(
            self.link,
            LinkState::Greeting { .. } | LinkState::Online | LinkState::Leaving { .. }
        ) {
            return None;
        }
        let mut writer = Writer::new(buffer);
        if self.hello_due {
            self.hello_due = false;
            self.write_hello(&mut writer);
        } else if !self.write_stated(&mut writer) {
            loop {
                let out = self.out.pop_front()?;
                if self.write_out(out, &mut writer).is_some() {
                    break;
                }
            }
        }
        writer.finish()
    }

    /// Writes the next entry of the outbox; false where there is none to be stated now.
    #[inline(never)]
    fn write_stated(&mut self, writer: &mut Writer<'_>) -> bool {
        // What a cut would take back is not stated.
        if self.is_outbox_held() {
            return false;
        }
        let outbox = &self.cells.outbox;
        let Some(&Entry { sequence, said }) = outbox.entries().get(usize::from(self.restate))
        else {
            return false;
        };
        self.restate += 1;
        match said {
            Said::Outcome {
                update,
                component,
                state,
                reason,
            } => {
                let report = Report {
                    sequence,
                    update,
                    component,
                    state,
                    reason,
                    detail: outbox.detail(sequence),
                };
                say(writer, &report);
            }
            Said::KeyStored { handle } if ROTATION => {
                say(writer, &KeyStored { sequence, handle });
            }
            Said::GatewaysStored { epoch } if GATEWAY_LISTS => {
                say(writer, &GatewaysStored { sequence, epoch });
            }
            // Withdrawn at the start.
            Said::KeyStored { .. } | Said::GatewaysStored { .. } => return false,
        }
        true
    }

    /// `None` where there is nothing to say any more.
    #[inline(never)]
    fn write_out(&self, out: Out, writer: &mut Writer<'_>) -> Option<()> {
        match out {
            Out::Ping(nonce) => say(writer, &Ping { nonce }),
            Out::Pong(nonce) => say(writer, &Pong { nonce }),
            Out::Unsupported(number) => say(writer, &Unsupported { number }),
            Out::Accept => say(writer, &self.accept()?),
            Out::Defer {
                update,
                reason,
                for_s,
            } => {
                let for_s = for_s.into();
                let defer = Defer {
                    update,
                    reason,
                    for_s,
                };
                say(writer, &defer);
            }
            Out::Decline { update, reason } => say(writer, &Decline { update, reason }),
            Out::Progress => say(writer, &self.stage_progress()?),
            Out::Ack(ack) => say(writer, &ack),
            Out::Nack(nack) => say(writer, &nack),
            Out::Passing {
                update,
                component,
                state,
                reason,
            } => {
                let report = Report {
                    sequence: 0,
                    update,
                    component,
                    state,
                    reason,
                    detail: "",
                };
                say(writer, &report);
            }
            Out::GatewaysRefused if !GATEWAY_LISTS => return None,
            Out::GatewaysRefused => {
                let refused = GatewaysStored {
                    sequence: 0,
                    epoch: self.cells.gateways_epoch,
                };
                say(writer, &refused);
            }
            Out::Bye(bye) => say(writer, &bye),
        }
        Some(())
    }

    /// The window is shut until the slot is ready; the first Ack opens it. So no chunk has
    /// come since it was queued, and the digest is still that of the committed prefix.
    fn accept(&self) -> Option<Accept> {
        if !matches!(
            self.stage,
            Stage::Preparing { .. } | Stage::Receiving(_) | Stage::Staged(_)
        ) {
            return None;
        }
        let active = self.active?;
        let committed = self.proof.len;
        Some(Accept {
            update: active.update,
            image_offset: committed,
            prefix: self.proof.digest(),
            payload_offset: committed,
            limit: committed,
            commit_ms: self.active_config()?.commit_ms,
        })
    }

    fn stage_progress(&self) -> Option<Progress> {
        let update = self.active?.update;
        let (phase, done, total) = match &self.stage {
            Stage::Proving => (Phase::PROVING, self.proof.len, self.cells.claim?.committed),
            Stage::Preparing { erased, until, .. } => (Phase::PREPARING, *erased, *until),
            _ => return None,
        };
        Some(Progress {
            update,
            phase,
            done,
            total,
        })
    }
}
