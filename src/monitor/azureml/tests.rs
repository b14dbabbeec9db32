//! The fixtures that the real azure-ai-ml dumped, and a file of the form that `az` takes.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::Path;

use super::*;
use crate::config::{self, Config, Monitor, Overrides, Schedule};
use crate::domain::Criterion;
use crate::monitor::schedule;

fn imported(name: &str) -> Imported {
    let path = Path::new("tests/fixtures/azureml/monitor").join(name);
    let document = config::document(fs::read(&path).unwrap(), name).unwrap();
    import(document).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What was made, loaded as a user would: with a tap before it and the mail server named.
fn loaded(imported: &Imported) -> Config {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = format!("taps: [{{upstream: 'http://127.0.0.1:9'}}]\n{}", imported.yaml);
    fs::write(file.path(), &text).unwrap();
    let env = [("SMTP_URL".to_owned(), "smtps://mail.example.com".to_owned())];
    config::load(Some(file.path()), &Overrides::default(), &env)
        .unwrap_or_else(|faults| panic!("{faults}\n{text}"))
}

fn one(name: &str) -> (Monitor, Config, Imported) {
    let imported = imported(name);
    let mut config = loaded(&imported);
    assert_eq!(config.monitors.len(), 1, "{}", imported.yaml);
    (config.monitors.remove(0), config, imported)
}

fn said(imported: &Imported, what: &str) -> bool {
    imported.notes.iter().any(|note| note.contains(what))
}

#[test]
fn the_article_s_monitor_of_both_signals() {
    let (monitor, config, imported) = one("gen_ai_monitor_both_signals.yml");
    assert_eq!(&*monitor.name, "gen_ai_monitor_both_signals");
    let Schedule::Cron { text, .. } = &monitor.schedule else { panic!("{:?}", monitor.schedule) };
    assert_eq!((text.as_str(), monitor.time_zone.as_str()), ("15 10 * * *", "UTC"));
    assert_eq!(
        (monitor.window.to_string(), monitor.offset.to_string()),
        ("P7D".into(), "PT0S".into())
    );
    assert_eq!(monitor.scope.deployment.as_deref(), Some("contoso-chatbot-1"));
    let quality = monitor.quality.unwrap();
    let rates: Vec<_> = Criterion::RATED.iter().take(4).map(|of| (*of, 0.7)).collect();
    assert_eq!((quality.pass_score, quality.alert), (3, false));
    assert_eq!(quality.pass_rate, rates);
    assert_eq!(quality.average, [(Criterion::Coherence, 4.0), (Criterion::Fluency, 4.0)]);
    assert_eq!(monitor.tokens.unwrap().total_tokens_max, None);
    assert_eq!(config.sample.rate, 1.0);
    assert_eq!(monitor.emails, ["test@example.com", "def@example.com"]);
    assert_eq!(config.alerts.email.unwrap().to, monitor.emails);
    for lost in [
        "question: question, answer: answer, context: context",
        "connections/aoai-conn",
        "model: gpt-4",
        "enable_action_analyzer: false",
        "instance_type standard_e4s_v3, runtime_version 3.4",
        "questionanswering",
        "azureml:contoso-chatbot-contoso-chatbot-1-app_traces:1",
        "the endpoint `contoso-chatbot`",
        "alert_enabled",
        "SMTP_URL",
    ] {
        assert!(said(&imported, lost), "{lost} is not in {:#?}", imported.notes);
    }
    assert!(!said(&imported, "gsq_thresholds"), "it was taken");
}

#[test]
fn the_article_s_monitors_of_one_signal() {
    let (tokens, ..) = one("gen_ai_monitor_tokens.yml");
    assert!(tokens.quality.is_none() && tokens.tokens.is_some());
    assert_eq!(tokens.window.to_string(), "P7D", "Azure's default for cron");
    let (quality, ..) = one("gen_ai_monitor_generation_quality.yml");
    assert!(quality.quality.is_some() && quality.tokens.is_none());
}

#[test]
fn a_recurrence_with_limits_of_all_kinds_becomes_a_monitor_for_each_window() {
    let imported = imported("weekly_with_limits.yml");
    let config = loaded(&imported);
    let [quality, tokens] = config.monitors.as_slice() else { panic!("{}", imported.yaml) };
    assert_eq!(
        (quality.window.to_string(), quality.offset.to_string()),
        ("P14D".into(), "P1D".into())
    );
    assert_eq!((tokens.window.to_string(), &*tokens.name), ("P7D".into(), "weekly_with_limits-2"));
    let limits = quality.quality.as_ref().unwrap();
    assert_eq!((limits.pass_score, limits.alert), (4, true));
    assert_eq!(limits.pass_rate, [(Criterion::Similarity, 0.6)]);
    let limits = tokens.tokens.as_ref().unwrap();
    assert_eq!(limits.total_tokens_max, Some(5_000_000));
    assert_eq!(limits.total_tokens_per_group_max, Some(100_000));
    assert_eq!((tokens.time_zone.as_str(), config.sample.rate), ("Europe/Berlin", 0.25));
    // Thursday, 26 November 2026, 18:30 in Berlin.
    let after = "2026-11-26T06:00:00Z".parse().unwrap();
    assert_eq!(schedule::next(quality, after).unwrap().to_string(), "2026-11-26T17:30:00Z");
    assert!(said(&imported, "`sampling_rate: 0.1` of token statistics"));
}

#[test]
fn the_form_of_the_command_line_is_taken_and_what_has_no_counterpart_is_said() {
    let imported = imported("az_cli.yml");
    let config = loaded(&imported);
    let [quality, tokens] = config.monitors.as_slice() else { panic!("{}", imported.yaml) };
    assert_eq!(&*quality.name, "chat-quality-eu");
    let limits = quality.quality.as_ref().unwrap();
    assert_eq!(limits.pass_rate.len(), 2);
    let passing = |of| limits.pass_score_of(of);
    assert_eq!((passing(Criterion::Groundedness), passing(Criterion::Fluency)), (3, 4));
    assert_eq!(limits.pass_scores.len(), 2, "each has its own where they differ");
    assert_eq!(tokens.window.to_string(), "P1D", "Azure's default for a daily recurrence");
    assert_eq!(tokens.tokens.as_ref().unwrap().total_tokens_max, None, "0 is no limit");
    let after = "2026-11-23T00:00:00Z".parse().unwrap();
    assert_eq!(schedule::next(quality, after).unwrap().to_string(), "2026-11-23T11:15:00Z");
    for what in [
        "the name `chat quality.eu` became",
        "`display_name: Chat quality` has no counterpart",
        "description",
        "`tags.team: chat`",
        "the signal `drift` of type `data_drift`",
        "drift.reference_data.data_context: training",
        "azmonitoring",
        "the pass rate of fluency, 80, was taken as percent",
        "ground_truth: expected",
    ] {
        assert!(said(&imported, what), "{what} is not in {:#?}", imported.notes);
    }
}

#[test]
fn signals_of_every_kind_are_taken_or_said() {
    let imported = imported("signals_of_every_kind.yml");
    let config = loaded(&imported);
    let [quality, tokens] = config.monitors.as_slice() else { panic!("{}", imported.yaml) };
    let limits = quality.quality.as_ref().unwrap();
    let passing = |of| limits.pass_score_of(of);
    assert_eq!((passing(Criterion::Groundedness), passing(Criterion::Fluency)), (4, 2));
    assert_eq!(limits.pass_rate, [(Criterion::Groundedness, 0.8)], "fluency has none");
    assert_eq!(
        (quality.window.to_string(), tokens.window.to_string()),
        ("P3D".into(), "P2D".into())
    );
    // Every second month from March, on the 1st and the 15th, in Tokyo.
    let after = "2026-03-02T00:00:00Z".parse().unwrap();
    assert_eq!(schedule::next(quality, after).unwrap().to_string(), "2026-03-14T22:00:00Z");
    for kind in [
        "data_drift",
        "data_quality",
        "prediction_drift",
        "feature_attribution_drift",
        "model_performance",
        "custom",
    ] {
        assert!(said(&imported, &format!("of type `{kind}` has no counterpart")), "{kind}");
    }
}

#[test]
fn triggers_of_other_kinds_are_taken() {
    let (tokens, _, told) = one("hourly_tokens.yml");
    assert_eq!((tokens.window.to_string(), tokens.time_zone.as_str()), ("P1D".into(), "UTC"));
    assert!(tokens.tokens.unwrap().alert && said(&told, "azmonitoring"));
    let (quality, _, told) = one("cron_between.yml");
    assert_eq!(quality.time_zone, "Asia/Kolkata");
    assert!(said(&told, "end_time: 2026-12-31") && said(&told, "start_time: 2026-01-01T08:00:00"));
    // A start that names its offset is told in the monitor's zone.
    let yaml = "trigger: {type: recurrence, frequency: day, interval: 2, time_zone: Tokyo Standard \
                Time, start_time: '2026-01-01T20:00:00+00:00'}\ncreate_monitor: {monitoring_signals: \
                {t: {type: generation_token_statistics}}}";
    let imported = import(config::document(yaml.as_bytes().to_vec(), "x").unwrap()).unwrap();
    let monitor = loaded(&imported).monitors.remove(0);
    let after = "2026-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(schedule::next(&monitor, after).unwrap().to_string(), "2026-01-01T20:00:00Z");
}

/// As in cli/monitoring/generation-safety-quality-monitoring.yaml of Azure/azureml-examples (MIT): keys of
/// earlier releases, two sources, a lower-case zone, several times a day; and a window that is none.
#[test]
fn the_form_of_azure_s_own_example_is_taken() {
    let yaml = |size: &str| {
        format!(
            "name: weekdays\ntrigger: {{type: recurrence, frequency: week, time_zone: utc, interval: 1, schedule: \
             {{hours: [22, 20], minutes: [0, 30], week_days: [monday, friday]}}}}\ncreate_monitor: {{monitoring_target: \
             {{endpoint_deployment_id: some_endpoint}}, monitoring_signals: {{s: {{type: generation_safety_quality, \
             production_data: [{{input_data: {{path: 'azureml:inputs:1', type: mltable}}, data_window_size: {size}}}, \
             {{input_data: {{path: 'azureml:outputs:1'}}, data_column_names: {{correlation_id: id}}}}], \
             workspace_connection_id: aoai, metric_thresholds: {{fluency: {{aggregated_fluency_pass_rate: 0.5}}}}}}}}}}"
        )
    };
    let imported =
        |size: &str| import(config::document(yaml(size).into_bytes(), "x").unwrap()).unwrap();
    let told = imported("P14D");
    let monitor = loaded(&told).monitors.remove(0);
    assert_eq!((monitor.window.to_string(), monitor.time_zone.as_str()), ("P14D".into(), "UTC"));
    let after = "2026-11-23T20:30:00Z".parse().unwrap();
    assert_eq!(schedule::next(&monitor, after).unwrap().to_string(), "2026-11-23T22:00:00Z");
    for what in [
        "azureml:outputs:1",
        "correlation_id: id",
        "of the connection `aoai`",
        "`endpoint_deployment_id: some_endpoint` names no deployment",
    ] {
        assert!(said(&told, what), "{what} is not in {:#?}", told.notes);
    }
    assert!(said(&imported("7 days"), "`7 days` is no ISO 8601 duration; P7D was taken"));
}

/// Each single value in its turn is changed: whatever it is, the settings or the notes must change too,
/// or the file is refused.
#[test]
fn no_value_of_a_schedule_is_lost() {
    fn leaves(value: &Value, path: String, all: &mut Vec<String>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| {
                let key = key.replace('~', "~0").replace('/', "~1");
                leaves(value, format!("{path}/{key}"), all);
            }),
            Value::Array(items) => items.iter().enumerate().for_each(|(at, value)| {
                leaves(value, format!("{path}/{at}"), all);
            }),
            Value::String(_) => all.push(path),
            _ => {}
        }
    }
    fn changed(text: &str) -> String {
        match text {
            "true" => return "false".to_owned(),
            "false" => return "true".to_owned(),
            _ => {}
        }
        let digit = |c: char| char::from_digit((c.to_digit(10)? + 1) % 10, 10);
        match text.char_indices().find_map(|(at, c)| Some((at, digit(c)?))) {
            Some((at, digit)) => format!("{}{digit}{}", &text[..at], &text[at + 1..]),
            None => format!("{text}x"),
        }
    }
    let mut tried = 0;
    for entry in fs::read_dir("tests/fixtures/azureml/monitor").unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let path = Path::new("tests/fixtures/azureml/monitor").join(&name);
        let document = config::document(fs::read(path).unwrap(), &name).unwrap();
        let before = import(document.clone()).unwrap();
        let mut all = Vec::new();
        leaves(&document, String::new(), &mut all);
        for leaf in all.iter().filter(|leaf| *leaf != "/$schema") {
            let mut other = document.clone();
            let value = other.pointer_mut(leaf).unwrap();
            let (was, is) = (value.as_str().unwrap().to_owned(), changed(value.as_str().unwrap()));
            *value = Value::String(is.clone());
            assert_ne!(import(other), Ok(before.clone()), "{name}: {leaf}: {was} became {is}");
            tried += 1;
        }
    }
    assert!(tried > 200, "{tried}");
}

