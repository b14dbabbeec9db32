// A request's steps, each as long as it took, below the step that it is a part of.
import { useState } from "preact/hooks";
import type { Span } from "../api";
import { count, duration, UNKNOWN, words } from "../format";
import { Content } from "../hidden";
import { Badge } from "../parts";

const COLOURS: Record<string, string> = { flow: "quiet", function: "c1", llm: "c2", embedding: "c3", retrieval: "c6", other: "c5" };

/** The spans with their depth, each after its parent, siblings by their start. */
export function ordered(spans: Span[]): { span: Span; depth: number }[] {
  const known = new Set(spans.map((span) => span.span_id));
  const below = new Map<string | null, Span[]>();
  for (const span of spans) {
    const parent = span.parent_span_id !== null && known.has(span.parent_span_id) && span.parent_span_id !== span.span_id ? span.parent_span_id : null;
    below.set(parent, [...(below.get(parent) ?? []), span]);
  }
  const list: { span: Span; depth: number }[] = [];
  const met = new Set<string>();
  const walk = (parent: string | null, depth: number) => {
    const children = (below.get(parent) ?? []).sort((a, b) => Date.parse(a.start) - Date.parse(b.start));
    for (const span of children) {
      if (met.has(span.span_id)) continue;
      met.add(span.span_id);
      list.push({ span, depth });
      walk(span.span_id, depth + 1);
    }
  };
  walk(null, 0);
  // Spans that are their own ancestors have no root: they are shown all the same.
  for (const span of spans) if (!met.has(span.span_id)) list.push({ span, depth: 0 });
  return list;
}

export function Waterfall({ spans }: { spans: Span[] }) {
  const starts = spans.map((span) => Date.parse(span.start));
  const from = Math.min(...starts);
  const length = Math.max(...spans.map((span, index) => (starts[index] ?? 0) - from + span.duration_ms), 0.001);
  const kinds = Object.keys(COLOURS).filter((kind) => spans.some((span) => span.kind === kind && !span.failed));
  return (
    <>
      <p class="legend">
        {kinds.map((kind) => (
          <span key={kind}>
            <i class={`swatch ${COLOURS[kind]}`} />
            {words(kind)}
          </span>
        ))}
        {spans.some((span) => span.failed) && (
          <span>
            <i class="swatch bad" />
            failed
          </span>
        )}
      </p>
      <div class="ruler" aria-hidden="true">
        <span>
          {[0, 0.25, 0.5, 0.75, 1].map((part) => (
            <i key={part}>{duration(length * part)}</i>
          ))}
        </span>
      </div>
      <ul class="spans">
      {ordered(spans).map(({ span, depth }) => (
        <Step key={span.span_id} span={span} depth={depth} left={(Date.parse(span.start) - from) / length} width={span.duration_ms / length} />
      ))}
      </ul>
    </>
  );
}

function Step({ span, depth, left, width }: { span: Span; depth: number; left: number; width: number }) {
  const [open, setOpen] = useState(false);
  return (
    <li>
      <button type="button" aria-expanded={open} onClick={() => setOpen(!open)}>
        <span class="name" style={{ paddingLeft: `${Math.min(depth, 8) * 16}px` }}>
          {open ? "▾" : "▸"} {span.failed && <Badge word="failed" tone="bad" />} <Content text={span.name} />
          <span class="unseen"> {words(span.kind)}</span>
          {spent(span) && <span class="note"> {spent(span)}</span>}
        </span>
        <span class="track" aria-hidden="true">
          <i class={span.failed ? "bad" : (COLOURS[span.kind] ?? "c5")} style={{ left: `${Math.min(99.5, left * 100)}%`, width: `${Math.min(100 - left * 100, width * 100)}%` }} />
        </span>
        <span class="n">{duration(span.duration_ms)}</span>
      </button>
      {open && <More span={span} />}
    </li>
  );
}

/** What a call took and gave, where it tells. */
const spent = ({ usage }: Span) => (usage.input === null && usage.output === null ? "" : `${count(usage.input)} → ${count(usage.output)} tokens`);

function More({ span }: { span: Span }) {
  const text = (value: unknown) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));
  const contents: [string, unknown][] = [
    ["Error", span.error],
    ["Inputs", span.inputs],
    ["Output", span.output],
    ["Attributes", Object.keys(span.attributes).length ? span.attributes : null],
  ];
  return (
    <div class="more">
      <dl class="facts">
        <dt>Kind</dt>
        <dd>
          {words(span.kind)}, told by {span.source}
        </dd>
        {span.model && [<dt key="t">Model</dt>, <dd key="d">{`${span.model}${span.deployment ? ` (${span.deployment})` : ""}`}</dd>]}
        {(span.usage.input !== null || span.usage.output !== null) && [<dt key="t">Tokens</dt>, <dd key="d">{`${count(span.usage.input)} in, ${count(span.usage.output)} out: ${span.usage.source ?? UNKNOWN}`}</dd>]}
      </dl>
      {contents.map(
        ([name, value]) =>
          value !== null &&
          value !== undefined && (
            <div key={name}>
              <h3>{name}</h3>
              <pre class="raw" tabIndex={0} aria-label={name}>
                <Content text={text(value)} />
              </pre>
            </div>
          ),
      )}
    </div>
  );
}
