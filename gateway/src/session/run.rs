//! One board's session, from its keys to its end. While nothing is under way it is
//! this struct and a wait; [`Busy`] holds what only work needs.

use super::board::{self, Board};
use super::buffers::Buffers;
use super::delivering::Delivering;
use super::place::Place;
use super::registry::Handle;
use super::socket::{Reason, Socket};
use super::texts::Awaiting;
use super::{BATCH_MAX, CLOSE_MS, Gateway, STALLED_MS, TURNS_MAX, clock};
use crate::link::LcAead;
use crate::store::{KeyRecord, StoreError, WhichKey};
use dialhome_proto::code::{ByeReason, CloseCode};
use dialhome_proto::frame::{
    Close, DeviceFrame, FrameFault, GatewayFrame, Hello, Pong, Unsupported, Welcome,
};
use dialhome_proto::gateway::{Fault, Session, Verdict};
use dialhome_proto::id;
use dialhome_proto::limits::{BOARD_RECORD_MAX, RECORD_HEADER, TAG};
use dialhome_proto::link::{DeviceKey, record_len};
use dialhome_proto::time::Millis;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Record numbers that are kept for a Close: more than one batch of chunks.
const RECORDS_KEPT: u64 = 4_096;

/// How a session ended, for the record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// The gateway closed it.
    Closed(CloseCode),
    /// The board said Bye.
    Left(ByeReason, u32),
    /// The connection broke.
    Lost,
}

/// What a session needs while bytes move.
#[derive(Debug, Default)]
pub(super) struct Busy {
    rx: Vec<u8>,
    pub(super) tx: Vec<u8>,
    tx_sent: usize,
    /// Since when written bytes stand still.
    stalled: Option<Millis>,
}

impl Busy {
    /// What waits to be written.
    fn unwritten(&self) -> &[u8] {
        self.tx.get(self.tx_sent..).unwrap_or(&[])
    }

    /// Room for one more record of a transfer: in a buffer from the pool, which does not double when it
    /// is full, but gets what it can ever hold: a batch that has left, one that waits and this record.
    pub(super) fn make_room(&mut self, buffers: &Buffers, record: usize) {
        if self.tx.capacity() < BATCH_MAX {
            buffers.exchange(&mut self.tx, record);
        }
        let len = self.tx.len();
        if self.tx.capacity() - len < record {
            let most = 2 * BATCH_MAX + record;
            self.tx.reserve_exact(most.saturating_sub(len).max(record));
        }
    }
}

/// What the board was told in this session, beside its update; and what it owes before anything.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Handle of the new key.
    pub(super) key: Option<id::Handle>,
    /// Epoch of the list of gateways.
    pub(super) gateways: u32,
    /// Its place among the connections that have not said Hello, until it has.
    pub(super) place: Option<Place>,
    /// What came of an output, until its Report does.
    pub(super) output: Option<Box<Awaiting>>,
}

/// A session under way.
pub(super) struct Running {
    pub(super) gateway: Arc<Gateway>,
    pub(super) key: Arc<KeyRecord>,
    pub(super) handle: Arc<Handle>,
    pub(super) session: Session,
    pub(super) board: Board,
    pub(super) delivering: Option<Box<Delivering>>,
    pub(super) busy: Option<Box<Busy>>,
    /// The session's key is the one in force, or has become it.
    pub(super) key_is_current: bool,
    /// Nothing was told yet in most sessions.
    pub(super) told: Option<Box<Told>>,
    pub(super) socket: Socket,
    recorded: bool,
}

impl Running {
    pub(super) fn new(
        gateway: Arc<Gateway>,
        socket: Socket,
        session: Session,
        key: Arc<KeyRecord>,
        handle: Arc<Handle>,
        place: Place,
    ) -> Self {
        let key_is_current = key.which == WhichKey::Current;
        Self {
            gateway,
            key,
            handle,
            session,
            board: Board::default(),
            delivering: None,
            busy: None,
            key_is_current,
            told: Some(Box::new(Told {
                place: Some(place),
                ..Told::default()
            })),
            socket,
            recorded: false,
        }
    }

    /// Serves the board until the session ends, and records how.
    ///
    /// It ends early, without an end, when the session is parked.
    pub(super) async fn run(mut self) {
        loop {
            if let Some(end) = self.serve().await {
                return Box::pin(self.finish(end)).await;
            }
            let gateway = Arc::clone(&self.gateway);
            let lane = gateway.lanes.of(self.socket.number().unwrap_or(0));
            match lane.parking.park(self) {
                Some(back) => self = back,
                None => return,
            }
        }
    }

