//! The commands, strict about their syntax. Forms and limits are those of u-blox's SARA-R4
//! manual (UBX-17003787) and of what Arduino's library sends to a SARA-U201; where neither
//! says what a modem does, the emulator refuses.

use std::time::Duration;

use crate::modem::{Answer, Modem, Outcome, PIECE_MAX, Request, SOCKETS};
use crate::socket::State;

/// TS 27.007 section 9.2.
const NOT_ALLOWED: Outcome = Outcome::Error(3);
const NOT_SUPPORTED: Outcome = Outcome::Error(4);
const UNKNOWN: Outcome = Outcome::Error(100);

/// A name takes this long to look up.
const NAME_TIME: Duration = Duration::from_millis(200);

/// One parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Number(u32),
    Text(Vec<u8>),
}

/// What stands behind a command's name.
#[derive(Debug, PartialEq, Eq)]
enum Form {
    Plain,
    Read,
    Test,
    Set(Vec<Value>),
}

/// Takes the parameters apart; `None`: not what a modem understands.
fn values(text: &[u8]) -> Option<Vec<Value>> {
    let mut values = Vec::new();
    let mut rest = text;
    loop {
        if let Some(behind) = rest.strip_prefix(b"\"") {
            let end = behind.iter().position(|byte| *byte == b'"')?;
            values.push(Value::Text(behind[..end].to_vec()));
            rest = &behind[end + 1..];
        } else {
            let end = rest
                .iter()
                .position(|byte| *byte == b',')
                .unwrap_or(rest.len());
            let number = std::str::from_utf8(&rest[..end]).ok()?;
            if !number.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            values.push(Value::Number(number.parse().ok()?));
            rest = &rest[end..];
        }
        match rest.split_first() {
            None => return Some(values),
            Some((b',', behind)) => rest = behind,
            Some(_) => return None,
        }
    }
}

fn form(text: &[u8]) -> Option<Form> {
    match text {
        b"" => Some(Form::Plain),
        b"?" => Some(Form::Read),
        b"=?" => Some(Form::Test),
        _ => text.strip_prefix(b"=").and_then(values).map(Form::Set),
    }
}

fn lines(lines: &[String]) -> Answer {
    let lines = lines.iter().map(|line| line.clone().into_bytes()).collect();
    Answer::Lines(lines, Outcome::Ok, Duration::ZERO)
}

const fn ends(outcome: Outcome) -> Answer {
    Answer::Lines(Vec::new(), outcome, Duration::ZERO)
}

