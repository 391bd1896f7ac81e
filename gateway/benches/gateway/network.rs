//! Two network namespaces with one Ethernet link between them, made and removed here.

use super::Outcome;
use std::process::{Command, Stdio};

/// The gateway's side.
pub(crate) const GATEWAY: &str = "dialhome-bench-g";
/// The board's side.
pub(crate) const BOARD: &str = "dialhome-bench-b";
const ETHERNET_HEADER: u64 = 14;

/// The link. Dropping it removes both namespaces.
pub(crate) struct Link(());

/// What has crossed the link: IP packets and their bytes, headers of IP included.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Crossed {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

impl Link {
    /// MTU 1500, every offload off, so that a packet that is counted is a packet that
    /// a modem would send.
    pub(crate) fn new() -> Outcome<Self> {
        if !rustix::process::geteuid().is_root() {
            return Err("network namespaces need root: `sudo -E make bench`".into());
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
        for (here, address) in [(GATEWAY, "10.77.0.1/30"), (BOARD, "10.77.0.2/30")] {
            // No IPv6: its neighbour discovery would be counted.
            inside(here, &["sysctl", "-q", "net.ipv6.conf.all.disable_ipv6=1"])?;
            run(&["ip", "-n", here, "link", "set", "air", "mtu", "1500"])?;
            let off = [
                "ethtool", "-K", "air", "tso", "off", "gso", "off", "gro", "off",
            ];
            inside(here, &off)
                .map_err(|error| format!("{error} (Debian: `apt-get install ethtool`)"))?;
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
    pub(crate) fn timestamps(&self, on: bool) -> Outcome {
        let value = format!("net.ipv4.tcp_timestamps={}", u8::from(on));
        inside(GATEWAY, &["sysctl", "-q", &value])?;
        inside(BOARD, &["sysctl", "-q", &value])
    }

    /// Both directions since the link was made. The interface counts frames; each has an
    /// Ethernet header of 14 bytes, which is taken off.
    #[expect(clippy::unused_self, reason = "only while the link is there")]
    pub(crate) fn crossed(&self) -> Outcome<Crossed> {
        let text = output(&[
            "ip", "-n", GATEWAY, "-s", "-j", "link", "show", "dev", "air",
        ])?;
        let shown: serde_json::Value = serde_json::from_str(&text)?;
        let count = |way: &str, what: &str| {
            shown[0]["stats64"][way][what]
                .as_u64()
                .ok_or_else(|| format!("`ip -s -j link` has no {way}/{what}"))
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

fn inside(namespace: &str, command: &[&str]) -> Outcome {
    let mut whole = vec!["ip", "netns", "exec", namespace];
    whole.extend(command);
    run(&whole)
}

fn run(command: &[&str]) -> Outcome {
    output(command).map(drop)
}

fn output(command: &[&str]) -> Outcome<String> {
    let failed = |why: &str| format!("`{}` failed: {why}", command.join(" "));
    let [program, args @ ..] = command else {
        return Ok(String::new());
    };
    let output = Command::new(program)
        .args(args)
        .output()
        .map_err(|error| failed(&error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim()).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
