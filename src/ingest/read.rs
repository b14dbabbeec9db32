//! One object: fetched, unpacked, read line by line, and stored in pieces.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;

use super::{Ingest, IngestError};
use crate::bucket::{BucketErrorKind, LineError, Lines, Listed};
use crate::domain::Dataset;
use crate::store::{Line, LineFault, Piece};

/// Objects that are fetched at once.
const AT_ONCE: usize = 8;
/// Objects larger than this are fetched alone.
const ALONE_BYTES: u64 = 32 << 20;
/// Lines of one piece.
const LINES_MAX: usize = 2000;
/// Bytes of the lines of one piece, about.
const BYTES_MAX: usize = 8 << 20;

impl Ingest {
    /// Reads objects of one dataset.
    pub(super) async fn read_all(
        &self,
        dataset: Dataset,
        objects: Vec<Listed>,
    ) -> Result<(), IngestError> {
        let (large, small): (Vec<_>, Vec<_>) =
            objects.into_iter().partition(|object| object.bytes > ALONE_BYTES);
        for (objects, at_once) in [(small, AT_ONCE), (large, 1)] {
            let reads: Vec<_> =
                objects.into_iter().map(|object| self.read_one(dataset, object)).collect();
            stream::iter(reads).buffer_unordered(at_once).try_collect::<()>().await?;
        }
        Ok(())
    }

    async fn read_one(&self, dataset: Dataset, object: Listed) -> Result<(), IngestError> {
        let mut piece = empty_piece(dataset, &object);
        if !object.name.ends_with(".jsonl.gz") {
            piece.faults.push((0, LineFault::Name));
            piece.whole = true;
            return self.store(piece).await;
        }
        let body = match self.bucket.get(&object.name).await {
            // It went while we looked.
            Err(error) if error.kind == BucketErrorKind::NotFound => return Ok(()),
            body => body?,
        };
        let (mut lines, mut bytes) = (Lines::of(&body), 0);
        while !piece.whole {
            match lines.next() {
                Ok(Some(line)) => {
                    bytes += line.len();
                    let parsed = Line::parse(dataset, line);
                    let number = lines.number();
                    match parsed {
                        Ok(line) => piece.lines.push((number, line)),
                        Err(fault) => piece.faults.push((number, fault)),
                    }
                }
                Ok(None) => piece.whole = true,
                Err(LineError::TooLong) => piece.faults.push((lines.number(), LineFault::TooLong)),
                Err(LineError::Damaged) => {
                    piece.faults.push((0, LineFault::Damaged));
                    piece.whole = true;
                }
            }
            piece.through = lines.number();
            let full = piece.lines.len() + piece.faults.len() >= LINES_MAX || bytes >= BYTES_MAX;
            if full && !piece.whole {
                bytes = 0;
                self.store(std::mem::replace(&mut piece, empty_piece(dataset, &object))).await?;
            }
        }
        self.store(piece).await
    }

    async fn store(&self, piece: Piece) -> Result<(), IngestError> {
        let (dataset, whole, name) = (piece.dataset, piece.whole, piece.object.clone());
        let stored = self.store.put_piece(piece, Timestamp::now()).await?;
        self.metrics.ingested_rows(dataset, stored.rows);
        if whole {
            self.metrics.ingested(dataset);
        }
        for (line, fault) in stored.faults {
            self.metrics.quarantined(dataset, fault.label());
            tracing::warn!(object = name, line, reason = fault.label(), "set aside");
        }
        Ok(())
    }
}

fn empty_piece(dataset: Dataset, object: &Listed) -> Piece {
    Piece {
        object: object.name.clone(),
        bytes: object.bytes,
        dataset,
        lines: Vec::new(),
        faults: Vec::new(),
        through: 0,
        whole: false,
    }
}
