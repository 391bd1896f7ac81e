//! The board's link against spec/vectors, which a program in another language
//! made from the text of the specification.
#![forbid(unsafe_code)]

use dialhome_device::crypto::{HandshakeFault, Initiator, SoftAead};
use dialhome_proto::id::decode_hex;
use dialhome_proto::limits::BOARD_RECORD_MAX;
use dialhome_proto::link::{
    DeviceKey, FIRST_FLIGHT_LEN, Preamble, PreambleFault, Records, Refusal, TransportKeys,
    record_len,
};
use serde_json::Value;

const HANDSHAKE: &str = include_str!("../../spec/vectors/handshake.json");
const RECORDS: &str = include_str!("../../spec/vectors/records.json");
const REFUSALS: &str = include_str!("../../spec/vectors/refusals.json");

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

fn number(case: &Value, field: &str) -> u64 {
    case[field]
        .as_u64()
        .unwrap_or_else(|| panic!("{field} in {case}"))
}

fn cases(document: &str, list: &str) -> Vec<Value> {
    let document: Value = serde_json::from_str(document).unwrap();
    let list = document[list].as_array().unwrap().clone();
    assert!(!list.is_empty());
    list
}

fn start(case: &Value) -> (Initiator, [u8; FIRST_FLIGHT_LEN]) {
    let mut flight = [0; FIRST_FLIGHT_LEN];
    let key = DeviceKey::new(array(case, "device_key"));
    let initiator = Initiator::start(&key, array(case, "board_ephemeral"), &mut flight);
    (initiator, flight)
}

#[test]
fn derived_keys_are_those_of_the_vectors() {
    for case in cases(HANDSHAKE, "cases") {
        let key = DeviceKey::new(array(&case, "device_key"));
        assert_eq!(key.handle().0, array(&case, "handle"), "{}", case["name"]);
        assert_eq!(
            *key.noise_psk(),
            array(&case, "noise_psk"),
            "{}",
            case["name"]
        );
        assert_eq!(
            *key.quic_proof(),
            array(&case, "quic_proof"),
            "{}",
            case["name"]
        );
    }
}

#[test]
fn handshakes_are_those_of_the_vectors() {
    for case in cases(HANDSHAKE, "cases") {
        let (initiator, flight) = start(&case);
        assert_eq!(flight, array(&case, "first_flight"), "{}", case["name"]);
        let answer = bytes(&case, "answer");
        assert_eq!(Initiator::needed(&answer), 0);
        let keys = initiator.finish(&answer).unwrap();
        assert_eq!(
            keys.send,
            array(&case, "board_to_gateway"),
            "{}",
            case["name"]
        );
        assert_eq!(
            keys.receive,
            array(&case, "gateway_to_board"),
            "{}",
            case["name"]
        );
    }
}

#[test]
fn bad_answers_get_the_fault_of_the_vectors() {
    let base = &cases(HANDSHAKE, "cases")[0];
    for case in cases(HANDSHAKE, "invalid_answer") {
        let fault = match case["error"].as_str().unwrap() {
            "bad_tag" => HandshakeFault::BadTag,
            "malformed" => HandshakeFault::Malformed,
            other => panic!("unknown error {other}"),
        };
        let (initiator, _) = start(base);
        let found = initiator.finish(&bytes(&case, "answer")).unwrap_err();
        assert_eq!(found, fault, "{}", case["name"]);
    }
}

#[test]
fn preambles_are_refused_as_in_the_vectors() {
    for case in cases(HANDSHAKE, "cases") {
        let preamble = Preamble::decode(&array(&case, "prologue")).unwrap();
        assert_eq!(preamble.handle.0, array(&case, "handle"));
    }
    for case in cases(HANDSHAKE, "invalid_preamble") {
        let found = match Preamble::decode(&array(&case, "bytes")).unwrap_err() {
            PreambleFault::NotMagic => "not_magic",
            PreambleFault::Version(_) => "version",
            PreambleFault::Suite(_) => "suite",
        };
        assert_eq!(found, case["error"], "{}", case["name"]);
    }
}

