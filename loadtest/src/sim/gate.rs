//! A gateway of one board: the real machines, and a record that survives a kill.

use super::fixture::Image;
use super::net::{Net, Way};
use super::store::Store;
use dialhome_device::crypto::SoftAead;
use dialhome_gateway::link::{Rejected, Responder};
use dialhome_proto::code::CloseCode;
use dialhome_proto::crc::crc32;
use dialhome_proto::frame::{
    ACK_NOW, Chunk, Close, DeviceFrame, FrameFault, GatewayFrame, NewKey, Offer, Pong, Resume,
    SetGateways, Settled, Unsupported, Welcome,
};
use dialhome_proto::gateway::{Command, Delivery, Fault, Session, State, Verdict};
use dialhome_proto::id::{Digest, UpdateId};
use dialhome_proto::limits::{BOARD_RECORD_MAX, HANDSHAKE_MS, RECORD_HEADER, TAG};
use dialhome_proto::link::quic::{PROOF_FLIGHT_LEN, Proofs, SUITE_QUIC_PROOF};
use dialhome_proto::link::{
    ACCEPTED, DeviceKey, FIRST_FLIGHT_LEN, PREAMBLE_LEN, Preamble, Records, Refusal,
    SUITE_NOISE_NN_PSK0, record_len,
};
use dialhome_proto::time::Millis;
use sha2::Digest as _;
use std::cell::RefCell;
use std::rc::Rc;

/// One connection at the gateway.
#[derive(Debug)]
struct Peer {
    conn: usize,
    bytes: Vec<u8>,
    opened: u64,
    key: Option<[u8; 32]>,
    session: Option<Session>,
    delivery: Option<Delivery>,
    /// The plaintext of Hello: a push may come later.
    hello: Vec<u8>,
    said_gateways: bool,
    closed: bool,
}

/// The process; dropped when it is killed.
#[derive(Debug)]
pub struct Gate {
    /// The network.
    net: Rc<RefCell<Net>>,
    /// What survives.
    store: Rc<RefCell<Store>>,
    images: Rc<Vec<Image>>,
    responder: Responder,
    peers: Vec<Peer>,
}

impl Gate {
    /// Starts from what the store holds.
    #[must_use]
    pub fn start(net: Rc<RefCell<Net>>, store: Rc<RefCell<Store>>, images: Rc<Vec<Image>>) -> Self {
        Self {
            net,
            store,
            images,
            responder: Responder::default(),
            peers: Vec::new(),
        }
    }

    /// Does what can be done now; false: nothing moved. Stops where the store is killed.
    pub fn poll(&mut self, now: Millis) -> bool {
        let mut moved = false;
        while let Some(conn) = { self.net.borrow_mut().accept() } {
            moved = true;
            self.peers.push(Peer {
                conn,
                bytes: Vec::new(),
                opened: now.0,
                key: None,
                session: None,
                delivery: None,
                hello: Vec::new(),
                said_gateways: false,
                closed: false,
            });
        }
        for place in 0..self.peers.len() {
            moved |= self.poll_peer(place, now);
            if self.store.borrow().is_killed() {
                return true;
            }
        }
        self.peers.retain(|peer| !peer.closed);
        moved
    }

    fn poll_peer(&mut self, place: usize, now: Millis) -> bool {
        let mut moved = false;
        let peer = &mut self.peers[place];
        if peer.closed {
            return false;
        }
        loop {
            let mut room = [0; 2048];
            let got = self.net.borrow_mut().receive(peer.conn, Way::Up, &mut room);
            match got {
                Some(0) => break,
                Some(len) => {
                    moved = true;
                    peer.bytes.extend_from_slice(&room[..len]);
                }
                None => {
                    // What arrived before the end still counts.
                    let _ = self.take_bytes(place, now);
                    self.peers[place].closed = true;
                    self.net
                        .borrow_mut()
                        .close(self.peers[place].conn, Way::Down);
                    return true;
                }
            }
        }
        let before = self.peers[place].bytes.len();
        let result = self
            .take_bytes(place, now)
            .and_then(|()| self.timeouts(place, now))
            .and_then(|()| self.commands(place, now));
        moved |= self.peers[place].bytes.len() != before;
        if let Err(Fault(code)) = result {
            moved = true;
            self.close(place, code);
        }
        moved
    }

