//! The image: built by an engine from images made here, since no registry of images is asked, and run by a
//! runtime of containers; its root assembled and run with the sidecar's own settings; and the files that
//! build it read by the tools that know them.
#![allow(clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::peers::{peer_program, peers_wanted};
use crate::support::process::Process;
use crate::support::tap::address;
use crate::support::wire::{Peer, Upstream, json_post, json_response};

/// The variables of the first container named flowtap in a manifest.
pub fn variables(manifest: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(manifest).expect("a manifest");
    let document = text.split("\n---").next().expect("a document");
    let value: serde_json::Value = serde_saphyr::from_str(document).expect("YAML");
    let container = &value["spec"]["template"]["spec"]["initContainers"][0];
    assert_eq!(container["name"], "flowtap");
    let list = container["env"].as_array().expect("variables").iter();
    let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
    list.map(|variable| (text(&variable["name"]), text(&variable["value"]))).collect()
}

/// The image's root with `command` as what assembles and runs it, before a flow at `upstream`; `None` where
/// that needs rights that we have not.
fn as_the_sidecar(command: &mut Command, folder: &Path, upstream: u16) -> Option<Process> {
    command.arg(env!("CARGO_BIN_EXE_flowtap")).arg(folder).arg("proxy");
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.envs(variables("deploy/kubernetes/app-with-flowtap.yaml"));
    command.envs([
        ("FLOWTAP_TAPS__0__UPSTREAM", format!("http://127.0.0.1:{upstream}")),
        ("FLOWTAP_TAPS__0__LISTEN", "127.0.0.1:0".to_owned()),
        ("FLOWTAP_ADMIN__LISTEN", "127.0.0.1:0".to_owned()),
        ("FLOWTAP_BUCKET", "file:///var/lib/flowtap/bucket".to_owned()),
        ("FLOWTAP_SAMPLE__RATE", "1".to_owned()),
    ]);
    let mut process = Process::start("the image's root", command);
    if process.ended_with(77, Duration::from_millis(500)) {
        return None;
    }
    Some(process)
}