    /// Serves the board while there is work; None when the session is idle.
    async fn serve(&mut self) -> Option<End> {
        let mut turns = 0;
        loop {
            match Box::pin(self.turn()).await {
                Err(end) => return Some(end),
                Ok(true) => {
                    turns += 1;
                    if turns >= TURNS_MAX {
                        turns = 0;
                        tokio::task::yield_now().await;
                    }
                    continue;
                }
                Ok(false) => turns = 0,
            }
            self.release_buffers();
            if self.is_idle() && self.socket.parks() {
                return None;
            }
            // A board whose answers pile up unread is not heard until it reads.
            let hearing = self.unwritten() < 2 * BATCH_MAX;
            let most = Duration::from_millis(self.deadline().since(clock()));
            let (socket, handle) = (&mut self.socket, &self.handle);
            let rest = self.busy.as_ref().map_or(&[][..], |busy| busy.unwritten());
            let something = poll_fn(|context| {
                if let Poll::Ready(ready) = socket.poll_ready(context, hearing, rest) {
                    return Poll::Ready(ready);
                }
                handle.poll_changed(context).map(|()| Ok(0))
            });
            let written = tokio::select! {
                written = something => written,
                () = tokio::time::sleep(most) => Ok(0),
            };
            match written {
                Ok(0) => {}
                Ok(len) => self.has_written(len),
                Err(_) => return Some(End::Lost),
            }
        }
    }

    /// Whether nothing is under way, and nothing is due soon.
    fn is_idle(&self) -> bool {
        self.session.is_greeted() && self.busy.is_none() && self.delivering.is_none()
    }

    /// Leaves the handle as the waker with itself; true where there is no need to wait.
    pub(super) fn leave_waker(&self) -> bool {
        let waker = Waker::from(Arc::clone(&self.handle));
        self.handle
            .poll_changed(&Context::from_waker(&waker))
            .is_ready()
    }

    /// Does what can be done now; true where something moved.
    async fn turn(&mut self) -> Result<bool, End> {
        let now = clock();
        if let Some(code) = self.handle.close_asked() {
            return Err(End::Closed(code));
        }
        if self.handle.take_woken() && self.session.is_greeted() {
            self.look_for_work().await?;
        }
        if self.session.is_greeted() && self.handle.take_asked() {
            self.ask_board()?;
        }
        if self.session.records.remaining() < RECORDS_KEPT {
            return Err(End::Closed(CloseCode::RECORD_LIMIT));
        }
        self.check_deadlines(now)?;
        let mut moved = self.write(now)?;
        // A board that does not read its answers is not heard either, until it does.
        if self.unwritten() < 2 * BATCH_MAX {
            moved |= self.read().await?;
        }
        moved |= self.deliver().await?;
        moved |= self.write(now)?;
        Ok(moved)
    }

    pub(super) fn deadline(&self) -> Millis {
        let (session, _) = self.session.deadline();
        let delivery = self
            .delivering
            .as_ref()
            .and_then(|delivering| delivering.delivery.deadline());
        let stalled = self
            .busy
            .as_ref()
            .and_then(|busy| busy.stalled)
            .map(|since| since.after(STALLED_MS));
        [Some(session), delivery, stalled]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(session)
    }

    fn check_deadlines(&mut self, now: Millis) -> Result<(), End> {
        let closed = |fault: Fault| End::Closed(fault.0);
        let mut in_transfer = false;
        if let Some(delivering) = &mut self.delivering {
            delivering.delivery.handle_timeout(now).map_err(closed)?;
            in_transfer = delivering.delivery.expects_answer();
        }
        if self
            .busy
            .as_ref()
            .and_then(|busy| busy.stalled)
            .is_some_and(|since| now.since(since) >= STALLED_MS)
        {
            return Err(End::Lost);
        }
        self.session
            .handle_timeout(now, in_transfer)
            .map_err(closed)
    }

    /// Reads what has arrived and handles each whole record.
    async fn read(&mut self) -> Result<bool, End> {
        let mut probe = [0_u8; 1];
        if self.busy.is_none() {
            // A look that costs no buffer; what was read is kept below.
            match self.socket.try_read(&mut probe) {
                Ok(0) => return Err(End::Lost),
                Ok(_) => self.busy_mut().rx.push(probe[0]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(_) => return Err(End::Lost),
            }
        }
        self.note_path();
        let mut rx = std::mem::take(&mut self.busy_mut().rx);
        rx.reserve(2 * (RECORD_HEADER + BOARD_RECORD_MAX));
        let read = self.socket.try_read_buf(&mut rx);
        let outcome = match read {
            Ok(0) => {
                // What came before the end still counts.
                self.handle_records(&mut rx).await.and(Err(End::Lost))
            }
            Ok(_) => self.handle_records(&mut rx).await.map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if rx.is_empty() {
                    Ok(false)
                } else {
                    let before = rx.len();
                    self.handle_records(&mut rx)
                        .await
                        .map(|()| rx.len() < before)
                }
            }
            Err(_) => Err(End::Lost),
        };
        if let Some(busy) = &mut self.busy {
            busy.rx = rx;
        }
        outcome
    }

