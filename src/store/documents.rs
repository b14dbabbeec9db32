//! What is kept as documents: monitor runs, alerts, the ledger; and notes, which are a name and a value.
//!
//! A document is a JSON object whose fields are its writer's; the columns beside it are for finding it.

use jiff::Timestamp;
use rusqlite::types::Value as Sql;
use rusqlite::{OptionalExtension as _, Row, params, params_from_iter};
use serde_json::Value;

use super::window::Window;
use super::writer::Session;
use super::{READ_WITHIN, Store, StoreError};
use crate::domain::ExchangeId;
use crate::ledger::LedgerRow;
use crate::store::Found;
use crate::store::lines::TraceLine;
use crate::store::objects::{signed, unsigned};

/// One run of a monitor. A line of `monitors/` is its document.
#[derive(Clone, Debug, PartialEq)]
pub struct MonitorRun {
    /// The same for the same run, whoever made it: a repeated run replaces itself.
    pub id: String,
    /// The monitor's name.
    pub monitor: String,
    /// The moment that it looked back from.
    pub at: Timestamp,
    /// What came of it: a label of a closed set (`ok`, `violated`, `not_enough_data`).
    pub state: String,
    /// All of it.
    pub document: Value,
}

/// One violation, from the run that found it to the run that found it gone.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// `<monitor>/<signal>/<metric>/<since, in seconds>`.
    pub id: String,
    /// The monitor that raised it.
    pub monitor: String,
    /// `open` or `resolved`.
    pub state: String,
    /// The run that found it first.
    pub opened: Timestamp,
    /// The latest run that speaks of it.
    pub updated: Timestamp,
    /// The entry of that run's book, with `run` (its id) and `measure` (what it measured).
    pub document: Value,
}

impl MonitorRun {
    /// The schema of a line of `monitors/`.
    pub const SCHEMA: &'static str = "flowtap.monitor.v1";

    /// Reads a line of `monitors/`: an object with the texts `schema`, `id`, `monitor`, `state` and the
    /// time `at`, and whatever else its writer puts there; of that, `alerts` is read too.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let document: Value = serde_json::from_slice(line).ok()?;
        let text = |name: &str| document.get(name).and_then(Value::as_str).map(str::to_owned);
        if text("schema")? != Self::SCHEMA {
            return None;
        }
        let at = text("at")?.parse().ok()?;
        let (id, monitor, state) = (text("id")?, text("monitor")?, text("state")?);
        Some(Self { id, monitor, at, state, document })
    }

    /// The violations that the run's book speaks of.
    fn alerts(&self) -> Vec<Alert> {
        let book = self.document.get("alerts").and_then(Value::as_array);
        book.into_iter().flatten().filter_map(|entry| self.alert(entry)).collect()
    }

    fn alert(&self, entry: &Value) -> Option<Alert> {
        let text = |name: &str| entry.get(name).and_then(Value::as_str);
        let (signal, metric) = (text("signal")?, text("metric")?);
        let opened: Timestamp = text("since")?.parse().ok()?;
        let mut document = entry.as_object()?.clone();
        document.insert("run".to_owned(), Value::from(self.id.as_str()));
        document.insert("measure".to_owned(), self.measure(signal, metric));
        Some(Alert {
            id: format!("{}/{signal}/{metric}/{}", self.monitor, opened.as_second()),
            monitor: self.monitor.clone(),
            state: if text("resolved").is_some() { "resolved" } else { "open" }.to_owned(),
            opened,
            updated: self.at,
            document: Value::Object(document),
        })
    }

    /// What the run measured; null where it does not say.
    fn measure(&self, signal: &str, metric: &str) -> Value {
        let list = |value: &Value, name: &str| value.get(name).and_then(Value::as_array).cloned();
        let signals = list(&self.document, "signals").unwrap_or_default();
        let told = signals.iter().filter(|told| told.get("kind").is_some_and(|k| k == signal));
        let mut measures = told.flat_map(|told| list(told, "measures").unwrap_or_default());
        measures.find(|told| told.get("metric").is_some_and(|m| m == metric)).unwrap_or_default()
    }
}

impl Store {
    /// Stores a run, in place of an earlier one of the same id.
    pub async fn put_run(&self, run: MonitorRun) -> Result<(), StoreError> {
        self.write(move |session| session.put_run(&run).map(drop)).await
    }

