//! The database's form: made, brought up to date, or found unfit.

use std::path::Path;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::StoreError;

/// What is made from the bucket. Its version is `user_version`: another version is made anew.
const INDEX: &str = include_str!("schema.sql");
/// What is not.
const OWN: &str = include_str!("own.sql");
/// The version of [`INDEX`]. Raise it with every change there: the bucket fills the new form.
const VERSION: i64 = 4;
/// The tables of [`INDEX`].
const TABLES: &[&str] = &[
    "labels",
    "objects",
    "quarantine",
    "samples",
    "details",
    "strays",
    "search",
    "scores",
    "score_sums",
    "rollups",
    "parts",
    "ledger",
    "runs",
    "alerts",
];

/// Tables that earlier versions had.
const GONE: &[&str] = &["previews"];

/// Why there is no database.
pub(super) enum Unfit {
    /// The file can be set aside.
    File(String),
    /// Nothing helps.
    Disk(StoreError),
}

impl From<rusqlite::Error> for Unfit {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                Self::File(error.to_string())
            }
            _ => Self::Disk(error.into()),
        }
    }
}

/// Opens the file for writing, in its current form.
pub(super) fn open(path: &Path, anew: bool) -> Result<Connection, Unfit> {
    // SQLite makes its files with 0644: an empty file of our own mode is there first.
    private(path).map_err(|error| Unfit::Disk(error.into()))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.execute_batch(
        "PRAGMA auto_vacuum = INCREMENTAL;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = NORMAL;
         PRAGMA wal_autocheckpoint = 2000;
         PRAGMA journal_size_limit = 67108864;
         PRAGMA cache_size = -32768;
         PRAGMA temp_store = MEMORY;",
    )?;
    connection.set_prepared_statement_cache_capacity(64);
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > VERSION {
        return Err(Unfit::File(format!(
            "it is of version {version}, this flowtap knows {VERSION}"
        )));
    }
    connection.execute_batch(OWN)?;
    if anew || version < VERSION {
        remake(&connection)?;
    }
    Ok(connection)
}

/// Throws the index away and makes it again, empty.
fn remake(connection: &Connection) -> rusqlite::Result<()> {
    let drops: String =
        TABLES.iter().chain(GONE).map(|name| format!("DROP TABLE IF EXISTS {name};")).collect();
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE; {drops} {INDEX}
         DELETE FROM notes WHERE name = 'horizon';
         PRAGMA user_version = {VERSION}; COMMIT;"
    ))
}

fn private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600).open(path).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_of_the_index_is_known_for_making_it_anew() {
        let made = INDEX.lines().filter_map(|line| {
            let rest =
                line.strip_prefix("CREATE TABLE ").or(line.strip_prefix("CREATE VIRTUAL TABLE "))?;
            rest.split(['(', ' ']).next()
        });
        assert_eq!(made.collect::<Vec<_>>(), TABLES);
    }
}
