//! The client: the machine of `dialhome_proto::device`, driven over the porter's traits.
//!
//! [`Client::poll`] does whatever can be done now and returns when it wants to be
//! called again; it never waits. How the caller waits, in a blocking `poll(2)`, a
//! `wfi` or an async executor, is the caller's.

mod running;

use self::running::{ask, running};
use crate::boot::{Activation, Boot, BootError, Restart, Running};
use crate::crypto::{Ed25519, HandshakeFault, Initiator, SoftAead};
use crate::journal::Journal;
use crate::random::Random;
use crate::rng::Rng;
#[cfg(feature = "texts")]
use crate::saying::{Saying, next_part};
use crate::slot::{Slot, SlotError};
use crate::transport::Transport;
use dialhome_proto::clipped;
use dialhome_proto::code::{ByeReason, Reason, SelfTest};
use dialhome_proto::device::{
    BootAction, CELL_LEN, COMPONENTS, Cell, Cells, Config, DialFault, FRAME_MAX, GATEWAY_LISTS,
    GatewayList, KeyUse, Keys, LinkState, Machine, ROTATION, Work,
};
use dialhome_proto::limits::{BOARD_RECORD_MAX, HANDSHAKE_MS, NETWORK_MAX, RECORD_HEADER, TAG};
use dialhome_proto::link::{DeviceKey, FIRST_FLIGHT_LEN, Records, record_len};
use dialhome_proto::statement::GatewaysStatement;
use dialhome_proto::time::Millis;
use dialhome_proto::trust::TrustSet;
#[cfg(feature = "quic")]
use {
    crate::crypto::Prover,
    dialhome_proto::link::quic::{EXPORTER_LEN, PROOF_FLIGHT_LEN},
};

/// Longest record to the gateway, in bytes, with its length.
const SEND_LEN: usize = RECORD_HEADER + FRAME_MAX + TAG;
const _: () = assert!(FRAME_MAX + TAG <= BOARD_RECORD_MAX && FIRST_FLIGHT_LEN <= SEND_LEN);
/// Time for the last frames to leave before the connection is closed, in milliseconds.
const LEAVE_MS: u64 = 5_000;
/// Steps of one `poll`: a stream of records must not keep the caller from its own work.
const STEPS_MAX: usize = 256;

/// What the board was provisioned with.
#[derive(Clone, Copy, Debug)]
pub struct Provision<'p> {
    /// The key, unless the journal has a newer one.
    pub key: &'p DeviceKey,
    /// Gateways, `HOST:PORT`, unless the journal has a newer list.
    pub gateways: &'p [&'p str],
    /// Whom images are trusted from, unless the journal has a newer set; without one
    /// every update is refused.
    pub trust: Option<&'p TrustSet>,
    /// 32 random bytes from the machine that provisioned the board, different for each
    /// board; `None` where the system's own randomness makes them needless. Mixed into
    /// the board's randomness at every boot (spec/security.md section 7).
    pub seed: Option<&'p [u8; 32]>,
}

/// What the porter implements, together.
#[derive(Debug)]
pub struct Parts<T, S, J, B, R> {
    /// The way to the gateway.
    pub transport: T,
    /// Where images go.
    pub slot: S,
    /// What survives a power cut.
    pub journal: J,
    /// What runs, and what runs next.
    pub boot: B,
    /// Noise.
    pub rng: R,
}

/// What [`Client::poll`] wants next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wake {
    /// Call again at this time at the latest; `None`: only when the link says so.
    pub at: Option<Millis>,
    /// Call again when bytes have arrived.
    pub on_receive: bool,
    /// Call again when bytes can be sent.
    pub on_send: bool,
    /// `Boot::restart` was called and returned: drop the client, and start another.
    pub restarting: bool,
}

/// The connection's cryptography: a handshake under way, then the records' keys.
enum Session {
    None,
    Shaking(Initiator),
    /// The transport has shaken hands; both sides prove the device key.
    #[cfg(feature = "quic")]
    Proving(Prover),
    Open(Records),
}

