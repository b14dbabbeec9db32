//! The configuration: fixtures for every key, docs/CONFIG.md, and that nothing typed can break it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by them")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use flowtap::config::{Config, Faults, Overrides, effective, key_paths, load, reference};
use proptest::prelude::*;

/// What stands for a secret in fixtures: it must never be shown.
const SECRET: &str = "s3cr3t";

/// A folder with the files that fixtures name, by `${FILES}`.
fn files() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let pem = |what: &str| format!("-----BEGIN {what}-----\nbm90IG9uZQ==\n-----END {what}-----\n");
    write(dir.path(), "secret", 0o600, format!("{SECRET}\r\n").as_bytes());
    write(dir.path(), "readable", 0o644, SECRET.as_bytes());
    write(dir.path(), "writable", 0o666, pem("PRIVATE KEY").as_bytes());
    write(dir.path(), "cert.pem", 0o644, pem("CERTIFICATE").as_bytes());
    write(dir.path(), "key.pem", 0o600, pem("PRIVATE KEY").as_bytes());
    write(dir.path(), "rubric.txt", 0o644, b"Is it polite?\n1: no.\n5: yes.\n");
    write(dir.path(), "hook", 0o600, format!("https://hooks.example.com/{SECRET}\n").as_bytes());
    write(dir.path(), "empty", 0o600, b"\n");
    write(dir.path(), "big", 0o600, &[b'x'; 64 * 1024 + 1]);
    write(dir.path(), "latin1", 0o600, &[0xe4]);
    dir
}

