// The parts of the page that need no browser: `npm test`.
import assert from "node:assert/strict";
import { test } from "node:test";
import { brief, bytes, count, duration, many, percent, score, short, UNKNOWN } from "../src/format.ts";
import { spelt } from "../src/hidden.tsx";
import { parse, quantile, sum, sums } from "../src/metrics.ts";
import { doublings } from "../src/views/tokens.tsx";
import { ordered } from "../src/views/waterfall.tsx";
import { between, fieldOf, parseLocal, read, wholeDay, write } from "../src/window.ts";

const plain = (text) => text.replaceAll("\u202f", " ");

test("numbers have their unit, and unknown is not zero", () => {
  const told = [
    [count(1234567), "1,234,567"],
    [short(99_999), "99,999"],
    [short(123_456), "123 k"],
    [short(6_543_210), "6.54 M"],
    [brief(50_000), "50 k"],
    [percent(0), "0 %"],
    [percent(0.00001), "<0.01 %"],
    [percent(0.0281), "2.81 %"],
    [percent(0.99999), "99.999 %"],
    [percent(1), "100 %"],
    [duration(0.038), "38 µs"],
    [duration(812.4), "812 ms"],
    [duration(61_500), "1 min 2 s"],
    [duration(90 * 86_400_000), "90 days"],
    [bytes(1536), "1.5 KiB"],
    [score(4.256), "4.26"],
    [many(1, "turn"), "1 turn"],
    [many(2, "turn"), "2 turns"],
  ];
  for (const [is, wanted] of told) assert.equal(plain(is), wanted);
  for (const unit of [count, short, percent, duration, bytes, score]) for (const nothing of [null, undefined, NaN]) assert.equal(unit(nothing), UNKNOWN);
});

test("what would be invisible or turn the writing around is spelt out", () => {
  assert.equal(spelt("a\u202Egnp.exe"), "a[U+202E]gnp.exe");
  assert.equal(spelt("pay\u200bpal\u2066x\u2069"), "pay[U+200B]pal[U+2066]x[U+2069]");
  assert.equal(spelt("\u{e0041}\u{1b}[31m\0"), "[U+E0041][U+001B][31m[U+0000]");
  assert.equal(spelt("line\r\nnext\ttab"), "line\nnext\ttab", "line ends and tabs are what they are");
  assert.equal(spelt("👩‍👩‍👧 नमस्ते שלום"), "👩‍👩‍👧 नमस्ते שלום", "joiners and right-to-left words stay");
});

test("a window goes into the address and comes back", () => {
  for (const text of ["", "last=7d", "from=2026-11-23T00%3A00%3A00Z&to=2026-11-24T00%3A00%3A00Z"]) {
    const query = new URLSearchParams();
    write(read(new URLSearchParams(text)), query);
    assert.equal(query.toString(), text);
  }
  const wrong = read(new URLSearchParams("from=2026-11-24&to=2026-11-23"));
  assert.deepEqual(wrong, { last: 86_400 }, "a window that ends before it begins is none");
  const { from, to } = between({ last: 3600 });
  assert.equal(to - from, 3_600_000);
  assert.ok(to >= Date.now() && to.getSeconds() === 0);
});

test("fields mean the zone that is shown, also on the days on which clocks change", () => {
  for (const field of ["2026-11-23T22:47", "2026-03-29T03:30", "2026-10-25T01:30", "2026-10-25T04:00"]) assert.equal(fieldOf(parseLocal(field)), field);
  assert.equal(parseLocal("2026-07-01T12:00").toISOString(), "2026-07-01T10:00:00.000Z");
  const yesterday = wholeDay(1);
  assert.equal(fieldOf(yesterday.from).slice(11), "00:00");
  assert.equal(yesterday.to.getTime(), wholeDay(0).from.getTime());
});

const PAGE = `# TYPE flowtap_requests_total counter
flowtap_requests_total{tap="chat",deployment="a\\"b\\\\",outcome="ok"} 7
flowtap_requests_total{tap="chat",deployment="c",outcome="timeout"} 1
flowtap_capture_bytes 12
t_bucket{le="0.1"} 50
t_bucket{le="0.2"} 90
t_bucket{le="+Inf"} 100
`;

test("metrics are read as Prometheus reads them", () => {
  const scrape = { at: 0, series: parse(PAGE) };
  assert.equal(sum(scrape, "flowtap_requests_total"), 8);
  assert.equal(sum(scrape, "flowtap_requests_total", { outcome: "timeout" }), 1);
  assert.equal(sum(scrape, "gone_total"), null);
  assert.deepEqual(sums(scrape, "flowtap_requests_total", "deployment"), [{ name: 'a"b\\', value: 7 }, { name: "c", value: 1 }]);
  assert.ok(Math.abs(quantile(0.7, scrape, "t") - 0.15) < 1e-9);
  assert.equal(quantile(0.99, scrape, "t"), 0.2, "past the last bound nothing is known but it");
  assert.equal(quantile(0.5, scrape, "t", {}, scrape), null, "nothing came between");
});

test("bins become doublings, with their gaps", () => {
  const bins = doublings([{ from: 60, to: 64, count: 2 }, { from: 500, to: 512, count: 1 }, { from: 65, to: 70, count: 3 }]);
  assert.deepEqual(bins, [
    { low: 32, high: 64, count: 2 },
    { low: 64, high: 128, count: 3 },
    { low: 128, high: 256, count: 0 },
    { low: 256, high: 512, count: 1 },
  ]);
});

test("spans stand below their parents, whatever came", () => {
  const span = (span_id, parent_span_id, second) => ({ span_id, parent_span_id, start: `2026-11-23T00:00:0${second}Z` });
  const told = (spans) => ordered(spans).map(({ span, depth }) => `${span.span_id}${depth}`);
  assert.deepEqual(told([span("b", "a", 2), span("c", "a", 1), span("a", null, 0), span("d", "c", 1)]), ["a0", "c1", "d2", "b1"]);
  assert.deepEqual(told([span("x", "gone", 0)]), ["x0"], "a parent that is not there");
  assert.deepEqual(told([span("x", "y", 0), span("y", "x", 0)]).length, 2, "each other's parents");
});
