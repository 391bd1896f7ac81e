//! Lines for the developer, and arguments from the one who started the board: ARM
//! semihosting (`bkpt 0xab`), which QEMU answers. Numbers are written without
//! `core::fmt`, which alone would be larger than some of the components here.

use core::arch::asm;
use core::ffi::CStr;

const SYS_WRITE0: u32 = 0x04;
const SYS_GET_CMDLINE: u32 = 0x15;
const SYS_EXIT_EXTENDED: u32 = 0x20;
/// ADP_Stopped_ApplicationExit: the program ended by itself.
const APPLICATION_EXIT: u32 = 0x20026;
/// Bytes that are handed to the debugger at once, without the zero at their end.
const PIECE: usize = 63;

/// One semihosting call.
///
/// # Safety
/// `argument` must be what the operation asks for: for the operations of this file the
/// address of a block, or of a text that ends with a zero, which lives until the call
/// returns.
unsafe fn call(operation: u32, argument: usize) -> u32 {
    let result: u32;
    // SAFETY: the breakpoint changes r0 only, which is named, and memory that the
    // argument points to, which the caller answers for.
    unsafe {
        asm!(
            "bkpt 0xab",
            inout("r0") operation => result,
            in("r1") argument,
            options(nostack, preserves_flags)
        );
    }
    result
}

/// Writes a text, without a line's end.
pub fn text(text: &str) {
    for piece in text.as_bytes().chunks(PIECE) {
        let mut buffer = [0_u8; PIECE + 1];
        for (to, from) in buffer.iter_mut().zip(piece) {
            *to = *from;
        }
        // SAFETY: the buffer is one byte longer than any piece, so a zero ends it.
        unsafe { call(SYS_WRITE0, buffer.as_ptr().addr()) };
    }
}

/// Writes one line.
pub fn line(words: &str) {
    text(words);
    text("\n");
}

/// Writes one line: words, a blank, and a number.
pub fn number(words: &str, number: u32) {
    text(words);
    text(" ");
    let mut digits = [b'0'; 10];
    let mut rest = number;
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        used += 1;
        if rest == 0 {
            break;
        }
    }
    let first = digits.len() - used;
    let digits = digits.get(first..).unwrap_or(&[]);
    line(core::str::from_utf8(digits).unwrap_or("?"));
}

/// The arguments that the board was started with, the program's name first, as one text
/// with blanks between them; empty where there are none or `buffer` is too short.
pub fn arguments(buffer: &mut [u8]) -> &str {
    let mut block = [buffer.as_mut_ptr().addr(), buffer.len()];
    // SAFETY: the block names a buffer and its length, as the operation asks; both live
    // until the call returns.
    let result = unsafe { call(SYS_GET_CMDLINE, block.as_mut_ptr().expose_provenance()) };
    // SAFETY: the block is a local array; the debugger has written its second word.
    let len = unsafe { core::ptr::read_volatile(&raw const block[1]) };
    if result != 0 {
        return "";
    }
    let used = core::hint::black_box(buffer).get(..len).unwrap_or(&[]);
    match CStr::from_bytes_until_nul(used) {
        Ok(text) => text.to_str().unwrap_or(""),
        Err(_) => core::str::from_utf8(used).unwrap_or(""),
    }
}

/// Ends the emulation with an exit code.
pub fn exit(code: u32) -> ! {
    let block = [APPLICATION_EXIT, code];
    loop {
        // SAFETY: the block holds the reason and the code, as the operation asks.
        unsafe { call(SYS_EXIT_EXTENDED, block.as_ptr().addr()) };
    }
}
