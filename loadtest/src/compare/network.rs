//! Two network namespaces with one Ethernet link between them, made and removed here.

use crate::Error;
use crate::site::namespace::{Namespace, output, run};
use std::net::Ipv4Addr;

/// The address of the gateway's side.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const ETHERNET_HEADER: u64 = 14;

/// The link. Dropping it removes both namespaces.
#[derive(Debug)]
pub(super) struct Link {
    /// The namespace of the gateway's side.
    pub(super) gateway: Namespace,
    /// The namespace of the board's side.
    pub(super) board: Namespace,
}

/// What has crossed the link: IP packets and their bytes, headers of IP included.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Crossed {
    /// Packets.
    pub(super) packets: u64,
    /// Their bytes.
    pub(super) bytes: u64,
}

impl Link {
    /// MTU 1500, every offload off, so that a packet that is counted is a packet that
    /// a modem would send.
    pub(super) fn new() -> Result<Self, Error> {
        let (gateway, board) = (Namespace::new("g")?, Namespace::new("b")?);
        run(&[
            "ip",
            "-n",
            gateway.name(),
            "link",
            "add",
            "air",
            "type",
            "veth",
            "peer",
            "name",
            "air",
            "netns",
            board.name(),
        ])?;
        for (here, address) in [(&gateway, "10.77.0.1/30"), (&board, "10.77.0.2/30")] {
            here.ip(&["link", "set", "air", "mtu", "1500"])?;
            let off = [
                "ethtool", "-K", "air", "tso", "off", "gso", "off", "gro", "off",
            ];
            here.inside(&off)
                .map_err(|error| Error::of("Debian: `apt-get install ethtool`", &error))?;
            here.ip(&["addr", "add", address, "dev", "air"])?;
            here.ip(&["link", "set", "air", "up"])?;
        }
        // Addresses are known without ARP, which would be counted too.
        for (here, there, address) in [
            (&gateway, &board, "10.77.0.2"),
            (&board, &gateway, "10.77.0.1"),
        ] {
            let mac = there.inside(&["cat", "/sys/class/net/air/address"])?;
            let known = ["neigh", "replace", address, "lladdr", mac.trim()];
            here.ip(&[&known[..], &["dev", "air", "nud", "permanent"]].concat())?;
        }
        Ok(Self { gateway, board })
    }

    /// TCP timestamps (12 bytes of every segment) on both sides.
    pub(super) fn timestamps(&self, on: bool) -> Result<(), Error> {
        let value = format!("net.ipv4.tcp_timestamps={}", u8::from(on));
        self.gateway.inside(&["sysctl", "-q", &value])?;
        self.board.inside(&["sysctl", "-q", &value]).map(drop)
    }

    /// Both directions since the link was made. The interface counts frames; each has an
    /// Ethernet header of 14 bytes, which is taken off.
    pub(super) fn crossed(&self) -> Result<Crossed, Error> {
        let text = output(&[
            "ip",
            "-n",
            self.gateway.name(),
            "-s",
            "-j",
            "link",
            "show",
            "dev",
            "air",
        ])?;
        let shown: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| Error::of("`ip -s -j link`", &error))?;
        let count = |way: &str, what: &str| {
            shown[0]["stats64"][way][what]
                .as_u64()
                .ok_or_else(|| Error::new(format!("`ip -s -j link` has no {way}/{what}")))
        };
        let packets = count("rx", "packets")? + count("tx", "packets")?;
        let frames = count("rx", "bytes")? + count("tx", "bytes")?;
        Ok(Crossed {
            packets,
            bytes: frames - ETHERNET_HEADER * packets,
        })
    }
}

impl std::ops::Sub for Crossed {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            packets: self.packets - before.packets,
            bytes: self.bytes - before.bytes,
        }
    }
}