impl Modem {
    /// Carries out a command, given without its `AT`.
    pub(crate) fn perform(&mut self, command: &[u8]) -> Answer {
        let end = command
            .iter()
            .position(|byte| matches!(byte, b'=' | b'?'))
            .unwrap_or(command.len());
        let (name, behind) = command.split_at(end);
        let name = name.to_ascii_uppercase();
        let Some(form) = form(behind) else {
            return ends(NOT_SUPPORTED);
        };
        match (name.as_slice(), form) {
            (b"" | b"&K0" | b"&K3" | b"&C1" | b"&D0", Form::Plain) => ends(Outcome::Ok),
            (b"E0" | b"E1" | b"E", Form::Plain) => {
                self.settings.echo = name == b"E1";
                ends(Outcome::Ok)
            }
            (b"I", Form::Plain) => lines(&["SARA-U201-EMULATED".to_owned()]),
            (b"+CMEE", Form::Set(values)) => match values.as_slice() {
                [Value::Number(mode @ 0..=2)] => {
                    self.settings.errors = *mode;
                    ends(Outcome::Ok)
                }
                _ => ends(NOT_SUPPORTED),
            },
            (b"+CMEE", Form::Read) => lines(&[format!("+CMEE: {}", self.settings.errors)]),
            (b"+IPR", Form::Set(values)) => match values.as_slice() {
                // Another rate than the line's would end the dialogue.
                [Value::Number(rate)] if [0, self.config.baud].contains(rate) => ends(Outcome::Ok),
                _ => ends(NOT_SUPPORTED),
            },
            (b"+IPR", Form::Read) => lines(&[format!("+IPR: {}", self.config.baud)]),
            (b"+CPIN", Form::Read) => lines(&["+CPIN: READY".to_owned()]),
            (b"+UPSV", Form::Set(values)) => match values.as_slice() {
                [Value::Number(0)] => ends(Outcome::Ok),
                _ => ends(NOT_SUPPORTED),
            },
            (b"+CREG" | b"+CGREG" | b"+CEREG", form) => self.registration(&name, &form),
            (b"+CSQ", Form::Plain) => {
                let signal = if self.is_registered() {
                    self.config.signal
                } else {
                    99
                };
                lines(&[format!("+CSQ: {signal},99")])
            }
            (b"+COPS", Form::Read) if self.is_registered() => lines(&[format!(
                "+COPS: 0,0,\"{}\",{}",
                self.config.operator, self.config.technology
            )]),
            (b"+COPS", Form::Read) => lines(&["+COPS: 0".to_owned()]),
            (b"+COPS", Form::Set(values)) => match values.as_slice() {
                [Value::Number(3), Value::Number(0)] | [Value::Number(0)] => ends(Outcome::Ok),
                _ => ends(NOT_SUPPORTED),
            },
            (b"+CFUN", Form::Set(values)) => match values.as_slice() {
                [Value::Number(16)] => {
                    self.tell("restarts by AT+CFUN=16");
                    Answer::Restart
                }
                [Value::Number(1)] => ends(Outcome::Ok),
                _ => ends(NOT_SUPPORTED),
            },
            (b"+UPSD", Form::Set(values)) => self.profile(&values),
            (b"+UPSDA", Form::Set(values)) => self.context(&values),
            (b"+UPSND", Form::Set(values)) => match values.as_slice() {
                [Value::Number(profile @ 0..=6), Value::Number(8)] => {
                    let active = u32::from(*profile == 0 && self.settings.context);
                    lines(&[format!("+UPSND: {profile},8,{active}")])
                }
                _ => ends(NOT_SUPPORTED),
            },
            (b"+UDNSRN", Form::Set(values)) => match values.as_slice() {
                [Value::Number(0), Value::Text(name)] => self.look_up(name),
                _ => ends(NOT_SUPPORTED),
            },
            (b"+UDCONF", Form::Set(values)) => match values.as_slice() {
                [Value::Number(1), Value::Number(mode @ 0..=1)] => {
                    self.settings.hex = *mode == 1;
                    ends(Outcome::Ok)
                }
                [Value::Number(1)] => {
                    lines(&[format!("+UDCONF: 1,{}", u32::from(self.settings.hex))])
                }
                _ => ends(NOT_SUPPORTED),
            },
            (b"+USOCR", Form::Set(values)) => match values.as_slice() {
                [Value::Number(6)] => match self.open_socket() {
                    Some(place) => lines(&[format!("+USOCR: {place}")]),
                    None => ends(NOT_ALLOWED),
                },
                _ => ends(NOT_SUPPORTED),
            },
            (b"+USOSO", Form::Set(values)) => match values.as_slice() {
                [
                    Value::Number(place),
                    Value::Number(_),
                    Value::Number(_),
                    Value::Number(_),
                ] if self.has_socket(*place) => ends(Outcome::Ok),
                _ => ends(NOT_ALLOWED),
            },
            (b"+USOCO", Form::Set(values)) => self.connect(&values),
            (b"+USOWR", Form::Set(values)) => self.write_command(&values),
            (b"+USORD", Form::Set(values)) => self.read_command(&values),
            (b"+USOCL", Form::Set(values)) => match values.as_slice() {
                [Value::Number(place)] if self.has_socket(*place) => {
                    self.close(*place as usize, false);
                    ends(Outcome::Ok)
                }
                _ => ends(NOT_ALLOWED),
            },
            (b"+USOCTL", Form::Set(values)) => match values.as_slice() {
                [Value::Number(place), Value::Number(what @ (1 | 10))] => {
                    match self.sockets.get(*place as usize) {
                        Some(Some(socket)) => {
                            let value = if *what == 1 {
                                socket.error
                            } else {
                                socket.tcp_state()
                            };
                            lines(&[format!("+USOCTL: {place},{what},{value}")])
                        }
                        _ => ends(NOT_ALLOWED),
                    }
                }
                _ => ends(NOT_SUPPORTED),
            },
            _ => ends(UNKNOWN),
        }
    }

