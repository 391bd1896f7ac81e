//! The board's first frame (spec/frames.md section 3).

use super::cells::ImageCell;
use super::config::{COMPONENTS, ComponentConfig, RunningImage, TEXTS};
use super::machine::Machine;
use super::stage::Stage;
use crate::code::DigestFrom;
#[expect(unused_imports, reason = "named in the documentation")]
use crate::frame::Component;
use crate::frame::{DeviceFrame, Hello, Numbered};
use crate::id::Digest;
use crate::limits::{NAME_MAX, NETWORK_MAX, TEXT_PART_MAX, VERSION_MAX};
use crate::manifest::Remembered;
use crate::wire::Writer;

/// Encoded integers at their longest, in bytes.
const U16: usize = 3;
const U32: usize = 5;
const U64: usize = 10;

/// Longest plaintext that a board of this build says, in bytes: its Hello, or a part of a text.
pub const FRAME_MAX: usize = if TEXTS && HELLO_MAX < OUTPUT_MAX {
    OUTPUT_MAX
} else {
    HELLO_MAX
};
/// Number, sequence, part, parts, text.
const OUTPUT_MAX: usize = 1 + U32 + 2 + 2 + TEXT_PART_MAX;
const HELLO_MAX: usize = 1
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
    /// Writes Hello's fields one by one, in their order in [`Hello`] and [`Component`]: a whole Hello with its
    /// components would be half a kilobyte on the board's stack, and as much code to fill it.
    #[inline(never)]
    pub(super) fn write_hello(&self, writer: &mut Writer<'_>) {
        let config = &self.config;
        let facts = &self.facts;
        writer.byte(<Hello<'_> as Numbered<DeviceFrame<'_>>>::NUMBER);
        writer.text(config.product);
        writer.number(config.hardware.into());
        writer.text(config.client);
        writer.number(config.receive_buffer.into());
        writer.text(&facts.network);
        writer.byte(facts.link.0);
        writer.number(self.ping_s);
        writer.number(config.wake_s);
        writer.byte(facts.battery_percent);
        writer.byte(facts.signal_dbm.cast_unsigned());
        writer.byte(facts.temperature_c.cast_unsigned());
        // Busy: never.
        writer.byte(0);
        writer.byte(self.last_close.0);
        writer.number(self.failed_dials);
        writer.number(self.cells.trust.as_ref().map_or(0, |trust| trust.epoch));
        writer.number(self.cells.gateways_epoch);
        writer.number(config.tasks);
        // The last task: none.
        writer.byte(0);
        let components = config.components.iter().zip(&self.running);
        let components = components.zip(&self.cells.images);
        writer.number(u32::try_from(components.len()).unwrap_or(0));
        for ((config, running), image) in components {
            self.write_component(config, running, image, writer);
        }
    }

    #[inline(never)]
    fn write_component(
        &self,
        config: &ComponentConfig,
        running: &RunningImage,
        image: &ImageCell,
        writer: &mut Writer<'_>,
    ) {
        let of = |image: &&Remembered| image.component == config.component;
        let at_hand = self.cells.image.as_ref().filter(of);
        let mut on_its_way = at_hand;
        let mut trial = at_hand.and(self.cells.trial.as_ref());
        let mut claim = at_hand.zip(self.cells.claim.as_ref());
        let mut self_test = self.self_test;
        if let Some(entry) = self.cells.waiting_entry(config.component) {
            if at_hand.is_none() {
                let tried = self.cells.trial_image(config.component);
                on_its_way = Some(&entry.image);
                trial = tried.and(self.cells.trial.as_ref());
                claim = Some((&entry.image, &entry.claim)).filter(|_| !entry.skipped);
            }
            self_test = entry.verdict.unwrap_or(self_test);
        }
        let known = running.digest_from != DigestFrom::UNKNOWN;
        let (version, counter) = match on_its_way {
            Some(tried) if trial.is_some() && known && tried.sha256 == running.digest => {
                (tried.version.as_str(), tried.counter)
            }
            _ if known && image.is(&running.digest) => (image.version.as_str(), image.counter),
            _ => (running.version, running.counter),
        };
        writer.byte(config.component);
        writer.text(version);
        writer.counter(counter);
        writer.counter(image.floor);
        let digest = if known {
            &running.digest
        } else {
            &Digest([0; 32])
        };
        writer.slice(&digest.0);
        writer.byte(running.digest_from.0);
        writer.byte(running.boot_reason.0);
        writer.byte(running.revert.0);
        writer.number(config.slot_size);
        writer.number(config.write_unit);
        writer.number(config.erase_unit);
        writer.number(config.window);
        let trial = trial.filter(|_| matches!(self.stage, Stage::Trial));
        writer.byte(trial.is_some().into());
        if let Some(trial) = trial {
            writer.slice(&trial.update.0);
            writer.byte(self_test.0);
        }
        writer.byte(claim.is_some().into());
        if let Some((image, claim)) = claim {
            writer.slice(&image.manifest.0);
            writer.number(claim.committed);
            writer.byte(claim.staged.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::{BootReason, CloseCode, Link, Revert, SelfTest};
    use crate::frame::{Claim, Component, Report, Trial};
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
        assert_eq!(hello.encode(&mut [0; 1024]), Ok(HELLO_MAX));
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
        assert!(report.encode(&mut [0; HELLO_MAX]).is_ok());
    }
}
