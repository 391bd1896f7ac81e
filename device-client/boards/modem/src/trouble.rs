//! What goes wrong with the modem, by chance and by order.

use std::time::Duration;

use crate::fault::{Kind, Order};
use crate::modem::{Mode, Modem, Request, SOCKETS, Settings};
use crate::pace::Pace;
use crate::socket::State;

impl Modem {
    /// The reset pin: a start from nothing, as after a loss of power.
    pub fn reset(&mut self, now: Duration) {
        self.advance(now);
        self.tell("reset by its pin");
        self.power_off(self.now + self.config.start);
    }

    /// Carries out an order; what it answers.
    pub fn order(&mut self, order: Order, now: Duration) -> String {
        self.advance(now);
        if order != Order::Status {
            self.tell_fault(&format!("order {order:?}"));
        }
        match order {
            Order::DropRegistration(time) => self.drop_registration(time),
            Order::DropContext => self.drop_context(),
            Order::CloseSocket(Some(socket)) => self.end(socket),
            Order::CloseSocket(None) => (0..SOCKETS).for_each(|socket| self.end(socket)),
            Order::Garbage(len) => {
                let rubbish = self.faults.rubbish(len);
                self.say(&rubbish, self.now);
            }
            Order::Lose(count) => {
                let waiting = self.input.lose(count);
                self.losses += count - waiting;
            }
            Order::LoseUrcs(count) => self.lost_urcs += count,
            Order::Stall(time) => self.stall(time),
            Order::Freeze(time) => self.freeze(time),
            Order::Mute => self.is_mute = true,
            Order::Unmute => self.is_mute = false,
            Order::Hang => {
                self.is_hung = true;
                self.output.clear();
            }
            Order::Error(count) => self.errors += count,
            Order::Silent(count) => self.silences += count,
            Order::Rubbish(count) => self.rubbishes += count,
            Order::CutPower(time) => self.power_off(self.now + time + self.config.start),
            Order::NoNetwork(none) => self.no_network = none,
            Order::Status => return format!("ok {}", self.counts),
        }
        self.advance(now);
        "ok".to_owned()
    }

    /// Faults that a command gives occasion to.
    pub(crate) fn chance(&mut self) {
        let pause = self.faults.pause_max;
        if self.faults.happens(Kind::Stall) {
            let time = self.faults.time(pause);
            self.tell_fault(&format!("stall for {time:?}"));
            self.stall(time);
        }
        if self.faults.happens(Kind::Freeze) {
            let time = self.faults.time(pause);
            self.tell_fault(&format!("freeze for {time:?}"));
            self.freeze(time);
        }
        if self.faults.happens(Kind::Registration) {
            let time = self.faults.time(pause);
            self.tell_fault(&format!("no registration for {time:?}"));
            self.drop_registration(time);
        }
        if self.faults.happens(Kind::Close) {
            let socket = self.faults.below(SOCKETS);
            let open: Vec<_> = (0..SOCKETS)
                .filter(|place| self.sockets[*place].is_some())
                .collect();
            if let Some(socket) = open.get(socket % open.len().max(1)) {
                self.tell_fault(&format!("the network closes socket {socket}"));
                self.end(*socket);
            }
        }
        if self.faults.happens(Kind::Context) {
            self.tell_fault("the network ends the context");
            self.drop_context();
        }
        if self.faults.happens(Kind::Mute) {
            self.tell_fault("mute until restarted");
            self.is_mute = true;
        }
        if self.faults.happens(Kind::Reboot) {
            self.tell_fault("restarts by itself");
            self.power_off(self.now + self.config.start);
        }
    }

    pub(crate) fn stall(&mut self, time: Duration) {
        self.stalled_until = self.stalled_until.max(self.now + time);
    }

    pub(crate) fn freeze(&mut self, time: Duration) {
        let until = self.now + time;
        self.input.hold(until);
        self.output.hold(until);
        self.busy_until = self.busy_until.max(until);
    }

    pub(crate) fn drop_registration(&mut self, time: Duration) {
        let at = self.now + time;
        self.registered_at = Some(self.registered_at.map_or(at, |before| before.max(at)));
        self.urc_registration(2);
    }

    pub(crate) fn drop_context(&mut self) {
        if self.settings.context {
            self.settings.context = false;
            self.urc("+UUPSDD: 0".to_owned());
        }
        (0..SOCKETS).for_each(|socket| self.close(socket, true));
    }

    /// Off at once, until the start is over; the network is not told.
    pub(crate) fn power_off(&mut self, until: Duration) {
        for socket in 0..SOCKETS {
            if let Some(socket) = self.sockets[socket].take()
                && socket.state != State::Created
            {
                self.requests.push_back(Request::Abandon(socket.key));
            }
        }
        // With its power it loses a freeze, too.
        self.input = Pace::new(self.config.baud);
        self.output = Pace::new(self.config.baud);
        self.forget();
        self.mode = Mode::Off { until };
    }

    pub(crate) fn forget(&mut self) {
        self.input.clear();
        self.line.clear();
        self.data.clear();
        self.urcs.clear();
        self.held.clear();
        self.waiting = None;
        self.settings = Settings::new();
    }

    pub(crate) fn start(&mut self) {
        self.mode = Mode::Command;
        self.is_mute = false;
        self.is_hung = false;
        self.busy_until = self.now;
        self.counts.starts += 1;
        let at = self.now + self.config.register;
        self.registered_at = Some(self.registered_at.map_or(at, |before| before.max(at)));
        self.tell("started");
    }
}