#[test]
fn other_documents_are_refused() {
    let of = |yaml: &str| import(config::document(yaml.as_bytes().to_vec(), "x").unwrap());
    assert_eq!(of("name: x"), Err(ImportError::NoMonitor));
    assert_eq!(of("- a"), Err(ImportError::NoMonitor));
    assert_eq!(of("create_monitor: {}"), Err(ImportError::NoTrigger));
    let trigger = "trigger: {type: cron, expression: '* * * * *'}\n";
    assert_eq!(
        of(&format!("{trigger}create_monitor: {{}}")),
        Err(ImportError::NoSignal(String::new()))
    );
    let drift = "create_monitor: {monitoring_signals: {d: {type: data_drift}}}";
    let told = of(&format!("{trigger}{drift}")).unwrap_err().to_string();
    assert!(told.ends_with("; the signal `d` of type `data_drift` has no counterpart"), "{told}");
    assert!(config::document(b"a: [".to_vec(), "x").is_err());
}

#[test]
fn hostile_names_stay_values() {
    let yaml = "name: \"a\\n- b: ${HOME}\"\ntrigger: {type: cron, expression: '* * * * *'}\n\
                create_monitor: {monitoring_target: {endpoint_deployment_id: 'azureml:e:d'}, \
                monitoring_signals: {t: {type: generation_token_statistics, \"x\\ny\": \"1\\nmonitors: 5\"}}}";
    let imported = import(config::document(yaml.as_bytes().to_vec(), "x").unwrap()).unwrap();
    let config = loaded(&imported);
    assert_eq!(&*config.monitors[0].name, "a---b----HOME-");
}
