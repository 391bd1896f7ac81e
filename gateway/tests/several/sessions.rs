//! Updates of several components in the session: delivered to a board that the test plays frame by frame, shown with
//! the component that is under way, and confirmed, ended and warned of as one.

use crate::support::bundle::{Image, add, bench, digest, sign};
use crate::support::peer::{Peer, accept, component, hello};
use crate::support::{Bench, random_bytes};
use dialhome_proto::code::{DigestFrom, Reason, Revert, SelfTest, Statement};
use dialhome_proto::frame::{Ack, Claim, Component, Decline, GatewayFrame, Hello, Report, Trial};
use dialhome_proto::id::UpdateId;
use serde_json::{Value, json};

/// A board with components 0 and 1, changed by `change`, which gets the place in the manifest: 0 for component 1.
fn board(change: impl Fn(usize, &mut Component<'static>)) -> Hello<'static> {
    let mut hello = hello();
    hello.components.clear();
    for (place, number) in [(1, 0), (0, 1)] {
        let mut component = Component {
            component: number,
            digest: digest(b"the old image"),
            digest_from: DigestFrom::BOOTED,
            ..component()
        };
        change(place, &mut component);
        hello.components.push(component).unwrap();
    }
    hello
}

/// What the gateway asked for: an offer or a resume of this part.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Offer,
    Resume,
}

async fn asked(peer: &mut Peer, image: &Image, place: usize) -> (Asked, UpdateId) {
    let plaintext = peer.next().await.expect("an offer or a resume");
    let (asked, update, order, component, size) = match GatewayFrame::decode(&plaintext).unwrap() {
        GatewayFrame::Offer(o) => (Asked::Offer, o.update, o.order, o.component, o.payload_size),
        GatewayFrame::Resume(r) => {
            assert_eq!(r.manifest, image.manifest);
            (
                Asked::Resume,
                r.update,
                r.order,
                r.component,
                r.payload_size,
            )
        }
        other => panic!("neither an offer nor a resume: {other:?}"),
    };
    let known = (usize::from(order), component, size as usize);
    let wanted = (place, [1, 0][place], image.payloads[place].len());
    assert_eq!(known, wanted);
    (asked, update)
}

/// Accepts the part from this offset on and takes its bytes up to `until`; how many came.
async fn take(
    peer: &mut Peer,
    update: UpdateId,
    image: &Image,
    place: usize,
    from: usize,
    until: usize,
) -> usize {
    let payload = &image.payloads[place];
    let offset = |at: usize| u32::try_from(at).unwrap();
    let ack = |at: usize| Ack {
        committed: offset(at),
        limit: offset((at + 4096).min(payload.len())),
    };
    peer.send(accept(update, offset(from), digest(&payload[..from])))
        .await;
    if from == payload.len() {
        return 0;
    }
    peer.send(ack(from)).await;
    let mut at = from;
    while at < until {
        let plaintext = peer.next().await.expect("a chunk");
        let GatewayFrame::Chunk(chunk) = GatewayFrame::decode(&plaintext).unwrap() else {
            panic!("not a chunk: {plaintext:?}");
        };
        assert_eq!(chunk.offset, offset(at), "place {place}");
        let end = at + chunk.bytes.len();
        assert!(
            chunk.bytes == &payload[at..end],
            "other bytes at {at} of place {place}"
        );
        at = end;
        peer.send(ack(at)).await;
    }
    at - from
}

fn report(update: UpdateId, place: usize, state: Statement, reason: Reason) -> Report<'static> {
    Report {
        sequence: 0,
        update,
        component: [1, 0][place],
        state,
        reason,
        detail: "",
    }
}

/// The whole of a part, up to the board's word that it is staged.
async fn stage(peer: &mut Peer, image: &Image, place: usize, from: usize) -> (Asked, usize) {
    let (how, update) = asked(peer, image, place).await;
    let end = image.payloads[place].len();
    let taken = take(peer, update, image, place, from, end).await;
    peer.send(report(update, place, Statement::STAGED, Reason::NONE))
        .await;
    (how, taken)
}

