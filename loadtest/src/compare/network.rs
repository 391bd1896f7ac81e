//! Two network namespaces with one Ethernet link between them, made and removed here.

use crate::Error;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

/// Names of namespaces begin so, and end with the id of the process that made them.
const PREFIX: &str = "dialhome-compare-";
/// The address of the gateway's side.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const ETHERNET_HEADER: u64 = 14;

/// The link. Dropping it removes both namespaces.
#[derive(Debug)]
pub(super) struct Link {
    /// The namespace of the gateway's side.
    pub(super) gateway: String,
    /// The namespace of the board's side.
    pub(super) board: String,
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
        if !rustix::process::geteuid().is_root() {
            return Err(Error::new("network namespaces need root"));
        }
        // What an interrupted run has left.
        remove_left();
        let name = |side: &str| format!("{PREFIX}{side}-{}", std::process::id());
        let link = Self {
            gateway: name("g"),
            board: name("b"),
        };
        let (gateway, board) = (link.gateway.as_str(), link.board.as_str());
        run(&["ip", "netns", "add", gateway])?;
        run(&["ip", "netns", "add", board])?;
        run(&[
            "ip", "-n", gateway, "link", "add", "air", "type", "veth", "peer", "name", "air",
            "netns", board,
        ])?;
        // Whoever publishes at the gateway's side does not cross the link.
        run(&["ip", "-n", gateway, "link", "set", "lo", "up"])?;
        for (here, address) in [(gateway, "10.77.0.1/30"), (board, "10.77.0.2/30")] {
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
        for (here, there, address) in [(gateway, board, "10.77.0.2"), (board, gateway, "10.77.0.1")]
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
    pub(super) fn timestamps(&self, on: bool) -> Result<(), Error> {
        let value = format!("net.ipv4.tcp_timestamps={}", u8::from(on));
        inside(&self.gateway, &["sysctl", "-q", &value])?;
        inside(&self.board, &["sysctl", "-q", &value])
    }

    /// Both directions since the link was made. The interface counts frames; each has an
    /// Ethernet header of 14 bytes, which is taken off.
    pub(super) fn crossed(&self) -> Result<Crossed, Error> {
        let text = output(&[
            "ip",
            "-n",
            &self.gateway,
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

impl Drop for Link {
    fn drop(&mut self) {
        remove(&self.gateway);
        remove(&self.board);
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

fn remove(namespace: &str) {
    let _ = Command::new("ip")
        .args(["netns", "delete", namespace])
        .stderr(Stdio::null())
        .status();
}

/// Removes what interrupted runs have left: their processes are no more.
fn remove_left() {
    let Ok(text) = output(&["ip", "netns", "list"]) else {
        return;
    };
    for name in text
        .lines()
        .filter_map(|line| line.split_whitespace().next())
    {
        let made_by = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.rsplit('-').next());
        if made_by.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove(name);
        }
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
