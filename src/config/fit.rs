//! What has to be smaller where there is little memory.

use std::fmt::Display;

use super::Config;
use super::kind::show_bytes;

/// Of the limit, captured bodies together may take this part.
const CAPTURES: u64 = 8;
/// One body's part: what its parsing takes is many times its own size.
const BODY: u64 = 256;
/// A segment's part: it is packed in memory on its way to the bucket.
const SEGMENT: u64 = 32;
/// Bytes of the limit for each exchange that may wait for the pipeline.
const EXCHANGE: u64 = 64 * 1024;
/// Bytes of the limit for each request whose calls may wait for their flow.
const REQUEST: u64 = 32 * 1024;

impl Config {
    /// Makes what is held in memory fit a process that may take `limit_bytes`; tells what had to be made
    /// smaller, a sentence each. From 512 MiB on all defaults fit.
    pub fn fit(&mut self, limit_bytes: u64) -> Vec<String> {
        let (capture, spool, join) = (&mut self.capture, &mut self.spool, &mut self.join);
        let mut told = Vec::new();
        let bytes = |bytes: u64| show_bytes(bytes);
        let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let count = |n: usize| n.to_string();
        let limit = limit_bytes;
        lower(
            &mut told,
            "capture.memory_bytes_max",
            &mut capture.memory_bytes_max,
            limit / CAPTURES,
            bytes,
        );
        let body = size(limit / BODY);
        lower(&mut told, "capture.body_bytes_max", &mut capture.body_bytes_max, body, |n| {
            bytes(n as u64)
        });
        lower(
            &mut told,
            "capture.queue_max",
            &mut capture.queue_max,
            size(limit / EXCHANGE),
            count,
        );
        lower(&mut told, "join.requests_max", &mut join.requests_max, size(limit / REQUEST), count);
        lower(&mut told, "spool.segment_bytes", &mut spool.segment_bytes, limit / SEGMENT, bytes);
        told
    }
}

fn lower<T: Ord + Copy, D: Display>(
    told: &mut Vec<String>,
    key: &str,
    value: &mut T,
    most: T,
    show: impl Fn(T) -> D,
) {
    if *value > most {
        told.push(format!("{key} is {} instead of {}", show(most), show(*value)));
        *value = most;
    }
}
