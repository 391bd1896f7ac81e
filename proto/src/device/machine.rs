//! The machine itself: it routes; the steps are in the files beside this one.

use super::cells::{CELL_LEN, Cell, Cells};
use super::config::{
    COMPONENTS, ComponentConfig, Config, Facts, GATEWAY_LISTS, ROTATION, RunningImage, SEVERAL,
    TASK_LOG, TEXTS,
};
use super::dialing::{first_key, first_list};
use super::link::{Backoff, DialFault, GatewayList, KeyUse, LinkState};
use super::outbox::{Entry, Said};
use super::proof::Proof;
use super::receiving::Todo;
use super::stage::Stage;
use super::transmit::Out;
use super::work::{BootAction, Work};
use crate::code::{ByeReason, CloseCode, Reason, Refusal, SelfTest};
use crate::frame::{Bye, GatewayFrame, Pong};
use crate::id::UpdateId;
use crate::limits::{PING_TRANSFER_S, PONG_MS_MIN, STORE_AGAIN_MS, WELCOME_MS};
use crate::time::{Millis, round_up};
use heapless::{Deque, Vec};

/// Frames that may wait to be sent.
const OUT_MAX: usize = 6;
/// A record is taken only while so many places are free: none causes more frames.
const OUT_ROOM: usize = 3;

/// The update that the board is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Active {
    pub(super) update: UpdateId,
    pub(super) place: u8,
}

/// The board's machine.
///
/// The order is that of the declaration, for the sake of flash: an instruction of a
/// Cortex-M0 reaches a byte only within the first 32 of a structure and a word only within
/// the first 128. What is small, and used everywhere, comes first; what is large, last.
#[repr(C)]
pub struct Machine<'c> {
    pub(super) work: Option<Work>,
    pub(super) dirty: u16,
    /// Cells that the journal has refused, and when they are handed to it again.
    pub(super) failed: u16,
    pub(super) key: KeyUse,
    pub(super) list: GatewayList,
    pub(super) place: u8,
    /// Refused keys in a row; a session under the key in force ends the count.
    pub(super) refusals: u8,
    pub(super) restate: u8,
    pub(super) hello_due: bool,
    /// A gateways statement in the buffer waits for its check.
    pub(super) gateways_due: bool,
    pub(super) linked: bool,
    /// A dial failed in this boot although the link was up.
    pub(super) trial_heard_link: bool,
    /// The journal's identity cannot be read: images are refused.
    pub(super) identity_lost: bool,
    pub(super) self_test: SelfTest,
    pub(super) last_close: CloseCode,
    nonce: u8,
    /// Gateways before the statement that is being stored, and their epoch.
    pub(super) gateways_before: u8,
    pub(super) active: Option<Active>,
    pub(super) link: LinkState,
    pub(super) stage: Stage,
    /// End of what was written in this boot; the slot is erased beyond it.
    pub(super) clean_from: Option<u32>,
    pub(super) claimed: u32,
    pub(super) failed_dials: u32,
    pub(super) ping_s: u32,
    rtt_ms: u32,
    pub(super) gateways_epoch_before: u32,
    pub(super) statement: (u16, u16),
    store_again_at: Millis,
    /// Until the window opens: when Progress is due; from then on: when it opened, or the
    /// last chunk came; on trial: until when the time awake is counted.
    pub(super) stage_at: Millis,
    online_since: Millis,
    pub(super) sent_at: Millis,
    /// When the Ping that waits for its Pong was sent; never: none waits.
    ping_at: Millis,
    pub(super) backoff: Backoff,
    pub(super) out: Deque<Out, OUT_MAX>,
    pub(super) proof: Proof,
    pub(super) facts: Facts,
    pub(super) config: Config<'c>,
    pub(super) running: Vec<RunningImage, COMPONENTS>,
    pub(super) cells: Cells,
    #[cfg(feature = "texts")]
    pub(super) texts: super::texts::Texts,
}

