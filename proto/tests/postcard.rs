//! Frames are postcard's encoding, byte for byte (spec/frames.md section 1), although
//! boards read and write it without that crate: whatever this side decodes, postcard
//! encodes to the same bytes.

use dialhome_proto::frame::{DeviceFrame, GatewayFrame};
use proptest::prelude::*;
use serde_json::Value;

/// The plaintexts of the vectors that are frames.
fn good() -> Vec<Vec<u8>> {
    fn collect(value: &Value, into: &mut Vec<Vec<u8>>) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| collect(value, into)),
            Value::Object(fields) => fields.values().for_each(|value| collect(value, into)),
            Value::String(text) if text.len() >= 2 && text.len() % 2 == 0 => {
                let bytes: Option<Vec<u8>> = (0..text.len())
                    .step_by(2)
                    .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
                    .collect();
                into.extend(bytes.filter(|bytes| is_frame(bytes)));
            }
            _ => {}
        }
    }
    let vectors = include_str!("../../spec/vectors/frames.json");
    let mut found = Vec::new();
    collect(&serde_json::from_str(vectors).expect("JSON"), &mut found);
    found
}

fn is_frame(bytes: &[u8]) -> bool {
    DeviceFrame::decode(bytes).is_ok() || GatewayFrame::decode(bytes).is_ok()
}

macro_rules! by_postcard {
    ($frame:expr, $side:ident { $($name:ident)+ }) => {
        match $frame { $($side::$name(body) => postcard::to_allocvec(body),)+ }.expect("a vector grows")
    };
}

/// Both encodings of what the bytes decode to, as frames of either direction; how many.
fn compare(bytes: &[u8]) -> usize {
    let mut buffer = vec![0; bytes.len() + 64];
    let mut frames = 0;
    if let Ok(frame) = DeviceFrame::decode(bytes) {
        let body = by_postcard!(&frame, DeviceFrame {
            Ping Pong Unsupported Hello Accept Defer Decline Progress Ack Nack Report
            KeyStored GatewaysStored Bye Output LogPart
        });
        let len = frame.encode(&mut buffer).expect("room");
        assert_eq!(buffer[1..len], body, "{frame:?}");
        frames += 1;
    }
    if let Ok(frame) = GatewayFrame::decode(bytes) {
        let body = by_postcard!(&frame, GatewayFrame {
            Ping Pong Unsupported Welcome Offer Resume Chunk Activate Cancel Confirm Settled
            NewKey SetGateways Keepalive Close ReadLog
        });
        let len = frame.encode(&mut buffer).expect("room");
        assert_eq!(buffer[1..len], body, "{frame:?}");
        frames += 1;
    }
    frames
}

#[test]
fn frames_of_the_vectors_are_postcard_s() {
    let good = good();
    let numbers: std::collections::BTreeSet<u8> = good.iter().map(|bytes| bytes[0]).collect();
    assert!(
        numbers.len() >= 29,
        "a vector for every frame: {numbers:x?}"
    );
    for bytes in &good {
        assert!(compare(bytes) > 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    /// Changed bytes that are still a frame are still postcard's, in as few bytes.
    #[test]
    fn changed_frames_are_postcard_s(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let good = good();
        let mut bytes = which.get(&good).clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        compare(&bytes);
    }
}