#[test]
fn refusals_are_those_of_the_vectors() {
    for case in cases(REFUSALS, "cases") {
        let answer: [u8; 5] = array(&case, "bytes");
        let refusal = Refusal::decode(&answer).unwrap();
        assert_eq!(refusal.code.to_string(), case["code_name"]);
        assert_eq!(u64::from(refusal.code.0), number(&case, "code"));
        assert_eq!(
            u64::from(refusal.highest_version),
            number(&case, "highest_version")
        );
        assert_eq!(
            u64::from(refusal.retry_after_s),
            number(&case, "retry_after_s")
        );
        assert_eq!(refusal.encode(), answer);

        let (initiator, _) = start(&cases(HANDSHAKE, "cases")[0]);
        assert_eq!(
            initiator.finish(&answer).unwrap_err(),
            HandshakeFault::Refused(refusal)
        );
    }
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
        let plaintext = bytes(&case, "plaintext");
        let record = bytes(&case, "record");
        let (key, number) = (array(&case, "key"), number(&case, "number"));

        let mut sealed = vec![0; record.len()];
        sealed[2..2 + plaintext.len()].copy_from_slice(&plaintext);
        let len = records_at(key, number).seal(&mut SoftAead, plaintext.len(), &mut sealed);
        assert_eq!(len, Ok(record.len()), "{}", case["name"]);
        assert_eq!(sealed, record, "{}", case["name"]);

        let len = record_len([sealed[0], sealed[1]], 17, 16_384).unwrap();
        assert_eq!(len, record.len() - 2);
        let opened = records_at(key, number)
            .open(&mut SoftAead, &mut sealed[2..])
            .unwrap();
        assert_eq!(opened, plaintext, "{}", case["name"]);
    }
}

#[test]
fn bad_records_get_the_fault_of_the_vectors() {
    for case in cases(RECORDS, "invalid") {
        let mut record = bytes(&case, "record");
        let max = usize::try_from(number(&case, "max")).unwrap();
        assert!(max <= BOARD_RECORD_MAX);
        let mut records = records_at(array(&case, "key"), number(&case, "number"));
        let fault = match record_len([record[0], record[1]], 17, max) {
            Ok(len) => {
                assert_eq!(len, record.len() - 2, "{}", case["name"]);
                records.open(&mut SoftAead, &mut record[2..]).unwrap_err()
            }
            Err(fault) => fault,
        };
        assert_eq!(fault.name(), case["error"], "{}", case["name"]);
    }
}

#[cfg(feature = "quic")]
mod quic {
    use super::{array, bytes, cases};
    use dialhome_device::crypto::{HandshakeFault, Prover};
    use dialhome_proto::link::DeviceKey;
    use dialhome_proto::link::quic::PROOF_FLIGHT_LEN;
    use serde_json::Value;

    const QUIC: &str = include_str!("../../spec/vectors/quic.json");

    fn start(case: &Value) -> (Prover, [u8; PROOF_FLIGHT_LEN]) {
        let mut flight = [0; PROOF_FLIGHT_LEN];
        let key = DeviceKey::new(array(case, "device_key"));
        let prover = Prover::start(&key, &array(case, "exporter"), &mut flight);
        (prover, flight)
    }

    #[test]
    fn proofs_over_quic_are_those_of_the_vectors() {
        for case in cases(QUIC, "cases") {
            let (prover, flight) = start(&case);
            assert_eq!(flight[..], bytes(&case, "first_flight"), "{}", case["name"]);
            let answer = bytes(&case, "answer");
            assert_eq!(Prover::needed(&answer), 0);
            assert_eq!(prover.finish(&answer), Ok(()), "{}", case["name"]);
        }
    }

    #[test]
    fn bad_answers_over_quic_get_the_fault_of_the_vectors() {
        let first = cases(QUIC, "cases").remove(0);
        for case in cases(QUIC, "invalid_answer") {
            let answer = bytes(&case, "answer");
            assert_eq!(Prover::needed(&answer), 0, "{}", case["name"]);
            let fault = match start(&first).0.finish(&answer).unwrap_err() {
                HandshakeFault::Refused(_) => "refused",
                HandshakeFault::BadTag => "bad_tag",
                HandshakeFault::Malformed => "malformed",
            };
            assert_eq!(fault, case["fault"], "{}", case["name"]);
        }
    }
}
