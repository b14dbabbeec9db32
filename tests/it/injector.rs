//! The admission webhook as an API server meets it: over TLS, with reviews of its own form.
#![allow(clippy::expect_used, clippy::panic)]

use std::io::{Read, Write as _};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::peers::{peer_python, peers_wanted};
use crate::support::certs::{Authority, Identity, connect, read_head};
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
    assert_eq!(counts.trim(), "valid=81 unknown_kinds=0 restricted=27");
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
    assert!(process.await_end(Duration::from_secs(20)).success());
}

/// A review of a pod that asks for nothing, and the head of its request.
fn quiet_review() -> (String, String) {
    let review = r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u-1","operation":"CREATE","object":{"kind":"Pod"}}}"#;
    let head = format!(
        "POST /mutate HTTP/1.1\r\nHost: webhook\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        review.len()
    );
    (head, review.to_owned())
}

/// Reads one answer, whose length its head tells.
fn read_answer(stream: &mut impl Read) -> Option<(String, String)> {
    let head = read_head(stream)?;
    let length = head.to_ascii_lowercase().split_once("content-length: ")?.1.to_owned();
    let length: usize = length.split("\r\n").next()?.parse().ok()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((head, String::from_utf8(body).ok()?))
}

#[test]
fn a_connection_outlives_the_change_of_the_certificate() {
    let (first, second) = (Authority::new(), Authority::new());
    let identity = first.issue("127.0.0.1");
    let (process, port) = webhook(&identity);
    let (head, review) = quiet_review();
    let mut open = connect(first.client(&[]), "127.0.0.1", port);
    let mut ask = || {
        open.write_all(format!("{head}{review}").as_bytes()).expect("sent");
        let (head, body) = read_answer(&mut open).expect("an answer");
        assert!(head.starts_with("HTTP/1.1 200 ") && body.contains("u-1"), "{head}{body}");
    };
    ask();
    let next = second.issue("127.0.0.1");
    std::fs::copy(&next.key_file, &identity.key_file).expect("replaced");
    std::fs::copy(&next.cert_file, &identity.cert_file).expect("replaced");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !process.printed().contains("a new certificate is in use") {
        assert!(Instant::now() < deadline, "{}", process.printed());
        ask();
        std::thread::sleep(Duration::from_millis(200));
    }
    ask();
    let mut fresh = connect(second.client(&[]), "127.0.0.1", port);
    fresh.write_all(format!("{head}{review}").as_bytes()).expect("trusts the new one");
    assert!(read_answer(&mut fresh).is_some_and(|(head, _)| head.starts_with("HTTP/1.1 200 ")));
}

#[test]
fn a_review_under_way_is_answered_before_the_end_and_nobody_holds_the_webhook() {
    let authority = Authority::new();
    let (mut process, port) = webhook(&authority.issue("127.0.0.1"));
    let (head, review) = quiet_review();
    let (begin, rest) = review.split_at(20);
    let mut slow = connect(authority.client(&[]), "127.0.0.1", port);
    slow.write_all(format!("{head}{begin}").as_bytes()).expect("sent");
    let (told, _) = read_answer(&mut slow).expect("an answer");
    assert!(told.starts_with("HTTP/1.1 408 "), "{told}");
    let mut open = connect(authority.client(&[]), "127.0.0.1", port);
    open.write_all(format!("{head}{begin}").as_bytes()).expect("sent");
    // The next one is answered, so that this one's head has been read.
    let mut next = connect(authority.client(&[]), "127.0.0.1", port);
    next.write_all(format!("{head}{review}").as_bytes()).expect("sent");
    assert!(read_answer(&mut next).is_some());
    process.terminate();
    let mut byte = [0];
    assert_eq!(next.read(&mut byte).unwrap_or_default(), 0, "an idle connection is closed");
    open.write_all(rest.as_bytes()).expect("sent");
    let (told, body) = read_answer(&mut open).expect("an answer");
    assert!(told.starts_with("HTTP/1.1 200 ") && body.contains("u-1"), "{told}{body}");
    assert!(process.await_end(Duration::from_secs(20)).success());
    assert!(process.printed().contains("\"ended\""), "{}", process.printed());
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
