//! `make size`: what the client costs on thumbv6m, and whether that is within its budget.
//!
//! The programs are those of boards/size: `empty`, the whole `client`, `nopanic` (the same
//! with stubs for cryptography, which links only where no panic can be reached), and
//! `stack`, which runs in QEMU.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::{env, fs};

use dialhome_board_harness::Error;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SectionKind};

/// A number that may not grow: `budget` is what was asked for, `most` what is let through.
/// Where `most` is above the budget, that is how far the client is from it today.
struct Limit {
    what: &'static str,
    budget: u64,
    most: u64,
}

const FLASH: Limit = Limit {
    what: "flash over the empty program",
    budget: 48 * 1024,
    most: 62_592,
};
const PLAIN: Limit = Limit {
    what: "of that, not cryptography",
    budget: 12 * 1024,
    most: 30_720,
};
/// With every feature: nothing was asked for, and it may not grow either.
const FLASH_FULL: Limit = Limit {
    what: "flash, with rotation and gateway-lists",
    budget: 65_408,
    most: 65_408,
};
const RAM: Limit = Limit {
    what: "static RAM, 1,090 of it to receive",
    budget: 3 * 1024,
    most: 3 * 1024,
};
const STACK: Limit = Limit {
    what: "peak stack of a whole update",
    budget: 10 * 1024,
    most: 10 * 1024,
};

/// `noise-protocol` writes its protocol's name together with `write!`: texts only, no
/// numbers. Nothing else may format.
const BY_NOISE: &[&str] = &[
    "core::fmt::write",
    "<core::fmt::Formatter>::pad",
    "core::fmt::Write::write_fmt",
    "<arrayvec::array_string::ArrayString<_> as core::fmt::Write>::write_str",
    "<arrayvec::array_string::ArrayString<_> as core::fmt::Write>::write_char",
    "<&T as core::fmt::Display>::fmt",
];

/// Crates by the row that they stand in; what is not here stands in a row of its own.
const ROWS: &[(&str, &[&str])] = &[
    (
        "ed25519 and the curve",
        &[
            "ed25519_dalek",
            "ed25519",
            "curve25519_dalek",
            "subtle",
            "signature",
        ],
    ),
    ("x25519", &["x25519_dalek"]),
    ("noise-protocol", &["noise_protocol", "arrayvec"]),
    (
        "chacha20poly1305",
        &[
            "chacha20poly1305",
            "chacha20",
            "poly1305",
            "cipher",
            "aead",
            "universal_hash",
            "inout",
        ],
    ),
    (
        "sha2, hkdf",
        &[
            "sha2",
            "hkdf",
            "hmac",
            "digest",
            "block_buffer",
            "crypto_common",
            "hybrid_array",
        ],
    ),
    ("core, compiler_builtins", &["core", "compiler_builtins"]),
    (
        "the program's own stand-ins",
        &["dialhome_board_size", "cortex_m_rt", "cortex_m"],
    ),
];

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "size: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool, Error> {
    let target = env::var_os("CARGO_TARGET_DIR").map_or(boards()?.join("../../target"), Into::into);
    let full = size_programs(
        &target.join("boards"),
        &["--bins", "--features", "full"],
        &[],
    )?;
    let stack = stack(&full.join("stack"))?;
    let full = Program::read(&full.join("client"))?;
    let built = size_programs(&target.join("boards"), &["--bins"], &[])?;
    let client = Program::read(&built.join("client"))?;
    let empty = Program::read(&built.join("empty"))?;
    nopanic(&target, "stub-crypto,full")?;
    let stubbed = Program::read(&nopanic(&target, "stub-crypto")?)?;

    let mut out = String::new();
    out.push_str("   bytes  component of the client's flash\n");
    let mut rows: Vec<_> = client.components.iter().collect();
    rows.sort_by_key(|(_, bytes)| std::cmp::Reverse(**bytes));
    for (name, bytes) in rows {
        out.push_str(&format!("{bytes:8}  {name}\n"));
    }
    out.push_str(&format!("{:8}  in all\n\n", client.flash));

    let flash = client.flash.saturating_sub(empty.flash);
    let plain = stubbed.flash.saturating_sub(empty.flash);
    out.push_str("   bytes    budget  what\n");
    let mut good = true;
    for (limit, found) in [
        (FLASH, flash),
        (PLAIN, plain),
        (FLASH_FULL, full.flash.saturating_sub(empty.flash)),
        (RAM, full.ram.max(client.ram).saturating_sub(empty.ram)),
        (STACK, stack),
    ] {
        let verdict = if found > limit.most {
            good = false;
            "  FAILED: it may not grow beyond this"
        } else if found > limit.budget {
            "  above its budget, and no more than before"
        } else {
            ""
        };
        let Limit { what, budget, .. } = limit;
        out.push_str(&format!("{found:8}  {budget:8}  {what}{verdict}\n"));
    }
    out.push_str("no panic can be reached in the client and its protocol: `nopanic` links\n");
    for name in &stubbed.formatting {
        good = false;
        out.push_str(&format!("FAILED: the client links {name}\n"));
    }
    for name in client.formatting.iter().chain(&full.formatting) {
        let is_known = BY_NOISE.iter().any(|known| name == known);
        good &= is_known;
        let verdict = if is_known {
            "noise-protocol"
        } else {
            "FAILED: somebody"
        };
        out.push_str(&format!("{verdict} links {name}\n"));
    }
    if stubbed.formatting.is_empty() {
        out.push_str("no formatting is linked by the client and its protocol\n");
    }
    std::io::stdout()
        .write_all(out.as_bytes())
        .map_err(Error::io("the table could not be printed"))?;
    Ok(good)
}

