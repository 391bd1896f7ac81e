//! The link's model on a clock of the test's own.

use super::link::{Fate, Model};
use super::words::{Link, NatThen};

const MS: u64 = 1_000;
const S: u64 = 1_000 * MS;

fn slow() -> Link {
    Link {
        name: "slow".into(),
        down_bits_per_s: 115_200, // A full segment with its headers in 100 ms.
        up_bits_per_s: 11_520,
        round_trip_ms: 600,
        ..Link::default()
    }
}

fn numbered(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

/// Everything that has arrived at the board, taken away.
fn take(model: &mut Model, now_us: u64) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let arrived = model.down.arrived(now_us).to_vec();
        if arrived.is_empty() {
            return all;
        }
        model.down.take(arrived.len(), |_, _| {});
        all.extend(arrived);
    }
}

#[test]
fn a_byte_takes_half_the_round_trip_and_its_time_on_the_air() {
    let mut model = Model::new(&slow(), 1, 0);
    // 32 bytes and 40 of headers: 5 ms at this rate.
    assert_eq!(model.carry_down(&[7; 32], 0, 0), Fate::Holds);
    assert_eq!(model.down.due_us(), 305 * MS);
    assert!(model.down.arrived(305 * MS - 1).is_empty());
    assert_eq!(take(&mut model, 305 * MS), [7; 32]);
    // Up at a tenth of the rate: 50 ms.
    assert_eq!(model.carry_up(&[7; 32], S, 0), Fate::Holds);
    assert_eq!(model.up.due_us(), S + 350 * MS);
}

#[test]
fn a_stream_comes_at_the_rate_in_order_and_no_more_waits_than_the_link_holds() {
    let mut model = Model::new(&slow(), 1, 0);
    let stream = numbered(200_000);
    let (mut sent, mut came) = (0, Vec::new());
    let mut now_us = 0;
    while came.len() < stream.len() {
        let room = model.down.room(now_us).min(stream.len() - sent);
        if room > 0 && model.down.has_room(now_us) {
            let more = &stream[sent..sent + room];
            assert_eq!(model.carry_down(more, now_us, 0), Fate::Holds);
            sent += room;
        }
        came.extend(take(&mut model, now_us));
        // On the way for 300 ms, and two segments before the bottleneck.
        assert!(
            model.down.len() <= 5 * 1_400 + 1_400,
            "{}",
            model.down.len()
        );
        now_us += MS;
    }
    assert_eq!(came, stream);
    // 142.9 segments of 100 ms each, and half a round trip; a segment that was cut where
    // there was no more room has headers of its own.
    let ideal_us = 200_000 / 14 * MS + 300 * MS;
    assert!(now_us >= ideal_us, "{now_us}");
    assert!(now_us < ideal_us * 11 / 10, "{now_us} for {ideal_us}");
}

#[test]
fn jitter_delays_and_does_not_reorder() {
    let link = Link {
        jitter_ms: 200,
        ..slow()
    };
    let mut model = Model::new(&link, 5, 0);
    let mut last_us = 0;
    let mut late = 0;
    for round in 0..1_000_u64 {
        let now_us = round * 50 * MS;
        assert_eq!(model.carry_down(&[1; 32], now_us, round), Fate::Holds);
        let (mut stamp, mut at_us) = (0, 0);
        while model.down.len() > 0 {
            at_us = model.down.due_us();
            model.down.take(32, |of, _| stamp = of);
        }
        assert_eq!(stamp, round);
        assert!(at_us >= last_us, "reordered");
        let delay_us = at_us - now_us;
        assert!((305 * MS..=505 * MS).contains(&delay_us), "{delay_us}");
        late += u64::from(delay_us > 405 * MS);
        last_us = at_us;
    }
    // Half of them by the draw, more because they wait for each other.
    assert!((400..900).contains(&late), "{late}");
}

