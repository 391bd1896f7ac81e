//! The modem with a clock and real sockets.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::fault::{Counts, Faults, Order};
use crate::modem::{Config, ERROR_REFUSED, ERROR_TIMED_OUT, Event, Modem, PIECE_MAX, Request};
use crate::socket::Key;

/// Paced bytes are given to the board in portions of so much time, not one by one.
const PORTION: Duration = Duration::from_millis(1);
/// A board that takes no bytes for so long is gone.
const UART_WRITE: Duration = Duration::from_secs(5);
/// With nothing to do the loop looks round after this time.
const IDLE: Duration = Duration::from_secs(60);

/// What the program is started with.
#[derive(Debug)]
pub struct Options {
    /// Where the board's serial line connects; port 0: any.
    pub uart: String,
    /// Where orders are taken, one a line; `None`: only [`Program::order`].
    pub control: Option<String>,
    /// The modem.
    pub config: Config,
    /// What goes wrong by chance.
    pub faults: Faults,
    /// Addresses, with or without a port, that connections may go to besides loopback.
    pub allow: Vec<String>,
    /// Where the dialogue and the log go.
    pub trace: Option<PathBuf>,
    /// Whether the log, without the dialogue, goes to standard error.
    pub verbose: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            uart: "127.0.0.1:0".to_owned(),
            control: None,
            config: Config::default(),
            faults: Faults::none(),
            allow: Vec::new(),
            trace: None,
            verbose: false,
        }
    }
}

enum Input {
    UartHere(u64, TcpStream),
    Uart(u64, Vec<u8>),
    UartGone(u64),
    Network(Event),
    Order(Order, Sender<String>),
    Counts(Sender<Counts>),
    /// Nothing: whether the loop still runs.
    Look,
    Stop,
}

/// A running modem; it ends when this is dropped.
#[derive(Debug)]
pub struct Program {
    uart: SocketAddr,
    control: Option<SocketAddr>,
    inputs: Sender<Input>,
    thread: Option<JoinHandle<()>>,
}

impl Program {
    /// Starts a modem that is switched on.
    ///
    /// # Errors
    /// A port is taken, or the trace file cannot be written.
    pub fn start(mut options: Options) -> io::Result<Self> {
        let (inputs, received) = mpsc::channel();
        let uart = TcpListener::bind(&options.uart)?;
        let uart_address = uart.local_addr()?;
        let control = options
            .control
            .as_ref()
            .map(TcpListener::bind)
            .transpose()?;
        let control_address = control.as_ref().map(TcpListener::local_addr).transpose()?;
        let trace = options.trace.as_ref().map(File::create).transpose()?;
        options.config.trace = trace.is_some();
        let to_loop = inputs.clone();
        thread::spawn(move || accept_uart(&uart, &to_loop));
        if let Some(control) = control {
            let to_loop = inputs.clone();
            thread::spawn(move || accept_control(&control, &to_loop));
        }
        let site = Site {
            inputs: inputs.clone(),
            allow: options.allow,
            connections: HashMap::new(),
            abandoned: Vec::new(),
            uart: None,
            trace,
            verbose: options.verbose,
        };
        let modem = Modem::new(options.config, options.faults);
        let thread = thread::spawn(move || site.run(modem, &received));
        Ok(Self {
            uart: uart_address,
            control: control_address,
            inputs,
            thread: Some(thread),
        })
    }

    /// Where the board's serial line connects.
    #[must_use]
    pub const fn uart(&self) -> SocketAddr {
        self.uart
    }

    /// Where orders are taken.
    #[must_use]
    pub const fn control(&self) -> Option<SocketAddr> {
        self.control
    }

    /// Carries out an order, as a line of the control interface; what it answers.
    #[must_use]
    pub fn order(&self, line: &str) -> String {
        order(&self.inputs, line)
    }

    /// What was done so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let (sender, answer) = mpsc::channel();
        let _ = self.inputs.send(Input::Counts(sender));
        answer.recv().unwrap_or_default()
    }

    /// Takes orders from a reader until it ends, and writes the answers.
    ///
    /// # Errors
    /// Reading or writing failed.
    pub fn take_orders(&self, from: impl io::Read, to: impl Write) -> io::Result<()> {
        take_orders(&self.inputs, from, to)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.inputs.send(Input::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // Nobody takes their inputs any more: a connection lets the listeners find that out.
        for address in [Some(self.uart), self.control].into_iter().flatten() {
            let _ = TcpStream::connect(address);
        }
    }
}

