//! Other protocols, such as WebSocket: after a 101 the two connections are joined, and nothing is looked at.

use std::time::Instant;

use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Request, Response, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_util::task::TaskTracker;

use super::body::ResponseBody;
use super::forward::Passage;
use super::observe::Observation;
use super::{guard, stream};
use crate::domain::Outcome;

/// The connection of a client that names another protocol, which hyper lets go of behind the answer.
pub struct Pending {
    client: Option<OnUpgrade>,
    tasks: TaskTracker,
}

impl Pending {
    /// Of the connection that `request` came by.
    pub fn of(request: &mut Request<Incoming>, passage: &Passage) -> Self {
        Self { client: Some(hyper::upgrade::on(request)), tasks: passage.tasks.clone() }
    }
}

/// Where it was not switched to the other protocol, it ends: its client may still be sending.
impl Drop for Pending {
    fn drop(&mut self) {
        let Some(client) = self.client.take() else { return };
        self.tasks.spawn(async move {
            if let Ok(client) = client.await {
                stream::close(&mut TokioIo::new(client), true).await;
            }
        });
    }
}

/// Passes the 101 on and joins the connections; the exchange ends when the tunnel does.
pub fn tunnel(
    passage: &Passage,
    mut client: Pending,
    mut response: Response<Incoming>,
    mut observation: Observation,
) -> Response<ResponseBody> {
    let upstream = hyper::upgrade::on(&mut response);
    let (mut head, _) = response.into_parts();
    observation.response_head(head.status.as_u16(), Instant::now(), |selection| {
        selection.of_response(&head.headers)
    });
    if let Some(client) = client.client.take() {
        passage.tasks.spawn(async move { join(client, upstream, observation).await });
    }

    let chosen = head.headers.get(UPGRADE).cloned();
    guard::strip_hop_by_hop(&mut head.headers);
    head.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Some(chosen) = chosen {
        head.headers.insert(UPGRADE, chosen);
    }
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
