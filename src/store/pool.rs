//! Connections that can only read, each with a deadline.

use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use super::StoreError;

/// Reads at once. More would only contend for the same disk and cores.
const READERS: usize = 4;
/// Steps of SQLite's machine between two looks at the clock: some tens of microseconds.
const STEPS: i32 = 2000;

pub(super) struct Pool {
    idle: Mutex<Vec<Connection>>,
    freed: Condvar,
}

impl Pool {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let idle = (0..READERS).map(|_| reader(path)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { idle: Mutex::new(idle), freed: Condvar::new() })
    }

    /// Runs `work` on one consistent state, within `limit`, waiting for a connection included.
    pub(super) fn read<T>(
        &self,
        limit: Duration,
        work: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let deadline = Instant::now() + limit;
        let mut lent = Lent { connection: Some(self.take(deadline)?), pool: self };
        let Some(connection) = &mut lent.connection else { return Err(StoreError::Closed) };
        connection.progress_handler(STEPS, Some(move || Instant::now() > deadline))?;
        // Nothing is written: dropping it is enough.
        let transaction = connection.transaction()?;
        work(&transaction)
    }

    fn take(&self, deadline: Instant) -> Result<Connection, StoreError> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(connection) = idle.pop() {
                return Ok(connection);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(StoreError::Late);
            }
            let waited = self.freed.wait_timeout(idle, left);
            idle = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A connection that goes back whatever happens.
struct Lent<'a> {
    connection: Option<Connection>,
    pool: &'a Pool,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            let _ = connection.progress_handler(0, None::<fn() -> bool>);
            self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            self.pool.freed.notify_one();
        }
    }
}

fn reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.execute_batch(
        "PRAGMA query_only = 1; PRAGMA cache_size = -16384; PRAGMA temp_store = MEMORY;
         PRAGMA busy_timeout = 1000;",
    )?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}
