use std::collections::BTreeSet;

use dialhome_proto::code::Reason;
use dialhome_proto::limits::{MANIFEST_MAX, REMEMBERED_LEN};
use dialhome_proto::manifest::{
    BoardFacts, ComponentFacts, EntryFields, Manifest, ManifestFields, Offered, Remembered,
    Required, TrialBudget, assemble, check, encode_body, recheck,
};
use dialhome_proto::trust::{TrustSet, signer_id};
use serde_json::Value;

use super::{Dalek, bytes, cases, digest, fault_name, list, number, text, trust, vectors};

const FILE: &str = include_str!("../../../spec/vectors/manifests.json");

#[test]
fn every_board_answers_as_the_vectors_say() {
    let vectors = vectors(FILE);
    for (name, case) in cases(&vectors, 90) {
        let manifest = bytes(&case["manifest"]);
        let board = Board::read(case);
        let expect = &case["expect"];
        match board.check(&manifest) {
            Ok(accepted) => assert_accepted(name, expect, &accepted),
            Err(reason) => assert_eq!(Some(reason), reason_of(expect), "{name}"),
        }
        if reason_of(expect) == Some(Reason::BAD_MANIFEST) && !name.starts_with("order:") {
            let fault = Manifest::parse(&manifest).expect_err(name);
            assert_eq!(fault_name(&fault), text(&expect["fault"]), "{name}");
            assert!(!fault.to_string().is_empty());
        }
    }
}

#[test]
fn every_reason_of_section_6_4_has_a_case() {
    let vectors = vectors(FILE);
    let seen: BTreeSet<u8> = cases(&vectors, 90)
        .filter_map(|(_, case)| reason_of(&case["expect"]))
        .map(|reason| reason.0)
        .collect();
    for reason in [
        Reason::NO_TRUST,
        Reason::BAD_MANIFEST,
        Reason::UNKNOWN_SIGNER,
        Reason::BAD_SIGNATURE,
        Reason::WRONG_PRODUCT,
        Reason::WRONG_DEVICE,
        Reason::WRONG_COMPONENT,
        Reason::WRONG_HARDWARE,
        Reason::TOO_BIG,
        Reason::SIZE_MISMATCH,
        Reason::UNKNOWN_ENCODING,
        Reason::WITHDRAWN,
        Reason::BELOW_FLOOR,
        Reason::COUNTER_CONFLICT,
        Reason::DOWNGRADE_NOT_ASKED,
        Reason::REQUIRED_DIGEST,
    ] {
        assert!(seen.contains(&reason.0), "no case for {reason}");
    }
}

#[test]
fn fields_and_bytes_agree_in_both_directions() {
    let vectors = vectors(FILE);
    let mut seen = 0;
    for (name, case) in cases(&vectors, 90).filter(|(_, case)| !case["fields"].is_null()) {
        let (manifest, fields) = (bytes(&case["manifest"]), &case["fields"]);
        let body = &manifest[..number::<usize>(&case["body_length"])];
        let mut out = [0; MANIFEST_MAX];
        assert_eq!(encode(fields, &mut out), Ok(body.len()), "{name}");
        assert_eq!(&out[..body.len()], body, "{name}");
        if reason_of(&case["expect"]) == Some(Reason::BAD_MANIFEST) {
            continue;
        }
        let parsed = Manifest::parse(&manifest).expect(name);
        assert_eq!(parsed.body(), body, "{name}");
        assert_eq!(parsed.digest(), digest(&case["digest"]), "{name}");
        assert_same(name, fields, &parsed);
        // The signatures as they were parsed make the same manifest again.
        let signatures: Vec<_> = parsed
            .signatures()
            .map(|(id, bytes)| (id, *bytes))
            .collect();
        assert_eq!(
            assemble(&mut out, body.len(), &signatures),
            Ok(manifest.len()),
            "{name}"
        );
        assert_eq!(&out[..manifest.len()], manifest, "{name}");
        seen += 1;
    }
    assert!(seen >= 50, "only {seen} manifests were read");
}

#[test]
fn signer_ids_are_those_of_the_vectors() {
    for key in list(&vectors(FILE)["keys"]) {
        let public: [u8; 32] = bytes(&key["public"]).try_into().unwrap();
        assert_eq!(signer_id(&public).to_string(), text(&key["signer_id"]));
    }
}

