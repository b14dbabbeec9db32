//! Judged, computed and custom criteria beside each other.

use serde_json::{Value, json};

use super::super::*;
use super::{bench, day, id, query, sample, score};
use crate::domain::{Criterion, Dataset, Scale};

#[tokio::test]
async fn scales_are_kept_apart_and_drifted_scores_out_of_averages() {
    let bench = bench();
    bench.put("x", Dataset::Exchanges, &[sample(1, "2026-11-23T22:47:50Z")]).await;
    let value = |n: u8, criterion: &str, name: Option<&str>, value: Value| {
        let mut row = score(n, criterion, json!(null), "2026-11-23T22:48:00Z");
        (row["value"], row["name"]) = (value, json!(name));
        row
    };
    let mut own = value(1, "custom", Some("politeness"), json!(null));
    own["score"] = json!(2);
    let mut drifted = score(2, "fluency", json!(1), "2026-11-23T22:48:00Z");
    drifted["judge_drift"] = json!(true);
    let mut failed = value(2, "custom", Some("formal"), json!(null));
    (failed["scale"], failed["error"]) = (json!("boolean"), json!("timeout"));
    let lines = [
        score(1, "fluency", json!(5), "2026-11-23T22:48:00Z"),
        value(1, "f1", None, json!(0.25)),
        value(1, "refusal", None, json!(0.0)),
        value(1, "custom", Some("formal"), json!(1.0)),
        // Another's criterion that bears the name of one of ours.
        value(1, "custom", Some("groundedness"), json!(1.0)),
        own,
        drifted,
        failed,
    ];
    assert_eq!(bench.put("s", Dataset::Scores, &lines).await.rows, 7);
    let rows = bench.store.quality(day(), &Filter::default(), None, None).expect("an answer");
    let told: Vec<_> = rows
        .iter()
        .map(|row| (row.by.label(), row.by.scale, row.sums.average(), row.sums.failed()))
        .collect();
    assert_eq!(
        told,
        [
            ("fluency", Scale::Score, Some(5.0), 0),
            ("formal", Scale::Boolean, Some(1.0), 1),
            ("politeness", Scale::Score, Some(2.0), 0),
            ("f1", Scale::Ratio, Some(0.25), 0),
            ("refusal", Scale::Boolean, Some(0.0), 0),
        ]
    );
    assert_eq!(rows[0].sums.drifted(), 1);
    let worst = SampleQuery { sort: Sort::Score, order: Order::Ascending, ..query() };
    let found = bench.store.samples(&worst).expect("an answer");
    assert_eq!(found[0].scores, [(Criterion::Fluency, 5)], "somebody's own are not among them");
    let low = SampleQuery { scores: Some((1, 2)), ..query() };
    assert_eq!(bench.numbers(&low), [0_u8; 0], "and lower no sample's worst score");
    let lines = bench.store.scores(id(1)).expect("read");
    assert_eq!(lines.len(), 5);
}