    /// Over QUIC: counts what was lost, and says where the board goes on from another address.
    fn note_path(&self) {
        let (Some(known), Some((now, packets, bytes))) = (&self.handle.path, self.socket.path())
        else {
            return;
        };
        let totals = &self.gateway.registry.quic;
        if let Some(moved) = known.note(totals, now, packets, bytes) {
            let (before, times) = (moved.before, moved.times);
            tracing::info!(device = %self.key.device, %before, %now, times, "the board goes on from another address");
        }
    }

    async fn handle_records(&mut self, rx: &mut Vec<u8>) -> Result<(), End> {
        let mut at = 0;
        while let Some(header) = rx[at..].first_chunk::<RECORD_HEADER>() {
            let len = record_len(*header, self.session.records.least(), BOARD_RECORD_MAX)
                .map_err(|fault| End::Closed(fault.close_code()))?;
            let start = at + RECORD_HEADER;
            let Some(ciphertext) = rx.get_mut(start..start + len) else {
                break;
            };
            at = start + len;
            let plaintext = self.session.records.open(&mut LcAead, ciphertext);
            let plaintext = plaintext.map_err(|fault| End::Closed(fault.close_code()))?;
            self.gateway
                .store
                .air(&self.key.device, 0, (RECORD_HEADER + len) as u64);
            match DeviceFrame::decode(plaintext) {
                Ok(frame) => self.handle_frame(&frame).await?,
                Err(FrameFault::Unknown(number)) if self.session.is_greeted() => {
                    self.send(&Unsupported { number }.into())?;
                }
                Err(FrameFault::Unknown(_)) => {
                    return Err(End::Closed(CloseCode::FRAME_NOT_ALLOWED));
                }
                Err(_) => return Err(End::Closed(CloseCode::BAD_FRAME)),
            }
        }
        rx.drain(..at);
        Ok(())
    }

    async fn handle_frame(&mut self, frame: &DeviceFrame<'_>) -> Result<(), End> {
        let now = clock();
        let verdict = self
            .session
            .handle_frame(frame, now)
            .map_err(|fault| End::Closed(fault.0))?;
        self.handle.heard(self.session.ping_s());
        if let DeviceFrame::Unsupported(Unsupported { number }) = frame {
            self.heard_unsupported(*number);
            tracing::warn!(device = %self.key.device, number, "the board's firmware does not know a frame that it was sent");
        }
        match (verdict, frame) {
            (Verdict::Greet, DeviceFrame::Hello(hello)) => Box::pin(self.greet(hello)).await,
            (Verdict::Pong(nonce), _) => self.send(&Pong { nonce }.into()),
            (Verdict::Ponged(nonce), _) => {
                self.heard_pong(nonce);
                Ok(())
            }
            (Verdict::Deliver, frame) => {
                if let Some(delivering) = &mut self.delivering {
                    delivering
                        .delivery
                        .handle_frame(frame, now)
                        .map_err(|fault| End::Closed(fault.0))?;
                    self.note_progress();
                    self.deliver().await?;
                }
                Ok(())
            }
            (Verdict::Statement, frame) => Box::pin(self.handle_statement(frame)).await,
            (Verdict::Keep, DeviceFrame::Output(output)) => {
                self.keep_output(output);
                Ok(())
            }
            (Verdict::Log, DeviceFrame::LogPart(part)) => {
                self.heard_log(part);
                Ok(())
            }
            (Verdict::Leave, DeviceFrame::Bye(bye)) => Err(End::Left(bye.reason, bye.back_in_s)),
            _ => Ok(()),
        }
    }

