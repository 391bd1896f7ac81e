//! Scenario files: what a run plays, and the limits that it must keep (`SCENARIOS.md`).

mod builtin;
mod check;

pub use builtin::NAMES;

use crate::Error;
use crate::fleet::words::{Client, Link, Mischief, NatThen};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use toml::Spanned;

/// A scenario, as its file has it, checked.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name: that of the file, without the ending.
    pub name: String,
    /// The file's text.
    pub text: String,
    /// What is in it.
    pub plan: Plan,
    /// The links, with presets filled in, and the share of boards that has each (they add up to 1).
    pub links: Vec<(Link, f64)>,
}

/// The file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// What the scenario is for, in a sentence.
    pub about: String,
    /// The boards.
    fleet: Spanned<Fleet>,
    /// The images that are pushed.
    image: Option<Spanned<Image>>,
    /// How the boards' clients are configured.
    client: Option<Spanned<ClientPlan>>,
    /// The boards' links; none is `loopback` for all.
    #[serde(default, rename = "link")]
    links: Vec<Spanned<LinkPlan>>,
    /// Further arguments of `dialhome serve`: `name = value` is `--name value`.
    #[serde(default)]
    gateway: BTreeMap<Spanned<String>, toml::Value>,
    /// What happens, one after the other.
    #[serde(default, rename = "step")]
    steps: Vec<Spanned<Step>>,
    /// When the run ends.
    end: Spanned<End>,
    /// What the run must keep to, by the metric's name.
    #[serde(default)]
    limits: BTreeMap<Spanned<String>, Spanned<Bound>>,
}

/// The boards.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fleet {
    /// How many.
    pub boards: usize,
    /// Processes that play them; without it one for each 4,000.
    pub crews: Option<usize>,
    /// Networks (/24) that they dial from.
    #[serde(default = "one")]
    pub networks: usize,
    /// How they are switched on.
    #[serde(default)]
    pub arrive: Arrival,
    /// Over how many seconds.
    #[serde(default)]
    pub over_s: f64,
}

const fn one() -> usize {
    1
}

/// How boards are switched on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrival {
    /// All at once.
    #[default]
    AtOnce,
    /// One after the other, at the same distance.
    Evenly,
    /// One after the other, at distances that are drawn: as many in each second on average.
    Poisson,
}

/// The images.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Size of each in KiB.
    pub kib: usize,
}

impl Default for Image {
    fn default() -> Self {
        Self { kib: 64 }
    }
}

/// How the boards' clients are configured; what is left out is as a small board on a
/// microcontroller has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientPlan {
    /// Bytes of a record that a board takes.
    pub receive_buffer: u16,
    /// Bytes that may be on their way.
    pub window: u32,
    /// Erase unit of the slot in bytes.
    pub erase_unit: u32,
    /// Seconds between pings.
    pub ping_s: u32,
    /// First and longest wait before a board dials again, in milliseconds.
    pub redial_ms: [u32; 2],
    /// Time that a board is off when it restarts into an image, in milliseconds.
    pub restart_ms: u32,
}

impl Default for ClientPlan {
    fn default() -> Self {
        Self {
            receive_buffer: 1_088,
            window: 16 * 1_024,
            erase_unit: 4_096,
            ping_s: 600,
            redial_ms: [200, 5_000],
            restart_ms: 500,
        }
    }
}

impl ClientPlan {
    /// As a crew is told.
    #[must_use]
    pub fn words(&self) -> Client {
        Client {
            receive_buffer: self.receive_buffer,
            window: self.window,
            erase_unit: self.erase_unit,
            ping_s: self.ping_s,
            redial_ms: self.redial_ms,
            restart_ms: self.restart_ms,
        }
    }
}

/// A link: a preset, or a name of its own, and what differs from it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LinkPlan {
    preset: Option<String>,
    name: Option<String>,
    share: Option<f64>,
    down_bits_per_s: Option<u64>,
    up_bits_per_s: Option<u64>,
    round_trip_ms: Option<u32>,
    jitter_ms: Option<u32>,
    stall_every_s: Option<u32>,
    stall_ms: Option<[u32; 2]>,
    blackout_every_s: Option<u32>,
    blackout_ms: Option<[u32; 2]>,
    nat_idle_s: Option<u32>,
    nat_then: Option<NatThen>,
}

/// What a step or the end waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum After {
    /// The step before it.
    #[default]
    Step,
    /// The begin of the run: the wait is then a time of the run.
    Begin,
    /// Every board has a session, and outages that steps began are over.
    Online,
    /// Every update has ended.
    Settled,
    /// Both: every update has ended, and every board has a session.
    AtRest,
}

