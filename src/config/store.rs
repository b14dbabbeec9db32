//! `store`: the index that the page, the API and monitors read, and what a process is there for.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::kind::Kind::{Bytes, Map as MapOf, Path as PathOf, Time};
use super::kind::{show_bytes, show_time};
use super::map::Map;
use super::show::Shown;
use super::table::Default::{Is, Unset};
use super::table::Key;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// What the process is there for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// All in one: taps, bucket, store, page.
    #[default]
    Run,
    /// The sidecar alone: taps and bucket.
    Proxy,
    /// The reading side alone: bucket, store, page.
    Hub,
}

/// The index in SQLite of what the bucket holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// The folder.
    pub dir: PathBuf,
    /// How often the bucket is looked through for what is new. Default 10 s.
    pub look: Duration,
    /// What is kept of it.
    pub retention: Retention,
}

/// What is kept in the store; the bucket keeps what it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How far back it reaches. Default 90 days.
    pub age: Duration,
    /// Bytes that it may take. Default 10 GiB.
    pub bytes_max: u64,
}

/// The keys of `store`.
pub(super) static STORE: &[Key] = &[
    Key::new(
        "dir",
        PathOf,
        Unset("the folder `store` of `data_dir`"),
        "The folder of the index in SQLite that the page and the API read. One process owns it. \
         It can be made again from the bucket: `flowtap hub --reindex`.",
        "/var/lib/flowtap/store",
    ),
    Key::new(
        "look",
        Time(100, HOUR_MS),
        Is("10s"),
        "How often the bucket is looked through for what other processes brought. What this process \
         brought is read at once.",
        "10s",
    ),
    Key::new(
        "retention",
        MapOf(RETENTION),
        Is("{}"),
        "What is kept in the index. The bucket is not touched: its own rules tell what it keeps.",
        "{age: 90d, bytes_max: 10GiB}",
    ),
];

static RETENTION: &[Key] = &[
    Key::new(
        "age",
        Time(HOUR_MS, 3_650 * DAY_MS),
        Is("90d"),
        "What is older is forgotten, and is not read from the bucket.",
        "90d",
    ),
    Key::new(
        "bytes_max",
        Bytes(16 * MIB, 1024 * GIB),
        Is("10GiB"),
        "Bytes that the index may take; past them the oldest hours are forgotten.",
        "10GiB",
    ),
];

/// Builds `store`; its folder is below `data_dir` unless given.
pub(super) fn build_store(map: &Map, data_dir: &Path) -> Option<Store> {
    let retention = map.map("retention")?;
    Some(Store {
        dir: map.path_buf("dir").unwrap_or_else(|| data_dir.join("store")),
        look: map.time("look"),
        retention: Retention {
            age: retention.time("age"),
            bytes_max: retention.whole("bytes_max").unwrap_or_default(),
        },
    })
}

/// `store` as YAML.
pub(super) fn show_store(store: &Store) -> Vec<(&'static str, Shown)> {
    let Retention { age, bytes_max } = store.retention;
    vec![
        ("dir", Shown::text(store.dir.display())),
        ("look", Shown::text(show_time(store.look))),
        (
            "retention",
            Shown::Map(vec![
                ("age", Shown::text(show_time(age))),
                ("bytes_max", Shown::text(show_bytes(bytes_max))),
            ]),
        ),
    ]
}