/// The client of one board. `RX` is the receive buffer in bytes, record length
/// included: 2 more than what Hello declares.
///
/// In the order of the declaration, the small fields first, as in [`Machine`] and for the
/// same reason: less flash.
#[repr(C)]
pub struct Client<'c, T, S, J, B, R, const RX: usize> {
    restarting: bool,
    /// A dial failed, and whether the link was up; told to the machine with a clock read
    /// afresh.
    dial_failed: Option<bool>,
    rx_len: usize,
    tx_sent: usize,
    tx_len: usize,
    /// When the handshake must be done, or the last frames have left; never: neither is
    /// under way.
    due: Millis,
    key: &'c DeviceKey,
    gateways: &'c [&'c str],
    parts: Parts<T, S, J, B, R>,
    machine: Machine<'c>,
    random: Random,
    session: Session,
    /// Bytes of the record in the buffer that are not plaintext.
    #[cfg(feature = "quic")]
    overhead: usize,
    /// How far the output and the log are said that are due.
    #[cfg(feature = "texts")]
    saying: [Saying; 2],
    tx: [u8; SEND_LEN],
    rx: [u8; RX],
}

impl<'c, T, S, J, B, R, const RX: usize> Client<'c, T, S, J, B, R, RX>
where
    T: Transport,
    S: Slot,
    J: Journal,
    B: Boot,
    R: Rng,
{
    /// Starts after a boot: loads the journal, asks what runs, and decides about an
    /// image on trial. `config.receive_buffer` is taken from `RX`, and of
    /// `config.components` no more than [`COMPONENTS`] are.
    ///
    /// Cells that the journal cannot read count as empty: an image on its way starts over;
    /// and where keys, trust or floors are lost the board dials with its provisioned key
    /// and refuses every update.
    pub fn start(
        mut config: Config<'c>,
        provision: Provision<'c>,
        mut parts: Parts<T, S, J, B, R>,
        now: Millis,
    ) -> Self {
        config.components = config
            .components
            .get(..COMPONENTS)
            .unwrap_or(config.components);
        config.receive_buffer = u16::try_from(RX - RECORD_HEADER).unwrap_or(u16::MAX);
        config.gateways = u8::try_from(provision.gateways.len()).unwrap_or(u8::MAX);
        let mut cells = Cells {
            trust: provision.trust.cloned(),
            ..Cells::default()
        };
        cells.make_room(config.components.len());
        let mut buffer = [0; CELL_LEN];
        let mut identity_lost = false;
        for cell in Cell::ALL.into_iter().filter(|cell| cell.is_used()) {
            let loaded = match parts.journal.load(cell.number(), &mut buffer) {
                Ok(None) => true,
                Ok(Some(len)) => buffer
                    .get(..len)
                    .is_some_and(|bytes| cells.load(cell, bytes)),
                Err(_) => false,
            };
            let identity = matches!(
                cell,
                Cell::Keys | Cell::Trust | Cell::Gateways | Cell::Image(_)
            );
            // An image cell beyond the configuration's components is nobody's.
            let used = match cell {
                Cell::Image(place) => usize::from(place) < config.components.len(),
                _ => true,
            };
            identity_lost |= !loaded && identity && used;
        }
        let (running, restarting) = running(&mut parts.boot, config.components, &cells);
        let key = key_in_force(&cells, provision.key, KeyUse::Current);
        let (mut random, _) =
            Random::start(&mut parts.journal, &key, provision.seed, &mut parts.rng);
        let drawn = random.draw(&mut parts.rng);
        let seed = drawn
            .first_chunk::<8>()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let mut machine = Machine::new(config, cells, running, seed, now);
        if identity_lost {
            machine.lose_identity();
        }
        Self {
            machine,
            dial_failed: None,
            key: provision.key,
            gateways: provision.gateways,
            parts,
            random,
            session: Session::None,
            #[cfg(feature = "quic")]
            overhead: TAG,
            #[cfg(feature = "texts")]
            saying: [Saying::default(); 2],
            rx: [0; RX],
            rx_len: 0,
            tx: [0; SEND_LEN],
            tx_sent: 0,
            tx_len: 0,
            due: Millis::NEVER,
            restarting,
        }
    }

    /// The machine, to look at.
    pub const fn machine(&self) -> &Machine<'c> {
        &self.machine
    }

    /// The porter's parts.
    pub const fn parts(&mut self) -> &mut Parts<T, S, J, B, R> {
        &mut self.parts
    }

    /// Says Bye(stopping); call [`Self::poll`] until [`Self::has_left`].
    pub fn stop(&mut self) {
        self.machine.leave(ByeReason::STOPPING);
    }

    /// Whether there is no session, and so nothing left to say.
    pub const fn has_left(&self) -> bool {
        matches!(
            self.machine.link_state(),
            LinkState::Down { .. } | LinkState::Dialing
        )
    }

    /// Does what can be done now, and says when to call again.
    pub fn poll(&mut self, now: Millis) -> Wake {
        // The address of a client in static memory would become a constant in every function
        // below, which is longer than a pointer in a register.
        core::hint::black_box(self).poll_steps(now)
    }

    #[inline(never)]
    fn poll_steps(&mut self, now: Millis) -> Wake {
        let mut again = false;
        if self.restarting {
            return Wake {
                at: None,
                on_receive: false,
                on_send: false,
                restarting: true,
            };
        }
        for _ in 0..STEPS_MAX {
            let mut moved = self.shake(now);
            moved |= self.transmit(now);
            let (worked, took_time) = self.work(now);
            moved |= worked;
            moved |= self.receive(now);
            if let Some(due) = self.machine.deadline().filter(|due| *due <= now) {
                self.machine.handle_timeout(now);
                let is_down = matches!(self.machine.link_state(), LinkState::Down { .. });
                // Without a link it may have been a dial's time, which is no work of the clock's.
                moved |= !is_down || self.machine.deadline() != Some(due);
            }
            again = moved && !self.restarting;
            // After long work the deadlines count from a clock read afresh.
            if !again || took_time {
                break;
            }
        }
        let is_shaking = self.is_shaking();
        let linked = !matches!(self.session, Session::None);
        Wake {
            at: if again {
                Some(now)
            } else {
                let due = self.machine.deadline().unwrap_or(Millis::NEVER);
                due.min(self.due).some()
            },
            on_receive: linked && (is_shaking || self.machine.wants_record()),
            on_send: linked && self.tx_sent < self.tx_len,
            restarting: self.restarting,
        }
    }

    // The functions below are kept apart from each other: inlined into one, their buffers
    // would all lie on the stack while a signature is checked, 2 KB more at the deepest
    // place, and the code would be 3 KB longer.

    /// Carries out the machine's work, one piece a time; whether there was some, and
    /// whether it may have taken long.
    fn work(&mut self, now: Millis) -> (bool, bool) {
        let leaving = matches!(self.machine.link_state(), LinkState::Leaving { .. });
        if leaving && self.tx_sent < self.tx_len {
            // The last frames must leave first, but not for ever.
            self.due = self.due.min(now.after(LEAVE_MS));
            if now < self.due {
                return (false, false);
            }
            self.lose_link(now);
            return (true, false);
        }
        let Some(work) = self.machine.poll_work(now) else {
            return (false, false);
        };
        let long = matches!(work, Work::Dial { .. } | Work::Boot(_));
        match work {
            Work::Dial { list, place, key } => self.dial(list, place, key),
            Work::HangUp => {
                self.drop_link();
                self.machine.hung_up(now);
            }
            Work::CheckManifest => {
                let plaintext = plaintext(&self.rx, self.overhead());
                self.machine.check_manifest(plaintext, &mut Ed25519, now);
            }
            Work::CheckGateways if !GATEWAY_LISTS => {}
            Work::CheckGateways => {
                let plaintext = plaintext(&self.rx, self.overhead());
                self.machine.check_gateways(plaintext, &mut Ed25519);
            }
            Work::Store(cell) => {
                let result = self.store(cell);
                self.machine.worked(result, now);
            }
            Work::Boot(action) => self.boot(action, now),
            Work::Prepare { .. }
            | Work::Erase { .. }
            | Work::Write { .. }
            | Work::Read { .. }
            | Work::Flush => {
                let result = self.slot(work);
                // A read that fails in a proof ends nothing: the board begins at 0.
                if let (Err(fault), false) = (result, matches!(work, Work::Read { .. })) {
                    self.machine.note_detail(fault.text());
                }
                self.machine.worked(result.map_err(SlotError::reason), now);
            }
        }
        (true, long)
    }

    #[inline(never)]
    fn dial(&mut self, list: GatewayList, place: u8, key: KeyUse) {
        self.drop_link();
        let mut buffer = [0; CELL_LEN];
        let gateway = match list {
            GatewayList::Provisioned => self.gateways.get(usize::from(place)).copied(),
            GatewayList::Stored if !GATEWAY_LISTS => None,
            GatewayList::Stored => {
                let loaded = self
                    .parts
                    .journal
                    .load(Cell::Gateways.number(), &mut buffer);
                let bytes = loaded.ok().flatten().and_then(|len| buffer.get(..len));
                bytes
                    .and_then(|bytes| GatewaysStatement::parse(bytes).ok())
                    .and_then(|statement| statement.gateways().nth(usize::from(place)))
            }
        };
        let linked = gateway.is_some_and(|gateway| self.parts.transport.connect(gateway).is_ok());
        if !linked {
            self.dial_failed = Some(self.parts.transport.link_up());
            return;
        }
        // A modem knows its network only now.
        let facts = self.parts.transport.facts();
        let to = self.machine.facts_mut();
        to.link = facts.link;
        to.signal_dbm = facts.signal_dbm;
        to.network.clear();
        let _ = to.network.push_str(clipped(facts.network, NETWORK_MAX));
        let key = key_in_force(self.machine.cells(), self.key, key);
        // `connect` may have taken long: the time counts from the next look at the clock.
        self.due = Millis::NEVER;
        #[cfg(feature = "quic")]
        if let Some(exporter) = self.parts.transport.exporter(&key.handle()) {
            self.prove(&key, &exporter);
            return;
        }
        let ephemeral = self.random.draw(&mut self.parts.rng);
        let Some(flight) = self.tx.first_chunk_mut() else {
            return;
        };
        self.session = Session::Shaking(Initiator::start(&key, ephemeral, flight));
        self.tx_len = FIRST_FLIGHT_LEN;
    }

    #[cfg(feature = "quic")]
    fn prove(&mut self, key: &DeviceKey, exporter: &[u8; EXPORTER_LEN]) {
        if let Some(flight) = self.tx.first_chunk_mut() {
            self.session = Session::Proving(Prover::start(key, exporter, flight));
            self.tx_len = PROOF_FLIGHT_LEN;
        }
    }

    /// Bytes of the record in the buffer that are not plaintext.
    const fn overhead(&self) -> usize {
        #[cfg(feature = "quic")]
        return self.overhead;
        #[cfg(not(feature = "quic"))]
        TAG
    }

    const fn is_shaking(&self) -> bool {
        #[cfg(feature = "quic")]
        if matches!(self.session, Session::Proving(_)) {
            return true;
        }
        matches!(self.session, Session::Shaking(_))
    }

    /// How many more bytes of the gateway's answer must be read.
    fn missing(&self) -> usize {
        let answer = self.rx.get(..self.rx_len).unwrap_or(&[]);
        #[cfg(feature = "quic")]
        if matches!(self.session, Session::Proving(_)) {
            return Prover::needed(answer);
        }
        Initiator::needed(answer)
    }

    /// Goes on with the handshake, where one is under way.
    #[inline(never)]
    fn shake(&mut self, now: Millis) -> bool {
        if let Some(up) = self.dial_failed.take() {
            self.machine.dialed(Err(no_answer(up)), now);
            return true;
        }
        if !self.is_shaking() {
            return false;
        }
        if self.due == Millis::NEVER {
            self.due = now.after(HANDSHAKE_MS);
        }
        let mut moved = self.flush().is_err();
        let mut broken = moved;
        while !broken {
            let missing = self.missing();
            let rest = self.rx.get_mut(self.rx_len..);
            let Some(room) = rest
                .and_then(|rest| rest.get_mut(..missing))
                .filter(|room| !room.is_empty())
            else {
                break;
            };
            match self.parts.transport.receive(room) {
                Ok(0) => break,
                Ok(len) => {
                    self.rx_len += len;
                    moved = true;
                }
                Err(_) => broken = true,
            }
        }
        if self.rx_len > 0 && self.missing() == 0 {
            let answer = self.rx.get(..self.rx_len).unwrap_or(&[]);
            let session = core::mem::replace(&mut self.session, Session::None);
            self.due = Millis::NEVER;
            let records = match session {
                Session::Shaking(initiator) => {
                    initiator.finish(answer).map(|keys| Records::new(&keys))
                }
                #[cfg(feature = "quic")]
                Session::Proving(prover) => prover.finish(answer).map(|()| Records::plain()),
                _ => return moved,
            };
            let result = match records {
                Ok(records) => {
                    #[cfg(feature = "quic")]
                    {
                        self.overhead = records.overhead();
                        self.parts.transport.proven();
                    }
                    self.session = Session::Open(records);
                    Ok(())
                }
                Err(HandshakeFault::Refused(refusal)) => Err(DialFault::Refused {
                    code: refusal.code,
                    retry_after_s: refusal.retry_after_s,
                }),
                Err(HandshakeFault::BadTag) => Err(DialFault::WrongKey),
                Err(HandshakeFault::Malformed) => Err(DialFault::NoAnswer),
            };
            self.rx_len = 0;
            if result.is_err() {
                self.drop_link();
            }
            self.machine.dialed(result, now);
            return true;
        }
        if broken || self.due <= now {
            let up = self.parts.transport.link_up();
            self.drop_link();
            self.machine.dialed(Err(no_answer(up)), now);
            return true;
        }
        moved
    }

    /// Seals what the machine has to say, and sends it.
    #[inline(never)]
    fn transmit(&mut self, now: Millis) -> bool {
        if !matches!(self.session, Session::Open(_)) {
            return false;
        }
        let mut moved = false;
        loop {
            if self.flush().is_err() {
                self.lose_link(now);
                return true;
            }
            if self.tx_sent < self.tx_len {
                return moved;
            }
            let Session::Open(records) = &mut self.session else {
                return moved;
            };
            if records.remaining() < RECORDS_KEPT {
                // The numbers end soon: a new session starts new ones, and Bye still fits.
                self.machine.leave(ByeReason::MOVING);
            }
            let Some(room) = self.tx.get_mut(RECORD_HEADER..SEND_LEN - TAG) else {
                return moved;
            };
            #[cfg(feature = "texts")]
            let said = next_part(
                &mut self.machine,
                &mut self.parts.boot,
                &mut self.saying,
                room,
                now,
            );
            #[cfg(not(feature = "texts"))]
            let said = None;
            let Some(len) = said.or_else(|| self.machine.poll_transmit(room, now)) else {
                return moved;
            };
            match records.seal(&mut SoftAead, len, &mut self.tx) {
                Ok(len) => (self.tx_sent, self.tx_len) = (0, len),
                Err(_) => {
                    // The record limit: a new session starts new counters.
                    self.lose_link(now);
                    return true;
                }
            }
            moved = true;
        }
    }

    /// Hands the transport what it takes of the record under way.
    fn flush(&mut self) -> Result<(), T::Error> {
        while let Some(rest) = self
            .tx
            .get(self.tx_sent..self.tx_len)
            .filter(|rest| !rest.is_empty())
        {
            match self.parts.transport.send(rest)? {
                0 => break,
                len => self.tx_sent += len,
            }
        }
        Ok(())
    }

    /// Takes one record, if the machine wants one and it is there.
    #[inline(never)]
    fn receive(&mut self, now: Millis) -> bool {
        let Session::Open(records) = &mut self.session else {
            return false;
        };
        if !self.machine.wants_record() {
            return false;
        }
        let mut want = RECORD_HEADER;
        loop {
            if let Some(header) = self
                .rx
                .first_chunk::<RECORD_HEADER>()
                .filter(|_| self.rx_len >= RECORD_HEADER)
            {
                match record_len(*header, records.least(), RX - RECORD_HEADER) {
                    Ok(len) => want = RECORD_HEADER + len,
                    Err(_) => {
                        self.rx_len = 0;
                        self.machine.leave(ByeReason::PROTOCOL_ERROR);
                        return true;
                    }
                }
            }
            if self.rx_len == want && want > RECORD_HEADER {
                break;
            }
            let Some(room) = self.rx.get_mut(self.rx_len..want) else {
                return false;
            };
            match self.parts.transport.receive(room) {
                Ok(0) => return false,
                Ok(len) => self.rx_len += len,
                Err(_) => {
                    self.lose_link(now);
                    return true;
                }
            }
        }
        self.rx_len = 0;
        let Some(ciphertext) = self.rx.get_mut(RECORD_HEADER..want) else {
            return false;
        };
        match records.open(&mut SoftAead, ciphertext) {
            Ok(plaintext) => {
                self.machine.handle_record(plaintext, now);
            }
            Err(_) => self.machine.leave(ByeReason::PROTOCOL_ERROR),
        }
        true
    }

    #[inline(never)]
    fn store(&mut self, cell: Cell) -> Result<(), Reason> {
        let mut buffer = [0; CELL_LEN];
        let plaintext = plaintext(&self.rx, self.overhead());
        let result = match self.machine.cell(cell, plaintext, &mut buffer) {
            Some(len) => self
                .parts
                .journal
                .store(cell.number(), buffer.get(..len).unwrap_or(&[])),
            None => self.parts.journal.erase(cell.number()),
        };
        result.map_err(crate::journal::JournalError::reason)
    }

    #[inline(never)]
    fn slot(&mut self, work: Work) -> Result<(), SlotError> {
        let overhead = self.overhead();
        let slot = &mut self.parts.slot;
        match work {
            Work::Prepare { component, size } => {
                slot.select(component)?;
                slot.prepare(size)
            }
            Work::Erase { offset, len } => slot.erase(offset, len),
            Work::Write { offset, len } => {
                let plaintext = plaintext(&self.rx, overhead);
                let start = plaintext
                    .len()
                    .saturating_sub(usize::try_from(len).unwrap_or(usize::MAX));
                slot.write(offset, plaintext.get(start..).unwrap_or(&[]))
            }
            Work::Read {
                component,
                offset,
                len,
            } => {
                slot.select(component)?;
                let mut piece = [0_u8; READ_LEN];
                let mut done = 0;
                while done < len {
                    let most = usize::try_from(len - done)
                        .unwrap_or(READ_LEN)
                        .min(READ_LEN);
                    let Some(room) = piece.get_mut(..most) else {
                        break;
                    };
                    slot.read(offset + done, room)?;
                    self.machine.read_back(room);
                    done += u32::try_from(most).unwrap_or(len);
                }
                Ok(())
            }
            Work::Flush => slot.flush(),
            _ => Ok(()),
        }
    }

    #[inline(never)]
    fn boot(&mut self, action: BootAction, now: Millis) {
        let Some((image, trial)) = self.machine.cells().tried() else {
            self.machine.booted(Err(Reason::NOT_STAGED), "", now);
            return;
        };
        let update = trial.update;
        let component = self.machine.boot_component(image);
        let boot = &mut self.parts.boot;
        let result = match action {
            BootAction::Activate => boot.activate(&Activation {
                update: trial.update,
                component,
                digest: image.sha256,
                size: image.size,
                version: &image.version,
                trial_boots: self.machine.cells().trial_boots(image),
            }),
            BootAction::Confirm => boot.confirm(component).map(|()| Restart::NotNeeded),
            BootAction::Revert => boot.revert(component),
            BootAction::SelfTest => {
                let verdict = boot.self_test(component);
                let detail = if verdict == SelfTest::FAILED {
                    boot.keep_output(&update);
                    boot.detail()
                } else {
                    ""
                };
                self.machine.self_tested(verdict, detail, now);
                return;
            }
            BootAction::Restart(why) => {
                self.restarting = boot.restart(why).is_ok();
                if self.restarting {
                    return;
                }
                Err(BootError::Storage)
            }
            BootAction::Look => {
                let mut found = Running::UNKNOWN;
                ask(boot, component, Some(image.size), &mut found);
                self.machine.looked(found, now);
                return;
            }
        };
        // A boot side that had gone back by itself says why.
        if action == BootAction::Revert
            && result.is_ok()
            && !boot.detail().is_empty()
            && !self.machine.names_component()
        {
            self.machine.note_detail(boot.detail());
        }
        let result = result
            .map(|restart| restart == Restart::Needed)
            .map_err(BootError::reason);
        let detail = if result.is_err() {
            self.parts.boot.keep_output(&update);
            self.parts.boot.detail()
        } else {
            ""
        };
        self.machine.booted(result, detail, now);
    }

    fn lose_link(&mut self, now: Millis) {
        self.drop_link();
        self.machine.link_lost(now);
    }

    fn drop_link(&mut self) {
        self.parts.transport.close();
        self.session = Session::None;
        self.due = Millis::NEVER;
        (self.rx_len, self.tx_sent, self.tx_len) = (0, 0, 0);
        #[cfg(feature = "texts")]
        {
            self.saying = [Saying::default(); 2];
        }
    }
}

