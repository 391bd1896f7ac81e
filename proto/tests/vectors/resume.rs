//! Resume proofs: what the gateway's machine does about a board's Accept.

use super::{at_least, bytes, number, text, vectors};
use dialhome_proto::code::{BootReason, CloseCode, DigestFrom, Revert};
use dialhome_proto::frame::{Accept, Claim, Component, DeviceFrame, RESTART};
use dialhome_proto::gateway::{Command, Counters, Delivery, Part, Plan, State};
use dialhome_proto::id::{Digest, UpdateId};
use dialhome_proto::time::Millis;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

const UPDATE: UpdateId = UpdateId([0x01, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xEF]);
const MANIFEST: Digest = Digest([7; 32]);

/// The bytes that the vectors' generator describes.
fn made(of: &Value) -> Vec<u8> {
    let size: usize = number(&of["size"]);
    let blocks = (0_u32..).flat_map(|block| {
        let hasher = Sha256::new().chain_update(text(&of["label"]));
        hasher.chain_update(block.to_be_bytes()).finalize()
    });
    blocks.take(size).collect()
}

/// What the slot holds up to `len`: erased flash behind what was written.
fn slot(of: &Value, len: usize) -> Vec<u8> {
    let mut slot = made(of);
    if let Some(flipped) = of["flipped"].as_u64() {
        slot[usize::try_from(flipped).unwrap()] ^= 1;
    }
    slot.resize(len.max(slot.len()), 0xFF);
    slot.truncate(len);
    slot
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

/// A delivery that has sent its Resume.
fn asked(image: &[u8]) -> Delivery {
    let size = u32::try_from(image.len()).unwrap();
    let plan = Plan {
        update: UPDATE,
        manifest: MANIFEST,
        parts: [Part {
            component: 0,
            image: sha256(image),
            size,
        }]
        .into_iter()
        .collect(),
        downgrade: false,
    };
    let component = Component {
        component: 0,
        version: "",
        counter: 0,
        floor: 0,
        digest: Digest([0; 32]),
        digest_from: DigestFrom::UNKNOWN,
        boot_reason: BootReason::UNKNOWN,
        revert: Revert::SWAP,
        slot_size: 1 << 20,
        write_unit: 1,
        erase_unit: 1,
        window: 16_384,
        trial: None,
        claim: Some(Claim {
            manifest: MANIFEST,
            committed: 1,
            staged: false,
        }),
    };
    let mut delivery = Delivery::start(plan, &[component], 1088, Counters::default(), false);
    loop {
        match delivery.poll_command(Millis(0)) {
            Some(Command::SendResume { .. }) => return delivery,
            Some(Command::Record(_)) => delivery.recorded(),
            other => panic!("{other:?} before Resume"),
        }
    }
}

/// Commands until there is none, records taken as stored.
fn next_command(delivery: &mut Delivery, states: &mut Vec<State>) -> Option<Command> {
    loop {
        match delivery.poll_command(Millis(1)) {
            Some(Command::Record(record)) => {
                states.push(record.state);
                delivery.recorded();
            }
            other => return other,
        }
    }
}

/// The word of the vectors for what the gateway does.
fn outcome(image: &[u8], accept: &Accept) -> &'static str {
    let mut delivery = asked(image);
    let mut states = Vec::new();
    match delivery.handle_frame(&DeviceFrame::from(*accept), Millis(1)) {
        Err(fault) if fault.0 == CloseCode::ACK_BEYOND_SENT => return "ack_beyond_sent",
        Err(fault) => panic!("{fault:?}"),
        Ok(()) => {}
    }
    let (len, digest) = match next_command(&mut delivery, &mut states) {
        Some(Command::CheckPrefix { len, digest, .. }) => (len, digest),
        None if states.is_empty() => return "ignored",
        other => panic!("{other:?} instead of the check"),
    };
    assert_eq!((len, digest), (accept.image_offset, accept.prefix));
    let prefix = &image[..usize::try_from(len).unwrap()];
    delivery
        .handle_prefix(sha256(prefix) == digest, Millis(1))
        .expect("the Accept is sound");
    match next_command(&mut delivery, &mut states) {
        Some(Command::SendOffer { flags, .. }) => {
            assert_eq!(flags & RESTART, RESTART);
            "restart"
        }
        None if states.last() == Some(&State::Verifying) => "verify",
        // The window is shut until the board's first Ack.
        None => {
            let ack = dialhome_proto::frame::Ack {
                committed: accept.payload_offset,
                limit: accept.payload_offset + 16_384,
            };
            delivery
                .handle_frame(&DeviceFrame::from(ack), Millis(2))
                .expect("the Ack opens the window");
            match next_command(&mut delivery, &mut states) {
                Some(Command::SendChunk(range)) => {
                    assert_eq!(range.offset, accept.payload_offset);
                    "continue"
                }
                other => panic!("{other:?} instead of a chunk"),
            }
        }
        other => panic!("{other:?} after the check"),
    }
}

#[test]
fn a_right_prefix_goes_on_and_a_wrong_one_restarts() {
    let all = vectors(include_str!("../../../spec/vectors/resume.json"));
    for case in at_least(&all["cases"], 20) {
        let name = text(&case["name"]);
        let image = made(&case["image"]);
        assert_eq!(
            Some(sha256(&image)),
            Digest::from_hex(text(&case["image_sha256"])),
            "{name}"
        );
        let plaintext = bytes(&case["accept_bytes"]);
        let Ok(DeviceFrame::Accept(accept)) = DeviceFrame::decode(&plaintext) else {
            panic!("{name}: no Accept");
        };
        let offset = usize::try_from(accept.image_offset).unwrap();
        assert_eq!(
            sha256(&slot(&case["slot"], offset)),
            accept.prefix,
            "{name}"
        );
        let expected = image.get(..offset).map(sha256);
        let given = case["expected_prefix"].as_str();
        assert_eq!(given.and_then(Digest::from_hex), expected, "{name}");
        assert_eq!(outcome(&image, &accept), text(&case["then"]), "{name}");
    }
}