/// Takes Activate, and restarts.
async fn activate(mut peer: Peer, update: UpdateId) {
    peer.expect(|frame| matches!(frame, GatewayFrame::Activate(of) if of.update == update))
        .await;
    peer.send(report(update, 0, Statement::ACTIVATING, Reason::NONE))
        .await;
}

/// On trial with both images, as this component states it.
fn on_trial(update: UpdateId, image: &Image, place: usize, component: &mut Component<'static>) {
    component.digest = image.digest(place);
    component.trial = Some(Trial {
        update,
        self_test: SelfTest::PASSED,
    });
}

async fn pushed(bench: &Bench, image: &Image) -> (String, UpdateId) {
    let update = bench.push_no_wait("lamp-1", &image.name, &[]).await;
    let id = UpdateId::from_hex(&update).unwrap();
    (update, id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_components_are_sent_in_their_order_and_confirmed_as_one() {
    let (bench, key, image) = bench().await;
    let mut peer = Peer::greet_as(bench.site.listen(), &key, board(|_, _| {})).await;
    let (update, id) = pushed(&bench, &image).await;

    // Halfway through the first component.
    let (how, offered) = asked(&mut peer, &image, 0).await;
    assert_eq!((how, offered), (Asked::Offer, id));
    let mut sent = take(&mut peer, id, &image, 0, 0, 2_000).await;
    let under_way = bench
        .until(&["update", "show", &update], |update| {
            update["committed"] == sent
        })
        .await;
    let entries = under_way["entries"].as_array().unwrap();
    assert_eq!(
        (&entries[0]["component"], &entries[1]["component"]),
        (&1.into(), &0.into())
    );
    assert_eq!(
        (&entries[0]["committed"], &entries[0]["under_way"]),
        (&json!(sent), &json!(true))
    );
    assert_eq!(
        (&entries[1]["committed"], &entries[1]["under_way"]),
        (&json!(0), &json!(false))
    );
    assert_eq!(under_way["size"], image.size());
    let waits = format!(
        "It waits for lamp-1 to commit the remaining {} of 5000 bytes of component 1.",
        5_000 - sent
    );
    assert_eq!(under_way["waiting_for"], waits.as_str());
    let device = bench.json(&["device", "show", "lamp-1"]).await;
    assert!(
        device["waiting_for"]
            .as_str()
            .unwrap()
            .ends_with("of component 1."),
        "{device}"
    );

    // The rest of it, and some of the second; then the link is lost.
    while sent < 5_000 {
        sent += peer.chunk().await.1;
    }
    let committed = Ack {
        committed: 5_000,
        limit: 5_000,
    };
    peer.send(committed).await;
    peer.send(report(id, 0, Statement::STAGED, Reason::NONE))
        .await;
    // The board knows the manifest by now, all of it.
    let (how, _) = asked(&mut peer, &image, 1).await;
    assert_eq!(how, Asked::Resume);
    let begun = take(&mut peer, id, &image, 1, 0, 2_000).await;
    bench
        .until(&["update", "show", &update], |update| {
            update["committed"] == 5_000 + begun && update["entries"][1]["under_way"] == true
        })
        .await;
    drop(peer);
    bench.offline("lamp-1").await;

    // Both are claimed: the first is proven whole and not sent again, the second goes on.
    let claims = board(|place, component| {
        component.claim = Some(Claim {
            manifest: image.manifest,
            committed: [5_000, u32::try_from(begun).unwrap()][place],
            staged: place == 0,
        });
    });
    let mut peer = Peer::greet_as(bench.site.listen(), &key, claims).await;
    assert_eq!(stage(&mut peer, &image, 0, 5_000).await, (Asked::Resume, 0));
    let (how, rest) = stage(&mut peer, &image, 1, begun).await;
    assert_eq!((how, begun + rest), (Asked::Resume, 9_000));
    activate(peer, id).await;
    bench.offline("lamp-1").await;

    let trial = board(|place, component| on_trial(id, &image, place, component));
    let mut peer = Peer::greet_as(bench.site.listen(), &key, trial).await;
    peer.expect(|frame| matches!(frame, GatewayFrame::Confirm(of) if of.update == id))
        .await;
    peer.send(Report {
        sequence: 1,
        ..report(id, 0, Statement::CONFIRMED, Reason::NONE)
    })
    .await;
    peer.expect(|frame| matches!(frame, GatewayFrame::Settled(of) if of.sequence == 1))
        .await;
    let ended = bench.json(&["update", "show", &update]).await;
    assert_eq!(ended["state"], "confirmed", "{ended}");
    assert_eq!(
        (&ended["committed"], &ended["sessions"]),
        (&json!(image.size()), &json!(3))
    );
    // What was on its way when the link was lost is at most a window.
    let resent = ended["resent"].as_u64().unwrap();
    assert!(resent <= 4096, "{ended}");
    assert_eq!(ended["sent"], image.size() as u64 + resent, "{ended}");

    // The events say which component was offered when.
    let events = bench.json(&["events"]).await;
    let events = events["items"].as_array().unwrap();
    let offers: Vec<&Value> = events
        .iter()
        .filter(|event| event["to"] == "offered")
        .map(|event| &event["component"])
        .collect();
    assert_eq!(offers, [1, 0, 1, 0], "{events:?}");
    let end = events
        .iter()
        .find(|event| event["to"] == "confirmed")
        .unwrap();
    assert_eq!(end.get("component"), None, "{end}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_confirmed_before_every_component_was_stated_to_run() {
    let (bench, key, image) = bench().await;
    let (update, id) = pushed(&bench, &image).await;
    // Component 0 runs its new image, component 1 the old one.
    let half = board(|place, component| {
        on_trial(id, &image, place, component);
        if place == 0 {
            component.digest = digest(b"the old image");
        }
    });
    let mut peer = Peer::greet_as(bench.site.listen(), &key, half).await;
    bench.reaches(&update, "trial").await;
    // No Confirm comes: the next frame is the answer.
    peer.alive().await;
    peer.send(Report {
        sequence: 1,
        ..report(id, 0, Statement::CONFIRMED, Reason::NONE)
    })
    .await;
    peer.expect(|frame| matches!(frame, GatewayFrame::Settled(_)))
        .await;
    let ended = bench.json(&["update", "show", &update]).await;
    assert_eq!(
        (&ended["state"], &ended["reason"]),
        (&json!("reverted"), &json!("wrong_image_running")),
        "{ended}"
    );
    drop(peer);
    bench.offline("lamp-1").await;

    // Of component 0 nobody says what runs, in no session: that it was on trial before is no statement.
    let third = sign(
        &bench,
        ("1.9", "1.3"),
        [random_bytes(5, 100), random_bytes(6, 100)],
        9,
    )
    .await;
    add(&bench, &third).await;
    let (update, id) = pushed(&bench, &third).await;
    for last in [false, true] {
        let unknown = board(|place, component| {
            on_trial(id, &third, place, component);
            if place == 1 {
                component.digest_from = DigestFrom::UNKNOWN;
            }
        });
        let mut peer = Peer::greet_as(bench.site.listen(), &key, unknown).await;
        bench.reaches(&update, "trial").await;
        peer.alive().await;
        if last {
            peer.send(Report {
                sequence: 2,
                ..report(id, 0, Statement::CONFIRMED, Reason::NONE)
            })
            .await;
            peer.expect(|frame| matches!(frame, GatewayFrame::Settled(_)))
                .await;
        }
        drop(peer);
        bench.offline("lamp-1").await;
    }
    let ended = bench.json(&["update", "show", &update]).await;
    assert_eq!(
        (&ended["state"], &ended["reason"]),
        (&json!("reverted"), &json!("wrong_image_running")),
        "{ended}"
    );

    // What a Hello stated once, on trial, counts in a later session that cannot tell.
    let fourth = sign(
        &bench,
        ("2.2", "1.6"),
        [random_bytes(7, 100), random_bytes(8, 100)],
        10,
    )
    .await;
    add(&bench, &fourth).await;
    let (update, id) = pushed(&bench, &fourth).await;
    let well = board(|place, component| on_trial(id, &fourth, place, component));
    let mut peer = Peer::greet_as(bench.site.listen(), &key, well).await;
    peer.expect(|frame| matches!(frame, GatewayFrame::Confirm(_)))
        .await;
    drop(peer);
    bench.offline("lamp-1").await;
    let unknown = board(|_, component| component.digest_from = DigestFrom::UNKNOWN);
    let mut peer = Peer::greet_as(bench.site.listen(), &key, unknown).await;
    peer.send(Report {
        sequence: 3,
        ..report(id, 0, Statement::CONFIRMED, Reason::NONE)
    })
    .await;
    bench.reaches(&update, "confirmed").await;
    drop(peer);
    bench.offline("lamp-1").await;

    // The same in a session that delivers nothing: what is stated of an update that nobody looks at any more.
    let again = sign(
        &bench,
        ("2.1", "1.5"),
        [random_bytes(3, 100), random_bytes(4, 100)],
        8,
    )
    .await;
    add(&bench, &again).await;
    let (second, id) = pushed(&bench, &again).await;
    bench.json(&["update", "abandon", &second]).await;
    let half =
        board(|place, component| component.digest = [digest(b"old"), again.digest(1)][place]);
    let mut peer = Peer::greet_as(bench.site.listen(), &key, half).await;
    peer.send(Report {
        sequence: 2,
        ..report(id, 1, Statement::CONFIRMED, Reason::NONE)
    })
    .await;
    peer.expect(|frame| matches!(frame, GatewayFrame::Settled(_)))
        .await;
    let ended = bench.json(&["update", "show", &second]).await;
    let detail = ended["detail"].as_str().unwrap();
    assert!(
        detail.contains("stated reverted (wrong_image_running)"),
        "{ended}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_ends_as_one_where_a_component_is_declined_fails_or_is_missing() {
    let (bench, key, image) = bench().await;
    let gateway = bench.site.listen();

    // The board declines the second after the first was staged.
    let mut peer = Peer::greet_as(gateway, &key, board(|_, _| {})).await;
    let (update, id) = pushed(&bench, &image).await;
    stage(&mut peer, &image, 0, 0).await;
    asked(&mut peer, &image, 1).await;
    peer.send(Decline {
        update: id,
        reason: Reason::TOO_BIG,
    })
    .await;
    let ended = bench.reaches(&update, "declined").await;
    assert_eq!(
        (&ended["reason"], &ended["detail"]),
        (
            &json!("too_big"),
            &json!(
                "the board declined when component 0 was offered; what it did not take may be another of this update"
            )
        ),
        "{ended}"
    );
    peer.alive().await;

    // The second one's check fails: one outcome, with the component that the board's report names, once.
    let (update, id) = pushed(&bench, &image).await;
    stage(&mut peer, &image, 0, 0).await;
    let (_, _) = asked(&mut peer, &image, 1).await;
    take(&mut peer, id, &image, 1, 0, 9_000).await;
    peer.send(Report {
        sequence: 1,
        ..report(id, 1, Statement::FAILED, Reason::DIGEST_MISMATCH)
    })
    .await;
    peer.expect(|frame| matches!(frame, GatewayFrame::Settled(_)))
        .await;
    let ended = bench.json(&["update", "show", &update]).await;
    assert_eq!(
        (&ended["state"], &ended["reason"], &ended["detail"]),
        (
            &json!("failed"),
            &json!("digest_mismatch"),
            &json!("component 0")
        ),
        "{ended}"
    );

    // Canceled between the two: the board's word ends it.
    let (update, id) = pushed(&bench, &image).await;
    stage(&mut peer, &image, 0, 0).await;
    asked(&mut peer, &image, 1).await;
    bench.json(&["update", "cancel", &update]).await;
    peer.expect(|frame| matches!(frame, GatewayFrame::Cancel(of) if of.update == id))
        .await;
    peer.send(Report {
        sequence: 2,
        ..report(id, 1, Statement::CANCELED, Reason::CANCELED)
    })
    .await;
    peer.expect(|frame| matches!(frame, GatewayFrame::Settled(_)))
        .await;
    bench.reaches(&update, "canceled").await;

    // The limit on bytes is over all of it.
    let max = ["--max-bytes", "6000"];
    let update = bench.push_no_wait("lamp-1", &image.name, &max).await;
    let id = UpdateId::from_hex(&update).unwrap();
    stage(&mut peer, &image, 0, 0).await;
    asked(&mut peer, &image, 1).await;
    take(&mut peer, id, &image, 1, 0, 1_000).await;
    let paused = bench
        .until(&["update", "show", &update], |update| {
            update["reason"] == "max_bytes"
        })
        .await;
    assert!(
        paused["waiting_for"]
            .as_str()
            .unwrap()
            .contains("--max-bytes"),
        "{paused}"
    );
    bench.json(&["update", "abandon", &update]).await;
    drop(peer);
    bench.offline("lamp-1").await;

    // A board that has not both of them is offered neither.
    let mut hello = hello();
    hello.components[0].digest_from = DigestFrom::BOOTED;
    let (update, _) = pushed(&bench, &image).await;
    let mut peer = Peer::greet_as(gateway, &key, hello).await;
    let ended = bench.reaches(&update, "declined").await;
    assert_eq!(
        (&ended["reason"], &ended["detail"]),
        (
            &json!("wrong_component"),
            &json!("the board has no component 1")
        ),
        "{ended}"
    );
    peer.alive().await;

    // One that runs both already is sent nothing.
    drop(peer);
    bench.offline("lamp-1").await;
    let runs = board(|place, component| component.digest = image.digest(place));
    let mut peer = Peer::greet_as(gateway, &key, runs).await;
    let pushed = bench.push("lamp-1", &image.name, &[]).await.confirmed();
    assert_eq!(pushed["reason"], "already_running", "{pushed}");
    peer.alive().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_warns_for_each_component_that_cannot_be_taken_back() {
    let (bench, key, image) = bench().await;
    let (update, _) = pushed(&bench, &image).await;
    let shown = bench.json(&["update", "show", &update]).await;
    assert_eq!(
        (&shown["revert"], &shown["warning"]),
        (&Value::Null, &Value::Null)
    );
    let risky = board(|place, component| {
        component.revert = [Revert::NONE, Revert::BY_IMAGE][place];
    });
    let mut peer = Peer::greet_as(bench.site.listen(), &key, risky).await;
    asked(&mut peer, &image, 0).await;
    let again = bench
        .run(&["push", "lamp-1", &image.name, "--no-wait"])
        .await;
    let warnings: Vec<&str> = again
        .stderr
        .lines()
        .filter_map(|line| line.strip_prefix("Warning: "))
        .collect();
    assert_eq!(warnings.len(), 2, "{}", again.stderr);
    assert!(warnings[0].starts_with("Component 1 of lamp-1 keeps no older image"));
    assert!(warnings[1].starts_with("On component 0 of lamp-1 only the new image"));
    let shown = bench.json(&["update", "show", &update]).await;
    assert_eq!(shown["warning"], warnings.join(" ").as_str(), "{shown}");
    assert_eq!(shown["revert"], "none");
    let reverts = (
        &shown["entries"][0]["revert"],
        &shown["entries"][1]["revert"],
    );
    assert_eq!(reverts, (&json!("none"), &json!("by_image")));
}
