//! u-blox SARA-U2 and SARA-G3 (and what else takes `AT+USO..` and `AT+UPSD..`).

use super::at::{At, Fault, Heard, Host, Signs, Uart};
use super::{Authentication, Config, Model, Values};

/// The u-blox SARA family. The table in the module's documentation lists the commands.
#[derive(Clone, Copy, Debug)]
pub struct Sara;

/// A context coming up, in milliseconds: the network may take 150 s.
const CONTEXT_ON_MS: u32 = 150_000;
/// A context going down.
const CONTEXT_OFF_MS: u32 = 40_000;
/// A TCP connection, with the look-up of the name.
const CONNECT_MS: u32 = 60_000;
/// How often a connection under way is asked about when its unasked line may be lost.
const CONNECT_LOOK_MS: u32 = 2_000;
/// A write: the prompt, and the result behind the data.
const WRITE_MS: u32 = 10_000;
/// Between the prompt and the data.
const PROMPT_MS: u32 = 50;
/// A read.
const READ_MS: u32 = 10_000;
/// A close: the modem says good-bye to the other end first.
const CLOSE_MS: u32 = 10_000;
/// Socket error "would block": the modem's buffer is full.
const ERROR_FULL: u16 = 11;
/// TCP state "established".
const ESTABLISHED: u16 = 4;

impl Model for Sara {
    const WRITE_MAX: usize = 1024;
    const SOCKETS: u16 = 7;

    fn unsolicited(line: &[u8], signs: &mut Signs) -> bool {
        // As numbers the names are told apart in less code than as texts.
        const SORD: u32 = u32::from_be_bytes(*b"SORD");
        const SOCL: u32 = u32::from_be_bytes(*b"SOCL");
        const SOCO: u32 = u32::from_be_bytes(*b"SOCO");
        const PSDD: u32 = u32::from_be_bytes(*b"PSDD");
        let Some((name, behind)) = line
            .strip_prefix(b"+UU")
            .and_then(<[u8]>::split_first_chunk::<4>)
        else {
            return registration(line, signs);
        };
        let values = Values::of(behind);
        let is_ours = values.number(0) == signs.socket;
        match u32::from_be_bytes(*name) {
            // A count of 2^32 - 1 is how some versions say that the connection broke.
            SORD if values.number(1) < u16::MAX => signs.data |= is_ours,
            SORD | SOCL => signs.closed |= is_ours,
            SOCO if is_ours => signs.connected = Some(values.number(1) == 0),
            PSDD => signs.closed = true,
            // Others of this make, which do not matter here.
            _ => {}
        }
        true
    }

    fn configure<U: Uart, H: Host>(
        at: &mut At<U, H, Self>,
        config: &Config<'_>,
    ) -> Result<(), Fault> {
        at.put(b"AT+UDCONF=1,");
        at.put_number(u16::from(config.hex));
        at.order(b"")
    }

    fn context_on<U: Uart, H: Host>(
        at: &mut At<U, H, Self>,
        config: &Config<'_>,
    ) -> Result<(), Fault> {
        at.ask(b"AT+UPSND=0,8", b"+UPSND: ")?;
        if at.values().number(2) == 1 {
            return Ok(());
        }
        profile(at, b"1,\"", config.apn.as_bytes(), b"\"")?;
        profile(at, b"2,\"", config.user.as_bytes(), b"\"")?;
        profile(at, b"3,\"", config.password.as_bytes(), b"\"")?;
        match config.authentication {
            Authentication::None => {}
            Authentication::Pap => profile(at, b"6,1", b"", b"")?,
            Authentication::Chap => profile(at, b"6,2", b"", b"")?,
        }
        // The address comes from the network.
        profile(at, b"7,\"", b"0.0.0.0", b"\"")?;
        at.put(b"AT+UPSDA=0,3");
        at.end();
        at.result(b"", CONTEXT_ON_MS)
    }

    fn context_off<U: Uart, H: Host>(at: &mut At<U, H, Self>) {
        at.put(b"AT+UPSDA=0,4");
        at.end();
        let _ = at.result(b"", CONTEXT_OFF_MS);
    }

    fn open<U: Uart, H: Host>(at: &mut At<U, H, Self>) -> Result<u16, Fault> {
        at.ask(b"AT+USOCR=6", b"+USOCR: ")?;
        let socket = at.values().number(0);
        if at.values().count() == 1 && socket < Self::SOCKETS {
            Ok(socket)
        } else {
            Err(Fault::Garbled)
        }
    }