/// Something that happens.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What it waits for first.
    #[serde(default)]
    pub after: After,
    /// And then so many seconds.
    #[serde(default)]
    pub wait_s: f64,
    /// The next image is pushed to boards.
    push: Option<Push>,
    /// The gateway is restarted.
    restart: Option<Restart>,
    /// The link of boards is down.
    blackout: Option<Outage>,
    /// The power of boards is cut.
    power_cut: Option<Outage>,
    /// Peers that are no good boards begin.
    abuse: Option<Abuse>,
}

/// What a step does.
#[derive(Clone, Debug)]
pub enum Action {
    /// See [`Push`].
    Push(Push),
    /// See [`Restart`].
    Restart(Restart),
    /// The link of boards is down.
    Blackout(Outage),
    /// The power of boards is cut.
    PowerCut(Outage),
    /// See [`Abuse`].
    Abuse(Abuse),
}

impl Step {
    /// What it does; None where it is not exactly one thing, which no checked scenario has.
    #[must_use]
    pub fn action(&self) -> Option<Action> {
        let mut actions = [
            self.push.clone().map(Action::Push),
            self.restart.clone().map(Action::Restart),
            self.blackout.clone().map(Action::Blackout),
            self.power_cut.clone().map(Action::PowerCut),
            self.abuse.clone().map(Action::Abuse),
        ]
        .into_iter()
        .flatten();
        let action = actions.next()?;
        actions.next().is_none().then_some(action)
    }
}

impl Action {
    /// In words, for the report.
    #[must_use]
    pub fn words(&self) -> String {
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        match self {
            Self::Push(push) => format!(
                "an image is pushed to {} of the boards",
                percent(push.share)
            ),
            Self::Restart(Restart { how, down_s }) => {
                let how = match how {
                    HowEnded::InOrder => "ends in order",
                    HowEnded::Kill => "is killed (SIGKILL)",
                };
                format!("the gateway {how} and is back after {down_s} s")
            }
            Self::Blackout(outage) => format!(
                "{} of the boards have no link for {} s",
                percent(outage.share),
                outage.for_s
            ),
            Self::PowerCut(outage) => format!(
                "{} of the boards have no power for {} s",
                percent(outage.share),
                outage.for_s
            ),
            Self::Abuse(abuse) => format!(
                "abusive peers begin: {} silent, {} half-open, {} with unknown handles, {} with rubbish, {} that never read",
                abuse.silent, abuse.half_open, abuse.unknown, abuse.rubbish, abuse.never_read
            ),
        }
    }
}

/// The next image goes to a share of the boards.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Push {
    /// 0 to 1.
    #[serde(default = "all")]
    pub share: f64,
    /// Milliseconds between two pushes; 0: as fast as the gateway takes them.
    #[serde(default)]
    pub every_ms: u32,
    /// The time from each push to the first byte at its board is taken (`push_ms_p99`).
    #[serde(default)]
    pub watch: bool,
}

const fn all() -> f64 {
    1.0
}

/// The gateway ends and is started again, with the same data at the same address.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    /// How it ends.
    pub how: HowEnded,
    /// Seconds until it is started again.
    #[serde(default)]
    pub down_s: f64,
}

/// How a gateway ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HowEnded {
    /// By SIGTERM: it closes its sessions.
    InOrder,
    /// By SIGKILL.
    Kill,
}

/// A share of the boards is without link or power.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outage {
    /// 0 to 1.
    #[serde(default = "all")]
    pub share: f64,
    /// For so many seconds.
    pub for_s: f64,
}

/// Peers that are no good boards. One that the gateway turns away is followed by another.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Abuse {
    /// Connections that say nothing.
    #[serde(default)]
    pub silent: u32,
    /// Connections that send half a preamble and then nothing.
    #[serde(default)]
    pub half_open: u32,
    /// Peers that dial with handles nobody knows.
    #[serde(default)]
    pub unknown: u32,
    /// Peers that send random bytes.
    #[serde(default)]
    pub rubbish: u32,
    /// Boards with a good key that read nothing after their handshake; until the run ends.
    #[serde(default)]
    pub never_read: u32,
    /// Connections of each kind that are begun in a second, at the most; 0: as many as can be.
    #[serde(default)]
    pub per_s: u32,
    /// Networks (/24) that they dial from, others than the boards'.
    #[serde(default = "one")]
    pub networks: usize,
    /// Seconds; without it until the run ends.
    pub for_s: Option<f64>,
}

impl Abuse {
    /// How many do what.
    #[must_use]
    pub const fn gangs(&self) -> [(Mischief, u32); 4] {
        [
            (Mischief::Silent, self.silent),
            (Mischief::HalfPreamble, self.half_open),
            (Mischief::UnknownHandle, self.unknown),
            (Mischief::Rubbish, self.rubbish),
        ]
    }

    /// Connections at a time.
    #[must_use]
    pub fn connections(&self) -> usize {
        let gangs = self.gangs().into_iter().map(|(_, peers)| peers);
        gangs
            .chain([self.never_read])
            .map(|peers| peers as usize)
            .sum()
    }
}

