//! `monitoring_signals`: scores and tokens.

use serde_json::Value;

use super::quote;
use super::tree::Tree;

/// The criteria, in Azure's order.
const CRITERIA: [&str; 5] = ["groundedness", "relevance", "coherence", "fluency", "similarity"];
const AVERAGES: &str = "azureml.modelmonitor.gsq_thresholds";

/// Which signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `generation_safety_quality`.
    Quality,
    /// `generation_token_statistics`.
    Tokens,
}

/// A signal that was taken.
pub(super) struct Taken {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Size and offset.
    pub(super) window: (String, String),
    /// Its lines below `signals:`.
    pub(super) yaml: String,
    pub(super) sampling_rate: Option<String>,
    /// A note on the judge.
    pub(super) judge: Option<String>,
    /// A note on columns.
    pub(super) columns: Option<String>,
}

/// Takes all signals that there is a counterpart of.
pub(super) fn take_all(
    tree: &mut Tree,
    window: &(String, String),
    notes: &mut Vec<String>,
) -> Vec<Taken> {
    let mut taken = Vec::new();
    for (name, value) in tree.entries("create_monitor.monitoring_signals") {
        let mut signal = Tree::of(value);
        let path = format!("create_monitor.monitoring_signals.{name}");
        let kind = signal.text("type").unwrap_or_default().to_ascii_lowercase();
        match kind.as_str() {
            "generation_safety_quality" => {
                taken.push(quality(name, &mut signal, window, notes));
            }
            "generation_token_statistics" => {
                taken.push(tokens(name, &mut signal, window, notes));
            }
            kind => {
                notes.push(format!("the signal `{name}` of type `{kind}` has no counterpart"));
            }
        }
        notes.extend(signal.rest_below(&path));
    }
    taken
}

fn quality(
    name: String,
    signal: &mut Tree,
    window: &(String, String),
    notes: &mut Vec<String>,
) -> Taken {
    let mut sources = signal.items("production_data").into_iter();
    let mut source = sources.next().map(Tree::of);
    for more in sources {
        let path = format!("{name}.production_data[1..]");
        notes.push(format!("`{path}`: one source of data is enough, flowtap's own samples"));
        notes.extend(Tree::of(more).rest_below(&path));
    }
    let window = source
        .as_mut()
        .map_or_else(|| window.clone(), |source| take_window(source, window, &name, notes));
    let columns = source.as_mut().and_then(columns);
    if let Some(source) = source {
        notes.extend(source.rest_below(&format!("{name}.production_data[0]")));
    }
    let mut yaml = format!("      generation_quality:\n{}", alert(&name, signal, notes));
    yaml.push_str(&thresholds(&name, signal, notes));
    yaml.push_str(&averages(&name, signal, notes));
    let judge = judge(signal);
    let sampling_rate = signal.text("sampling_rate");
    Taken { name, kind: Kind::Quality, window, yaml, sampling_rate, judge, columns }
}

/// Where the data lies, which columns it has, and the window.
fn take_window(
    source: &mut Tree,
    window: &(String, String),
    name: &str,
    notes: &mut Vec<String>,
) -> (String, String) {
    let kind = source.text("input_data.type").map(|kind| format!(" ({kind})"));
    if let Some(path) = source.text("input_data.path") {
        let kind = kind.unwrap_or_default();
        notes.push(format!(
            "`{name}`: its data, `{path}`{kind}, are flowtap's own samples and rollups here"
        ));
    }
    // The second is the form of earlier releases, which Azure's own examples still have.
    let older = source.text("data_window_size");
    let size = source.text("data_window.lookback_window_size").or(older);
    let offset = source.text("data_window.lookback_window_offset");
    for end in ["window_start", "window_end"] {
        if let Some(time) = source.text(&format!("data_window.{end}")) {
            notes.push(format!(
                "`{name}`: `{end}: {time}`; `flowtap monitor run --at` looks at the past"
            ));
        }
    }
    let mut given = |text: Option<String>, usual: &str| match text {
        Some(text) if text.starts_with('P') => text,
        None => usual.to_owned(),
        Some(text) => {
            // `default` is a word of Azure's for what it fills in.
            if text != "default" {
                notes
                    .push(format!("`{name}`: `{text}` is no ISO 8601 duration; {usual} was taken"));
            }
            usual.to_owned()
        }
    };
    (given(size, &window.0), given(offset, &window.1))
}

fn columns(source: &mut Tree) -> Option<String> {
    let names = [
        ("prompt_column", "question"),
        ("completion_column", "answer"),
        ("context_column", "context"),
        ("ground_truth_column", "ground_truth"),
    ];
    let taken = names.map(|(azure, ours)| {
        source
            .text(&format!("data_column_names.{azure}"))
            .map(|is| format!("{ours}: {}", quote(&is)))
    });
    let taken: Vec<_> = taken.into_iter().flatten().collect();
    (!taken.is_empty())
        .then(|| format!("write to the tap (`taps[].columns`): columns: {{{}}}", taken.join(", ")))
}

fn alert(name: &str, signal: &mut Tree, notes: &mut Vec<String>) -> String {
    let enabled =
        signal.text("alert_enabled").is_some_and(|text| text.eq_ignore_ascii_case("true"));
    if !enabled {
        notes.push(format!(
            "`{name}`: `alert_enabled` is false, which is Azure's default: figures are computed, nobody \
             is told; `alert: true` tells"
        ));
    }
    format!("        alert: {enabled}\n")
}

