//! What all wires of a crew share: where they dial, room to read into, and what becomes of
//! sockets that nobody holds any more.

use super::link::Way;
use super::tally::Tally;
use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Bytes of one read from a socket.
const SCRATCH: usize = 64 * 1024;
/// Spare buffers that are kept for boards whose bytes wait.
pub(super) const SPARES: usize = 64;

/// What all wires of a crew share.
pub(super) struct Exchange {
    pub(super) gateway: SocketAddr,
    pub(super) tally: Rc<Tally>,
    pub(super) scratch: RefCell<Box<[u8]>>,
    pub(super) spares: RefCell<Vec<Vec<u8>>>,
    /// Why the crew cannot go on.
    failure: RefCell<Option<String>>,
    failed: Notify,
}

impl Exchange {
    pub(super) fn new(gateway: SocketAddr, tally: Rc<Tally>) -> Self {
        Self {
            gateway,
            tally,
            scratch: RefCell::new(vec![0; SCRATCH].into()),
            spares: RefCell::default(),
            failure: RefCell::default(),
            failed: Notify::new(),
        }
    }

    /// Waits until the crew cannot go on, and says why.
    pub(super) async fn failure(&self) -> String {
        loop {
            if let Some(why) = self.failure.borrow_mut().take() {
                return why;
            }
            self.failed.notified().await;
        }
    }

    pub(super) fn fail(&self, why: String) {
        self.failure.borrow_mut().get_or_insert(why);
        self.failed.notify_one();
    }

    /// A socket whose other end believes that it is connected: what comes vanishes.
    pub(super) fn bury(self: &Rc<Self>, stream: TcpStream) {
        let exchange = Rc::clone(self);
        tokio::task::spawn_local(async move {
            while stream.readable().await.is_ok() {
                match stream.try_read(&mut exchange.scratch.borrow_mut()) {
                    Ok(0) => break,
                    Err(error) if error.kind() != ErrorKind::WouldBlock => break,
                    _ => {}
                }
            }
        });
    }

    /// A socket that its board has closed, and whose last bytes are still on the air.
    pub(super) fn finish(self: &Rc<Self>, stream: TcpStream, mut up: Way, epoch: Instant) {
        let exchange = Rc::clone(self);
        tokio::task::spawn_local(async move {
            while up.due_us() < u64::MAX {
                sleep_until(epoch + Duration::from_micros(up.due_us())).await;
                if stream.writable().await.is_err()
                    || exchange.write(&stream, &mut up, epoch).is_err()
                {
                    break;
                }
            }
        });
    }

    /// Hands the socket what has arrived at its end of the link.
    pub(super) fn write(&self, stream: &TcpStream, up: &mut Way, epoch: Instant) -> io::Result<()> {
        let now_us = micros(epoch);
        while let bytes = up.arrived(now_us)
            && !bytes.is_empty()
        {
            let len = match stream.try_write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                written => written?,
            };
            up.take(len, |stamp, whole| {
                if whole && stamp != 0 {
                    self.tally.acknowledged(stamp);
                }
            });
            self.tally.count(|tick| tick.bytes_up += len as u64);
        }
        Ok(())
    }

    /// The system's refusal to open one more connection, in words; `None`: another error.
    pub(super) fn limit(source: IpAddr, error: &io::Error) -> Option<String> {
        use rustix::io::Errno;
        use rustix::process::{Resource, getrlimit};
        match Errno::from_io_error(error)? {
            Errno::MFILE => {
                let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
                Some(format!(
                    "this process may have {limit} open files and has them: share the boards among more crews"
                ))
            }
            Errno::NFILE => {
                Some("the system's limit on open files is reached (fs.file-max)".into())
            }
            Errno::ADDRINUSE | Errno::ADDRNOTAVAIL => Some(format!(
                "no port is left for a connection from {source} (net.ipv4.ip_local_port_range), or it is no address of this machine: share the boards among more source addresses"
            )),
            Errno::NOBUFS | Errno::NOMEM => {
                Some("the system has no memory left for a connection".into())
            }
            _ => None,
        }
    }
}

/// Microseconds since the crew began: the links' clock.
pub(super) fn micros(epoch: Instant) -> u64 {
    let passed = Instant::now().saturating_duration_since(epoch);
    u64::try_from(passed.as_micros()).unwrap_or(u64::MAX)
}
