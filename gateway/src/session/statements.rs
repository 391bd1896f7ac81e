//! What boards state and repeat until it is settled (spec/protocol.md section 4.3):
//! stored durably first, settled then.

use super::clock;
use super::delivering::detail;
use super::run::{End, Running};
use crate::store::{Change, State};
use dialhome_proto::code::{CloseCode, Reason, Statement};
use dialhome_proto::frame::{DeviceFrame, GatewaysStored, KeyStored, Report, Settled};

impl Running {
    pub(super) async fn handle_statement(&mut self, frame: &DeviceFrame<'_>) -> Result<(), End> {
        match frame {
            DeviceFrame::Report(report) => self.handle_report(report).await,
            DeviceFrame::KeyStored(stored) => self.handle_key_stored(stored),
            DeviceFrame::GatewaysStored(stored) => self.handle_gateways_stored(stored).await,
            _ => Ok(()),
        }
    }

    async fn handle_report(&mut self, report: &Report<'_>) -> Result<(), End> {
        self.store_output(report).await?;
        match &mut self.delivering {
            Some(delivering) if delivering.update == report.update => {
                delivering.state(report);
                delivering
                    .delivery
                    .handle_frame(&DeviceFrame::Report(*report), clock())
                    .map_err(|fault| End::Closed(fault.0))?;
                // Records, and whatever follows from them.
                self.deliver().await?;
                if let Some(delivering) = &mut self.delivering {
                    // What it said belongs to no record that the gateway makes later.
                    delivering.stated = None;
                }
            }
            _ => self.record_report(report).await?,
        }
        if report.sequence != 0 {
            self.send(
                &Settled {
                    sequence: report.sequence,
                }
                .into(),
            )?;
        }
        Ok(())
    }

    /// A statement about an update that is not being delivered: ended, abandoned, or not looked at yet.
    async fn record_report(&mut self, report: &Report<'_>) -> Result<(), End> {
        let state = match report.state {
            Statement::CONFIRMED => State::Confirmed,
            Statement::REVERTED => State::Reverted,
            Statement::FAILED => State::Failed,
            Statement::CANCELED => State::Canceled,
            // What passes is of interest to a delivery only.
            _ if report.sequence == 0 => return Ok(()),
            // A later version's outcome: kept as it was said.
            unknown => {
                let change = Change {
                    reason: Some(format!("stated_{unknown}")),
                    stated: true,
                    ..Change::default()
                };
                return self.record(report.update, change).await;
            }
        };
        let known = self
            .gateway
            .store
            .intent(report.update)
            .await
            .map_err(|fault| self.store_failed(&fault))?;
        let belongs = known
            .as_ref()
            .is_none_or(|known| known.device == *self.key.device);
        if !belongs {
            tracing::warn!(device = %self.key.device, update = %report.update, "a board reported on another device's update");
            return Ok(());
        }
        let several = known
            .as_ref()
            .is_some_and(|known| !known.entries.is_empty());
        let detail = detail(report, several);
        let lies = state == State::Confirmed
            && known.is_some_and(|known| {
                known.entries().iter().any(|entry| {
                    dialhome_proto::id::Digest::from_hex(&entry.digest)
                        .is_some_and(|digest| !self.board.runs(entry.component, &digest))
                })
            });
        let (state, reason) = if lies {
            (State::Reverted, Reason::WRONG_IMAGE_RUNNING)
        } else {
            (state, report.reason)
        };
        let change = Change {
            state: Some(state),
            reason: (reason != Reason::NONE).then(|| reason.to_string()),
            detail: (!detail.is_empty()).then_some(detail),
            stated: true,
            ..Change::default()
        };
        self.record(report.update, change).await
    }

    fn handle_key_stored(&mut self, stored: &KeyStored) -> Result<(), End> {
        let ours = dialhome_proto::link::DeviceKey::new(self.key.key).handle();
        if stored.handle == ours {
            // This session's own key: greeting it has retired the old one.
            return self.send(
                &Settled {
                    sequence: stored.sequence,
                }
                .into(),
            );
        }
        let awaited = self.gateway.store.find_key(stored.handle);
        if awaited.is_some_and(|key| key.device == self.key.device) {
            // Pending, or in force since another session: the board dials again at once, with it.
            return Err(End::Closed(CloseCode::REKEY));
        }
        // A key that this gateway never made, or no longer knows: the board is to forget it.
        let sequence = stored.sequence;
        self.send(&Settled { sequence }.into())
    }

    async fn handle_gateways_stored(&mut self, stored: &GatewaysStored) -> Result<(), End> {
        let store = &self.gateway.store;
        let outcome = if stored.sequence == 0 {
            store.gateways_refused(&self.key.device, stored.epoch).await
        } else {
            store.gateways_stored(&self.key.device, stored.epoch).await
        };
        outcome.map_err(|fault| self.store_failed(&fault))?;
        if stored.sequence != 0 {
            self.send(
                &Settled {
                    sequence: stored.sequence,
                }
                .into(),
            )?;
        }
        Ok(())
    }
}
