//! `flowtap monitor` and `flowtap alert`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use flowtap::app::MonitorError;
use flowtap::config::Role;
use flowtap::domain::State;
use flowtap::monitor::{Table, azureml};
use flowtap::{app, config, trace};
use jiff::Timestamp;

use super::{CONFIG, START_FAILED, Source, USAGE, fail, print, time};

/// A test message did not arrive.
const UNDELIVERED: u8 = 1;
/// A monitor found a threshold violated.
const VIOLATED: u8 = 3;
/// No threshold is violated, but of one there is not enough data to say.
const NOT_ENOUGH_DATA: u8 = 4;

/// What `flowtap monitor` does.
#[derive(Subcommand)]
pub(super) enum MonitorCommand {
    /// Run a monitor now, or all of them; exits 0 ok, 3 violated, 4 not enough data
    ///
    /// Looks at what lies in the bucket and stores the result there, too. Nobody is told of what it
    /// finds: that is for scheduled runs.
    Run {
        /// The monitor's name [default: all]
        name: Option<String>,
        /// As if it were this time, such as 2026-11-23T10:15:00Z [default: now]
        #[arg(long, value_name = "TIME", value_parser = time)]
        at: Option<Timestamp>,
        /// One JSON object a line instead of a table
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        source: Source,
    },
    /// Print what a run needs to be made elsewhere, by deploy/spark: one JSON object a line
    ///
    /// Windows, limits and constants, with nothing left to be looked up. Nothing is read or written.
    Plan {
        /// The monitor's name [default: all]
        name: Option<String>,
        /// As if it were this time, such as 2026-11-23T10:15:00Z [default: now]
        #[arg(long, value_name = "TIME", value_parser = time)]
        at: Option<Timestamp>,
        #[command(flatten)]
        source: Source,
    },
    /// Print an Azure ML monitor schedule (YAML) as flowtap's monitors
    ///
    /// Takes what azure-ai-ml dumps and what `az ml schedule create` takes. What has no counterpart is
    /// said on stderr and in comments.
    Import {
        /// The schedule
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// What `flowtap alert` does.
#[derive(Subcommand)]
pub(super) enum AlertCommand {
    /// Send a test message to every target, or to one; exits 1 where one did not arrive
    Test {
        /// `email`, or a webhook's name [default: all]
        target: Option<String>,
        #[command(flatten)]
        source: Source,
    },
}

/// Does it.
pub(super) fn monitor(command: MonitorCommand) -> ExitCode {
    match command {
        MonitorCommand::Run { name, at, json, source } => run(source, name.as_deref(), at, json),
        MonitorCommand::Plan { name, at, source } => plan(source, name.as_deref(), at),
        MonitorCommand::Import { file } => import(&file),
    }
}

fn run(source: Source, name: Option<&str>, at: Option<Timestamp>, json: bool) -> ExitCode {
    // As a hub: what is looked at is the bucket, whoever fills it.
    let config = match source.load(Role::Hub) {
        Ok(config) => config,
        Err(faults) => return fail(CONFIG, &faults),
    };
    let _logs = trace::logs::init(&config.log);
    let now = Timestamp::now();
    let runs = match app::run_monitors(&config, name, at.unwrap_or(now), now) {
        Ok(runs) => runs,
        Err(error @ MonitorError::Unknown(_)) => return fail(USAGE, &error),
        Err(error) => return fail(START_FAILED, &error),
    };
    for run in &runs {
        let text = match json {
            true => serde_json::to_string(run).unwrap_or_default() + "\n",
            false => Table(run).to_string(),
        };
        print(&text);
    }
    ExitCode::from(match State::worst(runs.iter().map(|run| run.state)) {
        State::Ok => 0,
        State::Violated => VIOLATED,
        State::NotEnoughData => NOT_ENOUGH_DATA,
    })
}

fn plan(source: Source, name: Option<&str>, at: Option<Timestamp>) -> ExitCode {
    let config = match source.load(Role::Hub) {
        Ok(config) => config,
        Err(faults) => return fail(CONFIG, &faults),
    };
    let _logs = trace::logs::init(&config.log);
    match app::plan_monitors(&config, name, at.unwrap_or_else(Timestamp::now)) {
        Ok(plans) => {
            let line = |plan| serde_json::to_string(plan).unwrap_or_default() + "\n";
            print(&plans.iter().map(line).collect::<String>())
        }
        Err(error @ MonitorError::Unknown(_)) => fail(USAGE, &error),
        Err(error) => fail(START_FAILED, &error),
    }
}

fn import(file: &Path) -> ExitCode {
    let name = file.display().to_string();
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) => return fail(START_FAILED, &format!("{name}: {error}")),
    };
    let document = match config::document(bytes, &name) {
        Ok(document) => document,
        Err(faults) => return fail(CONFIG, &faults),
    };
    match azureml::import(document) {
        Ok(imported) => {
            for note in &imported.notes {
                drop(writeln!(std::io::stderr(), "note: {note}"));
            }
            print(&imported.yaml)
        }
        Err(error) => fail(CONFIG, &format!("{name}: {error}")),
    }
}

/// Why nothing was sent.
fn no_target(config: &config::Config, asked: Option<&str>) -> String {
    let email = config.alerts.email.as_ref().map(|_| "email");
    let hooks = config.alerts.webhooks.iter().map(|hook| &*hook.name);
    let known: Vec<&str> = email.into_iter().chain(hooks).collect();
    match (asked, known.as_slice()) {
        (Some(asked), [_, ..]) => {
            format!("there is no target `{asked}`; there is {}", known.join(", "))
        }
        _ => "the configuration has nobody to tell: neither `alerts.email` nor `alerts.webhook`"
            .to_owned(),
    }
}

/// Does it.
pub(super) fn alert(AlertCommand::Test { target, source }: AlertCommand) -> ExitCode {
    let config = match source.load(Role::Hub) {
        Ok(config) => config,
        Err(faults) => return fail(CONFIG, &faults),
    };
    let deliveries = match app::test_alerts(&config, target.as_deref()) {
        Ok(deliveries) => deliveries,
        Err(error) => return fail(START_FAILED, &error),
    };
    if deliveries.is_empty() {
        return fail(USAGE, &no_target(&config, target.as_deref()));
    }
    for delivery in &deliveries {
        let told = delivery.error.as_deref().unwrap_or("delivered");
        print(&format!("{}: {told}\n", delivery.target));
    }
    let arrived = deliveries.iter().all(|delivery| delivery.error.is_none());
    ExitCode::from(if arrived { 0 } else { UNDELIVERED })
}
