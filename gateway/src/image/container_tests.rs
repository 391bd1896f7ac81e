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
    Container {
        head: Head {
            manifest,
            source,
            check: None,
        },
        payload,
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
    assert_eq!(record.digest, digest(&container.payload).to_string());
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
    raw.source.sha256 = digest(&container.payload);
    assert_eq!(raw.record(jiff::Timestamp::UNIX_EPOCH).source_digest, None);
}

#[test]
fn a_head_in_parts_needs_more_until_it_is_whole() {
    let bytes = bytes();
    let whole = bytes.len() - container().payload.len();
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
            prop_assert!(body_changed || read.head.source != container().head.source);
            prop_assert_eq!(read.payload, container().payload);
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
    checked.head.check = Some(Check::Sdu { base: 0x2000 });
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
            checked.payload.len() as u64
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
