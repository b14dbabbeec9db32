//! The real stores: settings for them, and the containers that a test needs there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flowtap::bucket::{self, Bucket};
use flowtap::config::{
    self, AzureBucket, BucketStore, GcsBucket, S3Bucket, S3Checksum, S3Encryption, Secret,
};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::support::servers::{ACCESS_KEY, AZURE_ACCOUNT, AZURE_KEY, SECRET_KEY, Server, ask};

/// Settings with limits that a busy machine keeps.
pub fn settings(store: BucketStore) -> config::Bucket {
    limited(store, Duration::from_secs(20), Duration::from_secs(60))
}

/// Settings with the given limits of attempt and operation.
pub fn limited(store: BucketStore, attempt: Duration, operation: Duration) -> config::Bucket {
    config::Bucket { store, attempt_timeout: attempt, operation_timeout: operation }
}

/// Opens what the settings say.
pub async fn open(store: BucketStore) -> Arc<dyn Bucket> {
    bucket::open(&settings(store)).await.unwrap()
}

/// An S3 bucket named `bucket` at `endpoint`, with the test's credentials.
pub fn s3(endpoint: &str) -> S3Bucket {
    S3Bucket {
        name: "bucket".to_owned(),
        prefix: String::new(),
        region: Some("us-east-1".to_owned()),
        endpoint: Some(endpoint.to_owned()),
        path_style: true,
        credentials: Some((ACCESS_KEY.to_owned(), Secret::new(SECRET_KEY))),
        encryption: S3Encryption::None,
        checksum: S3Checksum::Always,
    }
}

/// A container named `container` in the test's account at `endpoint`.
pub fn azure(endpoint: &str) -> AzureBucket {
    AzureBucket {
        account: AZURE_ACCOUNT.to_owned(),
        container: "container".to_owned(),
        prefix: String::new(),
        endpoint: Some(format!("{endpoint}/{AZURE_ACCOUNT}")),
        access_key: Some(Secret::new(AZURE_KEY)),
        sas: None,
    }
}

/// A GCS bucket named `bucket` at `endpoint`, without credentials.
pub fn gcs(endpoint: &str) -> GcsBucket {
    GcsBucket {
        name: "bucket".to_owned(),
        prefix: String::new(),
        endpoint: Some(endpoint.to_owned()),
        service_account: None,
        anonymous: true,
    }
}

/// Makes the S3 bucket. SeaweedFS answers some seconds before it can store anything; on a machine with
/// ten times its load, a minute and more.
pub async fn make_s3_bucket(server: &Server) {
    let credentials =
        aws_sdk_s3::config::Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test");
    let settings = aws_sdk_s3::Config::builder()
        .behavior_version_latest()
        .region(aws_sdk_s3::config::Region::new("us-east-1"))
        .endpoint_url(server.url())
        .force_path_style(true)
        .credentials_provider(credentials)
        .build();
    let client = aws_sdk_s3::Client::from_conf(settings);
    let deadline = Instant::now() + Duration::from_secs(180);
    loop {
        let made = client.create_bucket().bucket("bucket").send().await;
        let body = aws_sdk_s3::primitives::ByteStream::from_static(b"ready");
        let put = client.put_object().bucket("bucket").key("ready").body(body).send().await;
        match put {
            Ok(_) => return,
            Err(error) if Instant::now() > deadline => {
                panic!("no bucket in SeaweedFS: {made:?}, {error:?}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

/// Makes the Azure container by a request signed as "Authorize with Shared Key" says.
pub fn make_azure_container(server: &Server) {
    let date = jiff::fmt::rfc2822::DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&jiff::Timestamp::now())
        .unwrap();
    let path = format!("/{AZURE_ACCOUNT}/container");
    let headers = format!("x-ms-date:{date}\nx-ms-version:2021-12-02\n");
    let resource = format!("/{AZURE_ACCOUNT}{path}\nrestype:container");
    let signature = azure_signature(&format!("PUT{}{headers}{resource}", "\n".repeat(12)));
    let request = format!(
        "PUT {path}?restype=container HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\n\
         Connection: close\r\nx-ms-date: {date}\r\nx-ms-version: 2021-12-02\r\n\
         Authorization: SharedKey {AZURE_ACCOUNT}:{signature}\r\n\r\n",
        server.address
    );
    let answer = ask(server.address, &request).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

/// An account's shared access signature with all rights on blobs, good for `valid` from now.
pub fn azure_sas(valid: jiff::SignedDuration) -> String {
    let end = (jiff::Timestamp::now() + valid).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let (rights, version) = ("rwdlac", "2021-12-02");
    let text = format!("{AZURE_ACCOUNT}\n{rights}\nb\nsco\n\n{end}\n\nhttps,http\n{version}\n\n");
    url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("sv", version), ("ss", "b"), ("srt", "sco"), ("sp", rights)])
        .extend_pairs([("se", end.as_str()), ("spr", "https,http")])
        .append_pair("sig", &azure_signature(&text))
        .finish()
}

/// Makes the GCS bucket.
pub fn make_gcs_bucket(server: &Server) {
    let body = r#"{"name":"bucket"}"#;
    let request = format!(
        "POST /storage/v1/b?project=test HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        server.address,
        body.len()
    );
    let answer = ask(server.address, &request).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

fn azure_signature(text: &str) -> String {
    let key = STANDARD.decode(AZURE_KEY).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(text.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}
