//! The pseudo-terminal: its name, the bytes on it, and who opens and closes it.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::inotify;
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

/// What woke a wait.
#[derive(Debug)]
pub(crate) enum Woken {
    /// Somebody opened the line that nobody had open.
    Opened,
    /// Bytes came.
    Bytes(Vec<u8>),
    /// An order, or the time.
    Nothing,
}

/// One end of a pseudo-terminal. The other has a name that lives as long as this.
#[derive(Debug)]
pub(crate) struct Port {
    line: OwnedFd,
    watch: OwnedFd,
    /// Who has the other end open.
    open: u32,
    link: Option<PathBuf>,
    name: PathBuf,
}

impl Port {
    /// A new one; `link` becomes a symbolic link to its name.
    pub(crate) fn new(link: Option<&Path>) -> io::Result<Self> {
        let line = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&line)?;
        unlockpt(&line)?;
        rustix::io::ioctl_fionbio(&line, true)?;
        // Raw from the start: no echo of what comes before avrdude has set it so.
        let mut settings = tcgetattr(&line)?;
        settings.make_raw();
        tcsetattr(&line, OptionalActions::Now, &settings)?;
        let name = ptsname(&line, Vec::new())?;
        let name = PathBuf::from(name.into_string().map_err(io::Error::other)?);
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let events = inotify::WatchFlags::OPEN | inotify::WatchFlags::CLOSE;
        inotify::add_watch(&watch, &name, events)?;
        if let Some(link) = link {
            match fs::remove_file(link) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => std::os::unix::fs::symlink(&name, link)?,
            }
        }
        Ok(Self {
            line,
            watch,
            open: 0,
            link: link.map(Path::to_owned),
            name,
        })
    }

    /// The name of the other end.
    pub(crate) fn name(&self) -> &Path {
        &self.name
    }

    /// Writes to whoever has the other end open.
    pub(crate) fn send(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() && self.open > 0 {
            match rustix::io::write(&self.line, bytes) {
                Ok(len) => bytes = &bytes[len..],
                Err(Errno::INTR) => {}
                // Nobody reads: more than a terminal holds is lost, as on a wire.
                Err(Errno::AGAIN | Errno::IO) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits for whichever comes first; `wake` is readable when an order waits.
    pub(crate) fn wait(&mut self, wake: &OwnedFd, time: Option<Timespec>) -> io::Result<Woken> {
        let mut waits = vec![
            PollFd::new(wake, PollFlags::IN),
            PollFd::new(&self.watch, PollFlags::IN),
        ];
        // While nobody has it open the line would wake at once, for ever.
        if self.open > 0 {
            waits.push(PollFd::new(&self.line, PollFlags::IN));
        }
        match rustix::event::poll(&mut waits, time.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_line = waits.get(2).is_some_and(|wait| !wait.revents().is_empty());
        let is_watch = !waits[1].revents().is_empty();
        // What was sent before the other end closed is read before that is looked at.
        if is_line {
            let mut buffer = vec![0; 4096];
            match rustix::io::read(&self.line, &mut buffer) {
                Ok(len @ 1..) => {
                    buffer.truncate(len);
                    return Ok(Woken::Bytes(buffer));
                }
                Ok(_) | Err(Errno::INTR | Errno::AGAIN | Errno::IO) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if is_watch && self.changes()? {
            return Ok(Woken::Opened);
        }
        Ok(Woken::Nothing)
    }

    /// Counts who opened and closed; whether it was opened while nobody had it open.
    fn changes(&mut self) -> io::Result<bool> {
        let mut buffer = [const { core::mem::MaybeUninit::uninit() }; 512];
        let mut reader = inotify::Reader::new(self.watch.as_fd(), &mut buffer);
        let mut opened = false;
        loop {
            match reader.next() {
                Ok(event) if event.events().contains(inotify::ReadFlags::OPEN) => {
                    opened |= self.open == 0;
                    self.open += 1;
                }
                Ok(event)
                    if event.events().intersects(
                        inotify::ReadFlags::CLOSE_WRITE | inotify::ReadFlags::CLOSE_NOWRITE,
                    ) =>
                {
                    self.open = self.open.saturating_sub(1);
                }
                Ok(_) => {}
                Err(Errno::AGAIN | Errno::INTR) => return Ok(opened && self.open > 0),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        if let Some(link) = self.link.as_deref()
            && fs::read_link(link).is_ok_and(|name| name == self.name)
        {
            let _ = fs::remove_file(link);
        }
    }
}

/// Waits for an order while nothing is plugged in.
pub(crate) fn wait_for_order(wake: &OwnedFd) -> io::Result<Woken> {
    match rustix::event::poll(&mut [PollFd::new(wake, PollFlags::IN)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(Woken::Nothing),
        Err(error) => Err(error.into()),
    }
}