    /// The run of this id.
    pub fn run(&self, id: &str) -> Result<Option<MonitorRun>, StoreError> {
        let values = vec![Sql::Text(id.to_owned())];
        Ok(self.find_runs("id = ?", values, 1)?.pop())
    }

    /// The runs in `window`, of one monitor where it is named, the latest first, at most `limit`.
    pub fn runs(
        &self,
        monitor: Option<&str>,
        window: Window,
        limit: usize,
    ) -> Result<Vec<MonitorRun>, StoreError> {
        let mut values = between(window);
        let mut condition = "at >= ? AND at < ?".to_owned();
        if let Some(monitor) = monitor {
            condition.push_str(" AND monitor = ?");
            values.push(Sql::Text(monitor.to_owned()));
        }
        self.find_runs(&condition, values, limit)
    }

    /// The alert of this id.
    pub fn alert(&self, id: &str) -> Result<Option<Alert>, StoreError> {
        let values = vec![Sql::Text(id.to_owned())];
        Ok(self.find_alerts("id = ?", values, 1)?.pop())
    }

    /// The alerts that something happened to in `window`, in one state where it is named, the latest
    /// first, at most `limit`.
    pub fn alerts(
        &self,
        state: Option<&str>,
        window: Window,
        limit: usize,
    ) -> Result<Vec<Alert>, StoreError> {
        let mut values = between(window);
        let mut condition = "updated >= ? AND updated < ?".to_owned();
        if let Some(state) = state {
            condition.push_str(" AND state = ?");
            values.push(Sql::Text(state.to_owned()));
        }
        self.find_alerts(&condition, values, limit)
    }

    /// What was noted under `name`: where some worker was, say.
    pub fn note(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.read(READ_WITHIN, |db| {
            let mut find = db.prepare_cached("SELECT value FROM notes WHERE name = ?")?;
            Ok(find.query_row([name], |row| row.get(0)).optional()?)
        })
    }

    /// Notes `value` under `name`. Names that begin with the room's own avoid each other.
    pub async fn put_note(&self, name: &str, value: &str) -> Result<(), StoreError> {
        let (name, value) = (name.to_owned(), value.to_owned());
        self.write(move |session| session.put_note(&name, &value)).await
    }

    /// The ledger's rows of the hours that begin in `window`, by hour.
    pub fn ledger(&self, window: Window, limit: usize) -> Result<Vec<LedgerRow>, StoreError> {
        self.read(READ_WITHIN, |db| {
            let mut find = db.prepare_cached(
                "SELECT row FROM ledger WHERE hour >= ? AND hour < ? ORDER BY hour DESC LIMIT ?",
            )?;
            let (from, to) = (window.from.as_second(), window.to.as_second());
            let rows = find.query_map([from, to, limit as i64], |row| row.get::<_, String>(0))?;
            let rows = rows.collect::<Result<Vec<_>, _>>()?;
            Ok(rows.iter().filter_map(|row| serde_json::from_str(row).ok()).collect())
        })
    }

