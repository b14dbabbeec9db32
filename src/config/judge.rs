//! `judge`, `evaluate`: who judges samples, by which criteria, at what cost.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::fault::{Complaint, Report};
use super::kind::Kind::{
    Bool, Choice, Choices, Maps, Name, Path, Rate, SecretFile, Text, Time, Url, Whole,
};
use super::kind::{Kind, show_time};
use super::map::Map;
use super::node::{Node, Origin};
use super::place;
use super::secret::{self, Secret};
use super::show::Shown;
use super::table::Default::{Is, Required, Unset};
use super::table::Key;
use super::walk;
use crate::domain::{Criterion, Scale, is_metadata};

const DAY_MS: u64 = 86_400_000;
/// Bytes of a prompt of the user's own.
const PROMPT_BYTES_MAX: u64 = 64 * 1024;

/// The language model that judges.
#[derive(Clone, Debug)]
pub struct Judge {
    /// Its base URL, without a slash at its end.
    pub url: String,
    /// The protocol.
    pub api: JudgeApi,
    /// The model, or Azure's deployment of it.
    pub model: String,
    /// The credential.
    pub api_key: Option<Secret>,
    /// Calls at once. Default 4.
    pub concurrency: usize,
    /// Calls a minute; `None` is no limit.
    pub calls_per_minute: Option<u64>,
    /// Tokens a UTC day, prompts and completions; `None` is no limit.
    pub tokens_per_day: Option<u64>,
    /// What happens to samples once they are spent.
    pub when_exhausted: WhenExhausted,
    /// For one attempt. Default 60 s.
    pub timeout: Duration,
    /// How long a call is tried again. Default 15 min.
    pub retry_for: Duration,
    /// Completion tokens of one call. Default 800.
    pub max_tokens: u64,
    /// Whether it may be at a link-local or metadata address.
    pub allow_link_local: bool,
}

/// How the judge is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JudgeApi {
    /// OpenAI's chat completions, and what speaks like it.
    OpenAi,
    /// Azure OpenAI's.
    AzureOpenAi {
        /// `api-version`.
        version: String,
    },
}

/// What happens to samples once the day's tokens are spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenExhausted {
    /// They wait for the next day.
    Wait,
    /// They get no score, with the reason `budget`.
    Skip,
}

/// What is judged and computed.
#[derive(Clone, Debug)]
pub struct Evaluate {
    /// The share of the samples that the judge is asked about, 0 to 1.
    pub rate: f64,
    /// The criteria that the judge scores.
    pub criteria: Vec<Criterion>,
    /// The criteria that are computed.
    pub measures: Vec<Criterion>,
    /// The user's own.
    pub custom: Vec<CustomCriterion>,
    /// Samples older than this are left alone.
    pub lookback: Duration,
    /// Between two looks into the bucket, at least.
    pub poll: Duration,
}

/// A criterion of the user's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomCriterion {
    /// Its name: letters, digits, `-` and `_`.
    pub name: Arc<str>,
    /// Where the rubric was read.
    pub prompt_file: PathBuf,
    /// The rubric: what each score means, or when the verdict is true.
    pub prompt: Arc<str>,
    /// True or false instead of 1 to 5.
    pub boolean: bool,
    /// What a sample must have.
    pub needs: Vec<String>,
}

impl CustomCriterion {
    /// What its verdicts run over.
    pub fn scale(&self) -> Scale {
        if self.boolean { Scale::Boolean } else { Scale::Score }
    }
}

