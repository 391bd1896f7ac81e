//! Peers over QUIC, good and hostile: each that breaks the protocol hears the name of what it did, nothing of
//! it stays, and no other session notices.

mod ends;
mod floods;
mod hostile;
mod proofs;
mod raw;
#[path = "../support/mod.rs"]
mod support;

use client::Peer;
use dialhome_proto::link::DeviceKey;
use serde_json::Value;
use support::peer::key_of;
use support::quic_client as client;
use support::{BOARD, Bench};

/// A gateway, a board that is online over QUIC and must not notice anything, and the key of another.
struct Scene {
    bench: Bench,
    bystander: Peer,
    key: DeviceKey,
}

impl Scene {
    async fn start() -> Self {
        let mut bench = Bench::start().await;
        let mut keys = Vec::new();
        for id in ["bystander", "victim"] {
            let faults = dialhome_gateway::demo::relay::Faults::default();
            keys.push(key_of(&bench.add_board(id, faults, BOARD).await.config));
        }
        let bystander = Peer::greet(bench.site.listen(), &keys[0]).await;
        Self {
            bench,
            bystander,
            key: keys.remove(1),
        }
    }

    fn gateway(&self) -> std::net::SocketAddr {
        self.bench.site.listen()
    }

    async fn device(&self, id: &str) -> Value {
        self.bench.json(&["device", "show", id]).await
    }

    /// Nothing is left but the bystander's session, and that is as it was.
    async fn nothing_stays(&mut self) {
        self.bench
            .until(&["status"], |status| {
                let quic = &status["quic"];
                status["sessions"] == 1
                    && status["handshakes"] == 0
                    && quic["sessions"] == 1
                    && quic["connections"] == 1
            })
            .await;
        self.bystander.alive().await;
        let device = self.device("bystander").await;
        assert_eq!(device["online"], true, "{device}");
        assert_eq!(device["last_disconnect"], Value::Null, "{device}");
    }
}

/// Bytes of memory that a process has of its own now.
fn memory(pid: u32) -> u64 {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(path).expect("a process of this machine");
    let line = text.lines().find_map(|line| line.strip_prefix("Pss_Anon:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.expect("its memory").parse::<u64>().unwrap() * 1024
}
