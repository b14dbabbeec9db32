//! The effective configuration as YAML: complete, secrets masked, and it loads again.

use std::fmt::{Display, Write};
use std::sync::Arc;

use super::node::{Node, Value};
use super::secret::Secret;
use super::table::{Default, Key, MONITORS, ROOT};
use super::{
    Config, Monitor, alerts, bucket, feedback, file, judge, keep, monitors, queue, receive, serve,
    store, taps,
};

/// The effective configuration as YAML: every setting in force, defaults filled in, secrets as
/// `***`. What is not set stands as a comment. Loading it gives the same configuration, but for
/// the secrets.
pub fn effective(config: &Config) -> String {
    let mut out = String::new();
    write_map(&mut out, 0, ROOT, &root(config));
    out
}

/// Monitors alone, as YAML; empty where there are none. Two that are shown alike are alike.
pub fn monitors_shown(monitors: &[Monitor]) -> String {
    let mut out = String::new();
    if !monitors.is_empty() {
        write_map(&mut out, 0, MONITORS, &[("monitors", shown_monitors(monitors))]);
    }
    out
}

/// A value as it is shown.
#[derive(Debug)]
pub(super) enum Shown {
    /// Not set.
    Unset,
    Text(String),
    List(Vec<String>),
    /// Names of secrets.
    Secrets(Vec<Arc<str>>),
    Map(Vec<(&'static str, Shown)>),
    Maps(Vec<Vec<(&'static str, Shown)>>),
}

impl Shown {
    /// A value that is set.
    pub(super) fn text(value: impl Display) -> Self {
        Self::Text(value.to_string())
    }

    /// A value that may not be set.
    pub(super) fn optional(value: Option<impl Display>) -> Self {
        value.map_or(Self::Unset, Self::text)
    }

    /// A secret that may not be set.
    pub(super) fn secret(value: Option<&Secret>) -> Self {
        value.map_or(Self::Unset, |_| Self::text(STARS))
    }
}

/// What stands for a secret.
pub(super) const STARS: &str = "***";

fn root(config: &Config) -> Vec<(&'static str, Shown)> {
    vec![
        ("taps", Shown::Maps(config.taps.iter().map(taps::show).collect())),
        ("sample", Shown::Map(keep::show_sample(&config.sample))),
        ("capture", Shown::Map(keep::show_capture(&config.capture))),
        ("join", Shown::Map(keep::show_join(config.join))),
        ("feedback", Shown::Map(feedback::show(&config.feedback))),
        ("collector", config.collector.as_ref().map_or(Shown::Unset, receive::show)),
        ("redact", Shown::Map(keep::show_redact(&config.redact))),
        ("bucket", Shown::Map(bucket::show(&config.bucket))),
        ("spool", Shown::Map(keep::show_spool(&config.spool))),
        ("judge", config.judge.as_ref().map_or(Shown::Unset, |j| Shown::Map(judge::show_judge(j)))),
        (
            "evaluate",
            config.evaluate.as_ref().map_or(Shown::Unset, |evaluate| {
                Shown::Map(judge::show_evaluate(evaluate, config.judge.is_some()))
            }),
        ),
        ("queue", config.queue.as_ref().map_or(Shown::Unset, |q| Shown::Map(queue::show(q)))),
        ("store", Shown::Map(store::show_store(&config.store))),
        ("monitors", shown_monitors(&config.monitors)),
        ("alerts", Shown::Map(alerts::show(&config.alerts))),
        ("admin", Shown::Map(serve::show_admin(&config.admin))),
        ("trace", config.trace.as_ref().map_or(Shown::Unset, |t| Shown::Map(serve::show_trace(t)))),
        ("traffic", Shown::Map(serve::show_traffic(&config.traffic))),
        ("metrics", Shown::Map(serve::show_metrics(&config.metrics))),
        ("instance", Shown::text(&config.instance)),
        ("drain_timeout", Shown::text(super::kind::show_time(config.drain_timeout))),
        ("log", Shown::text(&config.log)),
    ]
}

fn shown_monitors(monitors: &[Monitor]) -> Shown {
    match monitors.is_empty() {
        true => Shown::Unset,
        false => Shown::Maps(monitors.iter().map(monitors::show).collect()),
    }
}

/// Writes a map in the order of the table.
fn write_map(out: &mut String, indent: usize, keys: &[Key], shown: &[(&str, Shown)]) {
    for key in keys {
        let value = shown.iter().find(|(name, _)| *name == key.name).map(|(_, value)| value);
        let pad = "  ".repeat(indent);
        // Writing to a string cannot fail.
        let _ = match value {
            Some(Shown::Text(text)) => writeln!(out, "{pad}{}: {}", key.name, quote(text)),
            Some(Shown::List(list)) => writeln!(out, "{pad}{}: {}", key.name, flow(list)),
            Some(Shown::Secrets(names)) => writeln!(out, "{pad}{}: {}", key.name, stars(names)),
            Some(Shown::Map(map)) if !map.is_empty() => {
                let _ = writeln!(out, "{pad}{}:", key.name);
                write_map(out, indent + 1, key.below(), map);
                Ok(())
            }
            Some(Shown::Maps(maps)) => {
                let _ = writeln!(out, "{pad}{}:", key.name);
                maps.iter().for_each(|map| write_item(out, indent + 1, key.below(), map));
                Ok(())
            }
            // A key without a value would not load again.
            Some(Shown::Unset | Shown::Map(_)) => match key.default {
                Default::Unset(why) => writeln!(out, "{pad}# {}: not set: {why}", key.name),
                _ => writeln!(out, "{pad}# {}: as by default", key.name),
            },
            None => Ok(()),
        };
    }
}

fn write_item(out: &mut String, indent: usize, keys: &[Key], shown: &[(&str, Shown)]) {
    let mut item = String::new();
    write_map(&mut item, indent + 1, keys, shown);
    let pad = "  ".repeat(indent);
    out.push_str(&pad);
    out.push_str("- ");
    out.push_str(item.trim_start());
}

fn flow(list: &[String]) -> String {
    format!("[{}]", list.iter().map(|text| quote(text)).collect::<Vec<_>>().join(", "))
}

fn stars(names: &[Arc<str>]) -> String {
    let entries: Vec<_> = names.iter().map(|n| format!("{}: \"{STARS}\"", quote(n))).collect();
    format!("{{{}}}", entries.join(", "))
}

/// `text` as YAML: plain where the parser reads it back the same, quoted elsewhere. A `${` is
/// doubled, so that it stays what it is.
fn quote(text: &str) -> String {
    let text = text.replace("${", "$${");
    let safe = |c: char| c.is_ascii_alphanumeric() || "_./:@+=-[]".contains(c);
    let starts = |c: char| c.is_ascii_alphanumeric() || "_./[".contains(c);
    let plain = text.starts_with(starts) && text.chars().all(safe) && reads_back(&text);
    match plain {
        true => text,
        // A JSON string is a YAML string.
        false => serde_json::Value::String(text).to_string(),
    }
}

fn reads_back(text: &str) -> bool {
    let inside = file::parse_quietly(&format!("[{text}]"));
    let Ok(Node { value: Value::List(items), .. }) = inside else { return false };
    matches!(&*items, [Node { value: Value::Scalar(scalar), .. }] if scalar.text == text)
}
