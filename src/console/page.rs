//! The console page: what happened since the start, in plain HTML without a script.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::metrics::Metrics;

/// The page's style, served beside it because the content policy allows no inline style.
pub const STYLE: &str = include_str!("style.css");

/// One table: a family of counters, summed by one of its labels.
struct Table {
    title: &'static str,
    family: &'static str,
    label: &'static str,
    empty: &'static str,
}

const TABLES: &[Table] = &[
    Table {
        title: "Requests by outcome",
        family: "flowtap_requests_total",
        label: "outcome",
        empty: "No request has passed yet: send one through a tap.",
    },
    Table {
        title: "Tokens",
        family: "flowtap_tokens_total",
        label: "type",
        empty: "No tokens counted yet.",
    },
    Table {
        title: "Requests by deployment",
        family: "flowtap_requests_total",
        label: "deployment",
        empty: "No request has passed yet.",
    },
    Table {
        title: "Samples kept, by reason",
        family: "flowtap_samples_total",
        label: "reason",
        empty: "No sample was drawn yet; the default rate is one in ten.",
    },
    Table {
        title: "Observations dropped, by stage",
        family: "flowtap_dropped_total",
        label: "stage",
        empty: "Nothing was dropped.",
    },
];

/// The page.
pub fn overview(metrics: &Metrics) -> String {
    let mut html = String::from(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta http-equiv=\"refresh\" content=\"5\"><title>flowtap</title>\
         <link rel=\"stylesheet\" href=\"/style.css\"></head><body><header><h1>flowtap</h1>\
         <p>Since the start of this process; renewed every 5 seconds. \
         All figures: <a href=\"/metrics\">/metrics</a>.</p></header><main>",
    );
    for table in TABLES {
        section(&mut html, table, &metrics.sums(table.family, table.label));
    }
    html.push_str("</main></body></html>");
    html
}

fn section(html: &mut String, table: &Table, sums: &BTreeMap<String, f64>) {
    let rows: Vec<_> = sums.iter().filter(|(_, sum)| **sum > 0.0).collect();
    // Writing to a String cannot fail.
    let _ = write!(html, "<section><h2>{}</h2>", table.title);
    if rows.is_empty() {
        let _ = write!(html, "<p class=\"empty\">{}</p></section>", table.empty);
        return;
    }
    let total: f64 = rows.iter().map(|(_, sum)| **sum).sum();
    let _ = write!(
        html,
        "<table><thead><tr><th scope=\"col\">{}</th><th scope=\"col\">count</th></tr></thead><tbody>",
        table.label
    );
    for (value, sum) in rows {
        let value = if value.is_empty() { "(none)" } else { value };
        let _ = write!(html, "<tr><th scope=\"row\">{}</th><td>{sum:.0}</td></tr>", escaped(value));
    }
    let _ = write!(
        html,
        "<tr class=\"total\"><th scope=\"row\">total</th><td>{total:.0}</td></tr></tbody></table></section>"
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