fn write(dir: &Path, name: &str, mode: u32, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join(name);
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

fn env(files: &Path, more: &[(&str, &str)]) -> Vec<(String, String)> {
    let files = files.display().to_string();
    let base = [("FILES", files.as_str()), ("SECRET", SECRET), ("EMPTY", "")];
    base.iter().chain(more).map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

fn fixtures(kind: &str) -> Vec<PathBuf> {
    let folder = Path::new("tests/fixtures/config").join(kind);
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().unwrap() == "yaml").collect();
    paths.sort();
    assert!(paths.len() > 5);
    paths
}

fn read(path: &Path, env: &[(String, String)]) -> Result<Config, Faults> {
    load(Some(path), &Overrides::default(), env)
}

/// Reads `text` as if it stood in a file.
fn read_text(text: &[u8], more: &[(&str, &str)]) -> Result<Config, Faults> {
    let dir = files();
    let path = dir.path().join("flowtap.yaml");
    fs::write(&path, text).unwrap();
    read(&path, &env(dir.path(), more))
}

fn faults(text: &str, more: &[(&str, &str)]) -> String {
    read_text(text.as_bytes(), more).unwrap_err().to_string()
}

const TAP: &str = "taps: [{upstream: 'http://127.0.0.1:9000'}]\n";

#[test]
fn good_fixtures_load_and_what_is_effective_loads_again() {
    let dir = files();
    let env = env(dir.path(), &[]);
    for path in fixtures("good") {
        let mut config = read(&path, &env).unwrap_or_else(|f| panic!("{}\n{f}", path.display()));
        assert!(config.warnings.is_empty(), "{}: {:?}", path.display(), config.warnings);
        let shown = effective(&config);
        assert!(!shown.contains(SECRET), "{shown}");
        let file = dir.path().join("again.yaml");
        fs::write(&file, &shown).unwrap();
        let mut again = read(&file, &env).unwrap_or_else(|f| panic!("{shown}\n{f}"));
        config.warnings.clear();
        again.warnings.clear();
        assert_eq!(format!("{config:?}"), format!("{again:?}"), "{}\n{shown}", path.display());
        assert_eq!(shown, effective(&again));
    }
}

#[test]
fn the_example_of_two_taps_loads() {
    let config = read(Path::new("examples/two-taps.yaml"), &[]).unwrap_or_else(|f| panic!("{f}"));
    assert_eq!(config.taps.len(), 2);
    assert_eq!(config.join.wait, std::time::Duration::from_millis(250));
}

#[test]
fn the_example_with_a_judge_loads() {
    let env = [("JUDGE_KEY".to_owned(), SECRET.to_owned())];
    let config = read(Path::new("examples/judge.yaml"), &env).unwrap_or_else(|f| panic!("{f}"));
    let evaluate = config.evaluate.expect("it evaluates");
    assert_eq!(
        (config.judge.map(|judge| judge.concurrency), evaluate.criteria.len()),
        (Some(4), 4)
    );
}

#[test]
fn bad_fixtures_render_as_recorded() {
    let dir = files();
    let env = env(dir.path(), &[]);
    for path in fixtures("bad") {
        let faults = match read(&path, &env) {
            Ok(config) => panic!("{} loads: {config:?}", path.display()),
            Err(faults) => faults,
        };
        let rendered = format!("{faults}\n");
        assert!(!rendered.contains(SECRET), "{}\n{rendered}", path.display());
        assert!(!rendered.contains(&*dir.path().to_string_lossy()), "{rendered}");
        same_as_file(&path.with_extension("txt"), &rendered);
    }
}

#[test]
fn every_key_has_a_good_and_a_bad_fixture() {
    let mut good = BTreeSet::new();
    for path in fixtures("good") {
        let text = fs::read_to_string(path).unwrap();
        collect(&serde_saphyr::from_str(&text).unwrap(), "", &mut good);
    }
    // A fault names its key first, in backticks, as `taps[0].listen`.
    let mut bad = BTreeSet::new();
    for path in fixtures("bad") {
        let text = fs::read_to_string(path.with_extension("txt")).unwrap();
        for line in text.lines().filter_map(|line| line.strip_prefix("error: `")) {
            let path = line.split('`').next().unwrap();
            let entry = path.split('[').map(|part| part.split_once(']').map_or(part, |p| p.1));
            bad.insert(entry.collect::<Vec<_>>().join("[]"));
            bad.insert(
                path.trim_end_matches(|c: char| c.is_ascii_digit() || "[]".contains(c)).into(),
            );
        }
    }
    for path in key_paths() {
        assert!(good.contains(&path), "no good fixture has {path}");
        assert!(bad.contains(&path), "no bad fixture has a fault in {path}");
    }
}

fn collect(value: &serde_json::Value, path: &str, paths: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                paths.insert(path.clone());
                collect(value, &path, paths);
            }
        }
        serde_json::Value::Array(list) => {
            list.iter().for_each(|value| collect(value, &format!("{path}[]"), paths));
        }
        _ => {}
    }
}

#[test]
fn the_reference_is_what_the_code_says() {
    same_as_file(Path::new("docs/CONFIG.md"), &reference());
}

#[test]
fn the_example_of_the_reference_loads() {
    let reference = reference();
    let example = reference.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let config = read_text(example.as_bytes(), &[("REDACT_KEY", "k")]).unwrap();
    assert_eq!(config.taps.len(), 2);
    assert_eq!(config.admin.token.unwrap().expose(), "only-for-a-trial");
}

/// Compares with a recorded file, or records it under `FLOWTAP_BLESS=1`.
fn same_as_file(path: &Path, text: &str) {
    if std::env::var_os("FLOWTAP_BLESS").is_some() {
        fs::write(path, text).unwrap();
    }
    let recorded = fs::read_to_string(path).unwrap_or_default();
    assert!(recorded == text, "{} differs; FLOWTAP_BLESS=1 records:\n{text}", path.display());
}

