//! Two network namespaces with one Ethernet link between them, made and removed here.

use crate::Error;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

/// The gateway's side.
pub(super) const GATEWAY: &str = "dialhome-compare-g";
/// The board's side.
pub(super) const BOARD: &str = "dialhome-compare-b";
/// The address of the gateway's side.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const ETHERNET_HEADER: u64 = 14;

/// The link. Dropping it removes both namespaces.
pub(super) struct Link(());

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
        if !rustix::process::geteuid().is_root() {
            return Err(Error::new("network namespaces need root"));
        }
        // What an interrupted run has left.
        remove();
        let link = Self(());
        run(&["ip", "netns", "add", GATEWAY])?;
        run(&["ip", "netns", "add", BOARD])?;
        run(&[
            "ip", "-n", GATEWAY, "link", "add", "air", "type", "veth", "peer", "name", "air",
            "netns", BOARD,
        ])?;
        // Whoever publishes at the gateway's side does not cross the link.
        run(&["ip", "-n", GATEWAY, "link", "set", "lo", "up"])?;
        for (here, address) in [(GATEWAY, "10.77.0.1/30"), (BOARD, "10.77.0.2/30")] {
            // No IPv6: its neighbour discovery would be counted.
            inside(here, &["sysctl", "-q", "net.ipv6.conf.all.disable_ipv6=1"])?;
            run(&["ip", "-n", here, "link", "set", "air", "mtu", "1500"])?;
            let off = [
                "ethtool", "-K", "air", "tso", "off", "gso", "off", "gro", "off",
            ];
            inside(here, &off)
                .map_err(|error| Error::of("Debian: `apt-get install ethtool`", &error))?;
            run(&["ip", "-n", here, "addr", "add", address, "dev", "air"])?;
            run(&["ip", "-n", here, "link", "set", "air", "up"])?;
        }
        // Addresses are known without ARP, which would be counted too.
        for (here, there, address) in [(GATEWAY, BOARD, "10.77.0.2"), (BOARD, GATEWAY, "10.77.0.1")]
        {
            let mac = output(&[
                "ip",
                "netns",
                "exec",
                there,
                "cat",
                "/sys/class/net/air/address",
            ])?;
            run(&[
                "ip",
                "-n",
                here,
                "neigh",
                "replace",
                address,
                "lladdr",
                mac.trim(),
                "dev",
                "air",
                "nud",
                "permanent",
            ])?;
        }
        Ok(link)
    }

    /// TCP timestamps (12 bytes of every segment) on both sides.
    #[expect(clippy::unused_self, reason = "only while the link is there")]
    pub(super) fn timestamps(&self, on: bool) -> Result<(), Error> {
        let value = format!("net.ipv4.tcp_timestamps={}", u8::from(on));
        inside(GATEWAY, &["sysctl", "-q", &value])?;
        inside(BOARD, &["sysctl", "-q", &value])
    }

    /// Both directions since the link was made. The interface counts frames; each has an
    /// Ethernet header of 14 bytes, which is taken off.
    #[expect(clippy::unused_self, reason = "only while the link is there")]
    pub(super) fn crossed(&self) -> Result<Crossed, Error> {
        let text = output(&[
            "ip", "-n", GATEWAY, "-s", "-j", "link", "show", "dev", "air",
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

impl Drop for Link {
    fn drop(&mut self) {
        remove();
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

fn remove() {
    for namespace in [GATEWAY, BOARD] {
        let _ = Command::new("ip")
            .args(["netns", "delete", namespace])
            .stderr(Stdio::null())
            .status();
    }
}

fn inside(namespace: &str, command: &[&str]) -> Result<(), Error> {
    let mut whole = vec!["ip", "netns", "exec", namespace];
    whole.extend(command);
    run(&whole)
}

fn run(command: &[&str]) -> Result<(), Error> {
    output(command).map(drop)
}

fn output(command: &[&str]) -> Result<String, Error> {
    let failed = |why: &str| Error::new(format!("`{}` failed: {why}", command.join(" ")));
    let [program, args @ ..] = command else {
        return Ok(String::new());
    };
    let output = Command::new(program)
        .args(args)
        .output()
        .map_err(|error| failed(&error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
