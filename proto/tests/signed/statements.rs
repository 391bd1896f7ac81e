use dialhome_proto::limits::STATEMENT_MAX;
use dialhome_proto::statement::{GatewaysStatement, Refused, assemble, check, encode_body};
use serde_json::Value;

use super::{Dalek, bytes, cases, fault_name, list, number, text, trust, vectors};

const FILE: &str = include_str!("../../../spec/vectors/statements.json");

#[test]
fn every_board_takes_or_refuses_as_the_vectors_say() {
    let vectors = vectors(FILE);
    for (name, case) in cases(&vectors, 40) {
        let statement = bytes(&case["statement"]);
        let (board, expect) = (&case["board"], &case["expect"]);
        let trust = trust(&case["trust"]);
        let in_force = number(&board["epoch_in_force"]);
        match check(
            &statement,
            text(&board["device"]),
            trust.as_ref(),
            in_force,
            &mut Dalek,
        ) {
            Ok((taken, _)) => {
                assert_eq!(expect["accepted"], Value::Bool(true), "{name}");
                assert_same(name, case, &taken, &statement);
            }
            Err(refused) => {
                assert_eq!(refused.to_string(), *text(&expect["reason"]), "{name}");
                if let Refused::Malformed(fault) = refused {
                    assert_eq!(fault_name(&fault), text(&expect["fault"]), "{name}");
                    assert!(!fault.to_string().is_empty());
                }
            }
        }
    }
}

fn assert_same(name: &str, case: &Value, taken: &GatewaysStatement<'_>, statement: &[u8]) {
    let fields = &case["fields"];
    let gateways: Vec<&str> = list(&fields["gateways"]).iter().map(text).collect();
    assert_eq!(taken.device(), text(&fields["device"]), "{name}");
    assert_eq!(taken.epoch(), number::<u32>(&fields["epoch"]), "{name}");
    assert_eq!(taken.gateways().collect::<Vec<_>>(), gateways, "{name}");
    let mut out = [0; STATEMENT_MAX];
    let body = encode_body(taken.device(), taken.epoch(), &gateways, &mut out).expect(name);
    assert_eq!(&out[..body], taken.body(), "{name}");
    let signatures: Vec<_> = taken.signatures().map(|(id, bytes)| (id, *bytes)).collect();
    assert_eq!(
        assemble(&mut out, body, &signatures),
        Ok(statement.len()),
        "{name}"
    );
    assert_eq!(&out[..statement.len()], statement, "{name}");
}
