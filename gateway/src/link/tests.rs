//! Board against gateway: `noise-protocol` with portable primitives on one side,
//! `snow` with AWS-LC on the other, and the gateway's side against spec/vectors
//! (the board's is in `device-client/tests/link_vectors.rs`).

use std::cell::Cell;

use dialhome_device::crypto::{HandshakeFault, Initiator, SoftAead};
use dialhome_proto::code;
use dialhome_proto::id::{Handle, decode_hex};
use dialhome_proto::limits::{RECORDS_MAX, REPLAY_EPHEMERALS};
use dialhome_proto::link::{
    Aead, DeviceKey, FIRST_FLIGHT_LEN, MESSAGE_1_LEN, PREAMBLE_LEN, Preamble, RecordFault, Records,
    TransportKeys, record_len,
};
use proptest::prelude::*;
use serde_json::Value;

use super::{Accepted, LcAead, Rejected, Responder};

thread_local! {
    static X25519_DONE: Cell<u32> = const { Cell::new(0) };
}

/// Called by the resolver for every scalar multiplication of this thread.
pub(super) fn count_x25519() {
    X25519_DONE.set(X25519_DONE.get() + 1);
}

/// How many scalar multiplications the gateway does in `work`.
fn x25519_in<T>(work: impl FnOnce() -> T) -> (T, u32) {
    let before = X25519_DONE.get();
    let result = work();
    (result, X25519_DONE.get() - before)
}

fn key(n: u8) -> DeviceKey {
    DeviceKey::new([n; 32])
}

fn dial(key: &DeviceKey, ephemeral: [u8; 32]) -> (Initiator, [u8; FIRST_FLIGHT_LEN]) {
    let mut flight = [0; FIRST_FLIGHT_LEN];
    let initiator = Initiator::start(key, ephemeral, &mut flight);
    (initiator, flight)
}

/// What the gateway does with a first flight whose preamble it could read.
fn answer(
    responder: &Responder,
    flight: &[u8; FIRST_FLIGHT_LEN],
    key: Option<&DeviceKey>,
) -> Result<Accepted, Rejected> {
    let (preamble, message_1) = split(flight);
    responder.check(&preamble, &message_1, key)?.reply()
}

fn split(flight: &[u8; FIRST_FLIGHT_LEN]) -> (Preamble, [u8; MESSAGE_1_LEN]) {
    let (preamble, message_1) = flight.split_first_chunk::<PREAMBLE_LEN>().unwrap();
    let preamble = Preamble::decode(preamble).expect("a preamble of this version");
    (preamble, message_1.try_into().unwrap())
}

/// Both ends of a session after a handshake.
fn session() -> (Records, Records) {
    let key = key(7);
    let (initiator, flight) = dial(&key, [9; 32]);
    let accepted = answer(&Responder::default(), &flight, Some(&key)).unwrap();
    let board = initiator.finish(&accepted.answer).unwrap();
    (Records::new(&board), Records::new(&accepted.keys))
}

fn seal(records: &mut Records, aead: &mut impl Aead, plaintext: &[u8]) -> Vec<u8> {
    let mut buf = vec![0; plaintext.len() + 18];
    buf[2..2 + plaintext.len()].copy_from_slice(plaintext);
    let len = records.seal(aead, plaintext.len(), &mut buf).unwrap();
    assert_eq!(len, buf.len());
    buf
}

#[test]
fn both_ends_get_the_same_keys_each_for_its_direction() {
    let key = key(7);
    let (initiator, flight) = dial(&key, [9; 32]);
    let accepted = answer(&Responder::default(), &flight, Some(&key)).unwrap();
    assert_eq!(Initiator::needed(&accepted.answer), 0);
    let board = initiator.finish(&accepted.answer).unwrap();
    assert_eq!(board.send, accepted.keys.receive);
    assert_eq!(board.receive, accepted.keys.send);
    assert_ne!(board.send, board.receive);
}

#[test]
fn the_same_board_gets_other_keys_each_time() {
    let (key, responder) = (key(7), Responder::default());
    let (_, first) = dial(&key, [1; 32]);
    let (_, second) = dial(&key, [2; 32]);
    let first = answer(&responder, &first, Some(&key)).unwrap();
    let second = answer(&responder, &second, Some(&key)).unwrap();
    assert_ne!(first.keys.send, second.keys.send);
    assert_ne!(first.answer, second.answer);
}

