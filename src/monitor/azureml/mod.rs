//! Monitor schedules of Azure Machine Learning (the YAML that `azure-ai-ml` dumps and that
//! `az ml schedule create` takes) as monitors of flowtap.
//!
//! Everything in the file is either written down as a setting or said: what has no counterpart stands as
//! a note, in the output and for stderr. Defaults are Azure's own, as its SDK fills them in
//! (azure-ai-ml 1.35: `entities/_monitoring`).

use serde_json::Value;

mod signal;
mod tree;
mod trigger;
mod zones;

use signal::{Kind, Taken};
use tree::Tree;

/// What an Azure schedule became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// A fragment of a configuration, notes as comments.
    pub yaml: String,
    /// What has no counterpart, or needs a hand.
    pub notes: Vec<String>,
}

/// Why a document is no monitor schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// It has no `create_monitor`.
    #[error("this is no monitor schedule of Azure ML: it has no `create_monitor` map")]
    NoMonitor,
    /// It has no signal that there is a counterpart of.
    #[error(
        "no signal in `create_monitor.monitoring_signals` is a generation_safety_quality or a \
         generation_token_statistics{0}"
    )]
    NoSignal(String),
    /// It has no trigger that there is a counterpart of.
    #[error("`trigger` is neither a cron nor a recurrence trigger with what it needs")]
    NoTrigger,
}

/// One monitor in the making: at most one signal of a kind, all over one window.
struct Draft {
    name: String,
    window: (String, String),
    signals: Vec<Taken>,
}

/// Turns an Azure schedule into monitors.
pub fn import(document: Value) -> Result<Imported, ImportError> {
    let mut tree = Tree::of(document);
    let mut notes = Vec::new();
    if !tree.has_map("create_monitor") {
        return Err(ImportError::NoMonitor);
    }
    let trigger = trigger::take(&mut tree, &mut notes).ok_or(ImportError::NoTrigger)?;
    let name = name(&mut tree, &mut notes);
    let emails = emails(&mut tree, &mut notes);
    let signals = signal::take_all(&mut tree, &trigger.window, &mut notes);
    if signals.is_empty() {
        let said = |note: &&String| note.starts_with("the signal ");
        let said: String =
            notes.iter().filter(said).map(|note| format!("; {}", harmless(note))).collect();
        return Err(ImportError::NoSignal(said));
    }
    let deployment = deployment(&mut tree, &mut notes);
    machinery(&mut tree, &mut notes);
    let judge = signals.iter().find_map(|signal| signal.judge.clone());
    let columns = signals.iter().find_map(|signal| signal.columns.clone());
    let rate = rate(&signals, &mut notes);
    let drafts = drafts(&name, signals, &mut notes);
    notes.extend(tree.rest());
    notes.iter_mut().for_each(|note| *note = harmless(note));
    let (judge, columns) = (judge.map(|of| harmless(&of)), columns.map(|of| harmless(&of)));

    let mut yaml =
        String::from("# Made by `flowtap monitor import` of an Azure ML monitor schedule.\n");
    for note in notes.iter().chain(&judge).chain(&columns) {
        yaml.push_str(&format!("# - {note}\n"));
    }
    yaml.push_str("monitors:\n");
    for draft in &drafts {
        write_monitor(&mut yaml, draft, &trigger, deployment.as_deref(), &emails);
    }
    if let Some(rate) = rate {
        yaml.push_str(&format!("sample:\n  rate: {}\n", quote(&rate)));
    }
    if !emails.is_empty() {
        // Azure sends by a mail server of its own.
        yaml.push_str("alerts:\n  email:\n    smtp: \"${SMTP_URL}\"\n");
        yaml.push_str(&format!("    to: {}\n", list(&emails)));
        notes.push(
            "set SMTP_URL (smtps://host or smtp://host), or write the server into \
             `alerts.email.smtp`: Azure sent e-mail by a server of its own"
                .to_owned(),
        );
    }
    notes.extend(judge.into_iter().chain(columns));
    Ok(Imported { yaml, notes })
}

fn name(tree: &mut Tree, notes: &mut Vec<String>) -> String {
    tree.drop("$schema");
    let given = tree.text("name").unwrap_or_else(|| "azureml".to_owned());
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '-' };
    let name: String = given.chars().map(plain).take(64).collect();
    if name != given {
        notes.push(format!("the name `{given}` became `{name}`"));
    }
    name
}

fn emails(tree: &mut Tree, notes: &mut Vec<String>) -> Vec<String> {
    let emails = tree.texts("create_monitor.alert_notification.emails");
    if let Some(way) = tree.text("create_monitor.alert_notification") {
        notes.push(format!(
            "`alert_notification: {way}`: let Azure Monitor scrape flowtap_monitor_state, or post to \
             `alerts.webhook`"
        ));
    }
    emails
}

