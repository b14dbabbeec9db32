//! The store: an index in SQLite of what the bucket holds, for the page, the API and monitors.
//!
//! It answers what a folder of objects cannot: which samples, in what order, with which words in
//! them, and sums over any window. The samples' text stays in the bucket; here are their figures, the
//! beginnings of question and answer, and where the rest lies. All of it but notes can be made again
//! from the bucket, so a damaged file is set aside and the index begins anew.
//!
//! One thread writes, in batches; readers have connections of their own that can only read, and every
//! read ends at its deadline. Nothing that carries traffic waits for any of it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use crate::config;

mod counts;
mod documents;
mod horizon;
mod labels;
mod lines;
mod objects;
mod places;
mod pool;
mod quality;
mod samples;
mod schema;
mod scores;
mod search;
mod usage;
mod window;
mod writer;

pub use documents::{Alert, MonitorRun};
pub use labels::{Axis, Filter};
pub use lines::{Line, LineFault};
pub use objects::{Known, Piece, Quarantined, Stored};
pub use quality::{QualityRow, ScoreSums, Scored};
pub use samples::{Found, Order, SampleQuery, SampleRow, Sort, Spot};
pub use scores::ScoreRow;
pub use usage::UsageSums;
pub use window::Window;
pub use writer::Writer;

use pool::Pool;
use writer::Hand;

/// The file in the store's folder.
const FILE: &str = "flowtap.db";
/// How long one read may take, by default.
pub const READ_WITHIN: Duration = Duration::from_secs(5);

/// Why the store cannot do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it.
    #[error("the store's folder {} is in use by another flowtap", dir.display())]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder cannot be used.
    #[error("the store's folder cannot be used: {0}")]
    Disk(#[from] io::Error),
    /// The database says no.
    #[error("the store's database failed: {0}")]
    Database(rusqlite::Error),
    /// The read took longer than it may, or all readers are busy.
    #[error("the answer took longer than it may: ask for a shorter window or fewer filters")]
    Late,
    /// The writing thread has ended.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// The name used in metrics and logs.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Locked { .. } => "locked",
            Self::Disk(_) => "disk",
            Self::Database(_) => "database",
            Self::Late => "late",
            Self::Closed => "closed",
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::OperationInterrupted) => Self::Late,
            _ => Self::Database(error),
        }
    }
}

/// The store. Clones share it.
#[derive(Clone)]
pub struct Store {
    hand: Hand,
    pool: Arc<Pool>,
    path: Arc<Path>,
}

impl Store {
    /// Opens the store, brings its schema up to date, and gives the writer, whose [`Writer::run`] has
    /// to be given a thread. `anew` throws away what the bucket can give again. A file that is damaged
    /// or of a later version is set aside under another name, which is logged.
    ///
    /// # Errors
    /// [`StoreError::Locked`] where another process has it; else the disk.
    pub fn open(settings: &config::Store, anew: bool) -> Result<(Self, Writer), StoreError> {
        let lock = prepare(&settings.dir)?;
        let path = settings.dir.join(FILE);
        let connection = open_or_set_aside(&path, anew)?;
        let pool = Arc::new(Pool::open(&path)?);
        let (hand, writer) = writer::writer(connection, lock);
        Ok((Self { hand, pool, path: path.into() }, writer))
    }

    /// Bytes on the disk.
    pub fn bytes(&self) -> u64 {
        let of = |ending: &str| {
            let mut name = self.path.as_os_str().to_owned();
            name.push(ending);
            std::fs::metadata(name).map_or(0, |meta| meta.len())
        };
        of("") + of("-wal")
    }

    /// Reads by a connection of the pool, within `limit`, on one consistent state. Blocks: not for
    /// threads that carry traffic or wait for others.
    fn read<T>(
        &self,
        limit: Duration,
        work: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.pool.read(limit, work)
    }
}

/// Makes the folder and takes its lock.
fn prepare(dir: &Path) -> Result<File, StoreError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut options = OpenOptions::new();
    let options = options.create(true).truncate(false).write(true).mode(0o600);
    let lock = options.open(dir.join("lock"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked { dir: dir.to_owned() }),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

fn open_or_set_aside(path: &Path, anew: bool) -> Result<Connection, StoreError> {
    match schema::open(path, anew) {
        Ok(connection) => Ok(connection),
        Err(schema::Unfit::Disk(error)) => Err(error),
        Err(schema::Unfit::File(why)) => {
            let aside = path.with_extension("db.aside");
            std::fs::rename(path, &aside)?;
            for ending in ["-wal", "-shm"] {
                let mut name = path.as_os_str().to_owned();
                name.push(ending);
                // A file that is not there need not be removed.
                let _ = std::fs::remove_file(name);
            }
            tracing::error!(%why, aside = %aside.display(), "the store's file cannot be used; it was \
                set aside, and the index is made anew from the bucket");
            schema::open(path, anew).map_err(|unfit| match unfit {
                schema::Unfit::Disk(error) => error,
                schema::Unfit::File(why) => StoreError::Disk(io::Error::other(why)),
            })
        }
    }
}

#[cfg(test)]
mod tests;
