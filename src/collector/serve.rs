//! Accepts connections of one endpoint, so many and no more, and serves them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{Desk, Door, azureml, otlp};
use crate::domain::{Posted, Protocol};

/// Connections of one endpoint.
const CONNECTIONS_MAX: usize = 128;
/// For a request's whole head, and for an idle connection of HTTP/1.1.
const HEAD_WITHIN: Duration = Duration::from_secs(75);
/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 16;
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// How often a silent HTTP/2 peer is asked whether it is there, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(60);
const PING_WITHIN: Duration = Duration::from_secs(20);

/// Serves one endpoint until `stopping` is set.
pub(super) async fn serve(door: Door, desk: Desk, stopping: CancellationToken) {
    let protocol = door.protocol;
    let socket = match tokio::net::TcpListener::from_std(door.socket) {
        Ok(socket) => socket,
        Err(error) => {
            return tracing::error!(%error, protocol = protocol.label(), "an endpoint cannot serve");
        }
    };
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        match (accepted, Arc::clone(&permits).try_acquire_owned()) {
            (Ok((stream, _)), Ok(permit)) => {
                let desk = desk.clone();
                tokio::spawn(async move {
                    connection(stream, protocol, desk).await;
                    drop(permit);
                });
            }
            // One too many is closed at once.
            (Ok(_), Err(_)) => desk.metrics.posted(protocol, Posted::Busy),
            // A failing accept must not spin.
            (Err(_), _) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// A sender that goes away, or that speaks no HTTP, is nobody's trouble.
async fn connection(stream: TcpStream, protocol: Protocol, desk: Desk) {
    drop(stream.set_nodelay(true));
    let io = TokioIo::new(stream);
    match protocol {
        Protocol::OtlpGrpc => {
            let service = otlp::grpc::Service::new(desk);
            let answer = service_fn(move |request| {
                let service = service.clone();
                async move { Ok::<_, Infallible>(service.answer(request).await) }
            });
            let mut http = http2::Builder::new(TokioExecutor::new());
            http.timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS_MAX)
                .max_header_list_size(HEAD_BYTES_MAX as u32)
                .keep_alive_interval(PING_EVERY)
                .keep_alive_timeout(PING_WITHIN);
            drop(http.serve_connection(io, answer).await);
        }
        Protocol::Azureml | Protocol::OtlpHttp => {
            let answer = service_fn(move |request| {
                let desk = desk.clone();
                async move { Ok::<_, Infallible>(answer(protocol, &desk, request).await) }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new())
                .header_read_timeout(HEAD_WITHIN)
                .max_buf_size(HEAD_BYTES_MAX.max(64 * 1024));
            drop(http.serve_connection(io, answer).await);
        }
    }
}

async fn answer(
    protocol: Protocol,
    desk: &Desk,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let (posted, response) = match protocol {
        Protocol::Azureml => azureml::answer(desk, request).await,
        _ => otlp::http::answer(desk, request).await,
    };
    desk.metrics.posted(protocol, posted);
    response
}
