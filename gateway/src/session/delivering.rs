//! Carrying out a delivery's commands (spec/protocol.md section 8).

use super::place::network_of;
use super::rates::Funds;
use super::run::{End, Running, seal};
use super::turns::Turn;
use super::{Gateway, clock};
use crate::image::piece::Piece;
use crate::image::source;
use crate::image::store::{Image, PIECE};
use crate::store::{Change, Counters, OpenUpdate, State, StoreError};
use dialhome_proto::code::{CloseCode, Reason, Statement};
use dialhome_proto::frame::{ACK_NOW, Cancel, Chunk, NewKey, Offer, Report, Resume, SetGateways};
use dialhome_proto::gateway::{
    Awaits, ChunkRange, Command, Delivery, Part, Plan, Record, Standing,
};
use dialhome_proto::id::{Digest, UpdateId};
use dialhome_proto::limits::{CHUNK_COST, RECORD_HEADER, TAG};
use dialhome_proto::link::DeviceKey;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A delivery under way, with what only it needs.
#[derive(Debug)]
pub(super) struct Delivering {
    pub(super) delivery: Delivery,
    pub(super) update: UpdateId,
    open: OpenUpdate,
    /// The images of the plan's parts, in its order.
    images: Vec<Arc<Image>>,
    /// Sessions that took part, this one included.
    sessions: u32,
    /// This session's Hello states every image as the one that runs, on trial.
    well: bool,
    /// What a Report said beside its state, until it is recorded.
    pub(super) stated: Option<String>,
    paused: bool,
    /// The piece of an image that chunks are taken from: which part's it is, and its number.
    piece: Option<((u8, u32), Arc<Piece>)>,
    /// A chunk that lies in two pieces.
    across: Vec<u8>,
    /// Its place among the transfers that run, and what it may send where rates are limited.
    turn: Option<Turn>,
    /// It stands in the queue for a place.
    queued: bool,
    funds: Option<Funds>,
}

/// Bytes of a chunk on the wire, as a record.
const fn cost(payload: u32) -> u64 {
    payload as u64 + CHUNK_COST as u64 + RECORD_HEADER as u64
}

impl Running {
    /// Looks at what there is to do for the device, after a change or a greeting.
    pub(super) async fn look_for_work(&mut self) -> Result<(), End> {
        self.gateway
            .registry
            .unreadable
            .forget(&self.key.device, &self.handle);
        let work = self.gateway.store.work(&self.key.device);
        if work.pending_key && self.key_is_current {
            let pending = self
                .gateway
                .store
                .pending_key(&self.key.device)
                .await
                .map_err(|fault| self.store_failed(&fault))?;
            if let Some(key) = pending {
                let handle = DeviceKey::new(*key).handle();
                let told = self.told.get_or_insert_default();
                if told.key.replace(handle) != Some(handle) {
                    self.send(&NewKey { key: *key }.into())?;
                }
            }
        }
        if work.gateways {
            let statement = self
                .gateway
                .store
                .gateways_statement(&self.key.device)
                .await;
            if let Some(statement) = statement.map_err(|fault| self.store_failed(&fault))?
                && std::mem::replace(
                    &mut self.told.get_or_insert_default().gateways,
                    statement.epoch,
                ) != statement.epoch
            {
                self.send(
                    &SetGateways {
                        statement: &statement.bytes,
                    }
                    .into(),
                )?;
            }
        }
        if self.delivering.is_none() && !work.update {
            self.leave_turns();
            return Ok(());
        }
        let open = self
            .gateway
            .store
            .open_update(&self.key.device)
            .await
            .map_err(|fault| self.store_failed(&fault))?;
        let Some(open) = open else {
            // Abandoned meanwhile: nothing more is sent for it.
            self.leave_turns();
            return self.give_up_delivery();
        };
        if self
            .delivering
            .as_ref()
            .is_some_and(|delivering| delivering.update != open.intent.id())
        {
            self.give_up_delivery()?;
        }
        if self.delivering.is_none() {
            self.start_delivery(open, work.held).await?;
        } else if let Some(delivering) = &mut self.delivering {
            if open.intent.cancel_requested.is_some() {
                delivering.delivery.cancel();
            }
            // The same push again may have raised the limit on bytes.
            delivering.paused = open.state.paused;
            delivering.open.intent = open.intent;
        }
        if let Some(delivering) = &mut self.delivering {
            delivering.delivery.hold(work.held, clock());
            delivering.delivery.pause(delivering.paused, clock());
        }
        self.deliver().await.map(drop)
    }

