//! What rows are about: each combination of labels once, and filters over them.

use std::collections::HashMap;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Params};

use super::StoreError;
use super::writer::Session;
use crate::domain::{Operation, Outcome};

/// Combinations that are kept apart; beyond it models become `other`.
const COMBINATIONS_MAX: i64 = 50_000;
/// Combinations that the writer remembers.
const REMEMBERED_MAX: usize = 20_000;
/// The longest name, in characters.
const NAME_CHARS_MAX: usize = 128;
/// What stands for names that are not kept apart.
const OTHER: &str = "other";

/// One combination.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Labels {
    pub(super) tap: String,
    pub(super) deployment: String,
    pub(super) model: String,
    pub(super) operation: Operation,
    pub(super) outcome: Outcome,
    pub(super) stream: bool,
}

impl Labels {
    /// Its columns, in the order of the table.
    fn row(&self) -> impl Params {
        let (operation, outcome) = (self.operation.label(), self.outcome.label());
        (&*self.tap, &*self.deployment, &*self.model, operation, outcome, self.stream)
    }
}

/// Ids that the writer has seen.
#[derive(Default)]
pub(super) struct Cache(HashMap<Labels, i64>);

/// Which rows are asked for; what is `None` is not asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Filter {
    /// The tap.
    pub tap: Option<String>,
    /// The endpoint's deployment.
    pub deployment: Option<String>,
    /// The model.
    pub model: Option<String>,
    /// How the exchange ended.
    pub outcome: Option<Outcome>,
}

/// What sums are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// The tap.
    Tap,
    /// The endpoint's deployment.
    Deployment,
    /// The model.
    Model,
    /// What was asked.
    Operation,
    /// How it ended.
    Outcome,
}

impl Axis {
    /// Its column.
    pub(super) fn column(self) -> &'static str {
        match self {
            Self::Tap => "tap",
            Self::Deployment => "deployment",
            Self::Model => "model",
            Self::Operation => "operation",
            Self::Outcome => "outcome",
        }
    }
}

impl Filter {
    /// A condition on the column `labels`, with its values; none where nothing is asked about.
    pub(super) fn condition(&self) -> Option<(String, Vec<Value>)> {
        let outcome = self.outcome.map(|outcome| outcome.label().to_owned());
        let columns = [
            ("tap", self.tap.clone()),
            ("deployment", self.deployment.clone()),
            ("model", self.model.clone()),
            ("outcome", outcome),
        ];
        let asked = columns.into_iter().filter_map(|(column, value)| Some((column, value?)));
        let (columns, values): (Vec<_>, Vec<_>) = asked.unzip();
        if columns.is_empty() {
            return None;
        }
        let terms: Vec<String> = columns.iter().map(|column| format!("{column} = ?")).collect();
        let condition = format!("labels IN (SELECT id FROM labels WHERE {})", terms.join(" AND "));
        Some((condition, values.into_iter().map(Value::Text).collect()))
    }
}

/// The values on `axes` of every combination of labels.
pub(super) fn names(
    db: &Connection,
    axes: &[Axis],
) -> Result<HashMap<i64, Vec<String>>, StoreError> {
    if axes.is_empty() {
        return Ok(HashMap::new());
    }
    let columns: Vec<_> = axes.iter().map(|axis| axis.column()).collect();
    let mut find = db.prepare_cached(&format!("SELECT id, {} FROM labels", columns.join(", ")))?;
    let rows = find.query_map([], |row| {
        let group = (1..=axes.len()).map(|column| row.get(column));
        Ok((row.get(0)?, group.collect::<Result<_, _>>()?))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A name as a label: cut where it is too long.
pub(super) fn name(text: &str) -> String {
    text.chars().take(NAME_CHARS_MAX).collect()
}

impl Session<'_> {
    /// The id of a combination, which is new where it was not known.
    pub(super) fn labels(&mut self, labels: &Labels) -> Result<i64, StoreError> {
        if let Some(id) = self.cache.0.get(labels) {
            return Ok(*id);
        }
        let id = match self.known(labels)? {
            Some(id) => id,
            None if self.is_full()? && labels.model != OTHER => {
                self.labels(&Labels { model: OTHER.to_owned(), ..labels.clone() })?
            }
            None => self.admit(labels)?,
        };
        if self.cache.0.len() >= REMEMBERED_MAX {
            self.cache.0.clear();
        }
        self.cache.0.insert(labels.clone(), id);
        Ok(id)
    }

    fn known(&self, labels: &Labels) -> Result<Option<i64>, StoreError> {
        let mut find = self.db.prepare_cached(
            "SELECT id FROM labels WHERE tap = ? AND deployment = ? AND model = ? \
             AND operation = ? AND outcome = ? AND stream = ?",
        )?;
        let found = find.query_row(labels.row(), |row| row.get(0)).optional()?;
        Ok(found)
    }

    fn admit(&self, labels: &Labels) -> Result<i64, StoreError> {
        let mut insert = self.db.prepare_cached(
            "INSERT INTO labels(tap, deployment, model, operation, outcome, stream) \
             VALUES(?, ?, ?, ?, ?, ?)",
        )?;
        Ok(insert.insert(labels.row())?)
    }

    fn is_full(&self) -> Result<bool, StoreError> {
        let count: Option<i64> =
            self.db.query_row("SELECT max(id) FROM labels", [], |row| row.get(0))?;
        Ok(count.unwrap_or(0) >= COMBINATIONS_MAX)
    }
}
