//! The admin API as a script sees it: plain HTTP over the Unix socket of a real gateway.

use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Far more than any answer takes; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

struct Gateway {
    dir: tempfile::TempDir,
    process: Child,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Gateway {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_dialhome"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(dir.path().join("data"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let gateway = Self { dir, process };
        let until = Instant::now() + PATIENCE;
        while UnixStream::connect(gateway.socket()).is_err() {
            assert!(Instant::now() < until, "the gateway does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        gateway
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("data/admin.sock")
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// One request; the status and the body.
    fn ask(&self, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let mut stream = self.connect();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: dialhome\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        // A body that is refused early may not be taken to its end.
        let _ = stream.write_all(body);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let head_len = answer
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .unwrap_or_else(|| panic!("no HTTP answer to {method} {path}"));
        let head = String::from_utf8_lossy(&answer[..head_len]).into_owned();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_off(head_len + 4))
    }

    fn json(&self, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        let (status, body) = self.ask(method, path, body);
        let value = serde_json::from_slice(&body);
        (
            status,
            value.unwrap_or_else(|_| panic!("{method} {path}: {body:?}")),
        )
    }
}

#[test]
fn the_openapi_document_names_what_is_served() {
    let gateway = Gateway::start();
    let (status, document) = gateway.json("GET", "/v1/openapi.json", b"");
    assert_eq!(status, 200);
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() >= 18, "{} paths", paths.len());
    let schemas = &document["components"]["schemas"];
    for (schema, field) in [
        ("CheckDoc", "round_trips_ms"),
        ("LogsDoc", "lines"),
        ("UpdateDoc", "output"),
        ("UpdateDoc", "revert"),
        ("UpdateDoc", "warning"),
        ("ImageDoc", "check"),
        ("ComponentRecord", "revert"),
    ] {
        let about = &schemas[schema]["properties"][field];
        assert!(about.is_object(), "{schema}.{field}");
    }
    let adding = &paths["/v1/images"]["post"]["parameters"][0];
    assert_eq!(adding["name"], "change_check", "{adding}");
    for (path, methods) in paths {
        for (method, about) in methods.as_object().unwrap() {
            assert!(about["responses"].is_object(), "{method} {path}");
            if method != "get" || path == "/v1/backup" {
                continue;
            }
            // What names a thing that is not there must say so; the rest must answer.
            let asked = path.replace("{id}", "nobody").replace("{name}", "p@1");
            let (status, _) = gateway.ask("GET", &asked, b"");
            let expected: &[u16] = if asked == *path { &[200] } else { &[400, 404] };
            assert!(expected.contains(&status), "GET {asked}: {status}");
        }
    }
}

#[test]
fn what_is_wrong_with_a_request_is_said_in_the_error_document() {
    let gateway = Gateway::start();
    for (method, path, body, status) in [
        ("GET", "/v1/nonsense", b"".as_slice(), 404),
        ("PATCH", "/v1/devices", b"", 405),
        ("POST", "/v1/devices", b"{", 400),
        ("POST", "/v1/devices", br#"{"device":7}"#, 422),
        ("POST", "/v1/updates", br#"{"device":"a","image":"b"}"#, 404),
    ] {
        let (got, error) = gateway.json(method, path, body);
        assert!(
            got == status || (got == 400 && status == 422),
            "{method} {path}: {got} {error}"
        );
        for field in ["code", "message"] {
            let text = error["error"][field].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{method} {path}: no {field} in {error}");
        }
    }
    let (status, _) = gateway.ask("POST", "/v1/devices", &vec![b' '; 100 * 1024]);
    assert_eq!(status, 413, "a JSON body of more than 64 KiB");
}

#[test]
fn events_are_followed_as_they_happen_and_resumed_by_their_number() {
    let gateway = Gateway::start();
    let mut follower = gateway.connect();
    follower
        .write_all(b"GET /v1/events?follow=true&since=0 HTTP/1.1\r\nHost: dialhome\r\n\r\n")
        .unwrap();
    let (status, _) = gateway.json("POST", "/v1/hold", b"");
    assert_eq!(status, 200);
    let mut lines = BufReader::new(follower).lines();
    let id = lines.find_map(|line| line.unwrap().strip_prefix("id: ").map(str::to_owned));
    let data = lines.find_map(|line| line.unwrap().strip_prefix("data: ").map(str::to_owned));
    let event: Value = serde_json::from_str(&data.unwrap()).unwrap();
    assert_eq!(event["type"], "device.changed");
    assert_eq!(event["to"], "held");
    assert_eq!(id.unwrap(), event["seq"].to_string());
    let (_, page) = gateway.json("GET", "/v1/events?since=0", b"");
    assert_eq!(page["items"][0], event);
    let since = format!("/v1/events?since={}", event["seq"]);
    let (_, page) = gateway.json("GET", &since, b"");
    assert_eq!(page["items"].as_array().unwrap().len(), 0);
}
