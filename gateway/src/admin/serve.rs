//! Serving the API on its socket: a bound on connections, and a deadline on every wait for a client.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep};

use super::AdminSocket;

/// Connections at a time: those that follow events hold one each.
const CONNECTIONS_MAX: usize = 256;
/// Time for a request's head.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// Time that a client may leave an answer unread.
const UNREAD_MAX: Duration = Duration::from_secs(60);

/// Serves the API until `until` is done. Connections that are open then are dropped.
pub async fn serve(socket: AdminSocket, api: Router, until: impl Future<Output = ()>) {
    let turns = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = tokio::task::JoinSet::new();
    tokio::pin!(until);
    loop {
        let accepted = tokio::select! {
            () = &mut until => break,
            accepted = accept(&socket, &turns) => accepted,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, turn)) => {
                let service = TowerToHyperService::new(api.clone());
                connections.spawn(async move {
                    let _turn = turn;
                    let io = TokioIo::new(Watched {
                        stream,
                        unread: None,
                    });
                    let serving = hyper::server::conn::http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(HEAD_WITHIN)
                        .serve_connection(io, service);
                    if let Err(error) = serving.await {
                        tracing::debug!(%error, "an admin connection ended");
                    }
                });
            }
            Err(error) => {
                // No file to spare: said, and tried again; what is open goes on.
                tracing::warn!(%error, "an admin connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn accept(
    socket: &AdminSocket,
    turns: &Arc<Semaphore>,
) -> io::Result<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
    let turn = Arc::clone(turns)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, _) = socket.listener.accept().await?;
    Ok((stream, turn))
}

/// A connection that fails when its client leaves an answer unread for too long.
struct Watched {
    stream: UnixStream,
    unread: Option<Pin<Box<Sleep>>>,
}

impl Watched {
    /// Starts the deadline where the client does not read, and ends it where it does.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.unread = None;
            return outcome;
        }
        let unread = self
            .unread
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + UNREAD_MAX)));
        unread
            .as_mut()
            .poll(context)
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
