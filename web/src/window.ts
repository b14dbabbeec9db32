// The window of time that a view shows. It stands in the address, so that a link shows the same.
import { minute, zone } from "./format";

/** A window that ends now, or one that stands still. */
export type Window = { last: number } | { from: Date; to: Date };

/** A window as two moments. */
export interface Between {
  from: Date;
  to: Date;
}

const MINUTE = 60;
const HOUR = 3600;
const DAY = 86_400;

/** What can be chosen with one click, in seconds. */
export const PRESETS: { key: string; name: string; seconds: number }[] = [
  { key: "15m", name: "Last 15 minutes", seconds: 15 * MINUTE },
  { key: "1h", name: "Last hour", seconds: HOUR },
  { key: "6h", name: "Last 6 hours", seconds: 6 * HOUR },
  { key: "24h", name: "Last 24 hours", seconds: DAY },
  { key: "7d", name: "Last 7 days", seconds: 7 * DAY },
  { key: "30d", name: "Last 30 days", seconds: 30 * DAY },
  { key: "90d", name: "Last 90 days", seconds: 90 * DAY },
];
const DEFAULT = DAY;

/** The window that an address tells. */
export function read(query: URLSearchParams): Window {
  const [from, to] = [query.get("from"), query.get("to")].map((text) => new Date(text ?? ""));
  if (from && to && from.getTime() < to.getTime()) return { from, to };
  const preset = PRESETS.find((preset) => preset.key === query.get("last"));
  return { last: preset?.seconds ?? DEFAULT };
}

/** Puts the window into an address. */
export function write(window: Window, query: URLSearchParams): void {
  for (const name of ["from", "to", "last"]) query.delete(name);
  if ("last" in window) {
    const preset = PRESETS.find((preset) => preset.seconds === window.last);
    if (preset && window.last !== DEFAULT) query.set("last", preset.key);
  } else {
    query.set("from", window.from.toISOString().replace(".000Z", "Z"));
    query.set("to", window.to.toISOString().replace(".000Z", "Z"));
  }
}

/** The two moments; what ends now ends at the end of this minute, so that answers can be kept. */
export function between(window: Window): Between {
  if (!("last" in window)) return window;
  const to = Math.ceil(Date.now() / 60_000) * 60_000;
  return { from: new Date(to - window.last * 1000), to: new Date(to) };
}

/** Its name for people. */
export function named(window: Window): string {
  if ("last" in window) return PRESETS.find((preset) => preset.seconds === window.last)?.name ?? "";
  return `${minute(window.from)} – ${minute(window.to)}`;
}

/** The same length, just before. */
export function before({ from, to }: Between): Between {
  return { from: new Date(2 * from.getTime() - to.getTime()), to: from };
}

/** Yesterday and today, from midnight to midnight in the zone that is shown. */
export function wholeDay(daysAgo: number): Between {
  const from = midnight(new Date(Date.now() - daysAgo * DAY * 1000));
  const to = midnight(new Date(from.getTime() + 30 * HOUR * 1000));
  return { from, to };
}

function midnight(moment: Date): Date {
  const parts = new Intl.DateTimeFormat("en-CA", { timeZone: zone(), year: "numeric", month: "2-digit", day: "2-digit" });
  return parseLocal(`${parts.format(moment)}T00:00`);
}

/** What a `datetime-local` field shows of a moment, in the zone that is shown. */
export function fieldOf(moment: Date): string {
  const options = { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit" } as const;
  const format = new Intl.DateTimeFormat("en-CA", { timeZone: zone(), hourCycle: "h23", ...options });
  return format.format(moment).replace(", ", "T");
}

/** The moment that a `datetime-local` field means in the zone that is shown. */
export function parseLocal(field: string): Date {
  // Guess as if it were UTC, see what that moment is called here, and step by the difference; twice,
  // for the days on which clocks change.
  const wanted = Date.parse(`${field}Z`);
  let guess = wanted;
  for (let step = 0; step < 2; step++) guess += wanted - Date.parse(`${fieldOf(new Date(guess))}Z`);
  return new Date(guess);
}
