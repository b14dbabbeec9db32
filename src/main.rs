//! Arguments and exit codes only; the work is in the library.

use std::io::Write as _;
#[cfg(feature = "hub")]
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use flowtap::config::{self, Config, Overrides, Role};
use flowtap::export::{Form, Settings};
use flowtap::{app, trace};
use jiff::Timestamp;

#[path = "main/kubernetes.rs"]
mod kubernetes;
#[cfg(feature = "hub")]
#[path = "main/replaying.rs"]
mod replaying;
#[cfg(feature = "hub")]
#[path = "main/watching.rs"]
mod watching;

/// An exchange is allocated on a traffic thread and freed on another, which this allocator does without
/// a lock between them (docs/PERFORMANCE.md tells what it gave).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Start failure.
const START_FAILED: u8 = 1;
/// The ledger and the samples do not agree, or there are none.
const NOT_PROVEN: u8 = 1;
/// The environment's options of the bucket that an export is written to.
const EXPORT_PREFIX: &str = "FLOWTAP_EXPORT__";
/// Wrong arguments, as in sysexits.h.
const USAGE: u8 = 64;
/// Faulty configuration, as in sysexits.h.
const CONFIG: u8 = 78;

/// An inference-proxy sidecar: put it before an LLM endpoint by swapping one URL. It forwards every
/// byte as it is, counts requests, latency, errors and tokens, and keeps an honest sample.
#[derive(Parser)]
#[command(version, max_term_width = 100, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[cfg(not(feature = "hub"))]
const EXAMPLES: &str = "This build is the sidecar alone. Example:
  flowtap proxy --upstream http://127.0.0.1:9000   before a prompt flow; no file needed

Any key of the configuration can be set by an environment variable: FLOWTAP_SAMPLE__RATE=0.5.
Exit codes: 0 done, 1 start failure, 64 wrong arguments, 65 unusable input, 78 faulty configuration.";

#[cfg(feature = "hub")]
const EXAMPLES: &str = "Examples:
  flowtap run --upstream http://127.0.0.1:9000     before a prompt flow; no file needed
  curl http://127.0.0.1:8080/score -d '{\"question\":\"...\"}' -H 'content-type: application/json'
  curl http://127.0.0.1:9464/metrics               what happened
  flowtap check --config flowtap.yaml              every fault of a configuration at once

Any key of the configuration can be set by an environment variable: FLOWTAP_SAMPLE__RATE=0.5.
Exit codes: 0 done, 1 start failure, 64 wrong arguments, 65 unusable input, 78 faulty configuration.";

