//! Real agents as boards.

use super::Setup;
use super::clients::{hex, program};
use crate::Error;
use crate::site::{Device, PRODUCT, Site};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStderr};
use tokio::sync::watch;
use tokio::time::Instant;

/// How an agent is configured.
#[derive(Clone, Debug)]
pub(super) struct Settings<'a> {
    /// Where it dials.
    pub(super) gateway: SocketAddr,
    /// Longest record that it takes, in bytes.
    pub(super) receive_buffer: u16,
    /// Bytes on their way, most.
    pub(super) window: u32,
    /// The pin of the gateway's key, in hex: it dials over QUIC alone. None: over TCP alone.
    pub(super) pin: Option<&'a str>,
}

/// An agent that runs. It ends with this value.
#[derive(Debug)]
pub(super) struct Agent {
    _child: Child,
    /// When its first session was welcomed.
    online: watch::Receiver<Option<Instant>>,
}

impl Agent {
    /// Starts the agent that lies beside the gateway's program, `within` a network namespace
    /// where one is named.
    pub(super) fn start(
        setup: &Setup,
        site: &Site,
        device: &Device,
        settings: &Settings<'_>,
        within: Option<&str>,
    ) -> Result<Self, Error> {
        let path = setup.gateway.with_file_name("dialhome-agent");
        if !path.is_file() {
            return Err(Error::new(format!(
                "there is no agent at {}: build it with `cargo build --bins` in the same profile",
                path.display()
            )));
        }
        let config = site.folder().join(format!("{}.toml", device.id));
        write_config(&config, device, &site.trusted(), settings)
            .map_err(|error| Error::of(&config.display().to_string(), &error))?;
        let failed = |error: &dyn std::fmt::Display| Error::of("the agent", error);
        let mut child = program(&path, within)
            .arg("--config")
            .arg(&config)
            .arg("--state")
            .arg(site.folder().join(format!("{}.state", device.id)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .env_remove("RUST_LOG")
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(&error))?;
        let lines = child.stderr.take().ok_or_else(|| failed(&"no output"))?;
        let (tell, online) = watch::channel(None);
        tokio::spawn(hear(lines, tell));
        Ok(Self {
            _child: child,
            online,
        })
    }

    /// Waits until its first session was welcomed, and says when that was.
    pub(super) async fn online(&mut self, most: Duration) -> Result<Instant, Error> {
        let welcomed = self.online.wait_for(Option::is_some);
        match tokio::time::timeout(most, welcomed).await {
            Ok(Ok(at)) => Ok((*at).unwrap_or_else(Instant::now)),
            Ok(Err(_)) => Err(Error::new("an agent ended before it was welcomed")),
            Err(_) => Err(Error::new(format!(
                "an agent was not welcomed within {} s",
                most.as_secs()
            ))),
        }
    }
}

/// Reads what an agent logs, to its end, so that it never waits for a reader.
async fn hear(lines: ChildStderr, tell: watch::Sender<Option<Instant>>) {
    let mut lines = BufReader::new(lines).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if line.contains("online=true") {
            tell.send_if_modified(|at| at.replace(at.unwrap_or_else(Instant::now)).is_none());
        }
    }
}

fn write_config(
    path: &Path,
    device: &Device,
    trusted: &[u8; 32],
    settings: &Settings<'_>,
) -> std::io::Result<()> {
    let (pins, quic) = match settings.pin {
        Some(pin) => (format!("\"{pin}\""), "only"),
        None => (String::new(), "off"),
    };
    let text = format!(
        "id = \"{id}\"\nproduct = \"{PRODUCT}\"\nkey = \"{key}\"\ngateways = [\"{gateway}\"]\npins = [{pins}]\n\n\
         [trust]\nepoch = 1\nthreshold = 1\nkeys = [\"{trusted}\"]\n\n\
         [reconnect]\nfirst_ms = 20\nmax_ms = 1000\n\n\
         [agent]\nlog = \"info\"\nping_s = 3600\nreceive_buffer = {buffer}\nwindow = {window}\nquic = \"{quic}\"\n",
        id = device.id,
        key = hex(&device.key),
        gateway = settings.gateway,
        trusted = hex(trusted),
        buffer = settings.receive_buffer,
        window = settings.window,
    );
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}
