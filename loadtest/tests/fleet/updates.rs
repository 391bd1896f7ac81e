//! Whole updates over plain loopback.

use crate::crew::{Crew, Field};
use dialhome_loadtest::fleet::words::{Link, Order, Word};

const BOARDS: usize = 50;
const IMAGE: usize = 200_000;

#[tokio::test]
async fn fifty_boards_take_an_update_and_confirm_it() {
    let mut field = Field::new(BOARDS, &[IMAGE]).await;
    let mut crew = Crew::new(&field.roll(Link::default())).await;
    crew.order(Order::Begin).await;
    crew.until("all boards online", |tick| tick.online == BOARDS as u64)
        .await;
    assert_eq!(crew.tick.dials, BOARDS as u64);
    field.push_all(0).await;
    crew.until("all boards confirmed", |tick| {
        tick.confirmed == BOARDS as u64 && tick.online == BOARDS as u64
    })
    .await;
    let tick = &crew.tick;
    assert_eq!(tick.committed, (BOARDS * IMAGE) as u64);
    assert_eq!(tick.again, 0);
    assert_eq!(tick.ended["Bye(restart)"], BOARDS as u64);
    assert_eq!(tick.dials, 2 * BOARDS as u64);
    assert!(tick.failed_dials.is_empty() && tick.not_confirmed.is_empty());
    assert!(tick.bytes_down > tick.committed && tick.bytes_up > 0);
    let tick = crew.end().await;
    assert_eq!(tick.online, 0);
    assert_eq!(tick.ended["Bye(stopping)"], BOARDS as u64);
    field.gateway.stop().await.unwrap();
}

#[tokio::test]
async fn power_cuts_break_no_promise() {
    let mut field = Field::new(BOARDS, &[IMAGE]).await;
    let mut crew = Crew::new(&field.roll(Link::default())).await;
    crew.order(Order::Begin).await;
    crew.until("all boards online", |tick| tick.online == BOARDS as u64)
        .await;
    field.push_all(0).await;
    crew.until("bytes committed", |tick| tick.committed > 0)
        .await;
    let for_ms = 10;
    crew.order(Order::PowerCut { share: 0.5, for_ms }).await;
    crew.until("all boards confirmed", |tick| {
        tick.confirmed == BOARDS as u64
    })
    .await;
    let tick = crew.end().await;
    // Some of them had no session at that moment.
    assert!((1..=BOARDS as u64 / 2).contains(&tick.ended["power cut"]));
    assert_eq!(tick.committed, (BOARDS * IMAGE) as u64);
    assert!(tick.not_confirmed.is_empty());
    field.gateway.stop().await.unwrap();
}

#[tokio::test]
async fn boards_without_a_link_say_so_and_come_back() {
    let field = Field::new(BOARDS, &[IMAGE]).await;
    let mut crew = Crew::new(&field.roll(Link::default())).await;
    crew.order(Order::Begin).await;
    crew.until("all boards online", |tick| tick.online == BOARDS as u64)
        .await;
    let for_ms = 500;
    crew.order(Order::Blackout { share: 1.0, for_ms }).await;
    // Without a power cut they would find out by a ping without its pong, after 30 s.
    let for_ms = 10;
    crew.order(Order::PowerCut { share: 1.0, for_ms }).await;
    crew.until("all boards offline", |tick| tick.online == 0)
        .await;
    crew.until("all boards back", |tick| tick.online == BOARDS as u64)
        .await;
    assert!(crew.tick.failed_dials["no link"] >= BOARDS as u64);
    crew.end().await;
    field.gateway.stop().await.unwrap();
}

#[tokio::test]
async fn the_first_byte_of_a_push_is_announced() {
    let mut field = Field::new(2, &[IMAGE]).await;
    let mut crew = Crew::new(&field.roll(Link::default())).await;
    crew.order(Order::Begin).await;
    crew.until("both boards online", |tick| tick.online == 2)
        .await;
    let ids = vec![field.devices[1].id.clone()];
    crew.order(Order::WatchFirstBytes { ids }).await;
    let before = dialhome_loadtest::measure::clock::now_ns();
    field.push_all(0).await;
    let (id, at_ns) = loop {
        match crew.word().await {
            Word::FirstByte { id, at_ns } => break (id, at_ns),
            Word::Tick(_) => {}
            word => panic!("{word:?}"),
        }
    };
    assert_eq!(id, field.devices[1].id);
    assert!(at_ns > before);
    crew.end().await;
    field.gateway.stop().await.unwrap();
}

#[tokio::test]
async fn too_many_boards_for_one_process_are_refused_in_words() {
    let field = Field::new(100, &[IMAGE]).await;
    let mut crew = Crew::start(&field.roll(Link::default()), 128).await;
    match crew.word().await {
        Word::Failed { why } => assert!(
            why.contains("128 open files") && why.contains("crews of at most 64"),
            "{why}"
        ),
        word => panic!("{word:?}"),
    }
    field.gateway.stop().await.unwrap();
}
