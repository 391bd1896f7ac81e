//! Whole images through links that are cut, stalled, torn and silenced: every byte
//! arrives as it was signed, every resume is proven, and little is sent twice.
//!
//! `CUTS=1000` cuts more often, `SEED=7` draws other places; both are printed.

mod support;

use dialhome_gateway::demo::relay::{Cut, Faults};
use std::path::Path;
use std::time::Duration;
use support::datagrams::{self, Datagrams};
use support::line::Line;
use support::{Bench, PATIENCE, PRODUCT, Transport, random_bytes};

support::over_both! {
    a_silent_drop_during_a_transfer_is_noticed_and_survived,
}

/// Debian package `firmware-microbit-micropython`.
const MICROPYTHON: &str = "/usr/share/firmware-microbit-micropython/firmware.hex";

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is no number"))
    })
}

/// A board that commits every `window / 2` bytes and takes records of this size.
fn board(window: u32, receive_buffer: u32) -> String {
    format!(
        "[agent]\nping_s = 5\nwindow = {window}\nreceive_buffer = {receive_buffer}\n\n\
         [reconnect]\nfirst_ms = 20\nmax_ms = 100\n"
    )
}

/// The flat bytes of an Intel HEX file from 0 on, gaps as 0xFF, without what lies at
/// 256 MiB and above: written down here a second time, so that a wrong reading of the
/// file by the program shows.
fn flat(text: &str) -> Vec<u8> {
    let mut image = Vec::new();
    let mut base = 0_usize;
    for line in text.lines().filter_map(|line| line.strip_prefix(':')) {
        let bytes: Vec<u8> = (0..line.len() / 2)
            .map(|at| u8::from_str_radix(&line[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        let data = &bytes[4..bytes.len() - 1];
        let word = || usize::from(data[0]) << 8 | usize::from(data[1]);
        match bytes[3] {
            0 if base < 0x1000_0000 => {
                let at = base + (usize::from(bytes[1]) << 8 | usize::from(bytes[2]));
                if image.len() < at + data.len() {
                    image.resize(at + data.len(), 0xFF);
                }
                image[at..at + data.len()].copy_from_slice(data);
            }
            2 => base = word() << 4,
            4 => base = word() << 16,
            _ => {}
        }
    }
    image
}

/// How many resumes from beyond 0 the gateway has proven, after checking that none was wrong.
fn proven(bench: &Bench, update: &str) -> u64 {
    let log = std::fs::read_to_string(bench.site.log("gateway")).unwrap();
    assert!(
        !log.contains("the board's bytes are not the image's"),
        "a wrong prefix\n{}",
        bench.logs()
    );
    let mut from = 0;
    let mut count = 0;
    for line in log.lines().filter(|line| line.contains("it goes on")) {
        if !line.contains(update) {
            continue;
        }
        let words = line.split_whitespace();
        let len = words
            .filter_map(|word| {
                strip_colours(word)
                    .strip_prefix("len=")?
                    .parse::<u64>()
                    .ok()
            })
            .next()
            .unwrap_or_else(|| panic!("no len in {line}"));
        assert!(len >= from, "a resume went back from {from}: {line}");
        from = len;
        count += u64::from(len > 0);
    }
    count
}

/// Without the sequences that colour a terminal.
fn strip_colours(word: &str) -> String {
    let mut text = String::new();
    let mut coloured = false;
    for letter in word.chars() {
        match letter {
            '\u{1b}' => coloured = true,
            'm' if coloured => coloured = false,
            _ if coloured => {}
            letter => text.push(letter),
        }
    }
    text
}

async fn cut_often(bench: &Bench, id: &str, image: &str, bytes: &[u8], window: u32) {
    let update = bench.push_no_wait(id, image, &[]).await;
    let update = bench.reaches(&update, "confirmed").await;
    let stats = bench.relay(id).stats();
    let cuts = number("CUTS", 200);
    assert_eq!(stats.cuts(), cuts, "not all cuts came: {stats:?}");
    let resent = update["resent"].as_u64().unwrap();
    assert!(
        resent < 2 * u64::from(window) * cuts,
        "{resent} bytes sent twice over {cuts} cuts"
    );
    assert_eq!(
        update["sent"].as_u64().unwrap() - resent,
        bytes.len() as u64,
        "{update}"
    );
    let current = bench.path().join("boards").join(id).join("state/current");
    assert!(
        std::fs::read(current).unwrap() == bytes,
        "the image that runs is not the one that was signed"
    );
    let resumes = proven(bench, update["update"].as_str().unwrap());
    assert!(
        resumes * 4 > cuts,
        "only {resumes} resumes were proven over {cuts} cuts"
    );
    eprintln!(
        "{} bytes, {cuts} cuts, {resumes} proven resumes, {resent} bytes sent twice, {} sessions",
        bytes.len(),
        update["sessions"]
    );
}

fn cutting(seed: u64, range: std::ops::Range<u64>) -> Faults {
    Faults {
        seed,
        cut_after: Some(range),
        cut_kinds: vec![Cut::Reset, Cut::Close, Cut::HalfOpen],
        cuts_max: number("CUTS", 200),
        dead_after: Duration::from_secs(5),
        ..Faults::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn micropython_arrives_byte_for_byte_through_a_link_cut_200_times() {
    let seed = number("SEED", 1);
    eprintln!("SEED={seed}");
    let mut bench = Bench::start().await;
    let text = std::fs::read_to_string(MICROPYTHON).unwrap_or_else(|error| {
        panic!("{MICROPYTHON}: {error}; install firmware-microbit-micropython")
    });
    let bytes = flat(&text);
    assert!(bytes.len() > 200_000, "{} bytes", bytes.len());
    let options = ["--skip", "0x100010C0-0x100010DB"];
    bench
        .image_of("1.0", Path::new(MICROPYTHON), &options)
        .await;
    let faults = cutting(seed, 200..3_200 * 200 / number("CUTS", 200).max(200));
    bench.board("mini", faults, &board(2_048, 1_088)).await;
    cut_often(&bench, "mini", &format!("{PRODUCT}@1.0"), &bytes, 2_048).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_mebibytes_arrive_byte_for_byte_through_a_link_cut_200_times() {
    let seed = number("SEED", 2);
    eprintln!("SEED={seed}");
    let mut bench = Bench::start().await;
    let bytes = random_bytes(seed, 16 << 20);
    let image = bench.image("1.0", &bytes).await;
    let longest = 150_000 * 200 / number("CUTS", 200).max(200);
    bench
        .board("big", cutting(seed, 400..longest), &board(65_536, 4_126))
        .await;
    cut_often(&bench, "big", &image.name, &bytes, 65_536).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_split_and_merged_segments_change_nothing() {
    let seed = number("SEED", 3);
    eprintln!("SEED={seed}");
    let mut bench = Bench::start().await;
    let bytes = random_bytes(seed, 300_000);
    let image = bench.image("1.0", &bytes).await;
    let faults = Faults {
        seed,
        segment: Some(1..700),
        merge: Some(Duration::from_millis(2)),
        stall_every: Some(5_000..40_000),
        ..Faults::default()
    };
    bench.board("torn", faults, &board(16_384, 1_088)).await;
    let update = bench.push("torn", &image.name, &[]).await.confirmed();
    assert_eq!(update["resent"], 0, "{update}");
    assert_eq!(update["sessions"], 2, "{update}");
    let current = bench.path().join("boards/torn/state/current");
    assert!(std::fs::read(current).unwrap() == bytes);
    assert!(bench.relay("torn").stats().stalls > 5);
}

/// A mapping that vanishes without a word: the board finds out by its pings, dials
/// again, and goes on from what it has.
async fn a_silent_drop_during_a_transfer_is_noticed_and_survived(transport: Transport) {
    let mut bench = Bench::start_over(transport).await;
    let bytes = random_bytes(4, 400_000);
    let image = bench.image("1.0", &bytes).await;
    bench
        .board("quiet", Faults::default(), &board(16_384, 1_088))
        .await;
    let relay = bench.relay("quiet");
    let silence = dialhome_gateway::demo::relay::Action::Cut(Cut::Silent);
    relay.arm(
        dialhome_gateway::demo::relay::Direction::ToBoard,
        100_000,
        silence,
    );
    let update = bench.push_no_wait("quiet", &image.name, &[]).await;
    tokio::time::timeout(PATIENCE, relay.wait_until(|stats| stats.silenced == 1))
        .await
        .expect("the mapping goes silent");
    let update = bench.reaches(&update, "confirmed").await;
    assert!(update["resent"].as_u64().unwrap() < 2 * 16_384, "{update}");
    assert!(
        proven(&bench, update["update"].as_str().unwrap()) >= 1,
        "{}",
        bench.logs()
    );
    let current = bench.path().join("boards/quiet/state/current");
    assert!(std::fs::read(current).unwrap() == bytes);
}

/// One bit changed on the way ends the session, never the update: no byte of it is written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bits_in_both_directions_end_sessions_and_write_nothing_wrong() {
    use dialhome_gateway::demo::relay::{Action, Direction};
    let mut bench = Bench::start().await;
    let bytes = random_bytes(5, 400_000);
    let image = bench.image("1.0", &bytes).await;
    bench
        .board("noisy", Faults::default(), &board(16_384, 1_088))
        .await;
    let relay = bench.relay("noisy");
    for at in [1_000, 60_000, 200_000] {
        relay.arm(Direction::ToBoard, at, Action::FlipBit);
    }
    for at in [500, 1_500] {
        relay.arm(Direction::ToGateway, at, Action::FlipBit);
    }
    let update = bench.push("noisy", &image.name, &[]).await.confirmed();
    assert_eq!(bench.relay("noisy").armed(), 0, "not every bit was flipped");
    assert!(update["sessions"].as_u64().unwrap() >= 4, "{update}");
    let current = bench.path().join("boards/noisy/state/current");
    assert!(std::fs::read(current).unwrap() == bytes);
}

/// Over QUIC none of it ends the session, and no byte of the image is sent twice: what is lost or damaged is sent
/// again below, and a new port of the board is its next address.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_lost_doubled_late_and_damaged_and_new_ports_change_nothing() {
    let seed = number("SEED", 6);
    eprintln!("SEED={seed}");
    let mut bench = Bench::start_over(Transport::Quic).await;
    let bytes = random_bytes(seed, 600_000);
    let image = bench.image("1.0", &bytes).await;
    let faults = datagrams::Faults {
        seed,
        dropped: 30,
        doubled: 30,
        late: 50,
        damaged: 20,
        rate: None,
    };
    let line = Line::Quic(Datagrams::start(bench.site.listen(), faults).await);
    let settings = board(32_768, 4_126);
    bench.add_board_behind("torn", line, &settings).await;
    bench.start_agent("torn");
    bench.online("torn").await;
    for number in 1..=5 {
        use dialhome_gateway::demo::relay::{Action, Direction};
        let relay = bench.relay("torn");
        relay.arm(
            Direction::ToBoard,
            number * 100_000,
            Action::Cut(Cut::Reset),
        );
    }
    let update = bench.push("torn", &image.name, &[]).await.confirmed();
    let marred = bench.relay("torn").quic().marred();
    eprintln!("{marred:?}");
    assert_eq!(bench.relay("torn").armed(), 0, "not every port was changed");
    assert!(marred.rebound >= 5, "{marred:?}");
    for count in [marred.dropped, marred.doubled, marred.late, marred.damaged] {
        assert!(count > 0, "{marred:?}");
    }
    assert_eq!(update["sent"], bytes.len(), "{update}");
    assert_eq!(update["resent"], 0, "{update}");
    assert_eq!(update["sessions"], 2, "{update}");
    let current = bench.path().join("boards/torn/state/current");
    assert!(std::fs::read(current).unwrap() == bytes);
}
