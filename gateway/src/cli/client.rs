//! A client of the admin API: HTTP/1.1 over the Unix socket, a connection for each request, a deadline for each wait.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::error::CliError;
use crate::admin::ErrorDoc;

/// Time to connect, and for the gateway to begin its answer.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Time for an answer to begin once the request is sent whole.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Bytes of a file that are sent at once.
const UPLOAD_PART: usize = 64 * 1024;
/// Longest answer that is kept in memory, in bytes.
const ANSWER_MAX: usize = 64 << 20;

/// A body of a request.
pub(crate) type RequestBody = BoxBody<Bytes, io::Error>;

/// The gateway, by its socket.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    socket: PathBuf,
}

impl Client {
    pub(crate) fn new(socket: PathBuf) -> Result<Self, CliError> {
        crate::admin::check_length(&socket).map_err(|error| CliError {
            code: error.code(),
            ..CliError::wrong_use(error.to_string())
        })?;
        Ok(Self { socket })
    }

    /// Asks for a document.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        self.call(Method::GET, path, None::<&()>)
            .await
            .map(|(_, doc)| doc)
    }

    /// Sends a document and takes one.
    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, CliError> {
        self.call(method, path, body).await.map(|(_, doc)| doc)
    }

    /// Removes something.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), CliError> {
        let answer = self
            .request(Method::DELETE, path, None, empty(), ANSWER_WITHIN)
            .await?;
        self.good(answer).await.map(drop)
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<(StatusCode, T), CliError> {
        let (kind, body) = match body {
            None => (None, empty()),
            Some(body) => (
                Some("application/json"),
                full(
                    serde_json::to_vec(body)
                        .map_err(|error| CliError::failed("internal", error.to_string()))?,
                ),
            ),
        };
        let answer = self
            .request(method, path, kind, body, ANSWER_WITHIN)
            .await?;
        self.document(answer).await
    }

    /// Sends a stream and takes a document. The gateway may take `within` after the last byte to answer.
    pub(crate) async fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        body: RequestBody,
        within: Duration,
    ) -> Result<(StatusCode, T), CliError> {
        let answer = self
            .request(
                Method::POST,
                path,
                Some("application/octet-stream"),
                body,
                within,
            )
            .await?;
        self.document(answer).await
    }

    /// Asks for a stream.
    pub(crate) async fn stream(&self, path: &str) -> Result<Incoming, CliError> {
        let answer = self
            .request(Method::GET, path, None, empty(), ANSWER_WITHIN)
            .await?;
        self.good(answer).await.map(Response::into_body)
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        kind: Option<&str>,
        body: RequestBody,
        within: Duration,
    ) -> Result<Response<Incoming>, CliError> {
        let lost = |error: &dyn std::fmt::Display| not_answered(&self.socket, error);
        let stream = match timeout(CONNECT_WITHIN, UnixStream::connect(&self.socket)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(not_reached(&self.socket, &error)),
            Err(_) => return Err(lost(&"it did not take the connection")),
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| lost(&error))?;
        tokio::spawn(async move {
            // Its end shows in the answer.
            let _ = connection.await;
        });
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "dialhome");
        if let Some(kind) = kind {
            request = request.header(CONTENT_TYPE, kind);
        }
        let request = request
            .body(body)
            .map_err(|error| CliError::wrong_use(error.to_string()))?;
        match timeout(within, sender.send_request(request)).await {
            Ok(answer) => answer.map_err(|error| lost(&error)),
            Err(_) => Err(lost(&"it did not answer in time")),
        }
    }

    async fn document<T: DeserializeOwned>(
        &self,
        answer: Response<Incoming>,
    ) -> Result<(StatusCode, T), CliError> {
        let answer = self.good(answer).await?;
        let status = answer.status();
        let body = self.whole(answer.into_body()).await?;
        let doc = serde_json::from_slice(&body).map_err(|error| {
            CliError::failed(
                "bad_answer",
                format!("the gateway's answer cannot be read: {error}."),
            )
            .hint("Is the gateway of the same version as this command?")
        })?;
        Ok((status, doc))
    }

    /// The answer, unless it is an error.
    async fn good(&self, answer: Response<Incoming>) -> Result<Response<Incoming>, CliError> {
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let body = self.whole(answer.into_body()).await?;
        let Ok(ErrorDoc { error }) = serde_json::from_slice(&body) else {
            return Err(CliError::failed(
                "bad_answer",
                format!("the gateway answered {status}."),
            ));
        };
        // The gateway is about to be gone: as good as gone for whoever can wait.
        if error.code == "stopping" {
            return Err(not_answered(&self.socket, &error.message));
        }
        // The command ends with this error: what is leaked is a few bytes, once.
        let failed = CliError::failed(error.code.leak(), sentence(&error.message));
        Err(match error.hint {
            Some(hint) => failed.hint(hint),
            None => failed,
        })
    }

    async fn whole(&self, body: Incoming) -> Result<Bytes, CliError> {
        let lost = |error: &dyn std::fmt::Display| not_answered(&self.socket, error);
        let body = http_body_util::Limited::new(body, ANSWER_MAX);
        match timeout(ANSWER_WITHIN, body.collect()).await {
            Ok(body) => body
                .map(|body| body.to_bytes())
                .map_err(|error| lost(&error)),
            Err(_) => Err(lost(&"its answer did not come to an end")),
        }
    }
}

