//! Messages to a real mail server, a real Alertmanager and sinks on loopback; and who is not called.
#![allow(clippy::expect_used, clippy::panic)]

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use flowtap::alert::Messenger;
use flowtap::config::{Alerts, Config, Overrides, load};
use flowtap::domain::{Bound, Measure, Notice, NoticeKind, Scope, SignalKind, State, Violations};
use flowtap::metrics::Metrics;
use hmac::{Hmac, Mac};
use jiff::{Timestamp, ToSpan};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::peers::{installed, peers_wanted, root};
use crate::support::certs::Authority;
use crate::support::process::{Process, free_port};
use crate::support::wire::{Message, Peer, Upstream};

const PATIENCE: Duration = Duration::from_secs(60);

/// A configuration with these alerts.
fn config(yaml: &str) -> Config {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("flowtap.yaml");
    let text = format!("taps: [{{upstream: 'http://127.0.0.1:9'}}]\nalerts: {yaml}\n");
    fs::write(&file, &text).expect("written");
    load(Some(&file), &Overrides::default(), &[])
        .unwrap_or_else(|faults| panic!("{faults}\n{text}"))
}

fn alerts(yaml: &str) -> Alerts {
    config(yaml).alerts
}

fn metrics() -> Metrics {
    Metrics::new(&config("{}").metrics)
}

fn notice(kind: NoticeKind) -> Notice {
    let time: Timestamp = "2026-11-23T10:15:00Z".parse().expect("a time");
    Notice {
        kind,
        monitor: "daily".into(),
        scope: Scope { deployment: Some("blue".into()), ..Scope::default() },
        signal: SignalKind::GenerationQuality,
        measure: Measure {
            metric: "fluency_average".into(),
            value: Some(3.62),
            low: Some(3.51),
            high: Some(3.73),
            count: 412,
            effective: 300.4,
            threshold: Some(4.0),
            bound: Bound::AtLeast,
            state: State::Violated,
            evidence: Some(1.2e5),
            violations: Some(Violations { count: 3, possible: 7 }),
        },
        since: time,
        time,
        window: (time.checked_sub((7 * 24).hours()).expect("earlier"), time),
        emails: Vec::new(),
    }
}

/// Sends these and waits until all is settled.
fn send(alerts: &Alerts, notices: Vec<Notice>) -> Metrics {
    let metrics = metrics();
    let (sender, receiver) = mpsc::channel(16);
    notices.into_iter().for_each(|notice| sender.try_send(notice).expect("room"));
    drop(sender);
    let messenger = Messenger::new(alerts).expect("settings that work");
    let runtime = Runtime::new().expect("a runtime");
    let work = messenger.run(receiver, metrics.clone());
    runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await.expect("in time") });
    metrics
}

fn results(metrics: &Metrics) -> Vec<(String, f64)> {
    let all = metrics.sums("flowtap_alerts_total", "result");
    all.into_iter().filter(|(_, n)| *n > 0.0).collect()
}

fn only(result: &str, n: f64) -> Vec<(String, f64)> {
    vec![(result.to_owned(), n)]
}

/// A real mail server on loopback.
struct MailServer {
    _process: Process,
    port: u16,
    folder: tempfile::TempDir,
}

impl MailServer {
    fn start(mode: &str, more: &[&str]) -> Self {
        let (port, folder) = (free_port(), tempfile::tempdir().expect("a folder"));
        let mut command = Command::new(installed("alerts/bin/python"));
        command.arg(root().join("tests/peers/smtp.py")).args([&port.to_string(), mode]);
        command.arg(folder.path().join("mails")).args(more);
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        let process = Process::start("aiosmtpd", &mut command);
        let deadline = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "no mail server:\n{}", process.printed());
            std::thread::sleep(Duration::from_millis(50));
        }
        Self { _process: process, port, folder }
    }

    fn mails(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.path().join("mails")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("json")).collect()
    }
}

fn texts(paths: &[&Path]) -> Vec<String> {
    paths.iter().map(|path| path.display().to_string()).collect()
}

