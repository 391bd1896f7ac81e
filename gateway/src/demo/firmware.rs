//! The image that the demo sends, and the commands by which a board takes it.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::process::Command;

use super::site::{SiteError, text};
use crate::image::hex::{self, HexError, Select};

/// Long enough for any program to say its version.
const VERSION_WITHIN: Duration = Duration::from_secs(5);

/// Makes an executable copy of the image behind `$DIALHOME_IMAGE`, and runs it.
const INSTALL_PROGRAM: &str = r#"set -e
cp "$DIALHOME_IMAGE" "$1/firmware.new"
chmod 755 "$1/firmware.new"
"$1/firmware.new" --version
mv "$1/firmware.new" "$1/firmware""#;

/// The installed copy is the image, and it runs.
const TEST_PROGRAM: &str = r#"set -e
cmp "$DIALHOME_IMAGE" "$1/firmware"
"$1/firmware" --version"#;

/// Copies the image behind `$DIALHOME_IMAGE`.
const INSTALL_DATA: &str = r#"set -e
cp "$DIALHOME_IMAGE" "$1/firmware.new"
mv "$1/firmware.new" "$1/firmware""#;

/// The installed copy is the image, and has the digest that the operator signed.
const TEST_DATA: &str = r#"set -e
cmp "$DIALHOME_IMAGE" "$1/firmware"
echo "$2  $1/firmware" | sha256sum --check --status"#;

/// What runs is the installed copy, so its bytes are asked, not those that were received.
const RUNNING: &str = r#"sha256sum "$1/firmware" | cut -d " " -f 1"#;

/// The file to send.
#[derive(Clone, Debug)]
pub(super) struct Firmware {
    pub(super) path: PathBuf,
    /// It is a program of this machine that says its version: boards run it.
    pub(super) runs: bool,
    /// An address in the largest part of an Intel HEX file that has several far from each other.
    pub(super) segment: Option<u32>,
}

impl Firmware {
    /// Looks at the file, and tries whether it runs where its mode says so.
    pub(super) async fn open(path: &Path) -> Result<Self, SiteError> {
        let problem = || SiteError::io(format!("the image {} cannot be read", path.display()));
        let path = fs::canonicalize(path).map_err(problem())?;
        let mut magic = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(4).read_to_end(&mut magic))
            .map_err(problem())?;
        if magic.is_empty() {
            let empty = io::Error::new(
                io::ErrorKind::InvalidData,
                "it is empty; give a firmware image",
            );
            return Err(problem()(empty));
        }
        let mode = fs::metadata(&path).map_err(problem())?.permissions().mode();
        let runs = mode & 0o111 != 0 && magic == *b"\x7FELF" && says_its_version(&path).await;
        let segment = match path.extension() {
            Some(extension) if extension == "hex" => {
                largest_segment(&fs::read(&path).map_err(problem())?)
            }
            _ => None,
        };
        Ok(Self {
            path,
            runs,
            segment,
        })
    }

    /// What the boards do with it, for people.
    pub(super) fn treatment(&self) -> &'static str {
        if self.runs {
            "each board makes an executable copy and runs `firmware --version`, as installation and as self-test"
        } else {
            "it is no program of this machine, so each board copies it and checks the copy by cmp and sha256sum"
        }
    }

    /// The tables `[install]`, `[running]` and `[self_test]` of an agent that keeps its copy in `folder`.
    pub(super) fn commands(&self, folder: &Path, digest: &str) -> String {
        let (install, test) = if self.runs {
            (INSTALL_PROGRAM, TEST_PROGRAM)
        } else {
            (INSTALL_DATA, TEST_DATA)
        };
        let folder = text(folder);
        let table = |name, script| {
            let command = ["sh", "-c", script, "sh", &folder, digest].map(toml::Value::from);
            format!(
                "[{name}]\ncommand = {}\ntimeout_s = 30\n",
                toml::Value::Array(command.into())
            )
        };
        [
            table("install", install),
            table("running", RUNNING),
            table("self_test", test),
        ]
        .join("\n")
    }
}

/// Which part an operator would most likely mean, where there is a choice.
fn largest_segment(hex: &[u8]) -> Option<u32> {
    match hex::flatten(hex, &Select::Whole) {
        Err(HexError::Segments(segments)) => segments
            .iter()
            .max_by_key(|segment| segment.size())
            .map(|segment| segment.first),
        // One part; or a fault, of which `image sign` says more.
        _ => None,
    }
}

async fn says_its_version(program: &Path) -> bool {
    let mut command = Command::new(program);
    command
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let said = tokio::time::timeout(VERSION_WITHIN, command.status()).await;
    matches!(said, Ok(Ok(status)) if status.success())
}

/// SHA-256 of a file, 64 hexadecimal digits.
pub(super) fn digest_of(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path)?, &mut HashWriter(&mut hash))?;
    Ok(hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn data_is_told_from_a_program() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("image.bin");
        fs::write(&data, b"\x7FELF but not really").unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(!Firmware::open(&data).await.unwrap().runs);
        let shell = fs::canonicalize("/bin/cat").unwrap();
        assert!(Firmware::open(&shell).await.unwrap().runs);
    }

    #[tokio::test]
    async fn of_several_segments_the_largest_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("two.hex");
        let text =
            ":020000040001F9\n:020000000102FB\n:020000040002F8\n:03000000010203F7\n:00000001FF\n";
        fs::write(&file, text).unwrap();
        assert_eq!(Firmware::open(&file).await.unwrap().segment, Some(0x2_0000));
        fs::write(&file, ":020000000102FB\n:00000001FF\n").unwrap();
        assert_eq!(Firmware::open(&file).await.unwrap().segment, None);
    }

    #[tokio::test]
    async fn an_empty_or_missing_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty.bin");
        fs::write(&empty, b"").unwrap();
        let error = Firmware::open(&empty).await.unwrap_err().to_string();
        assert!(
            error.contains("empty.bin") && error.contains("it is empty"),
            "{error}"
        );
        let error = Firmware::open(&folder.path().join("none.bin"))
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("none.bin"), "{error}");
    }

    #[tokio::test]
    async fn the_commands_are_toml_and_do_what_they_say() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("it's \"an\" image");
        fs::write(&image, b"bytes").unwrap();
        let firmware = Firmware::open(&image).await.unwrap();
        let digest = digest_of(&image).unwrap();
        let tables: toml::Table = firmware.commands(folder.path(), &digest).parse().unwrap();
        let run = async |name: &str| {
            let command = tables[name]["command"].as_array().unwrap();
            let words: Vec<_> = command.iter().map(|word| word.as_str().unwrap()).collect();
            let mut command = Command::new(words[0]);
            command
                .args(&words[1..])
                .env("DIALHOME_IMAGE", &image)
                .stderr(Stdio::null())
                .stdout(Stdio::null());
            command.status().await.unwrap().success()
        };
        assert!(!run("self_test").await, "nothing is installed yet");
        assert!(run("install").await);
        assert!(run("self_test").await);
        fs::write(folder.path().join("firmware"), b"other").unwrap();
        assert!(!run("self_test").await);
    }
}