#[test]
fn thousands_of_records_go_both_ways() {
    let (mut board, mut gateway) = session();
    for n in 0..3000_u32 {
        let plaintext: Vec<u8> = (0..=n % 1000).map(|i| (i ^ n).to_le_bytes()[0]).collect();

        let mut up = seal(&mut board, &mut SoftAead, &plaintext);
        let len = record_len([up[0], up[1]], 17, 1024).unwrap();
        let opened = gateway.open(&mut LcAead, &mut up[2..2 + len]).unwrap();
        assert_eq!(opened, plaintext);

        let mut down = seal(&mut gateway, &mut LcAead, &plaintext);
        let len = record_len([down[0], down[1]], 17, 1088).unwrap();
        let opened = board.open(&mut SoftAead, &mut down[2..2 + len]).unwrap();
        assert_eq!(opened, plaintext);
    }
    assert_eq!((board.sent(), board.received()), (3000, 3000));
    assert_eq!((gateway.sent(), gateway.received()), (3000, 3000));
}

#[test]
fn a_window_of_records_is_sealed_into_one_buffer() {
    let (mut board, mut gateway) = session();
    let mut window = vec![0; 8 * (1038 + 18)];
    let mut filled = 0;
    for n in 0..8 {
        let room = &mut window[filled..];
        room[2..1040].fill(n);
        filled += gateway.seal(&mut LcAead, 1038, room).unwrap();
    }
    assert_eq!(filled, window.len());
    let mut rest = &mut window[..];
    for n in 0..8 {
        let len = record_len([rest[0], rest[1]], 17, 1088).unwrap();
        let (record, more) = rest.split_at_mut(2 + len);
        assert_eq!(
            board.open(&mut SoftAead, &mut record[2..]).unwrap(),
            [n; 1038]
        );
        rest = more;
    }
    assert!(rest.is_empty());
}

#[test]
fn a_changed_bit_anywhere_in_the_first_flight_is_refused_without_x25519() {
    let (key, responder) = (key(7), Responder::default());
    let (_, flight) = dial(&key, [9; 32]);
    // Bytes 0 to 5 make another preamble, which is refused before this; the
    // handle is part of the prologue, and so of what the tag covers.
    for bit in 6 * 8..FIRST_FLIGHT_LEN * 8 {
        let mut bad = flight;
        bad[bit / 8] ^= 1 << (bit % 8);
        let (result, cost) = x25519_in(|| answer(&responder, &bad, Some(&key)));
        assert_eq!(result.unwrap_err(), Rejected::WrongKey, "bit {bit}");
        assert_eq!(cost, 0, "bit {bit}");
    }
    assert!(answer(&responder, &flight, Some(&key)).is_ok());
}

#[test]
fn a_changed_version_or_suite_does_not_pass_the_tag_even_where_the_preamble_would() {
    let (key, responder) = (key(7), Responder::default());
    let (_, flight) = dial(&key, [9; 32]);
    let (preamble, message_1) = split(&flight);
    for changed in [
        Preamble {
            version: 2,
            ..preamble
        },
        Preamble {
            suite: 2,
            ..preamble
        },
    ] {
        let fault = responder
            .check(&changed, &message_1, Some(&key))
            .unwrap_err();
        assert_eq!(fault, Rejected::WrongKey);
    }
}

#[test]
fn a_changed_bit_anywhere_in_the_answer_is_noticed_by_the_board() {
    let key = key(7);
    let (_, flight) = dial(&key, [9; 32]);
    let accepted = answer(&Responder::default(), &flight, Some(&key)).unwrap();
    for bit in 0..accepted.answer.len() * 8 {
        let mut bad = accepted.answer;
        bad[bit / 8] ^= 1 << (bit % 8);
        let (initiator, _) = dial(&key, [9; 32]);
        let fault = if bit < 8 {
            HandshakeFault::Malformed
        } else {
            HandshakeFault::BadTag
        };
        assert_eq!(initiator.finish(&bad).unwrap_err(), fault, "bit {bit}");
    }
}

#[test]
fn a_changed_bit_anywhere_in_a_record_is_a_bad_record_and_moves_no_counter() {
    let (mut board, mut gateway) = session();
    let good = seal(&mut board, &mut SoftAead, b"\x01\x2a");
    for bit in 16..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let result = gateway.open(&mut LcAead, &mut bad[2..]);
        assert_eq!(result, Err(RecordFault::BadRecord), "bit {bit}");
    }
    assert_eq!(gateway.received(), 0);
    let mut good = good;
    assert_eq!(
        gateway.open(&mut LcAead, &mut good[2..]).unwrap(),
        b"\x01\x2a"
    );
}