    fn take_bytes(&mut self, place: usize, now: Millis) -> Result<(), Fault> {
        if self.peers[place].session.is_none() && !self.shake(place, now) {
            return Ok(());
        }
        loop {
            let peer = &mut self.peers[place];
            let Some(header) = peer.bytes.first_chunk::<RECORD_HEADER>().copied() else {
                return Ok(());
            };
            let Some(session) = &mut peer.session else {
                return Ok(());
            };
            let len = record_len(header, session.records.least(), BOARD_RECORD_MAX)
                .map_err(|fault| Fault(fault.close_code()))?;
            if peer.closed || peer.bytes.len() < RECORD_HEADER + len {
                return Ok(());
            }
            let mut record: Vec<u8> = peer.bytes.drain(..RECORD_HEADER + len).collect();
            let plaintext = session
                .records
                .open(&mut SoftAead, &mut record[RECORD_HEADER..])
                .map_err(|fault| Fault(fault.close_code()))?;
            match DeviceFrame::decode(plaintext) {
                Ok(frame) => self.handle(place, &frame, now)?,
                Err(FrameFault::Unknown(number)) => {
                    self.send(place, &Unsupported { number }.into())
                }
                Err(_) => return Err(Fault(CloseCode::BAD_FRAME)),
            }
            self.commands(place, now)?;
            if self.store.borrow().is_killed() {
                return Ok(());
            }
        }
    }

    /// The handshake; true once there is a session.
    fn shake(&mut self, place: usize, now: Millis) -> bool {
        let peer = &mut self.peers[place];
        let exporter = self.net.borrow().exporter(peer.conn);
        let flight_len = if exporter.is_some() {
            PROOF_FLIGHT_LEN
        } else {
            FIRST_FLIGHT_LEN
        };
        if peer.bytes.len() < flight_len {
            if now.0 >= peer.opened + HANDSHAKE_MS {
                peer.closed = true;
                self.net.borrow_mut().close(peer.conn, Way::Down);
            }
            return false;
        }
        let flight: Vec<u8> = peer.bytes.drain(..flight_len).collect();
        let (head, message) = flight
            .split_first_chunk::<PREAMBLE_LEN>()
            .expect("a flight begins with a preamble");
        let suite = exporter.map_or(SUITE_NOISE_NN_PSK0, |_| SUITE_QUIC_PROOF);
        let preamble = Preamble::decode_suite(head, suite).expect("the board's preamble is one");
        let key = self.store.borrow().key_of(preamble.handle);
        let device_key = key.map(DeviceKey::new);
        let accepted = match exporter {
            Some(exporter) => prove(device_key.as_ref(), &exporter, message),
            None => {
                let message = message.try_into().expect("the rest is message 1");
                let checked = self
                    .responder
                    .check(&preamble, message, device_key.as_ref());
                let accepted = checked.and_then(|checked| checked.reply());
                accepted.map(|accepted| (accepted.answer.to_vec(), Records::new(&accepted.keys)))
            }
        };
        let (answer, session) = match accepted {
            Ok((answer, records)) => (answer, Some(Session::new(records, now))),
            Err(rejected) => (Refusal::new(rejected.code(), 1).encode().to_vec(), None),
        };
        let refused = session.is_none();
        peer.session = session;
        peer.key = key;
        let conn = peer.conn;
        let mut net = self.net.borrow_mut();
        let _ = net.send(conn, Way::Down, &answer);
        if refused {
            net.close(conn, Way::Down);
            self.peers[place].closed = true;
            self.store.borrow_mut().refusals += 1;
        }
        !refused
    }