#[test]
fn mail_goes_out_by_starttls_with_a_login_and_tells_what_how_far_how_sure_and_since_when() {
    if !peers_wanted() {
        return;
    }
    let authority = Authority::new();
    let identity = authority.issue("localhost");
    let files = texts(&[&identity.cert_file, &identity.key_file]);
    let server = MailServer::start("starttls", &[&files[0], &files[1], "flowtap", "s3cr3t"]);
    let ca = authority.ca_file();
    let yaml = |password: &str, ca: &str| {
        format!(
            "{{page: 'https://flowtap.example.com', email: {{smtp: 'smtp://localhost:{}', user: flowtap, \
             password: {password}, from: flowtap@example.com, to: [ops@example.com, \
             second@example.com], {ca}}}}}",
            server.port
        )
    };
    let ca_key = format!("ca_file: '{}'", ca.display());
    let kinds = [NoticeKind::Opened, NoticeKind::Repeated, NoticeKind::Resolved];
    let own = Notice { emails: vec!["team@example.com".to_owned()], ..notice(NoticeKind::Opened) };
    let notices = kinds.map(notice).into_iter().chain([own]).collect();
    let metrics = send(&alerts(&yaml("s3cr3t", &ca_key)), notices);
    assert_eq!(results(&metrics), only("delivered", 4.0));

    let mails = server.mails();
    assert_eq!(mails.len(), 4, "{mails:?}");
    assert_eq!((&mails[0]["tls"], &mails[0]["user"]), (&Value::Bool(true), &"flowtap".into()));
    assert_eq!(mails[0]["to"], serde_json::json!(["ops@example.com", "second@example.com"]));
    assert_eq!(mails[3]["to"], serde_json::json!(["team@example.com"]));
    let text = mails[0]["data"]
        .as_str()
        .expect("text")
        .replace("=\r\n", "")
        .replace("\r\n ", " ")
        .replace("=3D", "=");
    for told in [
        "Subject: [flowtap] Violated: daily fluency_average is 3.62, the limit is at least 4",
        "Auto-Submitted: auto-generated",
        "What: fluency_average of monitor daily, deployment blue",
        "How far: 3.62, the limit is at least 4",
        "How sure: 95% interval 3.51 to 3.73, from 412 observations, worth 300, evidence 1.2e5",
        "How often: in 3 of 7 parts of the window",
        "Since: 2026-11-23T10:15:00Z, window 2026-11-16T10:15:00Z to 2026-11-23T10:15:00Z",
        "Page: https://flowtap.example.com/monitors?monitor=daily",
    ] {
        assert!(text.contains(told), "{told} is not in\n{text}");
    }
    let header = |mail: &Value, name: &str| {
        let text = mail["data"].as_str().expect("text").to_owned();
        text.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned))
    };
    assert_eq!(header(&mails[0], "Message-ID: "), header(&mails[2], "In-Reply-To: "));

    // A wrong password is refused for good, an unknown authority is not trusted, and nothing is sent.
    let metrics = send(&alerts(&yaml("wrong", &ca_key)), vec![notice(NoticeKind::Opened)]);
    assert_eq!(results(&metrics), only("refused", 1.0));
    let untrusting = Messenger::new(&alerts(&yaml("s3cr3t", ""))).expect("settings that work");
    let runtime = Runtime::new().expect("a runtime");
    let told = runtime.block_on(untrusting.test(&notice(NoticeKind::Test), None));
    assert!(told[0].error.as_ref().is_some_and(|why| why.contains("certificate")), "{told:?}");
    assert_eq!(server.mails().len(), 4);
}

#[test]
fn mail_goes_out_over_tls_and_in_the_clear_only_where_that_was_said() {
    if !peers_wanted() {
        return;
    }
    let authority = Authority::new();
    let identity = authority.issue("localhost");
    let files = texts(&[&identity.cert_file, &identity.key_file]);
    let server = MailServer::start("tls", &[&files[0], &files[1]]);
    let ca = authority.ca_file();
    let tls = format!(
        "{{email: {{smtp: 'smtps://localhost:{}', ca_file: '{}', to: [ops@example.com]}}}}",
        server.port,
        ca.display()
    );
    let metrics = send(&alerts(&tls), vec![notice(NoticeKind::Opened)]);
    assert_eq!(results(&metrics), only("delivered", 1.0));
    assert_eq!(server.mails()[0]["tls"], true);

    let server = MailServer::start("plain", &[]);
    let yaml = |starttls: &str| {
        format!(
            "{{deadline: 1s, email: {{smtp: 'smtp://127.0.0.1:{}', starttls: '{starttls}', to: \
             [ops@example.com]}}}}",
            server.port
        )
    };
    let metrics = send(&alerts(&yaml("off")), vec![notice(NoticeKind::Opened)]);
    assert_eq!(results(&metrics), only("delivered", 1.0));
    let metrics = send(&alerts(&yaml("required")), vec![notice(NoticeKind::Opened)]);
    assert_ne!(results(&metrics), only("delivered", 1.0));
    assert_eq!(server.mails().len(), 1, "a server without STARTTLS gets nothing");
}