#[test]
fn the_environment_overrides_any_key() {
    let config = read_text(
        b"taps: [{upstream: {url: 'http://a.example', http2: always}}]\nbucket: s3://samples\n",
        &[
            ("FLOWTAP_SAMPLE__RATE", "0.5"),
            ("FLOWTAP_DRAIN_TIMEOUT", "1s"),
            ("FLOWTAP_TAPS__0__UPSTREAM", "http://b.example"),
            ("FLOWTAP_TAPS__1__UPSTREAM__URL", "http://c.example"),
            ("FLOWTAP_TAPS__1__LISTEN", "127.0.0.1:1"),
            ("FLOWTAP_TAPS__1__NAME", "second"),
            ("FLOWTAP_REDACT__DETECT", "email, ip"),
            ("FLOWTAP_CAPTURE__HEADERS", "[X-A, 'x-b']"),
            ("FLOWTAP_BUCKET__REGION", "eu"),
            ("FLOWTAP_TRACE", "{otlp_endpoint: 'http://127.0.0.1:4318'}"),
            ("FLOWTAP_TRACE__HEADERS__X_API_KEY", "${s}"),
            ("FLOWTAP_CONFIG", "elsewhere"),
            ("FLOWTAP_SERVICE_HOST", "10.0.0.1"),
            ("FLOWTAP_SERVICE_PORT_HTTP", "80"),
            ("FLOWTAP_HUB_PORT", "tcp://10.0.0.1:80"),
            ("FLOWTAP_PORT_80_TCP_ADDR", "10.0.0.1"),
        ],
    )
    .unwrap();
    assert_eq!((config.sample.rate, config.drain_timeout.as_secs()), (0.5, 1));
    let hosts: Vec<_> = config.taps.iter().map(|tap| tap.upstream.host.as_str()).collect();
    assert_eq!(hosts, ["b.example", "c.example"]);
    assert_eq!(config.taps[0].upstream.http2, flowtap::config::UpstreamHttp2::Always);
    assert_eq!(config.redact.detect.len(), 2);
    assert_eq!(config.capture.headers, ["x-a", "x-b"]);
    let trace = config.trace.unwrap();
    assert_eq!(trace.protocol, flowtap::config::OtlpProtocol::Http);
    assert_eq!((trace.headers[0].0.as_str(), trace.headers[0].1.expose()), ("x-api-key", "${s}"));
    assert!(format!("{:?}", config.bucket).contains("\"eu\""));
}

#[test]
fn faults_of_the_environment_name_the_variable() {
    let rendered = faults(
        TAP,
        &[
            ("FLOWTAP_SAMPEL__RATE", "1"),
            ("FLOWTAP_SAMPLE__RATE", "2"),
            ("FLOWTAP_ADMIN__TOKEN", ""),
            ("FLOWTAP_TAPS__2__NAME", "x"),
            ("FLOWTAP_JUDGE__API_KYE", SECRET),
            ("FLOWTAP_ADMIN", "127.0.0.1:1"),
            ("FLOWTAP_TRACE", "{a: [}"),
            ("FLOWTAP_LOG__LEVEL", "info"),
            ("FLOWTAP_", "x"),
        ],
    );
    for part in [
        "error: `FLOWTAP_SAMPEL__RATE` names no key\n  --> environment FLOWTAP_SAMPEL__RATE\n",
        "= did you mean `FLOWTAP_SAMPLE__RATE`?",
        "error: `sample.rate` is `2`\n  --> environment FLOWTAP_SAMPLE__RATE\n",
        "error: `admin.token` is not a usable secret",
        "error: entry 2 of a list that has 1 entries",
        "error: `FLOWTAP_JUDGE__API_KYE` names no key",
        "error: this is no map\n  --> environment FLOWTAP_ADMIN\n",
        "error: this is not valid YAML",
        "environment FLOWTAP_LOG__LEVEL",
        "9 faults",
    ] {
        assert!(rendered.contains(part), "no {part:?} in\n{rendered}");
    }
    assert!(!rendered.contains(SECRET), "{rendered}");
}

