//! The connections of the admin listener: so many and no more, and whoever asks goes before whoever
//! only keeps a place.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Admin connections served at once.
const CONNECTIONS_MAX: usize = 64;
/// No admin connection is served for longer, so that those that do not read cannot take all for good.
const CONNECTION_LIFE: Duration = Duration::from_secs(600);
/// For a request's whole head, and for an idle connection.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// Those that are served, the oldest first.
#[derive(Default)]
pub(super) struct Guests(VecDeque<Guest>);

struct Guest {
    task: JoinHandle<()>,
    stage: Arc<AtomicU8>,
}

/// No whole request came yet.
const SILENT: u8 = 0;
/// Its last request was answered.
const ANSWERED: u8 = 1;
/// A request is worked at.
const ASKING: u8 = 2;

impl Guests {
    /// Serves one more. Where there are too many, the oldest that said nothing yet goes, else the oldest
    /// that is not being worked for, else the oldest: a crowd that trickles heads or bodies keeps neither
    /// health checks nor scrapes out.
    pub(super) fn receive(&mut self, stream: TcpStream, routes: &Router) {
        self.0.retain(|guest| !guest.task.is_finished());
        if self.0.len() >= CONNECTIONS_MAX {
            self.make_room();
        }
        let stage = Arc::new(AtomicU8::new(SILENT));
        let task = tokio::spawn(serve(stream, routes.clone(), Arc::clone(&stage)));
        self.0.push_back(Guest { task, stage });
    }

    fn make_room(&mut self) {
        let oldest = |wanted: u8| {
            self.0.iter().position(|guest| guest.stage.load(Ordering::Relaxed) == wanted)
        };
        let at = oldest(SILENT).or_else(|| oldest(ANSWERED)).unwrap_or_default();
        if let Some(guest) = self.0.remove(at) {
            guest.task.abort();
        }
    }
}

async fn serve(stream: TcpStream, routes: Router, stage: Arc<AtomicU8>) {
    // Else the end of a long answer waits for the client's acknowledgement: 40 ms.
    drop(stream.set_nodelay(true));
    let routes = TowerToHyperService::new(routes);
    let answer = service_fn(move |request| {
        stage.store(ASKING, Ordering::Relaxed);
        let (answer, stage) = (routes.call(request), Arc::clone(&stage));
        async move {
            let answer = answer.await;
            stage.store(ANSWERED, Ordering::Relaxed);
            answer
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
    let served = http.serve_connection(TokioIo::new(stream), answer);
    // A scraper that goes away is nobody's trouble, one that never reads would stay.
    drop(tokio::time::timeout(CONNECTION_LIFE, served).await);
}
