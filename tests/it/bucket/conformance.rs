//! What every bucket must do, whatever it is made of.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flowtap::bucket::{Bucket, BucketErrorKind, Listed};
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream;

/// More than one page of any store's listing but Azure's, whose pages have 5,000.
const MANY: usize = 1_100;

/// Writers that go for the same name at once.
const WRITERS: usize = 12;

/// Runs the whole suite; `open` opens the same store under a prefix.
pub async fn run<O>(open: O)
where
    O: AsyncFn(&str) -> Arc<dyn Bucket>,
{
    let bucket = open("suite").await;
    objects_come_back_as_they_went(&*bucket).await;
    objects_are_replaced_and_removed(&*bucket).await;
    names_are_listed_by_prefix(&*bucket).await;
    folders_are_told_without_what_is_in_them(&*bucket).await;
    many_names_are_listed_in_order(&*bucket).await;
    one_writer_wins(&bucket).await;
    hostile_names_are_refused(&*bucket).await;
    prefixes_hold_buckets_apart(&open).await;
}

async fn objects_come_back_as_they_went(bucket: &dyn Bucket) {
    let large: Vec<u8> =
        (0..5 * 1024 * 1024_u32).map(|i| (i.wrapping_mul(2654435761) >> 24) as u8).collect();
    let bodies = [
        ("body/empty", Bytes::new()),
        ("body/one", Bytes::from_static(b"x")),
        ("body/large", Bytes::from(large)),
        (
            "exchanges/deployment=blue/date=2026-11-23/hour=22/pod-7f_1-000001.jsonl.gz",
            Bytes::from_static(b"\x1f\x8b\0\xff\r\n<Error>"),
        ),
    ];
    for (name, body) in bodies {
        bucket.put(name, body.clone()).await.unwrap();
        assert!(bucket.get(name).await.unwrap() == body, "{name} came back otherwise");
    }
}

async fn folders_are_told_without_what_is_in_them(bucket: &dyn Bucket) {
    for name in ["tree/b=1/x", "tree/b=1/deep/y", "tree/a=2/deep/z", "tree/leaf", "treehouse/c/x"] {
        bucket.put(name, Bytes::from_static(b"x")).await.unwrap();
    }
    assert_eq!(bucket.folders("tree/").await.unwrap(), ["a=2", "b=1"]);
    assert_eq!(bucket.folders("tree/b=1/").await.unwrap(), ["deep"]);
    assert_eq!(bucket.folders("tree/b=1/deep/").await.unwrap(), [""; 0]);
    assert_eq!(bucket.folders("nowhere/").await.unwrap(), [""; 0]);
    assert!(bucket.folders("").await.unwrap().contains(&"treehouse".to_owned()));
    let refused = bucket.folders("tree").await.unwrap_err();
    assert_eq!(refused.kind, BucketErrorKind::Configuration);
    for name in ["tree/b=1/x", "tree/b=1/deep/y", "tree/a=2/deep/z", "tree/leaf", "treehouse/c/x"] {
        bucket.delete(name).await.unwrap();
    }
}

async fn objects_are_replaced_and_removed(bucket: &dyn Bucket) {
    let name = "twice";
    bucket.put(name, Bytes::from_static(b"first, and longer")).await.unwrap();
    bucket.put(name, Bytes::from_static(b"second")).await.unwrap();
    assert_eq!(bucket.get(name).await.unwrap(), "second");
    assert!(!bucket.put_if_absent(name, Bytes::from_static(b"third")).await.unwrap());
    assert_eq!(bucket.get(name).await.unwrap(), "second");
    bucket.delete(name).await.unwrap();
    bucket.delete(name).await.unwrap();
    assert_eq!(bucket.get(name).await.unwrap_err().kind, BucketErrorKind::NotFound);
    assert_eq!(bucket.get("no/such/name").await.unwrap_err().kind, BucketErrorKind::NotFound);
    assert!(bucket.put_if_absent(name, Bytes::from_static(b"fourth")).await.unwrap());
    assert_eq!(bucket.get(name).await.unwrap(), "fourth");
}

