//! Exceptions of the image that runs. The nRF51822 takes its vectors from address 0,
//! always, and that is the bootloader: so every vector but reset leads to the same one
//! of the image's own table, at the start of the active slot.

use core::arch::global_asm;

use dialhome_microbit_chip::map::{ACTIVE, BOOTLOADER, RAM};

// Every interrupt, and every exception without a handler of its own: cortex-m-rt names
// this symbol in all those places of the table. The core has saved r0 to r3, and LR
// holds the value that ends the exception: the image's handler returns by itself.
global_asm!(
    ".section .text.DefaultHandler, \"ax\"",
    ".global DefaultHandler",
    ".type DefaultHandler, %function",
    ".thumb_func",
    "DefaultHandler:",
    "mrs r0, ipsr",
    "lsls r0, r0, #2",
    "ldr r1, ={active}",
    "ldr r0, [r1, r0]",
    "bx r0",
    ".pool",
    ".size DefaultHandler, . - DefaultHandler",
    active = const ACTIVE.start,
);

// A fault: that of an image goes to the image's own handler, which knows what to leave
// for the next start. A fault of the bootloader itself (the saved program counter says
// whose it is), and one with a stack outside RAM, resets the chip.
global_asm!(
    ".section .text.HardFault, \"ax\"",
    ".global HardFault",
    ".type HardFault, %function",
    ".thumb_func",
    "HardFault:",
    "mrs r0, msp",
    "ldr r1, ={ram}",
    "cmp r0, r1",
    "blo 1f",
    "ldr r1, ={ram_end} - 32",
    "cmp r0, r1",
    "bhi 1f",
    "ldr r0, [r0, #24]",
    "ldr r1, ={bootloader_end}",
    "cmp r0, r1",
    "blo 1f",
    "b DefaultHandler",
    "1:",
    "ldr r0, =0xE000ED0C",
    "ldr r1, =0x05FA0004",
    "str r1, [r0]",
    "2: b 2b",
    ".pool",
    ".size HardFault, . - HardFault",
    ram = const RAM.start,
    ram_end = const RAM.end(),
    bootloader_end = const BOOTLOADER.end(),
);
