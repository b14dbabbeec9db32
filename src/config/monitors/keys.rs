//! The tables of `monitors`.

use super::super::kind::Kind::{
    Bool, Choice, Choices, Cron, DateTime, DottedName, Emails, Map as MapOf, Maps, Name, Number,
    Rate, Span as SpanOf, Text, Time, TimeZone, Whole, Wholes,
};
use super::super::table::Default::{self, Is, Required, Unset};
use super::super::table::Key;

const DAY_MS: u64 = 86_400_000;
/// Tokens of a window: far beyond any bill.
const TOKENS_MAX: u64 = 1_000_000_000_000_000;
const NO_LIMIT: Default = Unset("no threshold");

/// The keys of one monitor.
pub(in crate::config) static KEYS: &[Key] = &[
    Key::new(
        "name",
        Name,
        Required,
        "The label `monitor` in metrics and results. No two monitors share one.",
        "daily",
    ),
    Key::new(
        "schedule",
        Cron,
        Unset("`recurrence` says when"),
        "When it runs: minute, hour, day of the month, month, day of the week.",
        "\"15 10 * * *\"",
    ),
    Key::new(
        "recurrence",
        MapOf(RECURRENCE),
        Unset("`schedule` says when"),
        "When it runs, instead of `schedule`: every so many minutes, hours, days, weeks or months.",
        "{frequency: day, interval: 1, hours: [10], minutes: [15]}",
    ),
    Key::new(
        "time_zone",
        TimeZone,
        Is("UTC"),
        "The zone of `schedule`, `recurrence` and of days in windows.",
        "Europe/Berlin",
    ),
    Key::new("window", SpanOf, Is("P7D"), "How long the look-back window is.", "P7D"),
    Key::new("offset", SpanOf, Is("P0D"), "How long before the run the window ends.", "PT1H"),
    Key::new(
        "step",
        SpanOf,
        Is("P1D"),
        "Violations are counted by steps of this length, from the window's end backwards; a window \
         shorter than this is one step.",
        "P1D",
    ),
    Key::new("tap", Name, Unset("all taps"), "Looks at one tap only.", "chat"),
    Key::new(
        "deployment",
        DottedName,
        Unset("all deployments"),
        "Looks at one deployment only.",
        "blue",
    ),
    Key::new(
        "model",
        Text,
        Unset("all models"),
        "Looks at one model only, as it is named in metrics. Scores know no model and are not \
         limited by it.",
        "gpt-4",
    ),
    Key::new(
        "method",
        Choice(&["anytime", "plain"]),
        Is("anytime"),
        "How figures are compared with thresholds: `anytime` by a test that stays valid however \
         often it is made; `plain` by the bare figure, as Azure does.",
        "plain",
    ),
    Key::new(
        "samples_min",
        Whole(1, 1_000_000),
        Is("30"),
        "Below so many effective samples the state is `not_enough_data`, unless a violation is \
         proven. `plain` asks for one.",
        "30",
    ),
    Key::new(
        "signals",
        MapOf(SIGNALS),
        Required,
        "What is computed; at least one.",
        "{operations: {error_rate_max: 0.01}}",
    ),
    Key::new(
        "emails",
        Emails,
        Is("[]"),
        "Who gets this monitor's e-mails instead of `alerts.email.to`.",
        "[ops@example.com]",
    ),
];

