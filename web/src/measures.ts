// A monitor's figures, each in its own unit, which its name tells.
import { count, duration, percent, ratio, score, short, UNKNOWN, words } from "./format";
import type { Measure } from "./monitors";

/** A value of this metric. */
export function figure(metric: string, value: number | null): string {
  if (value === null) return UNKNOWN;
  if (/(_rate|_share)$/.test(metric)) return percent(value);
  if (/_ms$/.test(metric)) return duration(value);
  if (/_mean$/.test(metric)) return ratio(value);
  if (/_average$/.test(metric)) return score(value);
  return Number.isInteger(value) ? count(value) : short(value);
}

/** A metric's name for people. */
export const metricName = (metric: string) => words(metric.replace(/_ms$/, ""));

/** `groundedness pass rate 62 % is below 70 %`. */
export function sentence({ metric, value, threshold, bound }: Measure): string {
  const side = bound === "at_least" ? "below" : "above";
  return `${metricName(metric)} ${figure(metric, value)} is ${side} ${figure(metric, threshold)}`;
}
