//! flowtap itself, as the tests run it: the program, with a configuration, on ports of its own choice.
#![allow(clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::process::{Process, program};
use super::wire::Peer;

/// A running flowtap with one tap, and all that it keeps in a folder of its own.
pub struct Flowtap {
    process: Process,
    command: &'static str,
    /// What each of its lives is started by, and with: fail points are for the first one alone.
    by: Vec<String>,
    environment: Vec<(String, String)>,
    folder: Option<tempfile::TempDir>,
    /// Where the tap listens.
    pub port: u16,
    /// Where admin listens.
    pub admin: u16,
}

/// How a flowtap is started.
pub struct Setup {
    upstream: String,
    tap: String,
    more_taps: String,
    top: String,
    environment: Vec<(String, String)>,
    command: &'static str,
    by: Vec<String>,
    folder: tempfile::TempDir,
}

impl Setup {
    /// Before `upstream_port` on loopback.
    pub fn before(upstream_port: u16) -> Self {
        Self::url(&format!("http://127.0.0.1:{upstream_port}"))
    }

    /// Before `url`.
    pub fn url(url: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (tap, top) = (String::new(), String::new());
        // On a loaded machine our own work may take long, and tests count every sample.
        let environment = vec![("FLOWTAP_CAPTURE__OVERHEAD_MAX".to_owned(), "0".to_owned())];
        let more_taps = String::new();
        let command = "run";
        let by = Vec::new();
        Self { upstream: url.to_owned(), tap, more_taps, top, environment, command, by, folder }
    }

    /// Keys of the tap, one a line, in flow style where nested.
    pub fn tap(mut self, lines: &str) -> Self {
        self.tap.extend(lines.lines().map(|line| format!("    {line}\n")));
        self
    }

    /// One more tap, before `upstream_port` on loopback.
    pub fn and_tap(mut self, name: &str, upstream_port: u16) -> Self {
        self.more_taps.push_str(&format!(
            "  - {{name: {name}, listen: 127.0.0.1:0, upstream: http://127.0.0.1:{upstream_port}}}\n"
        ));
        self
    }

    /// One more tap, listening on a port that is known before.
    pub fn and_tap_at(mut self, name: &str, upstream_port: u16, port: u16) -> Self {
        self.more_taps.push_str(&format!(
            "  - {{name: {name}, listen: 127.0.0.1:{port}, upstream: http://127.0.0.1:{upstream_port}}}\n"
        ));
        self
    }

    /// Top-level keys.
    pub fn top(mut self, lines: &str) -> Self {
        self.top.push_str(lines);
        self.top.push('\n');
        self
    }

    /// Another command than `run`.
    pub fn command(mut self, name: &'static str) -> Self {
        self.command = name;
        self
    }

    /// Started by another program, which is given flowtap and its arguments after its own.
    pub fn by(mut self, program: &[&str]) -> Self {
        self.by = program.iter().map(|argument| (*argument).to_owned()).collect();
        self
    }

    /// One more variable of the environment.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A fail point, e.g. `request_body:panic`.
    pub fn failing_at(mut self, point: &str) -> Self {
        self.environment.push(("FLOWTAP_FAILPOINT".to_owned(), point.to_owned()));
        self
    }

    /// The folder that this flowtap keeps everything in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it and waits until it is ready.
    pub fn start(self) -> Flowtap {
        let config = self.config();
        let (process, port, admin) =
            launch(&self.by, self.command, self.folder.path(), &config, &self.environment);
        let Self { by, mut environment, command, folder, .. } = self;
        environment.retain(|(name, _)| name != "FLOWTAP_FAILPOINT");
        Flowtap { process, command, by, environment, folder: Some(folder), port, admin }
    }

