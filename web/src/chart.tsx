// Lines and bars over time: drawn by uPlot, told in words and as a table too.
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { minute, time, zone } from "./format";
import { Heads, Scroll } from "./parts";
import { change } from "./route";
import { write } from "./window";

type Values = (number | null)[];

export interface Line {
  name: string;
  values: Values;
  /** Ends of the interval that the value lies in, drawn as a band. */
  low?: Values;
  high?: Values;
  /** A colour's variable without its dashes; else the next of the palette. */
  colour?: string;
}

export interface ChartProps {
  /** What it shows, for those who hear it. */
  title: string;
  /** Moments, in seconds. */
  times: number[];
  /** Seconds from one moment to the next. */
  step: number;
  lines: Line[];
  unit: (n: number | null | undefined) => string;
  /** The same where room is short: beside the scale. */
  axis?: (n: number | null | undefined) => string;
  /** Lines stand on each other and their sum is seen. */
  stacked?: boolean;
  /** Thresholds drawn across. */
  limits?: { value: number; name: string }[];
  /** The scale's marks where they are known; the outer ones are its ends. */
  marks?: number[];
  /** Seconds up to the last moment that are shown, however few of them there are. */
  seconds?: number;
  height?: number;
}

const PALETTE = ["c1", "c2", "c3", "c4", "c5", "c6"];
const ROWS_MAX = 500;

/** The colour of a line. */
export const colourOf = (line: Line, index: number) => line.colour ?? PALETTE[index % PALETTE.length]!;

export function Chart(props: ChartProps) {
  const { lines, unit, title, times } = props;
  const box = useRef<HTMLDivElement>(null);
  const [under, setUnder] = useState<number | null>(null);
  const scheme = useScheme();
  const data = useMemo(() => tableOf(props), [props.times, props.lines, props.stacked]);
  useEffect(() => {
    if (!box.current || times.length === 0) return;
    const holder = box.current;
    const plot = new uPlot(options(props, holder, setUnder), data, holder);
    const sized = new ResizeObserver(() => {
      if (holder.clientWidth > 0) plot.setSize({ width: holder.clientWidth, height: props.height ?? 200 });
    });
    sized.observe(holder);
    return () => {
      sized.disconnect();
      plot.destroy();
    };
  }, [data, scheme, zone(), props.limits?.map((limit) => limit.value).join()]);
  const shown = under ?? null;
  return (
    <figure class="chart">
      <figcaption class="legend">
        {lines.map((line, index) => (
          <span key={line.name}>
            <i class={`swatch ${colourOf(line, index)}`} />
            {line.name}
            {shown !== null && <b>{unit(line.values[shown])}</b>}
          </span>
        ))}
        {props.limits?.map((limit) => (
          <span key={limit.name}>
            <i class="swatch limit" />
            {limit.name}
          </span>
        ))}
        {shown !== null && <span class="when">{minute((times[shown] ?? 0) * 1000)}</span>}
      </figcaption>
      <div ref={box} class="plot" role="img" aria-label={spoken(props)} style={{ minHeight: `${props.height ?? 200}px` }} />
      <Table title={title} {...{ times, lines, unit }} />
    </figure>
  );
}

