//! Real servers and SDKs, with and without flowtap between them: the same bytes, the same objects.
//! `make peers` installs them; `tests/peers/compare.py` makes the comparison.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::process::{Process, flowtap, free_port};

/// A real server may take this long to come up on a busy machine.
pub const UP_WITHIN: Duration = Duration::from_secs(120);
/// One comparison may take this long.
const COMPARED_WITHIN: Duration = Duration::from_secs(500);
/// The name by which the model is asked for.
pub const MODEL: &str = "smollm2-135m";

#[test]
fn a_flow_on_flask_gives_the_same_bytes() {
    if peers_wanted() {
        compare_flow("flow", |port| pf_serve("qa_stream", port, "flask"));
    }
}

#[test]
fn a_flow_on_fastapi_gives_the_same_bytes() {
    if peers_wanted() {
        compare_flow("flow", |port| pf_serve("qa_stream", port, "fastapi"));
    }
}

#[test]
fn a_flow_on_gunicorn_gives_the_same_bytes() {
    if peers_wanted() {
        compare_flow("flow", gunicorn);
    }
}

/// Those that need a model reach it through a tap of their own.
#[test]
fn every_example_flow_gives_the_same_bytes() {
    if peers_wanted() {
        let upstream = free_port();
        let mut model = Process::start("llama.cpp", &mut llama(upstream));
        model.await_http(upstream, "/v1/models", UP_WITHIN);
        let models = Tap::before(upstream);
        for flow in ["qa_basic", "qa_flex", "qa_llm_dag", "qa_llm_stream"] {
            let base_url = format!("http://127.0.0.1:{}/v1", models.port);
            compare_flow("example", |port| {
                let mut command = pf_serve(flow, port, "fastapi");
                command.env("LLM_BASE_URL", &base_url).env("LLM_MODEL", MODEL);
                command
            });
        }
    }
}

#[test]
fn the_openai_sdk_gets_the_same_objects_from_a_real_model() {
    if peers_wanted() {
        let upstream = free_port();
        let mut model = Process::start("llama.cpp", &mut llama(upstream));
        model.await_http(upstream, "/v1/models", UP_WITHIN);
        let tap = Tap::before(upstream);
        compare(&["openai", &upstream.to_string(), &tap.port.to_string(), MODEL]);
    }
}

#[test]
fn the_anthropic_sdk_gets_the_same_objects_and_sends_the_same_bytes() {
    if peers_wanted() {
        let upstream = free_port();
        let tap = Tap::before(upstream);
        compare(&["anthropic", &upstream.to_string(), &tap.port.to_string()]);
    }
}

#[test]
fn the_comparison_sees_what_it_should() {
    if peers_wanted() {
        compare(&["proof"]);
    }
}

/// flowtap, running, with what it keeps.
struct Tap {
    port: u16,
    _process: Process,
    _data: tempfile::TempDir,
}

impl Tap {
    fn before(upstream: u16) -> Self {
        let (port, data) = (free_port(), tempfile::tempdir().expect("a folder"));
        let process = flowtap(upstream, port, free_port(), data.path());
        Self { port, _process: process, _data: data }
    }
}

fn compare_flow(cases: &str, server: impl Fn(u16) -> Command) {
    let upstream = free_port();
    let mut flow = Process::start("prompt flow", &mut server(upstream));
    flow.await_http(upstream, "/health", UP_WITHIN);
    let tap = Tap::before(upstream);
    compare(&[cases, &upstream.to_string(), &tap.port.to_string()]);
}

/// Runs one comparison; fails with the differences that it prints.
#[track_caller]
fn compare(arguments: &[&str]) {
    let mut command = Command::new(installed("sdk/bin/python"));
    command.arg(root().join("tests/peers/compare.py")).args(arguments);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let mut process = Process::start("the comparison", &mut command);
    let status = process.await_end(COMPARED_WITHIN);
    assert!(status.success(), "{}", process.printed());
}

/// The Python of a peer's own environment, in the repository's root.
pub fn peer_python(peer: &str) -> Command {
    peer_program(&format!("{peer}/bin/python"))
}

/// A program of a peer's.
pub fn peer_program(path: &str) -> Command {
    let mut command = Command::new(installed(path));
    command.current_dir(root());
    command
}

/// `pf flow serve` of an example flow, on an engine of prompt flow's.
pub fn pf_serve(flow: &str, port: u16, engine: &str) -> Command {
    let mut command = flow_command("promptflow/bin/pf");
    command
        .args(["flow", "serve", "--skip-open-browser", "--host", "127.0.0.1", "--engine", engine])
        .args(["--port", &port.to_string(), "--source"])
        .arg(root().join("examples/flows").join(flow));
    command
}

fn gunicorn(port: u16) -> Command {
    let mut command = flow_command("promptflow/bin/gunicorn");
    command
        .args(["-w", "1", "--threads", "4", "--timeout", "300", "-b"])
        .arg(format!("127.0.0.1:{port}"))
        .arg("promptflow.core._serving.app:create_app(engine='flask')")
        .env("PROMPTFLOW_PROJECT_PATH", root().join("examples/flows/qa_stream"));
    command
}

/// A program of prompt flow, in the environment that keeps it quiet.
pub fn flow_command(program: &str) -> Command {
    let quiet =
        Command::new("bash").arg(root().join("tests/peers/promptflow.sh")).arg("env").output();
    let quiet = String::from_utf8(quiet.expect("bash is there").stdout).expect("text");
    assert!(quiet.contains("APPLICATIONINSIGHTS"), "telemetry is off: {quiet}");
    let mut command = Command::new(installed(program));
    command.envs(quiet.lines().filter_map(|line| line.split_once('=')));
    command
}

/// llama.cpp's server with a small model.
pub fn llama(port: u16) -> Command {
    let weights = Command::new("bash").arg(root().join("tests/peers/llm.sh")).arg("model").output();
    let weights = String::from_utf8(weights.expect("bash is there").stdout).expect("a path");
    let mut command = Command::new(installed("llm/bin/python"));
    command
        .args(["-m", "llama_cpp.server", "--host", "127.0.0.1", "--port", &port.to_string()])
        .args(["--model", weights.trim(), "--model_alias", MODEL])
        // Threads of a batch spin at barriers: as many as the machine has cores, they take a minute for
        // a prompt where another load wants one of them. And what streams is not cut off by the next
        // request.
        .args(["--n_ctx", "2048", "--n_threads", "1", "--n_threads_batch", "1"])
        .args(["--interrupt_requests", "false"]);
    command
}

/// A file of the installed peers; names what installs it where it is missing.
#[track_caller]
pub fn installed(path: &str) -> PathBuf {
    let full = root().join(".cache/peers").join(path);
    assert!(full.exists(), "a real peer is missing; run `make peers` ({})", full.display());
    full
}

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// False, and said so, where the real peers were left out on purpose.
pub fn peers_wanted() -> bool {
    let left_out = std::env::var("FLOWTAP_PEERS").is_ok_and(|value| value == "none");
    if left_out {
        eprintln!("skipped: FLOWTAP_PEERS=none");
    }
    !left_out
}
