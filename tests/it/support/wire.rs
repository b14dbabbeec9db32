//! Bytes on the wire: an upstream that does exactly what a script says and logs every byte it gets,
//! and a client that is no HTTP library.
#![allow(clippy::expect_used, clippy::panic)]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// No read in a test waits longer.
pub const READ_WITHIN: Duration = Duration::from_secs(60);

/// Every byte that came, by connection.
type Log = Arc<Mutex<Vec<Vec<u8>>>>;

/// A raw-socket upstream. Each connection runs the script on a thread of its own.
pub struct Upstream {
    /// Where it listens.
    pub port: u16,
    log: Log,
    closing: Arc<AtomicBool>,
}

impl Upstream {
    /// Starts listening; `script` is run for each connection.
    pub fn start(script: impl Fn(&mut Peer) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let (log, closing) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (script, shared, ended) = (Arc::new(script), Arc::clone(&log), Arc::clone(&closing));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let (script, log) = (Arc::clone(&script), Arc::clone(&shared));
                std::thread::spawn(move || script(&mut Peer::new(stream, log)));
            }
        });
        Self { port, log, closing }
    }

    /// One that answers every request on a connection with `response`.
    pub fn answering(response: impl Into<Vec<u8>>) -> Self {
        let response = response.into();
        Self::start(move |peer| {
            while peer.read_request().is_some() {
                peer.send(&response);
            }
        })
    }

    /// Every byte that came, by connection, in the order of the connections' first bytes.
    pub fn received(&self) -> Vec<Vec<u8>> {
        self.log.lock().expect("not poisoned").clone()
    }

    /// All that came, as text.
    pub fn received_text(&self) -> String {
        String::from_utf8_lossy(&self.received().concat()).into_owned()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        // The accepting thread looks at the flag when a connection comes.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

/// One end of a connection.
pub struct Peer {
    stream: TcpStream,
    buffer: Vec<u8>,
    log: Option<(Log, Option<usize>)>,
    end: Option<End>,
}

/// Why nothing more is read of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The other side ended it in order.
    Closed,
    /// It was reset, or failed in another way.
    Failed(ErrorKind),
    /// Nothing came within [`READ_WITHIN`].
    Silence,
}

/// A message as it came: head and body, the body raw (chunk framing left in).
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// To the blank line.
    pub head: String,
    /// What followed, still framed.
    pub raw_body: Vec<u8>,
    /// The message ended as its framing says, not by the connection's end.
    pub complete: bool,
    /// Why it is not complete.
    pub end: Option<End>,
}

impl Message {
    /// The status of a response.
    pub fn status(&self) -> u16 {
        self.head.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    /// The first value of a header, by its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The body, without chunk framing.
    pub fn body(&self) -> Vec<u8> {
        if self.header("transfer-encoding").is_some() {
            dechunked(&self.raw_body)
        } else {
            self.raw_body.clone()
        }
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body()).into_owned()
    }
}

fn dechunked(raw: &[u8]) -> Vec<u8> {
    let (mut body, mut rest) = (Vec::new(), raw);
    while let Some(end) = find(rest, b"\r\n") {
        let size = std::str::from_utf8(&rest[..end])
            .ok()
            .and_then(|s| usize::from_str_radix(s.split(';').next()?.trim(), 16).ok());
        let Some(size) = size.filter(|size| *size > 0) else { break };
        let from = end + 2;
        body.extend_from_slice(&rest[from..(from + size).min(rest.len())]);
        rest = rest.get(from + size + 2..).unwrap_or_default();
    }
    body
}

impl Peer {
    fn new(stream: TcpStream, log: Log) -> Self {
        stream.set_read_timeout(Some(READ_WITHIN)).expect("a timeout");
        stream.set_nodelay(true).expect("nodelay");
        Self { stream, buffer: Vec::new(), log: Some((log, None)), end: None }
    }