/// The keys of `judge`.
pub(super) static JUDGE: &[Key] = &[
    Key::new(
        "url",
        Url,
        Required,
        "The judge's base URL. Without a path, `/v1` is added for `openai`. Metadata and link-local \
         addresses are refused, see `allow_link_local`.",
        "https://contoso.openai.azure.com",
    ),
    Key::new(
        "api",
        Choice(&["openai", "azure_openai"]),
        Is("openai"),
        "The protocol: chat completions of OpenAI (and of servers that speak like it) or of Azure \
         OpenAI.",
        "azure_openai",
    ),
    Key::new(
        "api_version",
        Text,
        Is("2024-10-21"),
        "Azure's `api-version`; `openai` has none.",
        "2024-10-21",
    ),
    Key::new("model", Text, Required, "The model; for Azure the name of its deployment.", "gpt-4"),
    Key::new("api_key", Kind::Secret, Unset("none is sent"), "The credential.", "${JUDGE_KEY}"),
    Key::new(
        "api_key_file",
        SecretFile,
        Unset("none is sent"),
        "The file that holds `api_key`.",
        "/run/secrets/judge",
    ),
    Key::new("concurrency", Whole(1, 1024), Is("4"), "Calls to the judge at once.", "4"),
    Key::new(
        "calls_per_minute",
        Whole(1, 1_000_000),
        Unset("no limit"),
        "Calls to the judge a minute, each attempt counted.",
        "300",
    ),
    Key::new(
        "tokens_per_day",
        Whole(1, 1_000_000_000_000),
        Unset("no limit"),
        "Tokens the judge may cost in a UTC day, prompts and completions, all evaluators of the \
         bucket together. A call is made only if what it may cost at most still fits.",
        "1000000",
    ),
    Key::new(
        "when_exhausted",
        Choice(&["wait", "skip"]),
        Is("wait"),
        "Once the day's tokens are spent, samples wait for the next day, or are skipped and \
         counted with the reason `budget`.",
        "skip",
    ),
    Key::new("timeout", Time(1, 3_600_000), Is("60s"), "For one attempt of a call.", "60s"),
    Key::new(
        "retry_for",
        Time(0, DAY_MS),
        Is("15m"),
        "How long a call is tried again after 429, 5xx, timeouts and broken connections, with \
         growing waits or as `Retry-After` says. Then the score is an error with its reason.",
        "15m",
    ),
    Key::new("max_tokens", Whole(16, 100_000), Is("800"), "Completion tokens of a call.", "800"),
    Key::new(
        "allow_link_local",
        Bool,
        Is("false"),
        "Lets the judge be at a link-local or metadata address, where clouds hand out credentials.",
        "true",
    ),
];

/// The keys of `evaluate`.
pub(super) static EVALUATE: &[Key] = &[
    Key::new(
        "rate",
        Rate,
        Is("1"),
        "The share of the samples that the judge is asked about; with `judge.tokens_per_day` it may \
         be less. What is computed is computed for every sample.",
        "0.5",
    ),
    Key::new(
        "criteria",
        Choices(&["groundedness", "relevance", "coherence", "fluency", "similarity"]),
        Is("[groundedness, relevance, coherence, fluency]"),
        "What the judge scores from 1 to 5. Coherence and fluency need question and answer, \
         groundedness and relevance a context, too, similarity a ground truth.",
        "[groundedness, relevance, coherence, fluency, similarity]",
    ),
    Key::new(
        "measures",
        Choices(&[
            "f1",
            "bleu",
            "rouge_l",
            "refusal",
            "emptiness",
            "repetition",
            "json_validity",
            "context_overlap",
        ]),
        Is("[f1, bleu, rouge_l, refusal, emptiness, repetition, json_validity, context_overlap]"),
        "What is computed without a judge, each where it applies.",
        "[f1, refusal, emptiness]",
    ),
    Key::new(
        "custom",
        Maps(CUSTOM),
        Unset("none"),
        "Criteria of your own, judged by your own rubric.",
        "[{name: politeness, prompt_file: /etc/flowtap/politeness.txt}]",
    ),
    Key::new(
        "lookback",
        Time(60_000, 365 * DAY_MS),
        Is("7d"),
        "Samples older than this are left alone: what the first evaluator of a full bucket begins \
         with.",
        "7d",
    ),
    Key::new(
        "poll",
        Time(10, DAY_MS),
        Is("10s"),
        "Between two looks into the bucket, at least; a large bucket is looked into less often.",
        "10s",
    ),
];

