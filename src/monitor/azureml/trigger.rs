//! `trigger`: cron or recurrence.

use jiff::Timestamp;

use super::tree::Tree;
use super::{list, quote, zones};

/// When, and the window that Azure takes where none is given.
pub(super) struct Trigger {
    pub(super) yaml: String,
    pub(super) window: (String, String),
}

/// Takes the trigger; `None` where it lacks what it needs.
pub(super) fn take(tree: &mut Tree, notes: &mut Vec<String>) -> Option<Trigger> {
    let zone = tree.text("trigger.time_zone").unwrap_or_else(|| "UTC".to_owned());
    let zone = zones::iana(&zone).unwrap_or_else(|| {
        notes.push(format!(
            "the time zone `{zone}` is unknown; correct `time_zone`, which is UTC now"
        ));
        "UTC".to_owned()
    });
    let end = tree.text("trigger.end_time");
    notes.extend(
        end.map(|end| format!("`trigger.end_time: {end}`: monitors do not end by themselves")),
    );
    let named = zone.clone();
    let zone = format!("    time_zone: {}\n", quote(&zone));
    let kind = tree.text("trigger.type").map(|kind| kind.to_ascii_lowercase());
    let cron = tree.text("trigger.expression");
    match (kind.as_deref(), cron) {
        (Some("cron") | None, Some(expression)) => {
            let start = tree.text("trigger.start_time");
            notes.extend(start.map(|start| {
                format!("`trigger.start_time: {start}`: a cron monitor begins with the process")
            }));
            let yaml = format!("    schedule: {}\n{zone}", quote(expression.trim()));
            Some(Trigger { yaml, window: ("P7D".to_owned(), "P0D".to_owned()) })
        }
        (Some("recurrence") | None, None) => recurrence(tree, &named, &zone),
        _ => None,
    }
}

/// A moment without an offset is one in the trigger's time zone, named `zone`; one with an offset is
/// told in that zone.
fn local(start: &str, zone: &str) -> String {
    let start = start.trim().replace(' ', "T");
    let moment = start.parse::<Timestamp>().ok();
    let told = moment.and_then(|at| at.in_tz(zone).ok()).map(|at| at.datetime().to_string());
    told.unwrap_or(start)
}

fn recurrence(tree: &mut Tree, named: &str, zone: &str) -> Option<Trigger> {
    let frequency = tree.text("trigger.frequency")?.to_ascii_lowercase();
    let interval: u64 = tree.text("trigger.interval").map_or(Some(1), |text| text.parse().ok())?;
    let window = match frequency.as_str() {
        "minute" | "hour" => "P1D".to_owned(),
        "day" => format!("P{interval}D"),
        "week" => format!("P{}D", interval.saturating_mul(7)),
        "month" => format!("P{}D", interval.saturating_mul(30)),
        _ => return None,
    };
    let mut keys = vec![format!("frequency: {frequency}"), format!("interval: {interval}")];
    for key in ["hours", "minutes", "week_days", "month_days"] {
        let values = tree.texts(&format!("trigger.schedule.{key}"));
        let values: Vec<_> = values.iter().map(|value| value.to_ascii_lowercase()).collect();
        if values.is_empty() {
            continue;
        }
        keys.push(format!("{key}: {}", list(&values)));
    }
    if let Some(start) = tree.text("trigger.start_time") {
        keys.push(format!("start: {}", quote(&local(&start, named))));
    }
    let yaml = format!("    recurrence: {{{}}}\n{zone}", keys.join(", "));
    Some(Trigger { yaml, window: (window, "P0D".to_owned()) })
}
