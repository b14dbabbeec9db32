//! Remote stores that misbehave: every fault ends in time, with the right kind and without a secret.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flowtap::bucket::{self, Bucket, BucketError, BucketErrorKind as Kind};
use flowtap::config::{BucketStore, S3Bucket, S3Checksum, S3Encryption, Secret};
use futures_util::future::join_all;

use super::conformance::ends_within;
use super::stores;
use super::wire::{Reply, Request, Scripted};
use crate::support::servers::{AZURE_KEY, SECRET_KEY};

/// One attempt's limit here.
const ATTEMPT: Duration = Duration::from_millis(400);
/// One operation's limit here.
const OPERATION: Duration = Duration::from_millis(1_200);
/// By when an operation must have ended, on a busy machine.
const ENDED: Duration = Duration::from_millis(4_000);

const S3_ERROR: &str = "<?xml version=\"1.0\"?>\n<Error><Code>InternalError</Code></Error>";

/// S3, Azure (by key and by signature) and GCS at `endpoint`.
async fn remotes(endpoint: &str) -> Vec<(&'static str, Arc<dyn Bucket>)> {
    let mut signed = stores::azure(endpoint);
    signed.access_key = None;
    signed.sas = Some(Secret::new("sv=2021-12-02&ss=b&sig=canary-signature"));
    let mut opened = Vec::new();
    for (name, store) in [
        ("s3", BucketStore::S3(stores::s3(endpoint))),
        ("azure", BucketStore::Azure(stores::azure(endpoint))),
        ("azure by signature", BucketStore::Azure(signed)),
        ("gcs", BucketStore::Gcs(stores::gcs(endpoint))),
    ] {
        let settings = stores::limited(store, ATTEMPT, OPERATION);
        opened.push((name, bucket::open(&settings).await.unwrap()));
    }
    opened
}

/// How put, put_if_absent, get, list and delete end at `endpoint`, for each remote store, all at once.
async fn outcomes(endpoint: &str) -> Vec<(&'static str, [Result<(), BucketError>; 5])> {
    let stores = remotes(endpoint).await.into_iter().map(async |(name, bucket)| {
        let body = Bytes::from_static(b"body");
        let ended = tokio::join!(
            ends_within(ENDED, bucket.put("a/b", body.clone())),
            ends_within(ENDED, bucket.put_if_absent("a/b", body)),
            ends_within(ENDED, bucket.get("a/b")),
            ends_within(ENDED, bucket.list("a/")),
            ends_within(ENDED, bucket.delete("a/b")),
        );
        let (put, claim, get, list, delete) = ended;
        (name, [put, claim.map(drop), get.map(drop), list.map(drop), delete])
    });
    join_all(stores).await
}

/// All operations of all stores fail with one of `kinds` and tell no secret.
async fn all_fail(endpoint: &str, kinds: &[Kind]) {
    for (store, outcomes) in outcomes(endpoint).await {
        for (number, outcome) in outcomes.into_iter().enumerate() {
            let error = outcome.err().unwrap_or_else(|| panic!("{store}: {number} went well"));
            assert!(kinds.contains(&error.kind), "{store}: {number}: {error}");
            assert_is_harmless(&error);
        }
    }
}

fn assert_is_harmless(error: &BucketError) {
    let text = format!("{error} {error:?}");
    for secret in [SECRET_KEY, AZURE_KEY, "canary", "sig=", "Signature=", "SharedKey"] {
        assert!(!text.contains(secret), "{text}");
    }
    assert!(text.len() < 1_000, "{text}");
}

#[tokio::test]
async fn a_dead_endpoint_is_unavailable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    all_fail(&url, &[Kind::Unavailable]).await;
}

#[tokio::test]
async fn a_store_that_never_answers_times_out() {
    let server = Scripted::always(Reply::Hang).await;
    all_fail(&server.url(), &[Kind::Timeout]).await;
}