/// Record numbers that are kept for a Bye.
const RECORDS_KEPT: u64 = 64;
/// Bytes of one read from the slot.
const READ_LEN: usize = if cfg!(feature = "agent") {
    16 * 1024
} else {
    256
};

/// What a dial without an answer means.
const fn no_answer(link_up: bool) -> DialFault {
    if link_up {
        DialFault::NoAnswer
    } else {
        DialFault::NoLink
    }
}

/// The plaintext that work points into: its header stays until the next record comes.
fn plaintext(rx: &[u8], overhead: usize) -> &[u8] {
    let len = rx.first_chunk().map_or(0, |header| {
        usize::from(u16::from_be_bytes(*header)).saturating_sub(overhead)
    });
    rx.get(RECORD_HEADER..RECORD_HEADER + len).unwrap_or(&[])
}

fn key_in_force(cells: &Cells, provisioned: &DeviceKey, which: KeyUse) -> DeviceKey {
    let Keys { current, pending } = &cells.keys;
    let stored = match which {
        KeyUse::Pending => pending.as_ref().or(current.as_ref()),
        KeyUse::Current => current.as_ref(),
        KeyUse::Provisioned => None,
    };
    let stored = stored.filter(|_| ROTATION);
    DeviceKey::new(*stored.unwrap_or(provisioned.bytes()))
}
