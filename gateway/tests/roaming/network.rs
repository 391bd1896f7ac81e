//! Three network namespaces: a board behind a router that translates addresses, and a gateway outside.
//!
//! ```text
//! board ── 192.168.7.0/24 ── router ── 198.51.100.0/24 ── gateway
//!      └── 192.168.8.0/24 ──┘   (a second way, such as another radio)
//! ```
//!
//! Everything is made here and goes with the value. What an interrupted run has left goes at the next one's start.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use dialhome_gateway::demo::site::Programs;
use tempfile::TempDir;

/// Names of namespaces are this, the id of the process that made them, a number and the place.
const PREFIX: &str = "dialhome-roaming-";
/// Where the gateway listens, over TCP and UDP.
pub(super) const GATEWAY: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), 7040);

static SWEPT: Once = Once::new();
static MADE: AtomicU64 = AtomicU64::new(0);

/// The network. Dropping it removes all of it.
pub(super) struct Network {
    board: String,
    router: String,
    gateway: String,
    scripts: TempDir,
}

/// nftables of the router. A port that a mapping once had is not given to the next one, and what comes for a mapping
/// that is no more is dropped without an answer, as carriers do.
const RULES: &str = "
table ip roaming {
    counter tried { }
    chain counting {
        type filter hook prerouting priority raw; policy accept;
        iifname != \"outer\" udp dport 7040 counter name tried
    }
    chain forward {
        type filter hook forward priority filter; policy accept;
    }
    chain input {
        type filter hook input priority filter; policy accept;
        iifname \"outer\" drop
    }
    chain translate {
        type nat hook postrouting priority srcnat; policy accept;
        oifname \"outer\" masquerade fully-random
    }
}
";

