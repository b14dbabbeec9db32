//! The command line: what is typed, what is printed, and how it exits.
#![allow(clippy::expect_used, clippy::panic)]

use std::net::TcpListener;
use std::process::{Command, Output};

use crate::support::process::free_port;

fn flowtap(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_flowtap")).args(arguments).output().expect("flowtap runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn help_teaches_and_wrong_arguments_are_64() {
    let help = flowtap(&["--help"]);
    assert!(help.status.success());
    let help = text(&help.stdout);
    assert!(help.contains("flowtap run --upstream") && help.contains("Exit codes"), "{help}");
    let wrong = flowtap(&["run", "--upstrem", "x"]);
    assert_eq!(wrong.status.code(), Some(64));
    assert!(text(&wrong.stderr).contains("--upstream"), "{}", text(&wrong.stderr));
    assert_eq!(flowtap(&[]).status.code(), Some(64));
}

#[test]
fn check_names_every_fault_at_once_and_exits_78() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bad.yaml");
    std::fs::write(
        &file,
        "taps:\n  - name: chat\n    listn: 127.0.0.1:1\n    upstream: ftp://x\nsample: {rate: 2}\n",
    )
    .expect("written");
    let checked = flowtap(&["check", "--config", &file.display().to_string()]);
    assert_eq!(checked.status.code(), Some(78));
    let faults = text(&checked.stderr);
    for expected in ["listn", "listen", ":3:5", "ftp", ":5:16", "^"] {
        assert!(faults.contains(expected), "{expected} is missing:\n{faults}");
    }
}

#[test]
fn check_prints_what_holds_with_secrets_masked_and_it_loads_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("good.yaml");
    let good = "taps: [{name: chat, listen: 127.0.0.1:1, upstream: http://127.0.0.1:9}]\nredact: {detect: [email], mode: hash, key: canary-key-0123456789}\n";
    std::fs::write(&file, good).expect("written");
    let checked = flowtap(&["check", "--config", &file.display().to_string()]);
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    let effective = text(&checked.stdout);
    assert!(effective.contains("***") && !effective.contains("canary-key"), "{effective}");
    std::fs::write(&file, &effective).expect("written");
    assert!(flowtap(&["check", "--config", &file.display().to_string()]).status.success());
}

#[test]
fn a_taken_port_is_told_by_address_and_key() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().display().to_string();
    let free = format!("127.0.0.1:{}", free_port());
    let tap = flowtap(&[
        "run",
        "--upstream",
        "http://127.0.0.1:9",
        "--listen",
        &address,
        "--admin",
        &free,
        "--data-dir",
        &data,
    ]);
    assert_eq!(tap.status.code(), Some(1));
    let printed = text(&tap.stderr);
    assert!(printed.contains(&address) && printed.contains("taps[0].listen"), "{printed}");
    let admin = flowtap(&[
        "run",
        "--upstream",
        "http://127.0.0.1:9",
        "--listen",
        &free,
        "--admin",
        &address,
        "--data-dir",
        &data,
    ]);
    assert_eq!(admin.status.code(), Some(1));
    let printed = text(&admin.stderr);
    assert!(printed.contains(&address) && printed.contains("admin.listen"), "{printed}");
}

#[test]
fn completions_are_built_in() {
    let script = flowtap(&["completions", "bash"]);
    assert!(script.status.success() && text(&script.stdout).contains("flowtap"));
}

#[test]
fn an_empty_bucket_proves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let verified = flowtap(&["verify", &format!("file://{}", folder.path().display())]);
    assert_eq!(verified.status.code(), Some(1));
    assert!(text(&verified.stderr).contains("no ledger"), "{}", text(&verified.stderr));
    let faulty = flowtap(&["verify", "ftp://nowhere"]);
    assert_eq!(faulty.status.code(), Some(78));
}
