//! Commands of the programmer, out of the bytes on the line.
//!
//! The numbers are those of Atmel's application note AVR061, as far as Optiboot has them.

/// Ends every command.
pub(crate) const END: u8 = 0x20;
/// Begins every answer.
pub(crate) const IN_SYNC: u8 = 0x14;
/// Ends every answer.
pub(crate) const OK: u8 = 0x10;

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Is somebody there?
    Sync,
    /// A value of the programmer's.
    Parameter(u8),
    /// The words of flash that are meant from now on.
    Address(u16),
    /// A command for the pins of a microcontroller, which a bootloader has no use for.
    Universal,
    Program {
        is_flash: bool,
        bytes: Vec<u8>,
    },
    Read {
        is_flash: bool,
        len: usize,
    },
    Signature,
    /// Done: start the program.
    Leave,
    /// One that a bootloader agrees to and does nothing for.
    Other,
}

/// What the bytes so far are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// The beginning of a command.
    More,
    /// A command, and how many bytes it had.
    Command(Command, usize),
    /// No command.
    Rubbish,
}

/// Reads the command that `bytes` begin with. One of data longer than `page` is rubbish.
pub(crate) fn take(bytes: &[u8], page: usize) -> Taken {
    let Some(len) = length(bytes) else {
        return Taken::More;
    };
    if matches!(bytes[0], 0x64 | 0x74) && length_of_data(bytes) > page {
        return Taken::Rubbish;
    }
    if bytes.len() < len {
        return Taken::More;
    }
    if bytes[len - 1] != END {
        return Taken::Rubbish;
    }
    let command = match bytes[0] {
        0x30 => Command::Sync,
        0x41 => Command::Parameter(bytes[1]),
        0x51 => Command::Leave,
        0x55 => Command::Address(u16::from_le_bytes([bytes[1], bytes[2]])),
        0x56 => Command::Universal,
        0x64 => Command::Program {
            is_flash: bytes[3] == b'F',
            bytes: bytes[4..len - 1].to_vec(),
        },
        0x74 => Command::Read {
            is_flash: bytes[3] == b'F',
            len: length_of_data(bytes),
        },
        0x75 => Command::Signature,
        _ => Command::Other,
    };
    Taken::Command(command, len)
}

/// The whole length of the command that `bytes` begin with, where they tell.
fn length(bytes: &[u8]) -> Option<usize> {
    Some(match bytes.first()? {
        0x41 => 3,
        0x42 => 22,
        // Extended parameters say how many there are, with that number among them.
        0x45 => 2 + usize::from(*bytes.get(1)?),
        0x55 => 4,
        0x56 => 6,
        0x64 if bytes.len() < 4 => return None,
        0x64 => 5 + length_of_data(bytes),
        0x74 if bytes.len() < 4 => return None,
        0x74 => 5,
        _ => 2,
    })
}

fn length_of_data(bytes: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([bytes[1], bytes[2]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_taken_whole() {
        let program = [0x64, 0, 3, b'F', 1, 2, 3, END, 0x30];
        for len in 0..8 {
            assert_eq!(take(&program[..len], 128), Taken::More, "{len}");
        }
        let bytes = vec![1, 2, 3];
        let is_flash = true;
        assert_eq!(
            take(&program, 128),
            Taken::Command(Command::Program { is_flash, bytes }, 8)
        );
        assert_eq!(
            take(&[0x55, 0x34, 0x12, END], 128),
            Taken::Command(Command::Address(0x1234), 4)
        );
        let extended = [0x45, 5, 4, 0xD7, 0xA0, 1, END];
        assert_eq!(take(&extended, 128), Taken::Command(Command::Other, 7));
    }

    #[test]
    fn what_no_command_ends_is_rubbish() {
        assert_eq!(take(&[0x30, 0x30], 128), Taken::Rubbish);
        assert_eq!(take(&[0x64, 0, 129, b'F'], 128), Taken::Rubbish);
        assert_eq!(take(&[0x74, 1, 0, b'F', END], 128), Taken::Rubbish);
        assert_eq!(take(&[0x64, 0, 1, b'F', 9, 9], 128), Taken::Rubbish);
    }
}
