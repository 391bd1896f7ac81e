//! QEMU's debugger port, for one thing: to put bytes into a machine's flash before it
//! starts. What QEMU itself loads (`-kernel`, `-device loader`) it loads again at every
//! reset of the guest, over what the guest has written; these bytes stay the guest's.

use std::path::Path;
use std::time::Duration;

use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use crate::Error;

/// Bytes of one packet's payload; QEMU takes up to 4096 characters, two a byte.
const PIECE: usize = 1024;
/// QEMU answers at once; the host may be busy.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// The port, before the machine is started.
#[derive(Debug)]
pub struct Port(NamedTempFile<UnixListener>);

impl Port {
    /// A socket in `folder`.
    ///
    /// # Errors
    /// It could not be made.
    pub fn new(folder: &Path) -> Result<Self, Error> {
        tempfile::Builder::new()
            .prefix("gdb-")
            .make_in(folder, |path| UnixListener::bind(path))
            .map(Self)
            .map_err(Error::io("a socket for the debugger"))
    }

    /// The arguments with which QEMU connects to it, and does not start by itself.
    #[must_use]
    pub fn args(&self) -> Vec<String> {
        let port = format!("unix:{}", self.0.path().display());
        ["-S".to_owned(), "-gdb".to_owned(), port].into()
    }

    /// Waits for QEMU's connection.
    ///
    /// # Errors
    /// It does not come.
    pub async fn accept(self) -> Result<Debugger, Error> {
        match timeout(ANSWER_WITHIN, self.0.as_file().accept()).await {
            Ok(accepted) => accepted
                .map(|(stream, _)| Debugger(stream))
                .map_err(Error::io("the debugger's connection")),
            Err(_) => Err(Error::overdue(
                "the debugger's connection",
                ANSWER_WITHIN,
                self.0.path(),
            )),
        }
    }
}

/// A connection to a stopped machine.
#[derive(Debug)]
pub struct Debugger(UnixStream);

impl Debugger {
    /// Writes memory, read-only memory as well.
    ///
    /// # Errors
    /// QEMU refused it or went away.
    pub async fn write(&mut self, mut address: usize, bytes: &[u8]) -> Result<(), Error> {
        for piece in bytes.chunks(PIECE) {
            let mut body = format!("M{address:x},{:x}:", piece.len());
            for byte in piece {
                body.push_str(&format!("{byte:02x}"));
            }
            let sum = body.bytes().fold(0_u8, u8::wrapping_add);
            let packet = format!("${body}#{sum:02x}");
            let answer = timeout(ANSWER_WITHIN, self.exchange(packet.as_bytes()))
                .await
                .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
                .map_err(Error::io("the debugger's connection"))?;
            if answer != b"OK" {
                return Err(Error::Refused {
                    command: format!("write {} bytes at {address:#x}", piece.len()),
                    answer: String::from_utf8_lossy(&answer).into_owned(),
                });
            }
            address += piece.len();
        }
        Ok(())
    }

    /// Sends a packet, and gives the body of the answer: `+$BODY#SUM`.
    async fn exchange(&mut self, packet: &[u8]) -> std::io::Result<Vec<u8>> {
        self.0.write_all(packet).await?;
        while self.0.read_u8().await? != b'$' {}
        let mut body = Vec::new();
        loop {
            match self.0.read_u8().await? {
                b'#' => break,
                byte => body.push(byte),
            }
        }
        self.0.read_exact(&mut [0; 2]).await?;
        self.0.write_all(b"+").await?;
        Ok(body)
    }
}