#[derive(Subcommand)]
enum Command {
    /// All in one process: proxy, capture, metrics, samples, archive, index, page
    #[cfg(feature = "hub")]
    Run {
        #[command(flatten)]
        source: Source,
    },
    /// The sidecar alone: proxy, capture, metrics, samples, spool and archive; no index, no page
    Proxy {
        #[command(flatten)]
        source: Source,
    },
    /// The reading side alone: the page and the API over a bucket that many sidecars fill
    ///
    /// Reads what lies in the bucket into an index (`store.dir`) and serves it. No tap, no spool.
    #[cfg(feature = "hub")]
    Hub {
        /// The configuration (YAML)
        #[arg(long, value_name = "FILE", env = "FLOWTAP_CONFIG")]
        config: PathBuf,
        /// Throw the index away first and make it again from the bucket; alerts stay
        #[arg(long)]
        reindex: bool,
    },
    /// The judging alone, over a bucket that many sidecars fill; as many of them as are needed
    ///
    /// Evaluators of one bucket share its samples and the day's budget of tokens. With `queue` they are told of new
    /// samples, else they look. Each needs an `instance` of its own, which a host's or pod's name is.
    #[cfg(feature = "hub")]
    Evaluator {
        /// The configuration (YAML)
        #[arg(long, value_name = "FILE", env = "FLOWTAP_CONFIG")]
        config: PathBuf,
    },
    /// Report every fault of a configuration at once, else print it with all defaults, secrets masked
    Check {
        #[command(flatten)]
        source: Source,
        /// As `flowtap hub` reads it: without a tap
        #[arg(long)]
        hub: bool,
    },
    /// Prove from a bucket what was seen, kept, dropped and stored; exits 1 where that fails
    ///
    /// Holds the ledger against the samples that lie beside it, for every hour of every run. Options of
    /// the bucket come from the environment, as for a flowtap that writes there: FLOWTAP_BUCKET__REGION,
    /// FLOWTAP_BUCKET__ENDPOINT, FLOWTAP_BUCKET__ACCESS_KEY_FILE and so on, or the cloud's own variables.
    Verify {
        /// The bucket: file:///path, s3://name/prefix, az://account/container/prefix, gs://name/prefix
        #[arg(value_name = "BUCKET_URL")]
        bucket: String,
        /// One JSON object instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Write a bucket's samples in the form that another system's tools read
    ///
    /// `azureml` is the form of Azure ML's data collector: CloudEvents, one JSON object a line, in
    /// modelDataCollector/ENDPOINT/DEPLOYMENT/COLLECTION/yyyy/MM/dd/HH/, with the collections model_inputs,
    /// model_outputs and app_traces. `parquet` is one table for each object of the bucket, in the same
    /// folders, with the fields of docs/RECORD.md as columns. Options of the bucket read come from FLOWTAP_BUCKET__*, those of the
    /// bucket written from FLOWTAP_EXPORT__*. Exits 1 where nothing was exported or a part could not be read.
    Export {
        /// The form
        #[arg(long, value_enum)]
        format: ExportFormat,
        /// The bucket: file:///path, s3://name/prefix, az://account/container/prefix, gs://name/prefix
        #[arg(value_name = "BUCKET_URL")]
        bucket: String,
        /// A folder, or a bucket's URL
        #[arg(long, value_name = "DIR_OR_BUCKET_URL")]
        to: String,
        /// Only exchanges that began then or later: 2026-11-23, or 2026-11-23T22:00:00Z
        #[arg(long, value_name = "TIME", value_parser = time)]
        from: Option<Timestamp>,
        /// Only exchanges that began earlier than that
        #[arg(long, value_name = "TIME", value_parser = time)]
        to_time: Option<Timestamp>,
        /// The endpoint's name in paths and lines [default: each sample's tap]
        #[arg(long, value_name = "NAME", value_parser = name)]
        endpoint: Option<String>,
        /// The workspace's resource id: what `source` begins with
        #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
        workspace: String,
        /// One JSON object instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Add flowtap to Kubernetes manifests as a native sidecar: manifests on stdin, the same on stdout
    ///
    /// Every workload with one container port gets it, and the Services beside it send to it: callers change
    /// nothing. The text is edited and not written anew; --uninject takes it back to the byte. What was done
    /// goes to stderr. Annotations of a workload set any key: flowtap.io/deployment: blue,
    /// flowtap.io/sample.rate: "0.5", flowtap.io/bucket: s3://name/prefix, flowtap.io/tap.models.upstream: URL
    /// for a second tap; flowtap.io/port names the port where there are several, flowtap.io/inject: "false"
    /// leaves it out, flowtap.io/env-from names a Secret with variables, flowtap.io/image another image.
    /// Exits 65 where something cannot be edited safely, naming document and line, and writes nothing then.
    Inject(kubernetes::Inject),
    /// Send recorded requests to another deployment and compare the answers; exits 3 where they are worse
    ///
    /// Both answers are judged by the same judge; each criterion's paired difference is told with its 95%
    /// interval, weighted by how the requests were sampled. Exits 0 where nothing is worse, 3 where an
    /// interval lies wholly below -margin, 4 where there is not enough data to say, 1 where it failed.
    /// What was redacted when it was recorded cannot be restored: such requests are counted as masked.
    /// The result is stored below replays/ of the bucket. Options of the bucket come from the
    /// configuration, or from FLOWTAP_BUCKET__*.
    #[cfg(feature = "hub")]
    Replay(replaying::Replay),
    /// Monitors: run one now, or import those of Azure ML
    #[cfg(feature = "hub")]
    Monitor {
        #[command(subcommand)]
        command: watching::MonitorCommand,
    },
    /// Alerts: try whether messages arrive
    #[cfg(feature = "hub")]
    Alert {
        #[command(subcommand)]
        command: watching::AlertCommand,
    },
    /// Serve the admission webhook that does the same for pods on their way into the cluster
    ///
    /// Pods with the annotation or label flowtap.io/inject: "true" get a sidecar; other annotations are those
    /// of `flowtap inject`. No pod is ever denied. The certificate is read again when its files change.
    Injector(kubernetes::Injector),
    /// Print a completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum ExportFormat {
    /// Azure ML's data collector
    Azureml,
    /// Parquet tables
    #[cfg(feature = "hub")]
    Parquet,
}

#[derive(clap::Args)]
struct Source {
    /// The configuration (YAML)
    #[arg(long, value_name = "FILE", env = "FLOWTAP_CONFIG")]
    config: Option<PathBuf>,
    /// Where requests go, e.g. http://127.0.0.1:9000 or https://api.openai.com
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// Where clients connect [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Where metrics, health and the page are served [default: 127.0.0.1:9464]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// Where samples and the spool are kept [default: ./flowtap-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
}

impl Source {
    fn load(self, role: Role) -> Result<Config, config::Faults> {
        let overrides = Overrides {
            upstream: self.upstream,
            listen: self.listen,
            admin: self.admin,
            data_dir: self.data_dir,
            role,
        };
        let environment = environment();
        config::load(self.config.as_deref(), &overrides, &environment)
    }

    /// The environment's settings (credentials, endpoints), with `url` as the bucket.
    fn bucket(url: &str) -> Result<Config, config::Faults> {
        let mut environment = environment();
        // The bucket asked for, not the one that this process would write to.
        environment.retain(|(name, _)| name != "FLOWTAP_BUCKET" && name != "FLOWTAP_BUCKET__URL");
        environment.retain(|(name, _)| !name.starts_with(EXPORT_PREFIX));
        Self::bucket_in(url, environment)
    }

    /// A configuration's settings, with `url` as the bucket.
    #[cfg(feature = "hub")]
    fn bucket_with(file: Option<&Path>, url: &str) -> Result<Config, config::Faults> {
        let mut environment = environment();
        environment.retain(|(name, _)| name != "FLOWTAP_BUCKET" && name != "FLOWTAP_BUCKET__URL");
        environment.retain(|(name, _)| !name.starts_with(EXPORT_PREFIX));
        environment.push(("FLOWTAP_BUCKET__URL".to_owned(), url.to_owned()));
        let overrides = Overrides { role: Role::Hub, ..Overrides::default() };
        config::load(file, &overrides, &environment)
    }

    /// The folder or bucket that an export goes to; its options are those of `FLOWTAP_EXPORT__*`.
    fn export(place: &str) -> Result<Config, config::Faults> {
        let mut environment = environment();
        environment.retain(|(name, _)| !name.starts_with("FLOWTAP_BUCKET"));
        for (name, _) in &mut environment {
            if let Some(option) = name.strip_prefix(EXPORT_PREFIX) {
                *name = format!("FLOWTAP_BUCKET__{option}");
            }
        }
        let folder = || std::path::absolute(place).map(|path| format!("file://{}", path.display()));
        let url = match place.contains("://") {
            true => place.to_owned(),
            false => folder().unwrap_or_else(|_| place.to_owned()),
        };
        Self::bucket_in(&url, environment)
    }

    fn bucket_in(
        url: &str,
        mut environment: Vec<(String, String)>,
    ) -> Result<Config, config::Faults> {
        // A hub needs no tap, and neither does this.
        let overrides = Overrides { role: Role::Hub, ..Overrides::default() };
        environment.push(("FLOWTAP_BUCKET".to_owned(), url.to_owned()));
        config::load(None, &overrides, &environment)
    }

    #[cfg(feature = "hub")]
    fn file(config: PathBuf) -> Self {
        Self { config: Some(config), upstream: None, listen: None, admin: None, data_dir: None }
    }
}

/// The environment, with the host's name, which shells know and services are not always told.
fn environment() -> Vec<(String, String)> {
    let mut environment: Vec<_> = std::env::vars().collect();
    let known = environment.iter().any(|(name, _)| name == "HOSTNAME");
    if let (false, Ok(name)) = (known, std::fs::read_to_string("/proc/sys/kernel/hostname")) {
        environment.push(("HOSTNAME".to_owned(), name.trim().to_owned()));
    }
    environment
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            #[cfg(not(feature = "hub"))]
            if let Some(told) = left_out(&error) {
                return fail(USAGE, &told);
            }
            // `--help` and `--version` are "errors" that belong on stdout.
            drop(error.print());
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    match arguments.command {
        #[cfg(feature = "hub")]
        Command::Run { source } => serve(source, Role::Run, |config| app::serve(config, Role::Run)),
        Command::Proxy { source } => {
            serve(source, Role::Proxy, |config| app::serve(config, Role::Proxy))
        }
        #[cfg(feature = "hub")]
        Command::Hub { config, reindex } => {
            serve(Source::file(config), Role::Hub, |config| app::serve_hub(config, reindex))
        }
        #[cfg(feature = "hub")]
        Command::Evaluator { config } => {
            serve(Source::file(config), Role::Hub, app::serve_evaluator)
        }
        Command::Check { source, hub } => check(source, hub),
        Command::Verify { bucket, json } => verify(&bucket, json),
        Command::Export { format, bucket, to, from, to_time: until, endpoint, workspace, json } => {
            let settings = Settings { endpoint, workspace, from, until };
            export(format, &bucket, &to, &settings, json)
        }
        Command::Inject(arguments) => kubernetes::inject(arguments),
        #[cfg(feature = "hub")]
        Command::Replay(arguments) => replaying::replay(arguments),
        #[cfg(feature = "hub")]
        Command::Monitor { command } => watching::monitor(command),
        #[cfg(feature = "hub")]
        Command::Alert { command } => watching::alert(command),
        Command::Injector(arguments) => kubernetes::injector(arguments),
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Arguments::command(),
                "flowtap",
                &mut std::io::stdout(),
            );
            ExitCode::SUCCESS
        }
    }
}

