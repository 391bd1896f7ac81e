//! What goes wrong, and orders to a board that runs.

use std::str::FromStr;
use std::time::Duration;

/// What goes wrong in a session: from one opening of the line to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// After so many pages have been programmed nothing is answered any more.
    pub silent_after: Option<u32>,
    /// After so many pages have been programmed the line is gone, as an unplugged cable.
    pub unplug_after: Option<u32>,
    /// Bytes of flash that keep a value whatever is written: address and value.
    pub stuck: Vec<(usize, u8)>,
    /// The signature of another part.
    pub wrong_signature: bool,
    /// Time before each answer.
    pub slow: Duration,
    /// So many requests for synchronisation are not answered.
    pub deaf: u32,
    /// So many sessions go wrong, and those after them do not; all, where nothing is said.
    pub sessions: Option<u32>,
}

impl Faults {
    /// Whether a board that takes them would work as another one does.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default() || self.sessions == Some(0)
    }
}

/// A list: `silent_after=PAGES`, `unplug_after=PAGES`, `stuck=ADDRESS:VALUE` (both
/// hexadecimal, may be repeated), `wrong_signature`, `slow=MILLISECONDS`, `deaf=REQUESTS`,
/// `sessions=NUMBER`; with commas between them.
impl FromStr for Faults {
    type Err = String;

    fn from_str(list: &str) -> Result<Self, String> {
        let mut faults = Self::default();
        for item in list
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
        {
            let (name, value) = item.split_once('=').unwrap_or((item, ""));
            let number = || {
                value
                    .parse::<u32>()
                    .map_err(|_| format!("{name}: `{value}` is no number"))
            };
            match name {
                "silent_after" => faults.silent_after = Some(number()?),
                "unplug_after" => faults.unplug_after = Some(number()?),
                "stuck" => faults.stuck.push(stuck(value)?),
                "wrong_signature" if value.is_empty() => faults.wrong_signature = true,
                "slow" => faults.slow = Duration::from_millis(number()?.into()),
                "deaf" => faults.deaf = number()?,
                "sessions" => faults.sessions = Some(number()?),
                _ => return Err(format!("no fault is called `{item}`")),
            }
        }
        Ok(faults)
    }
}

fn stuck(text: &str) -> Result<(usize, u8), String> {
    let wrong = || format!("stuck: `{text}` is not ADDRESS:VALUE, both hexadecimal");
    let (address, value) = text.split_once(':').ok_or_else(wrong)?;
    let address = usize::from_str_radix(address, 16).map_err(|_| wrong())?;
    let value = u8::from_str_radix(value, 16).map_err(|_| wrong())?;
    Ok((address, value))
}

/// An order to a board that runs, one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// `faults LIST`: what goes wrong from the next session on; nothing, with an empty list.
    Faults(Faults),
    /// `unplug`: the line goes away, with the board's power.
    Unplug,
    /// `plug`: it is back, under the same link.
    Plug,
    /// `reset`: as its button does.
    Reset,
    /// `status`: what was done so far.
    Status,
}

impl FromStr for Order {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let line = line.trim();
        let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
        match (name, rest.trim()) {
            ("faults", list) => Ok(Self::Faults(list.parse()?)),
            ("unplug", "") => Ok(Self::Unplug),
            ("plug", "") => Ok(Self::Plug),
            ("reset", "") => Ok(Self::Reset),
            ("status", "") => Ok(Self::Status),
            _ => Err(format!("no order is called `{line}`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read() {
        let faults = Faults {
            silent_after: Some(3),
            stuck: vec![(0x1f0, 0xff), (2, 0)],
            slow: Duration::from_millis(20),
            sessions: Some(1),
            ..Faults::default()
        };
        assert_eq!(
            "faults silent_after=3, stuck=1f0:ff,stuck=2:0,slow=20,sessions=1".parse(),
            Ok(Order::Faults(faults))
        );
        assert_eq!(" faults ".parse(), Ok(Order::Faults(Faults::default())));
        assert_eq!("plug".parse(), Ok(Order::Plug));
        for bad in [
            "",
            "plug 1",
            "faults loud",
            "faults slow",
            "faults deaf=x",
            "faults stuck=1",
            "faults stuck=zz:1",
            "faults wrong_signature=1",
        ] {
            assert!(bad.parse::<Order>().is_err(), "{bad}");
        }
    }
}