    fn config(&self) -> String {
        let folder = self.folder.path().display();
        let tap = format!("{}{}", self.tap, self.hypers_way());
        let mut top = self.top.clone();
        let defaults = [
            ("bucket:", format!("bucket: file://{folder}/bucket\n")),
            ("spool:", format!("spool: {{dir: {folder}/spool, segment_age: 200ms}}\n")),
            ("data_dir:", format!("data_dir: {folder}\n")),
            ("drain_timeout:", "drain_timeout: 10s\n".to_owned()),
        ];
        for (key, line) in defaults {
            if !top.lines().any(|line| line.starts_with(key)) {
                top.push_str(&line);
            }
        }
        format!(
            "taps:\n  - name: chat\n    listen: 127.0.0.1:0\n    upstream: {}\n{}{}admin: {{listen: 127.0.0.1:0}}\n{top}",
            self.upstream, tap, self.more_taps
        )
    }

    /// With TEST_WAY=hyper, what keeps the tap's connections off the express way: any limit on
    /// header fields but hyper's own.
    fn hypers_way(&self) -> &'static str {
        let asked = std::env::var("TEST_WAY").is_ok_and(|way| way == "hyper");
        let lines = "    limits: {headers_max: 99}\n";
        if asked && !self.tap.contains("limits:") { lines } else { "" }
    }
}

fn launch(
    by: &[String],
    name: &str,
    folder: &Path,
    config: &str,
    environment: &[(String, String)],
) -> (Process, u16, u16) {
    let file = folder.join("flowtap.yaml");
    std::fs::write(&file, config).expect("the configuration is written");
    let words: Vec<String> = by.iter().cloned().chain([program()]).collect();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).args([name, "--config"]).arg(&file);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let mut process = Process::start("flowtap", &mut command);
    let port = address(&process, "\"tap\":\"chat\"");
    let admin = address(&process, "\"door\":\"admin\"");
    process.await_http(admin, "/readyz", Duration::from_secs(30));
    (process, port, admin)
}

