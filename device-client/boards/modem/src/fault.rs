//! What goes wrong: by chance from a seed, or by order.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident $name:literal $per_mille:literal,)*) => {
        /// A fault that happens by chance.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind { $($(#[$doc])* $kind,)* }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// Its name in `--faults` and in the log.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// How often it happens, of a thousand occasions, where nothing else is said.
            #[must_use]
            pub const fn per_mille(self) -> u16 {
                match self { $(Self::$kind => $per_mille,)* }
            }
        }
    };
}

kinds! {
    /// An unasked line between the lines of an answer, or behind the echo.
    UrcInAnswer "urc_in_answer" 150,
    /// An unasked line between the prompt and the data.
    UrcAfterPrompt "urc_after_prompt" 150,
    /// An unasked line is lost.
    UrcLost "urc_lost" 100,
    /// The line pauses in the middle of an answer.
    Split "split" 50,
    /// Rubbish before an answer.
    Garbage "garbage" 10,
    /// Rubbish among the data of a read.
    GarbageInData "garbage_in_data" 4,
    /// Bytes from the board are lost.
    Lose "lose" 2,
    /// A command is answered with ERROR and not carried out.
    Error "error" 4,
    /// A command is carried out, and its answer is lost.
    Silent "silent" 2,
    /// A command is answered with rubbish and not carried out.
    Rubbish "rubbish" 3,
    /// Nothing moves between modem and network for a while.
    Stall "stall" 4,
    /// The modem does nothing for a while.
    Freeze "freeze" 2,
    /// The modem loses its network for a while.
    Registration "registration" 2,
    /// The network closes a connection.
    Close "close" 3,
    /// The network ends the packet data context.
    Context "context" 1,
    /// The modem restarts by itself.
    Reboot "reboot" 1,
    /// The modem stops sending until it is restarted.
    Mute "mute" 1,
}

/// Chances, and the dice for them.
#[derive(Debug)]
pub struct Faults {
    per_mille: Vec<u16>,
    dice: StdRng,
    /// The longest stall, freeze or loss of registration.
    pub pause_max: Duration,
}

impl Faults {
    /// Nothing goes wrong by chance.
    #[must_use]
    pub fn none() -> Self {
        Self {
            per_mille: vec![0; Kind::ALL.len()],
            dice: StdRng::seed_from_u64(0),
            pause_max: Duration::from_secs(30),
        }
    }

    /// Everything goes wrong now and then.
    #[must_use]
    pub fn all(seed: u64) -> Self {
        let mut faults = Self::none();
        faults.dice = StdRng::seed_from_u64(seed);
        for kind in Kind::ALL {
            faults = faults.with(*kind, kind.per_mille());
        }
        faults
    }

    /// Only these kinds go wrong, so many times in a thousand.
    #[must_use]
    pub fn only(seed: u64, kinds: &[(Kind, u16)]) -> Self {
        let mut faults = Self::none();
        faults.dice = StdRng::seed_from_u64(seed);
        for (kind, per_mille) in kinds {
            faults = faults.with(*kind, *per_mille);
        }
        faults
    }

    /// The same with another chance for one kind.
    #[must_use]
    pub fn with(mut self, kind: Kind, per_mille: u16) -> Self {
        self.per_mille[kind as usize] = per_mille;
        self
    }

    /// Whether it happens now.
    pub fn happens(&mut self, kind: Kind) -> bool {
        let per_mille = self.per_mille[kind as usize];
        per_mille > 0 && self.dice.random_range(0..1000) < per_mille
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.dice.random_range(0..end)
    }

    /// A time between nothing and `longest`.
    pub fn time(&mut self, longest: Duration) -> Duration {
        longest.mul_f64(self.dice.random_range(0.0..1.0))
    }

    /// Rubbish that cannot be mistaken for a prompt or the end of a line.
    pub fn rubbish(&mut self, len: usize) -> Vec<u8> {
        (0..len)
            .map(|_| match self.dice.random::<u8>() {
                b'\r' | b'\n' | b'@' => 0x7F,
                byte => byte,
            })
            .collect()
    }
}

/// `SEED` (everything), or `SEED:NAME[=PER_MILLE],...` (only these).
impl FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (seed, list) = match text.split_once(':') {
            Some((seed, list)) => (seed, Some(list)),
            None => (text, None),
        };
        let seed = seed
            .parse()
            .map_err(|_| format!("`{seed}` is no seed: a number, or NUMBER:NAME,NAME=PER_MILLE"))?;
        let Some(list) = list else {
            return Ok(Self::all(seed));
        };
        let mut kinds = Vec::new();
        for item in list.split(',') {
            let (name, per_mille) = match item.split_once('=') {
                Some((name, per_mille)) => (name, Some(per_mille)),
                None => (item, None),
            };
            let kind = *Kind::ALL
                .iter()
                .find(|kind| kind.name() == name)
                .ok_or_else(|| format!("no fault is called `{name}`; {}", names()))?;
            let per_mille = match per_mille {
                Some(text) => text
                    .parse()
                    .ok()
                    .filter(|number| *number <= 1000)
                    .ok_or_else(|| format!("`{text}` is no number from 0 to 1000"))?,
                None => kind.per_mille(),
            };
            kinds.push((kind, per_mille));
        }
        Ok(Self::only(seed, &kinds))
    }
}

fn names() -> String {
    let names: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    format!("there are {}", names.join(", "))
}

