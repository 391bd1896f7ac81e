//! The microcontrollers that can be emulated.

use std::fmt;
use std::str::FromStr;

/// A microcontroller, as avrdude's `-p` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its name for `avrdude -p`.
    pub name: &'static str,
    /// What it answers to a request for its signature.
    pub signature: [u8; 3],
    /// All of its flash, in bytes.
    pub flash: usize,
    /// The end of it, which the bootloader keeps for itself, in bytes.
    pub bootloader: usize,
    /// One page, in bytes.
    pub page: usize,
}

impl Part {
    /// Every one.
    pub const ALL: [Self; 3] = [
        // Arduino Uno and Nano.
        Self {
            name: "m328p",
            signature: [0x1E, 0x95, 0x0F],
            flash: 32 << 10,
            bootloader: 512,
            page: 128,
        },
        // Beside the MT7688 on a LinkIt Smart 7688 Duo; there avrdude speaks to its pins.
        Self {
            name: "m32u4",
            signature: [0x1E, 0x95, 0x87],
            flash: 32 << 10,
            bootloader: 4 << 10,
            page: 128,
        },
        Self {
            name: "m168",
            signature: [0x1E, 0x94, 0x06],
            flash: 16 << 10,
            bootloader: 512,
            page: 128,
        },
    ];

    /// Flash for programs, in bytes.
    #[must_use]
    pub const fn for_programs(&self) -> usize {
        self.flash - self.bootloader
    }
}

impl Default for Part {
    fn default() -> Self {
        Self::ALL[0]
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let mut all = Self::ALL.into_iter();
        all.find(|part| part.name == name).ok_or_else(|| {
            let names = Self::ALL.map(|part| part.name).join(", ");
            format!("no part is called `{name}`; there are {names}")
        })
    }
}