    fn handle(&mut self, place: usize, frame: &DeviceFrame<'_>, now: Millis) -> Result<(), Fault> {
        self.store
            .borrow_mut()
            .log(now.0, || format!("gate < {frame:?}"));
        let Some(session) = &mut self.peers[place].session else {
            return Ok(());
        };
        match session.handle_frame(frame, now)? {
            Verdict::Greet => self.greet(place, frame),
            Verdict::Pong(nonce) => self.send(place, &Pong { nonce }.into()),
            Verdict::Statement => self.statement(place, frame, now)?,
            Verdict::Deliver => {
                if let Some(delivery) = &mut self.peers[place].delivery {
                    delivery.handle_frame(frame, now)?;
                    if let DeviceFrame::Ack(ack) = frame {
                        let update = delivery.plan().update;
                        let before = delivery.plan().before(delivery.part());
                        if delivery.counters().committed == before + u64::from(ack.committed) {
                            let mut store = self.store.borrow_mut();
                            store.acked = Some((update, ack.committed));
                            store.acked_part = delivery.part();
                        }
                    }
                }
            }
            Verdict::Leave => {
                self.peers[place].closed = true;
                self.net
                    .borrow_mut()
                    .close(self.peers[place].conn, Way::Down);
            }
            Verdict::Ponged(_) | Verdict::Keep | Verdict::Log | Verdict::Ignore => {}
        }
        Ok(())
    }

    fn greet(&mut self, place: usize, frame: &DeviceFrame<'_>) {
        let DeviceFrame::Hello(hello) = frame else {
            return;
        };
        // The newest authenticated session wins.
        for other in 0..self.peers.len() {
            if other != place
                && !self.peers[other].closed
                && self.peers[other]
                    .session
                    .as_ref()
                    .is_some_and(Session::is_greeted)
            {
                self.close(other, CloseCode::SUPERSEDED);
            }
        }
        let key = self.peers[place].key;
        if !self.store.borrow_mut().authenticated(key) {
            return;
        }
        self.send(
            place,
            &Welcome {
                time_s: 0,
                ping_s: 0,
            }
            .into(),
        );
        // The list that the board dials counts, whether or not its statement arrives.
        if !self
            .store
            .borrow_mut()
            .gateways_stored(hello.gateways_epoch)
        {
            return;
        }
        let mut plaintext = vec![0; BOARD_RECORD_MAX];
        let len = frame.encode(&mut plaintext).expect("it came in a record");
        debug_assert!(!hello.components.is_empty(), "a consistent Hello has one");
        plaintext.truncate(len);
        self.peers[place].hello = plaintext;
    }

    /// Starts the delivery of the update that is next, where none is under way.
    fn begin(&mut self, place: usize) {
        let peer = &mut self.peers[place];
        if peer.delivery.is_some() {
            return;
        }
        let Ok(DeviceFrame::Hello(hello)) = DeviceFrame::decode(&peer.hello) else {
            return;
        };
        let store = self.store.borrow();
        peer.delivery = store.open_update(&hello.components).map(|update| {
            let mut delivery = Delivery::start(
                update.plan.clone(),
                &hello.components,
                hello.receive_buffer,
                update.counters,
                update.cancel,
            );
            if update.state == State::Trial {
                delivery.seen_on_trial();
            }
            delivery
        });
    }

