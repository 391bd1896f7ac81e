use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::image::source::digest;

/// From the Debian package firmware-microbit-micropython 1.0.1.
const MICROPYTHON: &str = "/usr/share/firmware-microbit-micropython/firmware.hex";

fn micropython() -> Vec<u8> {
    std::fs::read(MICROPYTHON).unwrap_or_else(|error| {
        panic!("{MICROPYTHON}: {error}\nrun: apt-get install -y firmware-microbit-micropython")
    })
}

fn record(kind: u8, offset: u16, data: &[u8]) -> String {
    let mut bytes = vec![u8::try_from(data.len()).unwrap()];
    bytes.extend(offset.to_be_bytes());
    bytes.push(kind);
    bytes.extend(data);
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    bytes.push(sum.wrapping_neg());
    let mut line = ":".to_owned();
    for byte in bytes {
        write!(line, "{byte:02X}").unwrap();
    }
    line + "\n"
}

fn data(address: u32, data: &[u8]) -> String {
    let upper = u16::try_from(address >> 16).unwrap();
    record(4, 0, &upper.to_be_bytes()) + &record(0, (address & 0xFFFF) as u16, data)
}

const END: &str = ":00000001FF\n";

fn flat(text: &str) -> Result<Flat, HexError> {
    flatten(text.as_bytes(), &Select::Whole)
}

#[test]
fn the_real_micropython_has_28_bytes_far_away_and_says_so() {
    let far = Segment {
        first: 0x1000_10C0,
        last: 0x1000_10DB,
    };
    let Err(error @ HexError::Segments(_)) = flatten(&micropython(), &Select::Whole) else {
        panic!("two segments are an error");
    };
    let text = error.to_string();
    assert!(text.contains("2 segments"), "{text}");
    assert!(text.contains("0x00000000-0x0003"), "{text}");
    assert!(text.contains("0x100010C0-0x100010DB (28 bytes)"), "{text}");
    let hint = error.hint().unwrap();
    assert!(hint.contains("--segment 0x00000000"), "{hint}");
    assert!(hint.contains("--skip 0x100010C0-0x100010DB"), "{hint}");

    // What the hint says leads to one and the same image.
    let segment = flatten(&micropython(), &Select::Segment(0)).unwrap();
    let skip = flatten(&micropython(), &Select::Without(vec![far.first..=far.last])).unwrap();
    assert_eq!(segment, skip);
    assert_eq!(segment.base, 0);
    let small = flatten(&micropython(), &Select::Segment(0x1000_10C8)).unwrap();
    assert_eq!(
        (small.base, small.bytes.len(), small.filled),
        (0x1000_10C0, 28, 0)
    );
}

#[test]
fn the_real_micropython_is_the_image_that_another_reader_makes() {
    let image = flatten(&micropython(), &Select::Segment(0)).unwrap();
    // Digest and size by a reader of ten lines in another language.
    assert_eq!(image.bytes.len(), MICROPYTHON_SIZE);
    assert_eq!(image.filled, 0);
    assert_eq!(digest(&image.bytes).to_string(), MICROPYTHON_SHA256);
}

const MICROPYTHON_SIZE: usize = 243_852;
const MICROPYTHON_SHA256: &str = "b0888bc7388786d9b712d3f72c876754117be0794d4f022e12830882d1bd759b";

#[test]
fn a_gap_of_4_kib_is_filled_and_one_byte_more_is_not() {
    let image = flat(&(data(0x100, b"ab") + &data(0x102 + 4096, b"c") + END)).unwrap();
    assert_eq!(
        (image.base, image.filled, image.bytes.len()),
        (0x100, 4096, 4099)
    );
    assert_eq!(
        (&image.bytes[..2], &image.bytes[4098..]),
        (&b"ab"[..], &b"c"[..])
    );
    assert!(image.bytes[2..4098].iter().all(|byte| *byte == 0xFF));
    let error = flat(&(data(0x100, b"ab") + &data(0x103 + 4096, b"c") + END)).unwrap_err();
    let two = vec![
        Segment {
            first: 0x100,
            last: 0x101,
        },
        Segment {
            first: 0x1103,
            last: 0x1103,
        },
    ];
    assert_eq!(error, HexError::Segments(two));
    assert!(
        error.to_string().contains("0x00001103-0x00001103 (1 byte)"),
        "{error}"
    );
}