#[test]
fn nothing_moves_in_a_stall_and_nothing_is_lost() {
    let link = Link {
        stall_every_s: 10,
        stall_ms: [2_000, 2_000],
        ..slow()
    };
    let mut model = Model::new(&link, 3, 0);
    let mut gaps = Vec::new();
    let mut last_us = 0;
    let mut came = 0;
    for step in 0..6_000_u64 {
        let now_us = step * 10 * MS;
        assert_eq!(model.advance(now_us), Fate::Holds);
        if step < 5_000 && step % 20 == 0 {
            model.carry_down(&[1; 32], now_us, 0);
        }
        let arrived = take(&mut model, now_us).len();
        if arrived > 0 {
            came += arrived;
            gaps.push(now_us - last_us);
            last_us = now_us;
        }
    }
    assert_eq!(came, 250 * 32);
    let stalls = gaps.iter().filter(|gap| **gap >= 1_900 * MS).count();
    // Some five in fifty seconds; two of them may run into one.
    assert!((2..=12).contains(&stalls), "{stalls} of {gaps:?}");
    assert!(gaps.iter().all(|gap| *gap <= 3 * 2_300 * MS), "{gaps:?}");
}

#[test]
fn a_nat_forgets_who_is_silent_and_says_so_or_not() {
    for (nat_then, fate) in [(NatThen::Drop, Fate::Lost), (NatThen::Reset, Fate::Reset)] {
        let link = Link {
            nat_idle_s: 30,
            nat_then,
            ..Link::default()
        };
        let mut model = Model::new(&link, 1, 0);
        model.begin(0);
        assert_eq!(model.carry_up(b"a", 30 * S, 0), Fate::Holds);
        assert_eq!(model.carry_down(b"b", 60 * S, 0), Fate::Holds);
        assert_eq!(model.carry_down(b"c", 90 * S + 1, 0), fate);
        // A new connection has a mapping of its own.
        model.begin(91 * S);
        assert_eq!(model.carry_up(b"d", 91 * S, 0), Fate::Holds);
        assert_eq!(model.carry_up(b"e", 121 * S + 1, 0), fate);
    }
}

#[test]
fn a_blackout_ends_the_connection_and_the_link_for_its_time() {
    let link = Link {
        blackout_every_s: 20,
        blackout_ms: [3_000, 3_000],
        ..slow()
    };
    let mut model = Model::new(&link, 9, 0);
    let mut dark = 0_u64;
    let mut losses = 0;
    for step in 0..20_000_u64 {
        let now_us = step * 10 * MS;
        let fate = model.advance(now_us);
        assert_ne!(fate, Fate::Reset);
        if fate == Fate::Lost {
            losses += 1;
            assert!(!model.is_up(now_us));
            assert!(model.down.len() == 0 && model.up.len() == 0);
        }
        dark += u64::from(!model.is_up(now_us));
        if model.is_up(now_us) {
            model.carry_up(&[1; 32], now_us, 0);
        }
        let _ = take(&mut model, now_us);
    }
    // Of 200 s: one in 23 s.
    assert!((3..=16).contains(&losses), "{losses}");
    let dark_s = dark / 100;
    assert!(
        dark_s >= 3 * (losses - 1) && dark_s <= 3 * losses,
        "{dark_s}"
    );
}

#[test]
fn the_end_of_a_connection_comes_behind_its_last_byte() {
    let mut model = Model::new(&slow(), 1, 0);
    model.carry_down(&[1; 32], 0, 0);
    assert_eq!(model.end_down(0), Fate::Holds);
    assert!(!model.down.has_ended(305 * MS));
    assert_eq!(take(&mut model, 305 * MS).len(), 32);
    assert!(!model.down.has_ended(305 * MS));
    assert!(model.down.has_ended(308 * MS));
}

#[test]
fn presets_have_names_and_only_loopback_is_plain() {
    for name in Link::PRESETS {
        let link = Link::preset(name).expect(name);
        assert_eq!(link.name, name);
        assert_eq!(link.is_plain(), name == "loopback");
    }
    assert_eq!(Link::preset("5g"), None);
}
