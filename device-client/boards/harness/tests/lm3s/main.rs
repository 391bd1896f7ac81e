//! The board with a card (boards/lm3s6965evb): real firmware in QEMU, behind QEMU's NAT,
//! against a real gateway. Nothing between them is a mock; the boot stage, which cannot
//! write this machine's flash, is played by the harness.

#![expect(
    clippy::print_stdout,
    reason = "what was measured, for `make board-test`"
)]

mod bad_cards;
mod cuts;
mod links;
mod updates;

use dialhome_board_harness::card::Card;
use dialhome_board_harness::firmware::{Behaviour, Image};
use dialhome_board_harness::lm3s::{self, Board, Running};
use dialhome_board_harness::site::Bench;
use serde_json::Value;
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) const PRODUCT: &str = "thermostat";
pub(crate) const ID: &str = "lm3s-1";
const CARD_SIZE: u64 = 16 * 1024 * 1024;

/// A gateway, and what a board needs to dial it.
pub(crate) struct Rig {
    pub(crate) bench: Bench,
    pub(crate) built: Image,
    pub(crate) old: Image,
    record: Vec<u8>,
    boards: AtomicU32,
}

impl Rig {
    /// A gateway that the board dials directly.
    pub(crate) async fn new() -> Self {
        let bench = Bench::start(PRODUCT).await.unwrap();
        let port = bench.port();
        Self::dialing(bench, port).await
    }

    /// The board dials this port of the host.
    pub(crate) async fn dialing(bench: Bench, port: u16) -> Self {
        let built = lm3s::image().unwrap();
        let old = built.variant("1.0.0", 1, Behaviour::Good).unwrap();
        let gateway = format!("{}:{port}", lm3s::HOST);
        let record = bench.provision(ID, &gateway).await.unwrap();
        Self {
            bench,
            built,
            old,
            record,
            boards: AtomicU32::new(0),
        }
    }

    /// An empty card.
    pub(crate) fn card(&self) -> Card {
        Card::format(&self.bench.path().join("card.img"), CARD_SIZE).unwrap()
    }

    /// The board with the old image in its flash, switched off.
    pub(crate) fn board(&self, card: Option<Card>) -> Board {
        let number = self.boards.fetch_add(1, Ordering::Relaxed);
        let folder = self.bench.path().join(format!("board-{number}"));
        Board::new(&folder, &self.old, &self.record, card).unwrap()
    }

    /// A board with an empty card, online.
    pub(crate) async fn online(&self) -> Running {
        let board = self.board(Some(self.card())).start().await.unwrap();
        self.bench.online(ID).await.unwrap();
        board
    }

    /// An image of this version that the gateway holds, and its name there.
    pub(crate) async fn image(
        &self,
        number: u64,
        behaviour: Behaviour,
        options: &[&str],
    ) -> (Image, String) {
        let version = format!("{number}.0.0");
        let image = self.built.variant(&version, number, behaviour).unwrap();
        let mut all = vec!["--check", "sdu:0"];
        all.extend(options);
        let name = self
            .bench
            .image(&version, number, &image.bytes, &all)
            .await
            .unwrap();
        (image, name)
    }

    /// Pushes and waits for the end.
    pub(crate) async fn push(&self, name: &str) -> Value {
        self.bench.push(ID, name, &[]).await.unwrap().json
    }

    /// The device's only component, once it is online.
    pub(crate) async fn component(&self) -> Value {
        // A session is there a moment before what its Hello says is recorded.
        let shown = self.bench.until(&["device", "show", ID], |device| {
            device["online"] == true && !device["components"][0].is_null()
        });
        shown.await.unwrap()["components"][0].clone()
    }
}

#[track_caller]
pub(crate) fn ended(update: &Value, state: &str, reason: Option<&str>) {
    let reason = reason.map_or(Value::Null, Value::from);
    assert!(
        update["state"] == state && update["reason"] == reason,
        "expected {state} ({reason}), got {update:#}"
    );
}
