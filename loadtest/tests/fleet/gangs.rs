//! Peers that are no good boards.

use crate::crew::{Crew, Field};
use dialhome_loadtest::fleet::words::{Gang, Link, Mischief, Order};
use std::net::IpAddr;

fn gang(mischief: Mischief, peers: u32, per_s: u32) -> Gang {
    Gang {
        mischief,
        peers,
        per_s,
        sources: (1..=4)
            .map(|host| IpAddr::from([127, 0, 2, host]))
            .collect(),
        on_at_ms: 0,
        off_at_ms: None,
    }
}

#[tokio::test]
async fn bad_peers_are_counted_and_good_boards_take_their_update() {
    const BOARDS: usize = 10;
    const IMAGE: usize = 100_000;
    let mut field = Field::new(BOARDS, &[IMAGE]).await;
    let mut roll = field.roll(Link::default());
    roll.gangs = vec![
        gang(Mischief::Silent, 50, 0),
        gang(Mischief::HalfPreamble, 50, 0),
        gang(Mischief::UnknownHandle, 20, 200),
        gang(Mischief::Rubbish, 20, 200),
    ];
    let mut crew = Crew::new(&roll).await;
    crew.order(Order::Begin).await;
    crew.until("all bad peers at their work", |tick| {
        let [silent, half, unknown, rubbish] = &tick.gangs[..] else {
            panic!("{:?}", tick.gangs)
        };
        let unknown = unknown.refused.get("refused").copied().unwrap_or(0);
        silent.open == 50 && half.open == 50 && unknown > 20 && rubbish.closed > 20
    })
    .await;
    crew.until("all boards online", |tick| tick.online == BOARDS as u64)
        .await;
    field.push_all(0).await;
    crew.until("all boards confirmed", |tick| {
        tick.confirmed == BOARDS as u64
    })
    .await;
    for gang in &crew.tick.gangs {
        assert_eq!(gang.opened, gang.closed + gang.open, "{gang:?}");
        let refused: u64 = gang.refused.values().sum();
        assert!(refused <= gang.closed, "{gang:?}");
    }
    crew.end().await;
    field.gateway.stop().await.unwrap();
}

#[tokio::test]
async fn a_board_that_reads_no_more_keeps_its_session_and_takes_no_update() {
    let mut field = Field::new(2, &[100_000]).await;
    let mut roll = field.roll(Link::default());
    // After the handshake and Welcome, in the middle of the offer.
    roll.boards[0].deaf_after = Some(200);
    let mut crew = Crew::new(&roll).await;
    crew.order(Order::Begin).await;
    crew.until("both boards online", |tick| tick.online == 2)
        .await;
    field.push_all(0).await;
    crew.until("the good board confirmed", |tick| tick.confirmed == 1)
        .await;
    assert_eq!(crew.tick.committed, 100_000);
    crew.end().await;
    field.gateway.stop().await.unwrap();
}
