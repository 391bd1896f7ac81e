//! The agent's configuration: the provisioning file as `dialhome device add` writes it,
//! and the agent's own settings in tables of the same file.
//!
//! What the gateway has changed in band since (key, list of gateways, trust) is in the
//! state directory and goes before this file.

use core::fmt;
use std::{
    borrow::ToOwned as _,
    format,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    string::{String, ToString as _},
    time::Duration,
    vec::Vec,
};

use dialhome_proto::{
    code::Link,
    id, limits, statement,
    trust::{TrustFault, TrustSet},
};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::component::{self, Commands, Component, RawComponent};

/// Least and most seconds that a command may be given.
const TIMEOUT_S: core::ops::RangeInclusive<u64> = 1..=24 * 3600;

/// Receive buffers that the agent is built with, in bytes of ciphertext: for chunks of
/// 1 KiB as a small board takes them, of 4 KiB, and the largest.
pub const RECEIVE_BUFFERS: [u16; 3] = [1088, 4126, 16_384];

/// Everything that the agent is told from outside, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The device's id, a name (spec/frames.md section 3).
    pub id: String,
    /// The product's name.
    pub product: String,
    /// The device key as provisioned.
    pub key: DeviceKey,
    /// Gateways as provisioned, `HOST:PORT`, 1..=4, in the order of dialling.
    pub gateways: Vec<String>,
    /// Pins of the gateways' keys, for suites that use them.
    pub pins: Vec<[u8; 32]>,
    /// Whom the board trusts, as provisioned; without one it refuses every update.
    pub trust: Option<TrustSet>,
    /// Table `[agent]`.
    pub agent: Agent,
    /// Table `[reconnect]`.
    pub reconnect: Reconnect,
    /// Tables `[install]`, `[running]` and `[self_test]`: those of component 0.
    pub commands: Commands,
    /// Tables `[[component]]`: the others, in the order of their numbers.
    pub components: Vec<Component>,
    /// Whether others than the owner may read the file, which holds the key.
    pub readable_by_others: bool,
}

/// The 32 bytes of a device key. Never printed, wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct DeviceKey(pub Zeroizing<[u8; 32]>);

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceKey(..)")
    }
}

/// Settings of the client itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Hardware revision, 0 by default.
    pub hardware: u16,
    /// Name of the network, at most 32 bytes; empty by default.
    pub network: String,
    /// Kind of link, `unknown` by default.
    pub link: Link,
    /// Largest image that is accepted, in bytes; 1 GiB by default.
    pub slot_size: u32,
    /// Most payload bytes sent and not committed; 256 KiB by default.
    pub window: u32,
    /// Longest ciphertext of one record, one of [`RECEIVE_BUFFERS`]; 4,126 by default,
    /// which holds a 4 KiB chunk.
    pub receive_buffer: u16,
    /// Progress is noted in the journal once in so many committed bytes: as many may be
    /// sent again after the agent was killed. Half the window by default.
    pub claim_bytes: u32,
    /// Worst time of one commit as told to the gateway, in milliseconds; 10,000 by default.
    pub commit_ms: u32,
    /// Ping interval until the gateway advises another, in seconds; 300 by default.
    pub ping_s: u32,
    /// Time for one dial, name and connection, in milliseconds; 20,000 by default.
    pub connect_ms: u32,
    /// Whether the gateway is dialled over QUIC; [`Quic::Prefer`] by default.
    pub quic: Quic,
    /// Longest silence of a QUIC connection, in seconds, so that a NAT does not forget it; 25 by
    /// default, 0: as long as `ping_s` lets it be.
    pub quic_keepalive_s: u32,
    /// Log filter as of `RUST_LOG`, which goes before it; `info` by default.
    pub log: String,
    /// Component 0 is the agent's own executable; not by default.
    pub self_update: bool,
    /// An agent on trial that gives no sign of life for so long is ended by its launcher,
    /// in seconds; 120 by default.
    pub heartbeat_s: u32,
    /// The gateway may read the end of the log; it may by default.
    pub remote_log: bool,
}