/// Alertmanager, which keeps alerts and passes none on.
fn alertmanager() -> (Process, u16, tempfile::TempDir) {
    let bin = Command::new("bash").arg(root().join("tests/peers/alerts.sh")).arg("bin").output();
    let bin = String::from_utf8(bin.expect("bash is there").stdout).expect("a path");
    assert!(!bin.trim().is_empty(), "a real peer is missing; run `make peers`");
    let (port, folder) = (free_port(), tempfile::tempdir().expect("a folder"));
    let file = folder.path().join("alertmanager.yml");
    fs::write(&file, "route: {receiver: none}\nreceivers: [{name: none}]\n").expect("written");
    let mut command = Command::new(bin.trim());
    // Where its templates are, if it was unpacked and not installed.
    let home = Path::new(bin.trim()).ancestors().nth(3).expect("below usr/bin");
    command
        .current_dir(home)
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.path={}", folder.path().join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .arg("--cluster.listen-address=");
    let mut process = Process::start("alertmanager", &mut command);
    process.await_http(port, "/-/ready", PATIENCE);
    (process, port, folder)
}

fn get(port: u16, path: &str) -> Value {
    let mut peer = Peer::connect(port);
    peer.send(
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes(),
    );
    serde_json::from_str(&peer.read_response().text()).expect("json")
}

#[test]
fn alertmanager_takes_what_is_open_and_what_is_over() {
    if !peers_wanted() {
        return;
    }
    let (_process, port, _folder) = alertmanager();
    let yaml = format!(
        "{{page: 'https://flowtap.example.com', webhook: [{{url: 'http://127.0.0.1:{port}/', format: \
         alertmanager}}]}}"
    );
    let alerts = alerts(&yaml);
    let opened = || notice(NoticeKind::Opened);
    let metrics = send(&alerts, vec![opened(), notice(NoticeKind::Repeated)]);
    assert_eq!(results(&metrics), only("delivered", 2.0));
    let open = get(port, "/api/v2/alerts?active=true");
    assert_eq!(open.as_array().map(Vec::len), Some(1), "one violation is one alert: {open}");
    let labels = &open[0]["labels"];
    assert_eq!(labels["alertname"], "FlowtapViolation");
    assert_eq!((&labels["monitor"], &labels["deployment"]), (&"daily".into(), &"blue".into()));
    assert_eq!(labels["metric"], "fluency_average");
    assert_eq!(open[0]["generatorURL"], "https://flowtap.example.com/monitors?monitor=daily");
    let told = open[0]["annotations"]["description"].as_str().expect("text");
    assert!(told.contains("How sure: 95% interval 3.51 to 3.73"), "{told}");
    let ends: Timestamp = open[0]["endsAt"].as_str().expect("text").parse().expect("a time");
    let left = ends.duration_since(Timestamp::now());
    assert!((7..=8).contains(&left.as_hours()), "twice the quiet time of 4 h: {left}");

    let resolved = Notice { time: Timestamp::now(), ..notice(NoticeKind::Resolved) };
    assert_eq!(results(&send(&alerts, vec![resolved])), only("delivered", 1.0));
    assert_eq!(get(port, "/api/v2/alerts?active=true"), serde_json::json!([]));
}

fn answering(status: &str) -> Upstream {
    Upstream::answering(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"))
}

/// The first request that a sink got.
fn request(sink: &Upstream) -> Message {
    let text = sink.received_text();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no request: {text}"));
    Message { head: format!("{head}\r\n\r\n"), raw_body: body.into(), complete: true, end: None }
}

#[test]
fn a_webhook_is_signed_and_says_all_there_is_to_know() {
    let sink = answering("200 OK");
    let yaml = format!(
        "{{webhook: [{{url: 'http://127.0.0.1:{}/hook?a=b', secret: s3cr3t, headers: {{authorization: \
         'Bearer t0ken'}}}}]}}",
        sink.port
    );
    let metrics = send(&alerts(&yaml), vec![notice(NoticeKind::Opened)]);
    assert_eq!(results(&metrics), only("delivered", 1.0));
    let request = request(&sink);
    assert!(request.head.starts_with("POST /hook?a=b HTTP/1.1\r\n"), "{}", request.head);
    assert_eq!(request.header("authorization"), Some("Bearer t0ken"));
    let signed = format!(
        "{}.{}.{}",
        request.header("webhook-id").expect("an id"),
        request.header("webhook-timestamp").expect("a time"),
        request.text()
    );
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"s3cr3t").expect("any length");
    mac.update(signed.as_bytes());
    let wanted = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
    assert_eq!(request.header("webhook-signature"), Some(format!("v1,{wanted}").as_str()));
    let body: Value = serde_json::from_str(&request.text()).expect("json");
    assert_eq!(body["schema"], "flowtap.alert.v1");
    assert_eq!((&body["kind"], &body["monitor"]), (&"opened".into(), &"daily".into()));
    assert_eq!(body["measure"]["value"], 3.62);
    assert_eq!(body["key"], "daily/generation_quality/fluency_average/1795428900");
}

