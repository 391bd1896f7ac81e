//! Whether the short functions of boards/runtime copy, clear and divide as they should,
//! at every alignment.

use core::hint::black_box;

/// Longest copy that is tried.
const LEN: usize = 24;

/// Tries every length and alignment, and divisors small and large.
pub(crate) fn is_right() -> bool {
    let copies = (0..=LEN).all(|len| (0..4).all(|to| (0..4).all(|from| copies(len, to, from))));
    let numbers = [0, 1, 2, 3, 7, 10, 255, 256, 1000, 65_537, 1 << 31, u32::MAX];
    let divides = numbers.iter().all(|dividend| {
        numbers
            .iter()
            .filter(|divisor| **divisor != 0)
            .all(|divisor| divides(*dividend, *divisor))
    });
    copies && divides
}

/// Bytes that differ, `salt` apart.
fn pattern(salt: u8) -> [u8; LEN + 8] {
    let mut bytes = [0; LEN + 8];
    let mut value = salt;
    for byte in &mut bytes {
        *byte = value;
        value = value.wrapping_add(7);
    }
    bytes
}

fn copies(len: usize, to: usize, from: usize) -> bool {
    let theirs = pattern(3);
    let before = pattern(101);
    let mut ours = before;
    let (Some(room), Some(source)) = (ours.get_mut(to..to + len), theirs.get(from..from + len))
    else {
        return false;
    };
    black_box(room).copy_from_slice(black_box(source));
    let copied = ours
        .iter()
        .zip(before)
        .enumerate()
        .all(|(at, (byte, old))| {
            let source = at.checked_sub(to).filter(|at| *at < len);
            let source = source.and_then(|at| theirs.get(from + at));
            *byte == source.copied().unwrap_or(old)
        });
    let Some(room) = ours.get_mut(to..to + len) else {
        return false;
    };
    black_box(room).fill(black_box(0));
    let cleared = ours.iter().enumerate().all(|(at, byte)| {
        let within = at.checked_sub(to).is_some_and(|at| at < len);
        !within || *byte == 0
    });
    copied && cleared && moves(len, to, from)
}

/// Within one buffer, where both ends may overlap.
fn moves(len: usize, to: usize, from: usize) -> bool {
    let before = pattern(3);
    let mut ours = before;
    black_box(&mut ours).copy_within(from..from + len, to);
    let from_before = |at: usize| before.get(at).copied();
    ours.iter().enumerate().all(|(at, byte)| {
        let moved = at.checked_sub(to).filter(|at| *at < len);
        Some(*byte) == from_before(moved.map_or(at, |at| from + at))
    })
}

fn divides(dividend: u32, divisor: u32) -> bool {
    let (dividend, divisor) = (black_box(dividend), black_box(divisor));
    let (quotient, rest) = (dividend / divisor, dividend % divisor);
    // By multiplication, which is the processor's own.
    rest < divisor
        && u64::from(quotient) * u64::from(divisor) + u64::from(rest) == u64::from(dividend)
}