/// Whether gateways are dialled over QUIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quic {
    /// QUIC first, and TCP where it does not come up. TCP alone where the provisioning file
    /// pins no gateway's key, or the agent was built without QUIC.
    Prefer,
    /// TCP alone.
    Off,
    /// QUIC alone: without it there is no session.
    Only,
}

/// Waits between dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reconnect {
    /// Upper bound of the first wait, in milliseconds; 1,000 by default. It doubles
    /// with each failure.
    pub first_ms: u32,
    /// Upper bound of any wait, in milliseconds; 900,000 by default. A refused key goes
    /// straight to it.
    pub max_ms: u32,
}

/// A command that the agent runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandSettings {
    /// Program and arguments; no shell between.
    pub command: Vec<String>,
    /// It is ended when it runs longer.
    pub timeout: Duration,
}

/// Why a configuration was refused: the file, the place, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError {
    path: PathBuf,
    place: Option<String>,
    problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "configuration {}", self.path.display())?;
        if let Some(place) = &self.place {
            write!(f, ", {place}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl core::error::Error for ConfigError {}

/// One key's problem, before the file's name is known.
pub(super) struct Fault {
    key: String,
    problem: String,
}

pub(super) fn fault<T>(key: impl Into<String>, problem: impl Into<String>) -> Result<T, Fault> {
    Err(Fault {
        key: key.into(),
        problem: problem.into(),
    })
}

impl Config {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML, has a key that does not belong there, or a
    /// value that cannot be used. The message never shows the device key.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let refuse = |problem: String| ConfigError {
            path: path.to_owned(),
            place: None,
            problem,
        };
        let text = std::fs::read_to_string(path).map(Zeroizing::new).map_err(|error| {
            refuse(format!(
                "cannot be read: {error}. Give --config the file that `dialhome device add --out FILE` wrote"
            ))
        })?;
        let mode = std::fs::metadata(path).map_or(0, |meta| meta.permissions().mode());
        let mut config = Self::parse(&text, path)?;
        config.readable_by_others = mode & 0o077 != 0;
        Ok(config)
    }

    /// Checks the text of a configuration; `path` is for the messages.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let error = |place: Option<String>, problem: String| ConfigError {
            path: path.to_owned(),
            place,
            problem,
        };
        // The parser's own rendering quotes the line, which may be the key's: only its
        // message and the line number are used.
        let raw: RawConfig = toml::from_str(text).map_err(|fault| {
            let place = fault
                .span()
                .and_then(|span| text.get(..span.start))
                .map(|before| format!("line {}", before.matches('\n').count() + 1));
            error(place, advise(&without_values(fault.message())))
        })?;
        raw.check()
            .map_err(|fault| error(Some(format!("key `{}`", fault.key)), fault.problem))
    }

    /// Replaces the provisioned list by one gateway, as `--gateway` does.
    ///
    /// # Errors
    /// A sentence, where it is not `HOST:PORT`.
    pub fn set_gateway(&mut self, gateway: &str) -> Result<(), String> {
        if !statement::is_endpoint(gateway) {
            return Err(format!(
                "`{gateway}` is not a gateway: give HOST:PORT, an IPv6 address in brackets, at most {} bytes",
                limits::GATEWAY_MAX
            ));
        }
        self.gateways = std::vec![gateway.to_owned()];
        Ok(())
    }
}

/// Adds what to do about the parser's message.
fn advise(message: &str) -> String {
    let message = message.trim_end_matches('.');
    let advice = if message.starts_with("unknown field") {
        "Correct its spelling or remove it; keys of the agent's own settings stand in tables such as [agent]"
    } else if message.starts_with("missing field") {
        "Add it, or write the file again with `dialhome device add`"
    } else {
        "Correct this line; device-client/README.md lists every key"
    };
    format!("{message}. {advice}")
}