/// When the run ends.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// What it waits for after the last step.
    #[serde(default)]
    pub after: After,
    /// And then so many seconds.
    #[serde(default)]
    pub wait_s: f64,
    /// Seconds from the beginning after which the run has failed.
    pub within_s: f64,
}

/// What a metric may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Bound {
    /// Not more than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
    /// Not less than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_least: Option<f64>,
    /// Judged where the run has so many boards or more; none: always.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_boards: Option<u64>,
}

impl Scenario {
    /// The scenario of this file, or the one of this name that is built in.
    ///
    /// # Errors
    /// There is none, or it is wrong; the message says where and what to do.
    pub fn load(named: &Path) -> Result<Self, Error> {
        let shown = named.display().to_string();
        if let Some(text) = builtin::text(&shown) {
            return Self::parse(&shown, text);
        }
        let text = std::fs::read_to_string(named).map_err(|error| {
            Error::new(format!(
                "the scenario {shown} cannot be read: {error}. Name a file, or one of those that are built in: {}.",
                NAMES.join(", ")
            ))
        })?;
        Self::parse(&shown, &text)
    }

    /// The scenario in this text; `shown` is what its file is called in messages.
    ///
    /// # Errors
    /// It is wrong; the message says in which line and what to do.
    pub fn parse(shown: &str, text: &str) -> Result<Self, Error> {
        let wrong = |at: usize, sentence: &str| {
            let line = text[..at.min(text.len())].matches('\n').count() + 1;
            Error::new(format!("{shown}, line {line}: {sentence}"))
        };
        let plan: Plan = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let message = error.message().trim_end().replace('\n', ": ");
            wrong(
                at,
                &format!("{message}. SCENARIOS.md says what a scenario holds."),
            )
        })?;
        let links = check::check(&plan).map_err(|fault| wrong(fault.at, &fault.sentence))?;
        let name = Path::new(shown).file_stem().map_or_else(
            || shown.to_owned(),
            |name| name.to_string_lossy().into_owned(),
        );
        Ok(Self {
            name,
            text: text.to_owned(),
            plan,
            links,
        })
    }

    /// The boards.
    #[must_use]
    pub fn fleet(&self) -> &Fleet {
        self.plan.fleet.get_ref()
    }

    /// Size of an image in bytes.
    #[must_use]
    pub fn image_len(&self) -> usize {
        let image = self.plan.image.as_ref().map(Spanned::get_ref);
        image.map_or(Image::default().kib, |image| image.kib) * 1_024
    }

    /// How the boards' clients are configured.
    #[must_use]
    pub fn client(&self) -> Client {
        let client = self.plan.client.as_ref().map(Spanned::get_ref);
        client.cloned().unwrap_or_default().words()
    }

    /// When the run ends.
    #[must_use]
    pub fn end(&self) -> &End {
        self.plan.end.get_ref()
    }

    /// Further arguments of `dialhome serve`.
    #[must_use]
    pub fn gateway_args(&self) -> Vec<String> {
        let mut args = Vec::new();
        for (name, value) in &self.plan.gateway {
            let name = format!("--{}", name.get_ref().replace('_', "-"));
            match value {
                toml::Value::Boolean(false) => {}
                toml::Value::Boolean(true) => args.push(name),
                toml::Value::String(text) => args.extend([name, text.clone()]),
                other => args.extend([name, other.to_string()]),
            }
        }
        args
    }

    /// The limits, by the metric's name.
    #[must_use]
    pub fn limits(&self) -> BTreeMap<&str, Bound> {
        self.plan
            .limits
            .iter()
            .map(|(name, bound)| (name.get_ref().as_str(), *bound.get_ref()))
            .collect()
    }

    /// What the steps do, in order.
    #[must_use]
    pub fn steps(&self) -> Vec<(After, f64, Action)> {
        let steps = self.plan.steps.iter().map(Spanned::get_ref);
        steps
            .filter_map(|step| Some((step.after, step.wait_s, step.action()?)))
            .collect()
    }

    /// Images that the steps push.
    #[must_use]
    pub fn pushes(&self) -> usize {
        let pushes = |step: &Spanned<Step>| step.get_ref().push.is_some();
        self.plan.steps.iter().filter(|step| pushes(step)).count()
    }

    /// Boards that never read, at most at a time.
    #[must_use]
    pub fn never_readers(&self) -> usize {
        self.abuses().map(|abuse| abuse.never_read as usize).sum()
    }

    /// Connections of abusive peers, at most at a time.
    #[must_use]
    pub fn abusive_connections(&self) -> usize {
        self.abuses().map(Abuse::connections).sum()
    }

    fn abuses(&self) -> impl Iterator<Item = &Abuse> {
        let steps = self.plan.steps.iter();
        steps.filter_map(|step| step.get_ref().abuse.as_ref())
    }
}

#[cfg(test)]
mod tests;
