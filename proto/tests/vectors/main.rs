//! Frames, resume proofs, provisioning records and proofs over QUIC against `spec/vectors/{frames,resume,provisioning,quic}.json`,
//! which programs wrote that share no code with this crate: they were written from spec/ alone.

mod frames;
mod provisioning;
mod quic;
mod resume;

use dialhome_proto::id::decode_hex;
use serde_json::Value;

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

/// A list of the vectors; it has at least `least` members, so that an empty file does not pass.
fn at_least(value: &Value, least: usize) -> &[Value] {
    let all = list(value);
    assert!(all.len() >= least, "only {} cases", all.len());
    all
}
