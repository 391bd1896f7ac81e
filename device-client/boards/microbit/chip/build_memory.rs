// Linker scripts from the memory map, for the build scripts of the bootloader and of the
// firmware, which include this file.

#[path = "src/map.rs"]
#[expect(dead_code, reason = "each program needs a part of the map")]
mod map;

/// Writes memory.x, which cortex-m-rt's link.x includes.
fn write_memory(flash: map::Part, ram: map::Part) {
    let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let script = format!(
        "MEMORY\n{{\n  FLASH : ORIGIN = {:#x}, LENGTH = {}\n  RAM : ORIGIN = {:#x}, LENGTH = {}\n}}\n",
        flash.start, flash.len, ram.start, ram.len
    );
    std::fs::write(out.join("memory.x"), script).expect("OUT_DIR can be written");
    println!("cargo::rustc-link-search={}", out.display());
    println!("cargo::rustc-link-arg-bins=--nmagic");
    println!("cargo::rustc-link-arg-bins=-Tlink.x");
}
