// Every sampled request of the window: searched, filtered, sorted, and scrolled without an end.
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { inWindow, moments, RATED, scope, windowOf, type Brief, type SamplePage } from "../api";
import { duration, many, short, time, words } from "../format";
import { Head } from "../frame";
import { Content } from "../hidden";
import { Fault } from "../load";
import { useNames } from "../names";
import { Badge, Empty, Failed } from "../parts";
import { address, change, go, kept, type Place } from "../route";

const PAGE = 100;
/** How high the box of the rows grows. */
const BOX_PIXELS_MAX = 8_000_000;
/** Pages whose rows stay in memory; the others are fetched again when they come into sight. */
const PAGES_KEPT = 30;
const OUTCOMES = ["ok", "empty", "client_error", "upstream_error", "connect_error", "timeout", "client_abort", "upstream_abort"];
const SORTS: [value: string, name: string][] = [
  ["time desc", "Newest first"],
  ["time asc", "Oldest first"],
  ["score asc", "Worst score first"],
  ["score desc", "Best score first"],
  ["latency desc", "Slowest first"],
  ["latency asc", "Fastest first"],
  ["tokens desc", "Most tokens first"],
  ["tokens asc", "Fewest tokens first"],
];

/** Which end comes first where the address does not say: as the API has it. */
const usualOrder = (sort: string) => (sort === "score" ? "asc" : "desc");

/** Sorts by something; what is usual needs no mention in the address. */
const sortBy = (sort: string, order: string) => change({ sort: sort === "time" ? null : sort, order: order === usualOrder(sort) ? null : order }, true);

/** How the address has it sorted. */
function sorted(query: URLSearchParams): [sort: string, order: string] {
  const sort = query.get("sort") ?? "time";
  return [sort, query.get("order") ?? usualOrder(sort)];
}

/** What is asked of the API, out of the address. */
export function asked(place: Place): Record<string, string> {
  const { query } = place;
  const asked: Record<string, string> = { ...scope(place) };
  for (const name of ["q", "criterion", "score", "sort", "order"]) {
    const value = query.get(name);
    if (value) asked[name] = value;
  }
  return asked;
}

export function Samples({ place }: { place: Place }) {
  const names = useNames();
  const all = { ...names, outcome: OUTCOMES };
  return (
    <>
      <Head title="Samples" place={place} filters={["tap", "deployment", "model", "outcome"]} names={all} />
      <Search place={place} />
      <List key={place.query.toString()} place={place} />
    </>
  );
}

function Search({ place }: { place: Place }) {
  const { query } = place;
  const field = useRef<HTMLInputElement>(null);
  const timer = useRef(0);
  useEffect(() => {
    const slash = (event: KeyboardEvent) => {
      const typing = (event.target as Element).matches("input, textarea, select");
      if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
        event.preventDefault();
        field.current?.focus();
      }
    };
    addEventListener("keydown", slash);
    return () => removeEventListener("keydown", slash);
  }, []);
  const typed = (text: string) => {
    clearTimeout(timer.current);
    timer.current = window.setTimeout(() => change({ q: text }, true), 350);
  };
  return (
    <form class="search" role="search" onSubmit={(event) => event.preventDefault()}>
      <input ref={field} type="search" aria-label="Search questions and answers" placeholder="Search questions and answers  ( / )" value={query.get("q") ?? ""} onInput={(event) => typed(event.currentTarget.value)} />
      <select aria-label="Criterion" value={query.get("criterion") ?? ""} onChange={(event) => change({ criterion: event.currentTarget.value }, true)}>
        <option value="">Any criterion</option>
        {RATED.map((criterion) => (
          <option key={criterion} value={criterion}>
            {words(criterion)}
          </option>
        ))}
      </select>
      <select aria-label="Score" value={query.get("score") ?? ""} onChange={(event) => change({ score: event.currentTarget.value }, true)}>
        <option value="">Any score</option>
        {[1, 2, 3, 4].map((score) => (
          <option key={score} value={score === 1 ? "1" : `1-${score}`}>
            {score === 1 ? "Score 1" : `Score ${score} or less`}
          </option>
        ))}
      </select>
      <select
        aria-label="Order"
        value={sorted(query).join(" ")}
        onChange={(event) => {
          const [sort = "time", order = "desc"] = event.currentTarget.value.split(" ");
          sortBy(sort, order);
        }}
      >
        {SORTS.map(([value, name]) => (
          <option key={value} value={value}>
            {name}
          </option>
        ))}
      </select>
    </form>
  );
}