    fn connect<U: Uart, H: Host>(
        at: &mut At<U, H, Self>,
        config: &Config<'_>,
        host: &[u8],
        port: u16,
    ) -> Result<(), Fault> {
        start(at, b"AT+USOCO=");
        at.put(b"\"");
        at.put(host);
        at.put(b"\",");
        at.put_number(port);
        if !config.connect_async {
            at.end();
            return at.result(b"", CONNECT_MS);
        }
        at.order(b",1")?;
        let due = at.due(CONNECT_MS);
        loop {
            // Where the unasked line was lost, the socket says it.
            match at.connected() {
                Some(true) => return Ok(()),
                Some(false) => return Err(Fault::Refused),
                None if control(at, 10)? == ESTABLISHED => return Ok(()),
                None if at.is_due(due) => return Err(Fault::NoAnswer),
                None => at.pause(CONNECT_LOOK_MS),
            }
        }
    }

    fn write<U: Uart, H: Host>(
        at: &mut At<U, H, Self>,
        config: &Config<'_>,
        bytes: &[u8],
    ) -> Result<usize, Fault> {
        let bytes = bytes.get(..config.piece::<Self>()).unwrap_or(bytes);
        start(at, b"AT+USOWR=");
        at.put_number(number(bytes.len()));
        if config.hex {
            at.put(b",\"");
            at.put_hex(bytes);
            at.put(b"\"");
            at.end();
        } else {
            at.end();
            let due = at.due(WRITE_MS);
            while at.hear(b"", b'@', due)? != Heard::Stop {
                match at.outcome() {
                    Some(Err(_)) => return full_or_closed(at),
                    Some(Ok(())) => return Err(Fault::Garbled),
                    None => {}
                }
            }
            at.pause(PROMPT_MS);
            at.put(bytes);
        }
        match at.result(b"+USOWR: ", WRITE_MS) {
            Ok(()) => {
                let len = usize::from(at.values().number(1));
                if is_answer(at) && at.values().count() == 2 && len <= bytes.len() {
                    Ok(len)
                } else {
                    // Nobody knows how many it took.
                    Err(Fault::Garbled)
                }
            }
            Err(Fault::Refused) => full_or_closed(at),
            Err(fault) => Err(fault),
        }
    }

    fn waiting<U: Uart, H: Host>(at: &mut At<U, H, Self>) -> Result<usize, Fault> {
        start(at, b"AT+USORD=");
        at.ask(b"0", b"+USORD: ")?;
        if is_answer(at) && at.values().count() == 2 {
            Ok(usize::from(at.values().number(1)))
        } else {
            Err(Fault::Garbled)
        }
    }

    fn read<U: Uart, H: Host>(
        at: &mut At<U, H, Self>,
        config: &Config<'_>,
        buffer: &mut [u8],
    ) -> Result<usize, Fault> {
        const PREFIX: &[u8] = b"+USORD: ";
        let most = buffer.len().min(config.piece::<Self>());
        start(at, b"AT+USORD=");
        at.put_number(number(most));
        at.end();
        let due = at.due(READ_MS);
        let mut len = None;
        loop {
            let heard = at.hear(PREFIX, b'"', due)?;
            if heard == Heard::Line
                && let Some(outcome) = at.outcome()
            {
                outcome?;
                return len.ok_or(Fault::Garbled);
            }
            let Some(header) = at.line().strip_prefix(PREFIX) else {
                continue;
            };
            let header = Values::of(header);
            let count = usize::from(header.number(1));
            if len.is_some() || header.number(0) != at.socket() || count > most {
                return Err(Fault::Garbled);
            }
            len = Some(count);
            if heard == Heard::Line {
                // Some versions leave the quotes out where there is nothing.
                if count > 0 {
                    return Err(Fault::Garbled);
                }
                continue;
            }
            for room in buffer.iter_mut().take(count) {
                *room = if config.hex {
                    at.hex_byte(due)?
                } else {
                    at.byte(due)?
                };
            }
            // What follows shows that no byte was lost or came in between.
            if at.byte(due)? != b'"' || at.byte(due)? != b'\r' {
                return Err(Fault::Garbled);
            }
        }
    }

    fn close<U: Uart, H: Host>(at: &mut At<U, H, Self>, socket: u16) -> Result<(), Fault> {
        at.put(b"AT+USOCL=");
        at.put_number(socket);
        at.end();
        at.result(b"", CLOSE_MS)
    }
}