    fn statement(
        &mut self,
        place: usize,
        frame: &DeviceFrame<'_>,
        now: Millis,
    ) -> Result<(), Fault> {
        match frame {
            DeviceFrame::Report(report) => {
                if report.sequence != 0 {
                    let mut store = self.store.borrow_mut();
                    store.named = Some(report.component);
                    report.detail.clone_into(&mut store.detail);
                }
                let delivery = &mut self.peers[place].delivery;
                if let Some(delivery) = delivery
                    .as_mut()
                    .filter(|delivery| delivery.plan().update == report.update)
                {
                    delivery.handle_frame(frame, now)?;
                    self.commands(place, now)?;
                } else if report.sequence != 0
                    && !self.store.borrow_mut().late_outcome(report, &self.images)
                {
                    return Ok(());
                }
                if report.sequence != 0 {
                    self.settle(place, report.sequence);
                }
            }
            DeviceFrame::KeyStored(stored) => {
                let key = self.peers[place].key;
                let is_in_force =
                    key.is_some_and(|key| DeviceKey::new(key).handle() == stored.handle);
                if is_in_force {
                    if self.store.borrow_mut().key_settled(key) {
                        self.settle(place, stored.sequence);
                    }
                } else if stored.sequence != 0 {
                    self.close(place, CloseCode::REKEY);
                }
            }
            DeviceFrame::GatewaysStored(stored) => {
                let stored_it =
                    stored.sequence != 0 && self.store.borrow_mut().gateways_stored(stored.epoch);
                if stored_it {
                    self.settle(place, stored.sequence);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn settle(&mut self, place: usize, sequence: u32) {
        if !self.store.borrow_mut().step() {
            return;
        }
        self.send(place, &Settled { sequence }.into());
    }

    fn timeouts(&mut self, place: usize, now: Millis) -> Result<(), Fault> {
        let peer = &mut self.peers[place];
        if let Some(delivery) = &mut peer.delivery {
            delivery.handle_timeout(now)?;
        }
        let in_transfer = peer
            .delivery
            .as_ref()
            .is_some_and(|delivery| delivery.deadline().is_some());
        match &mut peer.session {
            Some(session) if !peer.closed => session.handle_timeout(now, in_transfer),
            _ => Ok(()),
        }
    }

    /// Carries out the delivery's commands, and the operator's other wishes.
    fn commands(&mut self, place: usize, now: Millis) -> Result<(), Fault> {
        if self.peers[place].closed {
            return Ok(());
        }
        self.wishes(place);
        loop {
            self.begin(place);
            if self.store.borrow().is_killed() {
                return Ok(());
            }
            let peer = &mut self.peers[place];
            let Some(delivery) = &mut peer.delivery else {
                return Ok(());
            };
            let plan = delivery.plan().clone();
            {
                let store = self.store.borrow();
                delivery.hold(store.held, now);
                if store.is_canceled(&plan.update) {
                    delivery.cancel();
                }
            }
            let Some(command) = delivery.poll_command(now) else {
                return Ok(());
            };
            let counters = *delivery.counters();
            let mut store = self.store.borrow_mut();
            store.log(now.0, || format!("gate {command:?}"));
            store.seen(&plan.update, counters);
            if !store.step() {
                return Ok(());
            }
            let images = Rc::clone(&self.images);
            let part = plan.part(delivery.part()).expect("it is of the plan");
            let image = images
                .iter()
                .find(|image| image.manifest_digest == plan.manifest && image.sha256 == part.image)
                .expect("the image of a plan is there");
            drop(store);
            match command {
                Command::Record(record) => {
                    self.store
                        .borrow_mut()
                        .record(&plan.update, record, counters);
                    if let Some(delivery) = &mut self.peers[place].delivery {
                        delivery.recorded();
                        if delivery.has_ended() {
                            self.peers[place].delivery = None;
                        }
                    }
                }
                Command::SendOffer { part, flags } => {
                    let of = plan.part(part).expect("it is of the plan");
                    let offer = Offer {
                        update: plan.update,
                        group: 0,
                        order: part,
                        component: of.component,
                        flags,
                        encoding: 0,
                        base: None,
                        payload_size: of.size,
                        manifest: &image.manifest,
                    };
                    self.send(place, &offer.into());
                }
                Command::SendResume { part, flags } => {
                    let of = plan.part(part).expect("it is of the plan");
                    let resume = Resume {
                        update: plan.update,
                        group: 0,
                        order: part,
                        component: of.component,
                        flags,
                        encoding: 0,
                        base: None,
                        payload_size: of.size,
                        manifest: plan.manifest,
                    };
                    self.send(place, &resume.into());
                }
                Command::CheckPrefix { len, digest, .. } => {
                    let proven_len = len;
                    let len = usize::try_from(len).expect("fits");
                    let ours = Digest(sha2::Sha256::digest(&image.bytes[..len]).into());
                    let matches = ours == digest;
                    let mut store = self.store.borrow_mut();
                    store.prefixes.0 += u64::from(matches);
                    store.prefixes.1 += u64::from(!matches);
                    store.proven = matches;
                    store.proven_len = matches.then_some(proven_len).or(store.proven_len);
                    drop(store);
                    if let Some(delivery) = &mut self.peers[place].delivery {
                        delivery.handle_prefix(matches, now)?;
                    }
                }
                Command::SendChunk(range) => {
                    assert!(
                        self.store.borrow().proven,
                        "a chunk was sent before the prefix was proven"
                    );
                    let start = usize::try_from(range.offset).expect("fits");
                    let end = start + usize::try_from(range.len).expect("fits");
                    let bytes = &image.bytes[start..end];
                    let chunk = Chunk {
                        offset: range.offset,
                        crc: crc32(bytes),
                        flags: if range.ack_now { ACK_NOW } else { 0 },
                        bytes,
                    };
                    self.store.borrow_mut().chunks += 1;
                    self.send(place, &chunk.into());
                }
                Command::SendActivate(activate) => self.send(place, &activate.into()),
                Command::SendCancel(cancel) => self.send(place, &cancel.into()),
                Command::SendConfirm(confirm) => self.send(place, &confirm.into()),
            }
        }
    }

    /// A new key, a new list of gateways.
    fn wishes(&mut self, place: usize) {
        let peer = &mut self.peers[place];
        if peer.said_gateways || !peer.session.as_ref().is_some_and(Session::is_greeted) {
            return;
        }
        let (new_key, statement) = self.store.borrow_mut().wishes(peer.key);
        if let Some(statement) = statement {
            peer.said_gateways = true;
            self.send(
                place,
                &SetGateways {
                    statement: &statement,
                }
                .into(),
            );
        }
        if let Some(key) = new_key {
            self.peers[place].said_gateways = true;
            self.send(place, &NewKey { key }.into());
        }
    }

    fn send(&mut self, place: usize, frame: &GatewayFrame<'_>) {
        let peer = &mut self.peers[place];
        let Some(session) = &mut peer.session else {
            return;
        };
        if !session.is_greeted() {
            return;
        }
        let mut record = vec![0; 16 * 1024 + 64];
        let room = record.len() - TAG;
        let len = frame
            .encode(&mut record[RECORD_HEADER..room])
            .expect("a frame fits a record");
        assert!(
            len + TAG <= usize::from(session.receive_buffer()),
            "{} is longer than the board takes",
            frame.name()
        );
        let len = session
            .records
            .seal(&mut SoftAead, len, &mut record)
            .expect("a session has records left");
        let _ = self
            .net
            .borrow_mut()
            .send(peer.conn, Way::Down, &record[..len]);
    }

    fn close(&mut self, place: usize, code: CloseCode) {
        self.store.borrow_mut().closes.push(code);
        self.send(
            place,
            &Close {
                code,
                reconnect_after_s: 0,
            }
            .into(),
        );
        let peer = &mut self.peers[place];
        peer.closed = true;
        self.net.borrow_mut().close(peer.conn, Way::Down);
    }

    /// When it wants to be polled.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        let dues = self.peers.iter().flat_map(|peer| {
            let session = peer.session.as_ref().map(|session| session.deadline().0.0);
            let delivery = peer
                .delivery
                .as_ref()
                .and_then(Delivery::deadline)
                .map(|due| due.0);
            [session.or(Some(peer.opened + HANDSHAKE_MS)), delivery]
        });
        dues.flatten().min()
    }

    /// What each session's delivery waits for.
    #[must_use]
    pub fn waits(&self) -> String {
        let waits = self.peers.iter().map(|peer| {
            peer.delivery.as_ref().map_or_else(
                || "no delivery".to_owned(),
                |delivery| format!("{} ({:?})", delivery.stage_name(), delivery.awaits()),
            )
        });
        waits.collect::<Vec<_>>().join(", ")
    }
}

/// Whether an outcome is one that the board states.
#[must_use]
pub const fn is_boards(state: State) -> bool {
    matches!(
        state,
        State::Confirmed | State::Reverted | State::Failed | State::Canceled | State::Declined
    )
}

/// An update's id, from a number.
#[must_use]
pub fn update_id(number: u8) -> UpdateId {
    UpdateId([0xD1, 0, 0, 0, 0, 0, 0, number])
}

/// Both proofs over a connection that protects itself: the gateway's answer, and the records.
fn prove(
    key: Option<&DeviceKey>,
    exporter: &[u8; 32],
    said: &[u8],
) -> Result<(Vec<u8>, Records), Rejected> {
    let proofs = Proofs::new(key.ok_or(Rejected::WrongKey)?, exporter);
    let said = said.try_into().map_err(|_| Rejected::WrongKey)?;
    if !proofs.is_board(said) {
        return Err(Rejected::WrongKey);
    }
    let mut answer = vec![ACCEPTED];
    answer.extend_from_slice(proofs.gateway());
    Ok((answer, Records::plain()))
}
