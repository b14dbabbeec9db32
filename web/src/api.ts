// What the API answers, in the shapes of /api/v1/openapi.json, and how it is asked.
import { get } from "./load";
import type { Place } from "./route";
import { between, read, type Between } from "./window";

export interface Quantiles {
  p50: number | null;
  p95: number | null;
  p99: number | null;
}

export interface Bin {
  from: number;
  to: number;
  count: number;
}

export interface TokenSums {
  count: number;
  input: number;
  output: number;
  total: number;
  cached_input: number;
  reasoning_output: number;
}

/** Sums of all requests of a window, of a group, or of a moment. */
export interface Sums {
  requests: number;
  errors: number;
  error_rate: number | null;
  outcomes: Record<string, number>;
  tokens: TokenSums;
  sources: Record<string, TokenSums>;
  usage_unknown: number;
  latency_ms: Quantiles;
  first_token_ms: Quantiles;
}

export interface Estimate {
  value: number | null;
  low: number | null;
  high: number | null;
}

/** What judges and users said, by one criterion. */
export interface Judged {
  criterion: string;
  n: number;
  effective_n: number;
  average: Estimate;
  pass_rate: Estimate;
  violations: number;
  failed: number;
}

export interface Series<T> {
  step_seconds: number;
  points: (T & { time: string })[];
}

export interface SampleRow {
  id: string;
  time: string;
  tap: string;
  deployment: string;
  model: string | null;
  operation: string;
  outcome: string;
  status: number | null;
  stream: boolean;
  latency_ms: number;
  first_token_ms: number | null;
  usage: { input: number | null; output: number | null; total: number | null; source: string | null };
  question: string | null;
  answer: string | null;
  scores: Record<string, number>;
}

/** What the address says is looked at. */
export function scope(place: Place): Record<string, string> {
  const asked: Record<string, string> = {};
  for (const name of ["tap", "deployment", "model", "outcome"]) {
    const value = place.query.get(name);
    if (value) asked[name] = value;
  }
  return asked;
}

const moments = ({ from, to }: Between) => ({ from: from.toISOString(), to: to.toISOString() });

/** Asks for something of the window and the scope of an address. */
export const inWindow = <T>(path: string, place: Place, more: Record<string, string | number | undefined> = {}, signal?: AbortSignal) =>
  get<T>(path, { ...moments(between(read(place.query))), ...scope(place), ...more }, signal);