/// The commands that a build without a hub lacks.
#[cfg(not(feature = "hub"))]
const LEFT_OUT: &[&str] = &["run", "hub", "evaluator", "replay", "monitor", "alert"];

/// What to use instead of a command that this build lacks.
#[cfg(not(feature = "hub"))]
fn left_out(error: &clap::Error) -> Option<String> {
    let named = error.get(clap::error::ContextKind::InvalidSubcommand)?.to_string();
    LEFT_OUT.contains(&named.as_str()).then(|| {
        format!(
            "this build is the sidecar alone: it has no `{named}`; use `flowtap proxy`, or the image {}",
            kubernetes::IMAGE
        )
    })
}

fn serve(
    source: Source,
    role: Role,
    serve: impl FnOnce(&Config) -> Result<(), app::StartError>,
) -> ExitCode {
    let config = match source.load(role) {
        Ok(config) => config,
        Err(faults) => return fail(CONFIG, &faults),
    };
    let _logs = match trace::logs::init(&config.log) {
        Ok(logs) => logs,
        Err(error) => return fail(CONFIG, &error),
    };
    trace::logs::report_panics();
    config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    match serve(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(START_FAILED, &error),
    }
}

fn check(source: Source, hub: bool) -> ExitCode {
    match source.load(if hub { Role::Hub } else { Role::Run }) {
        Ok(config) => {
            for warning in &config.warnings {
                drop(writeln!(std::io::stderr(), "warning: {warning}"));
            }
            print(&config::effective(&config))
        }
        Err(faults) => fail(CONFIG, &faults),
    }
}

