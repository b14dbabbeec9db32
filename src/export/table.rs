//! Rows as a Parquet file, written in groups as they come: memory holds one group of rows.
//!
//! A file without its end is no Parquet file, so what breaks off can be read by nobody, and is not
//! mistaken for a whole one.

use std::io::Write;
use std::sync::Arc;

use jiff::Timestamp;
use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical, ZstdLevel};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::{Type, TypePtr};
use serde_json::Value;

use super::columns::{self, Column, Kind};
use crate::domain::Dataset;

/// Rows of one group, at most.
const ROWS_MAX: usize = 20_000;
/// Bytes of the rows of one group, about.
const BYTES_MAX: usize = 16 << 20;

/// Why a table cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("the table cannot be written: {0}")]
pub struct TableError(#[from] ParquetError);

/// A file that is being written to `W`.
pub struct Table<W: Write + Send> {
    file: SerializedFileWriter<W>,
    columns: Vec<Filling>,
    rows: usize,
    bytes: usize,
}

/// A column of the group that is being gathered.
struct Filling {
    path: Vec<String>,
    kind: Kind,
    cells: Cells,
    /// 1 for a value, 0 for null.
    defined: Vec<i16>,
}

/// Values without the nulls between them.
enum Cells {
    Texts(Vec<ByteArray>),
    Wholes(Vec<i64>),
    Numbers(Vec<f64>),
    Truths(Vec<bool>),
}

impl<W: Write + Send> Table<W> {
    /// A table of lines of `dataset`, which goes to `out`.
    ///
    /// # Errors
    /// `out`'s, or a set of columns that is none.
    pub fn new(dataset: Dataset, out: W) -> Result<Self, TableError> {
        Self::with(columns::of(dataset), out)
    }

    /// A table of lines of `exchanges/`, each with a map `scores` of its scores by criterion besides.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub fn of_samples(out: W) -> Result<Self, TableError> {
        Self::with(columns::of_samples(), out)
    }

    fn with(columns: Vec<Column>, out: W) -> Result<Self, TableError> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_created_by(concat!("flowtap ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let file = SerializedFileWriter::new(out, schema(&columns)?, Arc::new(properties))?;
        let columns = columns.into_iter().map(Filling::new).collect();
        Ok(Self { file, columns, rows: 0, bytes: 0 })
    }

    /// Adds a line. What a column cannot hold is null in it.
    ///
    /// # Errors
    /// `out`'s, where a group is full and written.
    pub fn add(&mut self, line: &Value) -> Result<(), TableError> {
        self.bytes += self.columns.iter_mut().map(|column| column.add(line)).sum::<usize>();
        self.rows += 1;
        if self.rows >= ROWS_MAX || self.bytes >= BYTES_MAX {
            self.flush()?;
        }
        Ok(())
    }

    /// Where the file goes to. Bytes that are there already may be taken away.
    pub fn out(&mut self) -> &mut W {
        self.file.inner_mut()
    }

    /// Writes the last group and the file's end.
    ///
    /// # Errors
    /// `out`'s.
    pub fn finish(mut self) -> Result<W, TableError> {
        self.flush()?;
        Ok(self.file.into_inner()?)
    }

    fn flush(&mut self) -> Result<(), TableError> {
        if self.rows == 0 {
            return Ok(());
        }
        let mut group = self.file.next_row_group()?;
        for column in &mut self.columns {
            if let Some(mut writer) = group.next_column()? {
                column.write(&mut writer)?;
                writer.close()?;
            }
        }
        group.close()?;
        self.file.flush().map_err(ParquetError::from)?;
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }
}

impl Filling {
    fn new(column: Column) -> Self {
        let cells = match column.kind {
            Kind::Text => Cells::Texts(Vec::new()),
            Kind::Time | Kind::Whole => Cells::Wholes(Vec::new()),
            Kind::Number => Cells::Numbers(Vec::new()),
            Kind::Truth => Cells::Truths(Vec::new()),
        };
        let path = column.path.split('.').map(str::to_owned).collect();
        Self { path, kind: column.kind, cells, defined: Vec::new() }
    }

    /// Takes its value from a line; returns about how many bytes that are.
    fn add(&mut self, line: &Value) -> usize {
        let value = self.path.iter().try_fold(line, |value, name| value.get(name));
        let bytes = value.and_then(|value| self.cells.push(self.kind, value));
        self.defined.push(i16::from(bytes.is_some()));
        bytes.unwrap_or(0) + 2
    }

    fn write(&mut self, writer: &mut SerializedColumnWriter<'_>) -> Result<(), ParquetError> {
        let defined = Some(&self.defined[..]);
        match (writer.untyped(), &self.cells) {
            (ColumnWriter::ByteArrayColumnWriter(to), Cells::Texts(of)) => {
                to.write_batch(of, defined, None)?
            }
            (ColumnWriter::Int64ColumnWriter(to), Cells::Wholes(of)) => {
                to.write_batch(of, defined, None)?
            }
            (ColumnWriter::DoubleColumnWriter(to), Cells::Numbers(of)) => {
                to.write_batch(of, defined, None)?
            }
            (ColumnWriter::BoolColumnWriter(to), Cells::Truths(of)) => {
                to.write_batch(of, defined, None)?
            }
            _ => return Err(ParquetError::General("columns and cells differ".to_owned())),
        };
        self.defined.clear();
        self.cells.clear();
        Ok(())
    }
}

impl Cells {
    /// Adds a value, if it is one; returns about how many bytes that are.
    fn push(&mut self, kind: Kind, value: &Value) -> Option<usize> {
        match self {
            Self::Texts(texts) => {
                let text = match value {
                    Value::Null => return None,
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                let bytes = text.len();
                texts.push(ByteArray::from(text.into_bytes()));
                Some(bytes)
            }
            Self::Wholes(wholes) => {
                let whole = match kind {
                    Kind::Time => value.as_str()?.parse::<Timestamp>().ok()?.as_microsecond(),
                    _ => value.as_i64()?,
                };
                wholes.push(whole);
                Some(8)
            }
            Self::Numbers(numbers) => {
                numbers.push(value.as_f64()?);
                Some(8)
            }
            Self::Truths(truths) => {
                truths.push(value.as_bool()?);
                Some(1)
            }
        }
    }

    fn clear(&mut self) {
        match self {
            Self::Texts(of) => of.clear(),
            Self::Wholes(of) => of.clear(),
            Self::Numbers(of) => of.clear(),
            Self::Truths(of) => of.clear(),
        }
    }
}

fn schema(columns: &[Column]) -> Result<TypePtr, ParquetError> {
    let paths: Vec<_> = columns.iter().map(|c| (c.path.as_str(), c.kind)).collect();
    let root = Type::group_type_builder("line").with_fields(fields(&paths)?).build()?;
    Ok(Arc::new(root))
}

/// Leaves, and a group for those that stand together under one name.
fn fields(columns: &[(&str, Kind)]) -> Result<Vec<TypePtr>, ParquetError> {
    let top = |path: &str| path.split('.').next().unwrap_or_default().to_owned();
    let alike = columns.chunk_by(|left, right| top(left.0) == top(right.0));
    let field = |alike: &[(&str, Kind)]| {
        let name = alike.first().map(|(path, _)| top(path)).unwrap_or_default();
        let within: Vec<_> = alike
            .iter()
            .filter_map(|(path, kind)| Some((path.split_once('.')?.1, *kind)))
            .collect();
        match (within.is_empty(), alike) {
            (true, [(_, kind)]) => leaf(&name, *kind),
            _ => Type::group_type_builder(&name)
                .with_repetition(Repetition::REQUIRED)
                .with_fields(fields(&within)?)
                .build(),
        }
    };
    alike.map(|alike| field(alike).map(Arc::new)).collect()
}

fn leaf(name: &str, kind: Kind) -> Result<Type, ParquetError> {
    let (physical, logical) = match kind {
        Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        Kind::Time => (Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::MICROS))),
        Kind::Whole => (Physical::INT64, None),
        Kind::Number => (Physical::DOUBLE, None),
        Kind::Truth => (Physical::BOOLEAN, None),
    };
    Type::primitive_type_builder(name, physical)
        .with_repetition(Repetition::OPTIONAL)
        .with_logical_type(logical)
        .build()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use parquet::file::reader::{FileReader as _, SerializedFileReader};
    use serde_json::json;

    use super::*;

    fn written(dataset: Dataset, lines: &[Value]) -> SerializedFileReader<Bytes> {
        let mut table = Table::new(dataset, Vec::new()).expect("a table");
        lines.iter().for_each(|line| table.add(line).expect("written"));
        let bytes = Bytes::from(table.finish().expect("finished"));
        SerializedFileReader::new(bytes).expect("a Parquet file")
    }

    #[test]
    fn what_is_written_is_read_and_what_does_not_fit_is_null() {
        let lines = [
            json!({"id": "01", "time": "2026-11-23T22:47:50.123456Z", "status": 200, "stream": true,
                   "model": {"request": null, "response": "gpt-4"}, "latency_ms": 812.5,
                   "question": {"text": "why?"}, "answer": "because", "calls": []}),
            json!({"id": "02", "time": "not a time", "status": "200", "latency_ms": 3}),
        ];
        let file = written(Dataset::Exchanges, &lines);
        let rows: Vec<_> = file.get_row_iter(None).expect("rows").map(Result::unwrap).collect();
        let told = |row: usize, name: &str| {
            let mut cells = rows[row].get_column_iter();
            cells.find(|(known, _)| *known == name).map(|(_, cell)| cell.to_string())
        };
        for (name, wanted) in [
            ("id", "\"01\""),
            ("time", "2026-11-23 22:47:50.123456 +00:00"),
            ("status", "200"),
            ("stream", "true"),
            ("model", "{request: null, response: \"gpt-4\"}"),
            ("latency_ms", "812.5"),
            ("question", "\"{\"text\":\"why?\"}\""),
            ("answer", "\"because\""),
            ("calls", "\"[]\""),
        ] {
            assert_eq!(told(0, name).as_deref(), Some(wanted), "{name}");
        }
        for (name, wanted) in [("time", "null"), ("status", "null"), ("latency_ms", "3.0")] {
            assert_eq!(told(1, name).as_deref(), Some(wanted), "{name}");
        }
    }

    #[test]
    fn many_rows_are_written_in_groups_and_can_be_taken_away_between_them() {
        let mut table = Table::new(Dataset::Scores, Vec::new()).expect("a table");
        let (mut bytes, mut most) = (Vec::new(), 0);
        for n in 0..2 * ROWS_MAX + 7 {
            table.add(&json!({"id": n.to_string(), "score": n % 5 + 1})).expect("written");
            let out = std::mem::take(table.out());
            most = most.max(out.len());
            bytes.extend(out);
        }
        bytes.extend(table.finish().expect("finished"));
        assert!(most > 0 && most < bytes.len());
        let file = SerializedFileReader::new(Bytes::from(bytes)).expect("a Parquet file");
        let groups = file.metadata().row_groups().iter().map(|group| group.num_rows());
        assert_eq!(groups.collect::<Vec<_>>(), [ROWS_MAX as i64, ROWS_MAX as i64, 7]);
        assert!(written(Dataset::Usage, &[]).get_row_iter(None).expect("rows").next().is_none());
    }

    #[test]
    fn a_file_that_broke_off_is_none() {
        let mut table = Table::new(Dataset::Scores, Vec::new()).expect("a table");
        (0..ROWS_MAX).for_each(|n| table.add(&json!({"score": n % 5})).expect("written"));
        let cut = Bytes::from(std::mem::take(table.out()));
        assert!(cut.len() > 1000 && SerializedFileReader::new(cut).is_err());
    }
}