    /// A client's end, connected to `port`.
    pub fn connect(port: u16) -> Self {
        let stream =
            TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).expect("connected");
        stream.set_read_timeout(Some(READ_WITHIN)).expect("a timeout");
        stream.set_nodelay(true).expect("nodelay");
        Self { stream, buffer: Vec::new(), log: None, end: None }
    }

    /// Sends bytes; a peer that is gone is no fault of the test.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Sends what the other side takes within `limit` of its last byte.
    pub fn send_within(&mut self, limit: Duration, bytes: &[u8]) {
        self.stream.set_write_timeout(Some(limit)).expect("a timeout");
        drop(self.stream.write_all(bytes));
        self.stream.set_write_timeout(None).expect("none");
    }

    /// Sends one chunk of a chunked body.
    pub fn chunk(&mut self, data: impl AsRef<[u8]>) -> bool {
        let data = data.as_ref();
        self.send([format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat())
    }

    /// No more bytes will be sent; reading goes on.
    pub fn half_close(&mut self) {
        drop(self.stream.shutdown(Shutdown::Write));
    }

    /// Ends the connection by RST.
    pub fn reset(&mut self) {
        drop(socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)));
        self.stream =
            TcpStream::connect(("127.0.0.1", closed_port())).unwrap_or_else(|_| unconnected());
    }

    /// The next request: `None` when the connection has ended.
    pub fn read_request(&mut self) -> Option<Message> {
        let message = self.read_message(false)?;
        message.complete.then_some(message)
    }

    /// The next response; what has no head says why not.
    pub fn read_response(&mut self) -> Message {
        let nothing = |end| Message { end, ..Message::default() };
        self.read_message(true).unwrap_or_else(|| nothing(self.end))
    }

    /// This end's port: by it the connection is found in logs.
    pub fn own_port(&self) -> u16 {
        self.stream.local_addr().map_or(0, |address| address.port())
    }

    /// The next response's head.
    pub fn read_head(&mut self) -> String {
        self.head().unwrap_or_default()
    }

    /// Waits until `wanted` has come, and takes all up to its end.
    pub fn read_until(&mut self, wanted: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = find(&self.buffer, wanted) {
                return Some(self.buffer.drain(..at + wanted.len()).collect());
            }
            if self.fill() == 0 {
                return None;
            }
        }
    }

    /// Everything up to the connection's end.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        while self.fill() > 0 {}
        std::mem::take(&mut self.buffer)
    }

    /// True when the other side ended the connection within `limit`.
    pub fn is_closed_within(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        drop(self.stream.set_read_timeout(Some(Duration::from_millis(20))));
        let mut byte = [0; 1024];
        let closed = loop {
            match self.stream.read(&mut byte) {
                Ok(0) => break true,
                Ok(_) => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) => {}
                Err(_) => break true,
            }
            if Instant::now() > deadline {
                break false;
            }
        };
        drop(self.stream.set_read_timeout(Some(READ_WITHIN)));
        closed
    }

    fn head(&mut self) -> Option<String> {
        let head = self.read_until(b"\r\n\r\n")?;
        Some(String::from_utf8_lossy(&head).into_owned())
    }

    fn read_message(&mut self, response: bool) -> Option<Message> {
        let mut message = Message { head: self.head()?, ..Message::default() };
        let bodiless = response && (matches!(message.status(), 100..200 | 204 | 304));
        let length =
            message.header("content-length").and_then(|length| length.parse::<usize>().ok());
        if bodiless {
            message.complete = true;
        } else if message.header("transfer-encoding").is_some() {
            message.complete = self.read_chunks(&mut message.raw_body);
        } else if let Some(length) = length {
            while self.buffer.len() < length && self.fill() > 0 {}
            message.complete = self.buffer.len() >= length;
            message.raw_body = self.buffer.drain(..length.min(self.buffer.len())).collect();
        } else if response {
            message.raw_body = self.read_to_end();
        } else {
            message.complete = true;
        }
        message.end = self.end.filter(|_| !message.complete);
        Some(message)
    }

    /// Reads chunks and trailers as they are; false when the connection ended first.
    fn read_chunks(&mut self, raw: &mut Vec<u8>) -> bool {
        loop {
            let Some(line) = self.read_until(b"\r\n") else { return self.rest(raw) };
            let size = std::str::from_utf8(&line)
                .ok()
                .and_then(|s| usize::from_str_radix(s.split(';').next()?.trim(), 16).ok());
            raw.extend_from_slice(&line);
            let Some(size) = size else { return false };
            if size == 0 {
                loop {
                    let Some(line) = self.read_until(b"\r\n") else { return self.rest(raw) };
                    raw.extend_from_slice(&line);
                    if line == b"\r\n" {
                        return true;
                    }
                }
            }
            while self.buffer.len() < size + 2 && self.fill() > 0 {}
            if self.buffer.len() < size + 2 {
                return self.rest(raw);
            }
            raw.extend(self.buffer.drain(..size + 2));
        }
    }

    fn rest(&mut self, raw: &mut Vec<u8>) -> bool {
        raw.append(&mut self.buffer);
        false
    }

    fn fill(&mut self) -> usize {
        let mut bytes = [0; 16 * 1024];
        let read = self.read_some(&mut bytes);
        self.buffer.extend_from_slice(&bytes[..read]);
        if let Some((log, place)) = self.log.as_mut().filter(|_| read > 0) {
            let mut log = log.lock().expect("not poisoned");
            let place = *place.get_or_insert_with(|| {
                log.push(Vec::new());
                log.len() - 1
            });
            log[place].extend_from_slice(&bytes[..read]);
        }
        read
    }
}

impl Peer {
    /// One read, 0 at the end. One with a time limit is interrupted where this process was stopped and goes
    /// on (signal(7)): that says nothing of the other side.
    fn read_some(&mut self, bytes: &mut [u8]) -> usize {
        let end = loop {
            match self.stream.read(bytes) {
                Ok(0) => break End::Closed,
                Ok(read) => return read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    break End::Silence;
                }
                Err(error) => break End::Failed(error.kind()),
            }
        };
        self.end = Some(end);
        0
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn closed_port() -> u16 {
    super::process::free_port()
}

fn unconnected() -> TcpStream {
    // A stream to nowhere takes the place of the one that was reset.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    TcpStream::connect(listener.local_addr().expect("its address")).expect("connected")
}

/// Sends `request` and gives back all that comes until the connection's end.
pub fn transcript(port: u16, request: impl AsRef<[u8]>) -> Vec<u8> {
    let mut client = Peer::connect(port);
    client.send(request);
    client.read_to_end()
}

/// A whole response with a JSON body.
pub fn json_response(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A whole POST of a JSON body.
pub fn json_post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: client\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
