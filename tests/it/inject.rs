//! `flowtap inject` as it is used: manifests through a pipe, and what Kubernetes says of the result.
#![allow(clippy::expect_used, clippy::panic)]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::peers::{peer_python, peers_wanted};

fn inject(manifest: &str, options: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowtap"));
    command
        .arg("inject")
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut process = command.spawn().expect("flowtap runs");
    let mut stdin = process.stdin.take().expect("a pipe");
    // One that refuses its arguments does not read.
    let _ = stdin.write_all(manifest.as_bytes());
    drop(stdin);
    process.wait_with_output().expect("ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

fn corpus(kind: &str) -> Vec<PathBuf> {
    let entries =
        std::fs::read_dir(format!("tests/fixtures/manifests/{kind}")).expect("the corpus");
    let paths = entries.map(|entry| entry.expect("a file").path());
    let found: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
    assert!(found.len() > 8);
    found
}

#[test]
fn manifests_pass_through_and_come_back_to_the_byte() {
    for path in corpus("good") {
        let manifest = std::fs::read_to_string(&path).expect("text");
        let injected = inject(&manifest, &["--set", "bucket=s3://samples/all"]);
        assert!(injected.status.success(), "{path:?}: {}", text(&injected.stderr));
        assert!(!text(&injected.stderr).contains("no bucket is set"));
        let back = inject(&text(&injected.stdout), &["--uninject"]);
        assert_eq!(text(&back.stdout), manifest, "{path:?}");
    }
}

#[test]
fn a_refusal_names_the_place_and_writes_nothing() {
    for path in corpus("refused") {
        let refused = inject(&std::fs::read_to_string(&path).expect("text"), &[]);
        assert_eq!(refused.status.code(), Some(65), "{path:?}");
        assert!(refused.stdout.is_empty());
        assert!(text(&refused.stderr).contains("line "), "{}", text(&refused.stderr));
    }
    assert_eq!(inject("", &["--set", "rate"]).status.code(), Some(64));
    let unknown = inject(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n    - {name: a, image: b, ports: [{containerPort: 80}]}\n",
        &["--set", "sampel.rate=1"],
    );
    assert_eq!(unknown.status.code(), Some(65));
    assert!(text(&unknown.stderr).contains("flowtap.io/sample.rate"));
}

#[test]
fn kubernetes_of_three_versions_takes_what_was_injected() {
    if !peers_wanted() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let files = corpus("good").into_iter().map(|path| {
        let injected = inject(&std::fs::read_to_string(&path).expect("text"), &[]);
        let file = folder.path().join(path.file_name().expect("a name"));
        std::fs::write(&file, injected.stdout).expect("written");
        file
    });
    let mut python = peer_python("kube");
    let checked =
        python.arg("tests/peers/validate_manifests.py").args(files).output().expect("python");
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    assert_eq!(text(&checked.stdout).trim(), "valid=246 unknown_kinds=3 restricted=39");
}
