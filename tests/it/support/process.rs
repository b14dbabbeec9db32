//! Processes that end with the test, and the ports they listen on.
#![allow(clippy::expect_used, clippy::panic)]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(50);
/// How long a process may take to end by itself before it is killed.
const END_WITHIN: Duration = Duration::from_secs(10);

/// A server or program that the test started. It is ended when this is dropped.
pub struct Process {
    name: String,
    child: Child,
    output: tempfile::NamedTempFile,
}

impl Process {
    /// Starts `command`; what it prints is kept for the failure message.
    pub fn start(name: &str, command: &mut Command) -> Self {
        Self::start_with(name, command, Stdio::null())
    }

    /// Starts `command` with something to read.
    pub fn start_with(name: &str, command: &mut Command, input: Stdio) -> Self {
        let output = tempfile::NamedTempFile::new().expect("a file for the output");
        let stream =
            || Stdio::from(File::options().append(true).open(output.path()).expect("opened"));
        let command = command.stdin(input).stdout(stream()).stderr(stream());
        let child =
            command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self { name: name.to_owned(), child, output }
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `GET path` on `port` is answered with 200.
    #[track_caller]
    pub fn await_http(&mut self, port: u16, path: &str, limit: Duration) {
        let deadline = Instant::now() + limit;
        while http_status(port, path) != Some(200) {
            let ended = self.child.try_wait().expect("the state of the process");
            assert!(ended.is_none(), "{} ended ({ended:?}):\n{}", self.name, self.printed());
            let late = Instant::now() > deadline;
            assert!(!late, "{} not up within {limit:?}:\n{}", self.name, self.printed());
            std::thread::sleep(POLL);
        }
    }

    /// Waits until the process has ended by itself.
    #[track_caller]
    pub fn await_end(&mut self, limit: Duration) -> ExitStatus {
        let Some(status) = self.poll_end(limit) else {
            panic!("{} still runs after {limit:?}:\n{}", self.name, self.printed());
        };
        status
    }

    /// True where it has ended.
    pub fn is_over(&mut self) -> bool {
        self.poll_end(Duration::ZERO).is_some()
    }

    /// True where it ends by itself with `code` within `limit`.
    pub fn ended_with(&mut self, code: i32, limit: Duration) -> bool {
        self.poll_end(limit).is_some_and(|status| status.code() == Some(code))
    }

    /// Asks the process to end (SIGTERM) without waiting for it.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// What the process printed, both streams.
    pub fn printed(&self) -> String {
        let mut text = Vec::new();
        let file = File::open(self.output.path());
        file.and_then(|mut file| file.read_to_end(&mut text)).expect("the output is read");
        String::from_utf8_lossy(&text).into_owned()
    }

    fn poll_end(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            let ended = self.child.try_wait().expect("the state of the process");
            if ended.is_some() || Instant::now() > deadline {
                return ended;
            }
            std::thread::sleep(POLL);
        }
    }

    /// Sends the process a signal by its name.
    pub fn signal(&self, name: &str) {
        let id = self.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).stderr(Stdio::null()).status();
        sent.expect("kill is there");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.terminate();
            if self.poll_end(END_WITHIN).is_none() {
                drop(self.child.kill());
                drop(self.child.wait());
            }
        }
    }
}

/// The program under test: `TEST_FLOWTAP` where another build than that of the tests is to be held to
/// account, such as a release.
pub fn program() -> String {
    std::env::var("TEST_FLOWTAP").unwrap_or_else(|_| env!("CARGO_BIN_EXE_flowtap").to_owned())
}

/// The flowtap program under test, before `upstream_port`, all it keeps below `data_dir`.
pub fn flowtap(upstream_port: u16, listen_port: u16, admin_port: u16, data_dir: &Path) -> Process {
    let loopback = |port: u16| format!("127.0.0.1:{port}");
    let mut command = Command::new(program());
    command
        .args(["run", "--upstream", &format!("http://{}", loopback(upstream_port))])
        .args(["--listen", &loopback(listen_port), "--admin", &loopback(admin_port)])
        .arg("--data-dir")
        .arg(data_dir);
    let mut process = Process::start("flowtap", &mut command);
    process.await_http(admin_port, "/readyz", Duration::from_secs(30));
    process
}

/// A port on which nothing listens now, for programs that cannot choose one themselves.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// The resident memory of a process.
pub fn resident_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}

/// The status of one `GET`; `None` where nothing answers.
fn http_status(port: u16, path: &str) -> Option<u16> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    let mut status_line = [0_u8; 12];
    stream.read_exact(&mut status_line).ok()?;
    std::str::from_utf8(status_line.get(9..)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ended_when_it_goes_out_of_scope() {
        let process = Process::start("sleep", Command::new("sleep").arg("600"));
        let folder = format!("/proc/{}", process.id());
        assert!(Path::new(&folder).exists());
        drop(process);
        assert!(!Path::new(&folder).exists(), "it was ended and reaped");
    }

    #[test]
    #[should_panic(expected = "last words")]
    fn a_server_that_dies_is_told_with_its_last_words() {
        let mut process = Process::start("sh", Command::new("sh").args(["-c", "echo last words"]));
        process.await_http(free_port(), "/", Duration::from_secs(20));
    }
}
