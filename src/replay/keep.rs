//! Where a replay's result lies: `replays/kind=report/` and `replays/kind=case/`, docs/RECORD.md.

use std::io::{self, Write as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::report::Report;
use crate::bucket::{Bucket, BucketError};
use crate::ledger::Hour;

/// The top folder.
const FOLDER: &str = "replays";

/// Stores results.
pub(super) struct Keeper<'a> {
    pub(super) bucket: &'a dyn Bucket,
}

/// Lines on their way into an object.
pub(super) struct Packed(GzEncoder<Vec<u8>>);

impl Default for Packed {
    fn default() -> Self {
        Self(GzEncoder::new(Vec::new(), Compression::new(3)))
    }
}

impl Packed {
    /// Adds one line.
    pub(super) fn add(&mut self, line: &impl serde::Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.0, line)?;
        self.0.write_all(b"\n")
    }

    /// The object's bytes.
    pub(super) fn finish(self) -> io::Result<Vec<u8>> {
        self.0.finish()
    }
}

impl Keeper<'_> {
    /// Stores the cases, and then the report: where there is a report, its cases are there, too.
    pub(super) async fn keep(&self, report: &Report, cases: Vec<u8>) -> Result<(), BucketError> {
        let mut packed = Packed::default();
        let packed = packed.add(report).and_then(|()| packed.finish());
        let packed = packed.unwrap_or_default();
        let name = |kind: &str| {
            let hour = Hour::of(report.time).partition();
            format!("{FOLDER}/kind={kind}/{hour}/{}.jsonl.gz", report.id)
        };
        self.bucket.put(&name("case"), Bytes::from(cases)).await?;
        self.bucket.put(&name("report"), Bytes::from(packed)).await
    }
}
