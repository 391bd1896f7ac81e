//! Checks of images: what a board's first boot stage needs of an image, and cannot check itself.
//!
//! A check is chosen at `dialhome image sign --check`, is noted in the `.dhi` file, and is made again from the
//! payload wherever the file is read. IMAGE-CHECKS.md has the table of them.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Length of Arduino's SDU stage, in bytes: its library puts an array of so many before the sketch.
const SDU_LEN: u32 = 0x4000;
/// Where a SAMD21's sketch begins in flash, behind the USB bootloader.
const SAMD21_BASE: u32 = 0x2000;
/// What the first two words of a vector table take, in bytes: stack pointer and reset handler.
const TABLE_LEN: u32 = 8;
/// Memory that a Cortex-M's stack may begin in: the end of its RAM, up to 256 KiB of it.
const RAM: std::ops::RangeInclusive<u32> = 0x2000_0004..=0x2004_0000;

/// Longest text of a check, in bytes.
pub const TEXT_MAX: usize = 32;

/// So many bytes at the front of an image are all that any check looks at.
pub const FRONT_LEN: usize = (SDU_LEN + TABLE_LEN) as usize;

/// A check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The image carries Arduino's SDU stage, without which a board takes no other image from its card.
    Sdu {
        /// Address in flash of the image's first byte.
        base: u32,
    },
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Sdu { base } = self;
        write!(f, "sdu:{base:#x}")
    }
}

impl FromStr for Check {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, base) = match text.split_once(':') {
            Some((name, base)) => (name, Some(base)),
            None => (text, None),
        };
        if name != "sdu" {
            return Err(format!("there is no check `{name}`: known is sdu[:BASE]"));
        }
        let base = match base {
            None => SAMD21_BASE,
            Some(digits) => {
                let parsed = match digits.strip_prefix("0x") {
                    Some(hex) => u32::from_str_radix(hex, 16),
                    None => digits.parse(),
                };
                parsed
                    .ok()
                    .filter(|base| base % 256 == 0)
                    .ok_or("BASE is an address on a multiple of 256, as in sdu:0x2000")?
            }
        };
        Ok(Self::Sdu { base })
    }
}

/// What an image lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CheckFault {
    /// It ends before a sketch could begin.
    #[error(
        "the image has {0} bytes, and Arduino's SDU stage alone has 16384: the stage is missing"
    )]
    TooShort(u64),
    /// It does not begin with a vector table.
    #[error(
        "the image does not begin with the vector table of a Cortex-M: its first word, {0:#010x}, is no end of RAM"
    )]
    NoFirmware(u32),
    /// There is no second vector table behind the stage.
    #[error("no sketch begins 16384 bytes into the image: Arduino's SDU stage is missing")]
    NoStage,
    /// Stage or sketch start outside of themselves.
    #[error(
        "the {part} starts at {handler:#010x}, which is outside of it where the image lies at {base:#x}"
    )]
    Elsewhere {
        /// `SDU stage` or `sketch`.
        part: &'static str,
        /// Its reset handler.
        handler: u32,
        /// Where the image was said to lie.
        base: u32,
        /// Where it would fit.
        fits: Option<u32>,
    },
}

impl CheckFault {
    /// One sentence that says what to do.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::TooShort(_) | Self::NoStage => "Write `#include <SDU.h>` in the sketch and build it again: a board that runs an image without the stage takes no other one from its card.".into(),
            Self::NoFirmware(_) => "Sign the .bin or .hex file that the build made, and not an archive or an ELF file.".into(),
            Self::Elsewhere { fits: Some(fits), .. } => {
                format!("It fits --check sdu:{fits:#x}; a SAMD21 with Arduino's bootloader needs sdu:0x2000.")
            }
            Self::Elsewhere { fits: None, .. } => "State the address that the image is linked for, --check sdu:BASE, or build it for the right board.".into(),
        }
    }
}

impl Check {
    /// Looks at the image: `front` is its first [`FRONT_LEN`] bytes, or all of it where it is shorter, and `size`
    /// its length in bytes.
    ///
    /// # Errors
    /// [`CheckFault`].
    pub fn verify(&self, front: &[u8], size: u64) -> Result<(), CheckFault> {
        let Self::Sdu { base } = *self;
        let short = CheckFault::TooShort(size);
        if size <= FRONT_LEN as u64 {
            return Err(short);
        }
        let (stack, stage) = table(front, 0).ok_or(short)?;
        if !is_stack(stack) {
            return Err(CheckFault::NoFirmware(stack));
        }
        let (stack, sketch) = table(front, SDU_LEN as usize).ok_or(short)?;
        if !is_stack(stack) || sketch % 2 == 0 || stage % 2 == 0 {
            return Err(CheckFault::NoStage);
        }
        let fits = |base: u32| {
            let base = u64::from(base);
            let start = base + u64::from(SDU_LEN);
            if !(base + u64::from(TABLE_LEN)..start).contains(&u64::from(stage)) {
                return Err(("SDU stage", stage));
            }
            if !(start + u64::from(TABLE_LEN)..base + size).contains(&u64::from(sketch)) {
                return Err(("sketch", sketch));
            }
            Ok(())
        };
        fits(base).map_err(|(part, handler)| CheckFault::Elsewhere {
            part,
            handler,
            base,
            fits: [SAMD21_BASE, 0]
                .into_iter()
                .find(|other| fits(*other).is_ok()),
        })
    }
}

/// Stack pointer and reset handler of the vector table at `at`.
fn table(front: &[u8], at: usize) -> Option<(u32, u32)> {
    let (stack, rest) = front.get(at..)?.split_first_chunk()?;
    let reset = rest.first_chunk()?;
    Some((u32::from_le_bytes(*stack), u32::from_le_bytes(*reset)))
}