fn order(inputs: &Sender<Input>, line: &str) -> String {
    match line.parse() {
        Ok(order) => {
            let (sender, answer) = mpsc::channel();
            let _ = inputs.send(Input::Order(order, sender));
            answer
                .recv()
                .unwrap_or_else(|_| "error: the modem has ended".to_owned())
        }
        Err(fault) => format!("error: {fault}"),
    }
}

fn take_orders(inputs: &Sender<Input>, from: impl io::Read, mut to: impl Write) -> io::Result<()> {
    for line in BufReader::new(from).lines() {
        let line = line?;
        if !line.trim().is_empty() {
            writeln!(to, "{}", order(inputs, &line))?;
            to.flush()?;
        }
    }
    Ok(())
}

fn accept_control(listener: &TcpListener, inputs: &Sender<Input>) {
    for stream in listener.incoming().map_while(Result::ok) {
        if inputs.send(Input::Look).is_err() {
            return;
        }
        let inputs = inputs.clone();
        thread::spawn(move || {
            let _ = stream.set_nodelay(true);
            let Ok(writer) = stream.try_clone() else {
                return;
            };
            // An end that closes early has its orders carried out all the same.
            let _ = take_orders(&inputs, stream, writer);
        });
    }
}

/// One board at a time; the modem keeps its state over them, as one keeps its power while
/// the board restarts.
fn accept_uart(listener: &TcpListener, inputs: &Sender<Input>) {
    for (number, stream) in (1..).zip(listener.incoming().map_while(Result::ok)) {
        let _ = stream.set_nodelay(true);
        let _ = stream.set_write_timeout(Some(UART_WRITE));
        let Ok(mut reader) = stream.try_clone() else {
            continue;
        };
        if inputs.send(Input::UartHere(number, stream)).is_err() {
            return;
        }
        let inputs = inputs.clone();
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok(len @ 1..) = reader.read(&mut buffer) {
                if inputs
                    .send(Input::Uart(number, buffer[..len].to_vec()))
                    .is_err()
                {
                    return;
                }
            }
            let _ = inputs.send(Input::UartGone(number));
        });
    }
}

/// A connection as the loop sees it: dropped, it is closed after what waits was sent.
#[derive(Debug)]
struct Connection {
    to_send: Sender<Vec<u8>>,
    room: Sender<()>,
}

struct Site {
    inputs: Sender<Input>,
    allow: Vec<String>,
    connections: HashMap<Key, Connection>,
    /// Connections whose modem lost its power: never closed.
    abandoned: Vec<Connection>,
    uart: Option<(u64, TcpStream)>,
    trace: Option<File>,
    verbose: bool,
}

