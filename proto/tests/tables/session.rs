//! The gateway's session.

use dialhome_proto::code::{ByeReason, Phase, Reason, Statement};
use dialhome_proto::frame::{
    Accept, Ack, Bye, Decline, Defer, DeviceFrame, GatewaysStored, KeyStored, LogPart, Nack,
    Output, Ping, Pong, Progress, Report, Unsupported,
};
use dialhome_proto::gateway::{Due, Session, Verdict};
use dialhome_proto::id::{Digest, Handle, UpdateId};
use dialhome_proto::link::{Records, TransportKeys};
use dialhome_proto::time::Millis;

const UPDATE: UpdateId = UpdateId([1; 8]);

fn frames() -> Vec<(&'static str, DeviceFrame<'static>)> {
    let hello = crate::board::hello(|_| {});
    let bad = crate::board::hello(|hello| hello.receive_buffer = 100);
    let accept = Accept {
        update: UPDATE,
        image_offset: 0,
        prefix: Digest([0; 32]),
        payload_offset: 0,
        limit: 0,
        commit_ms: 0,
    };
    vec![
        ("Hello", hello.into()),
        ("Hello that contradicts itself", bad.into()),
        ("Ping", Ping { nonce: 7 }.into()),
        ("Pong", Pong { nonce: 7 }.into()),
        ("Unsupported", Unsupported { number: 0x70 }.into()),
        ("Accept", accept.into()),
        (
            "Defer",
            Defer {
                update: UPDATE,
                reason: Reason::BUSY,
                for_s: 1,
            }
            .into(),
        ),
        (
            "Decline",
            Decline {
                update: UPDATE,
                reason: Reason::BUSY,
            }
            .into(),
        ),
        (
            "Progress",
            Progress {
                update: UPDATE,
                phase: Phase::PROVING,
                done: 0,
                total: 1,
            }
            .into(),
        ),
        (
            "Ack",
            Ack {
                committed: 0,
                limit: 0,
            }
            .into(),
        ),
        (
            "Nack",
            Nack {
                offset: 0,
                reason: Reason::CRC,
            }
            .into(),
        ),
        (
            "Report",
            Report {
                sequence: 1,
                update: UPDATE,
                component: 0,
                state: Statement::CANCELED,
                reason: Reason::CANCELED,
                detail: "",
            }
            .into(),
        ),
        (
            "KeyStored",
            KeyStored {
                sequence: 1,
                handle: Handle([0; 8]),
            }
            .into(),
        ),
        (
            "GatewaysStored",
            GatewaysStored {
                sequence: 1,
                epoch: 1,
            }
            .into(),
        ),
        (
            "Output",
            Output {
                sequence: 1,
                part: 1,
                parts: 1,
                text: "",
            }
            .into(),
        ),
        (
            "LogPart",
            LogPart {
                request: 1,
                part: 1,
                parts: 1,
                text: "",
            }
            .into(),
        ),
        (
            "Bye",
            Bye {
                reason: ByeReason::SLEEP,
                back_in_s: 60,
            }
            .into(),
        ),
    ]
}

fn session(greeted: bool) -> Session {
    let keys = TransportKeys {
        send: [1; 32],
        receive: [2; 32],
    };
    let mut session = Session::new(Records::new(&keys), Millis(0));
    if greeted {
        let hello = crate::board::hello(|_| {}).into();
        session
            .handle_frame(&hello, Millis(0))
            .expect("it is right");
    }
    session
}

fn after_frame(greeted: bool, frame: &DeviceFrame<'_>) -> String {
    match session(greeted).handle_frame(frame, Millis(1)) {
        Ok(Verdict::Greet) => "takes over, Welcome, then *Open*".to_owned(),
        Ok(Verdict::Pong(_)) => "Pong".to_owned(),
        Ok(Verdict::Ponged(_)) => "the check is answered".to_owned(),
        Ok(Verdict::Deliver) => "to the delivery".to_owned(),
        Ok(Verdict::Statement) => "stored, to the delivery, Settled".to_owned(),
        Ok(Verdict::Keep) => "kept for its Report".to_owned(),
        Ok(Verdict::Log) => "the request for the log is answered".to_owned(),
        Ok(Verdict::Leave) => "the board has left: ends".to_owned(),
        Ok(Verdict::Ignore) => "ignored".to_owned(),
        Err(fault) => format!("Close(`{}`)", fault.0),
    }
}

/// What the clock does, when nothing else happens.
fn after_time(greeted: bool, due: Due, in_transfer: bool) -> String {
    let mut session = session(greeted);
    let mut seen = Millis(0);
    for _ in 0..1_000_000 {
        let (at, what) = session.deadline();
        seen = at.max(seen);
        if what == due || !in_transfer {
            if what != due {
                return "cannot be".to_owned();
            }
            return match session.handle_timeout(at, in_transfer) {
                Ok(()) => "waits on: the delivery has its own deadline".to_owned(),
                Err(fault) => format!("Close(`{}`)", fault.0),
            };
        }
        if session.handle_timeout(at, in_transfer).is_err() {
            return "cannot be".to_owned();
        }
    }
    panic!("no end at {seen:?}");
}

pub(crate) fn table() -> String {
    let mut rows: Vec<(&str, Vec<String>)> = frames()
        .iter()
        .map(|(name, frame)| {
            (
                *name,
                vec![after_frame(false, frame), after_frame(true, frame)],
            )
        })
        .collect();
    for (name, due, in_transfer) in [
        ("HELLO_MS since the handshake", Due::Hello, false),
        ("1.5 ping intervals of silence", Due::Life, false),
        ("the same, while a delivery has a deadline", Due::Life, true),
        ("SESSION_MS_MAX since the handshake", Due::Age, true),
    ] {
        rows.push((
            name,
            vec![
                after_time(false, due, in_transfer),
                after_time(true, due, in_transfer),
            ],
        ));
    }
    crate::table(&["Fresh", "Open"], &rows)
}