// The board's memory rests on these (spec/limits.md); 32-bit boards need less.
const _: () = assert!(COMPONENTS > 1 || TEXTS || size_of::<Machine<'static>>() <= 1_720);
const _: () = assert!(COMPONENTS > 1 || size_of::<Cells>() <= 800);
const _: () = assert!(size_of::<Stage>() <= 88);
const _: () = assert!(size_of::<LinkState>() <= 16);
const _: () = assert!(size_of::<Out>() <= 12);
#[cfg(feature = "texts")]
const _: () = assert!(size_of::<super::texts::Texts>() <= 12);

impl<'c> Machine<'c> {
    /// Starts after a boot: `cells` from the journal (their `images` as long as the
    /// configuration's components), `running` what runs, in the same order; `seed`
    /// spreads the waits between dials.
    #[must_use]
    #[inline(never)]
    pub fn new(
        config: Config<'c>,
        mut cells: Cells,
        running: Vec<RunningImage, COMPONENTS>,
        seed: u64,
        now: Millis,
    ) -> Self {
        cells.make_room(config.components.len());
        let claimed = cells.claim.map_or(0, |claim| claim.committed);
        let list = first_list(&cells);
        let key = first_key(&cells);
        let mut machine = Self {
            config,
            cells,
            running,
            link: LinkState::Down { retry_at: now },
            stage: Stage::Idle,
            active: None,
            proof: Proof::new(),
            clean_from: None,
            claimed,
            self_test: SelfTest::NOT_RUN,
            failed: 0,
            store_again_at: Millis(0),
            gateways_before: 0,
            gateways_epoch_before: 0,
            stage_at: Millis(0),
            linked: false,
            trial_heard_link: false,
            ping_s: config.ping_s,
            facts: Facts::default(),
            backoff: Backoff::new(config.backoff_ms.0, config.backoff_ms.1, seed),
            statement: (0, 0),
            gateways_due: false,
            out: Deque::new(),
            dirty: 0,
            work: None,
            restate: 0,
            hello_due: false,
            list,
            place: 0,
            key,
            refusals: 0,
            identity_lost: false,
            failed_dials: 0,
            last_close: CloseCode::UNKNOWN,
            online_since: Millis(0),
            sent_at: Millis(0),
            ping_at: Millis::NEVER,
            nonce: 0,
            rtt_ms: 0,
            #[cfg(feature = "texts")]
            texts: super::texts::Texts::default(),
        };
        machine.resume_trial(now);
        if !(ROTATION && GATEWAY_LISTS) {
            machine.withdraw();
        }
        machine.state_pending_key();
        machine
    }

    /// What the journal holds, as the machine knows it.
    #[must_use]
    pub const fn cells(&self) -> &Cells {
        &self.cells
    }

    /// The journal holds keys, trust or floors that cannot be read: the board dials with
    /// what it has and refuses every update, until it is provisioned anew.
    pub const fn lose_identity(&mut self) {
        self.identity_lost = true;
    }

    /// Facts for the next Hello.
    pub const fn facts_mut(&mut self) -> &mut Facts {
        &mut self.facts
    }

    /// Where the link stands.
    #[must_use]
    pub const fn link_state(&self) -> &LinkState {
        &self.link
    }

    /// How the last session ended, as the next Hello says it.
    #[must_use]
    pub const fn last_close(&self) -> CloseCode {
        self.last_close
    }

    /// The name of the stage that the update is in, as spec/states.md has it.
    #[must_use]
    pub const fn stage_name(&self) -> &'static str {
        self.stage.name()
    }

    /// Whether an update is under way: from its Offer to its outcome.
    #[must_use]
    pub const fn is_updating(&self) -> bool {
        !matches!(self.stage, Stage::Idle)
    }

    /// The size that the running image of a component should have, where the journal
    /// knows it: for a board that hashes its slot and does not know where the image ends.
    #[must_use]
    pub fn known_size(cells: &Cells, place: usize) -> Option<u32> {
        cells
            .images
            .get(place)
            .map(|image| image.size)
            .filter(|size| *size > 0)
    }

    /// Writes a cell as the journal is to hold it and returns its length in bytes;
    /// `None`: the journal erases it. `plaintext` is the record that is still in the buffer.
    #[must_use]
    pub fn cell(
        &mut self,
        cell: Cell,
        plaintext: &[u8],
        out: &mut [u8; CELL_LEN],
    ) -> Option<usize> {
        if GATEWAY_LISTS && cell == Cell::Gateways {
            let (start, end) = (self.statement.0.into(), self.statement.1.into());
            let statement = plaintext.get(start..end)?;
            out.get_mut(..statement.len())?.copy_from_slice(statement);
            return Some(statement.len());
        }
        self.cells.encode(cell, out)
    }

    /// Whether the next record may be handed in.
    #[must_use]
    pub fn wants_record(&self) -> bool {
        matches!(self.link, LinkState::Greeting { .. } | LinkState::Online)
            && self.work.is_none()
            && self.dirty == 0
            && OUT_MAX - self.out.len() >= OUT_ROOM
            && !self.gateways_due
            && self.stage.is_idle_for_records()
    }

    /// Takes the plaintext of a record. It must stay in its buffer until
    /// [`Self::wants_record`] again: work that follows points into it.
    #[inline(never)]
    pub fn handle_record(&mut self, plaintext: &[u8], now: Millis) {
        if !matches!(self.link, LinkState::Greeting { .. } | LinkState::Online) {
            return;
        }
        match GatewayFrame::decode(plaintext) {
            Ok(frame) => self.handle_frame(&frame, plaintext.len(), now),
            Err(crate::frame::FrameFault::Unknown(number)) => self.send(Out::Unsupported(number)),
            Err(_) => self.leave(ByeReason::PROTOCOL_ERROR),
        }
    }

    fn handle_frame(&mut self, frame: &GatewayFrame<'_>, plaintext_len: usize, now: Millis) {
        match (self.link, frame) {
            (_, GatewayFrame::Close(close)) => {
                self.last_close = close.code;
                let wait = self
                    .backoff
                    .after_close(close.code, close.reconnect_after_s);
                self.leave_for(wait);
            }
            (LinkState::Greeting { .. }, GatewayFrame::Welcome(welcome)) => {
                self.link = LinkState::Online;
                self.linked = true;
                // From here on a trial that ends unconfirmed ends for want of an answer, not of a link.
                self.trial_heard_link = true;
                self.online_since = now;
                self.failed_dials = 0;
                if self.key != KeyUse::Provisioned {
                    self.refusals = 0;
                }
                self.advise_ping(welcome.ping_s);
            }
            (LinkState::Online, frame) => self.handle_online_frame(frame, plaintext_len, now),
            _ => self.leave(ByeReason::PROTOCOL_ERROR),
        }
    }

    fn handle_online_frame(&mut self, frame: &GatewayFrame<'_>, plaintext_len: usize, now: Millis) {
        match frame {
            GatewayFrame::Ping(ping) => self.send(Out::Pong(ping.nonce)),
            GatewayFrame::Pong(pong) => self.handle_pong(pong, now),
            GatewayFrame::Keepalive(advice) => self.advise_ping(advice.ping_s),
            GatewayFrame::Settled(settled) => self.handle_settled(settled.sequence),
            GatewayFrame::NewKey(_) if !ROTATION => self.send(Out::Unsupported(frame.number())),
            GatewayFrame::SetGateways(_) if !GATEWAY_LISTS => {
                self.send(Out::Unsupported(frame.number()));
            }
            GatewayFrame::ReadLog(_) if !TEXTS || self.config.tasks & TASK_LOG == 0 => {
                self.send(Out::Unsupported(frame.number()));
            }
            #[cfg(feature = "texts")]
            GatewayFrame::ReadLog(read) => self.read_log(*read),
            #[cfg(not(feature = "texts"))]
            GatewayFrame::ReadLog(_) => {}
            GatewayFrame::NewKey(new) => self.handle_new_key(new.key),
            GatewayFrame::SetGateways(set) => {
                let end = u16::try_from(plaintext_len).unwrap_or(u16::MAX);
                let len = u16::try_from(set.statement.len()).unwrap_or(end);
                self.statement = (end.saturating_sub(len), end);
                self.gateways_due = true;
            }
            GatewayFrame::Offer(offer) => self.handle_offer(offer, now),
            GatewayFrame::Resume(resume) => self.handle_resume(resume, now),
            GatewayFrame::Chunk(chunk) => self.handle_chunk(chunk, now),
            GatewayFrame::Activate(activate) => self.handle_activate(activate.update),
            GatewayFrame::Cancel(cancel) => self.handle_cancel(cancel.update),
            GatewayFrame::Confirm(confirm) => self.handle_confirm(confirm.update),
            GatewayFrame::Unsupported(_) => {}
            GatewayFrame::Welcome(_) | GatewayFrame::Close(_) => {
                self.leave(ByeReason::PROTOCOL_ERROR)
            }
        }
    }

    /// The next thing to do; `None` until something goes in or the clock reaches [`Self::deadline`].
    pub fn poll_work(&mut self, now: Millis) -> Option<Work> {
        if self.work.is_some() {
            return None;
        }
        self.work = self.next_work(now);
        self.work
    }

    #[inline(never)]
    fn next_work(&mut self, now: Millis) -> Option<Work> {
        if let Some(cell) = Cell::ALL
            .into_iter()
            .find(|cell| self.dirty & cell.bit() != 0)
        {
            return Some(Work::Store(cell));
        }
        match self.link {
            LinkState::Leaving { .. } if self.out.is_empty() => return Some(Work::HangUp),
            LinkState::Down { retry_at } if retry_at <= now && self.stage.may_dial() => {
                self.link = LinkState::Dialing;
                return Some(Work::Dial {
                    list: self.list,
                    place: self.place,
                    key: self.key,
                });
            }
            LinkState::Down { .. } | LinkState::Online | LinkState::Greeting { .. } => {}
            LinkState::Leaving { .. } | LinkState::Dialing => return None,
        }
        self.stage_work()
    }

    /// The component that the update is for.
    #[inline(never)]
    pub(super) fn active_config(&self) -> Option<&'c ComponentConfig> {
        self.config.components.get(usize::from(self.active?.place))
    }

    /// Its number; 0 without an update.
    pub(super) fn active_component(&self) -> u8 {
        self.active_config().map_or(0, |of| of.component)
    }

    fn stage_work(&self) -> Option<Work> {
        let is_down = matches!(self.link, LinkState::Down { .. });
        let component = self.active_component();
        if GATEWAY_LISTS && self.gateways_due {
            return Some(Work::CheckGateways);
        }
        match &self.stage {
            Stage::Checking { .. } => Some(Work::CheckManifest),
            Stage::Proving => {
                let claim = self.cells.claim?;
                let len = claim.committed.saturating_sub(self.proof.len);
                let len = len.min(super::offer::SLICE);
                Some(Work::Read {
                    component,
                    offset: self.proof.len,
                    len,
                })
            }
            Stage::Preparing { opened: false, .. } => Some(Work::Prepare {
                component,
                size: self.cells.image.as_ref()?.size,
            }),
            Stage::Preparing {
                erased,
                until,
                unit,
                ..
            } => {
                let len = (until - erased).min(round_up(super::offer::SLICE, *unit));
                Some(Work::Erase {
                    offset: *erased,
                    len,
                })
            }
            Stage::Receiving(receiving) => Some(match receiving.todo(self.proof.len)? {
                Todo::Write(span) => Work::Write {
                    offset: span.offset,
                    len: span.len,
                },
                Todo::ReadBack(span) | Todo::Hash(span) => Work::Read {
                    component,
                    offset: span.offset,
                    len: span.len,
                },
                Todo::Flush => Work::Flush,
                Todo::Erase(span) => Work::Erase {
                    offset: span.offset,
                    len: span.len,
                },
            }),
            Stage::Activating if is_down => Some(Work::Boot(BootAction::Activate)),
            Stage::Reverting if is_down => Some(Work::Boot(BootAction::Revert)),
            Stage::Restarting(why) if is_down => Some(Work::Boot(BootAction::Restart(*why))),
            Stage::Looking => Some(Work::Boot(BootAction::Look)),
            Stage::SelfTesting => Some(Work::Boot(BootAction::SelfTest)),
            Stage::Confirming => Some(Work::Boot(BootAction::Confirm)),
            _ => None,
        }
    }

    /// Answers [`Work::Dial`].
    pub fn dialed(&mut self, result: Result<(), DialFault>, now: Millis) {
        self.work = None;
        match result {
            // The trial ended while it dialed: what is next needs the link down.
            Ok(()) if !self.stage.may_dial() => self.leave_for(0),
            Ok(()) => {
                self.link = LinkState::Greeting {
                    due: now.after(WELCOME_MS),
                };
                self.hello_due = true;
                self.forget_verified();
                self.store_again();
                self.restate();
                self.ping_at = Millis::NEVER;
                self.sent_at = now;
                self.out.clear();
            }
            Err(fault) => {
                self.failed_dials = self.failed_dials.saturating_add(1);
                self.next_gateway();
                self.note_failed_dial(fault);
                let wait = match fault {
                    DialFault::Refused {
                        code,
                        retry_after_s,
                    } => {
                        // A gateway that is busy, or speaks otherwise, has not looked at the key.
                        if code == Refusal::REFUSED {
                            self.turn_key();
                        }
                        self.backoff.after_refusal(retry_after_s)
                    }
                    DialFault::WrongKey => {
                        self.turn_key();
                        self.backoff.next_ms()
                    }
                    DialFault::NoLink | DialFault::NoAnswer => self.backoff.next_ms(),
                };
                self.link = LinkState::Down {
                    retry_at: now.after(wait),
                };
            }
        }
    }

    /// The connection broke, or the other end closed it.
    pub fn link_lost(&mut self, now: Millis) {
        match self.link {
            LinkState::Leaving { retry_ms } => self.down(retry_ms, now),
            LinkState::Greeting { .. } | LinkState::Online => {
                let was_greeting = matches!(self.link, LinkState::Greeting { .. });
                self.last_close = CloseCode::LOST;
                if was_greeting {
                    self.failed_dials = self.failed_dials.saturating_add(1);
                    self.next_gateway();
                    self.note_failed_dial(DialFault::NoAnswer);
                }
                let wait = self.backoff.next_ms();
                self.down(wait, now);
            }
            LinkState::Down { .. } | LinkState::Dialing => {}
        }
    }

    /// Answers [`Work::HangUp`].
    pub fn hung_up(&mut self, now: Millis) {
        self.work = None;
        if let LinkState::Leaving { retry_ms } = self.link {
            self.down(retry_ms, now);
        }
    }

    fn down(&mut self, wait_ms: u64, now: Millis) {
        if matches!(self.work, Some(Work::HangUp)) {
            self.work = None;
        }
        // A session that held for a while, or moved an image, was no failure.
        if now.since(self.online_since) >= HELD_MS && self.linked {
            self.backoff.reset();
        }
        self.linked = false;
        self.key = first_key(&self.cells);
        self.link = LinkState::Down {
            retry_at: now.after(wait_ms),
        };
        self.out.clear();
        self.hello_due = false;
        self.gateways_due = false;
        #[cfg(feature = "texts")]
        self.forget_log();
        self.stop_transfer();
    }

    /// Ends the session with a Bye.
    pub fn leave(&mut self, reason: ByeReason) {
        if !matches!(self.link, LinkState::Greeting { .. } | LinkState::Online) {
            return;
        }
        let wait = if reason == ByeReason::RESTART {
            0
        } else {
            self.backoff.next_ms()
        };
        self.out.clear();
        self.hello_due = false;
        self.restate = u8::MAX;
        let back_in_s = crate::time::seconds(wait);
        self.send(Out::Bye(Bye { reason, back_in_s }));
        self.link = LinkState::Leaving { retry_ms: wait };
        self.stop_transfer();
    }

    fn leave_for(&mut self, retry_ms: u64) {
        self.out.clear();
        self.restate = u8::MAX;
        self.hello_due = false;
        self.link = LinkState::Leaving { retry_ms };
        self.stop_transfer();
    }

    /// Queues Bye(restart) behind what is already queued, and goes.
    pub(super) fn leave_to_restart(&mut self) {
        self.send(Out::Bye(Bye {
            reason: ByeReason::RESTART,
            back_in_s: 0,
        }));
        self.link = LinkState::Leaving { retry_ms: 0 };
    }

    /// When [`Self::handle_timeout`] wants to be called, or a dial is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Millis> {
        let mut due = match self.link {
            LinkState::Down { retry_at } if self.stage.may_dial() => retry_at,
            LinkState::Down { .. } | LinkState::Dialing | LinkState::Leaving { .. } => {
                Millis::NEVER
            }
            LinkState::Greeting { due } => due,
            LinkState::Online => self.ping_due(),
        };
        if self.failed != 0 {
            due = due.min(self.store_again_at);
        }
        due.min(self.stage_deadline())
            .min(self.trial_deadline())
            .some()
    }

    /// When a Pong is overdue, or the next Ping is due.
    fn ping_due(&self) -> Millis {
        match self.ping_at.some() {
            Some(at) => at.after(self.pong_ms()),
            None => self.sent_at.after(self.ping_ms()),
        }
    }

    /// Looks at the clock.
    #[inline(never)]
    pub fn handle_timeout(&mut self, now: Millis) {
        if self.store_again_at <= now {
            self.store_again();
        }
        match self.link {
            LinkState::Greeting { due } if due <= now => {
                self.last_close = CloseCode::NO_PONG;
                self.link_lost(now);
                return;
            }
            LinkState::Online if self.ping_due() <= now => {
                if self.ping_at != Millis::NEVER {
                    self.last_close = CloseCode::NO_PONG;
                    let wait = self.backoff.next_ms();
                    self.leave_for(wait);
                    return;
                }
                self.nonce = self.nonce.wrapping_add(1);
                self.ping_at = now;
                self.send(Out::Ping(self.nonce));
            }
            _ => {}
        }
        self.stage_timeout(now);
        self.trial_timeout(now);
    }

    fn handle_pong(&mut self, pong: &Pong, now: Millis) {
        if self.ping_at != Millis::NEVER && self.nonce == pong.nonce {
            self.rtt_ms = u32::try_from(now.since(self.ping_at)).unwrap_or(u32::MAX);
            self.ping_at = Millis::NEVER;
        }
    }

    fn ping_ms(&self) -> u64 {
        // A link that went silent under a statement would be noticed by nobody else.
        let waits = !self.cells.outbox.entries().is_empty();
        let seconds = if waits || self.is_updating() {
            self.ping_s.min(PING_TRANSFER_S)
        } else {
            self.ping_s
        };
        // Far above every interval, and below what 32 bits hold.
        u64::from(seconds.clamp(1, 4_000_000) * 1000)
    }

    fn pong_ms(&self) -> u64 {
        PONG_MS_MIN.max(4 * u64::from(self.rtt_ms))
    }

    fn advise_ping(&mut self, ping_s: u32) {
        if ping_s != 0 {
            self.ping_s = ping_s
                .min(*crate::limits::PING_S.end())
                .max(self.config.ping_s_min);
        }
    }

    /// Drops an entry of the outbox, without losing the place of what was stated already.
    pub(super) fn unstate(&mut self, sequence: u32) -> Option<Said> {
        let (place, said) = self.cells.outbox.settle(sequence)?;
        if place < usize::from(self.restate) && self.restate != u8::MAX {
            self.restate -= 1;
        }
        self.dirty(Cell::Outbox);
        Some(said)
    }

    /// Drops what an earlier image stated and this build does not do. The gateway would take
    /// a stated key for stored, and close each session for the board to dial with it.
    fn withdraw(&mut self) {
        let untrue = |entry: &&Entry| !entry.said.is_true_here();
        while let Some(entry) = self.cells.outbox.entries().iter().find(untrue) {
            let sequence = entry.sequence;
            self.unstate(sequence);
        }
    }

    pub(super) fn state_said(&mut self, said: Said, detail: &str) -> bool {
        // The newest outcome of an update, key and list of gateways is the one that counts.
        let old = self.cells.outbox.entries().iter().find(|entry| {
            core::mem::discriminant(&entry.said) == core::mem::discriminant(&said)
                && !matches!(said, Said::Outcome { .. })
        });
        if let Some(sequence) = old.map(|entry| entry.sequence) {
            self.unstate(sequence);
        }
        let pushed = self.cells.outbox.push(said, detail);
        self.dirty(Cell::Outbox);
        pushed
    }

    pub(super) fn restate(&mut self) {
        self.restate = 0;
        #[cfg(feature = "texts")]
        self.forget_outputs();
    }

    pub(super) fn send(&mut self, out: Out) {
        if matches!(out, Out::Progress | Out::Pong(_)) && self.out.len() > OUT_MAX - OUT_ROOM {
            return;
        }
        // `wants_record` keeps room for what a record can cause.
        let _ = self.out.push_back(out);
    }

    pub(super) const fn dirty(&mut self, cell: Cell) {
        // What failed goes along: an outcome must not come after the end of its trial.
        self.store_again();
        self.dirty |= cell.bit();
    }

    /// Hands the journal what it has refused before.
    const fn store_again(&mut self) {
        self.dirty |= self.failed;
        self.failed = 0;
    }

    /// Whether the journal does not hold what the outbox states.
    pub(super) const fn is_outbox_held(&self) -> bool {
        self.failed & !(Cell::Claim.bit() | ENTRY_BITS) != 0
    }

    /// Answers the works that name it.
    pub fn worked(&mut self, result: Result<(), Reason>, now: Millis) {
        match (self.work.take(), result) {
            (Some(Work::Store(cell)), Ok(())) => {
                self.dirty &= !cell.bit();
                self.stored(cell);
            }
            (Some(Work::Store(cell)), Err(_)) => {
                self.dirty &= !cell.bit();
                if !(GATEWAY_LISTS && cell == Cell::Gateways) {
                    self.failed |= cell.bit();
                }
                // What follows in the order waits for it; the steps of a trial do not.
                let waits = match cell {
                    Cell::Keys | Cell::Image(_) | Cell::Outbox => {
                        let end = Cell::Claim.bit() | Cell::Trial.bit() | ENTRY_BITS;
                        Cell::Outbox.bit() | if self.cells.trial.is_none() { end } else { 0 }
                    }
                    _ => 0,
                };
                self.failed |= self.dirty & waits;
                self.dirty &= !waits;
                self.store_again_at = now.after(STORE_AGAIN_MS);
                self.journal_failed(cell);
            }
            (Some(_), result) => self.slot_worked(result, now),
            (None, _) => {}
        }
    }

    fn stored(&mut self, cell: Cell) {
        if GATEWAY_LISTS && cell == Cell::Gateways {
            self.dial_anew();
        }
    }

    pub(super) fn take_work(&mut self) -> Option<Work> {
        self.work.take()
    }
}

/// A session that held so long was no failed dial, in milliseconds.
const HELD_MS: u64 = 5 * 60 * 1000;

/// The cells of entries, together.
const ENTRY_BITS: u16 = if SEVERAL { 0xF000 } else { 0 };

impl core::fmt::Debug for Machine<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Machine({:?}, {})", self.link, self.stage_name())
    }
}
