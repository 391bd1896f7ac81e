//! `dialhome logs`: the end of a board's own log.

use std::process::ExitCode;

use hyper::Method;

use super::client::{Client, segment};
use super::error::CliError;
use super::output::{Output, say};
use crate::admin::LogsDoc;

pub(crate) async fn run(
    id: &str,
    lines: Option<u16>,
    client: &Client,
    out: Output,
) -> Result<ExitCode, CliError> {
    let query = lines.map_or_else(String::new, |lines| format!("?lines={lines}"));
    let path = format!("/v1/devices/{}/logs{query}", segment(id));
    let doc: LogsDoc = client.send(Method::POST, &path, None::<&()>).await?;
    if !doc.whole && !out.json {
        say(&match &doc.ended {
            Some(reason) => format!("Not all of it came: the session ended ({reason})."),
            None => "Not all of it came in time.".to_owned(),
        });
    }
    out.show(&doc, || doc.lines.join("\n"))
}
