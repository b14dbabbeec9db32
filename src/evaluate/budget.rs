//! The day's tokens: set aside before a call, settled after it, kept in the bucket.
//!
//! Each evaluator writes what it has spent or may spend to an object of its own below
//! `evaluator/budget/date=.../`, always more than it has really spent, before it spends it. So a crash
//! cannot forget an expense, and evaluators that share a bucket see each other's: after writing, each
//! reads all of them, and steps back where the sum is too much.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::bucket::{Bucket, BucketError};
use crate::metrics::Metrics;

const FOLDER: &str = "evaluator/budget";
/// One part of the budget in so many is set aside at once: the fewer, the more often it is written.
const SHARES: u64 = 200;
/// Where they stand in the way, the others' figures are read again no more often than this.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The budget of this evaluator; calls without a limit cost nothing here.
pub(super) struct Budget {
    limit: Option<u64>,
    bucket: Arc<dyn Bucket>,
    instance: Arc<str>,
    metrics: Metrics,
    day: Mutex<Day>,
}

/// Today's figures.
#[derive(Debug)]
struct Day {
    date: String,
    /// Settled calls.
    spent: u64,
    /// Calls under way, at their highest.
    under_way: u64,
    /// What the bucket says of us: never less than both.
    written: u64,
    /// What the bucket says of the others.
    others: u64,
    looked_at: Instant,
}

#[derive(Serialize, Deserialize)]
struct Written {
    tokens: u64,
}

/// Whether a call may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Yes, and so much is set aside for it.
    Granted(u64),
    /// Not before calls under way have ended: they may cost less than was set aside.
    Busy,
    /// Not today.
    Exhausted,
}

impl Budget {
    pub(super) fn new(
        limit: Option<u64>,
        bucket: Arc<dyn Bucket>,
        instance: Arc<str>,
        metrics: Metrics,
    ) -> Self {
        let (date, looked_at) = (String::new(), Instant::now());
        let day = Day { date, spent: 0, under_way: 0, written: 0, others: 0, looked_at };
        Self { limit, bucket, instance, metrics, day: Mutex::new(day) }
    }

    /// Sets `tokens` aside for a call. An error is the bucket's: without it nothing is spent.
    pub(super) async fn admit(
        &self,
        tokens: u64,
        now: Timestamp,
    ) -> Result<Admission, BucketError> {
        let Some(limit) = self.limit else { return Ok(Admission::Granted(tokens)) };
        let mut day = self.day.lock().await;
        self.turn_page(&mut day, now).await?;
        let wanted = day.spent + day.under_way + tokens;
        if wanted > day.written && !self.extend(&mut day, wanted, limit).await? {
            let alone = day.spent + tokens + day.others;
            let busy = day.under_way > 0 && alone <= limit;
            self.metrics.judge_budget_exhausted(!busy);
            return Ok(if busy { Admission::Busy } else { Admission::Exhausted });
        }
        day.under_way += tokens;
        self.metrics.judge_budget_exhausted(false);
        Ok(Admission::Granted(tokens))
    }

    /// Tokens that are left today, but for calls under way; `None` without a limit. An error is the
    /// bucket's.
    pub(super) async fn left(&self, now: Timestamp) -> Result<Option<u64>, BucketError> {
        let Some(limit) = self.limit else { return Ok(None) };
        let mut day = self.day.lock().await;
        self.turn_page(&mut day, now).await?;
        if day.looked_at.elapsed() >= LOOK_EVERY {
            self.look(&mut day).await?;
        }
        Ok(Some(limit.saturating_sub(day.spent.saturating_add(day.others))))
    }

    /// The call for which `set_aside` was granted cost `spent`.
    pub(super) async fn settle(&self, set_aside: u64, spent: u64) {
        let mut day = self.day.lock().await;
        day.under_way = day.under_way.saturating_sub(set_aside);
        day.spent += spent;
        self.show(&day);
    }

    /// Writes the exact figure, at the end of the process.
    pub(super) async fn close(&self) {
        let mut day = self.day.lock().await;
        let exact = day.spent + day.under_way;
        if self.limit.is_some() && !day.date.is_empty() && exact < day.written {
            let _later = self.write(&mut day, exact).await;
        }
    }

    /// A new day begins at zero, or where an earlier run of this instance left it.
    async fn turn_page(&self, day: &mut Day, now: Timestamp) -> Result<(), BucketError> {
        let date = now.strftime("%Y-%m-%d").to_string();
        if day.date == date {
            return Ok(());
        }
        let (ours, others) = self.read(&date).await?;
        // What is under way was set aside yesterday and is paid today.
        let under_way = day.under_way;
        let looked_at = Instant::now();
        *day = Day { date, spent: ours, under_way, written: ours, others, looked_at };
        self.show(day);
        Ok(())
    }

    /// Writes a higher figure, if all evaluators together stay within the limit.
    async fn extend(&self, day: &mut Day, wanted: u64, limit: u64) -> Result<bool, BucketError> {
        let before = day.written;
        let share = (limit / SHARES).max(1);
        for figure in [wanted + share, wanted] {
            if figure + day.others > limit && day.looked_at.elapsed() >= LOOK_EVERY {
                self.look(day).await?;
            }
            if figure + day.others > limit {
                continue;
            }
            self.write(day, figure).await?;
            self.look(day).await?;
            if figure + day.others <= limit {
                return Ok(true);
            }
            // Another wrote at the same moment.
            self.write(day, before).await?;
        }
        Ok(false)
    }

    async fn look(&self, day: &mut Day) -> Result<(), BucketError> {
        day.looked_at = Instant::now();
        (_, day.others) = self.read(&day.date).await?;
        Ok(())
    }

    async fn write(&self, day: &mut Day, tokens: u64) -> Result<(), BucketError> {
        let body = serde_json::to_vec(&Written { tokens }).unwrap_or_default();
        let name = format!("{FOLDER}/date={}/{}.json", day.date, self.instance);
        self.bucket.put(&name, Bytes::from(body)).await?;
        day.written = tokens;
        self.show(day);
        Ok(())
    }

    /// Our own figure and the sum of the others'.
    async fn read(&self, date: &str) -> Result<(u64, u64), BucketError> {
        let (mut ours, mut others) = (0, 0_u64);
        let own = format!("{FOLDER}/date={date}/{}.json", self.instance);
        for listed in self.bucket.list(&format!("{FOLDER}/date={date}/")).await? {
            let body = self.bucket.get(&listed.name).await?;
            // A figure that cannot be read is taken for none: better a bill than a silent end.
            let tokens = serde_json::from_slice::<Written>(&body).map_or(0, |w| w.tokens);
            match listed.name == own {
                true => ours = tokens,
                false => others = others.saturating_add(tokens),
            }
        }
        Ok((ours, others))
    }

    fn show(&self, day: &Day) {
        self.metrics.judge_tokens_today(day.written.max(day.spent + day.under_way) + day.others);
    }
}
