//! What the modem says: answers, unasked lines, its log.

use std::time::Duration;

use crate::fault::Kind;
use crate::modem::{Answer, LOG_MAX, Mode, Modem, Outcome, SOCKETS, Waiting};

impl Modem {
    pub(crate) fn carry_on(&mut self, answer: Answer) {
        match answer {
            Answer::Lines(lines, outcome, time) => self.answer(&lines, outcome, time),
            Answer::Prompt { socket, len } => {
                self.mode = Mode::Data {
                    socket,
                    missing: len,
                };
                let at = self.now + self.config.latency;
                self.busy_until = at;
                self.urc_before_answer(Kind::UrcInAnswer, at);
                self.say(b"\r\n@", at);
                self.urc_before_answer(Kind::UrcAfterPrompt, at);
            }
            Answer::Wait { socket, time } => {
                self.waiting = Some(Waiting {
                    socket,
                    until: self.now + time,
                });
            }
            Answer::Restart => {
                self.answer(&[], Outcome::Ok, Duration::ZERO);
                let at = self.busy_until;
                (0..SOCKETS).for_each(|socket| self.close(socket, false));
                self.forget();
                self.mode = Mode::Off {
                    until: at + self.config.start,
                };
            }
        }
    }

    pub(crate) fn answer(&mut self, lines: &[Vec<u8>], outcome: Outcome, time: Duration) {
        let mut at = self.now + self.config.latency + time;
        self.busy_until = at;
        let result = match outcome {
            Outcome::Ok => "OK".to_owned(),
            Outcome::Error(_) if self.settings.errors == 0 => "ERROR".to_owned(),
            Outcome::Error(number) if self.settings.errors == 1 => {
                format!("+CME ERROR: {number}")
            }
            Outcome::Error(3) => "+CME ERROR: operation not allowed".to_owned(),
            Outcome::Error(_) => "+CME ERROR: operation not supported".to_owned(),
        };
        if self.silences > 0 || self.faults.happens(Kind::Silent) {
            self.silences = self.silences.saturating_sub(1);
            self.tell_fault(Kind::Silent.name());
            return;
        }
        if self.faults.happens(Kind::Garbage) {
            self.tell_fault(Kind::Garbage.name());
            let len = 1 + self.faults.below(80);
            let rubbish = self.faults.rubbish(len);
            self.say(&rubbish, at);
        }
        for line in lines.iter().map(Vec::as_slice).chain([result.as_bytes()]) {
            self.urc_before_answer(Kind::UrcInAnswer, at);
            let mut whole = [b"\r\n", line, b"\r\n"].concat();
            if whole.len() > 40 && self.faults.happens(Kind::GarbageInData) {
                self.tell_fault(Kind::GarbageInData.name());
                let len = 1 + self.faults.below(5);
                let place = 20 + self.faults.below(whole.len() - 40);
                let rubbish = self.faults.rubbish(len);
                whole.splice(place..place, rubbish);
            }
            if self.faults.happens(Kind::Split) {
                self.counts.faults += 1;
                let place = self.faults.below(whole.len());
                let (first, second) = whole.split_at(place);
                self.say(first, at);
                at += self.faults.time(Duration::from_millis(300));
                self.say(second, at);
            } else {
                self.say(&whole, at);
            }
        }
    }

    /// An unasked line at an awkward moment: one that waits, or one that says nothing new.
    pub(crate) fn urc_before_answer(&mut self, kind: Kind, at: Duration) {
        if !self.faults.happens(kind) {
            return;
        }
        self.counts.faults += 1;
        let urc = self.urcs.pop_front().unwrap_or_else(|| {
            let open = self.sockets.iter().enumerate().find_map(|(place, socket)| {
                let waiting = socket.as_ref()?.received.len();
                (waiting > 0).then(|| format!("+UUSORD: {place},{waiting}"))
            });
            match (self.faults.below(3), open) {
                (0, _) => "RING".to_owned(),
                (1, _) if self.is_registered() => "+CGREG: 1".to_owned(),
                (_, Some(line)) => line,
                _ => "+UUPSDA: 0,\"10.0.0.1\"".to_owned(),
            }
        });
        self.say_line(urc.as_bytes(), at);
    }

    pub(crate) fn urc(&mut self, line: String) {
        if self.lost_urcs > 0 || self.faults.happens(Kind::UrcLost) {
            self.lost_urcs = self.lost_urcs.saturating_sub(1);
            self.tell_fault(&format!("{}: {line}", Kind::UrcLost.name()));
        } else {
            self.urcs.push_back(line);
        }
    }

    pub(crate) fn urc_registration(&mut self, state: u32) {
        for (place, name) in ["CREG", "CGREG", "CEREG"].iter().enumerate() {
            if self.settings.registration[place] > 0 {
                self.urc(format!("+{name}: {state}"));
            }
        }
    }

    pub(crate) fn say_line(&mut self, line: &[u8], at: Duration) {
        self.say(&[b"\r\n", line, b"\r\n"].concat(), at);
    }

    pub(crate) fn say(&mut self, bytes: &[u8], at: Duration) {
        if self.is_mute || self.is_hung {
            return;
        }
        self.output.push(bytes, at);
        if self.config.trace {
            for byte in bytes {
                if matches!(byte, b'\r' | b'\n') {
                    let said = std::mem::take(&mut self.said);
                    if !said.is_empty() {
                        self.trace('<', &said);
                    }
                } else {
                    self.said.push(*byte);
                }
            }
        }
    }

    pub(crate) fn trace(&mut self, way: char, line: &[u8]) {
        if self.config.trace {
            let shown = line.get(..120).unwrap_or(line);
            let more = if shown.len() < line.len() { "..." } else { "" };
            let shown = shown.escape_ascii().to_string().replace("\\\"", "\"");
            self.tell(&format!("{way} {shown}{more}"));
        }
    }

    pub(crate) fn tell_fault(&mut self, what: &str) {
        self.counts.faults += 1;
        self.tell(&format!("fault: {what}"));
    }

    pub(crate) fn tell(&mut self, what: &str) {
        if self.log.len() == LOG_MAX {
            self.log.pop_front();
        }
        self.log
            .push_back(format!("{:11.6} {what}", self.now.as_secs_f64()));
    }
}