#[test]
fn slack_gets_a_text_that_cannot_mention_anybody() {
    let sink = answering("200 OK");
    let yaml = format!("{{webhook: [{{url: 'http://127.0.0.1:{}', format: slack}}]}}", sink.port);
    let mut hostile = notice(NoticeKind::Opened);
    hostile.scope.model = Some("<!channel> & co".into());
    send(&alerts(&yaml), vec![hostile]);
    let body: Value = serde_json::from_str(&request(&sink).text()).expect("json");
    let text = body["blocks"][1]["text"]["text"].as_str().expect("text");
    assert!(text.contains("model &lt;!channel&gt; &amp; co"), "{text}");
    assert!(
        body["text"].as_str().is_some_and(|text| text.starts_with("Violated: daily")),
        "{body}"
    );
}

#[test]
fn what_fails_for_now_is_tried_again_with_the_same_id() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let sink = Upstream::start(move |peer| {
        while peer.read_request().is_some() {
            let first = counter.fetch_add(1, Ordering::SeqCst) == 0;
            let status = if first { "503 Busy" } else { "200 OK" };
            peer.send(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes());
        }
    });
    let yaml = format!("{{webhook: [{{url: 'http://127.0.0.1:{}'}}]}}", sink.port);
    let metrics = send(&alerts(&yaml), vec![notice(NoticeKind::Opened)]);
    assert_eq!(results(&metrics), only("delivered", 1.0));
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    let text = sink.received_text();
    let ids: Vec<_> = text.lines().filter(|line| line.starts_with("webhook-id: ")).collect();
    assert!(ids.len() == 2 && ids[0] == ids[1], "{ids:?}");
}

#[test]
fn redirects_are_not_followed_and_metadata_addresses_are_not_called() {
    let elsewhere = answering("200 OK");
    let location = format!("http://127.0.0.1:{}/stolen", elsewhere.port);
    let sink = Upstream::answering(format!(
        "HTTP/1.1 307 Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
    ));
    let yaml = format!(
        "{{webhook: [{{url: 'http://127.0.0.1:{}'}}, {{url: 'http://169.254.169.254/latest'}}, {{url: \
         'http://metadata.google.internal/'}}]}}",
        sink.port
    );
    let metrics = send(&alerts(&yaml), vec![notice(NoticeKind::Opened)]);
    assert_eq!(results(&metrics), only("refused", 3.0));
    assert_eq!(elsewhere.received_text(), "");
}

#[test]
fn a_dead_mail_server_delays_no_webhook_and_its_deadline_is_kept() {
    // It takes connections and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("an address").port();
    let sink = answering("200 OK");
    let yaml = format!(
        "{{deadline: 1s, email: {{smtp: 'smtp://127.0.0.1:{port}', to: [ops@example.com]}}, webhook: \
         [{{url: 'http://127.0.0.1:{}'}}]}}",
        sink.port
    );
    let (alerts, metrics) = (alerts(&yaml), metrics());
    let (sender, receiver) = mpsc::channel(16);
    sender.try_send(notice(NoticeKind::Opened)).expect("room");
    sender.try_send(notice(NoticeKind::Resolved)).expect("room");
    drop(sender);
    let began = Instant::now();
    let watched = metrics.clone();
    let work = std::thread::spawn(move || {
        let messenger = Messenger::new(&alerts).expect("settings that work");
        let runtime = Runtime::new().expect("a runtime");
        runtime.block_on(messenger.run(receiver, watched));
    });
    while results(&metrics) != only("delivered", 2.0) {
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", results(&metrics));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(sink.received_text().matches("POST / HTTP/1.1").count(), 2);
    work.join().expect("it ends");
    let failed = metrics.sums("flowtap_alerts_total", "result");
    assert_eq!(
        failed.get("failed"),
        Some(&2.0),
        "an attempt takes 15 s, the deadline is over then"
    );
}

#[test]
fn the_command_line_tries_whether_messages_arrive() {
    let (well, unwell) = (answering("200 OK"), answering("404 Not Found"));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("flowtap.yaml");
    let text = format!(
        "taps: [{{upstream: 'http://127.0.0.1:9'}}]\nalerts: {{webhook: [{{name: well, url: \
         'http://127.0.0.1:{}/s3cr3t'}}, {{name: unwell, url: 'http://127.0.0.1:{}/s3cr3t'}}]}}\n",
        well.port, unwell.port
    );
    fs::write(&file, text).expect("written");
    let run = |target: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowtap"));
        command.args(["alert", "test"]).args(target).arg("--config").arg(&file);
        let output = command.output().expect("it runs");
        let printed = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(printed).expect("text"))
    };
    assert_eq!(run(&["well"]), (Some(0), "well: delivered\n".to_owned()));
    let (code, printed) = run(&[]);
    assert_eq!(code, Some(1));
    assert_eq!(printed, "well: delivered\nunwell: the answer was 404\n");
    assert_eq!(run(&["nobody"]).0, Some(64));
    assert!(request(&well).text().contains("This is a test. No threshold is violated."));
}
