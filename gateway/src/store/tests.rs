//! The store's own promises: what shares a transaction, what is counted, and data of older formats.

use std::sync::Arc;

use dialhome_proto::id::UpdateId;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::memory::Memory;
use super::updates::{outcome, put_intent, put_state};
use super::writer::Write;
use super::{
    Change, Counters, DeviceId, HelloRecord, NewDevice, State, Store, StoreError, UpdateIntent,
    UpdateState, now, session, sqlite,
};

fn board() -> DeviceId {
    DeviceId::stored("board-1")
}

async fn opened(data: &std::path::Path) -> Store {
    let store = Store::open(data).unwrap();
    let device = NewDevice {
        id: board().to_string(),
        product: "lamp".into(),
        trust_keys: vec![[1; 32]],
        gateways: vec!["gateway.invalid:7040".into()],
    };
    store.add_device(device).await.unwrap();
    store
}

fn intent(update: &str) -> UpdateIntent {
    UpdateIntent {
        update: update.into(),
        device: board().to_string(),
        image: "lamp@1".into(),
        digest: String::new(),
        manifest_digest: String::new(),
        component: 0,
        size: 1000,
        created: now(),
        deadline: jiff::Timestamp::MAX,
        downgrade: false,
        max_bytes: 3000,
        entries: Vec::new(),
        cancel_requested: None,
        abandoned: None,
        replaced_by: None,
    }
}

fn queue(write: &mut Write<'_>, update: &str) -> Result<(), StoreError> {
    let intent = intent(update);
    let state = UpdateState {
        state: State::Queued,
        reason: None,
        detail: None,
        output: None,
        revert: None,
        reverts: Vec::new(),
        counters: Counters::default(),
        changed: now(),
        heard: false,
        seen: false,
        overdue: None,
        paused: false,
        later: Vec::new(),
    };
    put_intent(write.db, &intent)?;
    put_state(write, &intent, None, &state)
}

/// Keeps the writer busy until the answer is dropped: what comes meanwhile shares the next transaction.
async fn busy(store: &Store) -> oneshot::Sender<()> {
    let (go, held) = oneshot::channel::<()>();
    let (begun, begins) = oneshot::channel();
    let writer = store.0.writer.clone();
    tokio::spawn(async move {
        let work = move |_: &mut Connection| {
            let _ = begun.send(());
            let _ = held.blocking_recv();
        };
        writer.alone(work).await
    });
    begins.await.unwrap();
    go
}

/// What the memory counts is what the database holds.
async fn counted(store: &Store) -> Vec<(String, Option<String>, u64)> {
    let counts = store.update_counts();
    let stored = store.read(|db| {
        let fresh = Memory::new();
        fresh.count(db)?;
        let counts = fresh.outcomes().clone();
        Ok(counts)
    });
    let stored: Vec<_> = stored
        .await
        .unwrap()
        .into_iter()
        .map(|((state, reason), count)| (state, reason, count))
        .collect();
    assert_eq!(counts, stored);
    counts
}

const FIRST: &str = "0000000000000001";
const SECOND: &str = "0000000000000002";

/// A delivery that goes on after a session counts what it sends again, also behind bytes that nobody sent.
#[test]
fn counters_go_on_where_they_stood() {
    let counted = dialhome_proto::gateway::Counters {
        committed: 140_000,
        sent: 50_000,
        resent: 10_000,
        reached: 140_000,
    };
    let stored = Counters::of(&counted, 2, 1);
    let stored: Counters = serde_json::from_str(&sqlite::json(&stored).unwrap()).unwrap();
    assert_eq!(
        (stored.skipped, stored.sessions, stored.place),
        (100_000, 2, 1)
    );
    assert_eq!(stored.counted(), counted);
}

