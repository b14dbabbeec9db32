// What every view is put together from.
import type { ComponentChildren } from "preact";
import { count, percent, score, UNKNOWN } from "./format";
import type { Scale } from "./api";
import type { Fault, Loaded } from "./load";

/** A framed part of a view. */
export function Card(props: { title: string; note?: ComponentChildren; aside?: ComponentChildren; wide?: boolean; children: ComponentChildren }) {
  const id = `card-${props.title.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-")}`;
  return (
    <section class={props.wide ? "card wide" : "card"} aria-labelledby={id}>
      <header>
        <h2 id={id}>{props.title}</h2>
        {props.aside}
      </header>
      {props.note && <p class="note">{props.note}</p>}
      {props.children}
    </section>
  );
}

/** One figure. `change` is its share of growth against the window before. */
export function Figure(props: { name: string; value: string; exact?: string; sub?: ComponentChildren; tone?: "bad" | "warn" | "good"; href?: string }) {
  const value = (
    <span class={`value ${props.tone ?? ""}`} title={props.exact} data-figure={props.name}>
      {props.value}
    </span>
  );
  return (
    <div class="figure">
      <dt>{props.name}</dt>
      <dd>
        {props.href ? <a href={props.href}>{value}</a> : value}
        {props.sub && <span class="sub">{props.sub}</span>}
      </dd>
    </div>
  );
}

/** Figures side by side. */
export const Figures = ({ children }: { children: ComponentChildren }) => <dl class="figures">{children}</dl>;

/** Nothing there, and what to do about it. */
export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <p>
        <strong>{title}</strong>
      </p>
      {children}
    </div>
  );
}

/** What failed, and what to do about it. */
export function Failed({ fault, again }: { fault: Fault; again: () => void }) {
  return (
    <div class="failed" role="alert">
      <p>
        <strong>{fault.message}.</strong> {fault.advice}
      </p>
      <button type="button" onClick={again}>
        Try again
      </button>
    </div>
  );
}

/** Shows what was loaded; a sketch while it is on its way; the fault where it failed. */
export function Show<T>({ of, children, rows = 4 }: { of: Loaded<T>; children: (data: T) => ComponentChildren; rows?: number }) {
  if (of.data === undefined && of.fault) return <Failed fault={of.fault} again={of.again} />;
  if (of.data === undefined) return <Sketch rows={rows} />;
  return (
    <div class={of.busy ? "loaded busy" : "loaded"} aria-busy={of.busy}>
      {of.fault && <Failed fault={of.fault} again={of.again} />}
      {children(of.data)}
    </div>
  );
}

function Sketch({ rows }: { rows: number }) {
  return (
    <div class="sketch" role="status">
      <span class="unseen">Loading</span>
      {Array.from({ length: rows }, (_, index) => (
        <i key={index} />
      ))}
    </div>
  );
}

const TONES: Record<string, string> = { ok: "good", violated: "bad", not_enough_data: "", firing: "bad", resolved: "good" };

/** A word with a state's colour; the word carries the meaning. */
export function Badge({ word, tone }: { word: string; tone?: string }) {
  return <span class={`badge ${tone ?? TONES[word] ?? "warn"}`}>{word.replaceAll("_", " ")}</span>;
}

/** A score from 1 to 5 with the interval that it lies in, and the threshold. */
export function Interval({ mean, low, high, limit, scale = "score" }: { mean: number; low?: number | null; high?: number | null; limit?: number | null; scale?: Scale }) {
  const [first, last] = scale === "score" ? [1, 5] : [0, 1];
  const left = (value: number) => `${((Math.min(last, Math.max(first, value)) - first) / (last - first)) * 100}%`;
  const told = low != null && high != null ? `${score(mean)}, from ${score(low)} to ${score(high)}` : score(mean);
  return (
    <span class="interval" role="img" aria-label={`${told} of ${last}${limit != null ? `, threshold ${limit}` : ""}`}>
      {low != null && high != null && <i class="span" style={{ left: left(low), right: `calc(100% - ${left(high)})` }} />}
      {limit != null && <i class="tick" style={{ left: left(limit) }} />}
      <i class={scale === "score" && limit != null && mean < limit ? "dot bad" : "dot"} style={{ left: left(mean) }} />
    </span>
  );
}

/** What may be wider or longer than its place, and can then be scrolled by keys too; `whole` is as long as it is. */
export function Scroll({ name, children, whole }: { name: string; children: ComponentChildren; whole?: boolean }) {
  return (
    <div class={whole ? "scroll whole" : "scroll"} tabIndex={0} role="region" aria-label={name}>
      {children}
    </div>
  );
}

/** The heads of a table's columns; `n` is a column of numbers. */
export function Heads({ of }: { of: (string | [name: string, kind: "n"])[] }) {
  return (
    <thead>
      <tr>
        {of.map((head) => {
          const [name, kind] = typeof head === "string" ? [head, ""] : head;
          // What has no name heads nothing: the bars beside figures.
          return name ? (
            <th scope="col" class={kind} key={name}>
              {name}
            </th>
          ) : (
            <td key="none" />
          );
        })}
      </tr>
    </thead>
  );
}

/** Shares of a whole as bars, with their numbers. */
export function Shares({ title, name, rows, unit = count }: { title: string; name: string; rows: { name: string; value: number; href?: string }[]; unit?: (n: number) => string }) {
  const sum = rows.reduce((sum, row) => sum + row.value, 0);
  const most = Math.max(...rows.map((row) => row.value), 1);
  return (
    <Scroll name={title}>
      <table class="shares">
        <Heads of={[name, ["Number", "n"], ["Share", "n"], ""]} />
        <tbody>
          {rows.map((row) => (
            <tr key={row.name}>
              <th scope="row">{row.href ? <a href={row.href}>{row.name}</a> : row.name}</th>
              <td class="n" data-share={row.name}>
                {unit(row.value)}
              </td>
              <td class="n">{sum ? percent(row.value / sum) : UNKNOWN}</td>
              <td class="bar" aria-hidden="true">
                {row.value > 0 && <i style={{ width: `${(row.value / most) * 100}%` }} />}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}

export interface Bin {
  low: number;
  high: number;
  count: number;
}

/** How values are distributed. */
export function Histogram({ title, bins, unit, colour = "c1" }: { title: string; bins: Bin[]; unit: (n: number) => string; colour?: string }) {
  const most = Math.max(...bins.map((bin) => bin.count), 1);
  const sum = bins.reduce((sum, bin) => sum + bin.count, 0);
  const label = `${title}: ${bins.filter((bin) => bin.count > 0).map((bin) => `${unit(bin.low)} to ${unit(bin.high)}: ${count(bin.count)}`).join("; ")}`;
  return (
    <div class={`histogram ${colour}`} role="img" aria-label={label}>
      {bins.map((bin) => (
        <span key={bin.low} title={`${unit(bin.low)} – ${unit(bin.high)}: ${count(bin.count)} (${percent(sum ? bin.count / sum : null)})`}>
          <i style={{ height: `${(bin.count / most) * 100}%` }}>
            <em>{bin.count > 0 && percent(bin.count / sum)}</em>
          </i>
          <b>≤ {unit(bin.high)}</b>
        </span>
      ))}
    </div>
  );
}
