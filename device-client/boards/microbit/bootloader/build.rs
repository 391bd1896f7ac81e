//! The linker script, from the memory map.

include!("../chip/build_memory.rs");

fn main() {
    write_memory(map::BOOTLOADER, map::BOOTLOADER_RAM);
    println!("cargo::rerun-if-changed=../chip/src/map.rs");
    println!("cargo::rerun-if-changed=../chip/build_memory.rs");
}
