//! Real object stores as processes of a test: started on free loopback ports, awaited with a deadline,
//! killed by id when the test lets go of them. `tests/peers/storage.sh` installs them; where one is
//! missing the test fails with that command, unless `FLOWTAP_PEERS=none` says to leave them out.

// A test's support fails by panicking, like the test itself.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// How long a server may take to answer, on a busy machine.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a start is tried: another process may take a port between our look and the server's.
const STARTS_MAX: usize = 3;

/// What the servers take as credentials: made up here, worth nothing elsewhere.
pub const ACCESS_KEY: &str = "flowtap-test-key";
/// The secret that belongs to it.
pub const SECRET_KEY: &str = "flowtap-test-secret";
/// The storage account of Azurite.
pub const AZURE_ACCOUNT: &str = "flowtap";
/// Its key: base64 of made-up text.
pub const AZURE_KEY: &str = "Zmxvd3RhcC10ZXN0LWtleS1mbG93dGFwLXRlc3Qta2V5";

/// A running server.
pub struct Server {
    /// Where it answers.
    pub address: SocketAddr,
    child: Child,
    _home: tempfile::TempDir,
}

impl Server {
    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// SeaweedFS as S3, with a key for SSE-S3; `None` if servers are left out.
pub fn seaweedfs() -> Option<Server> {
    start("seaweedfs", "bin/weed", |program, home| {
        let [s3, master, volume, filer] = [(); 4].map(|()| free_port());
        let identity = format!(
            r#"{{"identities":[{{"name":"t","credentials":[{{"accessKey":"{ACCESS_KEY}","secretKey":"{SECRET_KEY}"}}],"actions":["Admin","Read","List","Tagging","Write"]}}]}}"#
        );
        std::fs::write(home.join("s3.json"), identity).unwrap();
        // Without this key, which the server reads from its working folder, SSE-S3 is a 500.
        let kek = format!("[s3.sse]\nkek = \"{}\"\n", "5a".repeat(32));
        std::fs::write(home.join("security.toml"), kek).unwrap();
        let mut command = Command::new(program);
        command
            .args(["server", "-dir=.", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3"])
            .args(["-s3.port.lance=0", "-s3.port.iceberg=0", "-s3.iam=false"])
            .args(["-s3.config=s3.json", "-master.volumeSizeLimitMB=64", "-volume.max=20"])
            .arg(format!("-s3.port={s3}"))
            .arg(format!("-master.port={master}"))
            .arg(format!("-volume.port={volume}"))
            .arg(format!("-filer.port={filer}"));
        (command, s3)
    })
}

/// Azurite as Azure Blob Storage, with the account [`AZURE_ACCOUNT`]; `None` if servers are left out.
pub fn azurite() -> Option<Server> {
    start("azurite", "node_modules/azurite/dist/src/blob/main.js", |program, _home| {
        let port = free_port();
        let mut command = Command::new("node");
        command
            .arg(program)
            .args(["--silent", "--skipApiVersionCheck", "--disableTelemetry"])
            .args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()])
            .arg("--inMemoryPersistence")
            .env("AZURITE_ACCOUNTS", format!("{AZURE_ACCOUNT}:{AZURE_KEY}"));
        (command, port)
    })
}

/// fake-gcs-server as Google Cloud Storage, which checks no credentials; `None` if servers are left out.
pub fn fake_gcs() -> Option<Server> {
    start("fake-gcs-server", "bin/fake-gcs-server", |program, _home| {
        let port = free_port();
        let mut command = Command::new(program);
        command.args(["-scheme", "http", "-backend", "memory", "-host", "127.0.0.1"]).args([
            "-port",
            &port.to_string(),
            "-public-host",
            &format!("127.0.0.1:{port}"),
        ]);
        (command, port)
    })
}

/// Sends one request and reads its whole answer: for what no client of ours can ask.
pub fn ask(address: SocketAddr, request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A port that is free now, and whose number plus 10,000 is too (SeaweedFS takes both); below the
/// range from which the kernel takes ports for clients.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let offset = (std::process::id() % 97) as u16 * 100;
    for _ in 0..10_000 {
        let port = 12_000 + (offset + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if is_free(port) && is_free(port + 10_000) {
            return port;
        }
    }
    panic!("no free port on 127.0.0.1 between 12000 and 22000");
}

fn start(
    name: &str,
    program: &str,
    command: impl Fn(&Path, &Path) -> (Command, u16),
) -> Option<Server> {
    if std::env::var("FLOWTAP_PEERS").as_deref() == Ok("none") {
        println!("left out: {name} (FLOWTAP_PEERS=none)");
        return None;
    }
    let program = installed(program);
    assert!(program.exists(), "{name} is not installed: run tests/peers/storage.sh");
    let mut told = String::new();
    for _ in 0..STARTS_MAX {
        let home = tempfile::tempdir().unwrap();
        let (mut command, port) = command(&program, home.path());
        let log = std::fs::File::create(home.path().join("log")).unwrap();
        let child = command
            .current_dir(home.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| panic!("{name} does not start: {e}"));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut server = Server { address, child, _home: home };
        match wait_until_ready(&mut server) {
            Ok(()) => return Some(server),
            Err(why) => told = format!("{why}\n{}", log_of(&server)),
        }
    }
    panic!("{name} did not come up: {told}");
}

fn installed(program: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/peers/storage").join(program)
}

fn wait_until_ready(server: &mut Server) -> Result<(), String> {
    let deadline = Instant::now() + READY_TIMEOUT;
    let hello = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
    while Instant::now() < deadline {
        if let Ok(Some(status)) = server.child.try_wait() {
            return Err(format!("it ended with {status}"));
        }
        if ask(server.address, hello).is_ok_and(|answer| answer.starts_with("HTTP/1.")) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(format!("no answer in {READY_TIMEOUT:?}"))
}

fn log_of(server: &Server) -> String {
    let log = std::fs::read(server._home.path().join("log")).unwrap_or_default();
    String::from_utf8_lossy(&log[log.len().saturating_sub(3000)..]).into_owned()
}