static RECURRENCE: &[Key] = &[
    Key::new(
        "frequency",
        Choice(&["minute", "hour", "day", "week", "month"]),
        Required,
        "The unit of `interval`.",
        "day",
    ),
    Key::new("interval", Whole(1, 10_000), Is("1"), "How many units lie between two runs.", "1"),
    Key::new(
        "hours",
        Wholes(0, 23),
        Is("[]"),
        "Of days, weeks and months; none is the hour of `start`, else 0.",
        "[10]",
    ),
    Key::new(
        "minutes",
        Wholes(0, 59),
        Is("[]"),
        "Of days, weeks and months; none is the minute of `start`, else 0.",
        "[15]",
    ),
    Key::new(
        "week_days",
        Choices(&["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]),
        Is("[]"),
        "Of weeks; none is the day of `start`, else Monday.",
        "[monday, friday]",
    ),
    Key::new(
        "month_days",
        Wholes(1, 31),
        Is("[]"),
        "Of months; none is the day of `start`, else the first.",
        "[1, 15]",
    ),
    Key::new(
        "start",
        DateTime,
        Unset("intervals are counted from Monday, 5 January 1970, 0:00"),
        "What intervals are counted from, in `time_zone`; nothing is due before it.",
        "2026-11-23T10:15:00",
    ),
];

pub(super) static SIGNALS: &[Key] = &[
    Key::new(
        "generation_quality",
        MapOf(QUALITY),
        Unset("not computed"),
        "Scores by criterion: average and share that passes.",
        "{pass_rate: {groundedness: 0.7}, average: {fluency: 4}}",
    ),
    Key::new(
        "token_statistics",
        MapOf(TOKENS),
        Unset("not computed"),
        "Tokens of all requests.",
        "{total_tokens_max: 50000000}",
    ),
    Key::new(
        "operations",
        MapOf(OPERATIONS),
        Unset("not computed"),
        "Requests, errors and latency of all requests.",
        "{error_rate_max: 0.01, latency_p95_max: 10s}",
    ),
];

const ALERT: Key = Key::new(
    "alert",
    Bool,
    Is("true"),
    "Whether violations of this signal are told to anybody.",
    "false",
);

static QUALITY: &[Key] = &[
    ALERT,
    Key::new("pass_score", Whole(1, 5), Is("3"), "The lowest score that passes.", "3"),
    Key::new(
        "pass_scores",
        MapOf(PASS_SCORES),
        Is("{}"),
        "The lowest score that passes, for criteria that have one of their own.",
        "{fluency: 4}",
    ),
    Key::new(
        "pass_rate",
        MapOf(PASS_RATES),
        Is("{}"),
        "The least share of answers that passes.",
        "{groundedness: 0.7, relevance: 0.7}",
    ),
    Key::new("average", MapOf(AVERAGES), Is("{}"), "The least average score.", "{fluency: 4}"),
    Key::new(
        "limits",
        Maps(LIMITS),
        Unset("none"),
        "Limits of computed criteria and of `evaluate.custom` ones, each on its own scale.",
        "[{criterion: refusal, at_most: 0.05}, {criterion: politeness, at_least: 4}]",
    ),
];

static LIMITS: &[Key] = &[
    Key::new("criterion", Name, Required, "A computed or a custom criterion.", "refusal"),
    Key::new(
        "scale",
        Choice(&["score", "boolean"]),
        Is("score"),
        "The scale of a custom criterion, as its `verdict`; computed ones have their own.",
        "boolean",
    ),
    Key::new(
        "at_least",
        Number(0.0, 5.0),
        NO_LIMIT,
        "The least average: 1 to 5 for scores; else 0 to 1, for true and false the share that is \
         true.",
        "4",
    ),
    Key::new("at_most", Number(0.0, 5.0), NO_LIMIT, "The largest average.", "0.05"),
    Key::new("pass_rate", Rate, NO_LIMIT, "The least share of scores that passes.", "0.8"),
];

macro_rules! criteria {
    ($kind:expr, $default:expr, $doc:literal, $example:literal) => {
        &[
            Key::new("groundedness", $kind, $default, $doc, $example),
            Key::new("relevance", $kind, $default, $doc, $example),
            Key::new("coherence", $kind, $default, $doc, $example),
            Key::new("fluency", $kind, $default, $doc, $example),
            Key::new("similarity", $kind, $default, $doc, $example),
            Key::new("user_feedback", $kind, $default, $doc, $example),
        ]
    };
}

static PASS_SCORES: &[Key] =
    criteria!(Whole(1, 5), Unset("`pass_score`"), "The lowest score that passes.", "4");
static PASS_RATES: &[Key] = criteria!(Rate, NO_LIMIT, "The least share that passes.", "0.7");
static AVERAGES: &[Key] = criteria!(Number(1.0, 5.0), NO_LIMIT, "The least average, 1 to 5.", "4");

static TOKENS: &[Key] = &[
    ALERT,
    Key::new(
        "prompt_tokens_max",
        Whole(1, TOKENS_MAX),
        NO_LIMIT,
        "Prompt tokens in the window.",
        "40000000",
    ),
    Key::new(
        "completion_tokens_max",
        Whole(1, TOKENS_MAX),
        NO_LIMIT,
        "Completion tokens in the window.",
        "10000000",
    ),
    Key::new(
        "total_tokens_max",
        Whole(1, TOKENS_MAX),
        NO_LIMIT,
        "All tokens in the window.",
        "50000000",
    ),
    Key::new(
        "total_tokens_per_group_max",
        Whole(1, TOKENS_MAX),
        NO_LIMIT,
        "Tokens in the window of any one group of tap, deployment and model.",
        "20000000",
    ),
];

static OPERATIONS: &[Key] = &[
    ALERT,
    Key::new(
        "error_rate_max",
        Rate,
        NO_LIMIT,
        "The largest share of outcomes other than `ok`.",
        "0.01",
    ),
    Key::new("latency_p50_max", Time(1, DAY_MS), NO_LIMIT, "The median's limit.", "2s"),
    Key::new("latency_p95_max", Time(1, DAY_MS), NO_LIMIT, "The 95th percentile's limit.", "10s"),
    Key::new("latency_p99_max", Time(1, DAY_MS), NO_LIMIT, "The 99th percentile's limit.", "30s"),
    Key::new(
        "requests_min",
        Whole(1, TOKENS_MAX),
        NO_LIMIT,
        "The fewest requests in the window: silence is a fault, too.",
        "1",
    ),
];
