//! Sockets, and what the network says about them.

use std::time::Duration;

use crate::modem::{Answer, ERROR_FULL, Event, Modem, Outcome, PIECE_MAX, Request};
use crate::socket::{Socket, State};

impl Modem {
    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled_until > self.now || self.registered_at.is_some()
    }

    pub(crate) fn request(&mut self, request: Request) {
        self.requests.push_back(request);
    }

    /// A free socket, opened.
    pub(crate) fn open_socket(&mut self) -> Option<usize> {
        let place = self.sockets.iter().position(Option::is_none)?;
        self.sockets[place] = Some(Socket::new(self.next_key));
        self.next_key += 1;
        Some(place)
    }

    /// Closes a socket, and says so where the board did not ask for it.
    pub(crate) fn close(&mut self, place: usize, unasked: bool) {
        let Some(socket) = self.sockets[place].take() else {
            return;
        };
        if socket.state != State::Created {
            self.requests.push_back(Request::Close(socket.key));
        }
        if unasked {
            self.urc(format!("+UUSOCL: {place}"));
        }
    }

    /// The network ends a connection; what came before can still be read.
    pub(crate) fn end(&mut self, place: usize) {
        let Some(socket) = self.sockets.get_mut(place).and_then(Option::as_mut) else {
            return;
        };
        match socket.state {
            State::Open => {
                socket.state = State::Ended;
                let key = socket.key;
                self.requests.push_back(Request::Close(key));
                self.close_if_read(place);
            }
            State::Created | State::Connecting | State::Ended => {}
        }
    }

    /// A connection that ended closes when the board has read all of it.
    pub(crate) fn close_if_read(&mut self, place: usize) {
        let is_over = self.sockets[place]
            .as_ref()
            .is_some_and(|socket| socket.state == State::Ended && socket.received.is_empty());
        if is_over {
            self.close(place, true);
        }
    }

    pub(crate) fn send_waiting(&mut self) {
        for socket in self.sockets.iter_mut().flatten() {
            if !socket.to_send.is_empty() && socket.state == State::Open {
                let bytes = std::mem::take(&mut socket.to_send);
                socket.in_flight += bytes.len();
                self.counts.up += bytes.len() as u64;
                self.requests.push_back(Request::Send {
                    key: socket.key,
                    bytes,
                });
            }
        }
    }

    /// Bytes of the board for a socket.
    pub(crate) fn write(&mut self, place: usize, bytes: &[u8]) -> Answer {
        let buffer = self.config.send_buffer;
        let refused = Answer::Lines(Vec::new(), Outcome::Error(3), Duration::ZERO);
        let Some(socket) = &mut self.sockets[place] else {
            return refused;
        };
        if socket.state != State::Open {
            return refused;
        }
        if socket.to_send.len() + socket.in_flight + bytes.len() > buffer {
            socket.error = ERROR_FULL;
            return refused;
        }
        socket.to_send.extend_from_slice(bytes);
        let line = format!("+USOWR: {place},{}", bytes.len()).into_bytes();
        if !self.is_stalled() {
            self.send_waiting();
        }
        Answer::Lines(vec![line], Outcome::Ok, Duration::ZERO)
    }

    pub(crate) fn happened(&mut self, event: Event) {
        let key = match &event {
            Event::Connected(key)
            | Event::Failed(key, _)
            | Event::Data(key, _)
            | Event::Sent(key, _)
            | Event::Ended(key) => *key,
        };
        let place = self
            .sockets
            .iter()
            .position(|socket| socket.as_ref().is_some_and(|socket| socket.key == key));
        let Some(place) = place else {
            return;
        };
        let Some(socket) = &mut self.sockets[place] else {
            return;
        };
        let waits = self.waiting.is_some_and(|waiting| waiting.socket == place);
        match event {
            Event::Connected(_) if socket.state == State::Connecting => {
                socket.state = State::Open;
                let is_async = socket.connects_async;
                self.counts.connections += 1;
                if waits {
                    self.waiting = None;
                    self.answer(&[], Outcome::Ok, Duration::ZERO);
                } else if is_async {
                    self.urc(format!("+UUSOCO: {place},0"));
                }
            }
            Event::Failed(_, error) => {
                socket.state = State::Created;
                socket.error = error;
                let is_async = socket.connects_async;
                if waits {
                    self.waiting = None;
                    self.answer(&[], Outcome::Error(3), Duration::ZERO);
                } else if is_async {
                    self.urc(format!("+UUSOCO: {place},{error}"));
                }
            }
            Event::Data(_, bytes) if socket.state == State::Open => {
                self.counts.down += bytes.len() as u64;
                socket.received.extend(bytes);
                let waiting = socket.received.len();
                socket.is_full = waiting + PIECE_MAX > self.config.receive_buffer;
                if !socket.is_full {
                    self.requests.push_back(Request::More(key));
                }
                self.urc(format!("+UUSORD: {place},{waiting}"));
            }
            Event::Sent(_, len) => socket.in_flight = socket.in_flight.saturating_sub(len),
            Event::Ended(_) => self.end(place),
            Event::Connected(_) | Event::Data(..) => {}
        }
    }
}
