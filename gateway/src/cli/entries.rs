//! `--entry COMPONENT=FILE[@VERSION][,SETTING]...`: one of the images that a file for several components carries.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use dialhome_proto::manifest::is_version;

use super::sign::{Hardware, Require, Skip, address};
use crate::image::check::Check;

/// A firmware file and what its manifest entry says; what is not given here is what the command says for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntryArg {
    /// The component.
    pub component: u8,
    /// The firmware.
    pub file: PathBuf,
    /// Its version.
    pub version: Option<String>,
    /// Its counter.
    pub counter: Option<u64>,
    /// Its floor.
    pub floor: Option<u64>,
    /// Hardware revisions that it is for.
    pub hardware: Option<Hardware>,
    /// What other components must run.
    pub require: Vec<Require>,
    /// What the payload must have.
    pub check: Option<Check>,
    /// The file goes as it is, whatever it is called.
    pub raw: bool,
    /// Of Intel HEX: the segment that holds this address.
    pub segment: Option<u32>,
    /// Of Intel HEX: what is left out.
    pub skip: Vec<Skip>,
}

/// How an entry is written.
const FORM: &str = "write COMPONENT=FILE or COMPONENT=FILE@VERSION, as in 1=child.hex@2.0";
/// What may follow it.
const SETTINGS: &str = "counter=N, floor=N, hardware=A..B, require=COMPONENT=SHA256, check=CHECK, raw, segment=ADDR and skip=ADDR-ADDR";

impl FromStr for EntryArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (component, mut rest) = text.split_once('=').ok_or(FORM)?;
        let number = component
            .parse()
            .ok()
            .filter(|_| !component.starts_with('+'));
        let component = number.ok_or_else(|| {
            format!("`{component}` is not a component, a number from 0 to 255: {FORM}")
        })?;
        let mut entry = Self {
            component,
            ..Self::default()
        };
        // From the end, so that a file's name may have a comma.
        let mut no_setting = None;
        while let Some((before, setting)) = rest.rsplit_once(',') {
            if !entry.set(setting)? {
                no_setting = Some(setting);
                break;
            }
            rest = before;
        }
        entry.require.reverse();
        entry.skip.reverse();
        let file = match rest.rsplit_once('@') {
            Some((file, version)) if is_version(version) => {
                entry.version = Some(version.into());
                file
            }
            Some((_, "")) => return Err(format!("the version is missing behind the @: {FORM}")),
            _ => rest,
        };
        if file.is_empty() {
            return Err(FORM.into());
        }
        // A word that is no setting is a part of the file's name only where there is such a file.
        if let Some(word) = no_setting.filter(|_| !Path::new(file).exists()) {
            return Err(format!(
                "`{word}` is no setting of an entry (known are {SETTINGS}), and there is no file `{file}`"
            ));
        }
        if entry.raw && (entry.segment.is_some() || !entry.skip.is_empty())
            || entry.segment.is_some() && !entry.skip.is_empty()
        {
            return Err("of raw, segment and skip only one can be given".into());
        }
        entry.file = file.into();
        Ok(entry)
    }
}

impl EntryArg {
    /// Takes a setting; false where the text is none.
    fn set(&mut self, text: &str) -> Result<bool, String> {
        if text == "raw" {
            self.raw = true;
            return Ok(true);
        }
        let Some((name, value)) = text.split_once('=') else {
            return Ok(false);
        };
        if name.is_empty() || !name.bytes().all(|letter| letter.is_ascii_lowercase()) {
            return Ok(false);
        }
        let wrong = |what: &str| format!("{name}={value}: {what}");
        let number = || value.parse::<u64>().map_err(|_| wrong("this is no number"));
        let twice = match name {
            "counter" => self.counter.replace(number()?).is_some(),
            "floor" => self.floor.replace(number()?).is_some(),
            "hardware" => {
                let range = value.parse().map_err(|error: String| wrong(&error))?;
                self.hardware.replace(range).is_some()
            }
            "check" => {
                let check = value.parse().map_err(|error: String| wrong(&error))?;
                self.check.replace(check).is_some()
            }
            "segment" => self.segment.replace(address(value)?).is_some(),
            "require" => {
                let required = value.parse().map_err(|error: String| wrong(&error))?;
                self.require.push(required);
                false
            }
            "skip" => {
                let range = value.parse().map_err(|error: String| wrong(&error))?;
                self.skip.push(range);
                false
            }
            _ => {
                return Err(format!(
                    "there is no setting `{name}`: known are {SETTINGS}"
                ));
            }
        };
        if twice {
            return Err(format!("{name} is given twice"));
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_component_a_file_its_version_and_settings() {
        let entry: EntryArg = "1=child.hex@2.0".parse().unwrap();
        assert_eq!(
            (
                entry.component,
                entry.file.to_str(),
                entry.version.as_deref()
            ),
            (1, Some("child.hex"), Some("2.0"))
        );
        let entry: EntryArg = "0=/fw/a@b/main.bin,counter=7,floor=3,hardware=1..4,raw"
            .parse()
            .unwrap();
        assert_eq!(entry.file.to_str(), Some("/fw/a@b/main.bin"));
        assert_eq!(
            (entry.version, entry.counter, entry.floor),
            (None, Some(7), Some(3))
        );
        assert_eq!((entry.hardware, entry.raw), (Some(Hardware(1..=4)), true));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a,b.hex");
        let text = format!("2={}@1,skip=0x10-0x1f,skip=0x20-0x2f", file.display());
        let error = text.parse::<EntryArg>().unwrap_err();
        assert!(error.contains("there is no file"), "{error}");
        std::fs::write(&file, "").unwrap();
        let entry: EntryArg = text.parse().unwrap();
        assert_eq!((entry.file, entry.version), (file, Some("1".into())));
        assert_eq!(entry.skip, [Skip(0x10..=0x1f), Skip(0x20..=0x2f)]);
        let digest = "ab".repeat(32);
        let entry: EntryArg = format!("1=x@1,require=0={digest},check=sdu")
            .parse()
            .unwrap();
        assert_eq!((entry.require.len(), entry.check.is_some()), (1, true));
    }

    #[test]
    fn what_is_no_entry_says_why() {
        for (text, words) in [
            ("", "write COMPONENT=FILE"),
            ("child.hex", "write COMPONENT=FILE"),
            ("=child.hex", "`` is not a component"),
            ("256=child.hex", "`256` is not a component"),
            ("+1=child.hex", "`+1` is not a component"),
            ("main=x.bin", "`main` is not a component"),
            ("1=", "write COMPONENT=FILE"),
            ("1=@2.0", "write COMPONENT=FILE"),
            ("1=child.hex@", "version is missing"),
            ("1=x,counter=", "counter=: this is no number"),
            ("1=x,counter=1,counter=2", "counter is given twice"),
            ("1=x,hardware=4..1", "first revision is above"),
            ("1=x,check=no", "there is no check"),
            ("1=x,segment=here", "`here` is not an address"),
            ("1=x,raw,segment=0", "only one"),
            ("1=x,skip=0-1,segment=0", "only one"),
            ("1=x,colour=red", "there is no setting `colour`"),
            ("1=k.bin@1,security", "`security` is no setting"),
            ("1=k.bin@1,security,raw", "`security` is no setting"),
            ("1=k.bin@1,Raw=yes", "`Raw=yes` is no setting"),
            ("1=k.bin,", "`` is no setting"),
        ] {
            let error = text.parse::<EntryArg>().unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