#[tokio::test]
async fn a_body_that_stops_or_drips_times_out() {
    let head =
        b"HTTP/1.1 200 OK\r\nETag: \"x\"\r\nLast-Modified: Tue, 24 Nov 2026 00:00:00 GMT\r\n\
        x-goog-generation: 1\r\nContent-Length: 1000\r\n\r\n";
    for reply in [Reply::HangAfter(head.to_vec()), Reply::Drip(head.to_vec(), vec![b'x'; 1000])] {
        let server = Scripted::always(reply).await;
        let gets = remotes(&server.url()).await.into_iter().map(async |(store, bucket)| {
            let error = ends_within(ENDED, bucket.get("a")).await.unwrap_err();
            // Azure and GCS ask for the rest of the body, and here get the beginning again.
            let is_timeout = error.kind == Kind::Timeout;
            let is_odd = store != "s3" && error.kind == Kind::Unavailable;
            assert!(is_timeout || is_odd, "{store}: {error}");
        });
        join_all(gets).await;
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_object() {
    let head =
        b"HTTP/1.1 200 OK\r\nETag: \"x\"\r\nLast-Modified: Tue, 24 Nov 2026 00:00:00 GMT\r\n\
        x-goog-generation: 1\r\nContent-Length: 1000\r\n\r\nsome bytes";
    for reply in [Reply::ResetAfter(head.to_vec()), Reply::Answer(head.to_vec())] {
        let server = Scripted::always(reply).await;
        for (store, bucket) in remotes(&server.url()).await {
            let error = ends_within(ENDED, bucket.get("a")).await.unwrap_err();
            assert!(error.kind.is_transient(), "{store}: {error}");
        }
    }
    let server = Scripted::always(Reply::ResetAfter(Vec::new())).await;
    all_fail(&server.url(), &[Kind::Unavailable]).await;
}

#[tokio::test]
async fn answers_get_their_kinds() {
    let cases: [(&str, &str, &[Kind]); 7] = [
        ("503 Slow Down", "SlowDown", &[Kind::Throttled]),
        ("503 Service Unavailable", "", &[Kind::Throttled]),
        ("500 Internal Server Error", "InternalError", &[Kind::Unavailable]),
        ("403 Forbidden", "AccessDenied", &[Kind::Denied]),
        ("401 Unauthorized", "", &[Kind::Denied]),
        ("404 Not Found", "NoSuchBucket", &[Kind::NoBucket]),
        ("301 Moved", "PermanentRedirect", &[Kind::Configuration, Kind::Unavailable]),
    ];
    for (status, code, kinds) in cases {
        // A store that quotes the request back, credentials and all, as error bodies do.
        let server = Scripted::start(move |request: Request| {
            let told = request.header("authorization").unwrap_or_default().to_owned();
            let code = if code.is_empty() { String::new() } else { format!("<Code>{code}</Code>") };
            let body = format!("<Error>{code}<Message>{told} {}</Message></Error>", request.target);
            std::future::ready(Reply::status(status, &[], &body))
        });
        all_fail(&server.await.url(), kinds).await;
    }
}

#[tokio::test]
async fn one_operation_asks_at_most_twice() {
    for status in ["503 Slow Down", "500 Internal Server Error"] {
        let server = Scripted::always(Reply::status(status, &[], "")).await;
        let mut before = 0;
        for (store, bucket) in remotes(&server.url()).await {
            assert!(bucket.put("a", Bytes::from_static(b"x")).await.is_err());
            let asked = server.seen().len() - before;
            assert!((1..=2).contains(&asked), "{store}: {asked} requests");
            before += asked;
        }
    }
}

#[tokio::test]
async fn a_success_that_holds_an_error_is_none() {
    for headers in [&[][..], &["ETag: \"x\""][..]] {
        let server = Scripted::always(Reply::status("200 OK", headers, S3_ERROR)).await;
        let s3 = open_s3(stores::s3(&server.url())).await;
        let body = Bytes::from_static(b"x");
        assert!(s3.put("a", body.clone()).await.unwrap_err().kind.is_transient());
        assert!(s3.put_if_absent("a", body).await.unwrap_err().kind.is_transient());
    }
    let server = Scripted::always(Reply::status("200 OK", &[], S3_ERROR)).await;
    for (store, bucket) in remotes(&server.url()).await {
        let body = Bytes::from_static(b"x");
        let put = bucket.put("a", body).await.unwrap_err();
        assert!(put.kind.is_transient(), "{store}: {put}");
        let list = bucket.list("").await.unwrap_err();
        assert!(list.kind.is_transient(), "{store}: {list}");
    }
}

#[tokio::test]
async fn a_success_without_etag_or_with_another_checksum_is_none() {
    let cases: [&[&str]; 4] = [
        &[],
        &["ETag: \"\""],
        &["ETag: \"x\"", "x-amz-checksum-crc32c: AAAAAA=="],
        &["ETag: \"900150983cd24fb0d6963f7d28e17f72\""],
    ];
    for headers in cases {
        let server = Scripted::always(Reply::status("200 OK", headers, "")).await;
        let s3 = open_s3(stores::s3(&server.url())).await;
        let error = s3.put("a", Bytes::from_static(b"x")).await.unwrap_err();
        assert_eq!(error.kind, Kind::Integrity, "{headers:?}");
    }
}

#[tokio::test]
async fn only_a_taken_name_is_taken() {
    let conflict = "<Error><Code>ContainerBeingDeleted</Code></Error>";
    let server = Scripted::always(Reply::status("409 Conflict", &[], conflict)).await;
    for (store, bucket) in remotes(&server.url()).await {
        let error = bucket.put_if_absent("a", Bytes::from_static(b"x")).await.err();
        assert!(error.is_some(), "{store}: a conflict passed for a stored object");
    }
    let taken = "<Error><Code>PreconditionFailed</Code></Error>";
    let server = Scripted::always(Reply::status("412 Precondition Failed", &[], taken)).await;
    for (store, bucket) in remotes(&server.url()).await {
        let won = bucket.put_if_absent("a", Bytes::from_static(b"x")).await;
        assert_eq!(won, Ok(false), "{store}");
    }
}

#[tokio::test]
async fn s3_requests_say_what_the_settings_say() {
    let kms = |key: Option<&str>| S3Encryption::Kms { key_id: key.map(str::to_owned) };
    let cases = [
        (S3Encryption::None, S3Checksum::Always, None, None),
        (S3Encryption::S3, S3Checksum::WhenRequired, Some("AES256"), None),
        (kms(None), S3Checksum::Always, Some("aws:kms"), None),
        (kms(Some("key-1")), S3Checksum::WhenRequired, Some("aws:kms"), Some("key-1")),
    ];
    for (encryption, checksum, method, key) in cases {
        let server = Scripted::always(Reply::status("200 OK", &["ETag: \"x\""], "")).await;
        let prefix = "pre/fix".to_owned();
        let base = stores::s3(&server.url());
        let s3 = open_s3(S3Bucket { prefix, encryption, checksum, ..base }).await;
        assert!(s3.put_if_absent("a=1/b", Bytes::from_static(b"123456789")).await.unwrap());
        let request = server.seen().remove(0);
        let path = request.target.split('?').next().unwrap().replace("%3D", "=");
        assert_eq!((request.method.as_str(), path.as_str()), ("PUT", "/bucket/pre/fix/a=1/b"));
        assert_eq!(request.body, b"123456789");
        assert_eq!(request.header("if-none-match"), Some("*"));
        assert_eq!(request.header("x-amz-server-side-encryption"), method);
        assert_eq!(request.header("x-amz-server-side-encryption-aws-kms-key-id"), key);
        // The check value of CRC-32C, e3069283, and the MD5 of the same nine digits.
        let (crc, md5) = match checksum {
            S3Checksum::Always => (Some("4waSgw=="), None),
            S3Checksum::WhenRequired => (None, Some("JfnnlDI7RTiF9RgfG2JNCw==")),
        };
        assert_eq!(request.header("x-amz-checksum-crc32c"), crc);
        assert_eq!(request.header("content-md5"), md5);
        let others = request.headers.iter().filter(|(name, _)| name.starts_with("x-amz-checksum-"));
        assert_eq!(others.count(), usize::from(crc.is_some()), "{:?}", request.headers);
        assert!(request.header("authorization").unwrap().contains("/us-east-1/s3/aws4_request"));
    }
}

#[tokio::test]
async fn listings_follow_every_page() {
    let s3 = |key: &str, next: &str| {
        format!(
            "<ListBucketResult><Name>bucket</Name><Contents><Key>{key}</Key><Size>1</Size>\
             <LastModified>2026-11-24T00:00:00Z</LastModified><ETag>x</ETag></Contents>\
             <IsTruncated>{}</IsTruncated>{next}</ListBucketResult>",
            !next.is_empty()
        )
    };
    let azure = |key: &str, next: &str| {
        format!(
            "<?xml version=\"1.0\"?><EnumerationResults><Blobs><Blob><Name>{key}</Name><Properties>\
             <Last-Modified>Tue, 24 Nov 2026 00:00:00 GMT</Last-Modified><Etag>x</Etag>\
             <Content-Length>1</Content-Length><Content-Type>x</Content-Type></Properties></Blob>\
             </Blobs>{next}</EnumerationResults>"
        )
    };
    let server = Scripted::start(move |request: Request| {
        let is_azure = request.target.contains("comp=list");
        let is_second = request.target.contains("page2");
        let body = match (is_azure, is_second) {
            (false, false) => s3("b", "<NextContinuationToken>page2</NextContinuationToken>"),
            (false, true) => s3("a", ""),
            (true, false) => azure("b", "<NextMarker>page2</NextMarker>"),
            (true, true) => azure("a", "<NextMarker/>"),
        };
        std::future::ready(Reply::status("200 OK", &["Content-Type: application/xml"], &body))
    })
    .await;
    for (store, bucket) in remotes(&server.url()).await {
        let listed = bucket.list("").await.unwrap();
        let names: Vec<_> = listed.iter().map(|o| (o.name.as_str(), o.bytes)).collect();
        assert_eq!(names, [("a", 1), ("b", 1)], "{store}");
    }
}

#[tokio::test]
async fn opening_asks_nobody() {
    // No credentials, no region: what would have to ask the instance's metadata service.
    let mut s3 = stores::s3("http://127.0.0.1:1");
    (s3.credentials, s3.region, s3.endpoint) = (None, None, None);
    let mut azure = stores::azure("http://127.0.0.1:1");
    (azure.access_key, azure.endpoint) = (None, None);
    let mut gcs = stores::gcs("http://127.0.0.1:1");
    (gcs.anonymous, gcs.endpoint) = (false, None);
    for store in [BucketStore::S3(s3), BucketStore::Azure(azure), BucketStore::Gcs(gcs)] {
        let settings = stores::settings(store);
        let opened = ends_within(Duration::from_secs(2), bucket::open(&settings)).await.unwrap();
        assert!(!opened.describe().is_empty());
    }
}

#[tokio::test]
async fn urls_tell_no_secret_and_metadata_endpoints_are_refused() {
    let described: Vec<_> =
        remotes("http://127.0.0.1:1").await.iter().map(|(_, bucket)| bucket.describe()).collect();
    assert_eq!(
        described,
        ["s3://bucket", "az://flowtap/container", "az://flowtap/container", "gs://bucket"]
    );
    let mut azure = stores::azure("http://127.0.0.1:1");
    azure.endpoint = Some("http://169.254.169.254/x".to_owned());
    let s3 = stores::s3("http://169.254.169.254");
    let gcs = stores::gcs("http://metadata.google.internal");
    for store in [BucketStore::S3(s3), BucketStore::Azure(azure), BucketStore::Gcs(gcs)] {
        let refused = bucket::open(&stores::settings(store)).await.err().unwrap();
        assert_eq!(refused.kind, Kind::Configuration);
    }
    let mut azure = stores::azure("http://127.0.0.1:1");
    azure.access_key = Some(Secret::new("canary: not base64!"));
    let mut gcs = stores::gcs("http://127.0.0.1:1");
    gcs.anonymous = false;
    gcs.service_account = Some(Secret::new("{\"canary\": 1}"));
    for store in [BucketStore::Azure(azure), BucketStore::Gcs(gcs)] {
        let refused = bucket::open(&stores::settings(store)).await.err().unwrap();
        assert_eq!(refused.kind, Kind::Configuration);
        assert_is_harmless(&refused);
    }
}

async fn open_s3(bucket: S3Bucket) -> Arc<dyn Bucket> {
    let settings = stores::limited(BucketStore::S3(bucket), ATTEMPT, OPERATION);
    bucket::open(&settings).await.unwrap()
}