fn verify(bucket: &str, json: bool) -> ExitCode {
    let config = match Source::bucket(bucket) {
        Ok(config) => config,
        Err(faults) => return fail(CONFIG, &faults),
    };
    let report = match app::verify(&config.bucket) {
        Ok(report) => report,
        Err(error) => return fail(START_FAILED, &error),
    };
    let json = json.then(|| serde_json::to_string(&report).map(|json| json + "\n"));
    match json.transpose() {
        Ok(json) => print(&json.unwrap_or_else(|| report.to_string())),
        Err(error) => return fail(START_FAILED, &error),
    };
    if report.checked.is_empty() {
        return fail(
            NOT_PROVEN,
            &format!("{bucket}: no ledger and no samples; is it the right one?"),
        );
    }
    ExitCode::from(if report.ok { 0 } else { NOT_PROVEN })
}

fn export(
    format: ExportFormat,
    bucket: &str,
    to: &str,
    settings: &Settings,
    json: bool,
) -> ExitCode {
    let form = match format {
        ExportFormat::Azureml => Form::AzureMl,
        #[cfg(feature = "hub")]
        ExportFormat::Parquet if settings.endpoint.is_some() || !settings.workspace.is_empty() => {
            let why =
                "--endpoint and --workspace are of --format azureml: a table has the tap's name";
            return fail(USAGE, &why);
        }
        #[cfg(feature = "hub")]
        ExportFormat::Parquet => Form::Parquet,
    };
    let (source, target) = match (Source::bucket(bucket), Source::export(to)) {
        (Ok(source), Ok(target)) => (source, target),
        (Err(faults), _) | (_, Err(faults)) => return fail(CONFIG, &faults),
    };
    let report = match app::export(form, &source.bucket, &target.bucket, settings) {
        Ok(report) => report,
        Err(error) => return fail(START_FAILED, &error),
    };
    let told = match json.then(|| serde_json::to_string(&report)).transpose() {
        Ok(json) => json.map_or_else(|| report.to_string(), |json| json + "\n"),
        Err(error) => return fail(START_FAILED, &error),
    };
    print(&told);
    ExitCode::from(if report.is_complete() { 0 } else { NOT_PROVEN })
}

/// A time, or a day's first moment in UTC.
fn time(text: &str) -> Result<Timestamp, String> {
    let parsed = text.parse().or_else(|_| format!("{text}T00:00:00Z").parse());
    parsed.map_err(|_| "allowed: 2026-11-23 or 2026-11-23T22:00:00Z".to_owned())
}

/// What is safe in a path.
fn name(text: &str) -> Result<String, String> {
    let safe = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let fine = (1..=64).contains(&text.len()) && text.bytes().all(safe);
    fine.then(|| text.to_owned())
        .ok_or_else(|| "allowed: 1 to 64 letters, digits, `-` and `_`".to_owned())
}

fn print(text: &str) -> ExitCode {
    // A reader that closed the pipe has seen enough.
    drop(write!(std::io::stdout(), "{text}"));
    ExitCode::SUCCESS
}

fn fail(code: u8, error: &dyn std::fmt::Display) -> ExitCode {
    drop(writeln!(std::io::stderr(), "flowtap: {error}"));
    ExitCode::from(code)
}
