//! One mapping of the relay: a connection from a board, one to the gateway, and
//! what happens to the bytes between them.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Action, Cut, Direction, Segment, Shared, locked, reset};

/// Bytes that wait in one direction, at most.
const BUFFER_LEN: usize = 16 * 1024;

/// How far a direction with a rate may fall behind and catch up.
const CATCH_UP: Duration = Duration::from_millis(20);
/// One in so many reads waits for more to merge with.
const MERGE_ONE_IN: u32 = 4;

/// Why relaying stopped.
enum End {
    /// Both ends closed, or one of them reset the connection.
    Peers,
    Cut(Cut),
}

/// What one mapping draws for itself.
struct Plan {
    random: StdRng,
    /// Bytes until the mapping ends by chance, both directions together.
    until_cut: Option<(u64, Cut)>,
    /// Bytes until bytes are held by chance.
    until_stall: Option<u64>,
    stalled_until: Option<Instant>,
    last_byte: Instant,
}

/// The fault that comes next in a direction.
#[derive(Clone, Copy)]
enum Next {
    Armed(usize),
    Cut(Cut),
    Stall,
}

/// The bytes that may go on now, and what happens after them.
struct Step {
    bytes: usize,
    then: Option<Action>,
}

/// Relays until the mapping ends, and frees its sockets.
pub(super) async fn run(
    number: u64,
    board: TcpStream,
    mut orders: watch::Receiver<Option<Cut>>,
    shared: Arc<Shared>,
) {
    shared.count(|stats| stats.open += 1);
    let _closing = Closing {
        number,
        shared: Arc::clone(&shared),
    };
    let ordered_already = *orders.borrow();
    if let Some(cut) = ordered_already {
        // The gateway never hears of a connection that is swallowed.
        finish(cut, (Some(board), None), &mut orders, &shared).await;
        return;
    }
    let upstream = *locked(&shared.upstream);
    let Ok(gateway) = TcpStream::connect(upstream).await else {
        shared.count(|stats| stats.refused += 1);
        reset(board);
        return;
    };
    // Failing to set it changes timing only.
    let _ = board.set_nodelay(true);
    let _ = gateway.set_nodelay(true);
    let mut pair = (board, gateway);
    let end = tokio::select! {
        end = relay(number, &mut pair, &shared) => end,
        cut = ordered(&mut orders, &[]) => End::Cut(cut),
    };
    if let End::Cut(cut) = end {
        let (board, gateway) = pair;
        finish(cut, (Some(board), Some(gateway)), &mut orders, &shared).await;
    }
}

/// Keeps the books also when the task is aborted.
struct Closing {
    number: u64,
    shared: Arc<Shared>,
}

impl Drop for Closing {
    fn drop(&mut self) {
        locked(&self.shared.mappings).remove(&self.number);
        self.shared.count(|stats| stats.open -= 1);
    }
}

/// Waits for the order to end in a way that is not among `ignored`.
async fn ordered(orders: &mut watch::Receiver<Option<Cut>>, ignored: &[Cut]) -> Cut {
    let wanted = |order: &Option<Cut>| order.is_some_and(|cut| !ignored.contains(&cut));
    match orders.wait_for(wanted).await.map(|order| *order) {
        Ok(Some(cut)) => cut,
        // The sender goes with the mapping itself.
        Ok(None) | Err(_) => std::future::pending().await,
    }
}

async fn relay(number: u64, pair: &mut (TcpStream, TcpStream), shared: &Shared) -> End {
    let plan = Mutex::new(Plan::draw(number, shared));
    let (board_read, board_write) = pair.0.split();
    let (gateway_read, gateway_write) = pair.1.split();
    let pump = |direction| Pump {
        number,
        direction,
        shared,
        plan: &plan,
    };
    let both = async {
        tokio::try_join!(
            pump(Direction::ToGateway).run(board_read, gateway_write),
            pump(Direction::ToBoard).run(gateway_read, board_write),
        )
    };
    tokio::select! {
        ended = both => match ended {
            Ok(_) => End::Peers,
            Err(Stop::Cut(cut)) => End::Cut(cut),
            // One end broke its connection: a RST for the other, as NAT would pass it on.
            Err(Stop::Broken) => {
                let _ = pair.0.set_zero_linger();
                let _ = pair.1.set_zero_linger();
                End::Peers
            }
        },
        () = idle(&plan, shared) => End::Cut(shared.faults.idle_cut),
    }
}