#[test]
fn the_command_line_wins_over_all() {
    let text =
        "taps: [{name: a, upstream: {url: 'http://a.example', http2: off}}]\ndata_dir: /file\n";
    let dir = files();
    let path = dir.path().join("flowtap.yaml");
    fs::write(&path, text).unwrap();
    let overrides = Overrides {
        upstream: Some("http://cli.example".into()),
        listen: Some("127.0.0.1:1".into()),
        admin: Some("127.0.0.1:2".into()),
        data_dir: Some("/cli".into()),
        ..Overrides::default()
    };
    let env = env(dir.path(), &[("FLOWTAP_TAPS__0__LISTEN", "127.0.0.1:9")]);
    let config = load(Some(&path), &overrides, &env).unwrap();
    let tap = &config.taps[0];
    assert_eq!((&*tap.name, tap.upstream.host.as_str()), ("a", "cli.example"));
    assert_eq!((tap.listen.port(), config.admin.listen.port()), (1, 2));
    assert_eq!(config.spool.dir, Path::new("/cli/spool"));
}

#[test]
fn faults_of_the_command_line_name_the_option() {
    let dir = files();
    let path = dir.path().join("flowtap.yaml");
    fs::write(
        &path,
        "taps: [{upstream: 'http://a'}, {upstream: 'http://b', name: b, listen: ':1'}]",
    )
    .unwrap();
    let overrides = Overrides {
        upstream: Some("a.example".into()),
        admin: Some("x".into()),
        ..Overrides::default()
    };
    let rendered = load(Some(&path), &overrides, &[]).unwrap_err().to_string();
    assert!(rendered.contains("`--upstream` is for one tap, and `taps` has 2\n  --> --upstream\n"));
    assert!(rendered.contains("`admin.listen` is `x`\n  --> --admin\n"), "{rendered}");

    let listen = Overrides { listen: Some(":1".into()), ..Overrides::default() };
    let rendered = load(None, &listen, &[]).unwrap_err().to_string();
    assert!(rendered.contains("`taps[0].upstream` is missing\n  --> --listen\n"), "{rendered}");
    let rendered = load(None, &Overrides::default(), &[]).unwrap_err().to_string();
    assert!(rendered.starts_with("error: there is no tap"), "{rendered}");
    let missing = load(Some(Path::new("/does/not/exist")), &listen, &[]).unwrap_err().to_string();
    assert_eq!(missing, "error: the file does not exist\n  --> /does/not/exist\n\n1 fault");
}

#[test]
fn secret_files_are_read_and_their_modes_watched() {
    let text = format!("{TAP}admin: {{token_file: '${{FILES}}/readable'}}\n");
    let config = read_text(text.as_bytes(), &[]).unwrap();
    assert_eq!(config.admin.token.unwrap().expose(), SECRET);
    assert_eq!(
        config.warnings,
        ["`admin.token_file`: others may read the file `${FILES}/readable`; `chmod 600` it"]
    );
    let rendered = faults(&text.replace("readable", "writable"), &[]);
    assert!(rendered.contains("others may change the file `${FILES}/writable`"), "{rendered}");
    assert!(rendered.contains("`chmod 600` it"), "{rendered}");
}

#[test]
fn a_large_file_is_refused_unread() {
    let text = "#".repeat(1024 * 1024 + 1);
    assert!(faults(&text, &[]).contains("has 1048577 bytes, more than 1048576"));
}

#[test]
fn long_lines_are_cut_around_the_fault() {
    let padding = "x".repeat(500);
    let rendered = faults(&format!("{TAP}sample: {{by: request, rat: 1}} # {padding}\n"), &[]);
    assert!(rendered.contains("did you mean `rate`?"), "{rendered}");
    assert!(rendered.lines().all(|line| line.chars().count() < 200), "{rendered}");
}

