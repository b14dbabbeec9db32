//! A real OpenTelemetry collector, rotel.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{PATIENCE, without_peers};

/// The binary of a real collector; `None` where tests go without peers.
pub fn rotel() -> Option<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/telemetry.sh");
    let found = Command::new("bash").args([script, "bin"]).output().expect("bash");
    let rotel = String::from_utf8_lossy(&found.stdout).trim().to_owned();
    if rotel.is_empty() && without_peers() {
        return None;
    }
    assert!(Path::new(&rotel).exists(), "no collector. Run: bash tests/peers/telemetry.sh");
    Some(rotel)
}

/// A real collector that logs what it receives; it ends with the test.
pub struct Rotel {
    process: Child,
    folder: tempfile::TempDir,
}

impl Rotel {
    /// Starts it, with the addresses where it takes gRPC and HTTP.
    pub fn start(binary: &str) -> (Self, [SocketAddr; 2]) {
        let folder = tempfile::tempdir().expect("a folder");
        let listeners = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").expect("a port"));
        let ports = listeners.map(|listener| listener.local_addr().expect("bound"));
        let log = std::fs::File::create(folder.path().join("log")).expect("a log");
        let process = Command::new(binary)
            .args(["start", "--exporter", "blackhole", "--debug-log", "traces"])
            .args(["--debug-log-verbosity", "detailed", "--pid-file"])
            .arg(folder.path().join("pid"))
            .args(["--otlp-grpc-endpoint", &ports[0].to_string()])
            .args(["--otlp-http-endpoint", &ports[1].to_string()])
            .stdin(Stdio::null())
            .stderr(log.try_clone().expect("a handle"))
            .stdout(log)
            .spawn()
            .expect("the collector starts");
        let collector = Self { process, folder };
        let listening = |port: &SocketAddr| std::net::TcpStream::connect(port).is_ok();
        collector.wait_until("it listens", || ports.iter().all(listening));
        (collector, ports)
    }

    /// Waits until it has logged `text`.
    pub fn saw(&self, text: &str) {
        self.wait_until(text, || self.log().is_ok_and(|log| log.contains(text)));
    }

    fn wait_until(&self, what: &str, so: impl Fn() -> bool) {
        let begin = Instant::now();
        while !so() {
            let log = self.log().unwrap_or_default();
            assert!(begin.elapsed() < PATIENCE, "waited in vain: {what}\n{log}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// What it logged.
    pub fn log(&self) -> io::Result<String> {
        std::fs::read_to_string(self.folder.path().join("log"))
    }
}

impl Drop for Rotel {
    fn drop(&mut self) {
        let _gone_already = self.process.kill();
        let _status = self.process.wait();
    }
}
