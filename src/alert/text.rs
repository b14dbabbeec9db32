//! What a message says: what, how far, how sure, since when, and where to look.

use crate::domain::{Bound, Measure, Notice, NoticeKind};

/// The page of a monitor below `page`.
pub(super) fn link(page: Option<&str>, notice: &Notice) -> Option<String> {
    page.map(|page| format!("{page}/monitors?monitor={}", notice.monitor))
}

/// One line.
pub(super) fn title(notice: &Notice) -> String {
    let (monitor, metric) = (&notice.monitor, &notice.measure.metric);
    match notice.kind {
        NoticeKind::Opened => {
            format!("Violated: {monitor} {metric} is {}", compared(&notice.measure))
        }
        NoticeKind::Repeated => {
            format!("Still violated: {monitor} {metric} is {}", compared(&notice.measure))
        }
        NoticeKind::Resolved => {
            format!("Resolved: {monitor} {metric} is {}", compared(&notice.measure))
        }
        NoticeKind::Test => "Test: flowtap can reach you".to_owned(),
    }
}

/// Some lines of plain text.
pub(super) fn lines(notice: &Notice, page: Option<&str>) -> Vec<String> {
    if notice.kind == NoticeKind::Test {
        let mut lines = vec!["This is a test. No threshold is violated.".to_owned()];
        lines.extend(page.map(|page| format!("Page: {page}")));
        return lines;
    }
    let measure = &notice.measure;
    let scope = &notice.scope;
    let named = [("tap", &scope.tap), ("deployment", &scope.deployment), ("model", &scope.model)];
    let named =
        named.iter().filter_map(|(what, name)| Some(format!(", {what} {}", (*name).as_ref()?)));
    let (from, to) = notice.window;
    let lines = [
        Some(format!(
            "What: {} of monitor {}{}",
            measure.metric,
            notice.monitor,
            named.collect::<String>()
        )),
        Some(format!("How far: {}", compared(measure))),
        Some(format!("How sure: {}", certainty(measure))),
        measure
            .violations
            .map(|of| format!("How often: in {} of {} parts of the window", of.count, of.possible)),
        Some(format!("Since: {}, window {from} to {to}", notice.since)),
        link(page, notice).map(|link| format!("Page: {link}")),
    ];
    lines.into_iter().flatten().collect()
}

/// The figure beside its limit.
fn compared(measure: &Measure) -> String {
    let value = measure.value.map_or_else(|| "unknown".to_owned(), number);
    let Some(limit) = measure.threshold else {
        return format!("{value}, no longer monitored");
    };
    let side = match measure.bound {
        Bound::AtLeast => "at least",
        Bound::AtMost => "at most",
    };
    format!("{value}, the limit is {side} {}", number(limit))
}

fn certainty(measure: &Measure) -> String {
    let interval = measure
        .low
        .zip(measure.high)
        .map(|(low, high)| format!("95% interval {} to {}, ", number(low), number(high)));
    let evidence = measure.evidence.map(|e| format!(", evidence {e:.1e} (1 is none)"));
    format!(
        "{}from {} observations, worth {:.0}{}",
        interval.unwrap_or_default(),
        measure.count,
        measure.effective,
        evidence.unwrap_or_default()
    )
}

/// At most four places, no trailing zeros.
fn number(value: f64) -> String {
    let text = format!("{value:.4}");
    let short = text.trim_end_matches('0').trim_end_matches('.');
    if short.is_empty() || (short == "0" && value != 0.0) {
        format!("{value:.1e}")
    } else {
        short.to_owned()
    }
}
