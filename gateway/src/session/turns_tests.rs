use super::*;
use std::net::Ipv4Addr;

const NOW: Millis = Millis(0);

/// A session of a board in one of several networks; never polled.
fn session(generation: u64, network: u64) -> (Arc<Handle>, IpAddr) {
    let (names, _) = tokio::sync::mpsc::unbounded_channel();
    let network = IpAddr::from(Ipv4Addr::new(192, 0, network.to_le_bytes()[0], 0));
    let handle = Handle::new(generation, (network, 1).into(), names);
    (Arc::new(handle), network)
}

struct Site {
    turns: Arc<Turns>,
    sessions: Vec<(Arc<Handle>, IpAddr)>,
    has: HashMap<u64, Turn>,
}

impl Site {
    /// Sessions from 0 on, each in the network that is named.
    fn new(transfers: u32, of_network: u32, networks: impl IntoIterator<Item = u64>) -> Self {
        let limits = Limits::new(transfers, Some(of_network), None, None);
        let sessions = (0..)
            .zip(networks)
            .map(|(n, net)| session(n, net))
            .collect();
        Self {
            turns: Arc::new(Turns::new(limits)),
            sessions,
            has: HashMap::new(),
        }
    }

    fn ask(&mut self, generation: u64, goes_on: bool) -> bool {
        let (handle, network) = &self.sessions[usize::try_from(generation).unwrap()];
        let turn = self.turns.ask(handle, *network, goes_on, NOW);
        let has = turn.is_some();
        self.has.extend(turn.map(|turn| (generation, turn)));
        has
    }

    /// The sessions that were told since, which take what they were given.
    fn told(&mut self) -> Vec<u64> {
        let told: Vec<u64> = self
            .sessions
            .iter()
            .filter(|(handle, _)| handle.take_woken())
            .map(|(handle, _)| handle.generation)
            .collect();
        for generation in &told {
            assert!(
                self.ask(*generation, false),
                "{generation} was told in vain"
            );
        }
        told
    }

    fn end(&mut self, generation: u64) {
        assert!(
            self.has.remove(&generation).is_some(),
            "{generation} had none"
        );
    }

    fn before(&self, generation: u64) -> usize {
        self.turns.queued(generation).unwrap().before
    }
}

#[test]
fn networks_have_their_turns_one_after_the_other_and_boards_within_one_in_order() {
    let mut site = Site::new(1, 1, [0, 0, 0, 0, 1, 2]);
    assert!(site.ask(0, false));
    for generation in 1..6 {
        assert!(!site.ask(generation, false));
    }
    let expected = [1, 4, 5, 2, 3];
    for (before, generation) in expected.iter().enumerate() {
        assert_eq!(site.before(*generation), before, "of {generation}");
    }
    let mut running = 0;
    for next in expected {
        site.end(running);
        assert_eq!(site.told(), [next]);
        running = next;
    }
    site.end(running);
    assert_eq!(site.turns.counts(), (0, 0, 0));
    assert!(site.turns.state().networks.is_empty());
    assert!(site.turns.state().order.iter().all(VecDeque::is_empty));
}

#[test]
fn what_goes_on_after_a_lost_link_comes_first() {
    let mut site = Site::new(1, 1, [0, 0, 1, 2]);
    assert!(site.ask(0, false));
    assert!(!site.ask(1, false));
    assert!(!site.ask(2, false));
    assert!(!site.ask(3, true));
    assert_eq!((site.before(3), site.before(1), site.before(2)), (0, 1, 2));
    site.end(0);
    assert_eq!(site.told(), [3]);
}

#[test]
fn a_network_takes_no_more_than_its_part_however_many_wait() {
    let mut site = Site::new(4, 3, [0, 0, 0, 0, 0, 1, 1]);
    for generation in 0..3 {
        assert!(site.ask(generation, false));
    }
    assert!(!site.ask(3, false));
    assert!(!site.ask(4, true));
    let queued = site.turns.queued(3).unwrap();
    assert_eq!((queued.before, queued.limit), (1, 3));
    assert!(queued.network.is_some());
    assert!(site.ask(5, false), "another network has what is left");
    assert!(!site.ask(6, false));
    assert_eq!(site.before(6), 2);
    site.end(5);
    assert_eq!(site.told(), [6]);
    site.end(0);
    assert_eq!(site.told(), [4]);
}

