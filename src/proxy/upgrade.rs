//! WebSocket: after a 101 the two connections are joined, and nothing is looked at.

use std::time::Instant;

use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Response, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::body::ResponseBody;
use super::forward::Passage;
use super::guard;
use super::observe::Observation;
use crate::domain::Outcome;

/// Passes the 101 on and joins the connections; the exchange ends when the tunnel does.
pub fn tunnel(
    passage: &Passage,
    client: OnUpgrade,
    mut response: Response<Incoming>,
    mut observation: Observation,
) -> Response<ResponseBody> {
    let upstream = hyper::upgrade::on(&mut response);
    let (mut head, _) = response.into_parts();
    observation.response_head(head.status.as_u16(), Instant::now(), |selection| {
        selection.of_response(&head.headers)
    });
    passage.tasks.spawn(async move { join(client, upstream, observation).await });

    guard::strip_hop_by_hop(&mut head.headers);
    head.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    head.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    head.version = Version::HTTP_11;
    Response::from_parts(head, ResponseBody::Local(Full::default()))
}

async fn join(client: OnUpgrade, upstream: OnUpgrade, mut observation: Observation) {
    let (Ok(client), Ok(upstream)) = tokio::join!(client, upstream) else {
        observation.ended(Outcome::ClientAbort);
        return;
    };
    let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
    match tokio::io::copy_bidirectional(&mut client, &mut upstream).await {
        Ok((bytes_up, bytes_down)) => observation.tunnelled(bytes_up, bytes_down),
        Err(_) => observation.ended(Outcome::UpstreamAbort),
    }
}