    fn has_socket(&self, place: u32) -> bool {
        matches!(self.sockets.get(place as usize), Some(Some(_)))
    }

    fn registration(&mut self, name: &[u8], form: &Form) -> Answer {
        let name = String::from_utf8_lossy(name);
        let mode = match &*name {
            "+CREG" => &mut self.settings.registration[0],
            "+CGREG" => &mut self.settings.registration[1],
            _ => &mut self.settings.registration[2],
        };
        match form {
            Form::Set(values) => match values.as_slice() {
                [Value::Number(new @ 0..=2)] => {
                    *mode = *new;
                    ends(Outcome::Ok)
                }
                _ => ends(NOT_SUPPORTED),
            },
            Form::Read => {
                let mode = *mode;
                let state = if self.is_registered() { 1 } else { 2 };
                lines(&[format!("{name}: {mode},{state}")])
            }
            Form::Plain | Form::Test => ends(NOT_SUPPORTED),
        }
    }

    fn profile(&mut self, values: &[Value]) -> Answer {
        match values {
            [
                Value::Number(0..=6),
                Value::Number(tag @ (1..=3 | 7)),
                Value::Text(text),
            ] => {
                if *tag == 1 {
                    self.settings.apn = String::from_utf8_lossy(text).into_owned();
                }
                ends(Outcome::Ok)
            }
            [Value::Number(0..=6), Value::Number(6), Value::Number(0..=3)] => ends(Outcome::Ok),
            _ => ends(NOT_SUPPORTED),
        }
    }

    fn context(&mut self, values: &[Value]) -> Answer {
        let time = self.config.context;
        match values {
            [Value::Number(0), Value::Number(3)] => {
                let known = self.config.apn.is_empty() || self.config.apn == self.settings.apn;
                if !self.is_registered() || self.settings.context || !known {
                    return Answer::Lines(Vec::new(), NOT_ALLOWED, time);
                }
                self.settings.context = true;
                self.urc("+UUPSDA: 0,\"10.0.0.1\"".to_owned());
                Answer::Lines(Vec::new(), Outcome::Ok, time)
            }
            [Value::Number(0), Value::Number(4)] => {
                if !self.settings.context {
                    return ends(NOT_ALLOWED);
                }
                self.settings.context = false;
                for place in 0..SOCKETS {
                    self.close(place, true);
                }
                Answer::Lines(Vec::new(), Outcome::Ok, time)
            }
            _ => ends(NOT_SUPPORTED),
        }
    }