    /// The first authenticated record: this session takes the device's place.
    async fn greet(&mut self, hello: &Hello<'_>) -> Result<(), End> {
        if let Some(told) = self.told.take()
            && let Some(place) = told.place
            && !place.spoke()
        {
            // It went for another while its Hello came: the task is about to be ended from outside.
            return Err(End::Lost);
        }
        let duplicate = self
            .gateway
            .registry
            .take_over(&self.key.device, &self.handle);
        if let Some(code) = self.handle.close_asked() {
            return Err(End::Closed(code));
        }
        if duplicate {
            tracing::warn!(device = %self.key.device, peer = %self.handle.peer, "duplicate identity: boards with one key take the session from each other");
        }
        let used = DeviceKey::new(self.key.key).handle();
        // Keys may have changed since the handshake: what counts is what they are now.
        let known = self.gateway.store.find_key(used);
        let Some(known) = known.filter(|known| known.device == self.key.device) else {
            return Err(End::Closed(CloseCode::REKEY));
        };
        if known.which == WhichKey::Pending {
            self.gateway
                .store
                .retire_old_key(&self.key.device, used)
                .await
                .map_err(|fault| self.store_failed(&fault))?;
        }
        self.key_is_current = true;
        let record = board::record(hello, self.handle.transport(), self.handle.peer_now(), used);
        self.gateway
            .store
            .hello(&self.key.device, self.handle.generation, record)
            .await
            .map_err(|fault| self.store_failed(&fault))?;
        self.recorded = true;
        self.board = Board::of(hello);
        let time_s = u64::try_from(crate::store::now().as_second()).unwrap_or(0);
        self.send(&Welcome { time_s, ping_s: 0 }.into())?;
        tracing::info!(device = %self.key.device, peer = %self.handle.peer_now(), transport = self.handle.transport(), "online");
        // What the board restates behind its Hello is heard before anything is offered.
        self.handle.tell();
        Ok(())
    }

    /// Why a session must end when the store refused or failed.
    pub(super) fn store_failed(&self, fault: &StoreError) -> End {
        match fault {
            StoreError::Fenced { .. } => End::Closed(CloseCode::SUPERSEDED),
            StoreError::NotFound { .. } => End::Closed(CloseCode::REMOVED),
            fault => {
                tracing::error!(device = %self.key.device, %fault, "the store did not take what a session had to record");
                End::Closed(CloseCode::INTERNAL)
            }
        }
    }

    /// Seals a frame behind what waits to be written.
    pub(super) fn send(&mut self, frame: &GatewayFrame<'_>) -> Result<(), End> {
        let busy = self.busy.get_or_insert_default();
        seal(&mut self.session, &mut busy.tx, frame)
    }

    pub(super) fn busy_mut(&mut self) -> &mut Busy {
        self.busy.get_or_insert_default()
    }

    /// Whether another chunk may be sealed before the last ones are written.
    pub(super) fn has_room(&self) -> bool {
        self.unwritten() < BATCH_MAX
    }

    /// Sealed bytes that wait to be written.
    fn unwritten(&self) -> usize {
        self.busy
            .as_ref()
            .map_or(0, |busy| busy.tx.len() - busy.tx_sent)
    }

    /// So much of what waits was written while the session waited for room.
    fn has_written(&mut self, len: usize) {
        if let Some(busy) = &mut self.busy {
            busy.tx_sent += len;
            busy.stalled = None;
        }
        self.gateway.store.air(&self.key.device, len as u64, 0);
    }

    /// Writes what waits, as far as the connection takes it; true where it took some.
    fn write(&mut self, now: Millis) -> Result<bool, End> {
        let Some(busy) = &mut self.busy else {
            return Ok(false);
        };
        let mut moved = false;
        while busy.tx_sent < busy.tx.len() {
            match self.socket.try_write(&busy.tx[busy.tx_sent..]) {
                Ok(0) => return Err(End::Lost),
                Ok(len) => {
                    busy.tx_sent += len;
                    busy.stalled = None;
                    moved = true;
                    self.gateway.store.air(&self.key.device, len as u64, 0);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    busy.stalled.get_or_insert(now);
                    if busy.tx_sent >= BATCH_MAX {
                        // What has left must not pile up behind a connection that never drains.
                        busy.tx.drain(..busy.tx_sent);
                        busy.tx_sent = 0;
                    }
                    return Ok(moved);
                }
                Err(_) => return Err(End::Lost),
            }
        }
        busy.tx.clear();
        busy.tx_sent = 0;
        busy.stalled = None;
        self.gateway.buffers.give_back(&mut busy.tx);
        Ok(moved)
    }

    /// Nothing moves: an idle session keeps no buffer.
    fn release_buffers(&mut self) {
        let quiet = self.delivering.is_none()
            && self
                .busy
                .as_ref()
                .is_some_and(|busy| busy.rx.is_empty() && busy.tx.is_empty());
        if quiet {
            self.busy = None;
        }
    }