#[test]
fn records_in_any_order_make_one_image() {
    let image = flat(&(data(0x12, b"cd") + &data(0x10, b"ab") + END)).unwrap();
    assert_eq!(
        (image.base, image.bytes.as_slice(), image.filled),
        (0x10, &b"abcd"[..], 0)
    );
}

#[test]
fn both_kinds_of_extended_address_are_understood_and_starts_are_ignored() {
    let segment = record(2, 0, &[0x10, 0x00]) + &record(0, 4, b"x") + END;
    assert_eq!(flat(&segment).unwrap().base, 0x1_0004);
    let starts = record(3, 0, &[0; 4]) + &record(5, 0, &[0; 4]) + &record(0, 4, b"x") + END;
    assert_eq!(flat(&starts).unwrap().base, 4);
    let last = flat(&(data(0xFFFF_FFFF, b"x") + END)).unwrap();
    assert_eq!((last.base, last.bytes.len()), (0xFFFF_FFFF, 1));
    let all = Select::Without(vec![0xFFFF_FFFF..=0xFFFF_FFFF]);
    let none = flatten((data(0xFFFF_FFFF, b"x") + END).as_bytes(), &all);
    assert_eq!(none, Err(HexError::Empty { skipped: true }));
}

#[test]
fn a_record_past_the_last_address_is_an_error() {
    for text in [
        data(0xFFFF_FFFF, b"xy") + END,
        record(2, 0, &[0x10, 0x00]) + &record(0, 0xFFFF, b"xy") + END,
    ] {
        assert!(
            matches!(flat(&text), Err(HexError::Line { line: 2, .. })),
            "{text}"
        );
    }
}

#[test]
fn a_wrong_checksum_names_the_line_and_both_sums() {
    let good = record(0, 0, b"ab");
    let bad = good.replacen("6162", "6163", 1);
    let error = flat(&(good + &bad + END)).unwrap_err();
    assert_eq!(
        error,
        HexError::Checksum {
            line: 2,
            found: 0x3B,
            computed: 0x3A
        }
    );
    assert!(
        error.to_string().starts_with("line 2: the checksum is 3B"),
        "{error}"
    );
}

#[test]
fn a_line_that_is_no_record_is_named() {
    for (text, wanted) in [
        ("hello\n", "colon"),
        (":00\n", "short"),
        (":0000000G00\n", "characters"),
        (":0200000061629\n", "whole number"),
        (":0300000061623A\n", "length"),
        (":00000007F9\n", "07"),
    ] {
        let error = flat(&(record(0, 0, b"ab") + text + END)).unwrap_err();
        assert!(
            matches!(error, HexError::Line { line: 2, .. }),
            "{text}: {error:?}"
        );
        assert!(error.to_string().contains(wanted), "{error}");
    }
}

#[test]
fn overlap_names_both_lines() {
    let text = record(0, 0x10, b"abcd") + "\n" + &record(0, 0x13, b"xy") + END;
    let error = flat(&text).unwrap_err();
    assert_eq!(
        error,
        HexError::Overlap {
            line: 3,
            earlier: 1,
            address: 0x13
        }
    );
    // The same bytes twice are an overlap as well: a merge of two files went wrong.
    let twice = record(0, 0x10, b"abcd") + &record(0, 0x10, b"abcd") + END;
    assert!(matches!(
        flat(&twice),
        Err(HexError::Overlap {
            line: 2,
            earlier: 1,
            ..
        })
    ));
    // A long record over a short one in the middle of it.
    let within = record(0, 0x12, b"x") + &record(0, 0x10, b"abcd") + END;
    assert!(matches!(
        flat(&within),
        Err(HexError::Overlap {
            line: 2,
            earlier: 1,
            address: 0x12
        })
    ));
}

