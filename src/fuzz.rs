//! Every place that reads what others wrote, as a function of bytes that holds what must hold of it.
//!
//! Built for tests and for `fuzz/` alone (feature `fuzzing`). libFuzzer runs them by coverage
//! (`make fuzz`); the test at the end of this file runs them over the same corpus, mutated at random.

use std::io::Write as _;
use std::sync::{Arc, LazyLock};

use http::{HeaderName, HeaderValue, Method};
use jiff::Timestamp;

use crate::collector;
use crate::config::{self, Config, Overrides};
use crate::dialect::{self, sse};
use crate::domain::{CapturedBody, Exchange, ExchangeId, Fields, Outcome, Timing};
use crate::proxy;
use crate::redact::Redactor;
use crate::spool;
use crate::trace::context;

/// A target: its name, which its corpus's folder bears too, and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("sse", events),
    ("dialects", dialects),
    ("decoder", decoder),
    ("redactor", redactor),
    ("spool", segment),
    ("config", settings),
    ("collector", posted),
    ("heads", proxy::read_heads),
];

type Told = (String, String, String, u64, u64);

fn told(event: &sse::Event<'_>) -> Told {
    (event.name.to_string(), event.data.to_string(), event.id.to_owned(), event.start, event.end)
}

/// Any split of a stream gives the same events, and no event is larger than the limit.
pub fn events(data: &[u8]) {
    let limits = sse::Limits { line_bytes_max: 64, event_bytes_max: 256 };
    let Some((step, data)) = data.split_first() else { return };
    let read = |step: usize| {
        let mut found = Vec::new();
        let mut parser = sse::Parser::new(limits);
        for piece in data.chunks(step.max(1)) {
            parser.push(piece, &mut |event| found.push(told(&event)));
        }
        (found, parser.skipped())
    };
    let whole = read(data.len());
    assert_eq!(read(usize::from(*step)), whole, "another split gives other events");
    assert!(whole.0.iter().all(|event| event.1.len() <= 3 * limits.event_bytes_max));
}

static DEFAULTS: LazyLock<Option<Config>> = LazyLock::new(|| {
    let upstream = Some("http://127.0.0.1:9".to_owned());
    config::load(None, &Overrides { upstream, ..Overrides::default() }, &[]).ok()
});

static REDACTOR: LazyLock<Redactor> = LazyLock::new(|| {
    use config::RedactKind::{CreditCard, Email, Iban, Ip, Phone, Secret};
    let detect = vec![CreditCard, Email, Iban, Ip, Phone, Secret];
    let settings = config::Redact { detect, mode: config::RedactMode::Mask, key: None };
    Redactor::new(&settings, &[])
});

const PATHS: [&str; 8] = [
    "/score",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
    "/openai/deployments/d/chat/completions",
    "/feedback",
];

fn body(bytes: &[u8], cut: bool) -> CapturedBody {
    let (head, tail) = if cut { bytes.split_at(bytes.len() / 2) } else { (bytes, &[][..]) };
    let missing = if cut { 7 } else { 0 };
    CapturedBody {
        head: head.to_vec(),
        tail: tail.to_vec(),
        bytes: bytes.len() as u64 + missing,
        complete: !cut,
        ..CapturedBody::default()
    }
}

fn headers(media: &'static str, coding: &'static str) -> Fields {
    let fields = [("content-type", media), ("content-encoding", coding)];
    let given = fields.into_iter().filter(|(_, value)| !value.is_empty());
    given
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect()
}

fn exchange(path: &str, request: CapturedBody, response: CapturedBody) -> Exchange {
    Exchange {
        id: ExchangeId::new(Timestamp::UNIX_EPOCH),
        tap: Arc::from("fuzz"),
        time: Timestamp::UNIX_EPOCH,
        method: Method::POST,
        path: path.to_owned(),
        request_headers: headers("application/json", ""),
        request,
        status: Some(200),
        response_headers: headers("application/json", ""),
        response,
        outcome: Outcome::Ok,
        fault: None,
        timing: Timing::default(),
        request_id: None,
        trace: context::begin(None),
        alone: false,
    }
}