/// Returns when no byte came in either direction for the idle timeout.
async fn idle(plan: &Mutex<Plan>, shared: &Shared) {
    let Some(timeout) = shared.faults.idle_timeout else {
        return std::future::pending().await;
    };
    loop {
        let deadline = locked(plan).last_byte + timeout;
        if deadline <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(deadline).await;
    }
}

/// Ends a mapping in the way that was drawn or ordered.
async fn finish(
    cut: Cut,
    (board, gateway): (Option<TcpStream>, Option<TcpStream>),
    orders: &mut watch::Receiver<Option<Cut>>,
    shared: &Shared,
) {
    shared.count(|stats| match cut {
        Cut::Reset => stats.resets += 1,
        Cut::Close => stats.closes += 1,
        Cut::Silent => stats.silenced += 1,
        Cut::HalfOpen => stats.half_opened += 1,
    });
    let (mut board, mut gateway) = (board, gateway);
    match cut {
        Cut::Reset => {
            board.into_iter().chain(gateway).for_each(reset);
            return;
        }
        // The sockets stay until the peers close theirs: unread bytes would turn
        // the FIN of a dropped socket into a RST.
        Cut::Close => {
            for stream in board.iter_mut().chain(&mut gateway) {
                let _ = stream.shutdown().await;
            }
        }
        Cut::Silent => {}
        Cut::HalfOpen => board.take().into_iter().for_each(reset),
    }
    tokio::select! {
        _ = async { tokio::join!(swallow(board, shared), swallow(gateway, shared)) } => {}
        () = tokio::time::sleep(shared.faults.dead_after) => {}
        // A silent mapping can still be cut for good.
        _ = ordered(orders, &[Cut::Silent, Cut::HalfOpen]) => {}
    }
}

/// Reads what comes, and throws it away, until the peer goes or the future is dropped.
async fn swallow(stream: Option<TcpStream>, shared: &Shared) {
    let Some(mut stream) = stream else { return };
    // When the mapping is dropped in the end, what is left open gets a RST.
    let _ = stream.set_zero_linger();
    let mut buffer = vec![0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        shared.count(|stats| stats.vanished += read as u64);
    }
}

/// Why a direction stopped before its end of stream.
enum Stop {
    Cut(Cut),
    Broken,
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

/// One direction of a mapping.
struct Pump<'a> {
    number: u64,
    direction: Direction,
    shared: &'a Shared,
    plan: &'a Mutex<Plan>,
}

