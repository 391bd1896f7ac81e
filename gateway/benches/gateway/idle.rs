//! Memory of the gateway per session that is authenticated, greeted and silent.

use super::site::{self, Board, Site};
use super::{Outcome, figures, setting};
use dialhome_device::crypto::Initiator;
use dialhome_gateway::link::LcAead;
use dialhome_proto::code::{BootReason, CloseCode, DigestFrom, Link, Revert};
use dialhome_proto::frame::{Component, DeviceFrame, GatewayFrame, Hello};
use dialhome_proto::id::Digest;
use dialhome_proto::limits::{BOARD_RECORD_MAX, RECORD_HEADER};
use dialhome_proto::link::{ACCEPTED_LEN, FIRST_FLIGHT_LEN, Records};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// The goal for a session with everything, in bytes of user space.
const GOAL: f64 = 900.0;
/// The allocator gives back what handshakes have used within ten seconds, when it
/// is called meanwhile: so often the gateway is asked for its status.
const SETTLE_S: u64 = 15;

pub(super) fn run() -> Outcome {
    let count = setting("BENCH_SESSIONS", 2_000)?;
    let site = Site::new(site::loopback()?)?;
    let boards: Vec<_> = (0..count)
        .map(|n| (format!("board-{n:05}"), String::new()))
        .collect();
    let boards = site.fill(&boards, &[])?;
    let gateway = site.gateway(None)?;
    let memory = || -> Outcome<[u64; 2]> {
        for _ in 0..SETTLE_S {
            gateway.operate(&["status"])?;
            std::thread::sleep(Duration::from_secs(1));
        }
        let of = |line| {
            figures::status_bytes(gateway.id(), line)
                .ok_or_else(|| format!("/proc/PID/status has no {line}"))
        };
        Ok([of("RssAnon")?, of("VmHWM")?])
    };
    // Half of them first: tables and pools that the first sessions make are not theirs.
    let (first, rest) = boards.split_at(count / 2);
    let [empty, _] = memory()?;
    let mut sessions = connect(&site.listen, first)?;
    gateway.sessions(first.len())?;
    let [half, _] = memory()?;
    sessions.extend(connect(&site.listen, rest)?);
    gateway.sessions(count)?;
    let [full, peak] = memory()?;
    let per = |bytes: u64, before: u64, sessions: usize| {
        (bytes as f64 - before as f64) / sessions.max(1) as f64
    };
    let all = per(full, empty, count);
    println!(
        "{count} sessions, each of a known device, after its Hello; anonymous memory (RssAnon) of the gateway; the kernel's sockets are not in it"
    );
    println!("without sessions        {:>10} KiB", empty / 1024);
    println!(
        "with all of them        {:>10} KiB (peak of the process {} KiB)",
        full / 1024,
        peak / 1024
    );
    println!(
        "user_bytes_per_idle_session {all:>6.0} ({:.2} of the goal of {GOAL})",
        all / GOAL
    );
    println!(
        "of the second half      {:>10.0} bytes per session",
        per(full, half, rest.len())
    );
    drop(sessions);
    Ok(())
}

fn connect(listen: &str, boards: &[Board]) -> Outcome<Vec<TcpStream>> {
    boards.iter().map(|board| greet(listen, board)).collect()
}

/// Handshake and Hello, up to the gateway's Welcome.
fn greet(listen: &str, board: &Board) -> Outcome<TcpStream> {
    let mut stream = TcpStream::connect(listen)
        .map_err(|error| format!("{} cannot connect: {error} (see `ulimit -n`)", board.id))?;
    stream.set_nodelay(true)?;
    let mut flight = [0; FIRST_FLIGHT_LEN];
    let initiator = Initiator::start(&board.key, rand::random(), &mut flight);
    stream.write_all(&flight)?;
    let mut answer = [0; ACCEPTED_LEN];
    stream.read_exact(&mut answer)?;
    let keys = initiator.finish(&answer)?;
    let mut records = Records::new(&keys);
    let mut out = [0; RECORD_HEADER + BOARD_RECORD_MAX];
    let len = DeviceFrame::from(hello())
        .encode(&mut out[RECORD_HEADER..])
        .map_err(|fault| format!("{fault:?}"))?;
    let len = records.seal(&mut LcAead, len, &mut out)?;
    stream.write_all(&out[..len])?;
    let mut header = [0; RECORD_HEADER];
    stream.read_exact(&mut header)?;
    let mut record = vec![0; usize::from(u16::from_be_bytes(header))];
    stream.read_exact(&mut record)?;
    let plaintext = records.open(&mut LcAead, &mut record)?;
    match GatewayFrame::decode(plaintext) {
        Ok(GatewayFrame::Welcome(_)) => Ok(stream),
        other => Err(format!("{} was not welcomed: {other:?}", board.id).into()),
    }
}

fn hello() -> Hello<'static> {
    let component = Component {
        component: 0,
        version: "1.0.0",
        counter: 1,
        floor: 0,
        digest: Digest([1; 32]),
        digest_from: DigestFrom::READ_BACK,
        boot_reason: BootReason::UNKNOWN,
        revert: Revert::NONE,
        slot_size: 1 << 20,
        write_unit: 8,
        erase_unit: 4096,
        window: 32 * 1024,
        trial: None,
        claim: None,
    };
    Hello {
        product: "bench",
        hardware: 0,
        client: "bench",
        receive_buffer: 1088,
        network: "",
        link: Link::UNKNOWN,
        ping_s: 3600,
        wake_s: 0,
        battery_percent: u8::MAX,
        signal_dbm: i8::MIN,
        temperature_c: i8::MIN,
        busy: false,
        last_close: CloseCode::LOST,
        failed_dials: 0,
        trust_epoch: 1,
        gateways_epoch: 0,
        tasks: 0,
        last_task: 0,
        components: std::iter::once(component).collect(),
    }
}
