//! A segment's rows as objects: one for each dataset, deployment and hour, JSON lines, gzip.
//!
//! The same segment always gives the same names and the same bytes, so that an upload may be repeated.

use std::collections::BTreeMap;
use std::io::{self, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::domain::Dataset;
use crate::ledger::{Hour, run_name};
use crate::spool::{SegmentId, SegmentRows, Tally};

/// Three quarters of the best ratio for a third of its processor time.
const LEVEL: Compression = Compression::new(3);

/// One object on its way to the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) dataset: Dataset,
    pub(super) name: String,
    pub(super) body: Bytes,
}

/// A segment, ready for upload.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) objects: Vec<Object>,
    /// The rows in them.
    pub(super) tally: Tally,
    /// Some of the segment could not be read.
    pub(super) damaged: bool,
}

/// Packs `rows`, which `instance` wrote to segment `id`. Holds the segment and its packed form.
pub(super) fn pack(rows: &SegmentRows, id: SegmentId, instance: &str) -> io::Result<Packed> {
    let mut groups: BTreeMap<(Dataset, &str, Hour), Vec<&[u8]>> = BTreeMap::new();
    let mut tally = Tally::default();
    let damaged = rows.each(|row| {
        let hour = Hour::of(row.time);
        groups.entry((row.dataset, row.deployment, hour)).or_default().push(row.json);
        tally.add(row.dataset, hour);
    });
    let run = run_name(instance, id.incarnation);
    let objects = groups.into_iter().map(|((dataset, deployment, hour), lines)| {
        let folder = format!("{}/deployment={}", dataset.label(), folder_name(deployment));
        let name = format!("{folder}/{}/{run}-{:08}.jsonl.gz", hour.partition(), id.sequence);
        Ok(Object { dataset, name, body: gzip(&lines)? })
    });
    let objects = objects.collect::<io::Result<Vec<_>>>()?;
    Ok(Packed { objects, tally, damaged })
}

/// `lines` as one gzip member, each with its line feed, without a time in its header.
pub(super) fn gzip(lines: &[&[u8]]) -> io::Result<Bytes> {
    let bytes: usize = lines.iter().map(|line| line.len()).sum();
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes / 4), LEVEL);
    for line in lines {
        encoder.write_all(line)?;
        encoder.write_all(b"\n")?;
    }
    encoder.finish().map(Bytes::from)
}

/// Deployments are bounded and clean long before; a name that is not cannot leave its folder.
fn folder_name(deployment: &str) -> &str {
    let safe = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let dots = deployment.starts_with('.') || deployment.ends_with('.');
    let clean = !deployment.is_empty() && deployment.len() <= 128 && !dots;
    if clean && deployment.bytes().all(safe) { deployment } else { "other" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_lines_give_the_same_bytes() {
        let lines = [b"{\"a\":1}".as_slice(); 100];
        assert_eq!(gzip(&lines).expect("packs"), gzip(&lines).expect("packs"));
    }

    #[test]
    fn hostile_deployments_stay_in_their_folder() {
        for hostile in
            ["../../etc", "", ".", "blue.", "..", "a/b", "a\\b", "nul\0", &"x".repeat(5000)]
        {
            assert_eq!(folder_name(hostile), "other");
        }
        assert_eq!(folder_name("blue_v1.2"), "blue_v1.2");
    }
}
