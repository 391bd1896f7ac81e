//! Frames on their way out, in order: Hello, the outbox, then what waits.

use super::link::LinkState;
use super::machine::Machine;
use super::outbox::Said;
use super::work::Work;
use crate::code::{Reason, Statement};
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
    Accept(Accept),
    Defer(Defer),
    Decline(Decline),
    Progress(Progress),
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
    /// Writes the next frame's plaintext to `buffer`, which takes 1,008 bytes, and returns its length.
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
        let entry = self.cells.outbox.entries().get(self.restate);
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
        let out = self.out.pop_front()?;
        let frame: DeviceFrame<'_> = match out {
            Out::Ping(nonce) => Ping { nonce }.into(),
            Out::Pong(nonce) => Pong { nonce }.into(),
            Out::Unsupported(number) => Unsupported { number }.into(),
            Out::Accept(accept) => accept.into(),
            Out::Defer(defer) => defer.into(),
            Out::Decline(decline) => decline.into(),
            Out::Progress(progress) => progress.into(),
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
        };
        frame.encode(buffer).ok()
    }
}
