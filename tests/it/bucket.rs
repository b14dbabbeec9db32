//! The buckets: one suite on every store, against real servers, and faults from a scripted one.

// A test's support fails by panicking, like the test itself.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod chain;
mod conformance;
mod faults;
mod gcs_front;
mod live;
mod outside;
mod stores;
mod wire;

use std::sync::Arc;

use bytes::Bytes;
use flowtap::bucket::{Bucket, BucketErrorKind};
use flowtap::config::{BucketStore, S3Bucket, S3Checksum, S3Encryption, Secret};

use crate::support::servers;

#[tokio::test]
async fn a_folder_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let path = |prefix: &str| BucketStore::Local { path: folder.path().join("root").join(prefix) };
    conformance::run(async |prefix| stores::open(path(prefix)).await).await;
    let beside: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(beside.len(), 1, "something was written beside the bucket");
}

#[tokio::test]
async fn s3_keeps_the_contract() {
    let Some(server) = servers::seaweedfs() else { return };
    stores::make_s3_bucket(&server).await;
    let base = stores::s3(&server.url());
    let open = async |bucket: S3Bucket| stores::open(BucketStore::S3(bucket)).await;
    conformance::run(async |prefix| {
        open(S3Bucket { prefix: prefix.to_owned(), ..base.clone() }).await
    })
    .await;

    for encryption in [S3Encryption::None, S3Encryption::S3] {
        for checksum in [S3Checksum::Always, S3Checksum::WhenRequired] {
            let encryption = encryption.clone();
            let bucket = open(S3Bucket { encryption, checksum, ..base.clone() }).await;
            round_trip(&bucket).await;
        }
    }

    let credentials = Some((servers::ACCESS_KEY.to_owned(), Secret::new("wrong")));
    let stranger = open(S3Bucket { credentials, ..base.clone() }).await;
    assert_denied(&stranger).await;
    let nowhere = open(S3Bucket { name: "missing".to_owned(), ..base.clone() }).await;
    // SeaweedFS makes a bucket that a PUT names, so only reading can miss it.
    for error in [nowhere.list("").await.err(), nowhere.get("a").await.err()] {
        assert_eq!(error.map(|error| error.kind), Some(BucketErrorKind::NoBucket));
    }
}

#[tokio::test]
async fn azure_keeps_the_contract() {
    let Some(server) = servers::azurite() else { return };
    stores::make_azure_container(&server);
    let base = stores::azure(&server.url());
    let open = async |bucket| stores::open(BucketStore::Azure(bucket)).await;
    conformance::run(async |prefix| {
        let mut bucket = base.clone();
        bucket.prefix = prefix.to_owned();
        open(bucket).await
    })
    .await;

    let signed = async |valid| {
        let mut bucket = base.clone();
        bucket.access_key = None;
        bucket.sas = Some(Secret::new(stores::azure_sas(valid)));
        open(bucket).await
    };
    round_trip(&signed(jiff::SignedDuration::from_hours(1)).await).await;
    let expired = signed(jiff::SignedDuration::from_hours(-1)).await;
    assert_denied(&expired).await;

    let mut stranger = base.clone();
    stranger.access_key = Some(Secret::new("d3Jvbmcga2V5"));
    assert_denied(&open(stranger).await).await;
    let mut nowhere = base.clone();
    nowhere.container = "missing".to_owned();
    let nowhere = open(nowhere).await;
    assert_eq!(touches(&nowhere).await, [BucketErrorKind::NoBucket; 4]);
    nowhere.delete("a").await.unwrap();
}

#[tokio::test]
async fn gcs_keeps_the_contract() {
    let Some(server) = servers::fake_gcs() else { return };
    stores::make_gcs_bucket(&server);
    let front = gcs_front::start(server.address).await;
    let base = stores::gcs(&front.url());
    let open = async |bucket| stores::open(BucketStore::Gcs(bucket)).await;
    conformance::run(async |prefix| {
        let mut bucket = base.clone();
        bucket.prefix = prefix.to_owned();
        open(bucket).await
    })
    .await;
}

async fn round_trip(bucket: &Arc<dyn Bucket>) {
    let body = Bytes::from_static(b"there and back");
    bucket.put("trip", body.clone()).await.unwrap();
    assert_eq!(bucket.get("trip").await.unwrap(), body);
}

/// Every operation is denied.
async fn assert_denied(bucket: &Arc<dyn Bucket>) {
    assert_eq!(touches(bucket).await, [BucketErrorKind::Denied; 4]);
    assert_eq!(bucket.delete("a").await.unwrap_err().kind, BucketErrorKind::Denied);
}

/// How put, put_if_absent, get and list fail.
async fn touches(bucket: &Arc<dyn Bucket>) -> [BucketErrorKind; 4] {
    let body = Bytes::from_static(b"x");
    [
        bucket.put("a", body.clone()).await.unwrap_err().kind,
        bucket.put_if_absent("a", body).await.unwrap_err().kind,
        bucket.get("a").await.unwrap_err().kind,
        bucket.list("").await.unwrap_err().kind,
    ]
}