/// serde's "invalid type: string "SECRET"" shows the value: leave it out.
fn without_values(message: &str) -> String {
    match (message.starts_with("invalid"), message.find(", expected ")) {
        (true, Some(expected)) => {
            let kind = message.split(':').next().unwrap_or("invalid value");
            format!("{kind}{}", &message[expected..])
        }
        _ => message.to_owned(),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    id: String,
    product: String,
    key: String,
    gateways: Vec<String>,
    #[serde(default)]
    pins: Vec<String>,
    trust: Option<RawTrust>,
    #[serde(default)]
    agent: RawAgent,
    #[serde(default)]
    reconnect: RawReconnect,
    install: Option<RawCommand>,
    running: Option<RawCommand>,
    self_test: Option<RawCommand>,
    #[serde(default)]
    component: Vec<RawComponent>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTrust {
    epoch: u32,
    #[serde(default = "one")]
    threshold: u8,
    keys: Vec<String>,
    #[serde(default)]
    minimums: Vec<RawMinimum>,
}

const fn one() -> u8 {
    1
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMinimum {
    component: u8,
    counter: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawAgent {
    hardware: u16,
    network: String,
    link: String,
    slot_size: u32,
    window: u32,
    receive_buffer: u16,
    claim_bytes: u32,
    commit_ms: u32,
    ping_s: u32,
    connect_ms: u32,
    quic: String,
    quic_keepalive_s: u32,
    log: String,
    self_update: bool,
    heartbeat_s: u32,
    remote_log: bool,
}

impl Default for RawAgent {
    fn default() -> Self {
        Self {
            hardware: 0,
            network: String::new(),
            link: "unknown".to_owned(),
            slot_size: 1 << 30,
            window: 256 * 1024,
            receive_buffer: 4126,
            claim_bytes: 0,
            commit_ms: 10_000,
            ping_s: 300,
            connect_ms: 20_000,
            quic: "prefer".to_owned(),
            quic_keepalive_s: 25,
            log: "info".to_owned(),
            self_update: false,
            heartbeat_s: 120,
            remote_log: true,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawReconnect {
    first_ms: u32,
    max_ms: u32,
}

impl Default for RawReconnect {
    fn default() -> Self {
        Self {
            first_ms: 1000,
            max_ms: 900_000,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCommand {
    command: Vec<String>,
    timeout_s: Option<u64>,
}

impl RawConfig {
    fn check(self) -> Result<Config, Fault> {
        let key = Zeroizing::new(self.key);
        let name = |key, value: &str| {
            if id::is_name(value) {
                return Ok(());
            }
            fault(
                key,
                format!("`{value}` is not a name. Use 1 to 64 of the characters A-Z a-z 0-9 _ -"),
            )
        };
        name("id", &self.id)?;
        name("product", &self.product)?;
        let mut bytes = Zeroizing::new([0; 32]);
        if !id::decode_hex(&key, &mut *bytes) {
            return fault(
                "key",
                format!(
                    "it must be 64 hexadecimal digits, and has {} characters or others. Copy it again from `dialhome device add`",
                    key.chars().count()
                ),
            );
        }
        if self.gateways.is_empty() || self.gateways.len() > limits::GATEWAYS_MAX {
            return fault(
                "gateways",
                format!(
                    "it names {}; give 1 to {}",
                    self.gateways.len(),
                    limits::GATEWAYS_MAX
                ),
            );
        }
        if let Some(wrong) = self
            .gateways
            .iter()
            .find(|text| !statement::is_endpoint(text))
        {
            return fault(
                "gateways",
                format!(
                    "`{wrong}` is not HOST:PORT. Write the port, and an IPv6 address in brackets"
                ),
            );
        }
        let agent = self.agent.check()?;
        for (key, table) in [("install", &self.install), ("running", &self.running)] {
            if agent.self_update && table.is_some() {
                return fault(
                    key,
                    "with agent.self_update component 0 is the agent itself, which needs no such command. Remove it, or give it to a [[component]]",
                );
            }
        }
        let pins = digests("pins", &self.pins)?;
        if agent.quic == Quic::Only && pins.is_empty() {
            return fault(
                "agent.quic",
                "\"only\" needs `pins`, by which the gateway's key is known. Copy them from `dialhome status`, or use \"prefer\"",
            );
        }
        Ok(Config {
            id: self.id,
            product: self.product,
            key: DeviceKey(bytes),
            gateways: self.gateways,
            pins,
            trust: self.trust.map(RawTrust::check).transpose()?,
            components: component::check(self.component, &agent)?,
            agent,
            reconnect: self.reconnect.check()?,
            commands: Commands {
                install: command("install", self.install, 600)?,
                running: command("running", self.running, 60)?,
                self_test: command("self_test", self.self_test, 60)?,
                revert: None,
            },
            readable_by_others: false,
        })
    }
}

fn digests(key: &'static str, texts: &[String]) -> Result<Vec<[u8; 32]>, Fault> {
    let mut out = Vec::with_capacity(texts.len());
    for text in texts {
        let mut bytes = [0; 32];
        if !id::decode_hex(text, &mut bytes) {
            return fault(
                key,
                format!("`{text}` is not 64 hexadecimal digits. Copy it again"),
            );
        }
        out.push(bytes);
    }
    Ok(out)
}

impl RawTrust {
    fn check(self) -> Result<TrustSet, Fault> {
        let mut set = TrustSet {
            epoch: self.epoch,
            threshold: self.threshold,
            keys: heapless_keys(&digests("trust.keys", &self.keys)?)?,
            minimums: Default::default(),
        };
        for minimum in &self.minimums {
            if set
                .minimums
                .push((minimum.component, minimum.counter))
                .is_err()
            {
                return fault(
                    "trust.minimums",
                    format!(
                        "there are {}; at most {} fit",
                        self.minimums.len(),
                        limits::TRUST_MINIMUMS_MAX
                    ),
                );
            }
        }
        let Err(wrong) = set.validate() else {
            return Ok(set);
        };
        let key = match wrong {
            TrustFault::EpochZero => "trust.epoch",
            TrustFault::Threshold => "trust.threshold",
            TrustFault::DuplicateMinimum => "trust.minimums",
            TrustFault::NoKeys | TrustFault::DuplicateKey | TrustFault::Malformed => "trust.keys",
        };
        fault(
            key,
            format!("{wrong}. Correct it, or remove [trust] for a board that takes no updates"),
        )
    }
}

fn heapless_keys<const N: usize>(keys: &[[u8; 32]]) -> Result<heapless::Vec<[u8; 32], N>, Fault> {
    heapless::Vec::from_slice(keys).or_else(|_| {
        fault(
            "trust.keys",
            format!("there are {}; at most {N} fit", keys.len()),
        )
    })
}

impl RawAgent {
    fn check(self) -> Result<Agent, Fault> {
        if self.network.len() > limits::NETWORK_MAX {
            return fault(
                "agent.network",
                format!(
                    "it has {} bytes; at most {} fit",
                    self.network.len(),
                    limits::NETWORK_MAX
                ),
            );
        }
        let Some(link) = Link::NAMED
            .iter()
            .find(|link| link.name() == Some(&*self.link))
        else {
            let names: Vec<_> = Link::NAMED.iter().filter_map(|link| link.name()).collect();
            return fault(
                "agent.link",
                format!(
                    "`{}` is no kind of link. Use one of {}",
                    self.link,
                    names.join(", ")
                ),
            );
        };
        if !RECEIVE_BUFFERS.contains(&self.receive_buffer) {
            let [small, usual, large] = RECEIVE_BUFFERS;
            return fault(
                "agent.receive_buffer",
                format!(
                    "{} is not one of {small}, {usual}, {large}. Use one of them",
                    self.receive_buffer
                ),
            );
        }
        if self.slot_size == 0 {
            return fault(
                "agent.slot_size",
                "0 holds no image. Give the bytes of the largest image",
            );
        }
        let window_min = u32::from(self.receive_buffer);
        if self.window < window_min {
            return fault(
                "agent.window",
                format!(
                    "{} is less than one record. Give at least agent.receive_buffer, {window_min}",
                    self.window
                ),
            );
        }
        let claim_bytes = if self.claim_bytes == 0 {
            self.window / 2
        } else {
            self.claim_bytes
        };
        if claim_bytes > self.window {
            return fault(
                "agent.claim_bytes",
                format!(
                    "{claim_bytes} is more than agent.window, {}. Give less, or leave it out",
                    self.window
                ),
            );
        }
        if self.commit_ms == 0 || self.commit_ms > 600_000 {
            return fault("agent.commit_ms", between(&1, &600_000));
        }
        if self.ping_s == 0 || self.ping_s > *limits::PING_S.end() {
            return fault("agent.ping_s", between(&1, limits::PING_S.end()));
        }
        if self.connect_ms < 100 || self.connect_ms > 300_000 {
            return fault("agent.connect_ms", between(&100, &300_000));
        }
        let quic = quic(&self.quic)?;
        if self.quic_keepalive_s > *limits::PING_S.end() {
            return fault("agent.quic_keepalive_s", between(&0, limits::PING_S.end()));
        }
        if self.heartbeat_s == 0 || self.heartbeat_s > 3600 {
            return fault("agent.heartbeat_s", between(&1, &3600));
        }
        Ok(Agent {
            hardware: self.hardware,
            network: self.network,
            link: *link,
            slot_size: self.slot_size,
            window: self.window,
            receive_buffer: self.receive_buffer,
            claim_bytes,
            commit_ms: self.commit_ms,
            ping_s: self.ping_s,
            connect_ms: self.connect_ms,
            quic,
            quic_keepalive_s: self.quic_keepalive_s,
            log: self.log,
            self_update: self.self_update,
            heartbeat_s: self.heartbeat_s,
            remote_log: self.remote_log,
        })
    }
}

fn quic(name: &str) -> Result<Quic, Fault> {
    match name {
        "prefer" => Ok(Quic::Prefer),
        "off" => Ok(Quic::Off),
        "only" if cfg!(feature = "quic") => Ok(Quic::Only),
        "only" => fault(
            "agent.quic",
            "this agent was built without QUIC. Use one that has it, or \"prefer\"",
        ),
        _ => fault(
            "agent.quic",
            format!("`{name}` is no choice. Use \"prefer\", \"off\" or \"only\""),
        ),
    }
}

fn between(least: &impl fmt::Display, most: &impl fmt::Display) -> String {
    format!("out of range. Give a value from {least} to {most}")
}

impl RawReconnect {
    fn check(self) -> Result<Reconnect, Fault> {
        if self.first_ms == 0 {
            return fault(
                "reconnect.first_ms",
                "0 would dial without a pause. Give at least 1",
            );
        }
        if self.max_ms < self.first_ms {
            return fault(
                "reconnect.max_ms",
                format!(
                    "{} is below reconnect.first_ms, {}. Raise it",
                    self.max_ms, self.first_ms
                ),
            );
        }
        Ok(Reconnect {
            first_ms: self.first_ms,
            max_ms: self.max_ms,
        })
    }
}

pub(super) fn command(
    table: impl Into<String>,
    raw: Option<RawCommand>,
    default_s: u64,
) -> Result<Option<CommandSettings>, Fault> {
    let Some(raw) = raw else { return Ok(None) };
    let table = table.into();
    if raw.command.first().is_none_or(String::is_empty) {
        return fault(
            table,
            "`command` is empty. Give a list: program, then arguments",
        );
    }
    let seconds = raw.timeout_s.unwrap_or(default_s);
    if !TIMEOUT_S.contains(&seconds) {
        return fault(
            table,
            format!(
                "`timeout_s` is {}",
                between(&TIMEOUT_S.start().to_string(), TIMEOUT_S.end())
            ),
        );
    }
    Ok(Some(CommandSettings {
        command: raw.command,
        timeout: Duration::from_secs(seconds),
    }))
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
