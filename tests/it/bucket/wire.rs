//! A server that does what a test says with each request, good or bad, and keeps what it was asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// `PUT`.
    pub method: String,
    /// Path and query, as they came.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, by `Content-Length`.
    pub body: Vec<u8>,
}

/// What to do with a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// This answer, then close.
    Answer(Vec<u8>),
    /// Nothing, ever.
    Hang,
    /// These bytes, then nothing, ever.
    HangAfter(Vec<u8>),
    /// These bytes, then a reset.
    ResetAfter(Vec<u8>),
    /// The first bytes, then the others one every 50 ms.
    Drip(Vec<u8>, Vec<u8>),
}

/// A server on a free loopback port, until it is dropped.
pub struct Scripted {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    task: JoinHandle<()>,
}

impl Request {
    /// The header's value, if there is one.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    async fn read(stream: &mut TcpStream) -> Option<Self> {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
                break at;
            }
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let mut first = lines.next()?.split(' ');
        let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut request = Self { method, target, headers, body: bytes.split_off(end + 4) };
        let length = request.header("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
        if request.body.len() < length && request.header("expect").is_some() {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.ok()?;
        }
        while request.body.len() < length {
            if stream.read_buf(&mut request.body).await.ok()? == 0 {
                return None;
            }
        }
        Some(request)
    }
}

impl Reply {
    /// An answer with a body.
    pub fn status(status: &str, headers: &[&str], body: &str) -> Self {
        let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        let length = body.len();
        let text = format!(
            "HTTP/1.1 {status}\r\n{lines}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        Self::Answer(text.into_bytes())
    }

    async fn send(self, mut stream: TcpStream) {
        // What fails here, the client under test notices.
        let _ = match self {
            Self::Answer(bytes) => stream.write_all(&bytes).await,
            Self::Hang => {
                std::future::pending::<()>().await;
                Ok(())
            }
            Self::HangAfter(bytes) => {
                let _ = stream.write_all(&bytes).await;
                std::future::pending::<()>().await;
                Ok(())
            }
            Self::ResetAfter(bytes) => {
                let _ = stream.write_all(&bytes).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
                stream.set_zero_linger()
            }
            Self::Drip(head, rest) => drip(&mut stream, &head, &rest).await,
        };
    }
}

impl Scripted {
    /// Answers every request with what `script` makes of it.
    pub async fn start<S, F>(script: S) -> Self
    where
        S: Fn(Request) -> F + Send + Sync + 'static,
        F: Future<Output = Reply> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (script, log) = (Arc::new(script), seen.clone());
        let task = tokio::spawn(async move {
            // Connections end with the server: dropping the set aborts them.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let (script, log) = (script.clone(), log.clone());
                connections.spawn(async move {
                    let Some(request) = Request::read(&mut stream).await else { return };
                    log.lock().unwrap().push(request.clone());
                    script(request).await.send(stream).await;
                });
            }
        });
        Self { address, seen, task }
    }

    /// Answers every request alike.
    pub async fn always(reply: Reply) -> Self {
        Self::start(move |_request| std::future::ready(reply.clone())).await
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn drip(stream: &mut TcpStream, head: &[u8], rest: &[u8]) -> std::io::Result<()> {
    stream.write_all(head).await?;
    for byte in rest {
        stream.write_all(&[*byte]).await?;
        stream.flush().await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
