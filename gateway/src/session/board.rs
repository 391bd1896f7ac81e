//! What a session keeps of the board's Hello, and what the record gets of it.

use crate::store::{ComponentRecord, HelloRecord};
use dialhome_proto::code::{BootReason, DigestFrom, Revert};
use dialhome_proto::frame::{Claim, Component, Hello, Trial};
use dialhome_proto::id::{Digest, Handle};
use std::net::SocketAddr;

/// A component as a delivery needs it.
#[derive(Clone, Debug)]
pub(super) struct BoardComponent {
    number: u8,
    digest: Digest,
    digest_from: DigestFrom,
    write_unit: u32,
    /// Most boards have neither.
    unfinished: Option<Box<Unfinished>>,
}

/// What a board had begun.
#[derive(Clone, Copy, Debug)]
struct Unfinished {
    trial: Option<Trial>,
    claim: Option<Claim>,
}

/// The board's components.
#[derive(Clone, Debug, Default)]
pub(super) struct Board(Box<[BoardComponent]>);

impl Board {
    pub(super) fn of(hello: &Hello<'_>) -> Self {
        let kept = hello.components.iter().map(|component| BoardComponent {
            number: component.component,
            digest: component.digest,
            digest_from: component.digest_from,
            write_unit: component.write_unit,
            unfinished: (component.trial.is_some() || component.claim.is_some()).then(|| {
                Box::new(Unfinished {
                    trial: component.trial,
                    claim: component.claim,
                })
            }),
        });
        Self(kept.collect())
    }

    /// The components as Hello stated them, as far as a delivery looks at them.
    pub(super) fn components(&self) -> Vec<Component<'static>> {
        self.0.iter().map(BoardComponent::stated).collect()
    }

    /// Whether the component was stated to run this image.
    pub(super) fn runs(&self, number: u8, digest: &Digest) -> bool {
        self.0.iter().any(|component| {
            component.number == number
                && component.digest_from != DigestFrom::UNKNOWN
                && component.digest == *digest
        })
    }

    /// The trial has ended in this session.
    pub(super) fn end_trial(&mut self, number: u8) {
        for component in &mut self.0 {
            if component.number == number {
                component.unfinished = None;
            }
        }
    }
}

impl BoardComponent {
    fn stated(&self) -> Component<'static> {
        Component {
            component: self.number,
            version: "",
            counter: 0,
            floor: 0,
            digest: self.digest,
            digest_from: self.digest_from,
            boot_reason: BootReason::UNKNOWN,
            revert: Revert::NONE,
            slot_size: 0,
            write_unit: self.write_unit,
            erase_unit: self.write_unit,
            window: 0,
            trial: self.unfinished.as_ref().and_then(|begun| begun.trial),
            claim: self.unfinished.as_ref().and_then(|begun| begun.claim),
        }
    }
}

/// What the record keeps of a Hello.
pub(super) fn record(
    hello: &Hello<'_>,
    transport: &'static str,
    peer: SocketAddr,
    handle: Handle,
) -> HelloRecord {
    HelloRecord {
        transport: transport.into(),
        peer: Some(peer.to_string()),
        network: hello.network.into(),
        link: hello.link.to_string(),
        client: hello.client.into(),
        hardware: hello.hardware,
        wake_s: hello.wake_s,
        battery_percent: (hello.battery_percent <= 100).then_some(hello.battery_percent),
        signal_dbm: (hello.signal_dbm != i8::MIN).then_some(hello.signal_dbm),
        temperature_c: (hello.temperature_c != i8::MIN).then_some(hello.temperature_c),
        trust_epoch: hello.trust_epoch,
        gateways_epoch: hello.gateways_epoch,
        tasks: hello.tasks,
        last_task: hello.last_task,
        key_handle: handle.to_string(),
        components: hello.components.iter().map(component).collect(),
    }
}

fn component(component: &Component<'_>) -> ComponentRecord {
    let known = component.digest_from != DigestFrom::UNKNOWN;
    ComponentRecord {
        component: component.component,
        version: component.version.into(),
        counter: (component.counter != 0).then_some(component.counter),
        digest: known.then(|| component.digest.to_string()),
        digest_from: component.digest_from.to_string(),
        boot_reason: component.boot_reason.to_string(),
        trial: component.trial.map(|trial| trial.update.to_string()),
        revert: component.revert.to_string(),
        slot_size: component.slot_size,
    }
}