#[test]
fn a_record_twice_out_of_order_or_reflected_is_a_bad_record() {
    let (mut board, mut gateway) = session();
    let first = seal(&mut board, &mut SoftAead, b"first");
    let second = seal(&mut board, &mut SoftAead, b"second");
    let open = |records: &mut Records, record: &[u8]| {
        records
            .open(&mut LcAead, &mut record[2..].to_vec())
            .map(|plaintext| plaintext.to_vec())
    };
    assert_eq!(open(&mut gateway, &second), Err(RecordFault::BadRecord));
    assert_eq!(open(&mut gateway, &first).unwrap(), b"first");
    assert_eq!(open(&mut gateway, &first), Err(RecordFault::BadRecord));
    assert_eq!(open(&mut gateway, &second).unwrap(), b"second");
    assert_eq!(open(&mut board, &first), Err(RecordFault::BadRecord));
}

#[test]
fn a_wrong_key_and_an_unknown_handle_are_refused_alike_without_x25519() {
    let responder = Responder::default();
    let (_, flight) = dial(&key(7), [9; 32]);
    for known in [Some(key(8)), None] {
        let (result, cost) = x25519_in(|| answer(&responder, &flight, known.as_ref()));
        let fault = result.unwrap_err();
        assert_eq!(fault, Rejected::WrongKey);
        assert_eq!(fault.code(), code::Refusal::REFUSED);
        assert_eq!(cost, 0);
    }
}

#[test]
fn a_first_message_that_passes_costs_x25519_only_in_the_reply() {
    let (key, responder) = (key(7), Responder::default());
    let (_, flight) = dial(&key, [9; 32]);
    let (preamble, message_1) = split(&flight);
    let (checked, cost) = x25519_in(|| responder.check(&preamble, &message_1, Some(&key)));
    let checked = checked.unwrap();
    assert_eq!(checked.handle(), key.handle());
    assert_eq!(cost, 0);
    let (accepted, cost) = x25519_in(|| checked.reply());
    assert!(accepted.is_ok());
    assert_eq!(cost, 2);
}

#[test]
fn a_replayed_first_message_is_refused_without_x25519() {
    let (key, responder) = (key(7), Responder::default());
    let flights: Vec<_> = (0..u8::try_from(REPLAY_EPHEMERALS).unwrap())
        .map(|n| dial(&key, [n + 1; 32]).1)
        .collect();
    for flight in &flights {
        assert!(answer(&responder, flight, Some(&key)).is_ok());
    }
    for flight in &flights {
        let (result, cost) = x25519_in(|| answer(&responder, flight, Some(&key)));
        let fault = result.unwrap_err();
        assert_eq!(fault, Rejected::Replayed);
        assert_eq!(fault.code(), code::Refusal::REFUSED);
        assert_eq!(cost, 0);
    }
}

#[test]
fn a_message_with_a_wrong_tag_is_not_remembered() {
    let (key, responder) = (key(7), Responder::default());
    let (_, flight) = dial(&key, [9; 32]);
    let mut bad = flight;
    bad[FIRST_FLIGHT_LEN - 1] ^= 1;
    assert_eq!(
        answer(&responder, &bad, Some(&key)).unwrap_err(),
        Rejected::WrongKey
    );
    assert!(
        answer(&responder, &flight, Some(&key)).is_ok(),
        "the board's own dial still passes"
    );
}

#[test]
fn a_replayed_first_message_after_a_restart_gives_no_session_to_who_replays_it() {
    let key = key(7);
    let (_, flight) = dial(&key, [9; 32]);
    let first = answer(&Responder::default(), &flight, Some(&key)).unwrap();
    let again = answer(&Responder::default(), &flight, Some(&key)).unwrap();
    assert_ne!(
        first.keys.receive, again.keys.receive,
        "the gateway's ephemeral key is new"
    );
    // The recorded first record does not open in the replayed session.
    let (initiator, _) = dial(&key, [9; 32]);
    let mut board = Records::new(&initiator.finish(&first.answer).unwrap());
    let hello = seal(&mut board, &mut SoftAead, b"\x10hello");
    let mut gateway = Records::new(&again.keys);
    let result = gateway
        .open(&mut LcAead, &mut hello[2..].to_vec())
        .map(|_| ());
    assert_eq!(result, Err(RecordFault::BadRecord));
}

