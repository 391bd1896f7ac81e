//! Both proofs and the plain records of QUIC against `spec/vectors/quic.json`.

use crate::{at_least, bytes, number, text, vectors};
use dialhome_proto::limits::RECORD_HEADER;
use dialhome_proto::link::quic::{PROOF_LEN, Proofs, SUITE_QUIC_PROOF};
use dialhome_proto::link::{
    ACCEPTED, Aead, DeviceKey, PREAMBLE_LEN, Preamble, PreambleFault, Records, record_len,
};
use serde_json::Value;

const VECTORS: &str = include_str!("../../../spec/vectors/quic.json");

/// Records in plain are never sealed.
struct NoAead;

impl Aead for NoAead {
    fn seal(&mut self, _: &[u8; 32], _: u64, _: &mut [u8]) {
        panic!("a plain record was sealed");
    }

    fn open(&mut self, _: &[u8; 32], _: u64, _: &mut [u8]) -> bool {
        panic!("a plain record was opened");
    }
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().expect("the length of the vector")
}

fn proofs(case: &Value) -> Proofs {
    let key = DeviceKey::new(array(&case["device_key"]));
    assert_eq!(*key.quic_proof(), array(&case["quic_proof"]));
    assert_eq!(key.handle().0, array(&case["handle"]));
    Proofs::new(&key, &array(&case["exporter"]))
}

#[test]
fn proofs_are_those_of_the_vectors() {
    for case in at_least(&vectors(VECTORS)["cases"], 3) {
        let proofs = proofs(case);
        let flight = bytes(&case["first_flight"]);
        let (head, proof) = flight.split_first_chunk::<PREAMBLE_LEN>().unwrap();
        let preamble = Preamble::decode_suite(head, SUITE_QUIC_PROOF).expect("a preamble");
        assert_eq!(
            Preamble::decode(head),
            Err(PreambleFault::Suite(SUITE_QUIC_PROOF))
        );
        assert_eq!(preamble.handle.0, array(&case["handle"]));
        assert_eq!(proof, proofs.board());
        let answer = bytes(&case["answer"]);
        assert_eq!(
            answer.split_first(),
            Some((&ACCEPTED, &proofs.gateway()[..]))
        );
    }
}

#[test]
fn what_is_no_proof_is_refused() {
    let vectors = vectors(VECTORS);
    let proofs = proofs(&vectors["cases"][0]);
    for case in at_least(&vectors["invalid_proof"], 5) {
        let said: [u8; PROOF_LEN] = array(&case["proof"]);
        assert!(!proofs.is_board(&said), "{}", text(&case["name"]));
    }
}

#[test]
fn plain_records_are_those_of_the_vectors_both_ways() {
    let vectors = vectors(VECTORS);
    let mut records = Records::plain();
    for case in at_least(&vectors["records"], 2) {
        let (plaintext, record) = (bytes(&case["plaintext"]), bytes(&case["record"]));
        let mut sent = vec![0; RECORD_HEADER + plaintext.len()];
        sent[RECORD_HEADER..].copy_from_slice(&plaintext);
        let len = records.seal(&mut NoAead, plaintext.len(), &mut sent);
        assert_eq!((len, &sent), (Ok(record.len()), &record));
        let header = *record.first_chunk().unwrap();
        let len = record_len(header, records.least(), 1024).unwrap();
        assert_eq!(len, plaintext.len());
        let opened = records.open(&mut NoAead, &mut sent[RECORD_HEADER..]);
        assert_eq!(opened.unwrap(), plaintext);
    }
    assert_eq!((records.sent(), records.received()), (2, 2));
    for case in at_least(&vectors["invalid_records"], 2) {
        let header: [u8; RECORD_HEADER] = array(&case["record"]);
        let fault = record_len(header, records.least(), number(&case["max"])).unwrap_err();
        assert_eq!(
            fault.name(),
            text(&case["fault"]),
            "{}",
            text(&case["name"])
        );
    }
}
