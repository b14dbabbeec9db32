// What the API answers, in the shapes of /api/v1/openapi.json, and how it is asked.
import { get } from "./load";
import type { Place } from "./route";
import { between, read, type Between } from "./window";

export interface Quantiles {
  count: number;
  mean: number | null;
  p50: number | null;
  p95: number | null;
  p99: number | null;
}

export interface Bin {
  from: number;
  to: number;
  count: number;
}

export interface Tokens {
  requests: number;
  input: number;
  output: number;
  total: number;
  cached_input: number;
  reasoning_output: number;
}

/** Requests, and how they ended. */
export interface Requests {
  requests: number;
  errors: number;
  error_rate: number | null;
  by_outcome: Record<string, number>;
}

export interface Overview {
  requests: Requests;
  by_tap: Record<string, number>;
  tokens: Tokens;
  usage_unknown: number;
  latency_ms: Quantiles;
  first_token_ms: Quantiles;
  quality: Judged[];
  open_alerts: number;
  names: { taps: string[]; deployments: string[]; models: string[] };
  /** Since when the index has had all that the bucket has; `null` before it ever had. */
  caught_up: string | null;
}

/** Tokens of a span of time, of a group, or of both. */
export interface Spent {
  time?: string;
  group: string | null;
  requests: number;
  usage_unknown: number;
  tokens: Tokens;
}

export interface Usage extends Omit<Spent, "time" | "group"> {
  step_seconds: number;
  by_source: Record<string, Tokens>;
  groups: Spent[];
  series: (Spent & { time: string })[];
  input_tokens: Quantiles & { bins: Bin[] };
  output_tokens: Quantiles & { bins: Bin[] };
}

/** Requests of a span of time or of a group. */
export interface Served extends Requests {
  time?: string;
  group?: string | null;
  requests_per_second: number;
  latency_ms: Quantiles;
  first_token_ms: Quantiles;
}

export interface Operations {
  step_seconds: number;
  total: Served;
  groups: Served[];
  series: (Served & { time: string })[];
}

/** The criteria with scores from 1 to 5 that everybody has: samples are found and sorted by them. */
export const RATED = ["groundedness", "relevance", "coherence", "fluency", "similarity", "user_feedback"];

/** What a figure runs over: 1 to 5, 0 to 1, or false and true. */
export type Scale = "score" | "ratio" | "boolean";

/** What was given by one criterion; `scores`, of 1 to 5 alone, apart by the probability that they stand for. */
export interface Judged {
  time?: string;
  criterion: string;
  scale: Scale;
  group: string | null;
  count: number;
  failed: number;
  /** Given by a judge that had failed its own test: part of no figure. */
  drifted: number;
  effective: number;
  average: number | null;
  average_interval: [number, number] | null;
  pass_rate: number | null;
  violations: number | null;
  scores: { score: number; probability: number; count: number }[];
}

export interface Quality {
  step_seconds: number;
  pass_score: number;
  criteria: Judged[];
  groups: Judged[];
  series: (Judged & { time: string })[];
}

/** What the address says is looked at. */
export function scope(place: Place, names = ["tap", "deployment", "model", "outcome"]): Record<string, string> {
  const asked: Record<string, string> = {};
  for (const name of names) {
    const value = place.query.get(name);
    if (value) asked[name] = value;
  }
  return asked;
}

/** A window as the API takes it. */
export const moments = ({ from, to }: Between) => ({ from: from.toISOString(), to: to.toISOString() });

/** The window that an address tells, as it is now. */
export const windowOf = (place: Place) => between(read(place.query));

/** Asks for something of the window and the scope of an address. */
export const inWindow = <T>(path: string, place: Place, more: Record<string, string | number | undefined> = {}, signal?: AbortSignal) =>
  get<T>(path, { ...moments(windowOf(place)), ...scope(place), ...more }, signal);

/** What a list shows of a sample. */
export interface Brief {
  id: string;
  time: string;
  tap: string;
  deployment: string;
  model: string;
  operation: string;
  outcome: string;
  stream: boolean;
  status: number | null;
  latency_ms: number;
  first_token_ms: number | null;
  usage: { input: number | null; output: number | null; total: number | null; source: string | null };
  sample: { reason: string; probability: number };
  question: string | null;
  answer: string | null;
  scores: Record<string, number>;
}

export interface SamplePage {
  samples: Brief[];
  /** The cursor of the page after this one. */
  next: string | null;
}

/** One side of an exchange. */
export interface Message {
  headers: Record<string, string>;
  body: unknown;
  bytes: number;
  truncated: boolean;
}

/** One call that a flow made to a model. */
export interface Call {
  model: string | null;
  deployment: string | null;
  input: number | null;
  output: number | null;
  source: string | null;
  latency_ms: number;
  status: number | null;
}

/** A line of `exchanges/`, as the bucket has it; docs/RECORD.md tells its fields. */
export interface RecordLine {
  id: string;
  time: string;
  tap: string;
  deployment: string;
  instance: string;
  dialect: string;
  operation: string;
  method: string;
  path: string;
  status: number | null;
  outcome: string;
  fault: string | null;
  model: { request: string | null; response: string | null };
  stream: boolean;
  latency_ms: number;
  first_byte_ms: number | null;
  first_token_ms: number | null;
  overhead_us: number;
  usage: { input: number | null; output: number | null; total: number | null; cached_input: number | null; reasoning_output: number | null; source: string | null };
  calls: Call[];
  question: unknown;
  answer: unknown;
  context: unknown;
  ground_truth: unknown;
  chat_history: unknown;
  request: Message;
  response: Message;
  trace_id: string | null;
  request_id: string | null;
  redactions: Record<string, number>;
  sample: { reason: string; probability: number };
}

/** What a judge or a user said of one sample by one criterion. */
export interface ScoreLine {
  id: string;
  criterion: string;
  scale: Scale;
  time: string;
  score: number | null;
  value: number | null;
  error: string | null;
  reason: string | null;
  probability: number;
  judge: { model: string; prompt: string } | null;
  injection_suspect: boolean;
  judge_drift: boolean;
}

export interface OneSample {
  sample: Brief;
  /** `null` where the bucket no longer has it; `missing` then says why. */
  record: RecordLine | null;
  missing: string | null;
  object: string;
  line: number;
  scores: ScoreLine[];
  trace_parts: number;
}

/** A step of a flow. */
export interface Span {
  span_id: string;
  parent_span_id: string | null;
  name: string;
  kind: string;
  source: string;
  start: string;
  duration_ms: number;
  failed: boolean;
  error: string | null;
  model: string | null;
  deployment: string | null;
  usage: { input: number | null; output: number | null; source: string | null };
  inputs: unknown;
  output: unknown;
  attributes: Record<string, unknown>;
}

export interface Trace {
  calls: Call[];
  missing: string | null;
  spans: Span[];
}