/// Both ways of reading an exchange find the same figures, in whatever form its bodies come; and what is
/// kept where it stands is what would be kept of the whole.
pub fn dialects(data: &[u8]) {
    let ([choice, share, rest @ ..], Some(settings)) = (data, DEFAULTS.as_ref()) else { return };
    let (streamed, cut) = (choice & 8 != 0, choice & 16 != 0);
    let (request, response) = rest.split_at(rest.len() * usize::from(*share) / 256);
    let path = PATHS[usize::from(choice & 7)];
    let mut exchange = exchange(path, body(request, false), body(response, cut));
    if streamed {
        exchange.response_headers = headers("text/event-stream", "");
    }
    for tap in &settings.taps {
        let whole = dialect::read(&exchange, tap);
        let figures = dialect::read_figures(&exchange, tap);
        let of = |reading: &crate::domain::Reading| {
            format!("{:?} {:?} {:?}", reading.usage, reading.model, reading.fault)
        };
        assert_eq!(of(&whole), of(&figures), "without texts, other figures");
        let kept = dialect::read_kept(&exchange, tap);
        assert_eq!(of(&whole), of(&kept), "by where the values stand, other figures");
        let outlines = dialect::outlines(&exchange, whole.operation, None);
        let texts = outlines.as_ref().and_then(|found| found.texts(tap, whole.operation));
        if let Some(clean) = texts.and_then(|texts| REDACTOR.clean(&texts)) {
            let built = REDACTOR.texts(whole).into_values();
            assert_eq!(clean.into_values(), built, "kept where it stands, it is another");
        }
    }
}

const CODINGS: [&str; 5] = ["gzip", "deflate", "br", "zstd", "x-gzip"];

/// Whatever a body claims to be coded as, its copy is read within the limits.
pub fn decoder(data: &[u8]) {
    let ([choice, rest @ ..], Some(settings)) = (data, DEFAULTS.as_ref()) else { return };
    let coding = CODINGS[usize::from(*choice) % CODINGS.len()];
    let mut exchange = exchange(PATHS[1], body(b"{}", false), body(rest, choice & 64 != 0));
    exchange.response_headers = headers("text/plain", coding);
    for tap in &settings.taps {
        let reading = dialect::read(&exchange, tap);
        let text = reading.response_body.and_then(|value| value.as_str().map(str::len));
        assert!(text.unwrap_or(0) <= 4 * dialect::decode::OUTPUT_BYTES_MAX, "more than the limit");
    }
}

/// A secret is found in whatever stands around it, and what was redacted stays as it is.
pub fn redactor(data: &[u8]) {
    const SECRET: &str = "sk-proj-Zx9Qw7Er5Ty3Ui1Op0As8Df6Gh4Jk2Lz";
    let redactor = Redactor::for_logs();
    let text = String::from_utf8_lossy(data);
    let around = format!("{text} {SECRET} {text}");
    let redacted = redactor.text(&around);
    assert!(!redacted.contains(SECRET), "a secret passed");
    assert_eq!(redactor.text(&redacted), redacted, "a second time changes something");
}

/// Whatever lies in a segment's file, it is walked over to its end.
pub fn segment(data: &[u8]) {
    spool::walk_over(data);
}

/// Whatever stands in the file, faults are told with their places; the environment's secrets are not.
pub fn settings(data: &[u8]) {
    const SECRET: &str = "canary-of-the-environment";
    let environment = [("TOKEN".to_owned(), SECRET.to_owned())];
    if let Err(faults) = config::load_bytes(data.to_vec(), &Overrides::default(), &environment) {
        let text = String::from_utf8_lossy(data);
        assert!(text.contains(SECRET) || !faults.to_string().contains(SECRET), "a secret is told");
    }
}

/// Whatever is posted, spans that can be read are, and the others are told of.
pub fn posted(data: &[u8]) {
    if let Some(tap) = DEFAULTS.as_ref().and_then(|settings| settings.taps.first()) {
        collector::read_posted(data, tap);
    }
}

