//! What differs from one modem to another.

use super::Config;
use super::at::{At, Fault, Host, Signs, Uart};

/// The commands of a make of modem. What the 3GPP standard (TS 27.007) gives to all of
/// them, registration, signal, operator, restart, is not here.
///
/// Every function ends within a bounded time: it waits through [`At`] only, with the
/// deadlines that its manual gives.
pub trait Model: Sized {
    /// Most bytes of one write, and of one read, without hex mode; half of it with hex mode.
    const WRITE_MAX: usize;
    /// Sockets that the modem has, counted from 0.
    const SOCKETS: u16;

    /// Notes what a line says that came unasked; false: it may belong to an answer.
    fn unsolicited(line: &[u8], signs: &mut Signs) -> bool;

    /// Settings after each start of the modem, for what the client needs.
    ///
    /// # Errors
    /// The modem refused, or did not answer.
    fn configure<U: Uart, H: Host>(
        at: &mut At<U, H, Self>,
        config: &Config<'_>,
    ) -> Result<(), Fault>;

    /// Makes sure that the packet data context is active.
    ///
    /// # Errors
    /// The modem refused, or did not answer.
    fn context_on<U: Uart, H: Host>(
        at: &mut At<U, H, Self>,
        config: &Config<'_>,
    ) -> Result<(), Fault>;

    /// Deactivates the packet data context; an answer does not matter.
    fn context_off<U: Uart, H: Host>(at: &mut At<U, H, Self>);

    /// Opens a socket, and returns its number; it is not connected yet.
    ///
    /// # Errors
    /// No socket is free, or the modem did not answer.
    fn open<U: Uart, H: Host>(at: &mut At<U, H, Self>) -> Result<u16, Fault>;

    /// Connects `at.socket()` to a host, which is a name or an address of letters,
    /// digits, dots, hyphens and colons only.
    ///
    /// # Errors
    /// No such name, refused, no answer in time.
    fn connect<U: Uart, H: Host>(
        at: &mut At<U, H, Self>,
        config: &Config<'_>,
        host: &[u8],
        port: u16,
    ) -> Result<(), Fault>;

    /// Writes to `at.socket()`, and returns how many bytes the modem took; 0: its buffer
    /// is full.
    ///
    /// # Errors
    /// The socket is closed, or it is not known how many the modem took.
    fn write<U: Uart, H: Host>(
        at: &mut At<U, H, Self>,
        config: &Config<'_>,
        bytes: &[u8],
    ) -> Result<usize, Fault>;

    /// How many bytes wait on `at.socket()`.
    ///
    /// # Errors
    /// The socket is closed, or the modem did not answer.
    fn waiting<U: Uart, H: Host>(at: &mut At<U, H, Self>) -> Result<usize, Fault>;

    /// Reads from `at.socket()`; less than the buffer's length: no more is there.
    ///
    /// # Errors
    /// The socket is closed, or bytes were lost.
    fn read<U: Uart, H: Host>(
        at: &mut At<U, H, Self>,
        config: &Config<'_>,
        buffer: &mut [u8],
    ) -> Result<usize, Fault>;

    /// Closes a socket.
    ///
    /// # Errors
    /// It was not open, or the modem did not answer.
    fn close<U: Uart, H: Host>(at: &mut At<U, H, Self>, socket: u16) -> Result<(), Fault>;
}
