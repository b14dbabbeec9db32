//! Whether anything is lost, and how far the index is.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::figures;
use super::params::{FROM, TO};
use super::{Answer, Asked, Problem, Route};
use crate::ledger::LedgerRow;

/// Rows of the ledger that are summed: a year of a hundred instances would be more.
const ROWS_MAX: usize = 200_000;
/// Hours that are told one by one.
const HOURS_MAX: usize = 24 * 31;
/// Places set aside that are named.
const NAMED_MAX: usize = 100;

pub(super) static ROUTE: Route = Route {
    path: "/health",
    about: "The loss ledger of the window's hours, summed over all instances; how far the index is and \
            what it set aside; this process's own queues. `balanced` is whether everything seen is \
            accounted for: seen = not_sampled + stored + pending + in_flight + dropped.",
    parameters: &[&FROM, &TO],
    answer: Answer::Json("Health", answer),
};

fn answer(asked: &Asked<'_>) -> Result<Value, Problem> {
    let window = asked.params.window()?;
    let store = &asked.view.store;
    let rows = store.ledger(window, ROWS_MAX)?;
    let mut total = Account::default();
    let mut hours: BTreeMap<Timestamp, Account> = BTreeMap::new();
    for row in &rows {
        total.add(row);
        hours.entry(row.hour).or_default().add(row);
    }
    let skipped = hours.len().saturating_sub(HOURS_MAX);
    let told = hours.iter().skip(skipped).map(|(hour, account)| {
        let mut told = account.told();
        told["hour"] = json!(hour);
        told
    });
    let quarantined = store.quarantined(NAMED_MAX)?;
    let horizon = store.horizon()?;
    let metrics = &asked.desk.metrics;
    Ok(json!({
        "window": figures::window(window),
        "ledger": total.told(),
        "hours": told.collect::<Vec<_>>(),
        "index": {
            "caught_up": asked.view.progress.caught_up(),
            "bucket": asked.view.bucket.describe(),
            "bytes": store.bytes(),
            "horizon": (horizon > Timestamp::MIN).then_some(horizon),
            "set_aside": quarantined.iter().map(|place| json!({
                "object": place.object, "line": place.line, "reason": place.reason, "at": place.at,
            })).collect::<Vec<_>>(),
        },
        "process": {
            "dropped_by_reason": metrics.sums("flowtap_dropped_total", "reason"),
            "dropped_by_stage": metrics.sums("flowtap_dropped_total", "stage"),
            "queues": metrics.sums("flowtap_queue_depth", "queue"),
            "spool_bytes": sum(&metrics.sums("flowtap_spool_bytes", "")),
            "archive_oldest_seconds": sum(&metrics.sums("flowtap_archive_oldest_seconds", "")),
            "overhead": overhead(asked),
        },
    }))
}

fn sum(sums: &BTreeMap<String, f64>) -> f64 {
    sums.values().sum()
}

/// Time that flowtap itself spends on an exchange, from this process's metrics; null before the first.
fn overhead(asked: &Asked<'_>) -> Value {
    match asked.desk.metrics.mean("flowtap_overhead_seconds") {
        Some(seconds) => json!({"mean_us": seconds * 1e6}),
        None => Value::Null,
    }
}

/// Rows of the ledger, added up.
#[derive(Default)]
struct Account {
    seen: u64,
    not_sampled: u64,
    stored: u64,
    pending: u64,
    in_flight: u64,
    usage_dropped: u64,
    dropped: BTreeMap<(String, String), u64>,
    unaccounted: u64,
    unbalanced: u64,
}

impl Account {
    fn add(&mut self, row: &LedgerRow) {
        let add = |sum: &mut u64, n: u64| *sum = sum.saturating_add(n);
        add(&mut self.seen, row.seen);
        add(&mut self.not_sampled, row.not_sampled);
        add(&mut self.stored, row.stored);
        add(&mut self.pending, row.pending);
        add(&mut self.in_flight, row.in_flight);
        add(&mut self.usage_dropped, row.usage_dropped);
        for loss in &row.dropped {
            add(
                self.dropped.entry((loss.stage.clone(), loss.reason.clone())).or_default(),
                loss.count,
            );
        }
        self.unaccounted += row.unaccounted.len() as u64;
        self.unbalanced += u64::from(!row.balances());
    }

    fn told(&self) -> Value {
        let dropped = self.dropped.iter().map(
            |((stage, reason), count)| json!({"stage": stage, "reason": reason, "count": count}),
        );
        json!({
            "seen": self.seen, "not_sampled": self.not_sampled, "stored": self.stored,
            "pending": self.pending, "in_flight": self.in_flight,
            "dropped": dropped.collect::<Vec<_>>(),
            "usage_dropped": self.usage_dropped,
            "unaccounted_windows": self.unaccounted,
            "balanced": self.unbalanced == 0,
        })
    }
}
