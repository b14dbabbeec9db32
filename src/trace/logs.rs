//! Logs: one JSON object a line on stderr, escaped, every text and every line capped in length.
//!
//! Lines go through a bounded queue to a thread that writes them, so that a reader of stderr that
//! stalls cannot stall traffic; lines that do not fit are dropped, and the next one tells how many.
//! Other crates log at `info` at most: below it some of them show headers.

use std::fmt;
use std::io::{self, Write};
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::{EnvFilter, Layer};

/// Bytes of one text in a line.
const TEXT_BYTES_MAX: usize = 1024;
/// Bytes of one line; past it the remaining fields are left out.
const LINE_BYTES_MAX: usize = 8 * 1024;
/// Lines that may wait to be written.
const QUEUE_MAX: usize = 1024;
/// How long a [`Guard`] waits for the last lines.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is not in the form of `tracing`'s `EnvFilter`.
    #[error("log: {0:?} is not a filter such as `info` or `warn,flowtap::proxy=debug`")]
    Filter(String),
    /// Logging was started before, in this process.
    #[error("logging was started already")]
    Twice,
    /// The writing thread could not start.
    #[error("the log writer could not start: {0}")]
    Start(#[from] io::Error),
}

/// Writes out the last lines when it is dropped: hold it until the end of `main`.
#[must_use = "dropping it early loses the last lines at the process's end"]
pub struct Guard {
    lines: Lines,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let (done, flushed) = mpsc::sync_channel(1);
        if self.lines.sender.try_send(Item::Flush(done)).is_ok() {
            let _timeout_is_fine = flushed.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

/// Starts logging to stderr for the whole process.
pub fn init(filter: &str) -> Result<Guard, LogError> {
    let filter =
        EnvFilter::builder().parse(filter).map_err(|_| LogError::Filter(text(filter, 100)))?;
    let lines = Lines::start(io::stderr())?;
    let logs = JsonLines { lines: lines.clone() }
        .with_filter(filter_fn(speaks_of_itself))
        .with_filter(filter);
    let subscriber = tracing_subscriber::registry().with(logs);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Twice)?;
    Ok(Guard { lines })
}

/// From now on a panic is logged by its place alone: its message may hold content.
pub fn report_panics() {
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, thread = thread::current().name(), "panic");
    }));
}

/// Ours at every level, others from `info` up, but for the AWS SDK: it quotes what a store answered, and
/// what went wrong comes to us as an error anyway.
fn speaks_of_itself(metadata: &Metadata<'_>) -> bool {
    let (target, level) = (metadata.target(), metadata.level());
    target.starts_with("flowtap") || (*level <= Level::INFO && !target.starts_with("aws_"))
}

struct JsonLines {
    lines: Lines,
}

impl<S: Subscriber> Layer<S> for JsonLines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.lines.write(line(event, Timestamp::now()));
    }
}

fn line(event: &Event<'_>, now: Timestamp) -> Vec<u8> {
    let metadata = event.metadata();
    let mut fields = Fields { map: Map::new(), bytes_left: LINE_BYTES_MAX };
    fields.put("time", now.to_string().into());
    fields.put("level", metadata.level().as_str().into());
    fields.put("target", text(metadata.target(), TEXT_BYTES_MAX).into());
    event.record(&mut fields);
    let mut line = serde_json::to_vec(&fields.map).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Collects an event's fields as JSON while there is room.
struct Fields {
    map: Map<String, Value>,
    bytes_left: usize,
}

impl Fields {
    fn put(&mut self, name: &str, value: Value) {
        // Escaping can make six bytes of one.
        let bytes = name.len() + 6 * value.as_str().map_or(4, str::len);
        if let Some(left) = self.bytes_left.checked_sub(bytes) {
            self.bytes_left = left;
            self.map.insert(name.to_owned(), value);
        } else {
            self.map.insert("cut".to_owned(), true.into());
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field.name(), text(&format!("{value:?}"), TEXT_BYTES_MAX).into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), text(value, TEXT_BYTES_MAX).into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field.name(), value.into());
    }
}

/// `raw` cut to `bytes_max`, with what could drive a terminal or mislead a reader spelled out.
fn text(raw: &str, bytes_max: usize) -> String {
    let cut = &raw[..raw.floor_char_boundary(bytes_max)];
    let mut text = String::with_capacity(cut.len());
    for character in cut.chars() {
        if deceives(character) {
            text.extend(character.escape_unicode());
        } else {
            text.push(character);
        }
    }
    if cut.len() < raw.len() {
        text.push('…');
    }
    text
}