#[test]
fn a_remembered_image_comes_back_from_the_journal_and_is_checked_again() {
    let vectors = vectors(FILE);
    for (name, case) in cases(&vectors, 90) {
        let board = Board::read(case);
        let Ok(accepted) = board.check(&bytes(&case["manifest"])) else {
            continue;
        };
        let mut cell = [0; REMEMBERED_LEN];
        let len = accepted.image.encode(&mut cell);
        let image = Remembered::decode(&cell[..len]).expect(name);
        assert_eq!(image, accepted.image, "{name}");
        assert_eq!(Remembered::decode(&cell[..len - 1]), None, "{name}");
        let again = |trust: Option<&TrustSet>, components: &[ComponentFacts], offered: &Offered| {
            recheck(image.clone(), offered, trust, components).map(|accepted| accepted.image)
        };
        let (trust, components, offered) = (&board.trust, &board.components[..], &board.offered);
        assert_eq!(
            again(trust.as_ref(), components, offered),
            Ok(image.clone()),
            "{name}"
        );
        assert_eq!(
            again(None, components, offered),
            Err(Reason::NO_TRUST),
            "{name}"
        );
        let mut newer = trust.clone().unwrap();
        newer.epoch += 1;
        assert_eq!(
            again(Some(&newer), components, offered),
            Err(Reason::MANIFEST_UNKNOWN)
        );
        let changed = |change: fn(&mut ComponentFacts, u64)| {
            let mut components = components.to_vec();
            for facts in &mut components {
                change(facts, image.counter);
            }
            again(
                trust.as_ref(),
                &components,
                &Offered {
                    downgrade: false,
                    ..*offered
                },
            )
        };
        assert_eq!(
            changed(|facts, _| facts.slot_size = 0),
            Err(Reason::TOO_BIG),
            "{name}"
        );
        let conflict = changed(|facts, counter| {
            facts.running_counter = counter;
            facts.running_digest = None;
        });
        assert_eq!(conflict, Err(Reason::COUNTER_CONFLICT), "{name}");
        if image.counter < u64::MAX {
            let below = changed(|facts, counter| facts.floor = counter + 1);
            assert_eq!(below, Err(Reason::BELOW_FLOOR), "{name}");
            let older = changed(|facts, counter| facts.running_counter = counter + 1);
            assert_eq!(older, Err(Reason::DOWNGRADE_NOT_ASKED), "{name}");
            let mut withdrawn = trust.clone().unwrap();
            withdrawn.minimums.clear();
            withdrawn
                .minimums
                .push((image.component, image.counter + 1))
                .unwrap();
            assert_eq!(
                again(Some(&withdrawn), components, offered),
                Err(Reason::WITHDRAWN)
            );
        }
        let other = Offered {
            component: image.component + 1,
            ..*offered
        };
        assert_eq!(
            again(trust.as_ref(), components, &other),
            Err(Reason::WRONG_COMPONENT)
        );
        let size = Offered {
            payload_size: offered.payload_size.wrapping_add(1),
            ..*offered
        };
        assert_eq!(
            again(trust.as_ref(), components, &size),
            Err(Reason::SIZE_MISMATCH)
        );
        let encoding = Offered {
            encoding: 9,
            ..*offered
        };
        assert_eq!(
            again(trust.as_ref(), components, &encoding),
            Err(Reason::UNKNOWN_ENCODING)
        );
    }
}

/// The owner of what a case's board knows.
struct Board {
    product: String,
    device: String,
    hardware: u16,
    trust: Option<TrustSet>,
    components: Vec<ComponentFacts>,
    offered: Offered,
}

impl Board {
    fn read(case: &Value) -> Self {
        let (board, offer) = (&case["board"], &case["offer"]);
        let components = list(&case["components"])
            .iter()
            .map(|facts| ComponentFacts {
                component: number(&facts["component"]),
                slot_size: number(&facts["slot_size"]),
                running_digest: (!facts["running_digest"].is_null())
                    .then(|| digest(&facts["running_digest"])),
                running_counter: number(&facts["running_counter"]),
                floor: number(&facts["floor"]),
            });
        Self {
            product: text(&board["product"]).into(),
            device: text(&board["device"]).into(),
            hardware: number(&board["hardware"]),
            trust: trust(&case["trust"]),
            components: components.collect(),
            offered: Offered {
                component: number(&offer["component"]),
                downgrade: offer["downgrade"].as_bool().unwrap(),
                encoding: number(&offer["encoding"]),
                payload_size: number(&offer["payload_size"]),
            },
        }
    }

    fn check(&self, manifest: &[u8]) -> Result<dialhome_proto::manifest::Accepted, Reason> {
        let facts = BoardFacts {
            product: &self.product,
            device: &self.device,
            hardware: self.hardware,
            trust: self.trust.as_ref(),
        };
        check(
            manifest,
            &self.offered,
            &facts,
            &self.components,
            &mut Dalek,
        )
    }
}