type Slot = { cursor: string | null; rows: Brief[] | null; length: number };

/** Pages as they were met. Only those in sight are in the document, and only some in memory. */
function List({ place }: { place: Place }) {
  const [slots, setSlots] = useState<Slot[]>([{ cursor: null, rows: null, length: 0 }]);
  const [fault, setFault] = useState<Fault | null>(null);
  const [end, setEnd] = useState(false);
  const [top, setTop] = useState(0);
  // Browsers end an element at some 33 million pixels: of a longer list, `base` rows lie above its box.
  const [base, setBase] = useState(0);
  const box = useRef<HTMLDivElement>(null);
  const busy = useRef(new Set<number>());
  const still = useMemo(() => moments(windowOf(place)), []);
  const height = useRowHeight();

  const fetchPage = async (index: number) => {
    const slot = slots[index];
    if (!slot || slot.rows || busy.current.has(index)) return;
    busy.current.add(index);
    try {
      const page = await inWindow<SamplePage>("samples", place, { ...asked(place), ...still, limit: PAGE, ...(slot.cursor ? { cursor: slot.cursor } : {}) });
      setFault(null);
      setSlots((slots) => {
        const next = slots.map((old, at) => (at === index ? { ...old, rows: page.samples, length: page.samples.length } : old));
        if (page.next && index === slots.length - 1) next.push({ cursor: page.next, rows: null, length: 0 });
        // What is far from here is let go.
        return next.map((old, at) => (old.rows && Math.abs(at - index) > PAGES_KEPT ? { ...old, rows: null } : old));
      });
      if (!page.next) setEnd(true);
    } catch (error) {
      setFault(error instanceof Fault ? error : new Fault("This list has a defect", 0, String(error)));
    } finally {
      busy.current.delete(index);
    }
  };

  const seen = Math.ceil((box.current?.clientHeight ?? 800) / height) + 1;
  const first = Math.max(0, base + Math.floor(top / height) - 5);
  const known = slots.reduce((sum, slot) => sum + slot.length, 0);
  const visible: { row: Brief | null; index: number }[] = [];
  const wanted = new Set<number>();
  let start = 0;
  slots.forEach((slot, at) => {
    for (let index = Math.max(start, first); index < Math.min(start + slot.length, first + seen + 10); index++) {
      visible.push({ row: slot.rows?.[index - start] ?? null, index });
      if (!slot.rows) wanted.add(at);
    }
    start += slot.length;
  });
  if (!end && first + seen + PAGE / 2 > known) wanted.add(slots.length - 1);
  const half = Math.floor(BOX_PIXELS_MAX / 2 / height);
  const skip = top > BOX_PIXELS_MAX ? half : top < 20 * height ? -Math.min(base, half) : 0;
  useLayoutEffect(() => {
    if (skip === 0) return;
    setBase(base + skip);
    setTop(top - skip * height);
  });
  // Once the box has its new height, the same rows stand where they stood.
  useLayoutEffect(() => {
    if (box.current && box.current.scrollTop !== top) box.current.scrollTop = top;
  }, [base]);
  useEffect(() => {
    if (!fault) wanted.forEach((index) => void fetchPage(index));
  });

  const move = (event: KeyboardEvent) => {
    const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    const current = (event.target as HTMLElement).dataset?.["index"];
    if (!step || current === undefined) return;
    event.preventDefault();
    const next = Number(current) + step;
    const found = box.current?.querySelector<HTMLElement>(`[data-index="${next}"]`);
    found?.focus();
  };

  if (known === 0 && end && !fault)
    return (
      <section class="card">
        <Empty title="No sample fits.">
          {place.query.get("q") || place.query.get("outcome") || place.query.get("score") ? <p>Take a filter or a word out, or choose a longer window.</p> : <p>One request in ten is kept, unless sample.rate says otherwise. Choose a longer window, or keep more.</p>}
        </Empty>
      </section>
    );
  return (
    <>
      {fault && <Failed fault={fault} again={() => setFault(null)} />}
      <div ref={box} class="list" role="table" aria-label="Samples" aria-rowcount={end ? known : -1} aria-busy={known === 0} onScroll={(event) => setTop(event.currentTarget.scrollTop)} onKeyDown={move} tabIndex={0}>
        <div class="top" role="row">
          <Sort name="Time, deployment" by="time" place={place} />
          <span role="columnheader">Question</span>
          <span role="columnheader">Answer</span>
          <span role="columnheader">Outcome</span>
          <Sort name="Latency" by="latency" place={place} kind="n" />
          <Sort name="Tokens" by="tokens" place={place} kind="n" />
          <Sort name="Scores" by="score" place={place} />
        </div>
        <div class="rows" role="rowgroup" style={{ height: `${(known - base) * height}px` }}>
          {visible.map(({ row, index }) => (row ? <Row key={index} row={row} index={index} top={(index - base) * height} place={place} /> : null))}
        </div>
      </div>
      <p class="count">
        <span role="status" data-count={known}>
          {end ? many(known, "sample") : `${many(known, "sample")} so far; scroll on for more`}
        </span>
        <span>Scores, 1 to 5: <b>G</b>roundedness, <b>R</b>elevance, <b>C</b>oherence, <b>F</b>luency, <b>S</b>imilarity, <b>U</b>ser feedback</span>
        <Downloads place={place} />
      </p>
    </>
  );
}

