//! Frames on their way out, in order: Hello, the outbox, then what waits.

use super::link::LinkState;
use super::machine::Machine;
use super::outbox::Said;
use super::stage::Stage;
use super::work::Work;
use crate::code::{Phase, Reason, Statement};
use crate::frame::{
    Accept, Ack, Bye, Decline, Defer, DeviceFrame, GatewaysStored, KeyStored, Nack, Ping, Pong,
    Progress, Report, Unsupported,
};
use crate::id::UpdateId;
use crate::time::Millis;

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
    Decline(Decline),
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
        if self.hello_due {
            self.hello_due = false;
            return self.write_hello(buffer);
        }
        // What a cut would take back is not stated.
        let held = self.is_outbox_held();
        let entry = self.cells.outbox.entries().get(usize::from(self.restate));
        if let Some(entry) = entry.filter(|_| !held) {
            self.restate += 1;
            let sequence = entry.sequence;
            let frame: DeviceFrame<'_> = match entry.said {
                Said::Outcome {
                    update,
                    component,
                    state,
                    reason,
                } => {
                    let detail = self.cells.outbox.detail(sequence);
                    Report {
                        sequence,
                        update,
                        component,
                        state,
                        reason,
                        detail,
                    }
                    .into()
                }
                Said::KeyStored { handle } => KeyStored { sequence, handle }.into(),
                Said::GatewaysStored { epoch } => GatewaysStored { sequence, epoch }.into(),
            };
            return frame.encode(buffer).ok();
        }
        loop {
            let out = self.out.pop_front()?;
            if let Some(frame) = self.frame(out) {
                return frame.encode(buffer).ok();
            }
        }
    }

    fn frame(&self, out: Out) -> Option<DeviceFrame<'_>> {
        Some(match out {
            Out::Ping(nonce) => Ping { nonce }.into(),
            Out::Pong(nonce) => Pong { nonce }.into(),
            Out::Unsupported(number) => Unsupported { number }.into(),
            Out::Accept => self.accept()?.into(),
            Out::Defer {
                update,
                reason,
                for_s,
            } => Defer {
                update,
                reason,
                for_s: for_s.into(),
            }
            .into(),
            Out::Decline(decline) => decline.into(),
            Out::Progress => self.stage_progress()?.into(),
            Out::Ack(ack) => ack.into(),
            Out::Nack(nack) => nack.into(),
            Out::Passing {
                update,
                component,
                state,
                reason,
            } => Report {
                sequence: 0,
                update,
                component,
                state,
                reason,
                detail: "",
            }
            .into(),
            Out::GatewaysRefused => GatewaysStored {
                sequence: 0,
                epoch: self.cells.gateways_epoch,
            }
            .into(),
            Out::Bye(bye) => bye.into(),
        })
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
            commit_ms: self
                .config
                .components
                .get(usize::from(active.place))?
                .commit_ms,
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
