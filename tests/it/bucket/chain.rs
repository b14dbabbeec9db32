//! Credentials that the settings do not hold: each case runs this test binary again, because only a
//! process of its own can have an environment of its own.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flowtap::bucket::{self, Bucket, BucketErrorKind};
use flowtap::config::BucketStore;

use super::stores;
use super::wire::{Reply, Request, Scripted};

/// Where the child finds its store.
const ENDPOINT: &str = "FLOWTAP_TEST_ENDPOINT";
/// Which store it opens.
const STORE: &str = "FLOWTAP_TEST_STORE";
/// Which file it writes other credentials to after its first PUT, for a second one.
const MENDED: &str = "FLOWTAP_TEST_MENDED";

/// What the child runs: one PUT with nothing but the environment, told on its output. Among the
/// other tests it has no endpoint, and nothing to do.
#[tokio::test]
async fn child() {
    let Ok(endpoint) = std::env::var(ENDPOINT) else { return };
    let store = if std::env::var(STORE).unwrap() == "azure" {
        let mut azure = stores::azure(&endpoint);
        azure.access_key = None;
        BucketStore::Azure(azure)
    } else {
        let mut s3 = stores::s3(&endpoint);
        (s3.credentials, s3.region) = (None, None);
        BucketStore::S3(s3)
    };
    let settings = stores::limited(store, Duration::from_secs(1), Duration::from_secs(3));
    let begun = Instant::now();
    let bucket = bucket::open(&settings).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "opening waited for somebody");
    put(bucket.as_ref()).await;
    if let Ok(file) = std::env::var(MENDED) {
        std::fs::write(&file, profile("new")).unwrap();
        put(bucket.as_ref()).await;
    }
}

async fn put(bucket: &dyn Bucket) {
    match bucket.put("a", Bytes::from_static(b"x")).await {
        Ok(()) => println!("outcome: stored"),
        Err(error) => println!("outcome: {error}"),
    }
}

fn profile(id: &str) -> String {
    format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = s\n")
}

/// A store that knows the credentials named `new`, and says of others that they have expired.
async fn choosy() -> Scripted {
    Scripted::start(|request: Request| {
        let asked = [&request.target, request.header("authorization").unwrap_or_default()].concat();
        let expired = "<Error><Code>ExpiredToken</Code></Error>";
        std::future::ready(match asked.contains("new") {
            true => Reply::status("201 Created", &["ETag: \"x\""], ""),
            false => Reply::status("400 Bad Request", &[], expired),
        })
    })
    .await
}