impl Pump<'_> {
    async fn run(self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> Result<(), Stop> {
        let mut buffer = vec![0; BUFFER_LEN];
        let mut free_at = Instant::now();
        loop {
            let mut filled = from.read(&mut buffer).await?;
            if filled == 0 {
                to.shutdown().await?;
                return Ok(());
            }
            locked(self.plan).last_byte = Instant::now();
            if let Some(wait) = self.merge_wait() {
                tokio::time::sleep(wait).await;
                match from.try_read(&mut buffer[filled..]) {
                    Ok(more) => filled += more,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let mut sent = 0;
            while sent < filled {
                self.wait_out_stall().await;
                if let Some(rate) = self.shared.faults.rate {
                    tokio::time::sleep_until(free_at).await;
                    // At the chosen rate, in pieces of 20 ms at most, so that a cut
                    // or a stall falls where it was asked for.
                    let piece = usize::try_from(rate / 50).unwrap_or(BUFFER_LEN).max(1);
                    let step = self.next_step((filled - sent).min(piece));
                    let taken = Duration::from_secs_f64(step.bytes as f64 / rate as f64);
                    // Timers are late by a millisecond or so: what they cost may be caught up.
                    let earliest = Instant::now().checked_sub(CATCH_UP).unwrap_or(free_at);
                    free_at = free_at.max(earliest) + taken;
                    sent += self
                        .forward(&mut to, &mut buffer[sent..filled], step)
                        .await?;
                } else {
                    let step = self.next_step(filled - sent);
                    sent += self
                        .forward(&mut to, &mut buffer[sent..filled], step)
                        .await?;
                }
            }
        }
    }

    fn merge_wait(&self) -> Option<Duration> {
        let most = self.shared.faults.merge?;
        let random = &mut locked(self.plan).random;
        (random.random_range(0..MERGE_ONE_IN) == 0)
            .then(|| random.random_range(Duration::ZERO..=most))
    }

    /// Waits while this mapping, or the whole relay, holds its bytes.
    async fn wait_out_stall(&self) {
        loop {
            let mapping = locked(self.plan).stalled_until;
            let relay = *locked(&self.shared.stalled_until);
            match mapping.max(relay) {
                Some(until) if until > Instant::now() => tokio::time::sleep_until(until).await,
                _ => return,
            }
        }
    }

    /// How many of `ready` bytes go on in one write, and what happens after them:
    /// the nearest fault, be it armed or drawn. The others wait for their turn.
    fn next_step(&self, ready: usize) -> Step {
        let mut plan = locked(self.plan);
        let faults = &self.shared.faults;
        let mut bytes = ready;
        if let Some(sizes) = &faults.segment {
            bytes = plan.random.random_range(sizes.clone()).clamp(1, ready);
        }
        let mut armed = locked(&self.shared.armed);
        let candidates = armed
            .iter()
            .enumerate()
            .filter(|(_, fault)| fault.direction == self.direction)
            .map(|(index, fault)| (fault.left, Next::Armed(index)))
            .chain(plan.until_cut.map(|(left, cut)| (left, Next::Cut(cut))))
            .chain(plan.until_stall.map(|left| (left, Next::Stall)));
        let nearest = candidates
            .min_by_key(|(left, _)| *left)
            .and_then(|(left, next)| Some((usize::try_from(left).ok()?, next)))
            .filter(|(left, _)| *left <= bytes);
        if let Some((left, _)) = nearest {
            bytes = left;
        }
        let spent = bytes as u64;
        for fault in armed
            .iter_mut()
            .filter(|fault| fault.direction == self.direction)
        {
            fault.left -= spent;
        }
        if let Some((left, _)) = &mut plan.until_cut {
            *left -= spent;
        }
        if let Some(left) = &mut plan.until_stall {
            *left -= spent;
        }
        let then = match nearest {
            None => None,
            Some((_, Next::Armed(index))) => armed.remove(index).map(|fault| fault.action),
            Some((_, Next::Cut(cut))) => {
                plan.until_cut = None;
                let mut cuts_left = locked(&self.shared.random_cuts_left);
                let allowed = cuts_left.checked_sub(1);
                *cuts_left = allowed.unwrap_or(0);
                allowed.map(|_| Action::Cut(cut))
            }
            Some((_, Next::Stall)) => {
                plan.until_stall = faults
                    .stall_every
                    .clone()
                    .map(|range| plan.random.random_range(range));
                Some(Action::Stall(
                    plan.random.random_range(faults.stall_for.clone()),
                ))
            }
        };
        Step { bytes, then }
    }

    /// Sends the bytes of one step, and does what follows them. Returns how many went.
    async fn forward(
        &self,
        to: &mut WriteHalf<'_>,
        bytes: &mut [u8],
        step: Step,
    ) -> Result<usize, Stop> {
        let piece = &bytes[..step.bytes];
        to.write_all(piece).await?;
        if self.shared.faults.tap && !piece.is_empty() {
            let segment = Segment {
                connection: self.number,
                direction: self.direction,
                len: piece.len(),
            };
            locked(&self.shared.tap).record(segment, piece);
        }
        locked(self.plan).last_byte = Instant::now();
        let count = step.bytes as u64;
        self.shared.count(|stats| match self.direction {
            Direction::ToGateway => stats.to_gateway += count,
            Direction::ToBoard => stats.to_board += count,
        });
        match step.then {
            None => {}
            Some(Action::Cut(cut)) => return Err(Stop::Cut(cut)),
            Some(Action::Stall(duration)) => {
                self.shared.count(|stats| stats.stalls += 1);
                locked(self.plan).stalled_until = Some(Instant::now() + duration);
            }
            Some(Action::FlipBit) => match bytes.get_mut(step.bytes) {
                Some(next) => *next ^= 0x10,
                // The next byte has not come yet: the fault waits for it.
                None => locked(&self.shared.armed).push_back(super::Armed {
                    direction: self.direction,
                    left: 0,
                    action: Action::FlipBit,
                }),
            },
        }
        Ok(step.bytes)
    }
}

impl Plan {
    fn draw(number: u64, shared: &Shared) -> Self {
        let faults = &shared.faults;
        // Each mapping has its own sequence: how two of them interleave changes nothing.
        let mut random =
            StdRng::seed_from_u64(faults.seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let until_cut = faults.cut_after.clone().map(|range| {
            let bytes = random.random_range(range);
            let cut = match faults.cut_kinds.as_slice() {
                [] => Cut::Reset,
                kinds => kinds[random.random_range(0..kinds.len())],
            };
            (bytes, cut)
        });
        let until_stall = faults
            .stall_every
            .clone()
            .map(|range| random.random_range(range));
        Self {
            random,
            until_cut,
            until_stall,
            stalled_until: None,
            last_byte: Instant::now(),
        }
    }
}
