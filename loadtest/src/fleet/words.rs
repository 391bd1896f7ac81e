//! What the process that plays a scenario and its crews say to each other, a line of JSON each.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// A crew's first line: whom it plays.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Roll {
    /// Begins its random numbers.
    pub seed: u64,
    /// Where its boards dial.
    pub gateway: SocketAddr,
    /// The key that they trust for images, in hex.
    pub trust: String,
    /// The product that they say they are.
    pub product: String,
    /// The links that boards may have.
    pub links: Vec<Link>,
    /// Files of the images `0`, `1` and so on, so that a board's slot need not hold what is
    /// the same for all: it compares.
    pub images: Vec<std::path::PathBuf>,
    /// How the clients are configured.
    pub client: Client,
    /// The boards.
    pub boards: Vec<Seat>,
    /// Peers that are no good boards.
    #[serde(default)]
    pub gangs: Vec<Gang>,
    /// Milliseconds between two ticks.
    pub tick_ms: u32,
}

/// One board.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Seat {
    /// Its id.
    pub id: String,
    /// Its key, in hex.
    pub key: String,
    /// The address that it dials from.
    pub source: IpAddr,
    /// Which of the roll's links it has.
    pub link: usize,
    /// When it is switched on, in milliseconds after [`Order::Begin`].
    pub on_at_ms: u64,
    /// It reads no more of a connection after so many bytes (49 are the handshake), and
    /// goes on as if nothing came: a board that wedges its gateway. `None`: a good board.
    #[serde(default)]
    pub deaf_after: Option<u64>,
}

/// Peers of one kind that are no good boards. A board that authenticates and then never
/// reads is a [`Seat`] with `deaf_after`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Gang {
    /// What each connection does.
    pub mischief: Mischief,
    /// Connections that are open at once, at the most. One that the gateway closes is followed
    /// by another.
    pub peers: u32,
    /// Connections that are begun in a second, at the most; 0: as many as can be.
    pub per_s: u32,
    /// The addresses that they dial from, in turn.
    pub sources: Vec<IpAddr>,
    /// When they begin, in milliseconds after [`Order::Begin`].
    pub on_at_ms: u64,
    /// When they let go of everything, counted alike; `None`: when the crew ends.
    pub off_at_ms: Option<u64>,
}

/// What a bad peer does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mischief {
    /// It says nothing, and waits.
    Silent,
    /// It says half a preamble, and waits.
    HalfPreamble,
    /// It says a whole first flight with a handle that nobody knows.
    UnknownHandle,
    /// It says random bytes.
    Rubbish,
}

/// What became of a gang's connections; counts are since the beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GangCount {
    /// Connections that were opened.
    pub opened: u64,
    /// Connections that could not be opened.
    pub unopened: u64,
    /// Of those opened: the gateway answered with a refusal, by its code (`busy`).
    pub refused: BTreeMap<String, u64>,
    /// Of those opened: the gateway closed or reset it, after a refusal too.
    pub closed: u64,
    /// Of those opened: open still.
    pub open: u64,
}

/// What a board can declare as its receive buffer, in bytes, as with the agent: chunks of
/// 1 KiB, of 4 KiB, and the largest records. A board's buffer is part of its memory here.
pub const RECEIVE_BUFFERS: [u16; 3] = [1088, 4126, 16_384];

/// How the clients are configured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Client {
    /// Bytes of a record that a board takes, as Hello declares them: one of
    /// [`RECEIVE_BUFFERS`].
    pub receive_buffer: u16,
    /// Bytes that may be on their way, as Hello declares them.
    pub window: u32,
    /// Erase unit of the slot.
    pub erase_unit: u32,
    /// Seconds between pings, as the board is configured.
    pub ping_s: u32,
    /// The board's first and longest wait before it dials again, in milliseconds.
    pub redial_ms: [u32; 2],
    /// Time that a board is off when it restarts into an image, in milliseconds.
    pub restart_ms: u32,
}