fn number(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

/// Sets a value of the packet data profile.
fn profile<U: Uart, H: Host>(
    at: &mut At<U, H, Sara>,
    tag: &[u8],
    value: &[u8],
    end: &[u8],
) -> Result<(), Fault> {
    at.put(b"AT+UPSD=0,");
    at.put(tag);
    at.put(value);
    at.order(end)
}

/// Starts a command about the socket.
fn start<U: Uart, H: Host>(at: &mut At<U, H, Sara>, command: &[u8]) {
    at.put(command);
    at.put_number(at.socket());
    at.put(b",");
}

/// Whether the values are of the socket.
fn is_answer<U: Uart, H: Host>(at: &At<U, H, Sara>) -> bool {
    at.values().number(0) == at.socket()
}

/// Asks for a value of the socket: 1 its last error, 10 the state of its TCP connection.
fn control<U: Uart, H: Host>(at: &mut At<U, H, Sara>, what: u16) -> Result<u16, Fault> {
    start(at, b"AT+USOCTL=");
    at.put_number(what);
    at.ask(b"", b"+USOCTL: ")?;
    if is_answer(at) && at.values().number(1) == what && at.values().count() == 3 {
        Ok(at.values().number(2))
    } else {
        Err(Fault::Garbled)
    }
}

/// A refused write: a full buffer is no fault.
fn full_or_closed<U: Uart, H: Host>(at: &mut At<U, H, Sara>) -> Result<usize, Fault> {
    match control(at, 1) {
        Ok(ERROR_FULL) => Ok(0),
        Ok(_) | Err(Fault::Refused) => Err(Fault::Closed),
        Err(fault) => Err(fault),
    }
}

/// Notes the registration, at home or roaming, if the line says it unasked, `+CGREG: 5`:
/// the answer to a question has the mode before the state, `+CGREG: 1,5`.
fn registration(line: &[u8], signs: &mut Signs) -> bool {
    const NAMES: [&[u8]; 3] = [b"+CREG:", b"+CGREG:", b"+CEREG:"];
    let values = Values::of(line);
    let is_unasked = values.count() == 1 && NAMES.iter().any(|name| line.starts_with(name));
    if is_unasked {
        signs.registered = is_registered(values.number(0));
    }
    is_unasked
}

/// Whether a registration state means attached: 1 at home, 5 roaming.
pub(super) const fn is_registered(state: u16) -> bool {
    state == 1 || state == 5
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Signs = Signs {
        socket: 2,
        data: false,
        closed: false,
        connected: None,
        registered: false,
    };

    /// What a line makes of the signs; `None`: it did not come unasked.
    fn signs(line: &[u8]) -> Option<Signs> {
        let mut signs = QUIET;
        Sara::unsolicited(line, &mut signs).then_some(signs)
    }

    #[test]
    fn registration_line_unasked_or_answered() {
        let told = |line| signs(line).map(|signs| signs.registered);
        assert_eq!(told(b"+CGREG: 1"), Some(true));
        assert_eq!(told(b"+CREG: 2"), Some(false));
        assert_eq!(told(b"+CEREG: 5"), Some(true));
        assert_eq!(told(b"+CGREG: 1,5"), None);
    }

    #[test]
    fn lines_of_answers_are_not_unasked() {
        for line in [
            &b"+USORD: 0,5"[..],
            b"OK",
            b"AT+USOCO=0,\"::1\",80",
            b"+CME ERROR: 3",
            b"+CSQ: 1",
            b"",
            b":",
        ] {
            assert_eq!(signs(line), None, "{line:?}");
        }
    }

    #[test]
    fn unasked_lines_count_for_their_socket() {
        let data = Signs {
            data: true,
            ..QUIET
        };
        let closed = Signs {
            closed: true,
            ..QUIET
        };
        let connected = |is_there| Signs {
            connected: Some(is_there),
            ..QUIET
        };
        assert_eq!(signs(b"+UUSORD: 2,7"), Some(data));
        assert_eq!(signs(b"+UUSORD: 2,4294967295"), Some(closed));
        assert_eq!(signs(b"+UUSOCL: 2"), Some(closed));
        assert_eq!(signs(b"+UUSOCO: 2,0"), Some(connected(true)));
        assert_eq!(signs(b"+UUSOCO: 2,111"), Some(connected(false)));
        assert_eq!(signs(b"+UUPSDD: 0"), Some(closed));
        for line in [
            &b"+UUSORD: 1,7"[..],
            b"+UUSOCL: 1",
            b"+UUSOCO: 1,0",
            b"+UUPSDA: 0",
        ] {
            assert_eq!(signs(line), Some(QUIET));
        }
    }
}
