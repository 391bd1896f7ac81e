//! Limits on delivery: who waits, what an operator is told of it, and that nobody is forgotten.

mod support;

use std::time::{Duration, Instant};

use dialhome_gateway::demo::relay::Faults;
use dialhome_proto::code::Reason;
use dialhome_proto::frame::{Ack, Defer, GatewayFrame};
use dialhome_proto::id::UpdateId;
use dialhome_proto::link::DeviceKey;
use serde_json::Value;
use support::peer::{Peer, accept, hello, key_of, nothing};
use support::{BOARD, Bench, PATIENCE, Transport, random_bytes};
use tokio::time::timeout;

support::over_both! {
    updates_wait_for_their_turn_and_say_so_and_a_board_that_is_not_ready_gives_its_place_away,
    a_rate_is_kept_and_every_board_gets_through,
    a_board_that_is_held_back_by_a_rate_is_not_overdue_and_its_limits_are_seen,
}

/// A gateway with these arguments, and keys of boards that only the test plays.
async fn bench<const N: usize>(transport: Transport, args: &[&str]) -> (Bench, [DeviceKey; N]) {
    let mut bench = Bench::prepare_over(transport);
    bench.site.serve_with(args);
    bench.start_gateway().await;
    let made = bench.site.make_key().await;
    bench.must(made);
    let mut keys = Vec::new();
    for n in 0..N {
        let board = bench.add_board(&name(n), Faults::default(), BOARD).await;
        keys.push(key_of(&board.config));
    }
    let keys = keys.try_into();
    (bench, keys.unwrap_or_else(|_| panic!("{N} keys")))
}

fn name(n: usize) -> String {
    format!("board-{n}")
}

async fn offered(peer: &mut Peer) -> UpdateId {
    peer.offer().await.0
}

/// Accepts, opens the window, and takes the first chunk.
async fn first_chunk(peer: &mut Peer, update: UpdateId) {
    peer.send(accept(update, 0, nothing())).await;
    peer.send(Ack {
        committed: 0,
        limit: 4096,
    })
    .await;
    assert_eq!(peer.chunk().await.0, 0);
}

/// Waits until the update waits for this.
async fn waits(bench: &Bench, update: &str, sentence: &str) {
    bench
        .until(&["update", "show", update], |update| {
            update["waiting_for"] == sentence
        })
        .await;
}

async fn updates_wait_for_their_turn_and_say_so_and_a_board_that_is_not_ready_gives_its_place_away(
    transport: Transport,
) {
    const NEXT: &str = "It waits for the transfer that runs to end: it is the next.";
    const SECOND: &str = "It waits for the transfer that runs to end: 1 is before it.";
    let (bench, keys) = bench::<3>(transport, &["--transfers-max", "1"]).await;
    let gateway = bench.door();
    let image = bench.image("1.0", &random_bytes(1, 60_000)).await;
    let mut peers = Vec::new();
    let mut updates = Vec::new();
    for (n, key) in keys.iter().enumerate() {
        peers.push(Peer::greet(gateway, key).await);
        let update = bench.push_no_wait(&name(n), &image.name, &[]).await;
        match n {
            0 => drop(bench.reaches(&update, "offered").await),
            1 => waits(&bench, &update, NEXT).await,
            _ => waits(&bench, &update, SECOND).await,
        }
        updates.push(update);
    }
    let [mut first, mut second, mut third] = <[Peer; 3]>::try_from(peers).ok().unwrap();
    let status = bench.json(&["status"]).await;
    let turns = &status["turns"];
    assert_eq!(
        (&turns["running"], &turns["waiting"], &turns["limit"]),
        (&1.into(), &2.into(), &1.into()),
        "{status}"
    );
    // Who waits is as well as any other.
    second.alive().await;
    let queued = bench.json(&["update", "show", &updates[1]]).await;
    assert_eq!(queued["state"], "queued", "{queued}");

    // The first puts it off: the second has its turn, and the first stands behind the third.
    let update = offered(&mut first).await;
    first
        .send(Defer {
            update,
            reason: Reason::BUSY,
            for_s: 1,
        })
        .await;
    let update = offered(&mut second).await;
    waits(&bench, &updates[0], SECOND).await;
    waits(&bench, &updates[2], NEXT).await;
    first_chunk(&mut second, update).await;

    // The second loses its link. The third has its turn; the second is before the first when it is back.
    drop(second);
    let update = offered(&mut third).await;
    let mut second = Peer::greet(gateway, &keys[1]).await;
    waits(&bench, &updates[1], NEXT).await;
    waits(&bench, &updates[0], SECOND).await;
    first_chunk(&mut third, update).await;

    // The third is held in the middle of its transfer.
    bench.json(&["hold", "board-2"]).await;
    offered(&mut second).await;
    third
        .send(Ack {
            committed: 1024,
            limit: 8192,
        })
        .await;
    // What is released with an open window goes on before what is new.
    bench.json(&["release", "board-2"]).await;
    waits(&bench, &updates[2], NEXT).await;
    waits(&bench, &updates[0], SECOND).await;
    // The one that waits is canceled and leaves the queue, and so does one whose link is lost.
    bench.json(&["update", "cancel", &updates[0]]).await;
    first
        .expect(|frame| matches!(frame, GatewayFrame::Cancel(_)))
        .await;
    drop(first);
    drop(second);
    // It goes on where it was: no offer, the next chunk.
    while third.chunk().await.0 < 4096 {}
    drop(third);
    bench
        .until(&["status"], |status| {
            status["turns"]["running"] == 0 && status["turns"]["waiting"] == 0
        })
        .await;
}

