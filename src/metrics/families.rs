//! Every Prometheus family: its name, unit, labels, what it says, and what to do when it moves.
//! docs/METRICS.md is made from this table.

use super::registry::Spec;
use crate::domain::semconv::{label, metric};

/// The labels that the `gen_ai_*` families share; the tap and the deployment tell where.
const GEN_AI: [&str; 7] = [
    "tap",
    "deployment",
    label::OPERATION_NAME,
    label::PROVIDER_NAME,
    label::REQUEST_MODEL,
    label::RESPONSE_MODEL,
    label::ERROR_TYPE,
];

const SECONDS: &str = "seconds";
const BYTES: &str = "bytes";
const TOKENS: &str = "tokens";
const COUNT: &str = "";

macro_rules! families {
    ($($name:ident[$count:literal] = $full:expr, $unit:expr, $labels:expr,
        $help:literal, $advice:literal;)+) => {
        $(pub(super) const $name: Spec<$count> =
            Spec { name: $full, unit: $unit, labels: $labels, help: $help, advice: $advice };)+
    };
}

// What passed through a tap.
families! {
    REQUESTS[6] = "flowtap_requests_total", COUNT,
        ["tap", "deployment", "model", "operation", "status", "outcome"],
        "Exchanges that ended, all of them, whether or not anything else is known of them.",
        "The rate, and its share of outcomes other than ok, are the health: alert on those.";
    REQUEST_DURATION[2] = "flowtap_request_duration_seconds", SECONDS, ["tap", "outcome"],
        "Time to the last byte of every exchange, health checks and the like included.",
        "For inference alone read gen_ai_server_request_duration_seconds.";
    OVERHEAD[1] = "flowtap_overhead_seconds", SECONDS, ["tap"],
        "Time that flowtap itself spent on the heads of a request and its response.",
        "Above a millisecond the process lacks CPU: raise its limit, or traffic.threads.";
    IN_FLIGHT[1] = "flowtap_in_flight_requests", COUNT, ["tap"],
        "Exchanges under way now.",
        "Growth without a growing request rate means the upstream has slowed.";
    CONNECTIONS[1] = "flowtap_client_connections", COUNT, ["tap"],
        "Open connections from clients.",
        "Near limits.connections_max new clients wait: raise it, or find who leaks connections.";
    REJECTED[2] = "flowtap_rejected_requests_total", COUNT, ["tap", "reason"],
        "Malformed requests that flowtap refused by itself.",
        "A client sends broken HTTP, or someone probes: the log names the fault.";
    UPSTREAM_CONNECTS[2] = "flowtap_upstream_connects_total", COUNT, ["tap", "result"],
        "Attempts to connect to the upstream, by result.",
        "Results other than ok: the upstream is down, or its name or certificate is wrong.";
    RETRIES[1] = "flowtap_retries_total", COUNT, ["tap"],
        "Requests sent again on a fresh connection because a kept one had gone stale: it took no byte, or was closed before the request came there, or the request was safe to repeat and not answered.",
        "Frequent: lower timeouts.pool_idle below the upstream's own keep-alive time.";
    ATTESTED[1] = "flowtap_attested_total", COUNT, ["tap"],
        "Exchanges of which a digest of the bodies as they came was held against one of what was sent: one of 64 on the express way.",
        "It stands still where requests go hyper's way (HTTP/2, chunks): their bodies are not attested.";
    ALTERED[2] = "flowtap_bytes_altered_total", COUNT, ["tap", "direction"],
        "Attested bodies that did not pass as they came.",
        "Always 0: anything else is a fault of flowtap. Take it out of the way and tell us.";
    INFORMATIONAL_DROPPED[1] = "flowtap_informational_dropped_total", COUNT, ["tap"],
        "Interim answers (1xx) that did not go to the client: its protocol has none, or 64 KiB of them wait for it.",
        "Harmless: a documented deviation.";
}