#[test]
fn the_images_root_runs_as_the_sidecar_read_only_and_without_rights() {
    let folder = tempfile::tempdir().expect("a folder");
    let flow = Upstream::answering(json_response(r#"{"answer":"yes"}"#));
    let mut command = Command::new("tests/peers/image_root.sh");
    let began = Instant::now();
    let Some(mut process) = as_the_sidecar(&mut command, folder.path(), flow.port) else {
        return eprintln!("skipped: needs root and namespaces");
    };
    let (port, admin) =
        (address(&process, "\"tap\":\"chat\""), address(&process, "\"door\":\"admin\""));
    process.await_http(admin, "/readyz", Duration::from_secs(30));
    println!("assembled and ready in {:?}", began.elapsed());
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", process.id())).expect("its status");
    for line in [
        "Uid:\t65532\t65532\t65532\t65532",
        "Gid:\t65532\t65532\t65532\t65532",
        "CapEff:\t0000000000000000",
        "CapPrm:\t0000000000000000",
    ] {
        assert!(status.contains(line), "{line}:\n{status}");
    }
    let root =
        std::fs::read_to_string(format!("/proc/{}/mounts", process.id())).expect("its mounts");
    let writable = root.lines().filter(|line| line.starts_with("image ") && !line.contains(" ro,"));
    assert_eq!(writable.count(), 0, "{root}");
    let mut client = Peer::connect(port);
    client.send(json_post("/score", r#"{"question":"?"}"#));
    assert_eq!(client.read_response().status(), 200);
    drop(client);
    let ending = Instant::now();
    process.terminate();
    assert!(process.await_end(Duration::from_secs(20)).success(), "{}", process.printed());
    assert!(
        ending.elapsed() < Duration::from_secs(12),
        "idle, it waits for no deadline (25 s): {:?}",
        ending.elapsed()
    );
    assert!(process.printed().contains("drained"), "{}", process.printed());
}

/// Waits for a line that comes once the image has been built.
#[track_caller]
fn await_line(process: &mut Process, line: &str) {
    let deadline = Instant::now() + Duration::from_secs(480);
    while !process.printed().contains(line) {
        let is_late = process.is_over() || Instant::now() >= deadline;
        assert!(!is_late, "{line} does not come:\n{}", process.printed());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The program in the container that `runtime` runs.
fn contained(runtime: u32) -> u32 {
    let children = std::fs::read_to_string(format!("/proc/{runtime}/task/{runtime}/children"));
    let children = children.expect("the kernel tells children");
    children.split_whitespace().next().and_then(|id| id.parse().ok()).expect("a container")
}

#[test]
fn an_engine_builds_the_dockerfile_and_what_it_builds_runs_without_rights() {
    if !peers_wanted() {
        return;
    }
    let flow = Upstream::answering(json_response(r#"{"answer":"yes"}"#));
    for target in ["sidecar", "all"] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new("tests/peers/image_build.sh");
        command.arg(env!("CARGO_BIN_EXE_flowtap")).arg(folder.path()).arg(target);
        command.envs([
            ("FLOWTAP_TAPS__0__UPSTREAM", format!("http://127.0.0.1:{}", flow.port)),
            ("FLOWTAP_TAPS__0__LISTEN", "127.0.0.1:0".to_owned()),
            ("FLOWTAP_TAPS__0__NAME", "chat".to_owned()),
            ("FLOWTAP_ADMIN__LISTEN", "127.0.0.1:0".to_owned()),
        ]);
        let mut process = Process::start("the image", &mut command);
        if process.ended_with(77, Duration::from_millis(500)) {
            return eprintln!("skipped: needs root and namespaces");
        }
        await_line(&mut process, "\"door\":\"admin\"");
        let (port, admin) =
            (address(&process, "\"tap\":\"chat\""), address(&process, "\"door\":\"admin\""));
        process.await_http(admin, "/readyz", Duration::from_secs(60));
        let own = contained(process.id());
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{own}/{file}"));
        let status = read("status").expect("its status");
        for line in ["Uid:\t65532\t65532", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"] {
            assert!(status.contains(line), "{line}:\n{status}");
        }
        let mounts = read("mounts").expect("its mounts");
        assert!(
            mounts.lines().any(|line| line.contains(" / ") && line.contains(" ro,")),
            "{mounts}"
        );
        let root = Path::new("/proc").join(own.to_string()).join("root");
        assert!(!root.join("bin/sh").exists() && root.join("etc/ssl/certs").exists(), "a shell");
        let mut client = Peer::connect(port);
        client.send(json_post("/score", r#"{"question":"?"}"#));
        assert_eq!(client.read_response().status(), 200);
        drop(client);
        process.terminate();
        assert!(process.await_end(Duration::from_secs(60)).success(), "{}", process.printed());
        assert!(process.printed().contains("\"drained\""), "{}", process.printed());
    }
}

/// Calls that make, change, move or remove a file, or run one.
const CHANGES: &str = "execve,?open,openat,?openat2,?creat,?mkdir,mkdirat,?rename,?renameat,renameat2,\
                       ?unlink,unlinkat,?rmdir,?link,linkat,?symlink,symlinkat,?mknod,mknodat,truncate,\
                       ?chmod,fchmodat,?chown,fchownat";

#[test]
fn nothing_is_written_outside_of_the_data_folder_and_nothing_else_is_run() {
    if !peers_wanted() {
        return;
    }
    let (folder, traced) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir());
    let trace = traced.expect("a folder");
    let trace = trace.path().join("calls");
    let flow = Upstream::answering(json_response(r#"{"answer":"yes"}"#));
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-z", "-e", &format!("trace={CHANGES}"), "-o"]).arg(&trace);
    command.arg("tests/peers/image_root.sh");
    let Some(mut process) = as_the_sidecar(&mut command, folder.path(), flow.port) else {
        return eprintln!("skipped: needs root and namespaces");
    };
    let port = address(&process, "\"tap\":\"chat\"");
    let mut client = Peer::connect(port);
    client.send(json_post("/score", r#"{"question":"?"}"#));
    assert_eq!(client.read_response().status(), 200);
    drop(client);
    // strace fills short ids up to five columns.
    let ended = format!("{:<5} +++ exited with 0 +++", process.id());
    process.terminate();
    assert!(process.await_end(Duration::from_secs(60)).success(), "{}", process.printed());
    let read = || std::fs::read_to_string(&trace).unwrap_or_default();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !read().contains(&ended) {
        assert!(Instant::now() < deadline, "strace does not end");
        std::thread::sleep(Duration::from_millis(50));
    }
    let calls = read();
    let (_, calls) = calls.split_once("execve(\"/usr/bin/flowtap\"").expect("it is run");
    let changes = calls.lines().skip(1).filter(|call| call.contains('"'));
    let changes: Vec<&str> = changes.filter(|call| !call.contains("O_RDONLY")).collect();
    assert!(changes.iter().any(|call| call.contains("rename(")), "{calls}");
    for change in changes {
        let mut paths = change.split('"').skip(1).step_by(2);
        assert!(paths.all(|path| path.starts_with("/var/lib/flowtap/")), "{change}");
    }
}

#[test]
fn hadolint_has_nothing_to_say_of_the_dockerfiles() {
    if !peers_wanted() {
        return;
    }
    let files = ["deploy/Dockerfile", "deploy/compose/flow.Dockerfile"];
    let said = peer_program("kube/bin/hadolint").args(files).output().expect("hadolint");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
    let stages = stages();
    let root = stages.iter().find(|stage| stage.contains(" AS root\n")).expect("a root");
    assert!(root.starts_with("gcr.io/distroless/") && root.contains("USER 65532:65532"));
    for image in ["sidecar", "all"] {
        let mark = format!("root AS {image}\n");
        let stage = stages.iter().find(|stage| stage.starts_with(&mark)).expect("an image");
        assert!(!stage.contains("\nUSER") && !stage.contains("\nRUN"), "{stage}");
    }
    assert!(stages.last().is_some_and(|stage| stage.contains(" AS all\n")), "the default");
}

/// The stages of the Dockerfile, each without its `FROM`.
fn stages() -> Vec<String> {
    let text = std::fs::read_to_string("deploy/Dockerfile").expect("a Dockerfile");
    text.split("\nFROM ").skip(1).map(str::to_owned).collect()
}

/// Nothing that the crate is built of is forgotten by the image's build or kept from it.
#[test]
fn the_image_is_built_from_all_that_the_crate_needs() {
    let context = std::fs::read_to_string(".dockerignore").expect("a list");
    let stages = stages();
    let source = stages.iter().find(|stage| stage.contains(" AS source\n")).expect("sources");
    let folder = tempfile::tempdir().expect("a folder");
    for line in source.lines().filter_map(|line| line.strip_prefix("COPY ")) {
        let mut paths: Vec<&str> = line.split(' ').collect();
        paths.pop();
        for path in paths {
            assert!(context.lines().any(|kept| kept == format!("!{path}")), "{path} is ignored");
            let copied = Command::new("cp").arg("-r").arg(path).arg(folder.path()).status();
            assert!(copied.expect("cp is there").success());
        }
    }
    let targets = |folder: &Path| {
        let mut command = Command::new(env!("CARGO"));
        command.args(["metadata", "--no-deps", "--offline", "--locked", "--format-version", "1"]);
        let output = command.current_dir(folder).output().expect("cargo");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let read: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let targets = read["packages"][0]["targets"].as_array().expect("targets").iter();
        let named = targets.map(|target| format!("{} {}", target["kind"][0], target["name"]));
        let mut named: Vec<String> = named.filter(|name| !name.starts_with("\"test\"")).collect();
        named.sort();
        named
    };
    assert_eq!(targets(folder.path()), targets(Path::new(".")));
}

#[test]
fn the_example_with_flowtap_is_what_inject_makes_of_the_one_without() {
    let app = std::fs::File::open("deploy/kubernetes/app.yaml").expect("the example");
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowtap"));
    let output = command.arg("inject").stdin(app).output().expect("flowtap runs");
    let recorded =
        std::fs::read_to_string("deploy/kubernetes/app-with-flowtap.yaml").expect("text");
    assert_eq!(String::from_utf8(output.stdout).expect("text"), recorded);
}

#[test]
fn the_settings_of_the_compose_file_are_a_configuration() {
    let text = std::fs::read_to_string("deploy/compose.yaml").expect("the file");
    let compose: serde_json::Value = serde_saphyr::from_str(&text).expect("YAML");
    let variables = compose["services"]["flowtap"]["environment"].as_object().expect("variables");
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowtap"));
    command.arg("check").env_clear();
    for (name, value) in variables {
        command.env(name, value.as_str().expect("a text"));
    }
    let checked = command.output().expect("flowtap runs");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    assert!(String::from_utf8_lossy(&checked.stdout).contains("http://s3:8333"));
}
