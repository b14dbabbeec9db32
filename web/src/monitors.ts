// What monitors found: their runs, the thresholds that they hold figures against, and what is open.
import { get } from "./load";

/** One figure of a run; docs/MONITORS.md has the formulas. */
export interface Measure {
  metric: string;
  value: number | null;
  low: number | null;
  high: number | null;
  count: number;
  threshold: number | null;
  bound: "at_least" | "at_most";
  state: string;
  violations: { count: number; possible: number } | null;
}

export interface Signal {
  kind: string;
  state: string;
  measures: Measure[];
}

/** A line of `monitors/`. */
export interface Run {
  id: string;
  monitor: string;
  at: string;
  trigger: string;
  from: string;
  to: string;
  scope: { tap: string | null; deployment: string | null; model: string | null };
  method: string;
  state: string;
  signals: Signal[];
  alerts: { signal: string; metric: string; since: string; told: string; resolved: string | null }[];
  unscored: number;
  unreadable: number;
}

export interface Monitors {
  latest: Run[];
  runs: { id: string; monitor: string; at: string; state: string }[];
}

/** Something that a monitor told, and the figures that it is about. */
export interface Alert {
  key: string;
  monitor: string;
  signal: string;
  metric: string;
  since: string;
  told: string;
  resolved: string | null;
  run: Run | null;
  measure: Measure | null;
}

interface StoredAlert {
  id: string;
  monitor: string;
  state: string;
  opened: string;
  updated: string;
  details: { signal?: string; metric?: string; measure?: Measure } | null;
}

const LOOK_BACK_MS = 40 * 86_400_000;

/** The runs of a window; of one monitor where it is named. */
export const monitorsIn = (window: { from: string; to: string }, signal?: AbortSignal, monitor = "") => get<Monitors>("monitors", { ...window, ...(monitor && { monitor }), limit: 500 }, signal);

/** The latest run of every monitor, whatever window is looked at. */
export const monitorsNow = (signal?: AbortSignal) => monitorsIn({ from: new Date(Date.now() - LOOK_BACK_MS).toISOString(), to: new Date().toISOString() }, signal);

/** What was told in a window or is open: from the monitors' own books, and from the list of alerts. */
export async function alertsIn(window: { from: string; to: string }, signal?: AbortSignal): Promise<Alert[]> {
  const [now, stored] = await Promise.all([monitorsNow(signal), get<{ alerts: StoredAlert[] }>("alerts", { ...window, limit: 500 }, signal)]);
  const alerts = new Map<string, Alert>();
  for (const run of now.latest)
    for (const alert of run.alerts) {
      const open = alert.resolved === null;
      if (!open && (alert.resolved ?? "") < window.from) continue;
      const key = keyOf(run.monitor, alert.signal, alert.metric, alert.since);
      alerts.set(key, { key, monitor: run.monitor, ...alert, run, measure: measureOf(run, alert.signal, alert.metric) });
    }
  for (const { id, monitor, state, opened, updated, details } of stored.alerts) {
    const key = keyOf(monitor, details?.signal ?? "", details?.metric ?? id, opened);
    if (!alerts.has(key)) alerts.set(key, { key, monitor, signal: details?.signal ?? "", metric: details?.metric ?? id, since: opened, told: updated, resolved: state === "open" ? null : updated, run: null, measure: details?.measure ?? null });
  }
  return [...alerts.values()].sort((a, b) => Number(a.resolved !== null) - Number(b.resolved !== null) || b.told.localeCompare(a.told));
}

const keyOf = (monitor: string, signal: string, metric: string, since: string) => [monitor, signal, metric, Date.parse(since)].join(" ");
const measureOf = (run: Run, kind: string, metric: string) => run.signals.find((signal) => signal.kind === kind)?.measures.find((measure) => measure.metric === metric) ?? null;

/** A figure's threshold, as some monitor has it. */
export interface Threshold {
  criterion: string;
  metric: "average" | "pass_rate" | "mean" | "share";
  value: number;
}

/** The thresholds of quality: metrics are called `fluency_average`, `fluency_pass_rate`, `f1_mean`, `refusal_share`. */
export function thresholds({ latest }: Monitors): Threshold[] {
  const found: Threshold[] = [];
  for (const { metric, threshold } of latest.flatMap((run) => run.signals.filter((signal) => signal.kind === "generation_quality").flatMap((signal) => signal.measures))) {
    const named = /^(.+)_(average|pass_rate|mean|share)$/.exec(metric);
    if (named && threshold !== null) found.push({ criterion: named[1] ?? "", metric: named[2] as Threshold["metric"], value: threshold });
  }
  return found;
}

/** Where a metric of all requests is held against a threshold, by monitors that look at what is looked at here. */
export function limitsOn({ latest }: Monitors, metric: string, scope: Record<string, string>): { value: number; monitor: string }[] {
  const fits = (run: Run) => Object.entries(run.scope).every(([name, value]) => value === null || !scope[name] || scope[name] === value);
  return latest.filter(fits).flatMap((run) => {
    const held = run.signals.flatMap((signal) => signal.measures).filter((measure) => measure.metric === metric && measure.threshold !== null);
    return held.map((measure) => ({ value: measure.threshold ?? 0, monitor: run.monitor }));
  });
}

/** Violations of quality over those that there could have been, in the latest run of each monitor. */
export function violationRate({ latest }: Monitors): { violations: number; possible: number } {
  const quality = latest.flatMap((run) => run.signals).filter((signal) => signal.kind === "generation_quality");
  const counted = quality.flatMap((signal) => signal.measures.map((measure) => measure.violations));
  return {
    violations: counted.reduce((sum, one) => sum + (one?.count ?? 0), 0),
    possible: counted.reduce((sum, one) => sum + (one?.possible ?? 0), 0),
  };
}
