//! A client of an HTTP server: hyper, over TCP or TLS 1.3 by rustls.

use super::Fetch;
use crate::Error;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use sha2::{Digest as _, Sha256};
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, version};

/// The name in the servers' certificate.
pub(in crate::compare) const SERVER_NAME: &str = "server.invalid";
/// How often an idle connection is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// A connection; with TLS, one that has verified the server's certificate.
pub(super) struct Http {
    requests: SendRequest<Empty<Bytes>>,
}

fn failed(error: &dyn Display) -> Error {
    Error::of("HTTP", error)
}

/// TLS 1.3 alone, the one certificate, and no session is resumed: each connection is a
/// whole handshake.
pub(super) fn connector(pem: &str) -> Result<TlsConnector, Error> {
    let mut roots = RootCertStore::empty();
    let certificate =
        CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| failed(&error))?;
    roots.add(certificate).map_err(|error| failed(&error))?;
    // Named, because more than one provider may be built into this program.
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .map_err(|error| failed(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

impl Http {
    pub(super) async fn open(
        stream: TcpStream,
        tls: Option<&TlsConnector>,
        first: &str,
    ) -> Result<Self, Error> {
        let mut http = match tls {
            None => Self::over(stream).await?,
            Some(tls) => {
                let name = ServerName::try_from(SERVER_NAME).map_err(|error| failed(&error))?;
                let stream = tls
                    .connect(name, stream)
                    .await
                    .map_err(|error| Error::of("TLS", &error))?;
                Self::over(stream).await?
            }
        };
        if !first.is_empty() {
            http.get(first, None, |_| ()).await?;
        }
        Ok(http)
    }

    async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Self, Error> {
        let (requests, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(&error))?;
        tokio::spawn(connection);
        Ok(Self { requests })
    }

    /// One GET; gives the body piece by piece to `take`.
    async fn get(
        &mut self,
        path: &str,
        range: Option<(usize, usize)>,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), Error> {
        let mut request = Request::get(path).header("host", SERVER_NAME);
        let mut wanted = StatusCode::OK;
        if let Some((first, last)) = range {
            request = request.header("range", format!("bytes={first}-{last}"));
            wanted = StatusCode::PARTIAL_CONTENT;
        }
        let request = request.body(Empty::new()).map_err(|error| failed(&error))?;
        self.requests
            .ready()
            .await
            .map_err(|error| failed(&error))?;
        let answer = self
            .requests
            .send_request(request)
            .await
            .map_err(|error| failed(&error))?;
        if answer.status() != wanted {
            return Err(Error::new(format!(
                "{path}: the server said {}",
                answer.status()
            )));
        }
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(|error| failed(&error))?.into_data() {
                take(&data);
            }
        }
        Ok(())
    }

    /// Takes a file whole or range by range, one request after the other, and checks it.
    pub(super) async fn fetch(&mut self, fetch: &Fetch) -> Result<(), Error> {
        let (mut size, mut sha256) = (0, Sha256::new());
        while size < fetch.size {
            let range =
                (fetch.range > 0).then(|| (size, fetch.size.min(size + fetch.range as usize) - 1));
            let before = size;
            self.get(&fetch.path, range, |data| {
                size += data.len();
                sha256.update(data);
            })
            .await?;
            if size == before {
                return Err(Error::new(format!(
                    "{}: the server sent nothing",
                    fetch.path
                )));
            }
        }
        if size != fetch.size || *sha256.finalize() != fetch.sha256 {
            return Err(Error::new(format!(
                "{} is not what was put there",
                fetch.path
            )));
        }
        Ok(())
    }

    /// Does nothing, as long as the server keeps the connection.
    pub(super) async fn idle(self) -> Result<(), Error> {
        while !self.requests.is_closed() {
            tokio::time::sleep(LOOK).await;
        }
        Err(Error::new("the server closed an idle connection"))
    }
}