/// What an update of one component is stored as has no field that an older version does not know.
#[test]
fn the_records_of_one_component_are_as_they_were() {
    let counters = Counters {
        committed: 1,
        sent: 2,
        resent: 3,
        skipped: 0,
        sessions: 4,
        place: 0,
    };
    assert_eq!(
        sqlite::json(&counters).unwrap(),
        r#"{"committed":1,"sent":2,"resent":3,"sessions":4}"#
    );
    let intent = sqlite::json(&intent(FIRST)).unwrap();
    assert!(!intent.contains("entries"), "{intent}");
    let several = Counters {
        place: 1,
        ..counters
    };
    let read: Counters = sqlite::parse(&sqlite::json(&several).unwrap()).unwrap();
    assert_eq!(read, several);
}

#[tokio::test]
async fn a_command_that_fails_is_taken_back_alone() {
    let data = tempfile::tempdir().unwrap();
    let store = opened(data.path()).await;
    let go = busy(&store).await;
    let good = store.change(|write| queue(write, FIRST));
    let bad = store.change(|write| {
        queue(write, SECOND)?;
        Err::<(), _>(StoreError::invalid("no", "no"))
    });
    let (good, bad, _) = tokio::join!(biased; good, bad, async { drop(go) });
    good.unwrap();
    assert_eq!(bad, Err(StoreError::invalid("no", "no")));
    assert_eq!(counted(&store).await, [("queued".into(), None, 1)]);
}

#[tokio::test]
async fn a_record_that_stops_half_way_takes_the_whole_transaction_back() {
    let data = tempfile::tempdir().unwrap();
    let store = opened(data.path()).await;
    let go = busy(&store).await;
    let (seq, board) = (store.last_seq(), board());
    let good = store.hello(&board, 1 << 40, HelloRecord::default());
    let bad = store.record(|write| {
        queue(write, SECOND)?;
        Err::<(), _>(StoreError::Database("it broke".into()))
    });
    let refused = store.record(|_| Err::<(), _>(StoreError::not_found("update", "x")));
    let (good, bad, refused, _) = tokio::join!(biased; good, bad, refused, async { drop(go) });
    let broken = StoreError::Database("it broke".into());
    assert_eq!(good, Err(broken.clone()));
    assert_eq!(bad, Err(broken.clone()));
    assert_eq!(refused, Err(broken.clone()));
    assert_eq!(store.fault(), Some(broken));
    assert_eq!(
        store.last_seq(),
        seq,
        "nobody is told of what was taken back"
    );
    assert_eq!(store.device_state("board-1").await.unwrap(), None);
    assert_eq!(counted(&store).await, []);
    // A record that refuses before it writes disturbs nobody.
    let (good, refused) = tokio::join!(
        store.hello(&board, 1 << 40, HelloRecord::default()),
        store.record(|_| Err::<(), _>(StoreError::not_found("update", "x"))),
    );
    good.unwrap();
    assert_eq!(refused, Err(StoreError::not_found("update", "x")));
    assert_eq!(store.fault(), None);
    let state = store.device_state("board-1").await.unwrap().unwrap();
    assert!(state.connected && state.hello.is_some());
}

#[tokio::test]
async fn a_session_that_a_newer_one_has_replaced_writes_nothing() {
    let data = tempfile::tempdir().unwrap();
    let store = opened(data.path()).await;
    let board = board();
    let hello = |generation| store.hello(&board, generation, HelloRecord::default());
    assert!(matches!(
        store
            .hello(&DeviceId::stored("board-2"), 5, HelloRecord::default())
            .await,
        Err(StoreError::NotFound { .. })
    ));
    hello(5).await.unwrap();
    hello(6).await.unwrap();
    assert!(matches!(hello(5).await, Err(StoreError::Fenced { .. })));
    let log = store.device_log("board-1", 10).await.unwrap();
    store.disconnected(&board, 5, "lost").await.unwrap();
    let state = store.device_state("board-1").await.unwrap().unwrap();
    assert!(state.connected && state.generation == 6 && state.last_disconnect.is_none());
    assert_eq!(store.device_log("board-1", 10).await.unwrap(), log);
    store.air(&board, 70, 30);
    store.disconnected(&board, 6, "lost").await.unwrap();
    store.disconnected(&board, 6, "lost").await.unwrap();
    store.flush().await.unwrap();
    let state = store.device_state("board-1").await.unwrap().unwrap();
    assert!(!state.connected && state.last_contact.is_some());
    assert_eq!(state.last_disconnect.unwrap().reason, "lost");
    assert_eq!((state.air_sent, state.air_received), (70, 30));
    assert_eq!(store.air_totals().await.unwrap(), (70, 30));
    let kinds: Vec<_> = store.device_log("board-1", 10).await.unwrap();
    let kinds: Vec<_> = kinds.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "device.changed",
            "device.online",
            "device.online",
            "device.offline"
        ]
    );
}

