//! Bytes that nobody wrote on purpose: no panic, and nothing is read that was not checked.

use dialhome_proto::limits::TRUST_SET_LEN;
use dialhome_proto::manifest::Manifest;
use dialhome_proto::statement::GatewaysStatement;
use dialhome_proto::trust::{TrustFault, TrustSet};
use proptest::prelude::*;

use super::{bytes, cases, vectors};

fn valid(file: &str, field: &str) -> Vec<Vec<u8>> {
    let vectors = vectors(file);
    cases(&vectors, 40)
        .filter(|(_, case)| !case["expect"]["accepted"].is_null())
        .map(|(_, case)| bytes(&case[field]))
        .collect()
}

fn read_all(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::parse(bytes) {
        assert!((1..=4).contains(&manifest.entries().count()));
        assert!(manifest.devices().count() <= 4);
        assert!((1..=3).contains(&manifest.signatures().count()));
        for entry in manifest.entries() {
            assert!(entry.counter != 0 && entry.floor <= entry.counter && entry.size != 0);
            assert!(entry.requires().count() <= 2);
        }
    }
    if let Ok(statement) = GatewaysStatement::parse(bytes) {
        assert!((1..=4).contains(&statement.gateways().count()));
    }
}

#[test]
fn every_prefix_of_a_valid_text_is_refused() {
    for manifest in valid(
        include_str!("../../../spec/vectors/manifests.json"),
        "manifest",
    ) {
        assert!((0..manifest.len()).all(|len| Manifest::parse(&manifest[..len]).is_err()));
    }
    for statement in valid(
        include_str!("../../../spec/vectors/statements.json"),
        "statement",
    ) {
        assert!(
            (0..statement.len()).all(|len| GatewaysStatement::parse(&statement[..len]).is_err())
        );
    }
}

#[test]
fn every_flipped_bit_is_refused_or_reads_within_the_limits() {
    for manifest in valid(
        include_str!("../../../spec/vectors/manifests.json"),
        "manifest",
    ) {
        for bit in 0..manifest.len() * 8 {
            let mut manifest = manifest.clone();
            manifest[bit / 8] ^= 1 << (bit % 8);
            read_all(&manifest);
        }
    }
}

fn set() -> TrustSet {
    TrustSet {
        epoch: u32::MAX,
        threshold: 3,
        keys: (0..4).map(|key| [key; 32]).collect(),
        minimums: (0..4).map(|component| (component, u64::MAX)).collect(),
    }
}

#[test]
fn the_longest_trust_set_comes_back_from_its_cell() {
    let mut cell = [0; TRUST_SET_LEN];
    let len = set().encode(&mut cell).unwrap();
    assert_eq!(len, TRUST_SET_LEN);
    assert_eq!(TrustSet::decode(&cell), Ok(set()));
    assert_eq!(
        TrustSet::decode(&cell[..len - 1]),
        Err(TrustFault::Malformed)
    );
    assert_eq!(
        set().encode(&mut cell[..len - 1]),
        Err(TrustFault::Malformed)
    );
    let mut long = cell.to_vec();
    long.push(0);
    assert_eq!(TrustSet::decode(&long), Err(TrustFault::Malformed));
}

#[test]
fn a_trust_set_that_cannot_work_is_refused_by_name() {
    let refused = |change: fn(&mut TrustSet)| {
        let mut set = set();
        change(&mut set);
        set.validate().expect_err("refused")
    };
    assert_eq!(refused(|set| set.epoch = 0), TrustFault::EpochZero);
    assert_eq!(refused(|set| set.keys.clear()), TrustFault::NoKeys);
    assert_eq!(refused(|set| set.threshold = 0), TrustFault::Threshold);
    // Four signatures would not fit a manifest: such a board could never be updated.
    assert_eq!(refused(|set| set.threshold = 4), TrustFault::Threshold);
    assert_eq!(refused(|set| set.keys.truncate(2)), TrustFault::Threshold);
    assert_eq!(
        refused(|set| set.keys[3] = set.keys[0]),
        TrustFault::DuplicateKey
    );
    assert_eq!(
        refused(|set| set.minimums[3].0 = 0),
        TrustFault::DuplicateMinimum
    );
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_read_within_the_limits(
        bytes in proptest::collection::vec(any::<u8>(), 0..900),
        statement in any::<bool>(),
    ) {
        let prefix = if statement { b"dialhome gateways 1" } else { b"dialhome manifest 1" };
        let mut framed = prefix.to_vec();
        framed.extend_from_slice(&bytes);
        read_all(&framed);
        read_all(&bytes);
        if let Ok(set) = TrustSet::decode(&bytes) {
            prop_assert_eq!(set.validate(), Ok(()));
        }
    }
}
