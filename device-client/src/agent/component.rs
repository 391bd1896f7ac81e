//! Table `[[component]]` of the configuration: a child beside component 0.

use core::fmt;
use std::{format, string::String, vec::Vec};

use dialhome_proto::{id, limits};
use serde::Deserialize;

use super::config::{Agent, CommandSettings, Fault, RawCommand, command, fault};

/// The commands of one component.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commands {
    /// Makes the image behind `current` take effect.
    pub install: Option<CommandSettings>,
    /// Prints the SHA-256 of what runs.
    pub running: Option<CommandSettings>,
    /// Exit code 0 says that what runs is well: `self_test`, or a child's `check`.
    pub self_test: Option<CommandSettings>,
    /// Tells a child that has two slots of its own to go back to the other.
    pub revert: Option<CommandSettings>,
}

/// How a child gets its old image back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rollback {
    /// The child keeps it: command `revert` tells it to swap back.
    Swap,
    /// The agent keeps it, and installs it again.
    RestoreCopy,
    /// Not at all.
    None,
}

/// A microcontroller, or whatever else only this board can program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// 1..=3.
    pub number: u8,
    /// For the log and for details, a name (spec/frames.md section 3).
    pub name: String,
    /// Largest image that is accepted, in bytes.
    pub slot_size: u32,
    /// Most payload bytes sent and not committed; the agent's by default.
    pub window: u32,
    /// How the old image comes back; `restore_copy` by default.
    pub rollback: Rollback,
    /// What installs and judges its images; there is always an `install`.
    pub commands: Commands,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawComponent {
    number: u8,
    name: String,
    slot_size: u32,
    window: Option<u32>,
    #[serde(default = "restore_copy")]
    rollback: Rollback,
    install: RawCommand,
    check: Option<RawCommand>,
    running: Option<RawCommand>,
    revert: Option<RawCommand>,
}

const fn restore_copy() -> Rollback {
    Rollback::RestoreCopy
}

/// Checks the tables, in the order of their numbers.
pub(super) fn check(raw: Vec<RawComponent>, agent: &Agent) -> Result<Vec<Component>, Fault> {
    let most = limits::COMPONENTS_MAX - 1;
    if raw.len() > most {
        return fault(
            "component",
            format!(
                "there are {} tables; at most {most} fit beside component 0",
                raw.len()
            ),
        );
    }
    let mut all: Vec<Component> = Vec::with_capacity(raw.len());
    for one in raw {
        let place = all.len() + 1;
        let same = |other: &Component| other.number == one.number || other.name == one.name;
        if let Some(other) = all.iter().find(|other| same(other)) {
            return fault(
                format!("component, table {place}"),
                format!(
                    "component {} `{}` has its number or its name already. Give each its own",
                    other.number, other.name
                ),
            );
        }
        all.push(one.check(place, agent)?);
    }
    all.sort_by_key(|component| component.number);
    Ok(all)
}

impl RawComponent {
    fn check(self, place: usize, agent: &Agent) -> Result<Component, Fault> {
        let key = |name: &dyn fmt::Display| format!("component.{name}, table {place}");
        let most = limits::COMPONENTS_MAX - 1;
        if self.number == 0 || usize::from(self.number) > most {
            return fault(
                key(&"number"),
                format!(
                    "it is {}. Give 1 to {most}; component 0 is what the tables [install], [running] and [self_test] say",
                    self.number
                ),
            );
        }
        if !id::is_name(&self.name) {
            return fault(
                key(&"name"),
                format!(
                    "`{}` is not a name. Use 1 to 64 of the characters A-Z a-z 0-9 _ -",
                    self.name
                ),
            );
        }
        if self.slot_size == 0 {
            return fault(
                key(&"slot_size"),
                "0 would refuse every image. Give the bytes of its flash",
            );
        }
        let window = self.window.unwrap_or(agent.window);
        if window < u32::from(agent.receive_buffer) {
            return fault(
                key(&"window"),
                format!(
                    "{window} is less than one record. Give at least agent.receive_buffer, {}",
                    agent.receive_buffer
                ),
            );
        }
        match (self.rollback, &self.revert) {
            (Rollback::Swap, None) => {
                return fault(
                    key(&"revert"),
                    "rollback = \"swap\" needs it: the command that tells the child to go back",
                );
            }
            (Rollback::RestoreCopy | Rollback::None, Some(_)) => {
                return fault(
                    key(&"revert"),
                    "only rollback = \"swap\" has this command. Remove it, or set that",
                );
            }
            _ => {}
        }
        let set = |name: &str, raw, default_s| command(key(&name), raw, default_s);
        Ok(Component {
            number: self.number,
            name: self.name,
            slot_size: self.slot_size,
            window,
            rollback: self.rollback,
            commands: Commands {
                install: set("install", Some(self.install), 600)?,
                running: set("running", self.running, 60)?,
                self_test: set("check", self.check, 60)?,
                revert: set("revert", self.revert, 600)?,
            },
        })
    }
}

#[cfg(test)]
#[path = "component_tests.rs"]
mod tests;