/// The same bytes, coded as `name` says: a beginning for the decoder's corpus.
pub fn gzipped(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    // Writing into memory cannot fail.
    drop(encoder.write_all(data));
    encoder.finish().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngSeed, TestRunner};

    use super::*;
    use crate::drain::worked_ns;

    fn corpus(target: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let mut files: Vec<_> = std::fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.expect("an entry").path())
            .collect();
        files.sort();
        assert!(!files.is_empty(), "{} is empty", folder.display());
        files.iter().map(|file| std::fs::read(file).expect("reads")).collect()
    }

    /// A piece of the corpus, in which some bytes are others, missing or doubled.
    fn mutated(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
        let changes =
            proptest::collection::vec((any::<prop::sample::Index>(), 0..4u8, any::<u8>()), 0..6);
        (proptest::sample::select(seeds), changes).prop_map(|(mut bytes, changes)| {
            for (at, how, byte) in changes {
                if bytes.is_empty() {
                    bytes.push(byte);
                }
                let at = at.index(bytes.len());
                match how {
                    0 => bytes[at] = byte,
                    1 => drop(bytes.remove(at)),
                    2 => bytes.insert(at, byte),
                    _ => {
                        let piece =
                            bytes[at..].iter().take(usize::from(byte)).copied().collect::<Vec<_>>();
                        bytes.splice(at..at, piece);
                    }
                }
            }
            bytes
        })
    }

    /// Case 47 of the catalogue, in every run of the tests.
    /// Promise (security): what others wrote is read to its end, whatever it is. Figure: 8 readers, 300
    /// mutated inputs each; by coverage in `make fuzz`: 7.2 million inputs in ten minutes, 0 faults.
    #[test]
    fn what_others_wrote_is_read_to_its_end_however_it_is_mutated() {
        // More, and from another seed: `TEST_FUZZ_CASES=20000 TEST_FUZZ_SEED=9`.
        let number =
            |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let cases = number("TEST_FUZZ_CASES").map_or(300, |cases| cases as u32);
        let seed = number("TEST_FUZZ_SEED").unwrap_or(8);
        for (name, target) in TARGETS {
            let config = Config {
                cases,
                failure_persistence: None,
                rng_seed: RngSeed::Fixed(seed),
                ..Config::default()
            };
            let outcome = TestRunner::new(config).run(&mutated(corpus(name)), |bytes| {
                target(&bytes);
                Ok(())
            });
            outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }

    fn cost_ns(target: fn(&[u8]), bytes: &[u8]) -> u64 {
        let costs = (0..2).map(|_| {
            let before = worked_ns();
            target(bytes);
            worked_ns() - before
        });
        costs.min().unwrap_or(0)
    }

    /// Promise (security): no input costs more than ten times what its length says. Figure: 8 readers,
    /// pieces of their corpus and hostile bytes, repeated to 16 KiB and to 128 KiB.
    #[test]
    fn eight_times_the_bytes_never_cost_eighty_times_the_work() {
        const HOSTILE: [&[u8]; 10] =
            [b"[", b"{\"a\":", b"\\", b"\"", b"%41", b"&quot;", b"\n", b"- ", b"key: ", b"A1b2/+"];
        let repeated = |unit: &[u8], bytes: usize| -> Vec<u8> {
            // What chooses the way stays at the beginning.
            unit.iter().copied().cycle().take(bytes).collect()
        };
        for (name, target) in TARGETS {
            let seeds = corpus(name).into_iter().filter(|seed| !seed.is_empty());
            let units = seeds.take(12).chain(HOSTILE.map(<[u8]>::to_vec));
            for unit in units {
                let small = cost_ns(*target, &repeated(&unit, 16 << 10));
                let large = cost_ns(*target, &repeated(&unit, 128 << 10));
                let most = 80 * small.max(500_000);
                let begin = String::from_utf8_lossy(&unit[..unit.len().min(40)]);
                assert!(large <= most, "{name}: {small} ns, then {large} ns of {begin:?}");
            }
        }
    }
}