async fn names_are_listed_by_prefix(bucket: &dyn Bucket) {
    for (name, body) in [
        ("list/d=a/x.gz", "1"),
        ("list/d=a/y.gz", "22"),
        ("list/d=ab/x.gz", "333"),
        ("list/d=b", "4444"),
        ("lister", ""),
    ] {
        bucket.put(name, Bytes::from(body)).await.unwrap();
    }
    let listed = async |prefix: &'static str| -> Vec<(String, u64)> {
        let found = bucket.list(prefix).await.unwrap();
        found.into_iter().map(|Listed { name, bytes }| (name, bytes)).collect()
    };
    let pairs = |pairs: &[(&str, u64)]| -> Vec<(String, u64)> {
        pairs.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect()
    };
    let folder = pairs(&[
        ("list/d=a/x.gz", 1),
        ("list/d=a/y.gz", 2),
        ("list/d=ab/x.gz", 3),
        ("list/d=b", 4),
    ]);
    assert_eq!(listed("list/").await, folder);
    assert_eq!(listed("list/d=a").await, folder[..3]);
    assert_eq!(listed("list/d=a/").await, folder[..2]);
    assert_eq!(listed("list/d=b").await, folder[3..]);
    assert_eq!(listed("list").await.len(), 5);
    assert_eq!(listed("nothing/here").await, pairs(&[]));
}

async fn many_names_are_listed_in_order(bucket: &dyn Bucket) {
    let names: Vec<String> = (0..MANY).map(|number| format!("many/{number:05}")).collect();
    let puts = names.iter().map(|name| bucket.put(name, Bytes::from_static(b"x")));
    let put: Vec<_> = stream::iter(puts).buffer_unordered(32).collect().await;
    assert!(put.iter().all(Result::is_ok), "{:?}", put.iter().find(|put| put.is_err()));
    let listed = bucket.list("many/").await.unwrap();
    let found: Vec<_> = listed.iter().map(|object| object.name.clone()).collect();
    assert_eq!(found, names);
}

async fn one_writer_wins(bucket: &Arc<dyn Bucket>) {
    for round in 0..5 {
        let name = format!("race/{round}");
        let writers = (0..WRITERS).map(|writer| {
            let (bucket, name) = (bucket.clone(), name.clone());
            tokio::spawn(async move {
                bucket.put_if_absent(&name, Bytes::from(format!("writer {writer}"))).await
            })
        });
        let results = join_all(writers).await;
        let wins: Vec<bool> = results.into_iter().map(|won| won.unwrap().unwrap()).collect();
        let winners: Vec<_> = (0..WRITERS).filter(|writer| wins[*writer]).collect();
        assert_eq!(winners.len(), 1, "{name}: {wins:?}");
        assert_eq!(bucket.get(&name).await.unwrap(), format!("writer {}", winners[0]));
    }
}

async fn hostile_names_are_refused(bucket: &dyn Bucket) {
    let long = "n".repeat(5_000);
    for name in [
        "../escape",
        "a/../../escape",
        "/etc/escape",
        "a//b",
        "a/./b",
        "..",
        "",
        ".tmp/x",
        "a\\..\\b",
        "nul\0l",
        "new\nline",
        "a?b=c",
        "a#b",
        "a%2e%2e/b",
        "CON:",
        "é",
        "a/",
        &long,
    ] {
        let body = Bytes::from_static(b"escaped");
        let errors = [
            bucket.put(name, body.clone()).await.err(),
            bucket.put_if_absent(name, body).await.err(),
            bucket.get(name).await.err(),
            bucket.delete(name).await.err(),
        ];
        for error in errors {
            let kind = error.map(|error| error.kind);
            assert_eq!(kind, Some(BucketErrorKind::Configuration), "{name:?}");
        }
    }
    for prefix in ["../", "/", "a//", "a/../", "a\0", "."] {
        assert!(bucket.list(prefix).await.is_err(), "{prefix:?}");
    }
}

async fn prefixes_hold_buckets_apart<O>(open: &O)
where
    O: AsyncFn(&str) -> Arc<dyn Bucket>,
{
    let (outer, inner) = (open("apart").await, open("apart/in=1").await);
    inner.put("x", Bytes::from_static(b"inner")).await.unwrap();
    outer.put("in=1x", Bytes::from_static(b"outer")).await.unwrap();
    let names = async |bucket: &dyn Bucket| -> Vec<String> {
        bucket.list("").await.unwrap().into_iter().map(|object| object.name).collect()
    };
    assert_eq!(names(&*inner).await, ["x"]);
    assert_eq!(names(&*outer).await, ["in=1/x", "in=1x"]);
    assert_eq!(outer.get("in=1/x").await.unwrap(), "inner");
}

/// Fails unless `work` ends within `limit`, and tells what it ended with.
pub async fn ends_within<T>(limit: Duration, work: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let result = tokio::time::timeout(limit, work).await;
    result.unwrap_or_else(|_| panic!("still not ended after {:?}", begun.elapsed()))
}