// In the words of the semantic conventions.
families! {
    GEN_AI_DURATION[7] = metric::REQUEST_DURATION, SECONDS, GEN_AI,
        "Time to the last byte of an inference.",
        "Compare deployments by its quantiles; failures carry error_type.";
    GEN_AI_FIRST_TOKEN[7] = metric::TIME_TO_FIRST_TOKEN, SECONDS, GEN_AI,
        "Time to the first content of a successful streamed answer; the first byte does not count.",
        "What users feel: rising means a queue in front of the model, or longer prompts.";
    GEN_AI_OUTPUT_TOKEN[7] = metric::TIME_PER_OUTPUT_TOKEN, SECONDS, GEN_AI,
        "Time per output token after the first, of successful streamed answers.",
        "Rising means that the model itself is overloaded.";
    GEN_AI_TOKENS[8] = metric::TOKEN_USAGE, TOKENS,
        ["tap", "deployment", label::OPERATION_NAME, label::PROVIDER_NAME, label::REQUEST_MODEL,
         label::RESPONSE_MODEL, label::ERROR_TYPE, label::TOKEN_TYPE],
        "Tokens of one inference; nothing is recorded where they are unknown.",
        "A shift of the input side to higher buckets means that prompts have grown.";
}

// Tokens.
families! {
    TOKENS_SPENT[5] = "flowtap_tokens_total", TOKENS,
        ["tap", "deployment", "model", "type", "source"],
        "Tokens spent; type is input (cached ones included) or output (reasoning included).",
        "Cost: rate by model and type. A growing share of source estimated makes it less exact.";
    CACHED_INPUT[3] = "flowtap_cached_input_tokens_total", TOKENS, ["tap", "deployment", "model"],
        "The part of the input tokens that came from the provider's cache.",
        "A falling share of the input means that prompts lost their common beginning.";
    REASONING_OUTPUT[3] = "flowtap_reasoning_output_tokens_total", TOKENS,
        ["tap", "deployment", "model"],
        "The part of the output tokens that was reasoning.",
        "Paid for but not shown to users: weigh it against the answers' quality.";
    USAGE_UNKNOWN[3] = "flowtap_usage_unknown_total", COUNT, ["tap", "deployment", "model"],
        "Inferences answered with 2xx of whose tokens nothing is known.",
        "Put a tap before the flow's model endpoint too, or set include_usage: inject.";
    LABEL_OVERFLOW[1] = "flowtap_label_overflow_total", COUNT, ["label"],
        "Names shown as `other` because a table of labels was full or the name was not acceptable.",
        "Raise metrics.models_max or metrics.deployments_max if the names are real.";
}

// What became of the observations.
families! {
    SAMPLES[2] = "flowtap_samples_total", COUNT, ["tap", "reason"],
        "Exchanges kept as samples, by the rule that kept them.",
        "Far from the configured rate over many requests: read flowtap_dropped_total.";
    DROPPED[2] = "flowtap_dropped_total", COUNT, ["stage", "reason"],
        "Observations lost, by where and why; traffic was not touched.",
        "Alert on any growth: full means too slow a disk or CPU, quota or disk_full means no room.";
    PANICS[1] = "flowtap_panics_total", COUNT, ["hook"],
        "Panics contained in code that only observes.",
        "A defect of flowtap: report it with the log line of the same hook.";
    JOIN[1] = "flowtap_join_total", COUNT, ["result"],
        "Calls to models that name the request they are made for, by what became of them.",
        "late or evicted: raise join.wait or join.requests_max; orphan: no tap before that flow.";
    SPANS_TOLD[1] = "flowtap_spans_told_total", COUNT, ["result"],
        "Spans that collector received, by what became of them; joined ones count once their record is made.",
        "late: raise join.spans_wait; orphan: their requests pass no tap, or bear another id.";
    REDACTIONS[1] = "flowtap_redactions_total", COUNT, ["kind"],
        "Pieces of text that were replaced before anything was stored, by kind.",
        "A jump of kind secret: some client puts credentials into prompts.";
    READING_FAULTS[3] = "flowtap_reading_faults_total", COUNT, ["tap", "dialect", "fault"],
        "Exchanges that the dialect could not fully understand.",
        "Check the tap's dialect and columns against what the upstream really sends.";
    QUEUE_DEPTH[1] = "flowtap_queue_depth", COUNT, ["queue"],
        "Items that wait in a bounded queue.",
        "Near its limit the next thing is a drop: find the stage behind it that lags.";
    CAPTURE_BYTES[0] = "flowtap_capture_bytes", BYTES, [],
        "Memory held by captured bodies now.",
        "Near capture.memory_bytes_max bodies are cut: raise it, or lower body_bytes_max.";
    CAPTURE_TRUNCATED[1] = "flowtap_capture_truncated_total", COUNT, ["tap"],
        "Exchanges of which a body was captured only in part.",
        "Raise capture.body_bytes_max if samples must be whole.";
    MEMORY_LIMIT[0] = "flowtap_memory_limit_bytes", BYTES, [],
        "What the process may take of memory (capture.process_bytes_max, or its control group's limit); 0 where there is none.",
        "Compare flowtap_memory_used_bytes with it.";
    MEMORY_USED[0] = "flowtap_memory_used_bytes", BYTES, [],
        "What it takes of that, without files that the kernel can let go of.",
        "From 60% of the limit on less is looked at: raise the limit, or find what grew.";
    CAPTURE_LEVEL[1] = "flowtap_capture_level", COUNT, ["cause"],
        "How much is looked at, as each cause asks: 0 full, 1 headers, 2 metrics, 3 off.",
        "Above 0 for memory: raise the memory limit; for overhead: give it more CPU.";
    CAPTURE_SHED[2] = "flowtap_capture_shed_total", COUNT, ["level", "cause"],
        "Exchanges of which less than all was looked at, to spare the host; traffic was not touched.",
        "As flowtap_capture_level.";
}