#[test]
fn a_board_does_not_take_the_answer_of_a_gateway_without_its_key() {
    let (ours, theirs) = (key(7), key(8));
    let (initiator, flight) = dial(&ours, [9; 32]);
    // The impostor answers the best that it can: as if the handle's key were its own.
    let (_, with_its_key) = dial(&theirs, [9; 32]);
    let accepted = answer(&Responder::default(), &with_its_key, Some(&theirs)).unwrap();
    assert_ne!(flight, with_its_key);
    assert_eq!(
        initiator.finish(&accepted.answer).unwrap_err(),
        HandshakeFault::BadTag
    );
}

#[test]
fn the_last_record_number_is_used_and_none_after_it() {
    let (mut board, mut gateway) = session();
    board.set_counters_for_test(RECORDS_MAX - 1, 0);
    gateway.set_counters_for_test(0, RECORDS_MAX - 1);
    assert_eq!((board.remaining(), gateway.remaining()), (1, 1));
    let mut last = seal(&mut board, &mut SoftAead, b"last");
    assert_eq!(gateway.open(&mut LcAead, &mut last[2..]).unwrap(), b"last");
    assert_eq!((board.remaining(), gateway.remaining()), (0, 0));
    assert_eq!(
        board.seal(&mut SoftAead, 4, &mut [0; 64]),
        Err(RecordFault::RecordLimit)
    );
    assert_eq!(
        gateway.open(&mut LcAead, &mut [0; 32]).map(|_| ()),
        Err(RecordFault::RecordLimit)
    );
    assert_eq!(board.sent(), RECORDS_MAX);
}

#[test]
fn what_does_not_fit_is_not_sealed_and_uses_no_number() {
    let (mut board, _) = session();
    assert_eq!(
        board.seal(&mut SoftAead, 0, &mut [0; 64]),
        Err(RecordFault::TooShort)
    );
    assert_eq!(
        board.seal(&mut SoftAead, 47, &mut [0; 64]),
        Err(RecordFault::TooLong)
    );
    assert_eq!(
        board.seal(&mut SoftAead, 1, &mut []),
        Err(RecordFault::TooLong)
    );
    assert_eq!(
        board.seal(&mut SoftAead, usize::MAX, &mut [0; 64]),
        Err(RecordFault::TooLong)
    );
    let mut large = vec![0; 70_000];
    assert_eq!(
        board.seal(&mut SoftAead, 65_520, &mut large),
        Err(RecordFault::TooLong)
    );
    assert_eq!(board.sent(), 0);
    assert_eq!(board.seal(&mut SoftAead, 46, &mut [0; 64]), Ok(64));
}

const HANDSHAKE: &str = include_str!("../../../spec/vectors/handshake.json");
const RECORDS: &str = include_str!("../../../spec/vectors/records.json");

fn cases(document: &str, list: &str) -> Vec<Value> {
    let document: Value = serde_json::from_str(document).unwrap();
    let list = document[list].as_array().unwrap().clone();
    assert!(!list.is_empty());
    list
}

fn bytes(case: &Value, field: &str) -> Vec<u8> {
    let text = case[field]
        .as_str()
        .unwrap_or_else(|| panic!("{field} in {case}"));
    let mut out = vec![0; text.len() / 2];
    assert!(decode_hex(text, &mut out), "{field} in {case}");
    out
}

fn array<const N: usize>(case: &Value, field: &str) -> [u8; N] {
    bytes(case, field)
        .try_into()
        .unwrap_or_else(|_| panic!("{field} in {case}"))
}

#[test]
fn handshakes_are_those_of_the_vectors() {
    for case in cases(HANDSHAKE, "cases") {
        let key = DeviceKey::new(array(&case, "device_key"));
        let preamble = Preamble::decode(&array(&case, "prologue")).unwrap();
        assert_eq!(preamble.handle, Handle(array(&case, "handle")));
        let accepted = Responder::default()
            .check_with_ephemeral(
                &preamble,
                &array(&case, "message_1"),
                &key,
                &array(&case, "gateway_ephemeral"),
            )
            .and_then(super::Checked::reply)
            .unwrap();
        assert_eq!(accepted.answer, array(&case, "answer"), "{}", case["name"]);
        assert_eq!(
            accepted.keys.receive,
            array(&case, "board_to_gateway"),
            "{}",
            case["name"]
        );
        assert_eq!(
            accepted.keys.send,
            array(&case, "gateway_to_board"),
            "{}",
            case["name"]
        );
    }
}