#[test]
fn what_is_no_configuration_is_refused_in_bounded_time() {
    let entries = |entry: &str| entry.repeat(1_000_000 / entry.len());
    let numbered: String = (0..24_000).map(|n| format!("k{n}: 1, key: s, ")).collect();
    for text in [
        entries("a@ "),
        entries("a: b\n"),
        format!("{{{}}}", entries("key: b, ")),
        format!("{{{numbered}}}"),
        format!("taps: [{}]", entries("{}, ")),
        format!("log: {}", entries("${")),
        format!("? {}\n: a", entries("key")),
        format!("a: &a [1]\nb: [{}]", entries("*a, ")),
        entries("- "),
        entries("{"),
        entries("  key: |\n"),
    ] {
        let started = std::time::Instant::now();
        let rendered = faults(&text, &[]);
        assert!(started.elapsed().as_secs() < 20, "{:?}", &text[..40]);
        assert!(rendered.len() < 1_000_000, "{} of {:?}", rendered.len(), &text[..40]);
    }
}

/// A file whose secrets stand in many shapes, and where they may be damaged.
const DAMAGED: &str = "\
taps:
  - upstream: https://user:s3cr3t@example.com
    name: a
redact: {mood: hash, key: s3cr3t, detect: [email]}
admin:
  token: \"s3cr3t\"
  host: [a]
bucket:
  uri: s3://samples
  access_key_id: id
  secret_access_key: >-
    s3cr3t
sample:
  key: 's3cr3t'
trace:
  otlp_endpoint: http://127.0.0.1:4317
  headers:
    authorization: Bearer s3cr3t
";

/// Every single character lost, and every one of YAML's own put in, one at a time.
#[test]
fn a_damaged_file_shows_no_secret() {
    let dir = files();
    let path = dir.path().join("flowtap.yaml");
    let env = env(dir.path(), &[]);
    let in_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut refused = 0;
    for at in 0..DAMAGED.len() {
        let (before, after) = DAMAGED.split_at(at);
        // A key's name and a URL's `@` are left whole: a secret is known by them.
        if before.ends_with(in_name) && after.starts_with(in_name) {
            continue;
        }
        let lost = format!("{before}{}", &after[1..]);
        let signs = " \n\t:#&*!|>'\"%@`{}[],?-".chars();
        let gained = signs.map(|sign| format!("{before}{sign}{after}"));
        let kept = |c: char| in_name(c) || c == '@';
        let lost = (!after.starts_with(kept)).then_some(lost);
        for text in gained.chain(lost) {
            fs::write(&path, &text).unwrap();
            let shown = match read(&path, &env) {
                Ok(config) => effective(&config),
                Err(faults) => faults.to_string(),
            };
            refused += usize::from(shown.starts_with("error: "));
            assert!(!shown.contains(SECRET), "{text}\n{shown}");
        }
    }
    assert!(refused > 1000, "{refused}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_a_configuration_or_faults(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        check_bytes(&bytes);
    }

    #[test]
    fn any_text_of_yaml_is_a_configuration_or_faults(
        text in "([a-z]{0,5}|[ \\n\\t:#&*!|>'\"%@`{}\\[\\],?-]|taps|upstream|\\$\\{|s3://|é|\u{1F600}){0,60}"
    ) {
        check_bytes(text.as_bytes());
    }

    #[test]
    fn any_value_of_any_key_is_taken_or_refused(
        index in 0..key_paths().len(),
        value in "[ -~]{0,12}|[0-9]{1,25}(ms|s|m|h|d|KiB|TiB)?|https?://[ -~]{0,12}|[$/][ -~]{0,12}",
    ) {
        let path = key_paths().remove(index).replace("[]", "__0").replace('.', "__");
        let name = format!("FLOWTAP_{}", path.to_uppercase());
        match read_text(TAP.as_bytes(), &[(&name, &value)]) {
            Ok(config) => prop_assert!(!effective(&config).is_empty()),
            Err(faults) => prop_assert!(!faults.0.is_empty()),
        }
    }
}

fn check_bytes(bytes: &[u8]) {
    if let Err(faults) = read_text(bytes, &[]) {
        let rendered = faults.to_string();
        assert!(!faults.0.is_empty());
        assert!(!rendered.contains(|c: char| c.is_control() && c != '\n'), "{rendered:?}");
    }
}