/// What a linked program takes.
struct Program {
    /// Bytes of flash, initial values of variables included.
    flash: u64,
    /// Bytes of static RAM.
    ram: u64,
    components: BTreeMap<String, u64>,
    /// Functions that turn values into text.
    formatting: Vec<String>,
}

impl Program {
    fn read(path: &Path) -> Result<Self, Error> {
        let image = |problem: String| Error::Image {
            path: path.to_owned(),
            problem,
        };
        let bytes = fs::read(path).map_err(Error::file(path))?;
        let file = object::File::parse(&*bytes).map_err(|error| image(error.to_string()))?;
        let (mut flash, mut ram) = (0, 0);
        let mut in_flash = Vec::new();
        for section in file.sections() {
            match section.kind() {
                SectionKind::Text | SectionKind::ReadOnlyData | SectionKind::ReadOnlyString => {
                    flash += section.size();
                }
                // Initial values lie in flash, and are copied.
                SectionKind::Data => {
                    flash += section.size();
                    ram += section.size();
                }
                SectionKind::UninitializedData => {
                    ram += section.size();
                    continue;
                }
                _ => continue,
            }
            in_flash.push(section.index());
        }
        let mut components = BTreeMap::new();
        let mut formatting = Vec::new();
        let mut known = BTreeMap::new();
        for symbol in file.symbols() {
            let place = symbol.section_index();
            if symbol.size() > 0 && place.is_some_and(|place| in_flash.contains(&place)) {
                let name = symbol.name().map_err(|error| image(error.to_string()))?;
                // Two names of one function count once.
                known.insert(symbol.address(), (symbol.size(), name.to_owned()));
            }
        }
        let mut named = 0;
        for (size, name) in known.into_values() {
            let name = format!("{:#}", rustc_demangle::demangle(&name));
            *components.entry(row(&name)).or_default() += size;
            named += size;
            if name.contains("core::fmt::") || name.contains("fmt::Display") {
                formatting.push(name);
            }
        }
        components.insert(
            "constants and padding without a name".to_owned(),
            flash.saturating_sub(named),
        );
        Ok(Self {
            flash,
            ram,
            components,
            formatting,
        })
    }
}