#[test]
fn bad_first_messages_are_refused_as_in_the_vectors() {
    let base = &cases(HANDSHAKE, "cases")[0];
    let key = DeviceKey::new(array(base, "device_key"));
    let preamble = Preamble::new(key.handle());
    let mut weak = 0;
    for case in cases(HANDSHAKE, "invalid_first") {
        let fault = Responder::default()
            .check(&preamble, &array(&case, "message_1"), Some(&key))
            .and_then(super::Checked::reply)
            .unwrap_err();
        assert_eq!(fault.code().to_string(), case["error"], "{}", case["name"]);
        weak += u32::from(fault == Rejected::WeakEphemeral);
    }
    assert_eq!(
        weak, 3,
        "those with a right tag and an ephemeral key of small order"
    );
}

fn records_at(key: [u8; 32], number: u64) -> Records {
    let mut records = Records::new(&TransportKeys {
        send: key,
        receive: key,
    });
    records.set_counters_for_test(number, number);
    records
}

#[test]
fn records_are_those_of_the_vectors_both_ways() {
    for case in cases(RECORDS, "cases") {
        let (plaintext, record) = (bytes(&case, "plaintext"), bytes(&case, "record"));
        let (key, number) = (array(&case, "key"), case["number"].as_u64().unwrap());
        let mut sealed = seal(&mut records_at(key, number), &mut LcAead, &plaintext);
        assert_eq!(sealed, record, "{}", case["name"]);
        let mut records = records_at(key, number);
        let opened = records.open(&mut LcAead, &mut sealed[2..]).unwrap();
        assert_eq!(opened, plaintext, "{}", case["name"]);
    }
}

#[test]
fn bad_records_get_the_fault_of_the_vectors() {
    for case in cases(RECORDS, "invalid") {
        let mut record = bytes(&case, "record");
        let max = usize::try_from(case["max"].as_u64().unwrap()).unwrap();
        let mut records = records_at(array(&case, "key"), case["number"].as_u64().unwrap());
        let fault = match record_len([record[0], record[1]], 17, max) {
            Ok(_) => records.open(&mut LcAead, &mut record[2..]).unwrap_err(),
            Err(fault) => fault,
        };
        assert_eq!(fault.name(), case["error"], "{}", case["name"]);
    }
}

proptest! {
    #[test]
    fn both_aeads_make_the_same_bytes(
        key: [u8; 32],
        number: u64,
        plaintext in proptest::collection::vec(any::<u8>(), 0..2048),
    ) {
        let mut soft = plaintext.clone();
        soft.extend_from_slice(&[0; 16]);
        let mut lc = soft.clone();
        SoftAead.seal(&key, number, &mut soft);
        LcAead.seal(&key, number, &mut lc);
        prop_assert_eq!(&soft, &lc);
        prop_assert!(SoftAead.open(&key, number, &mut lc));
        prop_assert!(LcAead.open(&key, number, &mut soft));
        prop_assert_eq!(&soft[..plaintext.len()], &plaintext[..]);
        prop_assert_eq!(&lc[..plaintext.len()], &plaintext[..]);
    }

    #[test]
    fn every_key_and_ephemeral_gives_a_session(key: [u8; 32], ephemeral: [u8; 32]) {
        let key = DeviceKey::new(key);
        let (initiator, flight) = dial(&key, ephemeral);
        let accepted = answer(&Responder::default(), &flight, Some(&key)).unwrap();
        let keys = initiator.finish(&accepted.answer).unwrap();
        prop_assert_eq!(keys.send, accepted.keys.receive);
        prop_assert_eq!(keys.receive, accepted.keys.send);
    }

    #[test]
    fn no_bytes_of_a_stranger_pass_or_panic(
        handle: [u8; 8],
        message in proptest::collection::vec(any::<u8>(), MESSAGE_1_LEN),
        reply in proptest::collection::vec(any::<u8>(), 0..64),
        accept: bool,
    ) {
        let (key, responder) = (key(7), Responder::default());
        let message: [u8; MESSAGE_1_LEN] = message.try_into().unwrap();
        let preamble = Preamble::new(Handle(handle));
        let (result, cost) = x25519_in(|| responder.check(&preamble, &message, Some(&key)));
        prop_assert_eq!(result.unwrap_err(), Rejected::WrongKey);
        prop_assert_eq!(cost, 0);

        let mut reply = reply;
        if accept && let Some(first) = reply.first_mut() {
            *first = 0xD2;
        }
        let (initiator, _) = dial(&key, [9; 32]);
        prop_assert!(initiator.finish(&reply).is_err());
    }

    #[test]
    fn a_header_is_a_length_between_the_bounds(header: [u8; 2], max in 17_usize..=16_384) {
        let len = usize::from(u16::from_be_bytes(header));
        prop_assert_eq!(record_len(header, 17, max).ok(), (17..=max).contains(&len).then_some(len));
    }
}
