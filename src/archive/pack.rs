//! A segment's rows as objects: one for each dataset, deployment and hour, JSON lines, gzip.
//!
//! The same segment always gives the same names and the same bytes, so that an upload may be repeated.

use std::collections::BTreeMap;
use std::io::{self, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use libdeflater::{CompressionLvl, Compressor};

use crate::domain::Dataset;
use crate::ledger::{Hour, run_name};
use crate::spool::{SegmentId, SegmentRows, Tally};

/// Of libdeflate the quickest: nearly the ratio of zlib's third for half of its processor time, with texts as
/// people write them (docs/PERFORMANCE.md).
const LEVEL: i32 = 1;
/// Of zlib, which takes half of libdeflate's time where texts are all alike.
const LEVEL_OF_ALIKE: Compression = Compression::new(3);
/// Texts are all alike if they are packed into less than one part in so many.
const ALIKE: usize = 16;
/// Bytes of lines that make a member: longer ones are hardly smaller when packed.
const MEMBER_BYTES: usize = 512 << 10;

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

/// Packs `rows`, which `instance` wrote to segment `id`. Holds its packed form, and of what is not packed yet
/// [`MEMBER_BYTES`] of each object at most.
pub(super) fn pack(rows: SegmentRows, id: SegmentId, instance: &str) -> io::Result<Packed> {
    let mut groups: BTreeMap<Dataset, BTreeMap<String, BTreeMap<Hour, Members>>> = BTreeMap::new();
    let (mut tally, mut packer) = (Tally::default(), Packer::new()?);
    let mut packed = Ok(());
    let damaged = rows.each(|row| {
        let hour = Hour::of(row.time);
        tally.add(row.dataset, hour);
        let deployments = groups.entry(row.dataset).or_default();
        if !deployments.contains_key(row.deployment) {
            deployments.insert(row.deployment.to_owned(), BTreeMap::new());
        }
        let hours = deployments.get_mut(row.deployment);
        let members = hours.map(|hours| hours.entry(hour).or_default());
        let added = members.map_or(Ok(()), |members| members.add(row.json, &mut packer));
        packed = std::mem::replace(&mut packed, Ok(())).and(added);
    })?;
    packed?;
    let run = run_name(instance, id.incarnation);
    let mut objects = Vec::new();
    for (dataset, deployments) in groups {
        for (deployment, hours) in deployments {
            let folder = format!("{}/deployment={}", dataset.label(), folder_name(&deployment));
            for (hour, members) in hours {
                let file = format!("{run}-{:08}.jsonl.gz", id.sequence);
                let name = format!("{folder}/{}/{file}", hour.partition());
                objects.push(Object { dataset, name, body: members.end(&mut packer)? });
            }
        }
    }
    Ok(Packed { objects, tally, damaged })
}

/// Lines on their way into one object. A gzip file is any number of members, each of which is one by itself
/// (RFC 1952, section 2.2).
#[derive(Default)]
struct Members {
    lines: Vec<u8>,
    packed: Vec<u8>,
}

impl Members {
    fn add(&mut self, line: &[u8], packer: &mut Packer) -> io::Result<()> {
        self.lines.extend_from_slice(line);
        self.lines.push(b'\n');
        if self.lines.len() < MEMBER_BYTES { Ok(()) } else { self.pack(packer) }
    }

    fn pack(&mut self, packer: &mut Packer) -> io::Result<()> {
        self.packed.extend_from_slice(packer.member(&self.lines)?);
        self.lines.clear();
        Ok(())
    }

    fn end(mut self, packer: &mut Packer) -> io::Result<Bytes> {
        if !self.lines.is_empty() || self.packed.is_empty() {
            self.pack(packer)?;
        }
        Ok(Bytes::from(self.packed))
    }
}

/// Makes members, one after the other: each in the way that the one before it makes promising.
struct Packer {
    compressor: Compressor,
    /// The last member, and room for the next.
    member: Vec<u8>,
    /// The lines of the last member were all alike.
    are_alike: bool,
}

impl Packer {
    fn new() -> io::Result<Self> {
        let level = CompressionLvl::new(LEVEL).map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(Self { compressor: Compressor::new(level), member: Vec::new(), are_alike: false })
    }

    /// One of `lines`; it bears no time.
    fn member(&mut self, lines: &[u8]) -> io::Result<&[u8]> {
        let bytes = if self.are_alike { self.by_zlib(lines)? } else { self.by_libdeflate(lines)? };
        self.are_alike = bytes < lines.len() / ALIKE;
        Ok(&self.member[..bytes])
    }

    fn by_zlib(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.member.clear();
        let mut encoder = GzEncoder::new(&mut self.member, LEVEL_OF_ALIKE);
        encoder.write_all(lines)?;
        encoder.finish().map(|member| member.len())
    }

    fn by_libdeflate(&mut self, lines: &[u8]) -> io::Result<usize> {
        let room = self.compressor.gzip_compress_bound(lines.len());
        self.member.resize(room.max(self.member.len()), 0);
        let bytes = self.compressor.gzip_compress(lines, &mut self.member);
        bytes.map_err(io::Error::other)
    }
}

/// `line` as a gzip file of its own, with its line feed.
pub(super) fn gzip(line: &[u8]) -> io::Result<Bytes> {
    let (mut packer, mut members) = (Packer::new()?, Members::default());
    members.add(line, &mut packer)?;
    members.end(&mut packer)
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
        // A number that no line repeats, as often as it is said.
        let packed = |lines: usize, numbers: usize| {
            let mut state = 1_u64;
            let mut number = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                state.to_string()
            };
            let (mut packer, mut members) = (Packer::new().expect("a level"), Members::default());
            for _ in 0..lines {
                let unlike: String = (0..numbers).map(|_| number()).collect();
                let line = format!("{{\"a\":\"{unlike}\",\"b\":\"{}\"}}", "text ".repeat(200));
                members.add(line.as_bytes(), &mut packer).expect("packs");
            }
            (members.end(&mut packer).expect("packs"), packer.are_alike)
        };
        for lines in [0, 1, 100, 4 * MEMBER_BYTES / 1000] {
            for (numbers, are_alike) in [(1, lines > 1), (50, false)] {
                let (body, found) = packed(lines, numbers);
                assert_eq!((&body, found), (&packed(lines, numbers).0, are_alike), "{lines}");
                let mut text = String::new();
                let mut unpacked = flate2::read::MultiGzDecoder::new(body.as_ref());
                std::io::Read::read_to_string(&mut unpacked, &mut text).expect("gzip");
                assert_eq!(text.lines().count(), lines);
                assert!(text.is_empty() || text.ends_with('\n'));
            }
        }
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