/// Control characters, and those that reorder or hide the text around them.
fn deceives(character: char) -> bool {
    let invisible = matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}');
    let isolating = matches!(character, '\u{2066}'..='\u{2069}' | '\u{feff}');
    character.is_control() || invisible || isolating
}

enum Item {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// The near end of the writer's queue.
#[derive(Clone)]
struct Lines {
    sender: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

impl Lines {
    fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (sender, receiver) = mpsc::sync_channel(QUEUE_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let lines = Self { sender, dropped: dropped.clone() };
        thread::Builder::new()
            .name("flowtap-logs".to_owned())
            .spawn(move || write_all(&receiver, out, &dropped))?;
        Ok(lines)
    }

    fn write(&self, line: Vec<u8>) {
        if self.sender.try_send(Item::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Writes until every sender is gone. A reader that went away loses its lines and nothing else.
fn write_all(items: &Receiver<Item>, mut out: impl Write, dropped: &AtomicU64) {
    while let Ok(item) = items.recv() {
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let message = "log lines were dropped: their reader was too slow";
            let note = serde_json::json!({
                "time": Timestamp::now(), "level": "WARN", "target": "flowtap::trace::logs",
                "message": message, "lines": lost,
            });
            let _reader_gone = writeln!(out, "{note}");
        }
        match item {
            Item::Line(line) => drop(out.write_all(&line)),
            Item::Flush(done) => drop((out.flush(), done.try_send(()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("lock").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(log: impl FnOnce()) -> Vec<Value> {
        let out = Shared::default();
        let guard = Guard { lines: Lines::start(out.clone()).expect("a thread") };
        let layer =
            JsonLines { lines: guard.lines.clone() }.with_filter(filter_fn(speaks_of_itself));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        drop(guard);
        let bytes = out.0.lock().expect("lock").clone();
        let lines = String::from_utf8(bytes).expect("UTF-8");
        assert!(lines.lines().all(|line| line.len() <= LINE_BYTES_MAX + 100), "capped");
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    #[test]
    fn a_line_is_one_json_object_whatever_is_in_it() {
        let hostile = "a\n{\"level\":\"ERROR\"}\u{1b}[31m\u{202e}\u{9b}\u{7f}";
        let lines = logged(|| tracing::warn!(hostile, status = 502, "request \u{1b} refused"));
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["level"], "WARN");
        assert_eq!(lines[0]["status"], 502);
        assert_eq!(lines[0]["message"], "request \\u{1b} refused");
        let shown = lines[0]["hostile"].as_str().expect("text");
        assert!(!shown.contains(deceives), "{shown:?}");
    }

    #[test]
    fn texts_and_lines_are_capped() {
        let long = "é".repeat(100_000);
        let lines = logged(|| {
            tracing::info!(a = %long, b = %long, c = %long, d = %long, e = %long, "m");
        });
        assert_eq!(lines[0]["message"], "m");
        assert_eq!(lines[0]["cut"], true);
        assert!(lines[0]["a"].as_str().expect("text").len() <= TEXT_BYTES_MAX + 3);
    }

    #[test]
    fn other_crates_are_not_heard_below_info() {
        let lines = logged(|| {
            tracing::debug!(target: "h2::codec", "headers");
            tracing::info!(target: "h2::codec", "fine");
            tracing::trace!("ours");
        });
        let messages: Vec<_> = lines.iter().map(|line| line["message"].clone()).collect();
        assert_eq!(messages, ["fine", "ours"]);
    }

    #[test]
    fn a_stalled_reader_stalls_nobody() {
        struct Stalled(Receiver<()>);
        impl Write for Stalled {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _ended = self.0.recv();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (_hold, stall) = mpsc::channel();
        let lines = Lines::start(Stalled(stall)).expect("a thread");
        (0..QUEUE_MAX + 10).for_each(|_| lines.write(b"x\n".to_vec()));
        assert!(lines.dropped.load(Ordering::Relaxed) >= 9);
    }

    #[test]
    fn a_bad_filter_is_named() {
        let error = init("flowtap=loud").err().expect("no such level").to_string();
        assert!(error.contains("flowtap=loud"), "{error}");
    }
}