/// The port in the log line `listening` that holds `mark`.
pub fn address(process: &Process, mark: &str) -> u16 {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let printed = process.printed();
        if let Some(port) = address_in(&printed, mark) {
            return port;
        }
        assert!(Instant::now() < deadline, "flowtap does not listen:\n{printed}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The same in what was printed so far.
pub fn address_in(printed: &str, mark: &str) -> Option<u16> {
    let line = printed.lines().find(|line| line.contains("listening") && line.contains(mark))?;
    line.split("\"address\":\"").nth(1)?.split('"').next()?.rsplit(':').next()?.parse().ok()
}

impl Flowtap {
    /// A raw client connected to the tap.
    pub fn client(&self) -> Peer {
        Peer::connect(self.port)
    }

    /// Where another tap listens.
    pub fn port_of(&self, tap: &str) -> u16 {
        address(&self.process, &format!("\"tap\":\"{tap}\""))
    }

    /// Where an endpoint for spans listens: `azureml`, `otlp_grpc` or `otlp_http`.
    pub fn port_of_endpoint(&self, protocol: &str) -> u16 {
        address(&self.process, &format!("\"door\":\"{protocol}\""))
    }

    /// The folder that it keeps everything in.
    pub fn folder(&self) -> &Path {
        self.folder.as_ref().expect("kept until the end").path()
    }

    /// `/metrics` as it is now.
    pub fn metrics(&self) -> String {
        let mut client = Peer::connect(self.admin);
        client.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        client.read_response().text()
    }

    /// The sum of a family's series whose labels hold all of `labels` (`name="value"`).
    pub fn metric(&self, family: &str, labels: &[&str]) -> f64 {
        sum(&self.metrics(), family, labels)
    }

    /// Waits until the sum of a family's series is `wanted` or more.
    #[track_caller]
    pub fn await_metric(&self, family: &str, labels: &[&str], wanted: f64) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.metric(family, labels) < wanted {
            let late = Instant::now() > deadline;
            assert!(
                !late,
                "{family}{labels:?} is below {wanted}:\n{}\n{}",
                self.metrics(),
                self.process.printed()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until no exchange is under way.
    #[track_caller]
    pub fn await_idle(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.metric("flowtap_in_flight_requests", &[]) != 0.0 {
            assert!(Instant::now() < deadline, "exchanges hang:\n{}", self.process.printed());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Drains it, and gives back the folder and what it printed.
    #[track_caller]
    pub fn stop(mut self) -> Stopped {
        self.process.terminate();
        let status = self.process.await_end(Duration::from_secs(30));
        assert!(status.success(), "flowtap ended with {status}:\n{}", self.process.printed());
        Stopped {
            folder: self.folder.take().expect("kept until the end"),
            printed: self.process.printed(),
        }
    }

    /// Ends it as a power cut would, and starts it again in the same folder.
    pub fn kill_and_restart(self) -> Self {
        self.kill_and_restart_after(|| {})
    }

    /// The same, once `meanwhile` has ended.
    pub fn kill_and_restart_after(mut self, meanwhile: impl FnOnce()) -> Self {
        self.restart_after_kill_and(meanwhile);
        self
    }

    /// The same, in its place.
    pub fn restart_after_kill(&mut self) {
        self.restart_after_kill_and(|| {});
    }

    fn restart_after_kill_and(&mut self, meanwhile: impl FnOnce()) {
        let id = self.process.id().to_string();
        Command::new("kill").args(["-9", &id]).status().expect("kill is there");
        self.process.await_end(Duration::from_secs(60));
        meanwhile();
        let folder = self.folder.as_ref().expect("kept until the end").path();
        let config =
            std::fs::read_to_string(folder.join("flowtap.yaml")).expect("the configuration");
        let (process, port, admin) =
            launch(&self.by, self.command, folder, &config, &self.environment);
        (self.process, self.port, self.admin) = (process, port, admin);
    }

    /// Starts again in the folder of one that was stopped, with another configuration.
    pub fn again(stopped: Stopped, config: &str) -> Self {
        let (process, port, admin) = launch(&[], "run", stopped.folder.path(), config, &[]);
        let (by, environment, folder) = (Vec::new(), Vec::new(), Some(stopped.folder));
        Self { process, command: "run", by, environment, folder, port, admin }
    }

    /// What it printed so far.
    pub fn printed(&self) -> String {
        self.process.printed()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends it a signal, such as `STOP`.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Asks it to end, without waiting.
    pub fn terminate(&self) {
        self.process.terminate();
    }

    /// Waits for the end that [`Self::terminate`] asked for: a second request would cut it short.
    #[track_caller]
    pub fn ended(mut self) -> Stopped {
        let status = self.process.await_end(Duration::from_secs(30));
        let printed = self.process.printed();
        assert!(status.success(), "flowtap ended with {status}:\n{printed}");
        Stopped { folder: self.folder.take().expect("kept until the end"), printed }
    }
}

/// What a flowtap left behind.
pub struct Stopped {
    folder: tempfile::TempDir,
    /// What it printed.
    pub printed: String,
}

impl Stopped {
    /// The folder that it kept everything in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Every line of a dataset in the bucket, as JSON.
    pub fn rows(&self, dataset: &str) -> Vec<serde_json::Value> {
        rows(&self.folder.path().join("bucket").join(dataset))
    }
}

/// Every line of the objects below `folder`, as JSON.
pub fn rows(folder: &Path) -> Vec<serde_json::Value> {
    let mut rows = Vec::new();
    for file in files(folder) {
        let bytes = std::fs::read(&file).expect("an object");
        let mut text = String::new();
        let mut decoder = flate2::read::MultiGzDecoder::new(bytes.as_slice());
        std::io::Read::read_to_string(&mut decoder, &mut text).expect("gzip");
        rows.extend(
            text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")),
        );
    }
    rows
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> =
        paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "gz"));
    files.sort();
    files
}

/// The sum of a family's series whose labels hold all of `labels`.
pub fn sum(metrics: &str, family: &str, labels: &[&str]) -> f64 {
    let series = metrics.lines().filter(|line| {
        let rest = line.strip_prefix(family);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    });
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}