    async fn start_delivery(&mut self, open: OpenUpdate, held: bool) -> Result<(), End> {
        let update = open.intent.id();
        let Some(plan) = plan(&open) else {
            return Err(End::Closed(CloseCode::INTERNAL));
        };
        let components = self.board.components();
        let standing = Standing::of(&plan, &components);
        if standing == Standing::Missing {
            let mut change =
                Change::to(State::Declined).because(Reason::WRONG_COMPONENT.to_string());
            let missing = plan.parts.iter().find(|part| {
                let number = part.component;
                components.iter().all(|known| known.component != number)
            });
            if let Some(part) = missing.filter(|_| plan.parts.len() > 1) {
                let number = part.component;
                change.detail = Some(format!("the board has no component {number}"));
            }
            return self.record(update, change).await;
        }
        let known = open.state.counters;
        let cancel = open.intent.cancel_requested.is_some();
        let sends = matches!(standing, Standing::Claims | Standing::Unknown);
        let mut turn = None;
        if sends && !cancel {
            // Until its turn it is a device's number in a queue, and the session is idle.
            if held {
                self.leave_turns();
                return Ok(());
            }
            turn = self.ask_for_turn(known.sent > 0);
            if turn.is_none() {
                return Ok(());
            }
        } else {
            self.leave_turns();
        }
        let Some(images) = self.images_of(&plan, &open).await? else {
            return Ok(());
        };
        let mut delivery = Delivery::start(
            plan,
            &components,
            self.session.receive_buffer(),
            known.counted(),
            cancel,
        );
        if open.state.seen {
            delivery.seen_on_trial();
        }
        // Recorded when the board's bytes had been looked at: what it had before is in the counters.
        if [State::Preparing, State::Transferring].contains(&open.state.state) {
            delivery.had_begun(known.place);
        }
        self.gateway
            .registry
            .transfers
            .fetch_add(1, Ordering::Relaxed);
        self.delivering = Some(Box::new(Delivering {
            delivery,
            update,
            images,
            sessions: known.sessions + 1,
            well: standing == Standing::Well,
            stated: None,
            paused: open.state.paused,
            piece: None,
            across: Vec::new(),
            turn,
            queued: false,
            funds: self.gateway.registry.rates.funds(
                &self.handle,
                network_of(self.handle.peer.ip()),
                clock(),
            ),
            open,
        }));
        Ok(())
    }

    /// The images of the plan's parts, in its order. None where one cannot be read: then an operator
    /// sees it, and the session looks again when an image was added.
    async fn images_of(
        &self,
        plan: &Plan,
        open: &OpenUpdate,
    ) -> Result<Option<Vec<Arc<Image>>>, End> {
        let mut images = Vec::with_capacity(plan.parts.len());
        let mut told = false;
        while let Some(part) = plan.parts.get(images.len()) {
            let error = match self.image_of(*part).await? {
                Ok(image) => {
                    images.push(image);
                    continue;
                }
                Err(error) => error,
            };
            if told {
                tracing::error!(update = %plan.update, %error, "the image of an update cannot be read; add it again");
                return Ok(None);
            }
            // Told first, and looked at once more then: an image that is added meanwhile either is
            // there now or finds that this session waits for it.
            told = true;
            let why = crate::admin::unreadable(&open.intent.image, &error);
            let unreadable = &self.gateway.registry.unreadable;
            unreadable.note(&self.key.device, &self.handle, why);
        }
        if told {
            let unreadable = &self.gateway.registry.unreadable;
            unreadable.forget(&self.key.device, &self.handle);
        }
        Ok(Some(images))
    }

