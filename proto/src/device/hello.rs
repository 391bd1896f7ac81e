//! The board's first frame (spec/frames.md section 3).

use super::config::COMPONENTS;
use super::machine::Machine;
use super::stage::Stage;
use crate::code::DigestFrom;
use crate::frame::{Claim, Component, DeviceFrame, Hello, Trial};
use crate::id::Digest;
use crate::limits::{NAME_MAX, NETWORK_MAX, VERSION_MAX};
use heapless::Vec;

/// Encoded integers at their longest, in bytes.
const U16: usize = 3;
const U32: usize = 5;
const U64: usize = 10;

/// Longest plaintext that a board of this build says, in bytes: its Hello.
pub const FRAME_MAX: usize = 1
    + (1 + NAME_MAX)
    + U16
    + (1 + VERSION_MAX)
    + U16
    + (1 + NETWORK_MAX)
    + 1
    + 2 * U32
    + 5
    + 4 * U32
    + U64
    + 1
    + COMPONENTS * COMPONENT_LEN;
/// Number, version, counter and floor, digest, three codes, four sizes, trial, claim.
const COMPONENT_LEN: usize =
    1 + (1 + VERSION_MAX) + 2 * U64 + 32 + 3 + 4 * U32 + (1 + 8 + 1) + (1 + 32 + U32 + 1);

impl Machine<'_> {
    pub(super) fn write_hello(&self, buffer: &mut [u8]) -> Option<usize> {
        let mut components = Vec::new();
        for (place, config) in self.config.components.iter().enumerate() {
            let (Some(running), Some(image)) =
                (self.running.get(place), self.cells.images.get(place))
            else {
                continue;
            };
            let trial = self
                .cells
                .tried()
                .filter(|(image, _)| image.component == config.component);
            let claim = self
                .cells
                .claimed()
                .filter(|(image, _)| image.component == config.component);
            let known = running.digest_from != DigestFrom::UNKNOWN;
            let (version, counter) = match trial {
                Some((tried, _)) if known && tried.sha256 == running.digest => {
                    (tried.version.as_str(), tried.counter)
                }
                _ if known && image.is(&running.digest) => (image.version.as_str(), image.counter),
                _ => (running.version, running.counter),
            };
            let pushed = components.push(Component {
                component: config.component,
                version,
                counter,
                floor: image.floor,
                digest: if known {
                    running.digest
                } else {
                    Digest([0; 32])
                },
                digest_from: running.digest_from,
                boot_reason: running.boot_reason,
                revert: running.revert,
                slot_size: config.slot_size,
                write_unit: config.write_unit,
                erase_unit: config.erase_unit,
                window: config.window,
                trial: trial
                    .filter(|_| matches!(self.stage, Stage::Trial))
                    .map(|(_, trial)| Trial {
                        update: trial.update,
                        self_test: self.self_test,
                    }),
                claim: claim.map(|(image, claim)| Claim {
                    manifest: image.manifest,
                    committed: claim.committed,
                    staged: claim.staged,
                }),
            });
            if pushed.is_err() {
                break;
            }
        }
        let hello = Hello {
            product: self.config.product,
            hardware: self.config.hardware,
            client: self.config.client,
            receive_buffer: self.config.receive_buffer,
            network: &self.facts.network,
            link: self.facts.link,
            ping_s: self.ping_s,
            wake_s: self.config.wake_s,
            battery_percent: self.facts.battery_percent,
            signal_dbm: self.facts.signal_dbm,
            temperature_c: self.facts.temperature_c,
            busy: false,
            last_close: self.last_close,
            failed_dials: self.failed_dials,
            trust_epoch: self.cells.trust.as_ref().map_or(0, |trust| trust.epoch),
            gateways_epoch: self.cells.gateways_epoch,
            tasks: self.config.tasks,
            last_task: 0,
            components,
        };
        DeviceFrame::from(hello).encode(buffer).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::{BootReason, CloseCode, Link, Revert, SelfTest};
    use crate::frame::Report;
    use crate::id::UpdateId;
    use crate::limits::OUTBOX_DETAIL_MAX;

    #[test]
    fn the_longest_hello_is_as_long_as_the_send_buffer_expects() {
        let name = core::str::from_utf8(&[b'a'; NAME_MAX]).unwrap();
        let text = core::str::from_utf8(&[b'a'; VERSION_MAX]).unwrap();
        let component = Component {
            component: 255,
            version: text,
            counter: u64::MAX,
            floor: u64::MAX,
            digest: Digest([255; 32]),
            digest_from: DigestFrom(255),
            boot_reason: BootReason(255),
            revert: Revert(255),
            slot_size: u32::MAX,
            write_unit: u32::MAX,
            erase_unit: u32::MAX,
            window: u32::MAX,
            trial: Some(Trial {
                update: UpdateId([255; 8]),
                self_test: SelfTest(255),
            }),
            claim: Some(Claim {
                manifest: Digest([255; 32]),
                committed: u32::MAX,
                staged: true,
            }),
        };
        let hello = DeviceFrame::from(Hello {
            product: name,
            hardware: u16::MAX,
            client: text,
            receive_buffer: u16::MAX,
            network: text,
            link: Link(255),
            ping_s: u32::MAX,
            wake_s: u32::MAX,
            battery_percent: 255,
            signal_dbm: -128,
            temperature_c: -128,
            busy: true,
            last_close: CloseCode(255),
            failed_dials: u32::MAX,
            trust_epoch: u32::MAX,
            gateways_epoch: u32::MAX,
            tasks: u32::MAX,
            last_task: u64::MAX,
            components: (0..COMPONENTS).map(|_| component).collect(),
        });
        assert_eq!(hello.encode(&mut [0; 1024]), Ok(FRAME_MAX));
    }

    #[test]
    fn the_longest_report_is_shorter_than_a_hello() {
        let report = DeviceFrame::from(Report {
            sequence: u32::MAX,
            update: UpdateId([255; 8]),
            component: 255,
            state: crate::code::Statement(255),
            reason: crate::code::Reason(255),
            detail: core::str::from_utf8(&[b'a'; OUTBOX_DETAIL_MAX]).unwrap(),
        });
        assert!(report.encode(&mut [0; FRAME_MAX]).is_ok());
    }
}
