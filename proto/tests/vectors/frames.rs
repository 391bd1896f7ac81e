//! Every frame: bytes to fields, and back to the same bytes.

use super::{at_least, bytes, list, text, vectors};
use dialhome_proto::code::{
    BootReason, ByeReason, CloseCode, DigestFrom, Link, Phase, Reason, Revert, SelfTest, Statement,
};
use dialhome_proto::frame::{DeviceFrame, FrameFault, GatewayFrame};
use serde_json::{Value, json, to_value};

fn all() -> Value {
    vectors(include_str!("../../../spec/vectors/frames.json"))
}

/// What a frame's plaintext is on one side: its name, its fields and its bytes again.
struct Decoded {
    name: &'static str,
    fields: Value,
    again: Vec<u8>,
}

macro_rules! fields {
    ($frame:expr, $side:ident { $($name:ident)+ }) => {
        match $frame { $($side::$name(body) => to_value(body),)+ }.expect("fields are JSON")
    };
}

fn decode(direction: &str, plaintext: &[u8]) -> Result<Decoded, FrameFault> {
    let mut buffer = vec![0; plaintext.len() + 64];
    let (name, fields, len) = match direction {
        "to_gateway" => {
            let frame = DeviceFrame::decode(plaintext)?;
            let fields = fields!(&frame, DeviceFrame {
                Ping Pong Unsupported Hello Accept Defer Decline Progress Ack Nack Report
                KeyStored GatewaysStored Bye Output LogPart
            });
            (frame.name(), fields, frame.encode(&mut buffer))
        }
        "to_board" => {
            let frame = GatewayFrame::decode(plaintext)?;
            let fields = fields!(&frame, GatewayFrame {
                Ping Pong Unsupported Welcome Offer Resume Chunk Activate Cancel Confirm Settled
                NewKey SetGateways Keepalive Close ReadLog
            });
            (frame.name(), fields, frame.encode(&mut buffer))
        }
        other => panic!("no direction: {other}"),
    };
    buffer.truncate(len.expect("the buffer has room"));
    Ok(Decoded {
        name,
        fields,
        again: buffer,
    })
}

/// A value of the vectors as the field of this name serializes: names of codes and
/// hexadecimal digits become numbers.
fn raw(frame: &str, field: &str, value: &Value) -> Value {
    let code = |number: Option<u8>| {
        number.map_or_else(|| panic!("{frame}.{field}: no code {value}"), |n| json!(n))
    };
    match (frame, field) {
        _ if value.is_null() => Value::Null,
        // A number of bytes, and not those themselves.
        ("ReadLog", "bytes") => value.clone(),
        (_, "components") => list(value).iter().map(|of| inside(frame, of)).collect(),
        (_, "trial" | "claim") => inside(frame, value),
        (_, "link") => code(Link::from_name(text(value)).map(|code| code.0)),
        (_, "digest_from") => code(DigestFrom::from_name(text(value)).map(|code| code.0)),
        (_, "boot_reason") => code(BootReason::from_name(text(value)).map(|code| code.0)),
        (_, "revert") => code(Revert::from_name(text(value)).map(|code| code.0)),
        (_, "self_test") => code(SelfTest::from_name(text(value)).map(|code| code.0)),
        (_, "phase") => code(Phase::from_name(text(value)).map(|code| code.0)),
        (_, "state") => code(Statement::from_name(text(value)).map(|code| code.0)),
        ("Bye", "reason") => code(ByeReason::from_name(text(value)).map(|code| code.0)),
        (_, "reason") => code(Reason::from_name(text(value)).map(|code| code.0)),
        (_, "last_close" | "code") => code(CloseCode::from_name(text(value)).map(|code| code.0)),
        (_, "update" | "digest" | "manifest" | "prefix" | "crc" | "base" | "handle" | "key")
        | (_, "bytes" | "statement") => json!(bytes(value)),
        _ => value.clone(),
    }
}

fn inside(frame: &str, fields: &Value) -> Value {
    let fields = fields.as_object().expect("fields are an object");
    fields
        .iter()
        .map(|(field, value)| (field.clone(), raw(frame, field, value)))
        .collect()
}

fn check(case: &Value, shortest: &[u8]) {
    let name = text(&case["name"]);
    for direction in at_least(&case["directions"], 1) {
        let plaintext = bytes(&case["bytes"]);
        let decoded =
            decode(text(direction), &plaintext).unwrap_or_else(|fault| panic!("{name}: {fault:?}"));
        assert_eq!(decoded.name, text(&case["frame"]), "{name}");
        let expected = inside(decoded.name, &case["fields"]);
        assert_eq!(decoded.fields, expected, "{name}");
        assert_eq!(decoded.again, shortest, "{name}");
    }
}

#[test]
fn every_frame_decodes_to_its_fields_and_encodes_to_the_same_bytes() {
    for case in at_least(&all()["cases"], 80) {
        check(case, &bytes(&case["bytes"]));
    }
}

#[test]
fn a_varint_may_be_longer_than_needed_and_is_written_at_its_shortest() {
    for case in at_least(&all()["longer"], 4) {
        check(case, &bytes(&case["shortest"]));
    }
}

#[test]
fn every_number_of_either_direction_has_at_least_two_cases() {
    let all = all();
    let count = |direction: &str, number: u8| {
        let cases = list(&all["cases"]).iter();
        cases
            .filter(|case| list(&case["directions"]).contains(&json!(direction)))
            .filter(|case| bytes(&case["bytes"])[0] == number)
            .count()
    };
    for number in DeviceFrame::NUMBERS {
        assert!(count("to_gateway", *number) >= 2, "{number:#x} to gateway");
    }
    for number in GatewayFrame::NUMBERS {
        assert!(count("to_board", *number) >= 2, "{number:#x} to board");
    }
}

#[test]
fn what_is_no_frame_is_refused_for_the_reason_given() {
    for case in at_least(&all()["invalid"], 150) {
        let name = text(&case["name"]);
        let expected = match (text(&case["error"]), case["number"].as_u64()) {
            ("empty", None) => FrameFault::Empty,
            ("unknown", Some(number)) => FrameFault::Unknown(number.try_into().unwrap()),
            ("malformed", Some(number)) => FrameFault::Malformed(number.try_into().unwrap()),
            other => panic!("{name}: {other:?}"),
        };
        let decoded = decode(text(&case["direction"]), &bytes(&case["bytes"]));
        assert_eq!(decoded.err(), Some(expected), "{name}");
    }
}

#[test]
fn a_hello_that_contradicts_itself_decodes_and_is_not_consistent() {
    let all = all();
    for case in at_least(&all["inconsistent"], 15) {
        let (name, plaintext) = (text(&case["name"]), bytes(&case["bytes"]));
        assert_eq!(text(&case["error"]), CloseCode::BAD_HELLO.name().unwrap());
        match DeviceFrame::decode(&plaintext) {
            Ok(DeviceFrame::Hello(hello)) => assert!(!hello.is_consistent(), "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    let hellos = list(&all["cases"]).iter();
    for case in hellos.filter(|case| case["frame"] == "Hello") {
        match DeviceFrame::decode(&bytes(&case["bytes"])) {
            Ok(DeviceFrame::Hello(hello)) => assert!(hello.is_consistent(), "{}", case["name"]),
            other => panic!("{other:?}"),
        }
    }
}
