// Numbers, durations, sizes and times as people read them, always with their unit.

const NB = "\u202f"; // narrow no-break space, between a number and its unit

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const digits = (n: number) => new Intl.NumberFormat("en", { maximumSignificantDigits: n });
const three = digits(3);

/** Shown where nothing is known: unknown is not zero. */
export const UNKNOWN = "–";

type Maybe = number | null | undefined;
const known = (n: Maybe): n is number => typeof n === "number" && Number.isFinite(n);

/** A count, written out. */
export const count = (n: Maybe) => (known(n) ? whole.format(n) : UNKNOWN);

/** A count where room is short: 12,345 then 123 k, 1.23 M. */
export function short(n: Maybe): string {
  if (!known(n)) return UNKNOWN;
  const size = Math.abs(n);
  if (size < 100_000) return size < 10 && !Number.isInteger(n) ? three.format(n) : whole.format(n);
  if (size < 1e6) return `${whole.format(n / 1e3)}${NB}k`;
  if (size < 1e9) return `${three.format(n / 1e6)}${NB}M`;
  return `${three.format(n / 1e9)}${NB}G`;
}

/** A count beside a scale, where all marks should look alike. */
export const brief = (n: Maybe) => (known(n) && Math.abs(n) >= 10_000 && Math.abs(n) < 1e6 ? `${three.format(n / 1e3)}${NB}k` : short(n));

/** `1 turn`, `2 turns`. */
export const many = (n: number, one: string, more = `${one}s`) => `${whole.format(n)} ${n === 1 ? one : more}`;

/** A share of one, in percent. */
export function percent(n: Maybe): string {
  if (!known(n)) return UNKNOWN;
  const p = n * 100;
  if (p === 0 || p === 100) return `${p}${NB}%`;
  if (p > 0 && p < 0.01) return `<0.01${NB}%`;
  if (p > 99.9 && p < 100) return `${(Math.floor(p * 1000) / 1000).toString()}${NB}%`;
  return `${digits(p < 1 ? 2 : 3).format(p)}${NB}%`;
}

/** Milliseconds, in the unit that fits. */
export function duration(ms: Maybe): string {
  if (!known(ms)) return UNKNOWN;
  const size = Math.abs(ms);
  if (size === 0) return `0${NB}ms`;
  if (size < 1) return `${digits(2).format(ms * 1000)}${NB}µs`;
  if (size < 1000) return `${three.format(ms)}${NB}ms`;
  if (size < 60_000) return `${three.format(ms / 1000)}${NB}s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 3600) return `${Math.floor(seconds / 60)}${NB}min${seconds % 60 ? ` ${seconds % 60}${NB}s` : ""}`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)}${NB}h${minutes % 60 ? ` ${minutes % 60}${NB}min` : ""}`;
  return `${three.format(minutes / 1440)}${NB}days`;
}

/** Bytes, in powers of 1024. */
export function bytes(n: Maybe): string {
  if (!known(n)) return UNKNOWN;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  let value = n;
  while (Math.abs(value) >= 1024 && unit < units.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${three.format(value)}${NB}${units[unit]}`;
}

/** A score from 1 to 5. */
export const score = (n: Maybe) => (known(n) ? n.toFixed(2) : UNKNOWN);

/** A value from 0 to 1 that is no share. */
export const ratio = (n: Maybe) => (known(n) ? n.toFixed(3) : UNKNOWN);

/** A number a second. */
export const rate = (n: Maybe) => (known(n) ? `${n < 100 ? three.format(n) : whole.format(n)}${NB}/s` : UNKNOWN);

/** The words of a name: `client_abort` is `client abort`. */
export const words = (name: string) => name.replaceAll("_", " ");

// --- time -----------------------------------------------------------------------------------------

const LOCAL = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";

/** The time zone that times are shown in: the machine's own, or UTC where it was asked for. */
export const zone = () => (localStorage.getItem("zone") === "utc" ? "UTC" : LOCAL);

/** Goes over to the other one. */
export const turnZone = () => localStorage.setItem("zone", zone() === "UTC" ? "local" : "utc");

/** `Europe/Berlin (UTC+1)`, or `UTC`. */
export function zoneName(): string {
  if (zone() === "UTC") return "UTC";
  const parts = new Intl.DateTimeFormat("en", { timeZone: zone(), timeZoneName: "shortOffset" }).formatToParts();
  const offset = parts.find((part) => part.type === "timeZoneName")?.value.replace("GMT", "UTC");
  return `${zone()} (${offset})`;
}

type When = Date | number | string;
const formats = new Map<string, Intl.DateTimeFormat>();
function format(kind: string, options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  const key = `${kind} ${zone()}`;
  let made = formats.get(key);
  if (!made) formats.set(key, (made = new Intl.DateTimeFormat("en-GB", { ...options, timeZone: zone(), hourCycle: "h23" })));
  return made;
}
const at = (when: When) => (when instanceof Date ? when : new Date(when));
const day = { day: "2-digit", month: "short" } as const;

/** `23 Nov 2026, 22:47:50`. */
export const time = (when: When) =>
  format("time", { ...day, year: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit" }).format(at(when));

/** `23 Nov, 22:47`. */
export const minute = (when: When) => format("minute", { ...day, hour: "2-digit", minute: "2-digit" }).format(at(when));

/** `22:47:50`. */
export const clock = (when: When) => format("clock", { hour: "2-digit", minute: "2-digit", second: "2-digit" }).format(at(when));

/** How long ago, roughly. */
export function ago(when: When): string {
  const seconds = Math.max(0, (Date.now() - at(when).getTime()) / 1000);
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86_400)} days ago`;
}
