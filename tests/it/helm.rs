//! The chart, as Helm itself renders it: what Kubernetes says of the manifests, and flowtap of the
//! configurations in them.
#![allow(clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::Command;

use crate::peers::{installed, peer_python, peers_wanted};

/// What a configuration of the cluster names and this machine has not: the files of secrets.
fn without_files(path: &Path) {
    let text = std::fs::read_to_string(path).expect("a configuration");
    let kept =
        text.lines().filter(|line| !line.contains("_file:") && !line.contains("access_key_id:"));
    std::fs::write(path, kept.collect::<Vec<_>>().join("\n")).expect("written");
}

/// What KEDA, cert-manager and the Prometheus operator say of theirs.
fn check_custom(objects: &Path) {
    let mut node = Command::new("node");
    node.arg("tests/peers/check_custom.mjs").arg(installed("kube-custom")).arg(objects);
    let checked = node.output().expect("node");
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success(), "{said}{}", String::from_utf8_lossy(&checked.stderr));
    let wanted =
        "Certificate=1 Issuer=1 PodMonitor=2 PrometheusRule=2 ScaledObject=1 ServiceMonitor=1";
    assert_eq!(said.trim(), wanted);
}

#[test]
fn the_chart_renders_what_kubernetes_and_flowtap_take_or_refuses() {
    if !peers_wanted() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut python = peer_python("kube");
    let operators = tempfile::NamedTempFile::new().expect("a file");
    python.arg("tests/peers/check_chart.py").arg(folder.path()).arg(operators.path());
    let checked = python.output().expect("python");
    let (said, failed) = (
        String::from_utf8_lossy(&checked.stdout).into_owned(),
        String::from_utf8_lossy(&checked.stderr).into_owned(),
    );
    assert!(checked.status.success(), "{failed}");
    assert!(said.starts_with("good=34 refused=46 "), "{said}");
    check_custom(operators.path());
    let entries = std::fs::read_dir(folder.path()).expect("the folder");
    let configs: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
    assert_eq!(configs.len(), 38, "{configs:?}");
    for config in configs {
        without_files(&config);
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowtap"));
        command.args(["check", "--config"]).arg(&config);
        let name = config.to_string_lossy().into_owned();
        if name.ends_with("-hub.yaml") || name.ends_with("-evaluators.yaml") {
            command.arg("--hub");
        }
        let output = command.output().expect("flowtap runs");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{config:?}: {told}");
    }
}
