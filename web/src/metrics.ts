// flowtap's own metrics, read from /metrics as Prometheus reads them: what is true this second.
import { ask } from "./load";

export interface Series {
  labels: Record<string, string>;
  value: number;
}

/** A scrape: every series by its name, and when it was. */
export interface Scrape {
  at: number;
  series: Map<string, Series[]>;
}

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;
const unescaped = (text: string) => text.replace(/\\(.)/g, (_, mark: string) => (mark === "n" ? "\n" : mark));

/** Reads Prometheus' text format. */
export function parse(text: string): Map<string, Series[]> {
  const series = new Map<string, Series[]>();
  for (const line of text.split("\n")) {
    const found = line.startsWith("#") ? null : LINE.exec(line);
    if (!found) continue;
    const [, name = "", labels = "", value] = found;
    const pairs = [...labels.matchAll(LABEL)].map(([, name, value]) => [name ?? "", unescaped(value ?? "")]);
    const list = series.get(name) ?? [];
    list.push({ labels: Object.fromEntries(pairs) as Record<string, string>, value: value === "+Inf" ? Infinity : Number(value) });
    series.set(name, list);
  }
  return series;
}

/** Scrapes now. */
export async function scrape(signal?: AbortSignal): Promise<Scrape> {
  const response = await ask("/metrics", signal ? { signal } : {});
  return { at: Date.now(), series: parse(await response.text()) };
}

type Wanted = Record<string, string | undefined>;
const fits = (series: Series, wanted: Wanted) => Object.entries(wanted).every(([name, value]) => !value || series.labels[name] === value);

/** The sum of a family's series with these labels; `null` where there is none. */
export function sum(scrape: Scrape, family: string, wanted: Wanted = {}): number | null {
  const found = (scrape.series.get(family) ?? []).filter((series) => fits(series, wanted));
  return found.length ? found.reduce((sum, series) => sum + series.value, 0) : null;
}

/** The sums of a family by the values of a label, largest first. */
export function sums(scrape: Scrape, family: string, label: string | string[], wanted: Wanted = {}): { name: string; value: number }[] {
  const by = new Map<string, number>();
  const names = [label].flat();
  for (const series of scrape.series.get(family) ?? []) {
    if (!fits(series, wanted)) continue;
    const name = names.map((label) => series.labels[label] ?? "").join(" · ");
    by.set(name, (by.get(name) ?? 0) + series.value);
  }
  return [...by].map(([name, value]) => ({ name, value })).sort((a, b) => b.value - a.value);
}

/** A quantile of a histogram, as Prometheus estimates it; of what came between two scrapes where both are given. */
export function quantile(q: number, now: Scrape, family: string, wanted: Wanted = {}, before?: Scrape): number | null {
  const buckets = new Map<number, number>();
  const add = (scrape: Scrape, sign: number) => {
    for (const series of scrape.series.get(`${family}_bucket`) ?? []) {
      if (!fits(series, wanted)) continue;
      const end = series.labels["le"] === "+Inf" ? Infinity : Number(series.labels["le"]);
      buckets.set(end, (buckets.get(end) ?? 0) + sign * series.value);
    }
  };
  add(now, 1);
  if (before) add(before, -1);
  const ends = [...buckets.keys()].sort((a, b) => a - b);
  const all = buckets.get(Infinity) ?? 0;
  if (all <= 0) return null;
  let start = 0;
  let below = 0;
  for (const end of ends) {
    const upTo = buckets.get(end) ?? 0;
    if (upTo >= q * all) return end === Infinity ? start : start + (end - start) * ((q * all - below) / Math.max(upTo - below, 1e-12));
    [start, below] = [end, upTo];
  }
  return null;
}