/// A name as one segment of a path.
pub(crate) fn segment(name: &str) -> String {
    name.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// A message as a sentence. A first word that may be a name stays as it is.
pub(crate) fn sentence(message: &str) -> String {
    let mut text = message.to_owned();
    let word = text.split(' ').next().unwrap_or_default();
    if !word.is_empty() && word.bytes().all(|letter| letter.is_ascii_lowercase()) {
        text[..1].make_ascii_uppercase();
    }
    if !text.ends_with(['.', '?', '!']) {
        text.push('.');
    }
    text
}

/// A file as a request's body; `sent` is told how many bytes went.
pub(crate) fn stream(
    mut file: impl io::Read + Send + 'static,
    sent: impl Fn(u64) + Send + 'static,
) -> RequestBody {
    let (send, receive) =
        tokio::sync::mpsc::channel::<Result<hyper::body::Frame<Bytes>, io::Error>>(8);
    tokio::task::spawn_blocking(move || {
        loop {
            let mut part = vec![0; UPLOAD_PART];
            let frame = match file.read(&mut part) {
                Ok(0) => return,
                Ok(read) => {
                    part.truncate(read);
                    sent(read as u64);
                    Ok(hyper::body::Frame::data(Bytes::from(part)))
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let failed = frame.is_err();
            // The gateway has answered already where nobody takes more.
            if send.blocking_send(frame).is_err() || failed {
                return;
            }
        }
    });
    http_body_util::StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(receive)).boxed()
}

fn empty() -> RequestBody {
    full(Vec::new())
}

fn full(bytes: Vec<u8>) -> RequestBody {
    Full::new(Bytes::from(bytes))
        .map_err(|never: Infallible| match never {})
        .boxed()
}

fn not_reached(socket: &Path, error: &io::Error) -> CliError {
    let why = match error.kind() {
        io::ErrorKind::NotFound => "there is no such socket".to_owned(),
        io::ErrorKind::ConnectionRefused => "no gateway listens there".to_owned(),
        io::ErrorKind::PermissionDenied => "you may not open it".to_owned(),
        _ => error.to_string(),
    };
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => "Run this as a user or group that may open the socket.",
        _ => {
            "Start one with `dialhome serve`, or name its socket with --socket or DIALHOME_SOCKET."
        }
    };
    CliError::not_reached(format!(
        "The gateway was not reached at {}: {why}.",
        socket.display()
    ))
    .hint(hint)
}

fn not_answered(socket: &Path, error: &dyn std::fmt::Display) -> CliError {
    let message = format!(
        "The gateway at {} did not answer: {error}.",
        socket.display()
    );
    CliError {
        code: "not_answered",
        ..CliError::not_reached(message)
    }
    .hint("Look at its log; the command can be repeated.")
}