/// A link's model. All of it is played in the crew, between the client and its socket.
/// [`Link::preset`] has the usual ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// `2g`, `3g`, `lte_m`, `nb_iot`, `loopback` or the scenario's own name.
    pub name: String,
    /// Bits per second to the board; 0: as many as there are.
    pub down_bits_per_s: u64,
    /// Bits per second from the board.
    pub up_bits_per_s: u64,
    /// Round trip in milliseconds.
    pub round_trip_ms: u32,
    /// Each direction's delay varies by as much, in milliseconds, without reordering.
    pub jitter_ms: u32,
    /// Mean time between two stalls, in seconds; 0: none. Nothing moves in a stall.
    pub stall_every_s: u32,
    /// Shortest and longest stall, in milliseconds.
    pub stall_ms: [u32; 2],
    /// Mean time between two blackouts, in seconds; 0: none. The link is down, the mapping goes.
    pub blackout_every_s: u32,
    /// Shortest and longest blackout, in milliseconds.
    pub blackout_ms: [u32; 2],
    /// The NAT forgets a connection that is silent for so long, in seconds; 0: never.
    pub nat_idle_s: u32,
    /// What it then does with what still comes.
    pub nat_then: NatThen,
}

/// What a NAT does with a connection that it has forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NatThen {
    /// Nothing arrives any more, and nobody is told.
    #[default]
    Drop,
    /// The board is told by a reset.
    Reset,
}

/// What a crew is told after its roll.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// The boards are switched on, each at its time.
    Begin,
    /// A share of the boards loses its link.
    Blackout {
        /// 0 to 1.
        share: f64,
        /// For so long, in milliseconds.
        for_ms: u32,
    },
    /// The power of a share of the boards is cut, and is back after a moment.
    PowerCut {
        /// 0 to 1.
        share: f64,
        /// Off for so long, in milliseconds.
        for_ms: u32,
    },
    /// From now on a board whose silence ends says when: [`Word::FirstByte`].
    WatchFirstBytes {
        /// The boards to watch.
        ids: Vec<String>,
    },
    /// The boards say Bye, and the crew ends after a last tick. The end of standard input
    /// means the same.
    End,
}

/// What a crew says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "snake_case")]
pub enum Word {
    /// It has read its roll.
    Ready,
    /// How its boards stand.
    Tick(Box<Tick>),
    /// The first byte that came for a board since it was watched.
    FirstByte {
        /// The board.
        id: String,
        /// When, by [`crate::measure::clock`].
        at_ns: u64,
    },
    /// A board did what it must never do: a promise is broken, in words.
    Broken {
        /// The board.
        id: String,
        /// What it did.
        how: String,
    },
    /// Something the crew cannot go on after, such as the limit on open files.
    Failed {
        /// In words.
        why: String,
    },
    /// It has ended in order.
    Ended,
}

/// How a crew's boards stand; counts are since the beginning.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tick {
    /// When, by [`crate::measure::clock`].
    pub at_ns: u64,
    /// Boards with a session that was welcomed.
    pub online: u64,
    /// Dials begun.
    pub dials: u64,
    /// Dials that came to nothing, by reason: a refusal's code (`busy`), a Close before
    /// Welcome (`Close(bad_hello)`), or what the link did (`no link`, `reset`, `timeout`).
    pub failed_dials: BTreeMap<String, u64>,
    /// Sessions that ended, in the words of the specification: `Bye(restart)`,
    /// `Close(superseded)`, `lost`, `no_pong`; and `power cut`.
    pub ended: BTreeMap<String, u64>,
    /// Bytes of TCP payload from and to the boards.
    pub bytes_up: u64,
    /// See `bytes_up`.
    pub bytes_down: u64,
    /// Bytes of images that were committed, each once for each board and delivery of an image.
    pub committed: u64,
    /// Bytes of chunks that came for a second time.
    pub again: u64,
    /// Boards that run the roll's last image and have confirmed it.
    pub confirmed: u64,
    /// Boards that run each of the roll's images, and have confirmed it.
    pub confirmed_images: Vec<u64>,
    /// Updates that ended otherwise, by reason.
    pub not_confirmed: BTreeMap<String, u64>,
    /// Waits for acknowledgement since the last tick, in milliseconds, of a sample: from the
    /// moment when a chunk's last byte left the gateway until its Ack reached it.
    pub ack_ms: Vec<f32>,
    /// Waits that this sample was taken from, itself included.
    #[serde(default)]
    pub acks: u64,
    /// What became of the connections of each of the roll's gangs.
    #[serde(default)]
    pub gangs: Vec<GangCount>,
}
