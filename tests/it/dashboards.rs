//! The Grafana dashboard and the Prometheus rules: every name in them is in the registry, and every
//! query finds something in a real Prometheus that scrapes a flowtap with real traffic.
#![allow(clippy::expect_used, clippy::panic)]

pub mod live;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use flowtap::config::MetricsLimits;
use flowtap::metrics::Metrics;
use serde_json::Value;

use crate::peers::peers_wanted;

/// Families that only a judge, a target of alerts or damage brings about, which the live flowtap does
/// not have. Rules about them are held by their unit tests.
const ABSENT: &[&str] = &[
    "flowtap_alerts_total",
    "flowtap_bytes_altered_total",
    "flowtap_evaluate_oldest_unscored_seconds",
    "flowtap_ingest_quarantined_total",
    "flowtap_judge_budget_exhausted",
    "flowtap_judge_drift",
    "flowtap_judge_tokens_total",
];

/// A query, and where it stands.
#[derive(Clone, Debug)]
struct Query {
    place: String,
    text: String,
}

impl Query {
    /// The metrics that it names, without the endings of a histogram's series.
    fn families(&self) -> BTreeSet<String> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
        let words = self.text.split(|c| !is_part(c));
        let ours = words.filter(|word| {
            !word.contains(':')
                && ["flowtap_", "gen_ai_", "process_"].iter().any(|start| word.starts_with(start))
        });
        // Labels have such names too; a label is followed by an operator or stands in a `by`.
        let labels = ["gen_ai_token_type"];
        let metrics = ours.filter(|word| !labels.contains(word));
        let ending = |word: &str| {
            let found = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end));
            found.unwrap_or(word).to_owned()
        };
        metrics.map(ending).collect()
    }

    /// True if the live flowtap has nothing to answer with.
    fn is_absent(&self) -> bool {
        self.families().iter().any(|family| ABSENT.contains(&family.as_str()))
    }
}

#[test]
fn every_metric_of_the_dashboard_and_the_rules_is_in_the_registry() {
    let known = registered();
    let queries: Vec<_> = panels().into_iter().chain(rules()).collect();
    assert!(queries.len() > 50, "the files were read: {}", queries.len());
    let unknown: Vec<_> = queries
        .iter()
        .flat_map(|query| query.families().into_iter().map(|family| (family, &query.place)))
        .filter(|(family, _)| !known.contains(family))
        .collect();
    assert!(unknown.is_empty(), "not in docs/METRICS.md: {unknown:#?}");
}

#[test]
fn the_rules_that_a_rule_names_are_recorded() {
    let recorded: BTreeSet<_> = rules().into_iter().filter_map(|rule| record_name(&rule)).collect();
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    for query in panels().into_iter().chain(rules()) {
        let named = query
            .text
            .split(|c| !is_part(c))
            .filter(|word| word.matches(':').count() == 2 && !word.starts_with(':'));
        for name in named {
            assert!(recorded.contains(name), "{}: {name} is recorded nowhere", query.place);
        }
    }
}

#[test]
fn the_dashboard_runs_on_any_datasource() {
    let dashboard = dashboard();
    let text = dashboard.to_string();
    assert_eq!(
        text.matches("\"uid\":").count(),
        text.matches("\"uid\":\"${datasource}\"").count() + 1,
        "every datasource is the variable; the one other uid is the dashboard's own"
    );
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let names: Vec<_> = variables.iter().filter_map(|v| v["name"].as_str()).collect();
    assert_eq!(names, ["datasource", "tap", "deployment", "model"]);
    let described = panel_objects(&dashboard).iter().all(|panel| {
        panel["type"] == "row" || panel["description"].as_str().is_some_and(|text| !text.is_empty())
    });
    assert!(described, "every panel says what it shows");
}

#[test]
fn the_rules_hold_their_unit_tests() {
    if peers_wanted() {
        let tested = Command::new(installed("promtool"))
            .args(["test", "rules"])
            .arg(root().join("deploy/prometheus/flowtap.rules.test.yml"))
            .output()
            .expect("promtool runs");
        let said =
            String::from_utf8_lossy(&tested.stdout) + String::from_utf8_lossy(&tested.stderr);
        assert!(tested.status.success(), "{said}");
    }
}

/// A program of Debian's prometheus package, from the machine or from what `promtool.sh` unpacked.
fn installed(program: &str) -> PathBuf {
    let unpacked = root().join(".cache/peers/promtool/usr/bin").join(program);
    if unpacked.exists() { unpacked } else { PathBuf::from(program) }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn registered() -> BTreeSet<String> {
    let metrics = Metrics::new(&MetricsLimits { models_max: 1, deployments_max: 1 });
    metrics.families().iter().map(|family| family.name.to_owned()).collect()
}

fn dashboard() -> Value {
    let text = std::fs::read_to_string(root().join("deploy/grafana/flowtap.json"));
    serde_json::from_str(&text.expect("the dashboard is there")).expect("it is JSON")
}

fn panel_objects(dashboard: &Value) -> Vec<Value> {
    dashboard["panels"].as_array().expect("panels").clone()
}

/// Every query of the dashboard's panels.
fn panels() -> Vec<Query> {
    let of_panel = |panel: Value| {
        let title = panel["title"].as_str().unwrap_or_default().to_owned();
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        assert!(panel["type"] == "row" || !targets.is_empty(), "{title} shows nothing");
        targets.into_iter().map(move |target| Query {
            place: format!("panel {title}"),
            text: target["expr"].as_str().expect("a query").to_owned(),
        })
    };
    panel_objects(&dashboard()).into_iter().flat_map(of_panel).collect()
}

/// Every query of the rules; the place of a recording rule is its name.
fn rules() -> Vec<Query> {
    let files = ["flowtap.rules.yml", "flowtap.alerts.yml"];
    files.iter().flat_map(|file| rules_of(file)).collect()
}

fn rules_of(file: &str) -> Vec<Query> {
    let text = std::fs::read_to_string(root().join("deploy/prometheus").join(file));
    let file: Value =
        serde_saphyr::from_str(&text.expect("the rules are there")).expect("they are YAML");
    let groups = file["groups"].as_array().expect("groups").iter();
    let rules = groups.flat_map(|group| group["rules"].as_array().expect("rules").clone());
    let query = |rule: Value| {
        let name = |kind: &str| Some(format!("{kind} {}", rule[kind].as_str()?));
        let place = name("record").or_else(|| name("alert")).expect("a name");
        Query { place, text: rule["expr"].as_str().expect("a query").to_owned() }
    };
    rules.map(query).collect()
}

fn record_name(rule: &Query) -> Option<String> {
    rule.place.strip_prefix("record ").map(str::to_owned)
}