    /// What the network's name servers say.
    fn address_of(&self, name: &[u8]) -> Option<String> {
        let (_, address) = self
            .config
            .names
            .iter()
            .find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name))?;
        (self.settings.context && self.has_network()).then(|| address.clone())
    }

    fn look_up(&self, name: &[u8]) -> Answer {
        match self.address_of(name) {
            Some(address) => Answer::Lines(
                vec![format!("+UDNSRN: \"{address}\"").into_bytes()],
                Outcome::Ok,
                NAME_TIME,
            ),
            None => Answer::Lines(Vec::new(), NOT_ALLOWED, NAME_TIME),
        }
    }

    fn has_network(&self) -> bool {
        self.is_registered() && !self.no_network
    }

    fn connect(&mut self, values: &[Value]) -> Answer {
        let (place, address, port, is_async) = match values {
            [
                Value::Number(place),
                Value::Text(address),
                Value::Number(port),
            ] => (place, address, port, false),
            [
                Value::Number(place),
                Value::Text(address),
                Value::Number(port),
                Value::Number(is_async @ 0..=1),
            ] => (place, address, port, *is_async == 1),
            _ => return ends(NOT_SUPPORTED),
        };
        // A name or an address.
        let is_address =
            std::str::from_utf8(address).is_ok_and(|text| text.parse::<std::net::IpAddr>().is_ok());
        let found = if is_address {
            Some(String::from_utf8_lossy(address).into_owned())
        } else {
            self.address_of(address)
        };
        let Ok(port @ 1..) = u16::try_from(*port) else {
            return ends(NOT_SUPPORTED);
        };
        let Some(address) = found else {
            return Answer::Lines(Vec::new(), NOT_ALLOWED, NAME_TIME);
        };
        let (has_network, context) = (self.has_network(), self.settings.context);
        let is_reached = self.is_registered();
        let place = *place as usize;
        let Some(Some(socket)) = self.sockets.get_mut(place) else {
            return ends(NOT_ALLOWED);
        };
        if socket.state != State::Created || !context || !is_reached {
            return ends(NOT_ALLOWED);
        }
        socket.state = State::Connecting;
        socket.connects_async = is_async;
        let key = socket.key;
        if has_network {
            self.request(Request::Connect { key, address, port });
        }
        if is_async {
            return ends(Outcome::Ok);
        }
        Answer::Wait {
            socket: place,
            time: self.config.connect_max,
        }
    }

    fn write_command(&mut self, values: &[Value]) -> Answer {
        let most = |hex| if hex { PIECE_MAX / 2 } else { PIECE_MAX };
        match values {
            // With the prompt it is binary in both modes.
            [Value::Number(place), Value::Number(len)] => {
                let len = *len as usize;
                if !(1..=most(false)).contains(&len) || !self.has_socket(*place) {
                    return ends(NOT_ALLOWED);
                }
                Answer::Prompt {
                    socket: *place as usize,
                    len,
                }
            }
            [Value::Number(place), Value::Number(len), Value::Text(text)] => {
                let len = *len as usize;
                let hex = self.settings.hex;
                let bytes = if hex {
                    from_hex(text)
                } else {
                    Some(text.clone())
                };
                match bytes.filter(|bytes| bytes.len() == len && (1..=most(hex)).contains(&len)) {
                    Some(bytes) if self.has_socket(*place) => self.write(*place as usize, &bytes),
                    _ => ends(NOT_ALLOWED),
                }
            }
            _ => ends(NOT_SUPPORTED),
        }
    }

    fn read_command(&mut self, values: &[Value]) -> Answer {
        let [Value::Number(number), Value::Number(len)] = values else {
            return ends(NOT_SUPPORTED);
        };
        let hex = self.settings.hex;
        let place = *number as usize;
        let most = if hex { PIECE_MAX / 2 } else { PIECE_MAX };
        let buffer = self.config.receive_buffer;
        let Some(Some(socket)) = self.sockets.get_mut(place) else {
            return ends(NOT_ALLOWED);
        };
        let len = *len as usize;
        if len > most || !matches!(socket.state, State::Open | State::Ended) {
            return ends(NOT_ALLOWED);
        }
        if len == 0 {
            return lines(&[format!("+USORD: {place},{}", socket.received.len())]);
        }
        let len = len.min(socket.received.len());
        let bytes: Vec<u8> = socket.received.drain(..len).collect();
        let key = socket.key;
        if socket.is_full && socket.received.len() + PIECE_MAX <= buffer {
            socket.is_full = false;
            self.request(Request::More(key));
        }
        self.close_if_read(place);
        let mut line = format!("+USORD: {place},{len},\"").into_bytes();
        if hex {
            for byte in &bytes {
                line.extend_from_slice(format!("{byte:02X}").as_bytes());
            }
        } else {
            line.extend_from_slice(&bytes);
        }
        line.push(b'"');
        Answer::Lines(vec![line], Outcome::Ok, Duration::ZERO)
    }
}

fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.chunks_exact(2)
        .map(|pair| u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_taken_apart() {
        assert_eq!(
            values(b"0,\"a,b\",70000"),
            Some(vec![
                Value::Number(0),
                Value::Text(b"a,b".to_vec()),
                Value::Number(70000)
            ])
        );
        for bad in [
            &b"1x"[..],
            b"\"open",
            b"\"a\"b",
            b"-1",
            b"99999999999",
            b"0,",
            b"",
        ] {
            assert_eq!(values(bad), None, "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn hexadecimal_is_taken_apart() {
        assert_eq!(from_hex(b"00fFa5"), Some(vec![0, 255, 0xA5]));
        assert_eq!(from_hex(b"0"), None);
        assert_eq!(from_hex(b"0g"), None);
    }
}