    /// The names of ledger objects below `prefix` whose figures may still change.
    pub fn unsettled(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let end = format!("{prefix}\u{10ffff}");
        self.read(READ_WITHIN, |db| {
            let mut find = db.prepare_cached(
                "SELECT object FROM ledger WHERE object >= ? AND object < ? AND settled = 0",
            )?;
            let rows = find.query_map(params![prefix, end], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Where the spans of a sample are.
    pub fn parts(&self, sample: ExchangeId) -> Result<Vec<Found>, StoreError> {
        self.read(READ_WITHIN, |db| {
            let mut find = db.prepare_cached(
                "SELECT o.name, p.line FROM parts p JOIN objects o ON o.id = p.object \
                 WHERE p.sample = ? ORDER BY p.object, p.line",
            )?;
            let rows = find.query_map([sample.to_bytes()], |row| {
                Ok(Found { object: row.get(0)?, line: unsigned(row.get(1)?) })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    fn find_runs(
        &self,
        condition: &str,
        mut values: Vec<Sql>,
        limit: usize,
    ) -> Result<Vec<MonitorRun>, StoreError> {
        values.push(Sql::Integer(limit as i64));
        self.read(READ_WITHIN, |db| {
            let mut find = db.prepare_cached(&format!(
                "SELECT id, monitor, at, state, document FROM runs WHERE {condition} \
                 ORDER BY at DESC, id LIMIT ?"
            ))?;
            let rows = find.query_map(params_from_iter(values), |row| {
                Ok(MonitorRun {
                    id: row.get(0)?,
                    monitor: row.get(1)?,
                    at: time(row, 2)?,
                    state: row.get(3)?,
                    document: document(row, 4)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    fn find_alerts(
        &self,
        condition: &str,
        mut values: Vec<Sql>,
        limit: usize,
    ) -> Result<Vec<Alert>, StoreError> {
        values.push(Sql::Integer(limit as i64));
        self.read(READ_WITHIN, |db| {
            let mut find = db.prepare_cached(&format!(
                "SELECT id, monitor, state, opened, updated, document FROM alerts \
                 WHERE {condition} ORDER BY updated DESC, id LIMIT ?"
            ))?;
            let rows = find.query_map(params_from_iter(values), |row| {
                Ok(Alert {
                    id: row.get(0)?,
                    monitor: row.get(1)?,
                    state: row.get(2)?,
                    opened: time(row, 3)?,
                    updated: time(row, 4)?,
                    document: document(row, 5)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

impl Session<'_> {
    pub(super) fn put_run(&self, run: &MonitorRun) -> Result<bool, StoreError> {
        let mut put = self.db.prepare_cached(
            "INSERT OR REPLACE INTO runs(id, monitor, at, state, document) VALUES(?, ?, ?, ?, ?)",
        )?;
        let (at, document) = (run.at.as_microsecond(), run.document.to_string());
        put.execute(params![run.id, run.monitor, at, run.state, document])?;
        for alert in run.alerts() {
            self.put_alert(&alert)?;
        }
        Ok(true)
    }

    fn put_alert(&self, alert: &Alert) -> Result<(), StoreError> {
        let mut put = self.db.prepare_cached(
            "INSERT INTO alerts(id, monitor, state, opened, updated, document) \
             VALUES(?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET state = excluded.state, \
             updated = excluded.updated, document = excluded.document \
             WHERE excluded.updated >= updated",
        )?;
        put.execute(params![
            alert.id,
            alert.monitor,
            alert.state,
            alert.opened.as_microsecond(),
            alert.updated.as_microsecond(),
            alert.document.to_string(),
        ])?;
        Ok(())
    }

    pub(super) fn put_note(&self, name: &str, value: &str) -> Result<(), StoreError> {
        let mut put =
            self.db.prepare_cached("INSERT OR REPLACE INTO notes(name, value) VALUES(?, ?)")?;
        put.execute([name, value])?;
        Ok(())
    }

    /// Keeps the latest row of a ledger's object.
    pub(super) fn put_ledger(&self, object: &str, row: &LedgerRow) -> Result<bool, StoreError> {
        let Ok(text) = serde_json::to_string(row) else { return Ok(false) };
        let mut put = self.db.prepare_cached(
            "INSERT OR REPLACE INTO ledger(object, hour, settled, row) VALUES(?, ?, ?, ?)",
        )?;
        put.execute(params![object, row.hour.as_second(), row.is_settled(), text])?;
        Ok(true)
    }

    pub(super) fn put_part(
        &self,
        part: &TraceLine,
        object: i64,
        line: u64,
    ) -> Result<bool, StoreError> {
        let mut put = self.db.prepare_cached(
            "INSERT OR IGNORE INTO parts(sample, object, line, at) VALUES(?, ?, ?, ?)",
        )?;
        let at = part.time.as_microsecond();
        Ok(put.execute(params![part.exchange.to_bytes(), object, signed(line), at])? > 0)
    }
}

fn between(window: Window) -> Vec<Sql> {
    [window.from, window.to].map(|at| Sql::Integer(at.as_microsecond())).to_vec()
}

fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    Ok(Timestamp::from_microsecond(row.get(column)?).unwrap_or_default())
}

fn document(row: &Row<'_>, column: usize) -> rusqlite::Result<Value> {
    let text: String = row.get(column)?;
    Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
}