/// Promise (operations): credentials that are mended on disk are used without a restart, once the store has
/// refused those before. Figure: a profile of the AWS chain, a file of a signature; stored at the next try.
#[tokio::test]
async fn credentials_that_are_mended_on_disk_are_used_once_the_old_ones_are_refused() {
    let (store, home) = (choosy().await, tempfile::tempdir().unwrap());
    let file = home.path().join("credentials");
    std::fs::write(&file, profile("old")).unwrap();
    let name = file.to_str().unwrap();
    let environment = [("AWS_SHARED_CREDENTIALS_FILE", name), (MENDED, name), ("AWS_REGION", "r")];
    let output = run(&store, "s3", &environment).await;
    let outcomes: Vec<_> = output.lines().filter(|line| line.contains("outcome: ")).collect();
    assert!(outcomes[0].contains("denied: put: status 400 ExpiredToken"), "{output}");
    assert!(outcomes[1].contains("outcome: stored"), "{output}");

    let signature = |sig: &str| {
        std::fs::write(home.path().join("sas"), format!("sv=2021-12-02&ss=b&sig={sig}")).unwrap();
    };
    signature("old");
    let config = home.path().join("flowtap.yaml");
    let (url, sas) = (store.url(), home.path().join("sas"));
    let bucket = format!(
        "{{url: az://account/samples, endpoint: \"{url}/account\", sas_file: {}}}",
        sas.display()
    );
    let taps = "taps: [{listen: 127.0.0.1:1, upstream: \"http://127.0.0.1:2\"}]";
    std::fs::write(&config, format!("{taps}\nbucket: {bucket}\n")).unwrap();
    std::fs::set_permissions(&sas, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let settings = flowtap::config::load(Some(&config), &Default::default(), &[]).unwrap().bucket;
    let bucket = bucket::open(&settings).await.unwrap();
    let put = async || bucket.put("a", Bytes::from_static(b"x")).await;
    assert_eq!(put().await.unwrap_err().kind, BucketErrorKind::Denied);
    assert_eq!(put().await.unwrap_err().kind, BucketErrorKind::Denied, "it has not changed");
    signature("new");
    assert_eq!(put().await.unwrap_err().kind, BucketErrorKind::Denied, "this tells that it has");
    put().await.unwrap();
}

#[tokio::test]
async fn s3_takes_keys_from_the_environment() {
    let store = store().await;
    let output = run(
        &store,
        "s3",
        &[
            ("AWS_ACCESS_KEY_ID", "from-env"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_REGION", "eu-test-1"),
        ],
    )
    .await;
    assert!(output.contains("outcome: stored"), "{output}");
    assert!(authorization(&store).contains("Credential=from-env/"));
    assert!(authorization(&store).contains("/eu-test-1/s3/"));
}

#[tokio::test]
async fn s3_takes_keys_from_a_profile_and_its_process() {
    let store = store().await;
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("config");
    let keys = r#"{"Version":1,"AccessKeyId":"from-process","SecretAccessKey":"s"}"#;
    let file = home.path().join("keys.json");
    std::fs::write(&file, keys).unwrap();
    let text =
        format!("[default]\nregion = eu-test-2\ncredential_process = cat {}\n", file.display());
    std::fs::write(&config, text).unwrap();
    let output = run(&store, "s3", &[("AWS_CONFIG_FILE", config.to_str().unwrap())]).await;
    assert!(output.contains("outcome: stored"), "{output}");
    assert!(authorization(&store).contains("Credential=from-process/"));
    assert!(authorization(&store).contains("/eu-test-2/s3/"));
}

#[tokio::test]
async fn s3_takes_keys_from_the_container_and_from_the_instance() {
    let keys = r#"{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"from-metadata",
        "SecretAccessKey":"s","Token":"session","Expiration":"2099-01-01T00:00:00Z",
        "LastUpdated":"2026-11-24T00:00:00Z"}"#;
    // The instance's service: a token by PUT, then the role's name, then its keys.
    let metadata = Scripted::start(move |request: Request| {
        let body = match request.target.trim_end_matches('/').rsplit('/').next() {
            Some("token") => "token",
            Some("security-credentials" | "security-credentials-extended") => "role",
            _ => keys,
        };
        let headers = ["x-aws-ec2-metadata-token-ttl-seconds: 21600"];
        std::future::ready(Reply::status("200 OK", &headers, body))
    })
    .await;
    let container = format!("{}/keys", metadata.url());
    for (name, value) in [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", container.as_str()),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &metadata.url()),
    ] {
        let store = store().await;
        let output = run(&store, "s3", &[(name, value)]).await;
        assert!(output.contains("outcome: stored"), "{name}: {output}");
        assert!(authorization(&store).contains("Credential=from-metadata/"), "{name}");
        let request = store.seen().remove(0);
        assert_eq!(request.header("x-amz-security-token"), Some("session"), "{name}");
    }
}

#[tokio::test]
async fn a_metadata_service_that_hangs_costs_one_operation_its_limit() {
    let metadata = Scripted::always(Reply::Hang).await;
    let store = store().await;
    let environment = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url())];
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
    let begun = Instant::now();
    let output = run(&store, "s3", &environment).await;
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert!(output.contains("outcome: "), "{output}");
    assert!(!output.contains("outcome: stored"), "{output}");
    assert!(store.seen().is_empty());
}

#[tokio::test]
async fn azure_takes_its_key_from_the_environment() {
    let store = store().await;
    let key = crate::support::servers::AZURE_KEY;
    let output = run(&store, "azure", &[("AZURE_STORAGE_ACCOUNT_KEY", key)]).await;
    assert!(output.contains("outcome: stored"), "{output}");
    assert!(authorization(&store).starts_with("SharedKey flowtap:"));
}

async fn store() -> Scripted {
    let headers =
        ["ETag: \"x\"", "Last-Modified: Tue, 24 Nov 2026 00:00:00 GMT", "x-ms-version: 2021-12-02"];
    Scripted::always(Reply::status("200 OK", &headers, "")).await
}

fn authorization(store: &Scripted) -> String {
    store.seen()[0].header("authorization").unwrap().to_owned()
}

/// Runs the child with this environment and no other, and returns what it told.
async fn run(store: &Scripted, kind: &str, environment: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "bucket::chain::child", "--nocapture"])
        .env_clear()
        .env("PATH", std::env::var("PATH").unwrap_or_default())
        .env(ENDPOINT, store.url())
        .env(STORE, kind)
        .envs(environment.iter().copied())
        .stdin(Stdio::null());
    let waited = tokio::task::spawn_blocking(move || command.output());
    let Output { stdout, stderr, .. } = waited.await.unwrap().unwrap();
    String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned()
}
