//! Manifests and gateways statements against `spec/vectors/{manifests,statements}.json`, which a program
//! wrote that shares no code with this crate.

mod manifests;
mod robust;
mod statements;

use dialhome_proto::id::{Digest, decode_hex};
use dialhome_proto::trust::{TrustSet, VerifySignature};
use ed25519_dalek::{Signature, VerifyingKey};
use serde_json::Value;

/// Ed25519 as the gateway and the Linux agent check it.
struct Dalek;

impl VerifySignature for Dalek {
    fn verify(&mut self, public_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(public_key).is_ok_and(|key| {
            key.verify_strict(message, &Signature::from_bytes(signature))
                .is_ok()
        })
    }
}

fn vectors(text: &str) -> Value {
    serde_json::from_str(text).expect("the vectors are JSON")
}

fn bytes(value: &Value) -> Vec<u8> {
    let text = text(value);
    let mut out = vec![0; text.len() / 2];
    assert!(decode_hex(text, &mut out), "not hexadecimal: {text}");
    out
}

fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("not a text: {value}"))
}

fn number<T: TryFrom<u64, Error: std::fmt::Debug>>(value: &Value) -> T {
    let number = value
        .as_u64()
        .unwrap_or_else(|| panic!("not a number: {value}"));
    number.try_into().expect("the number fits")
}

fn list(value: &Value) -> &[Value] {
    value
        .as_array()
        .unwrap_or_else(|| panic!("not a list: {value}"))
}

fn digest(value: &Value) -> Digest {
    Digest::from_hex(text(value)).expect("a digest")
}

/// Cases by name; there must be at least `least`, so that an empty file does not pass.
fn cases(vectors: &Value, least: usize) -> impl Iterator<Item = (&str, &Value)> {
    let cases = list(&vectors["cases"]);
    assert!(cases.len() >= least, "only {} cases", cases.len());
    cases.iter().map(|case| (text(&case["name"]), case))
}

fn trust(value: &Value) -> Option<TrustSet> {
    if value.is_null() {
        return None;
    }
    let keys = list(&value["keys"])
        .iter()
        .map(|key| bytes(key).try_into().unwrap());
    let minimums = list(&value["minimums"])
        .iter()
        .map(|minimum| (number(&minimum["component"]), number(&minimum["counter"])));
    Some(TrustSet {
        epoch: number(&value["epoch"]),
        threshold: number(&value["threshold"]),
        keys: keys.collect(),
        minimums: minimums.collect(),
    })
}

/// `TooLong` as `too_long`, and `DuplicateComponent(1)` as `duplicate_component`: the vectors' names.
fn fault_name(fault: &impl std::fmt::Debug) -> String {
    let mut name = String::new();
    for letter in format!("{fault:?}")
        .chars()
        .take_while(|letter| *letter != '(')
    {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(letter.to_lowercase());
    }
    name
}
