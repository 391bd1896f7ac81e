//! `spec/vectors/provisioning.json`: records, and how each of the wrong ones is refused.

use dialhome_proto::provision::{RECORD_MAX, Record, RecordFault};
use dialhome_proto::trust::TrustSet;
use serde_json::Value;

use crate::{at_least, bytes, list, number, text, vectors};

fn file() -> Value {
    vectors(include_str!("../../../spec/vectors/provisioning.json"))
}

fn array(value: &Value) -> [u8; 32] {
    bytes(value).try_into().expect("32 bytes")
}

fn trust(value: &Value) -> Option<TrustSet> {
    (!value.is_null()).then(|| TrustSet {
        epoch: number(&value["epoch"]),
        threshold: number(&value["threshold"]),
        keys: list(&value["keys"]).iter().map(array).collect(),
        minimums: list(&value["minimums"])
            .iter()
            .map(|minimum| (number(&minimum["component"]), number(&minimum["counter"])))
            .collect(),
    })
}

#[test]
fn records_have_these_fields_and_are_written_so() {
    for case in at_least(&file()["cases"], 6) {
        let name = text(&case["name"]);
        let (all, fields) = (bytes(&case["bytes"]), &case["fields"]);
        let pins: Vec<_> = list(&fields["pins"]).iter().map(array).collect();
        let (key, seed) = (array(&fields["key"]), array(&fields["seed"]));
        let expected = Record {
            device: text(&fields["device"]),
            product: text(&fields["product"]),
            key: &key,
            seed: &seed,
            gateways: list(&fields["gateways"]).iter().map(text).collect(),
            pins: &pins,
            trust: trust(&fields["trust"]),
        };
        assert_eq!(Record::parse(&all).as_ref(), Ok(&expected), "{name}");
        let mut out = [0; RECORD_MAX];
        let len = expected.encode(&mut out).unwrap();
        assert_eq!(len, number::<usize>(&case["length"]), "{name}");
        assert_eq!(out[..len], all[..len], "{name}");
        assert_eq!(
            expected.encode(&mut out[..len - 1]),
            Err(RecordFault::Length),
            "{name}"
        );
    }
}

#[test]
fn wrong_records_are_refused_by_the_part_that_is_wrong() {
    for case in at_least(&file()["invalid"], 40) {
        let all = bytes(&case["bytes"]);
        let fault = Record::parse(&all).expect_err(text(&case["name"]));
        let part = match fault {
            RecordFault::NoRecord => "no_record",
            RecordFault::Version => "version",
            RecordFault::Length => "length",
            RecordFault::CutShort => "cut_short",
            RecordFault::Crc => "crc",
            RecordFault::Malformed => "malformed",
            RecordFault::Device => "device",
            RecordFault::Product => "product",
            RecordFault::Gateways => "gateways",
            RecordFault::Pins => "pins",
            RecordFault::Trust(_) => "trust",
        };
        assert_eq!(part, text(&case["error"]), "{}", text(&case["name"]));
    }
}

#[test]
fn a_record_that_is_cut_or_changed_anywhere_is_refused() {
    let file = file();
    let typical = at_least(&file["cases"], 6)
        .iter()
        .find(|case| text(&case["name"]) == "typical")
        .expect("a typical record");
    let record = bytes(&typical["bytes"]);
    for len in 0..record.len() {
        assert!(Record::parse(&record[..len]).is_err(), "cut at {len}");
    }
    for bit in 0..record.len() * 8 {
        let mut changed = record.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(Record::parse(&changed).is_err(), "bit {bit}");
    }
}

#[test]
fn what_is_printed_of_a_record_has_no_secret() {
    let file = file();
    let record = bytes(&at_least(&file["cases"], 6)[1]["bytes"]);
    let shown = format!("{:?}", Record::parse(&record).unwrap());
    assert!(shown.contains("pump-17") && !shown.contains('['), "{shown}");
}
