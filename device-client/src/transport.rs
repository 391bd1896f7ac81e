//! The way to the gateway: one connection at a time (spec/protocol.md section 1).

use dialhome_proto::code::Link;

/// A byte stream to a gateway: a TCP socket, or a modem's socket behind AT commands.
///
/// The client opens one connection, moves bytes until either side closes it, and
/// opens the next. Only `connect` may take time; `send` and `receive` return at once. A
/// transport behind a command interface, such as an AT modem, cannot: there `send`,
/// `receive` and `close` may take a bounded time, which the implementation documents and
/// which is short against the client's deadlines of a minute and more.
pub trait Transport {
    /// What went wrong, for the log only: the client treats every error as a broken link.
    type Error: core::fmt::Debug;

    /// Opens a connection to `gateway`, which is `HOST:PORT` with a name, an IPv4
    /// address or an IPv6 address in brackets (spec/protocol.md section 7).
    ///
    /// Returns when bytes can be sent, or with an error within a bounded time that the
    /// implementation documents (30 s at most is good practice; a modem's recovery
    /// ladder may need longer). A connection that is still open is closed first.
    ///
    /// Where nobody may wait, as in an async executor, it may also return as soon as the
    /// connection is begun: then `send` and `receive` answer 0 until it is up, and an
    /// error once it has failed. The client gives it 30 s, the handshake included.
    ///
    /// # Errors
    /// No link, no such name, refused, or the deadline passed.
    fn connect(&mut self, gateway: &str) -> Result<(), Self::Error>;

    /// Where the connection protects what it carries, as QUIC does: 32 bytes of the TLS exporter of
    /// this very connection, with the label of [`dialhome_proto::link::quic::EXPORTER_LABEL`] and
    /// this handle as context. Asked once after each `connect` that succeeded. The client
    /// then proves the device key over them and speaks in plain records; `None`, as
    /// on TCP: it shakes hands by Noise (spec/protocol.md sections 1 and 2).
    #[cfg(feature = "quic")]
    fn exporter(
        &mut self,
        handle: &dialhome_proto::id::Handle,
    ) -> Option<[u8; dialhome_proto::link::quic::EXPORTER_LEN]> {
        let _ = handle;
        None
    }

    /// Both sides have proven the device key on this connection. Until then whoever is there may be
    /// anybody, and a transport that has another way learns nothing good of this one.
    #[cfg(feature = "quic")]
    fn proven(&mut self) {}

    /// Takes as many of `bytes` as it can at once and returns how many; 0: none now,
    /// ask again later. What was taken goes out in order without another call.
    ///
    /// # Errors
    /// There is no connection, or it broke.
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Self::Error>;

    /// Puts bytes that have arrived into `buffer` and returns how many; 0: nothing now.
    /// Bytes that do not fit stay in the transport: that is the flow control.
    ///
    /// # Errors
    /// There is no connection, it broke, or the other end closed it and every byte that
    /// came before has been returned.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, Self::Error>;

    /// Closes the connection; nothing happens where there is none. Bytes already taken
    /// by `send` are still delivered where the transport can do so without waiting.
    fn close(&mut self);

    /// Whether the board is attached to its network now: registered, associated, cable
    /// in. A failed dial counts against a trial image's budget as "no answer" only while
    /// this is true. It must be cheap, and when in doubt false.
    fn link_up(&self) -> bool;

    /// What Hello says about the link; asked after each `connect` that succeeded.
    fn facts(&self) -> LinkFacts<'_>;
}

/// What a board knows about its link (Hello, spec/frames.md section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkFacts<'a> {
    /// The kind of link.
    pub link: Link,
    /// The network's name, at most 32 bytes of UTF-8; empty: unknown.
    pub network: &'a str,
    /// Received signal strength in dBm; -128: unknown, or there is no radio.
    pub signal_dbm: i8,
}

impl LinkFacts<'_> {
    /// Nothing is known.
    pub const UNKNOWN: LinkFacts<'static> = LinkFacts {
        link: Link::UNKNOWN,
        network: "",
        signal_dbm: -128,
    };
}
