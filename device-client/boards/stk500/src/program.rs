//! The board with a clock, a pseudo-terminal and a file for its flash.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::board::Board;
use crate::fault::{Faults, Order};
use crate::part::Part;
use crate::port::{Port, Woken};

/// What the program is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The microcontroller.
    pub part: Part,
    /// The file that holds its flash, made with erased flash where it is not there. It keeps
    /// what was programmed when the program ends.
    pub flash: PathBuf,
    /// A symbolic link to the line, which has another name each time it is plugged in.
    pub link: Option<PathBuf>,
    /// What goes wrong.
    pub faults: Faults,
    /// How long the bootloader listens after a reset and after each command.
    pub window: Duration,
    /// Whether sessions are told on standard error.
    pub verbose: bool,
}

impl Options {
    /// An ATmega328P that works, with its flash in this file.
    #[must_use]
    pub fn new(flash: impl Into<PathBuf>) -> Self {
        Self {
            part: Part::default(),
            flash: flash.into(),
            link: None,
            faults: Faults::default(),
            window: Duration::from_secs(20),
            verbose: false,
        }
    }
}

type Ask = (Order, Sender<String>);

/// A running board; its line is gone when this is dropped.
#[derive(Debug)]
pub struct Program {
    /// The link, or the line's own name.
    line: PathBuf,
    orders: Option<Sender<Ask>>,
    wake: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Program {
    /// Starts a board that is plugged in.
    ///
    /// # Errors
    /// The flash is of another size, or a file or a pseudo-terminal cannot be had.
    pub fn start(options: Options) -> io::Result<Self> {
        let (file, flash) = crate::flash::open(&options.flash, options.part)?;
        let port = Port::new(options.link.as_deref())?;
        let line = options
            .link
            .as_deref()
            .unwrap_or_else(|| port.name())
            .to_owned();
        let mut board = Board::new(options.part, flash, options.window);
        board.set_faults(options.faults);
        let (woken, wake) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let (orders, received) = mpsc::channel();
        let site = Site {
            board,
            file,
            port: Some(port),
            link: options.link,
            started: Instant::now(),
            orders: received,
            woken,
            verbose: options.verbose,
        };
        let thread = thread::spawn(move || {
            if let Err(error) = site.run() {
                let _ = writeln!(io::stderr(), "dialhome-stk500: {error}");
            }
        });
        Ok(Self {
            line,
            orders: Some(orders),
            wake,
            thread: Some(thread),
        })
    }

    /// What `avrdude -P` opens. Without a link of one's own it holds until the board is
    /// unplugged.
    #[must_use]
    pub fn line(&self) -> &Path {
        &self.line
    }

    /// Carries out an order ([`Order`]); what is answered begins with `ok` or `error`.
    #[must_use]
    pub fn order(&self, line: &str) -> String {
        let order = match line.parse() {
            Ok(order) => order,
            Err(fault) => return format!("error: {fault}"),
        };
        let (sender, answer) = mpsc::channel();
        let asked = self
            .orders
            .as_ref()
            .map(|orders| orders.send((order, sender)));
        let _ = rustix::io::write(&self.wake, &[0]);
        match asked {
            Some(Ok(())) => answer.recv().unwrap_or_else(|_| ENDED.to_owned()),
            _ => ENDED.to_owned(),
        }
    }

    /// Takes orders from a reader until it ends, and writes the answers.
    ///
    /// # Errors
    /// Reading or writing failed.
    pub fn take_orders(&self, from: impl Read, mut to: impl Write) -> io::Result<()> {
        for line in BufReader::new(from).lines() {
            let line = line?;
            if !line.trim().is_empty() {
                writeln!(to, "{}", self.order(&line))?;
                to.flush()?;
            }
        }
        Ok(())
    }
}

const ENDED: &str = "error: the board has ended";

impl Drop for Program {
    fn drop(&mut self) {
        self.orders = None;
        let _ = rustix::io::write(&self.wake, &[0]);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Site {
    board: Board,
    file: File,
    /// None: unplugged.
    port: Option<Port>,
    link: Option<PathBuf>,
    started: Instant,
    orders: Receiver<Ask>,
    woken: OwnedFd,
    verbose: bool,
}

impl Site {
    fn run(mut self) -> io::Result<()> {
        loop {
            let bytes = self.board.output(self.started.elapsed());
            if let Some(port) = &self.port {
                port.send(&bytes)?;
            }
            let woken = self.wait()?;
            let now = self.started.elapsed();
            match woken {
                Woken::Opened => {
                    self.board.open(now);
                    self.tell("opened");
                }
                Woken::Bytes(bytes) => self.board.receive(&bytes, now),
                Woken::Nothing => {}
            }
            // Before the answer that says that it is there.
            while let Some(at) = self.board.take_written() {
                let page = &self.board.flash()[at..at + self.board.part().page];
                self.file.write_all_at(page, at as u64)?;
            }
            if self.port.is_some() && self.is_unplugged() {
                self.port = None;
                self.tell("unplugged");
            }
            loop {
                match self.orders.try_recv() {
                    Ok((order, answer)) => {
                        let _ = answer.send(self.carry_out(order)?);
                    }
                    Err(mpsc::TryRecvError::Empty) => break,
                    Err(mpsc::TryRecvError::Disconnected) => return Ok(()),
                }
            }
        }
    }

    fn is_unplugged(&self) -> bool {
        self.board.counts().state == crate::State::Unplugged
    }

    fn wait(&mut self) -> io::Result<Woken> {
        let next = self.board.next_at();
        let time = next.map(|at| at.saturating_sub(self.started.elapsed()));
        let time = time.map(|time| Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: time.subsec_nanos().into(),
        });
        let woken = match &mut self.port {
            Some(port) => port.wait(&self.woken, time)?,
            None => crate::port::wait_for_order(&self.woken)?,
        };
        let mut bytes = [0; 64];
        // What woke it is among the orders.
        let _ = rustix::io::read(&self.woken, &mut bytes);
        Ok(woken)
    }

    fn carry_out(&mut self, order: Order) -> io::Result<String> {
        let now = self.started.elapsed();
        match order {
            Order::Faults(faults) => self.board.set_faults(faults),
            Order::Unplug => {
                self.board.unplug();
                self.port = None;
            }
            Order::Plug if self.port.is_none() => {
                let port = Port::new(self.link.as_deref())?;
                let line = port.name().display().to_string();
                self.port = Some(port);
                self.board.plug(now);
                return Ok(format!("ok {line}"));
            }
            Order::Plug => {}
            Order::Reset => self.board.reset(now),
            Order::Status => return Ok(format!("ok {}", self.board.counts())),
        }
        Ok("ok".to_owned())
    }

    fn tell(&self, what: &str) {
        if self.verbose {
            let counts = self.board.counts();
            let _ = writeln!(io::stderr(), "stk500 {what} {counts}");
        }
    }
}
