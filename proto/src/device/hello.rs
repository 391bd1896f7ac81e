//! The board's first frame (spec/frames.md section 3).

use super::machine::Machine;
use super::stage::Stage;
use crate::code::DigestFrom;
use crate::frame::{Claim, Component, DeviceFrame, Hello, Trial};
use crate::id::Digest;
use heapless::Vec;

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
                .trial
                .as_ref()
                .filter(|trial| trial.image.component == config.component);
            let claim = self
                .cells
                .claim
                .as_ref()
                .filter(|claim| claim.image.component == config.component);
            let known = running.digest_from != DigestFrom::UNKNOWN;
            let (version, counter) = match trial {
                Some(trial) if known && trial.image.sha256 == running.digest => {
                    (trial.image.version.as_str(), trial.image.counter)
                }
                _ if known && image.is(&running.digest) => (image.version.as_str(), image.counter),
                _ => (running.version.as_str(), running.counter),
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
                    .map(|trial| Trial {
                        update: trial.update,
                        self_test: self.self_test,
                    }),
                claim: claim.map(|claim| Claim {
                    manifest: claim.image.manifest,
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
