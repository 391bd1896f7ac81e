//! What commands print: a document for people or as JSON; errors as a sentence, and with `--json` as JSON, too.

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;

use jiff::Timestamp;
use serde::Serialize;

use super::error::CliError;
use crate::admin::{ErrorBody, ErrorDoc};

/// How to print.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// As JSON.
    pub(crate) json: bool,
}

impl Output {
    /// Prints a command's result.
    pub(crate) fn done(self, doc: &(impl Serialize + Display)) -> Result<ExitCode, CliError> {
        self.show(doc, || doc.to_string())
    }

    /// Prints a document: as JSON, or in the words of `human`.
    pub(crate) fn show(
        self,
        doc: &impl Serialize,
        human: impl FnOnce() -> String,
    ) -> Result<ExitCode, CliError> {
        if self.json {
            self.json_line(doc)?;
        } else {
            let text = human();
            if !text.is_empty() {
                print(&text)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Prints one line of JSON.
    pub(crate) fn json_line(self, doc: &impl Serialize) -> Result<(), CliError> {
        print(
            &serde_json::to_string(doc)
                .map_err(|error| CliError::failed("internal", error.to_string()))?,
        )
    }

    /// Says why the command failed, and gives its exit code.
    pub(crate) fn fail(self, error: &CliError) -> ExitCode {
        if self.json {
            self.print_error(error);
        }
        say(&error.to_string());
        ExitCode::from(error.exit)
    }

    /// Prints an error as JSON.
    pub(crate) fn print_error(self, error: &CliError) {
        let body = ErrorBody {
            code: error.code.into(),
            message: error.message.clone(),
            hint: error.hint.clone(),
        };
        // The exit code tells all the same.
        let _ = self.json_line(&ErrorDoc { error: body });
    }
}

/// Prints a line on standard output.
pub(crate) fn print(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        // `dialhome events | head`: whoever read has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(CliError::failed(
            "output",
            format!("The output could not be written: {error}."),
        )),
    }
}

/// Prints a line on standard error.
pub(crate) fn say(text: &str) {
    // Where standard error is closed there is nobody to tell.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Rows under their headings, in columns.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = headings.iter().map(|text| text.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, width) in cells.zip(&widths) {
            text.push_str(cell);
            text.push_str(&" ".repeat(width - cell.chars().count() + 2));
        }
        text.trim_end().to_owned()
    };
    let mut lines = vec![line(&mut headings.iter().copied())];
    lines.extend(
        rows.iter()
            .map(|row| line(&mut row.iter().map(String::as_str))),
    );
    lines.join("\n")
}

/// Labels and values, the values below each other; values that are absent are left out.
pub(crate) fn sheet(rows: &[(&str, Option<String>)]) -> String {
    let width = rows
        .iter()
        .filter(|(_, value)| value.is_some())
        .map(|(label, _)| label.len())
        .max()
        .unwrap_or(0);
    let lines = rows.iter().filter_map(|(label, value)| {
        value
            .as_ref()
            .map(|value| format!("{label:<width$}  {value}"))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A number of bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

/// A time for people: to the second.
pub(crate) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}