/** The same figures as a table, made when it is opened. */
function Table({ title, times, lines, unit }: Pick<ChartProps, "title" | "times" | "lines" | "unit">) {
  const [open, setOpen] = useState(false);
  const rows = times.map((_, index) => index).filter((index) => lines.some((line) => line.values[index] != null));
  return (
    <details class="as-table" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        As a table<span class="unseen">: {title}</span>
      </summary>
      {open && (
        <Scroll name={title}>
          <table>
            <Heads of={["Time", ...lines.map((line): [string, "n"] => [line.name, "n"])]} />
            <tbody>
              {rows.slice(-ROWS_MAX).map((index) => (
                <tr key={index}>
                  <th scope="row">{time((times[index] ?? 0) * 1000)}</th>
                  {lines.map((line) => (
                    <td class="n" key={line.name}>
                      {unit(line.values[index])}
                      {line.low && line.high && line.values[index] != null && ` (${unit(line.low[index])} – ${unit(line.high[index])})`}
                    </td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
    </details>
  );
}

/** What a chart says in a sentence. */
function spoken({ title, lines, unit, times }: ChartProps): string {
  const parts = lines.map((line) => {
    const known = line.values.filter((value): value is number => value !== null);
    if (known.length === 0) return `${line.name}: nothing`;
    const [low, high] = [Math.min(...known), Math.max(...known)];
    return `${line.name}: from ${unit(low)} to ${unit(high)}, last ${unit(known.at(-1))}`;
  });
  return `${title}. ${times.length} points. ${parts.join("; ")}.`;
}

/** uPlot's columns: times, then each line, with its band's ends after it; stacked ones added up. */
function tableOf({ times, lines, stacked }: ChartProps): uPlot.AlignedData {
  const columns: Values[] = [];
  const sums = times.map(() => 0);
  for (const line of lines) {
    if (stacked) columns.push(line.values.map((value, index) => (sums[index]! += value ?? 0)));
    else columns.push(line.values);
    if (line.low && line.high) columns.push(line.low, line.high);
  }
  if (stacked) columns.reverse();
  return [times, ...columns] as uPlot.AlignedData;
}

function options(props: ChartProps, holder: HTMLElement, setUnder: (index: number | null) => void): uPlot.Options {
  const colour = (name: string) => resolved(holder, name);
  const [ink, grid] = [colour("soft"), colour("grid")];
  const series: uPlot.Series[] = [{}];
  const bands: uPlot.Band[] = [];
  const barPaths = uPlot.paths.bars!({ size: [0.8, 36], gap: 0 });
  const drawn = props.lines.map((line, index) => ({ line, colour: colour(colourOf(line, index)) }));
  for (const { line, colour } of props.stacked ? drawn.reverse() : drawn) {
    if (props.stacked) series.push({ stroke: colour, fill: colour, width: 0, paths: barPaths, points: { show: false } });
    else series.push({ stroke: colour, width: 1.75, spanGaps: false, points: { show: lonely(line.values), size: 5, fill: colour } });
    if (line.low && line.high) {
      const end = { stroke: "transparent", width: 0, points: { show: false } };
      series.push(end, end);
      bands.push({ series: [series.length - 1, series.length - 2], fill: `color-mix(in srgb, ${colour} 18%, transparent)` });
    }
  }
  const axis = { stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  return {
    width: Math.max(holder.clientWidth, 200),
    height: props.height ?? 200,
    padding: [8, 22, 0, 0],
    legend: { show: false },
    cursor: { y: false, points: { size: 7 }, drag: { x: !props.seconds, y: false, setScale: false, dist: 8 } },
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), zone()),
    scales: { x: { range: (_, low, high) => [props.seconds ? high - props.seconds : low - props.step / 2, high + props.step / 2] }, y: { range: (_, low, high) => scale(props, low, high) } },
    axes: [
      { ...axis, grid: { show: false }, values: clockLabels, space: 80, size: 28 },
      { ...axis, size: (plot, values) => room(plot, values), values: (_, splits) => splits.map((n) => (props.axis ?? props.unit)(n)), space: 34, ...(props.marks ? { splits: props.marks } : {}) },
    ],
    series,
    bands,
    hooks: { setCursor: [(plot) => setUnder(plot.cursor.idx ?? null)], setSelect: [(plot) => look(plot)], draw: [(plot) => limits(plot, props, colour("bad"))] },
  };
}

/** What was drawn over with the pointer becomes the window. */
function look(plot: uPlot): void {
  const { left, width } = plot.select;
  if (width < 8) return;
  const at = (x: number) => new Date(Math.round(plot.posToVal(x, "x")) * 1000);
  const query = new URLSearchParams();
  write({ from: at(left), to: at(left + width) }, query);
  change({ last: null, from: query.get("from"), to: query.get("to") });
}

/** Points are drawn where lines would not be seen: values without neighbours. */
const lonely = (values: Values) => values.filter((value) => value !== null).length < 3 || values.every((value, index) => value === null || (values[index - 1] ?? null) === null || (values[index + 1] ?? null) === null);

function scale({ marks, limits }: ChartProps, low: number | null, high: number | null): [number, number] {
  if (marks) {
    // A little more than the ends, so that a line along one of them is seen whole.
    const [first, last] = [marks[0] ?? 0, marks.at(-1) ?? 1];
    return [first - (last - first) * 0.03, last + (last - first) * 0.03];
  }
  const top = Math.max(high ?? 0, ...(limits ?? []).map((limit) => limit.value));
  return [Math.min(0, low ?? 0), top > 0 ? top * 1.08 : 1];
}

function room(plot: uPlot, values: string[] | null): number {
  if (!values) return 50;
  plot.ctx.font = `${12 * devicePixelRatio}px system-ui, sans-serif`;
  const widest = Math.max(...values.map((value) => plot.ctx.measureText(value).width / devicePixelRatio));
  return Math.ceil(Math.max(52, widest + 14));
}

/** Short windows are told by the clock, long ones by the day. */
function clockLabels(_: uPlot, splits: number[]): string[] {
  const step = (splits[1] ?? 0) - (splits[0] ?? 0);
  const parts = (options: Intl.DateTimeFormatOptions) => new Intl.DateTimeFormat("en-GB", { timeZone: zone(), hourCycle: "h23", ...options });
  const day = parts({ day: "numeric", month: "short" });
  const clock = parts({ hour: "2-digit", minute: "2-digit", ...(step < 60 ? { second: "2-digit" } : {}) });
  return splits.map((split) => {
    const when = new Date(split * 1000);
    const told = clock.format(when);
    return step >= 86_400 || told === "00:00" ? day.format(when) : told;
  });
}

function limits(plot: uPlot, props: ChartProps, colour: string): void {
  for (const { value } of props.limits ?? []) {
    const y = plot.valToPos(value, "y", true);
    const { left, width, top, height } = plot.bbox;
    if (y < top || y > top + height) continue;
    plot.ctx.save();
    plot.ctx.strokeStyle = colour;
    plot.ctx.lineWidth = devicePixelRatio;
    plot.ctx.setLineDash([5 * devicePixelRatio, 4 * devicePixelRatio]);
    plot.ctx.beginPath();
    plot.ctx.moveTo(left, y);
    plot.ctx.lineTo(left + width, y);
    plot.ctx.stroke();
    plot.ctx.restore();
  }
}

/** A colour of the style sheet, as a canvas takes it. */
function resolved(holder: HTMLElement, name: string): string {
  const probe = document.createElement("span");
  probe.style.color = `var(--${name})`;
  holder.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}

/** Light or dark, and again when that changes: canvases have to be drawn anew. */
function useScheme(): string {
  const now = () => `${document.documentElement.dataset["theme"] ?? ""}${matchMedia("(prefers-color-scheme: dark)").matches}`;
  const [scheme, set] = useState(now);
  useEffect(() => {
    const listener = () => set(now());
    const media = matchMedia("(prefers-color-scheme: dark)");
    media.addEventListener("change", listener);
    const watched = new MutationObserver(listener);
    watched.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    return () => {
      media.removeEventListener("change", listener);
      watched.disconnect();
    };
  }, []);
  return scheme;
}