static CUSTOM: &[Key] = &[
    Key::new("name", Name, Required, "Its name in scores and metrics.", "politeness"),
    Key::new(
        "prompt_file",
        Path,
        Required,
        "The file with the rubric: what is judged, and what each score means. At most 64 KiB.",
        "/etc/flowtap/politeness.txt",
    ),
    Key::new(
        "verdict",
        Choice(&["score", "boolean"]),
        Is("score"),
        "1 to 5, or true and false.",
        "boolean",
    ),
    Key::new(
        "needs",
        Choices(&["question", "answer", "context", "ground_truth"]),
        Is("[question, answer]"),
        "What a sample must have; the judge sees these and nothing else.",
        "[answer]",
    ),
];

/// Builds `judge`; `None` where there is none, or after a fault.
pub(super) fn build_judge(map: &Map, report: &mut Report) -> Option<Judge> {
    let api_key = map.secret("api_key", report);
    let url = map.text("url")?;
    let allow_link_local = map.bool("allow_link_local");
    let host = place::upstream(url).ok()?.host;
    if !allow_link_local && is_metadata(&host) {
        let message = format!(
            "`{}` is `{url}`: metadata and link-local addresses hand out credentials",
            map.path_of("url")
        );
        let allowed = "another address, or `allow_link_local: true`";
        report.fault(map.origin("url"), Complaint::new(message).allowed(allowed));
    }
    Some(Judge {
        url: url.trim_end_matches('/').to_owned(),
        api: match map.text("api") {
            Some("azure_openai") => {
                JudgeApi::AzureOpenAi { version: map.text("api_version")?.to_owned() }
            }
            _ => JudgeApi::OpenAi,
        },
        model: map.text("model")?.to_owned(),
        api_key,
        concurrency: map.size("concurrency"),
        calls_per_minute: map.whole("calls_per_minute"),
        tokens_per_day: map.whole("tokens_per_day"),
        when_exhausted: match map.text("when_exhausted") {
            Some("skip") => WhenExhausted::Skip,
            _ => WhenExhausted::Wait,
        },
        timeout: map.time("timeout"),
        retry_for: map.time("retry_for"),
        max_tokens: map.whole("max_tokens").unwrap_or_default(),
        allow_link_local,
    })
}

/// Builds `evaluate`; without a judge, what needs one is a fault if it was asked for.
pub(super) fn build_evaluate(map: &Map, judged: bool, report: &mut Report) -> Evaluate {
    let criterion = |name: &String| Criterion::ALL.iter().find(|of| of.label() == name).copied();
    let named = |key: &str| map.texts(key).iter().filter_map(criterion).collect::<Vec<_>>();
    for key in ["criteria", "custom"] {
        let asked = map.given(key) && (!map.texts(key).is_empty() || !map.maps(key).is_empty());
        if asked && !judged {
            let message = format!("`{}` needs a judge, and there is none", map.path_of(key));
            report
                .fault(map.origin(key), Complaint::new(message).allowed("`judge`, or none of it"));
        }
    }
    let custom: Vec<_> =
        map.maps("custom").iter().filter_map(|custom| build_custom(custom, report)).collect();
    for (at, one) in custom.iter().enumerate() {
        let taken = custom.iter().take(at).any(|other| other.name == one.name);
        if taken || Criterion::ALL.iter().any(|known| known.label() == &*one.name) {
            let message = format!("`{}` has `{}` a second time", map.path_of("custom"), one.name);
            let allowed = "names that no other criterion has";
            report.fault(map.origin("custom"), Complaint::new(message).allowed(allowed));
        }
    }
    Evaluate {
        rate: map.number("rate").unwrap_or_default(),
        criteria: if judged { named("criteria") } else { Vec::new() },
        measures: named("measures"),
        custom,
        lookback: map.time("lookback"),
        poll: map.time("poll"),
    }
}