#[test]
fn a_session_that_leaves_keeps_nobody_waiting_whether_it_was_told_or_not() {
    let mut site = Site::new(1, 1, [0, 0, 1, 1]);
    assert!(site.ask(0, false));
    for generation in 1..4 {
        assert!(!site.ask(generation, false));
    }
    site.turns.leave(1, NOW);
    assert_eq!(site.turns.queued(1), None);
    site.end(0);
    // The one that has its turn goes without having taken it.
    site.turns.leave(2, NOW);
    assert!(site.sessions[2].0.take_woken());
    assert_eq!(site.told(), [3]);
    site.end(3);
    assert_eq!(site.turns.counts(), (0, 0, 0));
    assert!(site.turns.state().networks.is_empty());
}

#[test]
fn who_does_not_move_lends_the_place_and_takes_it_back() {
    let mut site = Site::new(2, 2, [0, 0, 1, 1, 1]);
    assert!(site.ask(0, false) && site.ask(1, false));
    for generation in 2..5 {
        assert!(!site.ask(generation, false));
    }
    site.has[&0].committed(MOVES_BYTES);
    site.turns.look(Millis(MOVES_MS - 1));
    assert!(site.told().is_empty(), "before its time");
    // One has moved meanwhile, the other has not.
    site.turns.look(Millis(MOVES_MS));
    assert_eq!(site.told(), [2]);
    assert_eq!(site.turns.counts(), (3, 1, 2));
    // It moves again: until somebody ends, one more than the limit runs.
    site.has[&1].committed(MOVES_BYTES);
    site.has[&2].kept();
    site.turns.look(Millis(MOVES_MS + 1));
    assert_eq!(site.turns.counts(), (3, 0, 2));
    site.end(0);
    assert!(site.told().is_empty(), "two run");
    site.end(1);
    assert_eq!(site.told(), [3]);
    // What is lent never exceeds the limit, and all of it comes back.
    for round in 2..6 {
        site.turns.look(Millis(round * MOVES_MS));
        site.told();
    }
    assert_eq!(site.turns.counts(), (3, 2, 0));
    for generation in 2..5 {
        site.end(generation);
    }
    assert_eq!(site.turns.counts(), (0, 0, 0));
    assert!(site.turns.state().networks.is_empty());
    assert_eq!(site.turns.state().taken, 0);
}

#[test]
fn twenty_thousand_wait_and_none_is_forgotten() {
    const MANY: u64 = 20_000;
    let networks = (0..MANY).map(|n| n % 7);
    let mut site = Site::new(100, 75, networks);
    for generation in 0..MANY {
        site.ask(generation, generation % 3 == 0);
    }
    let mut served = 0;
    while let Some(generation) = site.has.keys().next().copied() {
        assert!(site.turns.counts().0 <= 100);
        site.end(generation);
        served += 1;
        // Told ones are found without looking at all sessions.
        let given: Vec<u64> = site.turns.state().runs.keys().copied().collect();
        for generation in given {
            site.ask(generation, false);
        }
    }
    assert_eq!((served, site.turns.counts()), (MANY, (0, 0, 0)));
}

#[test]
fn who_comes_to_a_long_queue_has_a_number_at_once_and_the_others_are_not_counted_anew() {
    let waiting = RANK_AT_ONCE as u64 + 1;
    let mut site = Site::new(1, 1, vec![0; RANK_AT_ONCE + 3]);
    assert!(site.ask(0, false));
    for generation in 1..=waiting {
        assert!(!site.ask(generation, false));
    }
    assert_eq!(site.before(1), 0);
    assert!(!site.ask(waiting + 1, false));
    assert!(site.turns.state().ranked.is_some(), "counted anew for one");
    assert_eq!(site.before(waiting + 1), RANK_AT_ONCE + 1);
}