#[tokio::test]
async fn updates_are_counted_as_they_are_stored_also_after_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let store = opened(data.path()).await;
    store.change(|write| queue(write, FIRST)).await.unwrap();
    store.change(|write| queue(write, SECOND)).await.unwrap();
    let (first, second) = (
        UpdateId::from_hex(FIRST).unwrap(),
        UpdateId::from_hex(SECOND).unwrap(),
    );
    store
        .change_update(first, Change::to(State::Transferring))
        .await
        .unwrap();
    store
        .change_update(second, Change::to(State::Failed).because("storage"))
        .await
        .unwrap();
    let counters = Counters {
        committed: 400,
        sent: 500,
        resent: 0,
        skipped: 0,
        sessions: 1,
        place: 0,
    };
    store.progress(&board(), first, counters);
    store.flush().await.unwrap();
    let expected = [
        ("failed".into(), Some("storage".into()), 1),
        ("transferring".into(), None, 1),
    ];
    assert_eq!(counted(&store).await, expected);
    drop(store);
    let store = reopened(data.path()).await;
    assert_eq!(counted(&store).await, expected);
    assert_eq!(store.update_doc(first).await.unwrap().committed, 400);
    let docs = store.update_docs(None, true, None, 10).await.unwrap().0;
    assert_eq!(docs.len(), 1, "only one is open: {docs:?}");
}

/// The look at deadlines may hold the store for a moment longer.
async fn reopened(data: &std::path::Path) -> Store {
    for _ in 0..500 {
        match Store::open(data) {
            Err(StoreError::InUse { .. }) => {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            outcome => return outcome.unwrap(),
        }
    }
    panic!("the store is still in use after 10 s");
}

#[test]
fn data_of_format_1_is_read_and_goes_on() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join(sqlite::DATABASE);
    let old = Connection::open(&path).unwrap();
    old.execute_batch(include_str!("format_1.sql")).unwrap();
    drop(old);
    let db = sqlite::open_for_writing(data.path()).unwrap();
    let state = session::state(&db, "board-1").unwrap().unwrap();
    assert!(state.connected);
    assert_eq!(state.generation, 8_589_934_593);
    assert_eq!(
        state.last_contact.unwrap().to_string(),
        "2026-05-04T03:02:01.234Z"
    );
    let end = state.last_disconnect.unwrap();
    assert_eq!(end.reason, "lost");
    assert_eq!(end.at.to_string(), "2026-05-04T03:02:00.5Z");
    assert_eq!((state.air_sent, state.air_received), (12_345, 678));
    let hello = state.hello.unwrap();
    assert_eq!(hello.network, "loopback");
    assert_eq!(hello.components[0].version, "1.0");
    let bare = session::state(&db, "board-2").unwrap().unwrap();
    assert_eq!(bare, super::DeviceState::default());
    let found: i64 = db
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .unwrap();
    assert_eq!(found, sqlite::FORMAT);
    drop(db);
    // The second time there is nothing to do; and an open store counts what it found.
    let db = sqlite::open_for_writing(data.path()).unwrap();
    let memory = Arc::new(Memory::new());
    memory.count(&db).unwrap();
    let counts = memory.outcomes().clone();
    assert_eq!(
        counts.into_iter().collect::<Vec<_>>(),
        [(("queued".into(), None), 1)]
    );
    let (_, update) = super::updates::both(&db, FIRST).unwrap();
    assert_eq!(outcome(&update), ("queued".into(), None));
}
