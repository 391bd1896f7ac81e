//! Dialhome as one of the contenders: its gateway, and the devices that it knows.

use super::Setup;
use super::clients::{Seat, source};
use super::peers::free_address;
use crate::Error;
use crate::site::admin::Admin;
use crate::site::gateway::Gateway;
use crate::site::{Device, Site};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Sessions that are not there after so long will not be.
const PATIENCE: Duration = Duration::from_secs(120);

/// A gateway's data with devices in it, started once a round.
#[derive(Debug)]
pub(super) struct Dialhome {
    pub(super) site: Site,
    pub(super) devices: Vec<Device>,
}

/// A gateway that runs.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) gateway: Gateway,
    pub(super) admin: Admin,
    pub(super) address: SocketAddr,
}

impl Dialhome {
    /// So many devices, `board-00000` and on, and these images.
    pub(super) async fn new(devices: usize, images: &[Vec<u8>]) -> Result<Self, Error> {
        let site = Site::new()?;
        let ids: Vec<_> = (0..devices)
            .map(|number| format!("board-{number:05}"))
            .collect();
        let devices = site.fill(&ids, images).await?;
        Ok(Self { site, devices })
    }

    /// Starts the gateway on loopback.
    pub(super) async fn start(&self, setup: &Setup, more: &[String]) -> Result<Running, Error> {
        let address = free_address()?;
        let gateway = Gateway::start(&setup.gateway, &self.site, address, more, None).await?;
        let admin = gateway.admin().await?;
        Ok(Running {
            gateway,
            admin,
            address,
        })
    }

    /// The devices as clients.
    pub(super) fn seats(&self) -> Vec<Seat> {
        self.devices
            .iter()
            .enumerate()
            .map(|(number, device)| Seat {
                id: device.id.clone(),
                key: device.key,
                source: Some(source(number)),
            })
            .collect()
    }
}

impl Running {
    /// The admin socket anew: the gateway closes a connection that was silent for 30 s.
    pub(super) async fn renew(&mut self) -> Result<(), Error> {
        self.admin = self.gateway.admin().await?;
        Ok(())
    }

    /// Waits until so many sessions are open.
    pub(super) async fn sessions(&mut self, count: usize) -> Result<(), Error> {
        self.renew().await?;
        let until = Instant::now() + PATIENCE;
        loop {
            let open = self.admin.status().await?["sessions"].as_u64();
            if open == Some(count as u64) {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(Error::new(format!(
                    "{} sessions are open at the gateway, not {count}",
                    open.unwrap_or(0)
                )));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