    async fn finish(mut self, end: End) {
        self.handle.forget_waker();
        self.gateway
            .registry
            .turns
            .leave(self.handle.generation, clock());
        let reason = match end {
            End::Closed(code) if !self.close(code).await => Reason::Close(code),
            End::Closed(_) | End::Left(..) => Reason::Done,
            End::Lost => Reason::Close(CloseCode::LOST),
        };
        self.note_path();
        self.socket.hang_up(reason);
        if let Some(delivering) = self.delivering.take() {
            if delivering.got_on() {
                // A board that gets on may dial as often as its link breaks.
                self.key.dials.forget();
            }
            delivering.leave(&self.gateway, end).await;
        }
        let (reason, back_in_s) = match end {
            End::Closed(code) => (code.to_string(), 0),
            End::Left(reason, back_in_s) => (
                format!("bye_{reason}"),
                if reason == ByeReason::SLEEP {
                    back_in_s
                } else {
                    0
                },
            ),
            End::Lost => (CloseCode::LOST.to_string(), 0),
        };
        self.gateway
            .registry
            .leave(&self.key.device, &self.handle, back_in_s);
        // After it has left the table: who asks from here on finds no session.
        self.gateway
            .registry
            .inquiries
            .ended(&self.key.device, self.handle.generation, &reason);
        if !self.recorded {
            return;
        }
        if end == End::Closed(CloseCode::SUPERSEDED) {
            tracing::info!(device = %self.key.device, peer = %self.handle.peer_now(), %reason, "a newer session has taken this one's place");
        } else {
            tracing::info!(device = %self.key.device, %reason, "offline");
        }
        if let Err(fault) = self
            .gateway
            .store
            .disconnected(&self.key.device, self.handle.generation, &reason)
            .await
        {
            tracing::warn!(device = %self.key.device, %fault, "the end of a session was not recorded");
        }
    }

    /// Says Close, where the board can still be told; whether it has it.
    async fn close(&mut self, code: CloseCode) -> bool {
        let reconnect_after_s = match code {
            CloseCode::STOPPING => self.gateway.registry.back_after_s(),
            CloseCode::REMOVED => 3600,
            // A store that fails, fails for all of them.
            CloseCode::INTERNAL => rand::random_range(60..=120),
            _ => 0,
        };
        // Whole records only: a half-written one must be finished before the Close.
        let _ = self.send(
            &Close {
                code,
                reconnect_after_s,
            }
            .into(),
        );
        let Some(busy) = self.busy.take() else {
            return false;
        };
        let rest = &busy.tx[busy.tx_sent..];
        let most = Duration::from_millis(CLOSE_MS);
        let said = tokio::time::timeout(most, self.socket.say_last(rest)).await;
        matches!(said, Ok(Ok(())))
    }
}

/// Seals one frame at the end of `tx`.
pub(super) fn seal(
    session: &mut Session,
    tx: &mut Vec<u8>,
    frame: &GatewayFrame<'_>,
) -> Result<(), End> {
    let most = match frame {
        GatewayFrame::Chunk(chunk) => chunk.bytes.len() + 64,
        GatewayFrame::Offer(_) | GatewayFrame::SetGateways(_) => 1024,
        _ => 96,
    };
    let start = tx.len();
    tx.resize(start + RECORD_HEADER + most + TAG, 0);
    let plaintext = &mut tx[start + RECORD_HEADER..];
    let sealed = match frame.encode(plaintext) {
        Ok(len) => session
            .records
            .seal(&mut LcAead, len, &mut tx[start..])
            .map_err(|fault| fault.close_code()),
        Err(_) => Err(CloseCode::INTERNAL),
    };
    match sealed {
        Ok(len) => {
            tx.truncate(start + len);
            Ok(())
        }
        Err(code) => {
            tx.truncate(start);
            Err(End::Closed(code))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_of_a_transfer_never_has_room_for_more_than_two_batches_and_a_record() {
        let buffers = Buffers::default();
        for record in [600, 4_190, 16_470] {
            let mut busy = Busy::default();
            while busy.tx.len() < 2 * BATCH_MAX {
                busy.make_room(&buffers, record);
                busy.tx.resize(busy.tx.len() + record, 0);
            }
            let room = busy.tx.capacity();
            assert!(room <= 273 * 1024, "{room} bytes, {record} at a time");
        }
    }

    #[test]
    fn an_idle_session_is_a_value_of_224_bytes() {
        let size = size_of::<Running>();
        assert!(
            size <= 224,
            "a parked session has {size} bytes: what only work needs belongs into a box"
        );
    }
}