impl Network {
    pub(super) fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "network namespaces need root: run this test as root"
        );
        SWEPT.call_once(sweep);
        let made = MADE.fetch_add(1, Ordering::Relaxed);
        let name = |place: &str| format!("{PREFIX}{}-{made}-{place}", std::process::id());
        let network = Self {
            board: name("board"),
            router: name("router"),
            gateway: name("gateway"),
            scripts: tempfile::tempdir().expect("a temporary directory"),
        };
        network.build();
        network
    }

    fn build(&self) {
        let Self {
            board,
            router,
            gateway,
            ..
        } = self;
        for place in [board, router, gateway] {
            run(&["ip", "netns", "add", place]);
            run(&["ip", "-n", place, "link", "set", "lo", "up"]);
        }
        let links = [
            (router, "outer", gateway, "air"),
            (router, "inner", board, "near"),
            (router, "second", board, "other"),
        ];
        for (here, link, there, peer) in links {
            run(&[
                "ip", "-n", here, "link", "add", link, "type", "veth", "peer", "name", peer,
                "netns", there,
            ]);
        }
        let addresses = [
            (gateway, "air", "198.51.100.1/24"),
            (router, "outer", "198.51.100.2/24"),
            (router, "inner", "192.168.7.1/24"),
            (router, "second", "192.168.8.1/24"),
            (board, "near", "192.168.7.2/24"),
            (board, "other", "192.168.8.2/24"),
        ];
        for (place, link, address) in addresses {
            run(&["ip", "-n", place, "addr", "add", address, "dev", link]);
            run(&["ip", "-n", place, "link", "set", link, "up"]);
        }
        self.route("192.168.7.1");
        self.within(router, &["sysctl", "-q", "net.ipv4.ip_forward=1"]);
        self.nft(RULES);
    }

    fn within(&self, place: &str, command: &[&str]) -> String {
        let mut whole = vec!["ip", "netns", "exec", place];
        whole.extend(command);
        run(&whole)
    }

    fn nft(&self, rules: &str) {
        let file = self.scripts.path().join("rules");
        std::fs::write(&file, rules).expect("a file of rules");
        let file = file.to_str().expect("a path in UTF-8");
        self.within(&self.router, &["nft", "-f", file]);
    }

    /// The two programs, as ones that run at their place of the network. They end with the test.
    pub(super) fn programs(&self, programs: &Programs) -> Programs {
        let script = |name: &str, text: String| {
            let file = self.scripts.path().join(name);
            std::fs::write(&file, text).expect("a script");
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&file, mode).expect("its mode");
            file
        };
        let enter = |place: &str| format!("exec setpriv --pdeathsig KILL ip netns exec {place}");
        let (dialhome, agent) = (programs.dialhome.display(), programs.agent.display());
        Programs {
            // The operator's commands go by the file system.
            dialhome: script(
                "dialhome",
                format!(
                    "#!/bin/sh\ncase \"$1\" in serve) {} '{dialhome}' \"$@\" ;; esac\nexec '{dialhome}' \"$@\"\n",
                    enter(&self.gateway)
                ),
            ),
            agent: script(
                "agent",
                format!("#!/bin/sh\n{} '{agent}' \"$@\"\n", enter(&self.board)),
            ),
        }
    }

    /// The board's way out.
    fn route(&self, by: &str) {
        run(&[
            "ip",
            "-n",
            &self.board,
            "route",
            "replace",
            "default",
            "via",
            by,
        ]);
    }

    /// So many kilobits a second to the board, on both of its ways; the router keeps what is too much for a while.
    pub(super) fn slow(&self, kbit: u32) {
        let rate = format!("{kbit}kbit");
        for link in ["inner", "second"] {
            run(&[
                "tc",
                "-n",
                &self.router,
                "qdisc",
                "add",
                "dev",
                link,
                "root",
                "tbf",
                "rate",
                &rate,
                "burst",
                "3000",
                "latency",
                "300ms",
            ]);
        }
    }

    /// The router forgets its mappings.
    pub(super) fn forget(&self) {
        self.within(&self.router, &["conntrack", "--flush"]);
    }

    /// The router gets another address outside, and its old one is gone.
    pub(super) fn move_router(&self) {
        let addresses = ["198.51.100.2/24", "198.51.100.77/24"];
        readdress(&self.router, "outer", addresses);
    }

    /// The board gets another address in its network, and its old one is gone.
    pub(super) fn move_board(&self) {
        readdress(&self.board, "near", ["192.168.7.2/24", "192.168.7.33/24"]);
        self.route("192.168.7.1");
    }

    /// The board goes out by its other interface; the first one is no more.
    pub(super) fn other_interface(&self) {
        run(&["ip", "-n", &self.board, "link", "set", "near", "down"]);
        self.route("192.168.8.1");
    }

    /// Nothing passes the router.
    pub(super) fn dark(&self) {
        self.nft("add rule ip roaming forward drop\n");
    }

    /// No UDP passes the router.
    pub(super) fn block_udp(&self) {
        self.nft("add rule ip roaming forward meta l4proto udp drop\n");
    }

    /// Everything passes again.
    pub(super) fn pass(&self) {
        self.nft("flush chain ip roaming forward\n");
    }

    /// Datagrams to the gateway's port that have come to the router, whether they passed or not.
    pub(super) fn udp_tried(&self) -> u64 {
        let text = self.within(
            &self.router,
            &["nft", "-j", "list", "counter", "ip", "roaming", "tried"],
        );
        let listed: serde_json::Value = serde_json::from_str(&text).expect("JSON of nft");
        let entries = listed["nftables"].as_array().expect("a list");
        let packets = entries
            .iter()
            .find_map(|entry| entry["counter"]["packets"].as_u64());
        packets.unwrap_or_else(|| panic!("no counter in {text}"))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for place in [&self.board, &self.router, &self.gateway] {
            remove(place);
        }
    }
}

/// The old one first: an address that is the second of its network goes with the first.
fn readdress(place: &str, link: &str, [old, new]: [&str; 2]) {
    run(&["ip", "-n", place, "addr", "del", old, "dev", link]);
    run(&["ip", "-n", place, "addr", "add", new, "dev", link]);
}

/// Ends what still runs in it, and removes it.
fn remove(namespace: &str) {
    let quietly = |command: &[&str]| {
        let output = Command::new(command[0]).args(&command[1..]).output();
        output.map_or(String::new(), |output| {
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
    };
    let pids = quietly(&["ip", "netns", "pids", namespace]);
    for pid in pids.split_whitespace() {
        quietly(&["kill", "-9", pid]);
    }
    quietly(&["ip", "netns", "delete", namespace]);
}

/// Removes the namespaces of processes that are no more.
fn sweep() {
    for line in run(&["ip", "netns", "list"]).lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        let pid = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove(name);
        }
    }
}

#[track_caller]
fn run(command: &[&str]) -> String {
    let whole = command.join(" ");
    let output = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("`{whole}`: {error}; install what .ci/packages lists"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "`{whole}` failed: {}; it needs what .ci/packages lists, and a kernel with nftables' NAT",
        stderr.trim()
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
