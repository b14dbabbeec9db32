//! The admission webhook as an API server meets it: over TLS, with reviews of its own form.
#![allow(clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::peers::{peer_python, peers_wanted};
use crate::support::certs::{Authority, Identity};
use crate::support::process::Process;
use crate::support::tap::address;

fn webhook(identity: &Identity) -> (Process, u16) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowtap"));
    command.args(["injector", "--listen", "127.0.0.1:0", "--set", "sample.rate=0.25"]);
    command.arg("--cert-file").arg(&identity.cert_file).arg("--key-file").arg(&identity.key_file);
    let process = Process::start("the webhook", &mut command);
    let port = address(&process, "\"door\":\"injector\"");
    (process, port)
}

fn ask(port: u16, ca_file: &Path) -> Output {
    let mut python = peer_python("kube");
    python.arg("tests/peers/admission.py").arg(format!("https://127.0.0.1:{port}")).arg(ca_file);
    python.output().expect("python")
}

#[track_caller]
fn asked(port: u16, ca_file: &Path, process: &Process) {
    let asked = ask(port, ca_file);
    let failed = String::from_utf8_lossy(&asked.stderr);
    assert!(asked.status.success(), "{failed}\n{}", process.printed());
    let counts = String::from_utf8_lossy(&asked.stdout);
    assert_eq!(counts.trim(), "valid=6 unknown_kinds=0 restricted=2");
}

#[test]
fn reviews_are_answered_in_their_form_and_the_certificate_may_be_replaced() {
    if !peers_wanted() {
        return;
    }
    let (first, second) = (Authority::new(), Authority::new());
    let identity = first.issue("127.0.0.1");
    let (mut process, port) = webhook(&identity);
    asked(port, &first.ca_file(), &process);
    // A file that is no certificate changes nothing.
    let good = std::fs::read(&identity.cert_file).expect("the certificate");
    std::fs::write(&identity.cert_file, "half a certif").expect("written");
    await_line(&process, "the old certificate stays in use");
    asked(port, &first.ca_file(), &process);
    std::fs::write(&identity.cert_file, good).expect("written");
    let next = second.issue("127.0.0.1");
    for (from, to) in [(&next.key_file, &identity.key_file), (&next.cert_file, &identity.cert_file)]
    {
        std::fs::copy(from, to).expect("replaced");
    }
    await_line(&process, "a new certificate is in use");
    asked(port, &second.ca_file(), &process);
    assert!(!ask(port, &first.ca_file()).status.success());
    process.terminate();
    assert!(process.await_end(Duration::from_secs(5)).success());
}

#[track_caller]
fn await_line(process: &Process, line: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !process.printed().contains(line) {
        assert!(Instant::now() < deadline, "{line}:\n{}", process.printed());
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_webhook_that_cannot_start_says_why() {
    let authority = Authority::new();
    let identity = authority.issue("127.0.0.1");
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowtap"));
    command.args([
        "injector",
        "--listen",
        "127.0.0.1:0",
        "--cert-file",
        "/nowhere/tls.crt",
        "--key-file",
    ]);
    let output = command.arg(&identity.key_file).output().expect("flowtap runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/tls.crt"));
    let output = command.args(["--set", "bukcet=s3://x"]).output().expect("flowtap runs");
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("flowtap.io/bucket"));
}
