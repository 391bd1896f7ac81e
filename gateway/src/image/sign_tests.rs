use dialhome_proto::code::Reason;
use dialhome_proto::manifest::{BoardFacts, ComponentFacts, Manifest, Offered, check};
use dialhome_proto::statement::{GatewaysStatement, Refused};
use dialhome_proto::trust::TrustSet;

use super::*;

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

fn trust(keys: &[u8], threshold: u8) -> TrustSet {
    TrustSet {
        epoch: 1,
        threshold,
        keys: keys
            .iter()
            .map(|number| key(*number).verifying_key().to_bytes())
            .collect(),
        minimums: Default::default(),
    }
}

fn about() -> Description {
    Description {
        product: "pump".into(),
        version: "1.4.0".into(),
        component: 2,
        counter: 1_760_000_000,
        floor: 1_700_000_000,
        hardware: 3..=5,
        devices: vec!["pump-7".into()],
        security: true,
        trial: TrialBudget {
            boots: 1,
            dials: 2,
            awake_s: 3,
        },
        requires: vec![Required {
            component: 0,
            digest: digest(b"main"),
        }],
    }
}

#[test]
fn a_signed_manifest_says_what_was_asked_and_the_board_takes_it() {
    let manifest = sign(b"image", &about(), &[key(1), key(2)]).unwrap();
    let parsed = Manifest::parse(&manifest).unwrap();
    assert!(parsed.is_security());
    let entry = parsed.entry(2).unwrap();
    assert_eq!((entry.size, entry.sha256), (5, digest(b"image")));
    assert_eq!((entry.hardware_min, entry.hardware_max), (3, 5));
    assert_eq!(entry.requires().collect::<Vec<_>>(), about().requires);

    let offered = Offered {
        component: 2,
        downgrade: false,
        encoding: 0,
        payload_size: 5,
    };
    let facts = |component, running: &[u8]| ComponentFacts {
        component,
        slot_size: 1000,
        running_digest: Some(digest(running)),
        running_counter: 1,
        floor: 0,
    };
    let components = [facts(0, b"main"), facts(2, b"old")];
    let decide = |trust: &TrustSet| {
        let board = BoardFacts {
            product: "pump",
            device: "pump-7",
            hardware: 4,
            trust: Some(trust),
        };
        check(&manifest, &offered, &board, &components, &mut Ed25519).map(|accepted| accepted.image)
    };
    let image = decide(&trust(&[2, 1], 2)).unwrap();
    assert_eq!((image.counter, image.floor), (1_760_000_000, 1_700_000_000));
    assert_eq!(image.trial, about().trial);
    assert_eq!(decide(&trust(&[1, 3], 2)), Err(Reason::BAD_SIGNATURE));
    assert_eq!(decide(&trust(&[3], 1)), Err(Reason::UNKNOWN_SIGNER));
}

#[test]
fn what_a_board_would_refuse_is_not_signed() {
    let refused = |change: fn(&mut Description)| {
        let mut about = about();
        change(&mut about);
        sign(b"image", &about, &[key(1)]).unwrap_err()
    };
    assert_eq!(
        refused(|about| about.product.clear()),
        ManifestFault::Product.into()
    );
    assert_eq!(
        refused(|about| about.version = "1 0".into()),
        ManifestFault::Version.into()
    );
    assert_eq!(
        refused(|about| about.counter = 0),
        ManifestFault::CounterZero.into()
    );
    let high = refused(|about| about.floor = about.counter + 1);
    assert_eq!(high, ManifestFault::FloorAboveCounter.into());
    let many = refused(|about| about.devices = vec!["d".into(); 5]);
    assert_eq!(many, ManifestFault::Devices.into());
    let empty = sign(b"", &about(), &[key(1)]).unwrap_err();
    assert_eq!(empty, ManifestFault::SizeZero.into());
}

#[test]
fn one_to_three_different_keys_sign() {
    let keys = |numbers: &[u8]| {
        numbers
            .iter()
            .map(|number| key(*number))
            .collect::<Vec<_>>()
    };
    assert_eq!(sign(b"image", &about(), &[]), Err(SignError::Keys(0)));
    assert_eq!(
        sign(b"image", &about(), &keys(&[1, 2, 3, 4])),
        Err(SignError::Keys(4))
    );
    let id = signer_id(key(1).verifying_key().as_bytes());
    assert_eq!(
        sign(b"image", &about(), &keys(&[1, 2, 1])),
        Err(SignError::DuplicateKey(id))
    );
    let three = sign(b"image", &about(), &keys(&[1, 2, 3])).unwrap();
    assert_eq!(Manifest::parse(&three).unwrap().signatures().count(), 3);
}

#[test]
fn a_gateways_statement_is_taken_by_its_device_only() {
    let gateways = ["gw1.example.net:7040", "[2001:db8::7]:7040"];
    let bytes = sign_gateways("pump-7", 5, &gateways, &[key(1)]).unwrap();
    let parsed = GatewaysStatement::parse(&bytes).unwrap();
    assert_eq!(parsed.gateways().collect::<Vec<_>>(), gateways);
    let decide = |device: &str, epoch| {
        statement::check(&bytes, device, Some(&trust(&[1], 1)), epoch, &mut Ed25519)
            .map(|(statement, _)| statement.epoch())
    };
    assert_eq!(decide("pump-7", 4), Ok(5));
    assert_eq!(decide("pump-7", 5), Err(Refused::OldEpoch));
    assert_eq!(decide("pump-8", 4), Err(Refused::WrongDevice));
    let refused = sign_gateways("pump-7", 5, &["gw1"], &[key(1)]);
    assert_eq!(refused, Err(StatementFault::Gateways.into()));
}
