//! A client of the admin socket that keeps its connection, so that a request costs little.

use super::PRODUCT;
use crate::Error;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// An answer that takes this long will not come any more.
const PATIENCE: Duration = Duration::from_secs(60);

/// One connection to the gateway's admin socket.
#[derive(Debug)]
pub struct Admin {
    requests: SendRequest<Full<Bytes>>,
}

impl Admin {
    /// A new connection to this socket.
    ///
    /// # Errors
    /// Nobody answers there.
    pub async fn connect(socket: &Path) -> Result<Self, Error> {
        let failed =
            |error: &dyn std::fmt::Display| Error::of("the admin socket does not answer", error);
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|error| failed(&error))?;
        let (requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(&error))?;
        tokio::spawn(connection);
        Ok(Self { requests })
    }

    /// One request; gives the answer's document.
    ///
    /// # Errors
    /// The gateway refused it, with its own words, or did not answer.
    pub async fn call(
        &mut self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, Error> {
        let what = format!("{method} {path}");
        let failed = |error: &dyn std::fmt::Display| Error::of(&what, error);
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        let request = Request::builder()
            .method(&method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|error| failed(&error))?;
        let answering = async {
            self.requests.ready().await?;
            let answer = self.requests.send_request(request).await?;
            let status = answer.status();
            Ok::<_, hyper::Error>((status, answer.into_body().collect().await?.to_bytes()))
        };
        let (status, bytes) = match timeout(PATIENCE, answering).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(failed(&error)),
            Err(_) => return Err(failed(&"no answer within 60 s")),
        };
        if !status.is_success() {
            return Err(failed(&String::from_utf8_lossy(&bytes)));
        }
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|error| failed(&error))
    }

    /// The gateway's status document.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn status(&mut self) -> Result<Value, Error> {
        self.call(Method::GET, "/v1/status", None).await
    }

    /// Pushes image `number` to a device, and gives the update's id.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn push(&mut self, device: &str, number: usize) -> Result<String, Error> {
        let body = json!({ "device": device, "image": format!("{PRODUCT}@{number}") });
        let answer = self.call(Method::POST, "/v1/updates", Some(body)).await?;
        answer["update"]
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| Error::new(format!("a push gave no update: {answer}")))
    }
}