/// The row of a symbol: by the crate of the function, or of the type that it belongs to.
fn row(name: &str) -> String {
    // The client is called from one place only, and so becomes a part of it.
    if name.starts_with("dialhome_board_size::whole::run") || name.starts_with("client::") {
        return "dialhome_device".to_owned();
    }
    let mut path = name;
    // `<&[A] as B>::c` is A's, unless A is a type of the language itself: then it is B's.
    while let Some(inner) = path.strip_prefix(['<', '&', '[', '(', '*']) {
        path = inner;
    }
    let first = |path: &str| {
        let end = path.find(|c: char| !c.is_alphanumeric() && c != '_');
        path.get(..end.unwrap_or(path.len()))
            .unwrap_or(path)
            .to_owned()
    };
    let mut of = first(path.trim_start_matches("mut ").trim_start_matches("const "));
    if !path
        .get(of.len()..)
        .is_some_and(|rest| rest.starts_with("::"))
        && let Some((_, after)) = path.split_once(" as ")
    {
        of = first(after);
    }
    let is_rust = name.contains("::");
    if !is_rust {
        // Without a path: the compiler's own helpers, and start-up code.
        of = if name.starts_with("__aeabi") || name.starts_with("mem") || name.starts_with("__") {
            "compiler_builtins".to_owned()
        } else {
            "cortex_m_rt".to_owned()
        };
    }
    ROWS.iter()
        .find(|(_, crates)| crates.contains(&of.as_str()))
        .map_or(of, |(row, _)| (*row).to_owned())
}

fn boards() -> Result<PathBuf, Error> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_owned)
        .ok_or_else(|| Error::Build("the harness has no parent folder".to_owned()))
}

/// Builds the size programs alone, so that no other board's features are among theirs;
/// returns the folder that they are in.
fn size_programs(target: &Path, what: &[&str], config: &[&str]) -> Result<PathBuf, Error> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--release", "--target", "thumbv6m-none-eabi"])
        .args(["--locked", "--color", "never", "-p", "dialhome-board-size"])
        .args(what)
        .args(config)
        .current_dir(boards()?)
        .env("CARGO_TARGET_DIR", target)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .map_err(Error::io("cargo could not be started"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(Error::Build(if words.contains("a_panic_is_reachable") {
            format!("a panic can be reached in the client or its protocol\n{words}")
        } else {
            words.into_owned()
        }));
    }
    Ok(target.join("thumbv6m-none-eabi/release"))
}

/// Builds the client with stubs for cryptography; where that does not link, a panic can
/// be reached.
fn nopanic(target: &Path, features: &str) -> Result<PathBuf, Error> {
    let stubs = r#"target.thumbv6m-none-eabi.rustflags=["--cfg","dialhome_stub_crypto"]"#;
    let what = ["--bin", "nopanic", "--features", features];
    let built = size_programs(&target.join("boards-stubbed"), &what, &["--config", stubs])?;
    Ok(built.join("nopanic"))
}

/// Runs the update in QEMU, and returns the peak that it prints.
fn stack(elf: &Path) -> Result<u64, Error> {
    let output = Command::new("timeout")
        .args(["--kill-after=5", "180", "qemu-system-arm"])
        .args([
            "-M",
            "lm3s6965evb",
            "-nographic",
            "-monitor",
            "none",
            "-serial",
            "null",
        ])
        .args(["-semihosting-config", "enable=on,target=native", "-kernel"])
        .arg(elf)
        .stdin(Stdio::null())
        .output()
        .map_err(Error::io("qemu-system-arm could not be started"))?;
    let words = [output.stdout, output.stderr].concat();
    let words = String::from_utf8_lossy(&words);
    let peak = words
        .lines()
        .find_map(|line| line.strip_prefix("peak "))
        .and_then(|number| number.trim().parse().ok());
    match peak {
        Some(peak) if output.status.success() => {
            let _ = writeln!(std::io::stdout(), "stack, as it grew:\n{words}");
            Ok(peak)
        }
        _ => Err(Error::Build(format!(
            "the update did not end well on the board:\n{words}"
        ))),
    }
}
