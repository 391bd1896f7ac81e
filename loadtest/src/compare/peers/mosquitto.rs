//! The MQTT broker mosquitto, from Debian.

use super::{Server, installed, listen_on, write};
use crate::Error;
use crate::compare::clients::{Seat, hex};
use crate::site::leash;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

/// A broker, and where it listens.
#[derive(Debug)]
pub(in crate::compare) struct Mosquitto {
    pub(in crate::compare) server: Server,
    pub(in crate::compare) address: SocketAddr,
    /// A user beside the clients, who publishes.
    pub(in crate::compare) publisher: Seat,
    /// And another one.
    pub(in crate::compare) other_publisher: Seat,
}

/// All that is not said here is mosquitto's own default.
fn config(address: SocketAddr, passwords: &str) -> String {
    format!(
        "\
# Nothing on disk, nothing said: both cost time.
persistence false
log_dest none
sys_interval 0
# Started by root it would change to a user that cannot read this folder.
user root
listener {port} {ip}
max_connections -1
allow_anonymous false
password_file {passwords}
# No Nagle: a message leaves when it is published.
set_tcp_nodelay true
# As many unacknowledged messages as Dialhome's window of 256 KiB holds chunks of 4 KiB,
# and none that waits is thrown away.
max_inflight_messages 64
max_queued_messages 0
max_queued_bytes 0
",
        port = address.port(),
        ip = address.ip(),
    )
}

impl Mosquitto {
    /// Starts a broker that knows these users, on loopback or at `address` within a network
    /// namespace.
    pub(in crate::compare) async fn start(
        seats: &[Seat],
        address: Option<IpAddr>,
        within: Option<&str>,
    ) -> Result<Self, Error> {
        let program = installed("mosquitto", "mosquitto")?;
        let hasher = installed("mosquitto_passwd", "mosquitto")?;
        let folder = leash::folder("mosquitto")?;
        let address = listen_on(address, 1883)?;
        let [publisher, other_publisher] = ["publisher", "publisher-2"].map(|id| Seat {
            id: id.into(),
            key: [0xa5; 32],
            source: None,
        });
        let mut lines = String::new();
        for seat in seats.iter().chain([&publisher, &other_publisher]) {
            let _ = writeln!(lines, "{}:{}", seat.id, hex(&seat.key));
        }
        let passwords = folder.path().join("passwords");
        write(&passwords, lines)?;
        // Hashes all of them in place: PBKDF2 with SHA-512, mosquitto's own way.
        let hashed = tokio::process::Command::new(hasher)
            .arg("-U")
            .arg(&passwords)
            .output()
            .await
            .map_err(|error| Error::of("mosquitto_passwd", &error))?;
        if !hashed.status.success() {
            let said = String::from_utf8_lossy(&hashed.stderr).into_owned();
            return Err(Error::of("mosquitto_passwd", &said));
        }
        let config_file = folder.path().join("mosquitto.conf");
        write(
            &config_file,
            config(address, &passwords.display().to_string()),
        )?;
        let config_file = config_file.display().to_string();
        let arguments = ["-c", &config_file];
        let server = Server::start(&program, &arguments, folder, &[address.port()], within).await?;
        Ok(Self {
            server,
            address,
            publisher,
            other_publisher,
        })
    }
}
