//! Boards behind links that are slow, stall and forget.

use crate::crew::{Crew, Field};
use dialhome_loadtest::fleet::words::{Link, NatThen, Order};
use std::cell::{Cell, RefCell};

#[tokio::test]
async fn boards_on_a_slow_link_wait_for_it_and_take_their_update() {
    const BOARDS: usize = 10;
    const IMAGE: usize = 100_000;
    let mut field = Field::new(BOARDS, &[IMAGE]).await;
    let mut link = Link::preset("3g").unwrap();
    (link.stall_every_s, link.stall_ms) = (2, [100, 300]);
    link.blackout_every_s = 0;
    let mut crew = Crew::new(&field.roll(link.clone())).await;
    crew.order(Order::Begin).await;
    crew.until("all boards online", |tick| tick.online == BOARDS as u64)
        .await;
    field.push_all(0).await;
    let (first_ns, last_ns) = (Cell::new(0), Cell::new(0));
    let waits = RefCell::new(Vec::new());
    crew.until("all boards confirmed", |tick| {
        waits.borrow_mut().extend_from_slice(&tick.ack_ms);
        if tick.committed == 0 {
            first_ns.set(tick.at_ns);
        }
        if last_ns.get() == 0 && tick.committed == (BOARDS * IMAGE) as u64 {
            last_ns.set(tick.at_ns);
        }
        tick.confirmed == BOARDS as u64
    })
    .await;
    let waits = waits.into_inner();
    assert!(waits.len() > BOARDS, "{} waits", waits.len());
    // A chunk crosses the link, and so does its acknowledgement.
    let least = waits.iter().copied().fold(f32::MAX, f32::min);
    assert!(least >= link.round_trip_ms as f32, "{least} ms");
    // No faster than the rate; the first bytes may have come just before the first tick.
    let seconds = (last_ns.get() - first_ns.get()) as f64 / 1e9 + 0.3;
    assert!(seconds >= IMAGE as f64 * 8.0 / link.down_bits_per_s as f64);
    assert!(!crew.tick.ended.contains_key("lost"), "{:?}", crew.tick);
    assert_eq!(crew.tick.again, 0);
    let tick = crew.end().await;
    // What a board says last arrives, although it hangs up at once.
    assert_eq!(tick.ended["Bye(stopping)"], BOARDS as u64);
    field.gateway.stop().await.unwrap();
}

#[tokio::test]
async fn a_nat_that_forgets_and_says_so_costs_a_dial() {
    const BOARDS: usize = 5;
    let field = Field::new(BOARDS, &[1000]).await;
    let link = Link {
        nat_idle_s: 1,
        nat_then: NatThen::Reset,
        ..Link::default()
    };
    let mut roll = field.roll(link);
    roll.client.ping_s = 2;
    let mut crew = Crew::new(&roll).await;
    crew.order(Order::Begin).await;
    crew.until("every board lost and back", |tick| {
        tick.ended.get("lost") >= Some(&(BOARDS as u64)) && tick.online == BOARDS as u64
    })
    .await;
    assert!(crew.tick.dials >= 2 * BOARDS as u64);
    crew.end().await;
    field.gateway.stop().await.unwrap();
}

#[tokio::test]
async fn what_a_nat_drops_in_silence_leaves_the_gateway_with_dead_sessions() {
    const BOARDS: usize = 5;
    let mut field = Field::new(BOARDS, &[1000]).await;
    let link = Link {
        nat_idle_s: 3,
        ..Link::default()
    };
    let mut crew = Crew::new(&field.roll(link)).await;
    crew.order(Order::Begin).await;
    crew.until("all boards online", |tick| tick.online == BOARDS as u64)
        .await;
    let at_ns = crew.tick.at_ns;
    crew.until("four seconds of silence", |tick| {
        tick.at_ns > at_ns + 4_000_000_000
    })
    .await;
    // The offers vanish: no board hears of its update, and none hangs up.
    field.push_all(0).await;
    let before = (crew.tick.committed, crew.tick.dials);
    let at_ns = crew.tick.at_ns;
    crew.until("a second more", |tick| tick.at_ns > at_ns + 1_000_000_000)
        .await;
    assert_eq!((crew.tick.committed, crew.tick.dials), before);
    assert_eq!(crew.tick.online, BOARDS as u64);
    // Who restarts has a new mapping, and its update with it.
    let for_ms = 10;
    crew.order(Order::PowerCut { share: 1.0, for_ms }).await;
    crew.until("all boards confirmed", |tick| {
        tick.confirmed == BOARDS as u64
    })
    .await;
    crew.end().await;
    field.gateway.stop().await.unwrap();
}