// On the way to the bucket.
families! {
    SPOOL_BYTES[0] = "flowtap_spool_bytes", BYTES, [],
        "Bytes on the local disk that the bucket does not have yet.",
        "Growing towards spool.bytes_max: the bucket is slow or away.";
    SPOOL_SEGMENTS[0] = "flowtap_spool_segments", COUNT, [],
        "Segments on the local disk.",
        "As flowtap_spool_bytes.";
    SPOOL_UNSYNCED[0] = "flowtap_spool_unsynced_seconds", SECONDS, [],
        "How long the oldest row of each fsync had waited for it: what a power cut would have cost.",
        "Far above spool.sync: the disk is slow.";
    ARCHIVE_OLDEST[0] = "flowtap_archive_oldest_seconds", SECONDS, [],
        "Age of the oldest record that the bucket does not have yet.",
        "Alert above an hour: uploads fail or lag.";
    ARCHIVE_OBJECTS[1] = "flowtap_archive_objects_total", COUNT, ["dataset"],
        "Objects stored in the bucket, each verified.",
        "No growth under traffic: read flowtap_archive_failures_total.";
    ARCHIVE_BYTES[1] = "flowtap_archive_bytes_total", BYTES, ["dataset"],
        "Bytes stored in the bucket, compressed.",
        "The bucket's growth: plan its retention by it.";
    ARCHIVE_FAILURES[1] = "flowtap_archive_failures_total", COUNT, ["kind"],
        "Uploads that failed; each is tried again.",
        "Refused access needs new credentials; most of the rest heals by itself.";
    BREAKER_OPEN[0] = "flowtap_archive_breaker_open", COUNT, [],
        "1 while uploads pause because the bucket kept failing, else 0.",
        "Open for long: the bucket is unreachable; the spool holds what fits its quota.";
    UNACCOUNTED[0] = "flowtap_unaccounted_seconds", SECONDS, [],
        "Window before this start for which records may be missing; 0 after a clean stop.",
        "The process was killed: the ledger names the window.";
    SPANS_EXPORTED[0] = "flowtap_spans_exported_total", COUNT, [],
        "Spans that the collector accepted.",
        "No growth with trace.otlp_endpoint set: read flowtap_spans_dropped_total.";
    SPANS_DROPPED[0] = "flowtap_spans_dropped_total", COUNT, [],
        "Spans lost because the queue was full or the collector refused or failed.",
        "Check the collector; traffic and samples do not depend on it.";
}

