//! u-blox SARA-U2 and SARA-G3 (and what else takes `AT+USO..` and `AT+UPSD..`).

use super::at::{At, Fault, Heard, Host, Uart, Unsolicited};
use super::{Authentication, Config, Model, Reply};

/// The u-blox SARA family. The table in the module's documentation lists the commands.
#[derive(Clone, Copy, Debug)]
pub struct Sara;

/// Settings and questions that the modem answers by itself, in milliseconds.
const ORDER_MS: u32 = 3_000;
/// A context coming up: the network may take 150 s.
const CONTEXT_ON_MS: u32 = 150_000;
/// A context going down.
const CONTEXT_OFF_MS: u32 = 40_000;
/// A name looked up.
const NAME_MS: u32 = 70_000;
/// A TCP connection.
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
const ERROR_FULL: u32 = 11;
/// TCP state "established".
const ESTABLISHED: u32 = 4;
/// Longest address, in bytes.
const ADDRESS_LEN: usize = 40;

impl Model for Sara {
    const WRITE_MAX: usize = 1024;
    const SOCKETS: u32 = 7;

    fn unsolicited(line: &[u8]) -> Option<Unsolicited> {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, values) = line.split_at_checked(colon)?;
        let values = values.get(1..)?;
        let first = Reply::of(values);
        match name {
            b"+UUSORD" => Some(Unsolicited::Data(first.number(0))),
            b"+UUSOCL" => Some(Unsolicited::Closed(first.number(0))),
            b"+UUSOCO" => Some(Unsolicited::Connected(
                first.number(0),
                first.fields() > 1 && first.number(1) == 0,
            )),
            b"+UUPSDD" => Some(Unsolicited::ContextLost),
            b"+CREG" | b"+CGREG" | b"+CEREG" => registration(values).map(Unsolicited::Registered),
            // The other ones of this make; `+UUPSDA` only repeats a result.
            _ if name.starts_with(b"+UU") => Some(Unsolicited::Other),
            _ => None,
        }
    }

    fn configure<U: Uart, H: Host>(
        at: &mut At<U, H, Self>,
        config: &Config<'_>,
    ) -> Result<(), Fault> {
        at.order(
            if config.hex {
                b"AT+UDCONF=1,1"
            } else {
                b"AT+UDCONF=1,0"
            },
            ORDER_MS,
        )
    }

    fn context_on<U: Uart, H: Host>(
        at: &mut At<U, H, Self>,
        config: &Config<'_>,
    ) -> Result<(), Fault> {
        let active = at.ask(b"AT+UPSND=0,8", b"+UPSND: ", ORDER_MS)?;
        if active.fields() == 3 && active.number(2) == 1 {
            return Ok(());
        }
        for (tag, value) in [(1, config.apn), (2, config.user), (3, config.password)] {
            at.put(b"AT+UPSD=0,");
            at.put_number(tag);
            at.put(b",\"");
            at.put(value.as_bytes());
            at.ask(b"\"", b"", ORDER_MS)?;
        }
        at.put(b"AT+UPSD=0,6,");
        at.put_number(match config.authentication {
            Authentication::None => 0,
            Authentication::Pap => 1,
            Authentication::Chap => 2,
        });
        at.ask(b"", b"", ORDER_MS)?;
        // The address comes from the network.
        at.order(b"AT+UPSD=0,7,\"0.0.0.0\"", ORDER_MS)?;
        at.order(b"AT+UPSDA=0,3", CONTEXT_ON_MS)
    }

    fn context_off<U: Uart, H: Host>(at: &mut At<U, H, Self>) {
        let _ = at.order(b"AT+UPSDA=0,4", CONTEXT_OFF_MS);
    }

    fn open<U: Uart, H: Host>(at: &mut At<U, H, Self>) -> Result<u32, Fault> {
        let reply = at.ask(b"AT+USOCR=6", b"+USOCR: ", ORDER_MS)?;
        if reply.fields() == 1 && reply.number(0) < Self::SOCKETS {
            Ok(reply.number(0))
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
        let mut address = [0; ADDRESS_LEN];
        let address = if host.contains(&b':') || !host.iter().any(u8::is_ascii_alphabetic) {
            host
        } else {
            at.put(b"AT+UDNSRN=0,\"");
            at.put(host);
            let found = at.ask(b"\"", b"+UDNSRN: ", NAME_MS)?;
            let text = found.text();
            for (room, byte) in address.iter_mut().zip(text) {
                *room = *byte;
            }
            address.get(..text.len()).unwrap_or(&[])
        };
        if address.is_empty() {
            return Err(Fault::Garbled);
        }
        at.put(b"AT+USOCO=");
        at.put_number(at.socket);
        at.put(b",\"");
        at.put(address);
        at.put(b"\",");
        at.put_number(u32::from(port));
        if !config.connect_async {
            return at.ask(b"", b"", CONNECT_MS).map(|_| ());
        }
        at.ask(b",1", b"", ORDER_MS)?;
        let due = at.due(CONNECT_MS);
        while !at.is_due(due) {
            let mut connected = at.connected;
            if connected.is_none() {
                at.pause(CONNECT_LOOK_MS);
                connected = at.connected;
            }
            // Where the unasked line was lost, the socket says it.
            match connected {
                Some(true) => return Ok(()),
                Some(false) => return Err(Fault::Refused),
                None if control(at, 10)? == ESTABLISHED => return Ok(()),
                None => {}
            }
        }
        Err(Fault::NoAnswer)
    }

    fn write<U: Uart, H: Host>(
        at: &mut At<U, H, Self>,
        config: &Config<'_>,
        bytes: &[u8],
    ) -> Result<usize, Fault> {
        let bytes = bytes.get(..most(config)).unwrap_or(bytes);
        at.put(b"AT+USOWR=");
        at.put_number(at.socket);
        at.put(b",");
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
            Ok(reply) => {
                let len = reply.number(1);
                if reply.fields() == 2 && reply.number(0) == at.socket && len <= number(bytes.len())
                {
                    Ok(usize::try_from(len).unwrap_or(0))
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
        at.put(b"AT+USORD=");
        at.put_number(at.socket);
        let reply = at.ask(b",0", b"+USORD: ", ORDER_MS)?;
        if reply.fields() == 2 && reply.number(0) == at.socket {
            Ok(usize::try_from(reply.number(1)).unwrap_or(0))
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
        let most = buffer.len().min(most(config));
        at.put(b"AT+USORD=");
        at.put_number(at.socket);
        at.put(b",");
        at.put_number(number(most));
        at.end();
        let due = at.due(READ_MS);
        let mut len = None;
        loop {
            match at.hear(PREFIX, b'"', due)? {
                Heard::Stop => {
                    let header = Reply::of(at.line().strip_prefix(PREFIX).unwrap_or(&[]));
                    // A comma stands before the quote, so the line has a third, empty field.
                    let count = usize::try_from(header.number(1)).unwrap_or(usize::MAX);
                    if len.is_some()
                        || header.fields() != 3
                        || header.number(0) != at.socket
                        || count > most
                    {
                        return Err(Fault::Garbled);
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
                    len = Some(count);
                }
                Heard::Line => match at.outcome() {
                    Some(Ok(())) => return len.ok_or(Fault::Garbled),
                    Some(Err(fault)) => return Err(fault),
                    None => {
                        // Some versions leave the quotes out where there is nothing.
                        let header = at.line().strip_prefix(PREFIX).map(Reply::of);
                        if header.is_some_and(|header| {
                            header.fields() == 2
                                && header.number(0) == at.socket
                                && header.number(1) == 0
                        }) {
                            len = Some(0);
                        }
                    }
                },
            }
        }
    }

    fn close<U: Uart, H: Host>(at: &mut At<U, H, Self>, socket: u32) -> Result<(), Fault> {
        at.put(b"AT+USOCL=");
        at.put_number(socket);
        at.ask(b"", b"", CLOSE_MS).map(|_| ())
    }
}

/// Most bytes of one read or write.
const fn most(config: &Config<'_>) -> usize {
    if config.hex {
        Sara::WRITE_MAX / 2
    } else {
        Sara::WRITE_MAX
    }
}

fn number(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// Asks for a value of the socket: 1 its last error, 10 the state of its TCP connection.
fn control<U: Uart, H: Host>(at: &mut At<U, H, Sara>, what: u32) -> Result<u32, Fault> {
    at.put(b"AT+USOCTL=");
    at.put_number(at.socket);
    at.put(b",");
    at.put_number(what);
    let reply = at.ask(b"", b"+USOCTL: ", ORDER_MS)?;
    if reply.fields() == 3 && reply.number(0) == at.socket && reply.number(1) == what {
        Ok(reply.number(2))
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

/// Whether a registration line says registered, at home or roaming, if it came unasked:
/// the answer to a question has the mode before the state, `+CGREG: 1,5`, and where the
/// mode is 2 an unasked line has the place behind it, `+CGREG: 5,"1A2B","01F4C2D9",2`.
pub(super) fn registration(values: &[u8]) -> Option<bool> {
    let behind = values
        .iter()
        .position(|byte| *byte == b',')
        .and_then(|comma| values.get(comma.wrapping_add(1)));
    match behind {
        None | Some(b'"') => Some(is_registered(Reply::of(values).number(0))),
        Some(_) => None,
    }
}

/// Whether a registration state means attached: 1 at home, 5 roaming.
pub(super) const fn is_registered(state: u32) -> bool {
    state == 1 || state == 5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registration_line_unasked_or_answered() {
        assert_eq!(registration(b" 1"), Some(true));
        assert_eq!(registration(b" 2"), Some(false));
        assert_eq!(registration(b" 5,\"1A2B\",\"01F4C2D9\",2"), Some(true));
        assert_eq!(registration(b" 1,5"), None);
        assert_eq!(registration(b" 2,1,\"1A2B\",\"01F4C2D9\",2"), None);
    }

    #[test]
    fn lines_of_answers_are_not_unasked() {
        for line in [
            &b"+USORD: 0,5"[..],
            b"OK",
            b"AT+USOCO=0,\"::1\",80",
            b"",
            b":",
        ] {
            assert_eq!(Sara::unsolicited(line), None, "{line:?}");
        }
        assert_eq!(
            Sara::unsolicited(b"+UUSORD: 2,7"),
            Some(Unsolicited::Data(2))
        );
        assert_eq!(
            Sara::unsolicited(b"+UUSOCO: 1,0"),
            Some(Unsolicited::Connected(1, true))
        );
        assert_eq!(
            Sara::unsolicited(b"+UUSOCO: 1,111"),
            Some(Unsolicited::Connected(1, false))
        );
        assert_eq!(
            Sara::unsolicited(b"+UUPSDD: 0"),
            Some(Unsolicited::ContextLost)
        );
    }
}