#[test]
fn files_without_data_or_end_are_told_apart() {
    assert_eq!(flat(""), Err(HexError::Empty { skipped: false }));
    assert_eq!(flat("\r\n\n"), Err(HexError::Empty { skipped: false }));
    assert_eq!(flat(END), Err(HexError::Empty { skipped: false }));
    assert_eq!(
        flat(&(record(0, 0, b"") + END)),
        Err(HexError::Empty { skipped: false })
    );
    assert_eq!(flat(&record(0, 0, b"ab")), Err(HexError::NoEnd));
    let two = record(0, 0, b"ab") + END + &record(0, 2, b"cd") + END;
    assert_eq!(flat(&two), Err(HexError::AfterEnd { line: 3 }));
    assert_eq!(flatten(b"\xff\xfe", &Select::Whole), Err(HexError::NotText));
}

#[test]
fn line_ends_and_blanks_at_the_end_do_not_matter() {
    let text = (record(0, 0, b"ab") + END).replace('\n', " \r\n") + "\r\n";
    assert_eq!(flat(&text).unwrap().bytes, b"ab");
}

#[test]
fn a_skipped_range_may_cut_a_record_and_must_hold_something() {
    let text = data(0x10, b"abcdefgh") + END;
    let skip =
        |ranges: &[RangeInclusive<u32>]| flatten(text.as_bytes(), &Select::Without(ranges.into()));
    let head = skip(&[0..=0x11]).unwrap();
    assert_eq!((head.base, head.bytes.as_slice()), (0x12, &b"cdefgh"[..]));
    let tail = skip(&[0x16..=0x100, 0x10..=0x10]).unwrap();
    assert_eq!((tail.base, tail.bytes.as_slice()), (0x11, &b"bcdef"[..]));
    let middle = skip(&[0x12..=0x13]).unwrap();
    assert_eq!(
        (middle.bytes.as_slice(), middle.filled),
        (&b"ab\xff\xffefgh"[..], 2)
    );
    assert_eq!(skip(&[0x10..=0x17]), Err(HexError::Empty { skipped: true }));
    let nothing = skip(&[0x18..=0x20]).unwrap_err();
    assert_eq!(
        nothing,
        HexError::NothingSkipped {
            first: 0x18,
            last: 0x20
        }
    );
}

#[test]
fn a_segment_is_chosen_by_any_of_its_addresses() {
    let text = data(0, b"ab") + &data(0x2000, b"cd") + &data(0x4000, b"ef") + END;
    let segment = |address| flatten(text.as_bytes(), &Select::Segment(address));
    assert_eq!(segment(0x2001).unwrap().bytes, b"cd");
    let Err(error @ HexError::NoSuchSegment { .. }) = segment(0x2002) else {
        panic!("no segment is there");
    };
    assert!(
        error
            .to_string()
            .contains("0x00004000-0x00004001 (2 bytes)"),
        "{error}"
    );
}

proptest! {
    #[test]
    fn any_image_in_any_order_of_records_comes_back(
        image in proptest::collection::vec(any::<u8>(), 1..3000),
        base in 0..0xFFFF_0000_u32,
        seed: u64,
    ) {
        let mut lines: Vec<_> = image
            .chunks(16)
            .zip((base..).step_by(16))
            // A record may not cross a boundary of 64 KiB here, so it is split there.
            .flat_map(|(bytes, address)| {
                let room = (0x1_0000 - (address & 0xFFFF)) as usize;
                let (low, high) = bytes.split_at(room.min(bytes.len()));
                let mut lines = vec![data(address, low)];
                if !high.is_empty() {
                    lines.push(data(address + u32::try_from(low.len()).unwrap(), high));
                }
                lines
            })
            .collect();
        let mut state = seed | 1;
        for at in (1..lines.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            lines.swap(at, (state >> 33) as usize % (at + 1));
        }
        let flat = flat(&(lines.concat() + END)).unwrap();
        prop_assert_eq!((flat.base, flat.bytes, flat.filled), (base, image, 0));
    }

    #[test]
    fn any_text_is_an_image_or_an_error(text in "(:[0-9A-F]{0,30}\n|.{0,20}\n){0,8}") {
        let flat = flatten(text.as_bytes(), &Select::Whole);
        prop_assert!(flat.is_err() || !flat.unwrap().bytes.is_empty());
    }
}