// What the evaluator does.
families! {
    SCORES[3] = "flowtap_scores_total", COUNT, ["deployment", "criterion", "score"],
        "Scores, 1 (worst) to 5 (best), of judges and of users; errors are not among them.",
        "A growing share of 1 and 2: read those samples.";
    MEASURES[2] = "flowtap_measure_ratio", COUNT, ["deployment", "criterion"],
        "Computed criteria, 0 to 1, and the verdicts of custom criteria that are true (1) or false (0).",
        "A jump of refusal, emptiness or repetition shows before any judge has spoken.";
    SCORE_ERRORS[2] = "flowtap_score_errors_total", COUNT, ["criterion", "reason"],
        "Judgements and feedback without a score, by why; missing_* means not applicable.",
        "missing_context: check the tap's columns. unparsable: the model is too small to judge. \
         unknown_exchange: feedback came too late, at another replica, or names no request.";
    EVALUATED[1] = "flowtap_evaluate_samples_total", COUNT, ["result"],
        "Samples the evaluator is done with; each evaluated one has one row for each criterion.",
        "not_drawn: evaluate.rate or the budget passed over it. unreadable, set_aside (it panicked): the log names the object and the sample.";
    INJECTION_SUSPECTS[0] = "flowtap_injection_suspects_total", COUNT, [],
        "Samples whose text looks as if it tried to talk the judge into something.",
        "Look at them: scores with injection_suspect name the exchange.";
    JUDGE_TOKENS[1] = "flowtap_judge_tokens_total", TOKENS, ["type"],
        "Tokens that judging cost; estimated where the judge reports none.",
        "The evaluator's bill; judge.tokens_per_day bounds it.";
    JUDGE_ATTEMPTS[1] = "flowtap_judge_attempts_total", COUNT, ["result"],
        "Requests to the judge, by how they ended.",
        "Many rate_limited: lower judge.concurrency or set judge.calls_per_minute.";
    JUDGE_DURATION[0] = "flowtap_judge_duration_seconds", SECONDS, [],
        "How long requests to the judge took.",
        "Rising: the judge is overloaded; evaluation lags, traffic does not.";
    JUDGE_TOKENS_PER_DAY[0] = "flowtap_judge_tokens_per_day", TOKENS, [],
        "The budget of a UTC day; 0 is no limit.",
        "As configured.";
    JUDGE_TOKENS_TODAY[0] = "flowtap_judge_tokens_today", TOKENS, [],
        "Tokens of today's budget that are spent or set aside, by all evaluators of the bucket.",
        "At the limit: samples wait for tomorrow or are skipped; lower evaluate.rate or raise it.";
    JUDGE_BUDGET_EXHAUSTED[0] = "flowtap_judge_budget_exhausted", COUNT, [],
        "1 while today's tokens leave no room for a call: samples wait or are skipped.",
        "Lower evaluate.rate, or raise judge.tokens_per_day.";
    OLDEST_UNSCORED[0] = "flowtap_evaluate_oldest_unscored_seconds", SECONDS, [],
        "Age of the oldest stored sample that waits to be evaluated; 0 where none waits.",
        "Alert above an hour: the judge is down, too slow, or its budget is spent.";
    EVALUATE_OBJECTS[1] = "flowtap_evaluate_objects", COUNT, ["state"],
        "Objects of exchanges/ without all their scores: waiting, too_old for evaluate.lookback, or set_aside.",
        "Growing: the judge is slower than the samples; lower evaluate.rate.";
    JUDGE_DRIFT[0] = "flowtap_judge_drift", COUNT, [],
        "1 while the judge fails its own test: two samples of known quality, at start and daily.",
        "Scores are stored with judge_drift and should not be trusted; look at the model.";
    EVALUATE_FAILURES[1] = "flowtap_evaluate_failures_total", COUNT, ["kind"],
        "Failures of the bucket that the evaluator met; the work is tried again.",
        "As flowtap_archive_failures_total.";
    ANNOUNCEMENTS_LOST[0] = "flowtap_announcements_lost_total", COUNT, [],
        "New objects that no evaluator was told of: it finds them when it next looks into the bucket.",
        "Harmless but for the delay; with a queue configured, look whether it can be reached.";
}

