//! Samples: a list to go through, one of them in full, and its steps.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::figures;
use super::params::{
    CRITERION, CURSOR, DEPLOYMENT, FROM, ID, LIMIT, MODEL, ORDER, OUTCOME, Params, Q, SCORE, SORT,
    TAP, TO,
};
use super::record;
use super::{Answer, Asked, Problem, Route};
use crate::domain::Grade;
use crate::store::{Order, SampleQuery, SampleRow, ScoreRow, Sort, Spot};

/// Samples of a page where nobody says how many.
const LIMIT_USUAL: u64 = 50;

pub(super) static LIST: Route = Route {
    path: "/samples",
    about: "The samples of a window, a page at a time: what a list shows of each.",
    parameters: &[
        &FROM,
        &TO,
        &TAP,
        &DEPLOYMENT,
        &MODEL,
        &OUTCOME,
        &Q,
        &CRITERION,
        &SCORE,
        &SORT,
        &ORDER,
        &LIMIT,
        &CURSOR,
    ],
    answer: Answer::Json("Samples", list),
};

pub(super) static ONE: Route = Route {
    path: "/samples/{id}",
    about: "One sample: its whole record as the bucket holds it, and its scores. `record` is null where \
            the bucket no longer has it; `missing` then says why.",
    parameters: &[&ID],
    answer: Answer::Json("Sample", one),
};

pub(super) static TRACE: Route = Route {
    path: "/traces/{id}",
    about: "The steps of one sample: the spans that were told of it, each once and after the one that it \
            is a part of, with its `depth`; and the flow's calls as its record tells them.",
    parameters: &[&ID],
    answer: Answer::Json("Trace", trace),
};

fn list(asked: &Asked<'_>) -> Result<Value, Problem> {
    let query = query(&asked.params, LIMIT.name, LIMIT_USUAL)?;
    let rows = asked.view.store.samples(&query)?;
    let full = rows.len() == query.limit;
    let next = rows.last().filter(|_| full).map(|row| cursor(&query, row.spot));
    Ok(json!({
        "window": figures::window(query.window),
        "samples": rows.iter().map(brief).collect::<Vec<_>>(),
        "next": next,
    }))
}

fn one(asked: &Asked<'_>) -> Result<Value, Problem> {
    let id = asked.params.id()?;
    let store = &asked.view.store;
    let (row, found) = store.sample(id)?.ok_or_else(|| Problem::unknown("this sample"))?;
    let (record, missing) = record::told(record::read(asked.view, &found));
    let scores = store.scores(id)?;
    Ok(json!({
        "sample": brief(&row),
        "record": record,
        "missing": missing,
        "object": found.object,
        "line": found.line,
        "scores": scores.iter().map(score).collect::<Vec<_>>(),
        "trace_parts": store.parts(id)?.len(),
    }))
}

fn trace(asked: &Asked<'_>) -> Result<Value, Problem> {
    let id = asked.params.id()?;
    let store = &asked.view.store;
    let (row, found) = store.sample(id)?.ok_or_else(|| Problem::unknown("this sample"))?;
    let (record, missing) = record::told(record::read(asked.view, &found));
    let calls = record.get("calls").cloned().unwrap_or_else(|| json!([]));
    Ok(json!({
        "sample": brief(&row),
        "calls": calls,
        "missing": missing,
        "spans": record::steps(asked.view, &store.parts(id)?),
    }))
}

/// The samples that were asked for. `limit` is the parameter's name: lists and files have their own.
pub(super) fn query(params: &Params, limit: &str, usual: u64) -> Result<SampleQuery, Problem> {
    let sort = match params.text(&SORT) {
        Some("latency") => Sort::Latency,
        Some("tokens") => Sort::Tokens,
        Some("score") => Sort::Score,
        _ => Sort::Time,
    };
    let order = match (params.text(&ORDER), sort) {
        (Some("asc"), _) | (None, Sort::Score) => Order::Ascending,
        _ => Order::Descending,
    };
    debug_assert_eq!(limit, LIMIT.name, "both parameters have one name");
    let mut query = SampleQuery {
        window: params.window()?,
        filter: params.filter(),
        text: params.text(&Q).map(str::to_owned),
        criterion: params.criterion(),
        scores: params.scores(),
        sort,
        order,
        after: None,
        limit: usize::try_from(params.whole(&LIMIT, usual)).unwrap_or(usize::MAX),
    };
    if let Some(text) = params.text(&CURSOR) {
        let spot = spot(&query, text);
        let allowed = "the `next` of an earlier answer to the same question, `sort` and `order`";
        query.after = Some(spot.ok_or_else(|| Problem::parameter("cursor", text, allowed))?);
    }
    Ok(query)
}

