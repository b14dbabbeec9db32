//! With a budget: every deployment and model gets its share, and the score says with what probability.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::hubs::{judge, packed, run_through, scores};
use flowtap::config::{Config, Overrides, load};

/// The samples of one model, of a deployment.
const SAMPLES: [(&str, &str, usize); 4] =
    [("big", "gpt-4", 2000), ("big", "mini", 40), ("small", "gpt-4", 30), ("small", "", 30)];

fn config(folder: &Path, judge: &str, tokens: u64) -> Config {
    let file = folder.join("one.yaml");
    let bucket = folder.join("bucket").display().to_string();
    let text = format!(
        "taps: [{{upstream: \"http://127.0.0.1:1\"}}]\ninstance: one\nbucket: \"file://{bucket}\"\n\
         judge: {{url: \"{judge}\", model: m, concurrency: 8, tokens_per_day: {tokens}, max_tokens: 20}}\n\
         evaluate: {{criteria: [fluency], measures: [refusal], poll: 100ms}}\n"
    );
    std::fs::write(&file, text).expect("written");
    load(Some(&file), &Overrides::default(), &[]).unwrap_or_else(|faults| panic!("{faults}"))
}

fn sample(deployment: &str, model: &str) -> Value {
    let time = Timestamp::now();
    let named = (!model.is_empty()).then_some(model);
    json!({
        "id": flowtap::domain::ExchangeId::new(time), "time": time, "tap": "chat",
        "deployment": deployment, "question": "q?", "answer": "an answer",
        "model": {"request": null, "response": named}, "calls": [],
        "sample": {"reason": "rate", "probability": 0.5, "least": 0.25},
    })
}

#[test]
fn every_deployment_and_model_gets_its_share_and_weights_make_up_for_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut model_of: HashMap<String, (String, String)> = HashMap::new();
    for deployment in ["big", "small"] {
        // Those of all models lie in the same objects, one after the other.
        let mut lines = Vec::new();
        for (_, model, n) in SAMPLES.iter().filter(|(of, _, _)| *of == deployment) {
            lines.extend((0..*n).map(|_| sample(deployment, model)));
        }
        for line in &lines {
            let model = line["model"]["response"].as_str().unwrap_or_default().to_owned();
            let id = line["id"].as_str().expect("an id").to_owned();
            model_of.insert(id, (deployment.to_owned(), model));
        }
        for (number, chunk) in lines.chunks(300).enumerate() {
            packed(folder.path(), deployment, &format!("o-{number}"), chunk);
        }
    }
    let judge = judge();
    // A sample costs 120 tokens: 2,100 of them would cost 252,000.
    const TOKENS: u64 = 100_000;
    let config = config(folder.path(), &judge.url(), TOKENS);
    let metrics = run_through(&config, 2100.0, Duration::from_secs(60));
    let fates = metrics.sums("flowtap_evaluate_samples_total", "result");
    assert_eq!(fates["evaluated"] + fates["not_drawn"], 2100.0, "none is left out in silence");
    let spent = metrics.sums("flowtap_judge_tokens_total", "type").values().sum::<f64>();
    assert!(spent <= TOKENS as f64, "{spent}");

    let found = scores(folder.path());
    let (computed, judged): (Vec<_>, Vec<_>) =
        found.iter().partition(|row| row["criterion"] == "refusal");
    assert_eq!(computed.len(), 2100, "what costs nothing is computed for every sample");
    assert!(computed.iter().all(|row| row["probability"] == 0.5), "the sample's own");
    let mut by: HashMap<&(String, String), Vec<f64>> = HashMap::new();
    for row in judged {
        assert!(row["score"] == 4, "{row}");
        let probability = row["probability"].as_f64().expect("a number");
        let least = row["probability_least"].as_f64().expect("a number");
        assert!(
            least <= probability / 2.0 && least > 0.0,
            "the least of the sample and of the draw"
        );
        by.entry(&model_of[row["exchange"].as_str().expect("an id")])
            .or_default()
            .push(probability);
    }
    for (deployment, model, n) in SAMPLES {
        let got = &by[&(deployment.to_owned(), model.to_owned())];
        if n <= 40 {
            assert_eq!(got.len(), n, "{deployment} {model}: the small ones are judged whole");
            assert!(got.iter().all(|p| *p == 0.5), "{got:?}");
            continue;
        }
        assert!((50..1500).contains(&got.len()), "{} of {n}: the large one is thinned", got.len());
        assert!(got.iter().all(|p| (0.0005..0.5).contains(p)), "the combined probability is told");
        // Each was kept with probability a half: 2,000 samples stand for 4,000 requests. The variance
        // of the estimate is the sum of (1 - d) / d² over the drawn, with d the evaluator's own draw.
        let estimate: f64 = got.iter().map(|p| 1.0 / p).sum();
        let of_draw = got.iter().map(|p| p / 0.5);
        let deviation = 2.0 * of_draw.map(|d| (1.0 - d) / (d * d)).sum::<f64>().sqrt();
        let off = (estimate - 4000.0).abs();
        assert!(off < 5.0 * deviation, "{estimate} with a standard deviation of {deviation}");
    }
}
