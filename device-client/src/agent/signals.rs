//! SIGTERM and SIGINT: they end the session in order, not the process at once.

use std::{
    io::{self, Read as _},
    os::{fd::AsFd, fd::BorrowedFd, unix::net::UnixStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use signal_hook::consts::{SIGINT, SIGTERM};

/// Whether this process was asked to end, and something to wait for that with.
#[derive(Clone, Debug)]
pub struct Signals {
    stop: Arc<AtomicBool>,
    wake: Arc<UnixStream>,
    /// Where no signal handler holds the other end: a closed end would count as a wake.
    _other: Option<Arc<UnixStream>>,
}

impl Signals {
    /// Takes SIGTERM and SIGINT from now on. A second one while the first is still
    /// being obeyed ends the process.
    ///
    /// # Errors
    /// The system refused.
    pub fn take() -> io::Result<Self> {
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // In this order: the second signal finds the flag of the first, and who is
            // woken finds the flag.
            signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))?;
            signal_hook::flag::register(signal, Arc::clone(&stop))?;
            signal_hook::low_level::pipe::register(signal, waker.try_clone()?)?;
        }
        Ok(Self {
            stop,
            wake: Arc::new(wake),
            _other: None,
        })
    }

    /// Nobody will ask: for tests, and programs that take their signals themselves.
    ///
    /// # Errors
    /// The system has no more file descriptors.
    pub fn none() -> io::Result<Self> {
        let (wake, other) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        Ok(Self {
            stop: Arc::new(AtomicBool::new(false)),
            wake: Arc::new(wake),
            _other: Some(Arc::new(other)),
        })
    }

    /// Somebody has asked.
    #[cfg(test)]
    pub(super) fn stopped() -> io::Result<Self> {
        let signals = Self::none()?;
        signals.stop.store(true, Ordering::Relaxed);
        Ok(signals)
    }

    /// Whether the process was asked to end.
    #[must_use]
    pub fn stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// What becomes readable with the first signal.
    #[must_use]
    pub fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Forgets the wakes so far; `stop` stays.
    pub fn clear_wake(&self) {
        let mut bytes = [0; 64];
        while matches!((&*self.wake).read(&mut bytes), Ok(len) if len > 0) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};

    #[test]
    fn a_signal_sets_the_flag_and_wakes() {
        let signals = Signals::take().unwrap();
        assert!(!signals.stop());
        let me = rustix::process::getpid();
        rustix::process::kill_process(me, rustix::process::Signal::TERM).unwrap();
        let wake = signals.wake();
        assert_eq!(poll(&mut [PollFd::new(&wake, PollFlags::IN)], None), Ok(1));
        assert!(signals.stop());
        signals.clear_wake();
        let now = rustix::event::Timespec::default();
        let wake = signals.wake();
        assert_eq!(
            poll(&mut [PollFd::new(&wake, PollFlags::IN)], Some(&now)),
            Ok(0)
        );
    }
}