    async fn image_of(&self, part: Part) -> Result<io::Result<Arc<Image>>, End> {
        let store = Arc::clone(&self.gateway.images);
        let image = match store.get_open(&part.image) {
            Some(image) => Ok(image),
            None => tokio::task::spawn_blocking(move || store.get(&part.image))
                .await
                .map_err(|_| End::Closed(CloseCode::INTERNAL))?,
        };
        Ok(image.and_then(|image| {
            if image.size() == part.size {
                return Ok(image);
            }
            let (has, wanted) = (image.size(), part.size);
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("its file has {has} bytes, and it has {wanted}"),
            ))
        }))
    }

    fn ask_for_turn(&self, goes_on: bool) -> Option<Turn> {
        let network = network_of(self.handle.peer.ip());
        let turns = &self.gateway.registry.turns;
        turns.ask(&self.handle, network, goes_on, clock())
    }

    fn leave_turns(&self) {
        let turns = &self.gateway.registry.turns;
        turns.leave(self.handle.generation, clock());
    }

    /// Takes a place and a share of the rate where the delivery is about to send, and gives
    /// the place back where it waits for the board or the operator.
    fn take_turn(&mut self) {
        let Some(delivering) = &self.delivering else {
            return;
        };
        if !delivering.delivery.wants_place() {
            if delivering.queued {
                self.leave_turns();
            }
            if let Some(delivering) = &mut self.delivering {
                delivering.turn = None;
                delivering.queued = false;
                delivering.delivery.wait(false, clock());
            }
            return;
        }
        let asked = match &delivering.turn {
            // A board whose window is open does not wait for long.
            None => self.ask_for_turn(delivering.delivery.next_chunk() > 0),
            Some(_) => None,
        };
        let Some(delivering) = &mut self.delivering else {
            return;
        };
        if asked.is_some() {
            delivering.turn = asked;
        }
        let mut waits = delivering.turn.is_none();
        delivering.queued = waits;
        let next = delivering.delivery.next_chunk();
        if let (Some(funds), Some(turn)) = (&delivering.funds, &delivering.turn)
            && next > 0
            && !funds.cover(cost(next))
        {
            turn.kept();
            waits = true;
        }
        delivering.delivery.wait(waits, clock());
    }

    /// Lets a delivery go that the operator has ended in the record, and tells the board.
    fn give_up_delivery(&mut self) -> Result<(), End> {
        let Some(update) = self.delivering.as_ref().map(|delivering| delivering.update) else {
            return Ok(());
        };
        self.drop_delivery();
        self.send(&Cancel { update }.into())
    }

    fn drop_delivery(&mut self) {
        if self.delivering.take().is_some() {
            self.leave_turns();
            self.gateway
                .registry
                .transfers
                .fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Carries out what the delivery asks for; true where something was done.
    pub(super) async fn deliver(&mut self) -> Result<bool, End> {
        let mut moved = false;
        while self.has_room() || self.must_record() {
            self.take_turn();
            let Some(delivering) = &mut self.delivering else {
                return Ok(moved);
            };
            let Some(command) = delivering.delivery.poll_command(clock()) else {
                break;
            };
            moved = true;
            match command {
                Command::Record(record) => self.record_state(record).await?,
                Command::SendChunk(range) => self.send_chunk(range).await?,
                Command::CheckPrefix { part, len, digest } => {
                    self.check_prefix(part, len, digest).await?;
                }
                Command::SendOffer { part, flags } => {
                    let Some(of) = delivering.delivery.plan().part(part) else {
                        return Err(End::Closed(CloseCode::INTERNAL));
                    };
                    let offer = Offer {
                        update: delivering.update,
                        group: 0,
                        order: part,
                        component: of.component,
                        flags,
                        encoding: 0,
                        base: None,
                        payload_size: of.size,
                        manifest: &delivering.open.image.manifest,
                    };
                    let busy = self.busy.get_or_insert_default();
                    seal(&mut self.session, &mut busy.tx, &offer.into())?;
                }
                Command::SendResume { part, flags } => {
                    let plan = delivering.delivery.plan();
                    let Some(of) = plan.part(part) else {
                        return Err(End::Closed(CloseCode::INTERNAL));
                    };
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
                    self.send(&resume.into())?;
                }
                Command::SendActivate(activate) => self.send(&activate.into())?,
                Command::SendCancel(cancel) => self.send(&cancel.into())?,
                Command::SendConfirm(confirm) => self.send(&confirm.into())?,
            }
            if self
                .delivering
                .as_ref()
                .is_some_and(|delivering| delivering.delivery.has_ended())
            {
                if let Some(delivering) = &self.delivering {
                    for part in &delivering.delivery.plan().parts {
                        self.board.end_trial(part.component);
                    }
                }
                self.drop_delivery();
                // Another update may have waited behind this one.
                self.handle.tell();
            }
        }
        if moved {
            self.note_progress();
        }
        Ok(moved)
    }

    /// Whether a state waits to be recorded: that goes first, however much waits to be written.
    fn must_record(&self) -> bool {
        let delivering = self.delivering.as_ref();
        delivering.is_some_and(|delivering| delivering.delivery.awaits() == Awaits::Record)
    }

    /// Makes a change of state durable before the delivery goes on.
    pub(super) async fn record_state(&mut self, record: Record) -> Result<(), End> {
        let Some(delivering) = &mut self.delivering else {
            return Ok(());
        };
        let update = delivering.update;
        let stated = delivering.stated.take();
        let is_stated = stated.is_some();
        let plan = delivering.delivery.plan();
        // A Decline has no words, and no component, of its own: a board judges every entry of a manifest
        // when the first of them is offered.
        let declined = plan
            .part(record.part)
            .filter(|_| record.state == State::Declined && plan.parts.len() > 1);
        let declined = declined.map(|part| {
            format!(
                "the board declined when component {} was offered; what it did not take may be another of this update",
                part.component
            )
        });
        let change = Change {
            state: Some(record.state),
            reason: (record.reason != Reason::NONE).then(|| record.reason.to_string()),
            stated: is_stated,
            detail: stated.filter(|detail| !detail.is_empty()).or(declined),
            output: None,
            counters: Some(delivering.counters()),
            overdue: None,
            paused: None,
            seen: delivering.well && record.state == State::Trial,
        };
        self.record(update, change).await?;
        if let Some(delivering) = &mut self.delivering {
            delivering.delivery.recorded();
        }
        Ok(())
    }

    /// Stores a change; an update that an operator has ended meanwhile is let go.
    pub(super) async fn record(&mut self, update: UpdateId, change: Change) -> Result<(), End> {
        match self.gateway.store.change_update(update, change).await {
            Ok(_) => Ok(()),
            Err(StoreError::Ended { .. } | StoreError::NotFound { .. }) => {
                if self
                    .delivering
                    .as_ref()
                    .is_some_and(|delivering| delivering.update == update)
                {
                    self.drop_delivery();
                }
                Ok(())
            }
            Err(fault) => Err(self.store_failed(&fault)),
        }
    }

    async fn send_chunk(&mut self, range: ChunkRange) -> Result<(), End> {
        let Some(delivering) = &mut self.delivering else {
            return Ok(());
        };
        let update = delivering.update;
        let (bytes, crc) = delivering.read(range).map_err(|error| {
            tracing::error!(%update, %error, "the image of an update cannot be read");
            End::Closed(CloseCode::INTERNAL)
        })?;
        let chunk = Chunk {
            offset: range.offset,
            crc: crc.to_le_bytes(),
            flags: if range.ack_now { ACK_NOW } else { 0 },
            bytes,
        };
        let busy = self.busy.get_or_insert_default();
        busy.make_room(
            &self.gateway.buffers,
            bytes.len() + 64 + RECORD_HEADER + TAG,
        );
        seal(&mut self.session, &mut busy.tx, &chunk.into())?;
        if let Some(funds) = &delivering.funds {
            funds.spend(cost(range.len));
        }
        let counters = delivering.counters();
        let most = delivering.open.intent.max_bytes;
        if counters.sent >= most
            && counters.committed < u64::from(delivering.open.intent.size)
            && !delivering.paused
        {
            delivering.paused = true;
            delivering.delivery.pause(true, clock());
            self.record(
                update,
                Change {
                    paused: Some(true),
                    counters: Some(counters),
                    ..Change::default()
                },
            )
            .await?;
        }
        Ok(())
    }

    /// Lets operators see how far it is; the record follows within ten seconds.
    pub(super) fn note_progress(&self) {
        if let Some(delivering) = &self.delivering {
            let counters = delivering.counters();
            if let Some(turn) = &delivering.turn {
                turn.committed(counters.committed);
            }
            self.gateway
                .store
                .progress(&self.key.device, delivering.update, counters);
        }
    }

    async fn check_prefix(&mut self, part: u8, len: u32, digest: Digest) -> Result<(), End> {
        let Some(delivering) = &self.delivering else {
            return Ok(());
        };
        let Some(image) = delivering.images.get(usize::from(part)) else {
            return Err(End::Closed(CloseCode::INTERNAL));
        };
        let (image, update) = (Arc::clone(image), delivering.update);
        let ours = match len {
            0 => Ok(Ok(source::digest(&[]))),
            _ => tokio::task::spawn_blocking(move || image.prefix_digest(len)).await,
        };
        let matches = match ours {
            Ok(Ok(ours)) => ours == digest,
            Ok(Err(error)) => {
                tracing::error!(%update, %error, "the image of an update cannot be read; add it again");
                return Err(End::Closed(CloseCode::INTERNAL));
            }
            Err(_) => return Err(End::Closed(CloseCode::INTERNAL)),
        };
        if matches {
            tracing::info!(device = %self.key.device, %update, part, len, "the board's bytes are the image's: it goes on");
        } else {
            tracing::warn!(device = %self.key.device, %update, part, len, "the board's bytes are not the image's: it starts over");
        }
        let Some(delivering) = &mut self.delivering else {
            return Ok(());
        };
        delivering.delivery.pause(delivering.paused, clock());
        delivering
            .delivery
            .handle_prefix(matches, clock())
            .map_err(|fault| End::Closed(fault.0))
    }
}

/// What a board says beside an outcome; of an update of several components it names the one that the report is about.
pub(super) fn detail(report: &Report<'_>, several: bool) -> String {
    let of_one = [Statement::REVERTED, Statement::FAILED].contains(&report.state);
    if !several || !of_one || report.detail.contains("component") {
        return report.detail.to_owned();
    }
    let component = report.component;
    match report.detail {
        "" => format!("component {component}"),
        detail => format!("component {component}: {detail}"),
    }
}

/// What is to be delivered; none where the record is not sound.
fn plan(open: &OpenUpdate) -> Option<Plan> {
    let entries = open.intent.entries().into_iter();
    let parts = entries.map(|entry| {
        Some(Part {
            component: entry.component,
            image: Digest::from_hex(&entry.digest)?,
            size: entry.size,
        })
    });
    Some(Plan {
        update: open.intent.id(),
        manifest: Digest::from_hex(&open.intent.manifest_digest)?,
        parts: parts.collect::<Option<_>>()?,
        downgrade: open.intent.downgrade,
    })
}

impl Delivering {
    /// The image's bytes of a chunk, and their CRC.
    fn read(&mut self, range: ChunkRange) -> io::Result<(&[u8], u32)> {
        let image = self.images.get(usize::from(range.part));
        let image = image.ok_or(io::ErrorKind::UnexpectedEof)?;
        let (number, from) = (range.offset / PIECE, (range.offset % PIECE) as usize);
        let len = range.len as usize;
        if from + len > PIECE as usize {
            self.across.resize(len, 0);
            image.read_at(range.offset, &mut self.across)?;
            return Ok((&self.across, crc32fast::hash(&self.across)));
        }
        let wanted = (range.part, number);
        let piece = match self.piece.take() {
            Some((known, piece)) if known == wanted => piece,
            _ => image.piece(number)?,
        };
        let (_, piece) = self.piece.insert((wanted, piece));
        piece
            .chunk(from, len)
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn counters(&self) -> Counters {
        let (counted, place) = (self.delivery.counters(), self.delivery.part());
        Counters::of(counted, self.sessions, place)
    }

    /// Whether the board has committed bytes in this session.
    pub(super) fn got_on(&self) -> bool {
        self.counters().committed > self.open.state.counters.committed
    }

    /// Takes what the board said beside a state.
    pub(super) fn state(&mut self, report: &Report<'_>) {
        let several = !self.open.intent.entries.is_empty();
        self.stated = Some(detail(report, several));
    }

    /// The session is over, and with it this delivery; the board's truth starts the next one.
    pub(super) async fn leave(self: Box<Self>, gateway: &Gateway, end: End) {
        gateway.registry.transfers.fetch_sub(1, Ordering::Relaxed);
        let overdue =
            (end == End::Closed(CloseCode::ACK_OVERDUE)).then(|| "ack_overdue".to_owned());
        let change = Change {
            counters: Some(self.counters()),
            overdue,
            ..Change::default()
        };
        match gateway.store.change_update(self.update, change).await {
            Ok(_) | Err(StoreError::Ended { .. } | StoreError::NotFound { .. }) => {}
            Err(fault) => {
                tracing::warn!(update = %self.update, %fault, "an update's counters were not recorded")
            }
        }
    }
}
