//! `flowtap replay`.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use flowtap::app::ReplayFailed;
use flowtap::config::{Faults, Overrides, Role, Secret, Tap};
use flowtap::replay::{Address, Limits, Progress, Settings, Verdict, Wanted};
use flowtap::{app, config, trace};
use jiff::Timestamp;

use super::{CONFIG, START_FAILED, Source, USAGE, fail, print, time};

/// The new deployment is worse.
const WORSE: u8 = 3;
/// Too little was seen to say whether it is.
const NOT_ENOUGH_DATA: u8 = 4;
/// Bytes of a file of headers.
const HEADERS_BYTES_MAX: u64 = 64 * 1024;

/// What is replayed.
#[derive(Args)]
pub(super) struct Replay {
    /// The bucket: file:///path, s3://name/prefix, az://account/container/prefix, gs://name/prefix
    #[arg(value_name = "BUCKET_URL")]
    bucket: String,
    /// The deployment to send to: its base URL or scoring URL; a query is sent with every request
    #[arg(long, value_name = "URL")]
    to: String,
    /// The configuration with `judge`, `evaluate`, `redact` and the taps' `columns` (YAML)
    #[arg(long, value_name = "FILE", env = "FLOWTAP_CONFIG")]
    config: Option<PathBuf>,
    /// Headers of every request, one `name: value` a line, `#` before a comment
    #[arg(long, value_name = "FILE")]
    headers_file: Option<PathBuf>,
    /// A header whose value is that of an environment variable, e.g. authorization=TARGET_AUTHORIZATION
    #[arg(long, value_name = "NAME=VARIABLE")]
    header_env: Vec<String>,
    /// The model to ask for instead of the recorded one, in bodies and in Azure OpenAI's paths
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Only requests that were recorded then or later: 2026-11-23, or 2026-11-23T22:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<Timestamp>,
    /// Only requests that were recorded earlier than that
    #[arg(long, value_name = "TIME", value_parser = time)]
    to_time: Option<Timestamp>,
    /// Only requests of this tap
    #[arg(long, value_name = "NAME")]
    tap: Option<String>,
    /// Only requests of this deployment
    #[arg(long, value_name = "NAME")]
    deployment: Option<String>,
    /// Leave out requests that carry masks
    #[arg(long)]
    skip_masked: bool,
    /// Requests at most; of more, a random part that is the same every time
    #[arg(long, value_name = "N", default_value = "200", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    /// Requests a second at most
    #[arg(long, value_name = "N", default_value = "2", value_parser = rate)]
    rate: f64,
    /// Requests under way at most
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// Seconds for one request, to its last byte
    #[arg(long, value_name = "SECONDS", default_value = "120", value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// Points of a score from 1 to 5 that do not matter
    #[arg(long, value_name = "POINTS", default_value = "0.1", value_parser = points)]
    margin: f64,
    /// The same of shares: requests that fail, criteria that are true or false
    #[arg(long, value_name = "SHARE", default_value = "0.02", value_parser = points)]
    share_margin: f64,
    /// Effective pairs below which nothing is said to be not worse
    #[arg(long, value_name = "N", default_value = "30", value_parser = clap::value_parser!(u32).range(1..))]
    pairs_min: u32,
    /// A table, or one JSON object
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// Does it.
pub(super) fn replay(arguments: Replay) -> ExitCode {
    let headers = match headers(&arguments) {
        Ok(headers) => headers,
        Err(why) => return fail(USAGE, &why),
    };
    let loaded = Source::bucket_with(arguments.config.as_deref(), &arguments.bucket);
    let config = match loaded {
        Ok(config) => config,
        Err(faults) => return fail(CONFIG, &faults),
    };
    let plain = match plain_tap(&arguments.to) {
        Ok(Some(plain)) => plain,
        Ok(None) => return fail(USAGE, &"--to: allowed: http:// and https:// addresses"),
        Err(faults) => return fail(USAGE, &faults),
    };
    let _logs = trace::logs::init(&config.log);
    let format = arguments.format;
    let settings = settings(arguments, headers);
    match app::replay(&config, plain, &settings, &show) {
        Ok(report) => {
            let json = serde_json::to_string(&report).unwrap_or_default() + "\n";
            print(&match format {
                Format::Table => report.to_string(),
                Format::Json => json,
            });
            ExitCode::from(match report.verdict {
                Verdict::NotWorse => 0,
                Verdict::Worse => WORSE,
                Verdict::NotEnoughData => NOT_ENOUGH_DATA,
            })
        }
        Err(ReplayFailed::Replay(error)) if error.is_usage() => fail(USAGE, &error),
        Err(error) => fail(START_FAILED, &error),
    }
}

fn settings(arguments: Replay, headers: Vec<(String, Secret)>) -> Settings {
    let Replay { from, to_time: until, tap, deployment, skip_masked: unmasked, .. } = arguments;
    Settings {
        wanted: Wanted { from, until, tap, deployment, unmasked },
        requests_max: arguments.limit as usize,
        address: Address {
            url: arguments.to,
            headers,
            model: arguments.model,
            timeout: Duration::from_secs(arguments.timeout),
        },
        rate: arguments.rate,
        concurrency: usize::from(arguments.concurrency),
        limits: Limits {
            margin: arguments.margin,
            share_margin: arguments.share_margin,
            pairs_min: f64::from(arguments.pairs_min),
        },
    }
}

/// A tap with all defaults before the new deployment: how its answers are read where no tap of the
/// configuration has the name of the recorded one.
fn plain_tap(to: &str) -> Result<Option<Tap>, Faults> {
    // An upstream has no query; where requests go keeps it.
    let url = to.split(['?', '#']).next().unwrap_or_default().to_owned();
    let overrides = Overrides { upstream: Some(url), role: Role::Proxy, ..Overrides::default() };
    Ok(config::load(None, &overrides, &[])?.taps.into_iter().next())
}

/// One line on a terminal, written over and over.
fn show(progress: Progress) {
    let mut terminal = std::io::stderr();
    if terminal.is_terminal() {
        let Progress { chosen, sent, compared } = progress;
        let end = if compared == chosen { "\n" } else { "" };
        drop(write!(terminal, "\r{sent} of {chosen} requests sent, {compared} compared{end}"));
        drop(terminal.flush());
    }
}

fn headers(arguments: &Replay) -> Result<Vec<(String, Secret)>, String> {
    let mut headers = match &arguments.headers_file {
        Some(file) => in_file(file)?,
        None => Vec::new(),
    };
    for typed in &arguments.header_env {
        let (name, variable) = typed
            .split_once('=')
            .ok_or("--header-env: allowed: NAME=VARIABLE, and the value in that variable")?;
        let value = std::env::var(variable)
            .map_err(|_| format!("--header-env {name}: the variable `{variable}` is not set"))?;
        headers.push((name.to_owned(), Secret::new(value.trim())));
    }
    Ok(headers)
}

fn in_file(file: &Path) -> Result<Vec<(String, Secret)>, String> {
    let place = file.display();
    let size = std::fs::metadata(file).map_err(|error| format!("{place}: {error}"))?.len();
    if size > HEADERS_BYTES_MAX {
        return Err(format!("{place}: {size} bytes; allowed: {HEADERS_BYTES_MAX}"));
    }
    let text = std::fs::read_to_string(file).map_err(|error| format!("{place}: {error}"))?;
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line.trim()));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|(number, line)| {
            // The line may be a secret: it is not told.
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| format!("{place}:{number}: allowed: `name: value`"))?;
            Ok((name.trim().to_owned(), Secret::new(value.trim())))
        })
        .collect()
}

fn rate(text: &str) -> Result<f64, String> {
    number(text, 0.01, 10_000.0)
}

fn points(text: &str) -> Result<f64, String> {
    number(text, 0.0, 4.0)
}

fn number(text: &str, lowest: f64, highest: f64) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (lowest..=highest).contains(number));
    number.ok_or_else(|| format!("allowed: {lowest} to {highest}"))
}