fn reason_of(expect: &Value) -> Option<Reason> {
    expect["reason"]
        .as_str()
        .map(|name| Reason::from_name(name).expect(name))
}

fn assert_accepted(name: &str, expect: &Value, accepted: &dialhome_proto::manifest::Accepted) {
    let (expect, image) = (&expect["accepted"], &accepted.image);
    assert!(
        !expect.is_null(),
        "{name}: accepted, and should not have been"
    );
    assert_eq!(image.manifest, digest(&expect["manifest"]), "{name}");
    assert_eq!(image.sha256, digest(&expect["sha256"]), "{name}");
    assert_eq!(image.version, text(&expect["version"]), "{name}");
    assert_eq!(
        image.component,
        number::<u8>(&expect["component"]),
        "{name}"
    );
    assert_eq!(image.size, number::<u32>(&expect["size"]), "{name}");
    assert_eq!(image.counter, number::<u64>(&expect["counter"]), "{name}");
    assert_eq!(image.floor, number::<u64>(&expect["floor"]), "{name}");
    assert_eq!(image.trial, budget(expect), "{name}");
    assert_eq!(
        image.trust_epoch,
        number::<u32>(&expect["trust_epoch"]),
        "{name}"
    );
}

fn budget(value: &Value) -> TrialBudget {
    TrialBudget {
        boots: number(&value["trial_boots"]),
        dials: number(&value["trial_dials"]),
        awake_s: number(&value["trial_awake_s"]),
    }
}

fn requires(entry: &Value) -> Vec<Required> {
    let required = |value: &Value| Required {
        component: number(&value["component"]),
        digest: digest(&value["digest"]),
    };
    list(&entry["requires"]).iter().map(required).collect()
}

fn encode(
    fields: &Value,
    out: &mut [u8],
) -> Result<usize, dialhome_proto::manifest::ManifestFault> {
    let devices: Vec<&str> = list(&fields["devices"]).iter().map(text).collect();
    let required: Vec<_> = list(&fields["entries"]).iter().map(requires).collect();
    let entries: Vec<_> = list(&fields["entries"])
        .iter()
        .zip(&required)
        .map(|(entry, requires)| EntryFields {
            component: number(&entry["component"]),
            version: text(&entry["version"]),
            counter: number(&entry["counter"]),
            floor: number(&entry["floor"]),
            size: number(&entry["size"]),
            sha256: digest(&entry["sha256"]),
            hardware_min: number(&entry["hardware_min"]),
            hardware_max: number(&entry["hardware_max"]),
            requires,
        })
        .collect();
    let fields = ManifestFields {
        product: text(&fields["product"]),
        flags: number(&fields["flags"]),
        trial: budget(fields),
        devices: &devices,
        entries: &entries,
    };
    encode_body(&fields, out)
}

fn assert_same(name: &str, fields: &Value, parsed: &Manifest<'_>) {
    assert_eq!(parsed.product(), text(&fields["product"]), "{name}");
    assert_eq!(parsed.flags(), number::<u8>(&fields["flags"]), "{name}");
    assert_eq!(
        parsed.is_security(),
        number::<u8>(&fields["flags"]) % 2 == 1,
        "{name}"
    );
    assert_eq!(parsed.trial(), budget(fields), "{name}");
    let devices: Vec<&str> = list(&fields["devices"]).iter().map(text).collect();
    assert_eq!(parsed.devices().collect::<Vec<_>>(), devices, "{name}");
    let entries: Vec<_> = parsed.entries().collect();
    assert_eq!(entries.len(), list(&fields["entries"]).len(), "{name}");
    for (entry, said) in entries.iter().zip(list(&fields["entries"])) {
        assert_eq!(entry.component, number::<u8>(&said["component"]), "{name}");
        assert_eq!(entry.version, text(&said["version"]), "{name}");
        assert_eq!(entry.counter, number::<u64>(&said["counter"]), "{name}");
        assert_eq!(entry.floor, number::<u64>(&said["floor"]), "{name}");
        assert_eq!(entry.size, number::<u32>(&said["size"]), "{name}");
        assert_eq!(entry.sha256, digest(&said["sha256"]), "{name}");
        assert_eq!(
            entry.hardware_min,
            number::<u16>(&said["hardware_min"]),
            "{name}"
        );
        assert_eq!(
            entry.hardware_max,
            number::<u16>(&said["hardware_max"]),
            "{name}"
        );
        assert_eq!(
            entry.requires().collect::<Vec<_>>(),
            requires(said),
            "{name}"
        );
    }
}