/// A fault by order, one line of the control interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `drop_registration MS`: no network for so long; connections wait.
    DropRegistration(Duration),
    /// `drop_context`: the packet data context and every connection end.
    DropContext,
    /// `close_socket [N]`: the network closes a connection; all without N.
    CloseSocket(Option<usize>),
    /// `garbage N`: so many bytes of rubbish to the board, now.
    Garbage(usize),
    /// `lose N`: the next so many bytes from the board are lost.
    Lose(usize),
    /// `lose_urcs N`: the next so many unasked lines are lost.
    LoseUrcs(usize),
    /// `stall MS`: nothing moves between modem and network for so long.
    Stall(Duration),
    /// `freeze MS`: the modem does nothing for so long.
    Freeze(Duration),
    /// `mute`: the modem sends nothing more until `unmute` or a restart.
    Mute,
    /// `unmute`
    Unmute,
    /// `hang`: the modem does nothing more until its power is cut or it is reset.
    Hang,
    /// `error [N]`: the next so many commands are answered with ERROR.
    Error(usize),
    /// `silent [N]`: the next so many commands are not answered.
    Silent(usize),
    /// `rubbish [N]`: the next so many commands are answered with rubbish.
    Rubbish(usize),
    /// `cut_power [MS]`: off for so long, and then a start; connections are abandoned.
    CutPower(Duration),
    /// `no_network`: from now on no name is found and nobody answers a connection.
    NoNetwork(bool),
    /// `status`: says what was done so far.
    Status,
}

/// Time without power where nothing is said.
const POWER_OFF: Duration = Duration::from_secs(1);

impl FromStr for Order {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let mut words = line.split_ascii_whitespace();
        let name = words.next().unwrap_or("");
        let number: Option<u64> = match words.next() {
            Some(word) => Some(word.parse().map_err(|_| format!("`{word}` is no number"))?),
            None => None,
        };
        if let Some(word) = words.next() {
            return Err(format!("`{word}` is too much"));
        }
        let count = || {
            let count = number.ok_or_else(|| format!("{name} needs a number"))?;
            usize::try_from(count).map_err(|_| "too many".to_owned())
        };
        let or_one = || usize::try_from(number.unwrap_or(1)).map_err(|_| "too many".to_owned());
        let time = || {
            number
                .map(Duration::from_millis)
                .ok_or_else(|| format!("{name} needs milliseconds"))
        };
        Ok(match name {
            "drop_registration" => Self::DropRegistration(time()?),
            "drop_context" => Self::DropContext,
            "close_socket" => Self::CloseSocket(number.map(|_| count()).transpose()?),
            "garbage" => Self::Garbage(count()?),
            "lose" => Self::Lose(count()?),
            "lose_urcs" => Self::LoseUrcs(count()?),
            "stall" => Self::Stall(time()?),
            "freeze" => Self::Freeze(time()?),
            "mute" => Self::Mute,
            "unmute" => Self::Unmute,
            "hang" => Self::Hang,
            "error" => Self::Error(or_one()?),
            "silent" => Self::Silent(or_one()?),
            "rubbish" => Self::Rubbish(or_one()?),
            "cut_power" => Self::CutPower(number.map_or(POWER_OFF, Duration::from_millis)),
            "no_network" => Self::NoNetwork(true),
            "network" => Self::NoNetwork(false),
            "status" => Self::Status,
            _ => return Err(format!("no order is called `{name}`")),
        })
    }
}

/// What the modem did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Commands that were understood or refused.
    pub commands: u64,
    /// Starts, the first included.
    pub starts: u64,
    /// Connections that were made.
    pub connections: u64,
    /// Bytes from the board to the network.
    pub up: u64,
    /// Bytes from the network to the board.
    pub down: u64,
    /// Faults, by chance and by order.
    pub faults: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            commands,
            starts,
            connections,
            up,
            down,
            faults,
        } = self;
        write!(
            f,
            "commands={commands} starts={starts} connections={connections} up={up} down={down} faults={faults}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read() {
        assert_eq!(
            "drop_registration 1500".parse(),
            Ok(Order::DropRegistration(Duration::from_millis(1500)))
        );
        assert_eq!("close_socket".parse(), Ok(Order::CloseSocket(None)));
        assert_eq!(" close_socket  3 ".parse(), Ok(Order::CloseSocket(Some(3))));
        assert_eq!("error".parse(), Ok(Order::Error(1)));
        for bad in ["", "stall", "stall x", "stall 1 2", "sleep 1"] {
            assert!(bad.parse::<Order>().is_err(), "{bad}");
        }
    }

    #[test]
    fn faults_are_read() {
        let faults: Faults = "7:garbage=1000,split".parse().expect("two kinds");
        assert_eq!(faults.per_mille[Kind::Garbage as usize], 1000);
        assert_eq!(
            faults.per_mille[Kind::Split as usize],
            Kind::Split.per_mille()
        );
        assert_eq!(faults.per_mille[Kind::Error as usize], 0);
        assert!("x".parse::<Faults>().is_err());
        assert!(
            "1:quake"
                .parse::<Faults>()
                .expect_err("no such kind")
                .contains("garbage")
        );
        assert!("1:garbage=1001".parse::<Faults>().is_err());
    }

    #[test]
    fn one_seed_gives_one_course() {
        let course = |seed| {
            let mut faults = Faults::all(seed);
            (0..100).map(|_| faults.below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(course(5), course(5));
        assert_ne!(course(5), course(6));
    }
}