/// A place in the list of `query`, as text that nobody needs to understand.
fn cursor(query: &SampleQuery, spot: Spot) -> String {
    let mut bytes = vec![mark(query)];
    bytes.extend(spot.value.to_be_bytes());
    bytes.extend(spot.seq.to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// What [`cursor`] wrote for a list sorted the same.
fn spot(query: &SampleQuery, text: &str) -> Option<Spot> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (first, rest) = bytes.split_first_chunk::<1>()?;
    let (value, seq) = rest.split_first_chunk::<8>()?;
    let (value, seq) = (f64::from_be_bytes(*value), i64::from_be_bytes(seq.try_into().ok()?));
    (first[0] == mark(query) && value.is_finite()).then_some(Spot { value, seq })
}

/// How a list is sorted, in one byte: another list's cursor would skip at random.
fn mark(query: &SampleQuery) -> u8 {
    let sort = match query.sort {
        Sort::Time => 1,
        Sort::Latency => 2,
        Sort::Tokens => 3,
        // By which score: the figure that is compared.
        Sort::Score => 4 + query.criterion.map_or(0, |criterion| 1 + criterion as u8),
    };
    sort << 1 | u8::from(query.order == Order::Ascending)
}

/// What a list shows.
pub(super) fn brief(row: &SampleRow) -> Value {
    let scores = row
        .scores
        .iter()
        .map(|(criterion, score)| (criterion.label().to_owned(), Value::from(*score)));
    json!({
        "id": row.id, "time": row.time, "tap": row.tap, "deployment": row.deployment,
        "model": row.model, "operation": row.operation, "outcome": row.outcome,
        "stream": row.stream, "status": row.status, "latency_ms": row.latency_ms,
        "first_token_ms": row.first_token_ms,
        "usage": {
            "input": row.input, "output": row.output, "total": row.total, "source": row.source,
        },
        "sample": {"reason": row.reason, "probability": row.probability},
        "question": row.question, "answer": row.answer,
        "scores": scores.collect::<serde_json::Map<_, _>>(),
    })
}

fn score(row: &ScoreRow) -> Value {
    let (score, value) = match row.grade {
        Some(Grade::Score(score)) => (Some(score), None),
        Some(value) => (None, Some(value.value())),
        None => (None, None),
    };
    json!({
        "id": row.id, "criterion": row.criterion, "scale": row.scale, "time": row.time,
        "score": score, "value": value, "error": row.error, "reason": row.reason,
        "probability": row.probability, "judge": row.judge,
        "injection_suspect": row.injection_suspect, "judge_drift": row.judge_drift,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_holds_for_its_own_list_alone() {
        let ask = |text: &str| {
            let now = "2026-11-23T22:00:00Z".parse().expect("a time");
            let params = Params::read(text, None, LIST.parameters, now).expect("sound");
            query(&params, "limit", 50)
        };
        let latency = ask("sort=latency").expect("sound");
        let text = cursor(&latency, Spot { value: 12.5, seq: 7 });
        let again = ask(&format!("sort=latency&cursor={text}")).expect("its own");
        assert_eq!(again.after, Some(Spot { value: 12.5, seq: 7 }));
        for wrong in [
            format!("sort=tokens&cursor={text}"),
            format!("sort=latency&order=asc&cursor={text}"),
            format!("cursor={text}"),
            "cursor=".to_owned(),
            "cursor=AAAA".to_owned(),
            "cursor=%00".to_owned(),
        ] {
            let problem = ask(&wrong).expect_err("another's");
            assert!(serde_json::to_string(&problem).unwrap().contains("\"cursor\""), "{wrong}");
        }
    }
}