async fn a_rate_is_kept_and_every_board_gets_through(transport: Transport) {
    const RATE: u64 = 150_000;
    const SIZE: u32 = 200_000;
    let (mut bench, []) = bench::<0>(transport, &["--rate", "150K", "--network-rate", "1M"]).await;
    let image = bench
        .image("1.0", &random_bytes(2, usize::try_from(SIZE).unwrap()))
        .await;
    let boards = ["board-a", "board-b"];
    for id in boards {
        bench.board(id, Faults::default(), BOARD).await;
    }
    let begun = Instant::now();
    let pushes = boards.map(|id| bench.push_in_background(id, &image.name, &[]));
    let throttled = bench
        .until(&["status"], |status| {
            status["turns"]["throttled"].as_u64() > Some(0)
        })
        .await;
    assert_eq!(throttled["turns"]["rate"], RATE, "{throttled}");
    for push in pushes {
        let pushed = timeout(PATIENCE, push).await.expect("an end").unwrap();
        let update = pushed.confirmed();
        assert_eq!(update["resent"], 0, "{update}");
    }
    // A tenth of a second's bytes were there at once.
    let least = Duration::from_millis(u64::from(2 * SIZE) * 1_000 / RATE - 100);
    assert!(begun.elapsed() >= least, "{:?}", begun.elapsed());
}

async fn a_board_that_is_held_back_by_a_rate_is_not_overdue_and_its_limits_are_seen(
    transport: Transport,
) {
    let (bench, [key]) = bench::<1>(transport, &["--rate", "1K", "--network-transfers", "7"]).await;
    let image = bench.image("1.0", &random_bytes(3, 60_000)).await;
    let mut peer = Peer::greet_as(bench.door(), &key, hello()).await;
    let update = bench.push_no_wait("board-0", &image.name, &[]).await;
    let id = offered(&mut peer).await;
    first_chunk(&mut peer, id).await;
    let status = bench.json(&["status"]).await;
    // So low a rate feeds three boards at a time.
    assert_eq!(status["turns"]["limit"], 3, "{status}");
    assert_eq!(status["turns"]["network_limit"], 3, "{status}");
    assert_eq!(status["turns"]["rate"], 1_000, "{status}");
    let shown = bench.reaches(&update, "transferring").await;
    assert_eq!(shown["reason"], Value::Null, "{shown}");
}
