//! The books that a flowtap left in its bucket, as `flowtap verify` reads them.
#![allow(clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::process::program;

/// The ledger's figures, summed over all hours and runs.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Exchanges that passed.
    pub seen: u64,
    /// Exchanges that sampling left out.
    pub not_sampled: u64,
    /// Samples that the bucket confirmed.
    pub stored: u64,
    /// Exchanges lost, by `stage/reason`.
    pub dropped: BTreeMap<String, u64>,
}

impl Books {
    /// Reads the bucket below `folder`; `verify` must find nothing wrong, and every exchange must have
    /// met its end.
    #[track_caller]
    pub fn of(folder: &Path) -> Self {
        let url = format!("file://{}/bucket", folder.display());
        let mut command = Command::new(program());
        let output = command.args(["verify", "--json", &url]).output().expect("verify runs");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "verify finds faults: {printed}");
        let report: Value = serde_json::from_str(&printed).expect("a JSON report");
        let mut books = Self::default();
        for hour in report["checked"].as_array().expect("hours") {
            books.add(&hour["ledger"]);
        }
        let parts = books.not_sampled + books.stored + books.dropped.values().sum::<u64>();
        assert_eq!(books.seen, parts, "the ledger adds up exactly: {printed}");
        books
    }

    /// What was lost at `stage` for `reason`.
    pub fn lost(&self, stage: &str, reason: &str) -> u64 {
        self.dropped.get(&format!("{stage}/{reason}")).copied().unwrap_or(0)
    }

    fn add(&mut self, row: &Value) {
        let figure = |name: &str| row[name].as_u64().expect("a figure");
        self.seen += figure("seen");
        self.not_sampled += figure("not_sampled");
        self.stored += figure("stored");
        for loss in row["dropped"].as_array().expect("losses") {
            let text = |name: &str| loss[name].as_str().expect("a label").to_owned();
            let lost = self.dropped.entry(format!("{}/{}", text("stage"), text("reason")));
            *lost.or_default() += loss["count"].as_u64().expect("a count");
        }
    }
}