fn is_stack(word: u32) -> bool {
    RAM.contains(&word) && word.is_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMD21: Check = Check::Sdu { base: 0x2000 };
    const FROM_ZERO: Check = Check::Sdu { base: 0 };

    /// Code-like bytes with vector tables at these places: offset, stack pointer, reset handler.
    fn image(len: usize, tables: &[(usize, u32, u32)]) -> Vec<u8> {
        // `push`, `movs`, `ldr`: what Thumb code is full of.
        let mut image: Vec<u8> = [0x10, 0xb5, 0x00, 0x20, 0x05, 0x4b]
            .into_iter()
            .cycle()
            .take(len)
            .collect();
        for (at, stack, reset) in tables {
            image[*at..at + 4].copy_from_slice(&stack.to_le_bytes());
            image[at + 4..at + 8].copy_from_slice(&reset.to_le_bytes());
        }
        image
    }

    fn verify(check: Check, image: &[u8]) -> Result<(), CheckFault> {
        check.verify(&image[..image.len().min(FRONT_LEN)], image.len() as u64)
    }

    #[test]
    fn an_image_with_the_stage_passes_at_its_own_base_only() {
        let samd21 = image(
            30_000,
            &[(0, 0x2000_8000, 0x211d), (0x4000, 0x2000_8000, 0x7a31)],
        );
        assert_eq!(verify(SAMD21, &samd21), Ok(()));
        let fault = verify(FROM_ZERO, &samd21).unwrap_err();
        assert!(
            matches!(
                fault,
                CheckFault::Elsewhere {
                    part: "sketch",
                    fits: Some(0x2000),
                    ..
                }
            ),
            "{fault:?}"
        );
        assert!(fault.hint().contains("sdu:0x2000"), "{}", fault.hint());
        let from_zero = image(
            40_000,
            &[(0, 0x2000_8000, 0x411), (0x4000, 0x2000_7ff8, 0x4411)],
        );
        assert_eq!(verify(FROM_ZERO, &from_zero), Ok(()));
        let fault = verify(SAMD21, &from_zero).unwrap_err();
        assert!(
            matches!(
                fault,
                CheckFault::Elsewhere {
                    part: "SDU stage",
                    fits: Some(0),
                    ..
                }
            ),
            "{fault:?}"
        );
        let nowhere = image(
            40_000,
            &[(0, 0x2000_8000, 0x1_0411), (0x4000, 0x2000_8000, 0x1_4411)],
        );
        assert!(matches!(
            verify(SAMD21, &nowhere),
            Err(CheckFault::Elsewhere { fits: None, .. })
        ));
    }

    #[test]
    fn a_sketch_without_the_stage_is_told_what_to_include() {
        for plain in [
            image(40_000, &[(0, 0x2000_8000, 0x211d)]),
            image(40_000, &[(0, 0x2000_8000, 0x9001)]),
            // Data that looks like a stack pointer, and an even address after it.
            image(
                40_000,
                &[(0, 0x2000_8000, 0x211d), (0x4000, 0x2000_8000, 0x7a30)],
            ),
        ] {
            let fault = verify(SAMD21, &plain).unwrap_err();
            assert_eq!(fault, CheckFault::NoStage);
            assert!(fault.hint().contains("#include <SDU.h>"));
        }
    }

    #[test]
    fn what_is_too_short_or_no_firmware_is_named_so() {
        let blink = image(11_000, &[(0, 0x2000_8000, 0x211d)]);
        assert_eq!(verify(SAMD21, &blink), Err(CheckFault::TooShort(11_000)));
        for len in [1, 7, 8, FRONT_LEN - 1, FRONT_LEN] {
            let stage = image(len, &[]);
            assert_eq!(
                verify(SAMD21, &stage),
                Err(CheckFault::TooShort(len as u64))
            );
        }
        let elf = [b"\x7fELF".as_slice(), &[0; 40_000]].concat();
        let fault = verify(SAMD21, &elf).unwrap_err();
        assert_eq!(fault, CheckFault::NoFirmware(0x464c_457f));
        assert!(fault.hint().contains("ELF"));
        for stack in [0, 0x2000_0000, 0x2000_8001, 0x2100_0000, 0xffff_ffff] {
            let wrong = image(40_000, &[(0, stack, 0x211d), (0x4000, 0x2000_8000, 0x7a31)]);
            assert_eq!(verify(SAMD21, &wrong), Err(CheckFault::NoFirmware(stack)));
        }
    }

    #[test]
    fn a_check_is_written_as_it_is_read() {
        for (text, written) in [
            ("sdu", "sdu:0x2000"),
            ("sdu:0", "sdu:0x0"),
            ("sdu:8192", "sdu:0x2000"),
            ("sdu:0xffffff00", "sdu:0xffffff00"),
        ] {
            let check: Check = text.parse().unwrap();
            assert_eq!(check.to_string(), written);
            assert_eq!(written.parse(), Ok(check));
            assert!(written.len() <= TEXT_MAX);
        }
        for wrong in [
            "",
            "SDU",
            "ssu",
            "sdu:",
            "sdu:0x",
            "sdu:-1",
            "sdu:0x2001",
            "sdu:0x100000000",
            "sdu:0x0:1",
        ] {
            assert!(wrong.parse::<Check>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_end_of_the_address_space_is_no_end_of_the_check() {
        let image = image(
            40_000,
            &[
                (0, 0x2000_8000, 0xffff_ff11),
                (0x4000, 0x2000_8000, 0xffff_fff1),
            ],
        );
        assert!(verify(Check::Sdu { base: 0xffff_ff00 }, &image).is_err());
    }
}