impl Site {
    fn run(mut self, mut modem: Modem, inputs: &Receiver<Input>) {
        let started = Instant::now();
        loop {
            let now = started.elapsed();
            let out = modem.uart_out(now);
            if let Some((_, stream)) = self.uart.as_mut().filter(|_| !out.is_empty())
                && stream.write_all(&out).is_err()
            {
                self.uart = None;
            }
            while let Some(request) = modem.poll_request() {
                self.carry_out(request);
            }
            while let Some(line) = modem.take_log() {
                self.log(&line);
            }
            let wait = modem.next_at().map_or(IDLE, |at| {
                at.saturating_sub(started.elapsed()).max(PORTION).min(IDLE)
            });
            let mut input = match inputs.recv_timeout(wait) {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            while let Some(this) = input {
                if !self.take(this, &mut modem, started.elapsed()) {
                    return;
                }
                input = inputs.try_recv().ok();
            }
        }
    }

    /// False: the end.
    fn take(&mut self, input: Input, modem: &mut Modem, now: Duration) -> bool {
        match input {
            Input::UartHere(number, stream) => {
                self.log(&format!("{:11.6} serial line connected", now.as_secs_f64()));
                self.uart = Some((number, stream));
            }
            Input::Uart(number, bytes) => {
                if self.uart.as_ref().is_some_and(|(here, _)| *here == number) {
                    modem.uart_in(&bytes, now);
                }
            }
            Input::UartGone(number) => {
                if self.uart.as_ref().is_some_and(|(here, _)| *here == number) {
                    self.log(&format!("{:11.6} serial line gone", now.as_secs_f64()));
                    self.uart = None;
                }
            }
            Input::Network(event) => {
                if let Event::Failed(key, _) | Event::Ended(key) = &event {
                    self.connections.remove(key);
                }
                modem.network(event, now);
            }
            Input::Order(order, answer) => {
                let _ = answer.send(modem.order(order, now));
            }
            Input::Counts(answer) => {
                let _ = answer.send(modem.counts());
            }
            Input::Look => {}
            Input::Stop => return false,
        }
        true
    }

    fn carry_out(&mut self, request: Request) {
        match request {
            Request::Connect { key, address, port } => {
                let (to_send, sends) = mpsc::channel();
                let (room, rooms) = mpsc::channel();
                self.connections.insert(key, Connection { to_send, room });
                let inputs = self.inputs.clone();
                let may = self.may_connect(&address, port);
                thread::spawn(move || connect(key, &address, port, may, &inputs, sends, &rooms));
            }
            Request::Send { key, bytes } => {
                if let Some(connection) = self.connections.get(&key) {
                    let _ = connection.to_send.send(bytes);
                }
            }
            Request::More(key) => {
                if let Some(connection) = self.connections.get(&key) {
                    let _ = connection.room.send(());
                }
            }
            Request::Close(key) => {
                self.connections.remove(&key);
            }
            Request::Abandon(key) => self.abandoned.extend(self.connections.remove(&key)),
        }
    }

    fn may_connect(&self, address: &str, port: u16) -> bool {
        let is_loopback = address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback());
        is_loopback
            || self
                .allow
                .iter()
                .any(|allowed| allowed == address || *allowed == format!("{address}:{port}"))
    }

    fn log(&mut self, line: &str) {
        if let Some(file) = &mut self.trace {
            let _ = writeln!(file, "{line}");
        }
        let is_dialogue = line.get(12..13).is_some_and(|sign| "<>".contains(sign));
        if self.verbose && !is_dialogue {
            let _ = writeln!(io::stderr(), "modem {line}");
        }
    }
}

/// The life of a connection.
fn connect(
    key: Key,
    address: &str,
    port: u16,
    may: bool,
    inputs: &Sender<Input>,
    sends: Receiver<Vec<u8>>,
    rooms: &Receiver<()>,
) {
    let tell = |event| inputs.send(Input::Network(event)).is_ok();
    let stream = match address.parse::<IpAddr>() {
        Ok(address) if may => {
            TcpStream::connect_timeout(&(address, port).into(), Duration::from_secs(15))
        }
        _ => Err(io::ErrorKind::ConnectionRefused.into()),
    };
    let (mut stream, mut writer) = match stream.and_then(|stream| Ok((stream.try_clone()?, stream)))
    {
        Ok(pair) => pair,
        Err(error) => {
            let number = if error.kind() == io::ErrorKind::ConnectionRefused {
                ERROR_REFUSED
            } else {
                ERROR_TIMED_OUT
            };
            tell(Event::Failed(key, number));
            return;
        }
    };
    let _ = stream.set_nodelay(true);
    tell(Event::Connected(key));
    let sent = inputs.clone();
    thread::spawn(move || {
        for bytes in sends {
            if writer.write_all(&bytes).is_err() {
                break;
            }
            let _ = sent.send(Input::Network(Event::Sent(key, bytes.len())));
        }
        // Every byte that was given is out: now the reader ends too.
        let _ = writer.shutdown(Shutdown::Both);
    });
    let mut buffer = [0; PIECE_MAX];
    while let Ok(len @ 1..) = stream.read(&mut buffer) {
        if !tell(Event::Data(key, buffer[..len].to_vec())) || rooms.recv().is_err() {
            return;
        }
    }
    tell(Event::Ended(key));
}