/// `azureml:<endpoint>:<deployment>`.
fn deployment(tree: &mut Tree, notes: &mut Vec<String>) -> Option<String> {
    let target = "create_monitor.monitoring_target";
    let id = tree.text(&format!("{target}.endpoint_deployment_id"));
    if let Some(task) = tree.text(&format!("{target}.ml_task")) {
        notes.push(format!("`ml_task: {task}`: flowtap needs none, it watches what passes"));
    }
    let id = id?;
    let mut parts = id.trim_start_matches("azureml:").splitn(2, ':');
    match (parts.next(), parts.next()) {
        (Some(endpoint), Some(deployment)) if !deployment.is_empty() => {
            notes.push(format!(
                "the endpoint `{endpoint}` has no counterpart: a tap stands before one endpoint; name \
                 it by `tap` where several write to one bucket"
            ));
            Some(deployment.to_owned())
        }
        _ => {
            notes.push(format!("`endpoint_deployment_id: {id}` names no deployment"));
            None
        }
    }
}

/// What flowtap runs without.
fn machinery(tree: &mut Tree, notes: &mut Vec<String>) {
    let compute = ["instance_type", "runtime_version"].map(|key| {
        tree.text(&format!("create_monitor.compute.{key}")).map(|value| format!("{key} {value}"))
    });
    let compute: Vec<_> = compute.into_iter().flatten().collect();
    if !compute.is_empty() {
        let compute = compute.join(", ");
        notes.push(format!("`compute` ({compute}): no Spark is needed, the hub computes"));
    }
}

/// The share of requests that is sampled: one for all signals here.
fn rate(signals: &[Taken], notes: &mut Vec<String>) -> Option<String> {
    let quality = signals.iter().filter(|signal| signal.kind == Kind::Quality);
    let rates: Vec<&String> = quality.filter_map(|signal| signal.sampling_rate.as_ref()).collect();
    let tokens = signals.iter().filter(|signal| signal.kind == Kind::Tokens);
    if let Some(rate) = tokens.filter_map(|signal| signal.sampling_rate.as_ref()).next() {
        notes.push(format!(
            "`sampling_rate: {rate}` of token statistics: flowtap counts the tokens of all requests"
        ));
    }
    if rates.windows(2).any(|pair| pair.first() != pair.last()) {
        notes.push("the signals' sampling rates differ; the first is written".to_owned());
    }
    rates.first().map(|rate| (*rate).clone())
}

/// Signals of one window share a monitor, as long as they are of different kinds.
fn drafts(name: &str, signals: Vec<Taken>, notes: &mut Vec<String>) -> Vec<Draft> {
    let mut drafts: Vec<Draft> = Vec::new();
    for signal in signals {
        let fits = |draft: &&mut Draft| {
            draft.window == signal.window
                && draft.signals.iter().all(|other| other.kind != signal.kind)
        };
        match drafts.iter_mut().find(fits) {
            Some(draft) => draft.signals.push(signal),
            None => {
                let own = match drafts.is_empty() {
                    true => name.to_owned(),
                    false => format!("{name}-{}", drafts.len() + 1),
                };
                if !drafts.is_empty() {
                    notes.push(format!(
                        "the signal `{}` has a monitor of its own, `{own}`: a monitor has one window \
                         and one signal of a kind",
                        signal.name
                    ));
                }
                let window = signal.window.clone();
                drafts.push(Draft { name: own, window, signals: vec![signal] });
            }
        }
    }
    drafts
}

fn write_monitor(
    yaml: &mut String,
    draft: &Draft,
    trigger: &trigger::Trigger,
    deployment: Option<&str>,
    emails: &[String],
) {
    yaml.push_str(&format!("  - name: {}\n{}", quote(&draft.name), trigger.yaml));
    let (window, offset) = &draft.window;
    yaml.push_str(&format!("    window: {}\n    offset: {}\n", quote(window), quote(offset)));
    if let Some(deployment) = deployment {
        yaml.push_str(&format!("    deployment: {}\n", quote(deployment)));
    }
    if !emails.is_empty() {
        yaml.push_str(&format!("    emails: {}\n", list(emails)));
    }
    yaml.push_str("    signals:\n");
    draft.signals.iter().for_each(|signal| yaml.push_str(&signal.yaml));
}

/// A note is one line of a comment, and of a terminal.
fn harmless(note: &str) -> String {
    note.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A YAML scalar: plain where nothing can be read into it, else quoted as JSON, which is YAML.
fn quote(text: &str) -> String {
    let text = text.replace("${", "$${");
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
        && !["true", "false", "null", "yes", "no", "on", "off"]
            .contains(&text.to_ascii_lowercase().as_str());
    let number = text.parse::<f64>().is_ok_and(f64::is_finite)
        && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if plain || number { text } else { Value::String(text).to_string() }
}

fn list(texts: &[String]) -> String {
    format!("[{}]", texts.iter().map(|text| quote(text)).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests;