function Sort({ name, by, place, kind = "" }: { name: string; by: string; place: Place; kind?: "" | "n" }) {
  const [sort, order] = sorted(place.query);
  const current = sort === by;
  const other = order === "asc" ? "desc" : "asc";
  return (
    <span role="columnheader" class={kind} aria-sort={current ? (order === "asc" ? "ascending" : "descending") : "none"}>
      <button type="button" onClick={() => sortBy(by, current ? other : usualOrder(by))}>
        {name}
        {current && (order === "asc" ? " ↑" : " ↓")}
      </button>
    </span>
  );
}

function Row({ row, index, top, place }: { row: Brief; index: number; top: number; place: Place }) {
  const query = kept(place.query);
  const scores = Object.entries(row.scores);
  const href = address(`/samples/${row.id}`, query);
  const open = (event: MouseEvent) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go(href);
  };
  return (
    <div role="row" aria-rowindex={index + 2} class="row" style={{ top: `${top}px` }} onClick={open} data-sample={row.id}>
      <span role="cell">
        <a href={href} data-index={index}>
          {time(row.time).replace(/ \d{4},/, ",")}
        </a>
        <span class="under wide-only">{[row.deployment, row.model].filter(Boolean).join(" · ")}</span>
      </span>
      <span role="cell" class="text q">
        {row.question === null ? <span class="note">{words(row.operation)}, without a question</span> : <Content text={row.question} />}
      </span>
      <span role="cell" class="text">
        {row.answer === null ? "–" : <Content text={row.answer} />}
      </span>
      <span role="cell">
        <Badge word={row.outcome} />
      </span>
      <span role="cell" class="n took">
        {duration(row.latency_ms)}
      </span>
      <span role="cell" class="wide-only n">
        {short(row.usage.total)}
      </span>
      <span role="cell" class="judged">
        {scores.map(([criterion, score]) => (
          <span key={criterion} class={score < 3 ? "chip low" : "chip"} title={words(criterion)}>
            {criterion.charAt(0).toUpperCase()}
            {score}
            <span class="unseen"> {words(criterion)}</span>
          </span>
        ))}
      </span>
    </div>
  );
}

function Downloads({ place }: { place: Place }) {
  const query = new URLSearchParams({ ...moments(windowOf(place)), ...asked(place) });
  const link = (ending: string) => `/api/v1/samples.${ending}?${query}`;
  return (
    <span>
      Download these:{" "}
      <a href={link("csv")} download>
        CSV
      </a>{" "}
      <a href={link("jsonl")} download>
        JSON lines
      </a>{" "}
      <a href={link("parquet")} download>
        Parquet
      </a>
    </span>
  );
}

/** Rows are as high as the style sheet says, and higher on small screens. */
function useRowHeight(): number {
  const narrow = useRef(matchMedia("(max-width: 860px)"));
  const [height, set] = useState(narrow.current.matches ? 104 : 58);
  useLayoutEffect(() => {
    const listener = () => set(narrow.current.matches ? 104 : 58);
    narrow.current.addEventListener("change", listener);
    return () => narrow.current.removeEventListener("change", listener);
  }, []);
  return height;
}
