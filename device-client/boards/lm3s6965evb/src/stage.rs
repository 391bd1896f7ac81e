//! The program in the first 16 KiB, in the place of Arduino's SDU: it starts the sketch
//! behind it. The part of SDU that takes UPDATE.BIN off the card is played by the
//! harness, because this machine's flash cannot be written.

use core::arch::global_asm;

global_asm!(
    ".section .sketch_boot, \"ax\"",
    ".balign 4",
    // The vector table: stack, reset, and two exceptions that end in a loop.
    ".word 0x20008000",
    ".word 1f + 1",
    ".word 2f + 1",
    ".word 2f + 1",
    ".thumb",
    "1: ldr r0, =0x00004000", // where the sketch begins
    "ldr r1, =0xE000ED08",    // VTOR
    "str r0, [r1]",
    "ldr r1, [r0]",
    "msr msp, r1",
    "ldr r1, [r0, #4]",
    "bx r1",
    "2: b 2b",
    ".balign 4",
    ".ltorg",
);
