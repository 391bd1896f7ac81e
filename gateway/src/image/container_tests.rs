use ed25519_dalek::SigningKey;
use proptest::prelude::*;

use super::*;
use crate::image::sign::{Description, sign};

fn container() -> Container {
    let payload = b"an image of some bytes".to_vec();
    let about = Description {
        product: "pump".into(),
        version: "1.4.0".into(),
        component: 2,
        counter: 1_760_000_000,
        floor: 7,
        hardware: 0..=9,
        devices: vec!["pump-7".into()],
        security: false,
        trial: Default::default(),
        requires: Vec::new(),
    };
    let keys = [SigningKey::from_bytes(&[1; 32])];
    let source = Source {
        name: "pump.hex".into(),
        format: Format::Hex,
        size: 99,
        sha256: digest(b"the hex file"),
    };
    let manifest = sign(&payload, &about, &keys).unwrap();
    let origin = Origin {
        source,
        check: None,
    };
    Container {
        head: Head {
            manifest,
            origins: vec![origin],
        },
        payloads: vec![payload],
    }
}

fn bytes() -> Vec<u8> {
    let mut bytes = Vec::new();
    container().write(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_written_file_reads_back() {
    let bytes = bytes();
    assert_eq!(&bytes[..4], b"DHI1");
    assert_eq!(Container::parse(&bytes), Ok(container()));
    let (head, len) = Head::parse(&bytes).unwrap().unwrap();
    assert_eq!(head.to_bytes(), bytes[..len]);
    assert_eq!(head.name().to_string(), "pump/2@1.4.0");
}

#[test]
fn the_record_of_the_store_repeats_the_manifest() {
    let container = container();
    let record = container.head.record(jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(record.name, "pump/2@1.4.0");
    assert_eq!(record.digest, digest(&container.payloads[0]).to_string());
    assert_eq!(
        record.source_digest,
        Some(digest(b"the hex file").to_string())
    );
    assert_eq!(
        (record.counter, record.floor, record.hardware),
        (1_760_000_000, 7, (0, 9))
    );
    assert_eq!(record.devices, ["pump-7"]);
    assert_eq!(
        (record.signers.len(), record.manifest),
        (1, container.head.manifest.clone())
    );
    let mut raw = container.head;
    raw.origins[0].source.sha256 = digest(&container.payloads[0]);
    assert_eq!(raw.record(jiff::Timestamp::UNIX_EPOCH).source_digest, None);
}

#[test]
fn a_head_in_parts_needs_more_until_it_is_whole() {
    let bytes = bytes();
    let whole = bytes.len() - container().payloads[0].len();
    for len in 0..whole {
        assert_eq!(Head::parse(&bytes[..len]), Ok(None), "{len}");
        assert_eq!(
            Container::parse(&bytes[..len]),
            Err(ContainerError::CutShort),
            "{len}"
        );
    }
    assert_eq!(Head::parse(&bytes).unwrap().unwrap().1, whole);
    assert!(whole <= HEAD_LEN_MAX);
}

#[test]
fn a_wrong_file_says_what_is_wrong_with_it() {
    let refused = |change: fn(&mut Vec<u8>)| {
        let mut bytes = bytes();
        change(&mut bytes);
        Container::parse(&bytes).unwrap_err()
    };
    assert_eq!(
        refused(|bytes| bytes[3] = b'2'),
        ContainerError::NotContainer
    );
    assert_eq!(Head::parse(b"\x7fEL"), Err(ContainerError::NotContainer));
    assert_eq!(
        refused(|bytes| bytes[4] = 0x7F),
        ContainerError::ManifestLength(0x7F00 + 0x9F)
    );
    assert_eq!(
        refused(|bytes| bytes[4..6].fill(0)),
        ContainerError::ManifestLength(0)
    );
    assert_eq!(refused(|bytes| bytes[6] ^= 1), ManifestFault::Prefix.into());
    // The last byte of the source block belongs to a digest; the byte before the name is its length.
    assert_eq!(
        refused(|bytes| bytes[6 + 0x9F + 2] = 200),
        ContainerError::Source
    );
    let longer = refused(|bytes| bytes.push(0));
    assert_eq!(
        longer,
        ContainerError::Size {
            found: 23,
            stated: 22
        }
    );
    let shorter = refused(|bytes| bytes.truncate(bytes.len() - 1));
    assert_eq!(
        shorter,
        ContainerError::Size {
            found: 21,
            stated: 22
        }
    );
    let damaged = refused(|bytes| *bytes.last_mut().unwrap() ^= 1);
    assert!(
        matches!(damaged, ContainerError::Digest { .. }),
        "{damaged}"
    );
    assert!(damaged.to_string().contains("damaged"));
}

proptest! {
    #[test]
    fn any_flipped_byte_is_an_error_or_only_about_the_source(at: prop::sample::Index, bit in 0..8_u32) {
        let mut bytes = bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(read) = Container::parse(&bytes) {
            // A board checks the signatures; nothing here may hide that the body differs.
            let body_changed = read.head.manifest != container().head.manifest;
            prop_assert!(body_changed || read.head.origins != container().head.origins);
            prop_assert_eq!(read.payloads, container().payloads);
        }
    }

    #[test]
    fn any_flipped_byte_of_a_file_of_several_payloads_is_an_error_or_only_about_a_source(
        at: prop::sample::Index, bit in 0..8_u32,
    ) {
        let whole = several(&[b"the child's", b"the main one's", b"x"]);
        let mut bytes = written(&whole);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(read) = Container::parse(&bytes) {
            let body_changed = read.head.manifest != whole.head.manifest;
            prop_assert!(body_changed || read.head.origins != whole.head.origins);
            prop_assert_eq!(read.payloads, whole.payloads);
        }
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..1200)) {
        prop_assert!(Container::parse(&bytes).is_err());
        if bytes.len() >= 6 {
            bytes[..5].copy_from_slice(b"DHI1\0");
            prop_assert!(Container::parse(&bytes).is_err());
        }
    }
}

#[test]
fn a_check_stands_in_the_note_and_is_made_again() {
    use crate::image::check::{Check, CheckFault};
    let mut checked = container();
    checked.head.origins[0].check = Some(Check::Sdu { base: 0x2000 });
    let head = checked.head.to_bytes();
    assert!(head.ends_with(b"\x0asdu:0x2000"));
    assert_eq!(
        Head::parse(&head),
        Ok(Some((checked.head.clone(), head.len())))
    );
    for cut in 0..head.len() {
        assert!(!matches!(Head::parse(&head[..cut]), Ok(Some(_))), "{cut}");
    }
    // The payload of these tests is no firmware.
    let mut bytes = Vec::new();
    checked.write(&mut bytes).unwrap();
    assert_eq!(
        Container::parse(&bytes),
        Err(ContainerError::Check(CheckFault::TooShort(
            checked.payloads[0].len() as u64
        )))
    );
    let record = checked.head.record(jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(record.check.as_deref(), Some("sdu:0x2000"));
    // From a newer version: not taken for nothing.
    let newer = [&head[..head.len() - 10], b"new:0x2000"].concat();
    assert_eq!(
        Head::parse(&newer),
        Err(ContainerError::UnknownCheck("new:0x2000".into()))
    );
    let empty = container().head.to_bytes().len();
    let mut empty_check = container().head.to_bytes();
    let manifest = usize::from(u16::from_be_bytes([empty_check[4], empty_check[5]]));
    let source = empty - 8 - manifest + 1;
    empty_check[6 + manifest..8 + manifest]
        .copy_from_slice(&u16::try_from(source).unwrap().to_be_bytes());
    empty_check.push(0);
    assert_eq!(Head::parse(&empty_check), Err(ContainerError::Source));
}

/// A file for components 1 and 0, of these payloads.
fn several(payloads: &[&[u8]]) -> Container {
    use crate::image::sign::{Part, Release, sign_parts};
    let release = Release {
        product: "lamp".into(),
        devices: Vec::new(),
        security: false,
        trial: Default::default(),
    };
    let part = |component, version: &str, counter| Part {
        component,
        version: version.into(),
        counter,
        floor: counter - 1,
        hardware: 0..=u16::from(component),
        requires: Vec::new(),
    };
    let parts = [
        part(1, "2.0", 20),
        part(0, "1.4", 14),
        part(7, "0.1", 3),
        part(2, "9", 9),
    ];
    let images: Vec<_> = parts.iter().zip(payloads.iter().copied()).collect();
    let manifest = sign_parts(&release, &images, &[SigningKey::from_bytes(&[1; 32])]).unwrap();
    let origins = payloads.iter().map(|payload| Origin {
        source: Source {
            name: format!("{} bytes.bin", payload.len()),
            format: Format::Raw,
            size: payload.len() as u64,
            sha256: digest(payload),
        },
        check: None,
    });
    Container {
        head: Head {
            manifest,
            origins: origins.collect(),
        },
        payloads: payloads.iter().map(|payload| payload.to_vec()).collect(),
    }
}

fn written(container: &Container) -> Vec<u8> {
    let mut bytes = Vec::new();
    container.write(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_file_with_one_to_four_payloads_reads_back() {
    let payloads: [&[u8]; 4] = [b"the child's", b"the main one's", b"x", b"the fourth"];
    for count in 1..=4 {
        let container = several(&payloads[..count]);
        let bytes = written(&container);
        assert_eq!(Container::parse(&bytes), Ok(container.clone()), "{count}");
        for len in 0..container.head.to_bytes().len() {
            assert_eq!(Head::parse(&bytes[..len]), Ok(None), "{count}: {len}");
        }
    }
    let head = several(&payloads[..2]).head;
    assert_eq!(head.name().to_string(), "lamp/1,0@2.0,1.4");
    let record = head.record(jiff::Timestamp::UNIX_EPOCH);
    assert_eq!((record.size, record.component, record.counter), (25, 1, 20));
    assert_eq!(record.digest, digest(payloads[0]).to_string());
    let entries = record.entries();
    assert_eq!((entries.len(), entries[1].component), (2, 0));
    assert_eq!((entries[1].counter, entries[1].floor), (14, 13));
    assert_eq!((entries[0].hardware, entries[1].hardware), ((0, 1), (0, 0)));
    assert_eq!(entries[1].digest, digest(payloads[1]).to_string());
    // One entry is kept as it always was.
    let single = several(&payloads[..1]).head;
    let record = single.record(jiff::Timestamp::UNIX_EPOCH);
    assert_eq!((record.entries.len(), record.entries().len()), (0, 1));
}

#[test]
fn a_wrong_file_of_several_payloads_names_the_component() {
    let whole = several(&[b"the child's", b"the main one's"]);
    let refused = |bytes: &[u8]| Container::parse(bytes).unwrap_err();
    let bytes = written(&whole);
    let end = bytes.len();
    assert_eq!(refused(&bytes[..end - 14]), ContainerError::Missing(0));
    assert_eq!(refused(&bytes[..end - 25]), ContainerError::Missing(1));
    let of = |component, fault| ContainerError::Of {
        component,
        fault: Box::new(fault),
    };
    let cut = |found, stated| ContainerError::Size { found, stated };
    assert_eq!(refused(&bytes[..end - 1]), of(0, cut(13, 14)));
    assert_eq!(refused(&bytes[..end - 15]), of(1, cut(10, 11)));
    assert_eq!(
        refused(&[&bytes[..], b"!"].concat()),
        ContainerError::TooLong(2)
    );
    for (at, component) in [(end - 1, 0), (end - 15, 1)] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        let error = refused(&damaged).to_string();
        assert!(error.starts_with(&format!("component {component}: the payload is damaged")));
    }
    let swapped = Container {
        payloads: vec![b"the main one's".to_vec(), b"the child's".to_vec()],
        ..whole.clone()
    };
    let order = |component, found| ContainerError::Order { component, found };
    assert_eq!(refused(&written(&swapped)), order(1, 0));
    // The child's payload is not there at all.
    let without = Container {
        payloads: vec![b"the main one's".to_vec()],
        ..whole.clone()
    };
    assert_eq!(refused(&written(&without)), order(1, 0));
    // A block about a source too few: the first payload is taken for it.
    let mut blocks = whole;
    blocks.head.origins.pop();
    assert_eq!(refused(&written(&blocks)), ContainerError::Source);
}

/// The file of `container()` by the layouts of spec/protocol.md section 6 and of this module, signed by OpenSSL: what is
/// in the field must stay readable, and what is signed now must be readable there.
#[test]
fn a_file_for_one_component_has_not_changed_by_a_byte() {
    let golden = include_str!("container_golden.hex");
    let golden: String = golden.split_whitespace().collect();
    let mut bytes = vec![0; golden.len() / 2];
    assert!(dialhome_proto::id::decode_hex(&golden, &mut bytes));
    assert_eq!(self::bytes(), bytes);
    assert_eq!(Container::parse(&bytes), Ok(container()));
}