fn thresholds(name: &str, signal: &mut Tree, notes: &mut Vec<String>) -> String {
    let (mut rates, mut scores) = (Vec::new(), Vec::new());
    for criterion in CRITERIA {
        let path = format!("metric_thresholds.{criterion}");
        let rate = signal.text(&format!("{path}.aggregated_{criterion}_pass_rate"));
        let score = signal.text(&format!("{path}.acceptable_{criterion}_score_per_instance"));
        if rate.is_none() && score.is_some() {
            notes.push(format!(
                "`{name}`: {criterion} has an acceptable score and no pass rate: its pass rate is told, \
                 and compared with nothing"
            ));
        }
        if rate.is_some() || score.is_some() {
            let score = score.unwrap_or_else(|| "3".to_owned());
            scores.push((criterion, passing(&score, criterion, name, notes)));
        }
        if let Some(rate) = rate {
            rates.push(format!("{criterion}: {}", quote(&share(&rate, criterion, notes))));
        }
    }
    let mut yaml = match scores.first() {
        None => String::new(),
        Some((_, first)) if scores.iter().all(|(_, score)| score == first) => {
            format!("        pass_score: {first}\n")
        }
        Some(_) => {
            let own = scores.iter().map(|(criterion, score)| format!("{criterion}: {score}"));
            format!("        pass_scores: {{{}}}\n", own.collect::<Vec<_>>().join(", "))
        }
    };
    if !rates.is_empty() {
        yaml.push_str(&format!("        pass_rate: {{{}}}\n", rates.join(", ")));
    }
    yaml
}

/// The lowest whole score that passes: with 3.5 it is 4.
fn passing(text: &str, criterion: &str, name: &str, notes: &mut Vec<String>) -> u8 {
    match text.parse::<f64>() {
        Ok(score) if (1.0..=5.0).contains(&score) => {
            if score.fract() != 0.0 {
                notes.push(format!(
                    "`{name}`: {criterion} passes from {text} on: of whole scores, from {}",
                    score.ceil()
                ));
            }
            score.ceil() as u8
        }
        _ => {
            notes.push(format!(
                "`{name}`: the acceptable score of {criterion}, {text}, is none from 1 to 5; 3 was taken"
            ));
            3
        }
    }
}

/// The portal shows percent, the SDK takes shares.
fn share(text: &str, criterion: &str, notes: &mut Vec<String>) -> String {
    match text.parse::<f64>() {
        Ok(percent) if percent > 1.0 && percent <= 100.0 => {
            notes.push(format!("the pass rate of {criterion}, {text}, was taken as percent"));
            (percent / 100.0).to_string()
        }
        _ => text.to_owned(),
    }
}

/// Thresholds of averages, which Azure hides in a property as JSON.
fn averages(name: &str, signal: &mut Tree, notes: &mut Vec<String>) -> String {
    let Some(text) = signal.text_in("properties", AVERAGES) else { return String::new() };
    let limits: Vec<Value> = serde_json::from_str(&text).unwrap_or_default();
    let limit = |limit: &Value| {
        let metric = limit.get("metricName")?.as_str()?;
        let criterion = CRITERIA.iter().find(|of| metric == format!("average_{of}"))?;
        Some(format!("{criterion}: {}", limit.get("threshold")?.get("value")?.as_f64()?))
    };
    let taken: Vec<_> = limits.iter().map(limit).collect();
    if taken.is_empty() || taken.iter().any(Option::is_none) {
        notes.push(format!("`{name}`: not all of `{AVERAGES}: {text}` has a counterpart"));
    }
    let taken: Vec<String> = taken.into_iter().flatten().collect();
    match taken.is_empty() {
        true => String::new(),
        false => format!("        average: {{{}}}\n", taken.join(", ")),
    }
}

fn judge(signal: &mut Tree) -> Option<String> {
    let older = signal.text("workspace_connection_id");
    let connection = signal.text("connection_id").or(older);
    let model = signal.text("properties.aoai_deployment_name");
    (connection.is_some() || model.is_some()).then(|| {
        let connection = connection.map(|id| {
            let name = id.rsplit('/').next().unwrap_or_default().to_owned();
            format!(" of the connection `{name}` ({id})")
        });
        format!(
            "write the judge (`judge`): {{api: azure_openai, model: {}, url: \"https://…\", \
             api_key_file: …}}, with URL and key{}",
            quote(model.as_deref().unwrap_or("gpt-4")),
            connection.unwrap_or_default()
        )
    })
}

fn tokens(
    name: String,
    signal: &mut Tree,
    window: &(String, String),
    notes: &mut Vec<String>,
) -> Taken {
    let source = signal.entries("production_data");
    let mut source = Tree::of(Value::Object(source));
    let window = take_window(&mut source, window, &name, notes);
    if let Some(columns) = columns(&mut source) {
        notes.push(format!("`{name}`: tokens are counted without columns; {columns}"));
    }
    notes.extend(source.rest_below(&format!("{name}.production_data")));
    let mut yaml = format!("      token_statistics:\n{}", alert(&name, signal, notes));
    let totals = "metric_thresholds.totaltoken";
    for (azure, ours) in [
        ("total_token_count", "total_tokens_max"),
        ("total_token_count_per_group", "total_tokens_per_group_max"),
    ] {
        let limit = signal.text(&format!("{totals}.{azure}"));
        let number = limit.as_ref().and_then(|limit| limit.parse::<f64>().ok());
        match (number, limit) {
            // Azure's own default, which means that there is no limit.
            (Some(0.0), _) | (None, None) => {}
            (Some(n), _) if n >= 1.0 => yaml.push_str(&format!("        {ours}: {}\n", n.floor())),
            (_, Some(limit)) => {
                notes.push(format!("`{name}`: `{azure}: {limit}` is no number of tokens"));
            }
            (Some(_), None) => {}
        }
    }
    let sampling_rate = signal.text("sampling_rate");
    Taken { name, kind: Kind::Tokens, window, yaml, sampling_rate, judge: None, columns: None }
}