/// `evaluate` where only `judge` is given.
pub(super) fn evaluate_by_default(report: &mut Report) -> Evaluate {
    let map = walk::walk(&Node::map(Origin::Nowhere), "evaluate", EVALUATE, report);
    build_evaluate(&map, true, report)
}

fn build_custom(map: &Map, report: &mut Report) -> Option<CustomCriterion> {
    let (name, file) = (map.text("name")?, map.path_buf("prompt_file")?);
    Some(CustomCriterion {
        name: Arc::from(name),
        prompt: Arc::from(prompt(map, &file, report)?),
        prompt_file: file,
        boolean: map.text("verdict") == Some("boolean"),
        needs: map.texts("needs"),
    })
}

fn prompt(map: &Map, file: &std::path::Path, report: &mut Report) -> Option<String> {
    let read = secret::read_bounded(file, PROMPT_BYTES_MAX);
    let why = match read.map(String::from_utf8) {
        Ok(Ok(text)) if text.trim().is_empty() => "is empty".to_owned(),
        Ok(Ok(text)) => return Some(text.trim().to_owned()),
        Ok(Err(_)) => "is not UTF-8 text".to_owned(),
        Err(why) => why,
    };
    let message = format!("`{}`: the file {why}", map.path_of("prompt_file"));
    let complaint = Complaint::new(message).allowed("the path of a text file");
    report.fault(map.origin("prompt_file"), complaint);
    None
}

/// `judge` as YAML.
pub(super) fn show_judge(judge: &Judge) -> Vec<(&'static str, Shown)> {
    let (api, version) = match &judge.api {
        JudgeApi::OpenAi => ("openai", "2024-10-21"),
        JudgeApi::AzureOpenAi { version } => ("azure_openai", version.as_str()),
    };
    vec![
        ("url", Shown::text(&judge.url)),
        ("api", Shown::text(api)),
        ("api_version", Shown::text(version)),
        ("model", Shown::text(&judge.model)),
        ("api_key", Shown::secret(judge.api_key.as_ref())),
        ("concurrency", Shown::text(judge.concurrency)),
        ("calls_per_minute", Shown::optional(judge.calls_per_minute)),
        ("tokens_per_day", Shown::optional(judge.tokens_per_day)),
        (
            "when_exhausted",
            Shown::text(match judge.when_exhausted {
                WhenExhausted::Wait => "wait",
                WhenExhausted::Skip => "skip",
            }),
        ),
        ("timeout", Shown::text(show_time(judge.timeout))),
        ("retry_for", Shown::text(show_time(judge.retry_for))),
        ("max_tokens", Shown::text(judge.max_tokens)),
        ("allow_link_local", Shown::text(judge.allow_link_local)),
    ]
}

/// `evaluate` as YAML.
pub(super) fn show_evaluate(evaluate: &Evaluate, judged: bool) -> Vec<(&'static str, Shown)> {
    let labels = |criteria: &[Criterion]| {
        Shown::List(criteria.iter().map(|criterion| criterion.label().to_owned()).collect())
    };
    let mut shown = vec![("rate", Shown::text(evaluate.rate))];
    if judged {
        shown.push(("criteria", labels(&evaluate.criteria)));
    }
    shown.push(("measures", labels(&evaluate.measures)));
    let custom: Vec<_> = evaluate.custom.iter().map(show_custom).collect();
    shown.push(("custom", if custom.is_empty() { Shown::Unset } else { Shown::Maps(custom) }));
    shown.push(("lookback", Shown::text(show_time(evaluate.lookback))));
    shown.push(("poll", Shown::text(show_time(evaluate.poll))));
    shown
}

fn show_custom(custom: &CustomCriterion) -> Vec<(&'static str, Shown)> {
    vec![
        ("name", Shown::text(&custom.name)),
        ("prompt_file", Shown::text(custom.prompt_file.display())),
        ("verdict", Shown::text(if custom.boolean { "boolean" } else { "score" })),
        ("needs", Shown::List(custom.needs.clone())),
    ]
}