// The index of the bucket.
families! {
    INGEST_OBJECTS[1] = "flowtap_ingest_objects_total", COUNT, ["dataset"],
        "Objects of the bucket that were read into the store.",
        "No growth while the bucket grows: read flowtap_ingest_failures_total.";
    INGEST_ROWS[1] = "flowtap_ingest_rows_total", COUNT, ["dataset"],
        "Lines that were new to the store.",
        "Its rate is how fast an index is made anew.";
    INGEST_QUARANTINED[2] = "flowtap_ingest_quarantined_total", COUNT, ["dataset", "reason"],
        "Lines and whole objects of the bucket that could not be understood; the rest was read.",
        "The API's health names them: damaged in the bucket, or written by something else.";
    INGEST_FAILURES[1] = "flowtap_ingest_failures_total", COUNT, ["kind"],
        "Looks through the bucket that failed; each is tried again.",
        "Refused access needs the right to list and read; database is the store's own disk.";
    INGEST_BEHIND[0] = "flowtap_ingest_behind_seconds", SECONDS, [],
        "Age of the last look after which the store had all that the bucket had.",
        "Growing: the bucket cannot be read, or more comes than is read.";
    STORE_BYTES[0] = "flowtap_store_bytes", BYTES, [],
        "Bytes that the index takes on the disk.",
        "Near store.retention.bytes_max the oldest hours are forgotten.";
    STORE_READS[1] = "flowtap_store_reads_total", COUNT, ["result"],
        "Questions of the page and the API to the store, by what came of them.",
        "late: shorter windows, or fewer readers at once; failed: the log says why.";
}

// Monitors and alerts.
families! {
    MONITOR_STATE[3] = "flowtap_monitor_state", COUNT, ["monitor", "signal", "metric"],
        "The verdict of the last run on a threshold: 0 ok, 1 violated, 2 not enough data.",
        "1: the run's result under monitors/ tells how far and how sure. 2 for long: sample more.";
    VIOLATIONS[3] = "flowtap_violations_total", COUNT, ["monitor", "signal", "metric"],
        "Runs that found the threshold violated.",
        "Grows with every run while a violation lasts.";
    MONITOR_RUNS[2] = "flowtap_monitor_runs_total", COUNT, ["monitor", "result"],
        "Runs by result: a state, taken where another hub made it, else why it failed.",
        "A reason that grows: the bucket cannot be read; no growth at all: read the schedule.";
    MONITOR_UNREADABLE[1] = "flowtap_monitor_unreadable_total", COUNT, ["monitor"],
        "Objects of the bucket that a run left out because it could not read them.",
        "The log names each; look at what wrote it.";
    ALERTS[2] = "flowtap_alerts_total", COUNT, ["target", "result"],
        "Messages by target and result: delivered, failed (deadline passed), refused, dropped.",
        "Anything but delivered: nobody was told. The log says why.";
}

// What is sent to the collector's endpoints.
families! {
    COLLECTOR_POSTS[2] = "flowtap_collector_posts_total", COUNT, ["protocol", "result"],
        "Posts to the endpoints of collector, by protocol and by how they were answered.",
        "Results other than accepted tell what senders do wrong; busy means more than we can take.";
    COLLECTOR_SPANS[2] = "flowtap_collector_spans_total", COUNT, ["protocol", "result"],
        "Spans in those posts: taken or, because they are no valid spans, refused.",
        "refused: the log names the fault; the sender was told, too.";
}

// The webhook.
families! {
    INJECTIONS[1] = "flowtap_injections_total", COUNT, ["result"],
        "Reviews of the admission webhook, by what became of the pod.",
        "refused: a pod asked for a sidecar that it cannot get; its events tell why.";
}

// The process.
families! {
    BUILD_INFO[1] = "flowtap_build_info", COUNT, ["version"],
        "1, with the running version as a label.",
        "Shows which replicas run which version.";
    PROCESS_CPU[0] = "process_cpu_seconds_total", SECONDS, [],
        "User and system CPU time spent.",
        "Its rate is the cores in use.";
    PROCESS_RSS[0] = "process_resident_memory_bytes", BYTES, [],
        "Resident memory.",
        "Near the container's limit: lower capture.memory_bytes_max.";
    PROCESS_VIRTUAL[0] = "process_virtual_memory_bytes", BYTES, [],
        "Virtual memory.",
        "Of interest only beside the resident memory.";
    PROCESS_FDS[0] = "process_open_fds", COUNT, [],
        "Open file descriptors.",
        "Near process_max_fds connections will fail: raise the limit.";
    PROCESS_FDS_MAX[0] = "process_max_fds", COUNT, [],
        "Limit of open file descriptors.",
        "Should be over twice the expected connections.";
    PROCESS_THREADS[0] = "process_threads", COUNT, [],
        "Threads of the process.",
        "Constant after the start; growth is a defect.";
    PROCESS_START[0] = "process_start_time_seconds", SECONDS, [],
        "Start of the process, in seconds since the Unix epoch.",
        "Changes mean restarts.";
}
