// At a glance: how much, how well, how fast, how good.
import { useEffect } from "preact/hooks";
import { inWindow, moments, windowOf, type Judged, type Operations, type Overview as Answer, type Served, type Usage } from "../api";
import { Chart } from "../chart";
import { brief, count, duration, many, minute, percent, score, short, words } from "../format";
import { Head } from "../frame";
import { useLoad } from "../load";
import { alertsIn, monitorsNow, thresholds, type Alert, type Threshold } from "../monitors";
import { scrape, sum } from "../metrics";
import { learn, useNames } from "../names";
import { Card, Empty, Figure, Figures, Heads, Interval, Scroll, Show } from "../parts";
import { address, kept, type Place } from "../route";
import { column, spread, type Series } from "../series";
import { ofAverage } from "../sure";
import { told } from "./alerts";

export function Overview({ place }: { place: Place }) {
  const names = useNames();
  const loaded = useLoad(
    place.query.toString(),
    async (signal) => {
      const ask = <T,>(path: string) => inWindow<T>(path, place, {}, signal);
      const asked = alertsIn(moments(windowOf(place)), signal);
      const [answer, usage, operations, alerts, monitors] = await Promise.all([ask<Answer>("overview"), ask<Usage>("usage"), ask<Operations>("operations"), asked, monitorsNow(signal)]);
      return { answer, usage, operations, limits: thresholds(monitors), open: alerts.filter((alert) => alert.resolved === null), window: windowOf(place) };
    },
    30_000,
  );
  useEffect(() => {
    if (loaded.data) learn(loaded.data.answer.names);
  }, [loaded.data]);
  return (
    <>
      <Head title="Overview" place={place} filters={["tap", "deployment", "model"]} names={names} />
      <Show of={loaded} rows={8}>
        {({ answer, usage, operations, limits, open, window }) => (
          <Glance answer={answer} limits={limits} open={open} place={place} tokens={spread(usage.series, usage.step_seconds, window)} served={spread(operations.series, operations.step_seconds, window)} />
        )}
      </Show>
    </>
  );
}

/** Says that what is shown is not all yet. */
export function Behind({ caughtUp }: { caughtUp: string | null }) {
  return caughtUp !== null ? null : (
    <p class="note" role="status">
      The index still reads the bucket: figures of this window may grow.
    </p>
  );
}

/** Nothing passed, or it is too early to tell: what to do first. */
export function NoTraffic() {
  const now = useLoad("any traffic", scrape, 5000);
  const passed = now.data ? (sum(now.data, "flowtap_requests_total") ?? 0) : 0;
  if (passed > 0)
    return (
      <Card title="No figures of this window yet" wide>
        <Empty title={`${many(passed, "request")} passed since flowtap's start.`}>
          <p>
            Figures come minute by minute, some seconds after the minute is over. <a href="/operations">Operations</a> shows this very second, and <a href="/samples">Samples</a> what was kept already.
          </p>
        </Empty>
      </Card>
    );
  return (
    <Card title="No request in this window" wide>
      <Empty title="Nothing passed through flowtap in this window.">
        <p>Choose a longer window, or send a request through a tap:</p>
        <pre tabIndex={0}>{'curl http://127.0.0.1:8080/score -d \'{"question": "Is the tent waterproof?"}\''}</pre>
      </Empty>
    </Card>
  );
}

/** Where all there is lies at the window's very end: a shorter one shows more of it. */
function Lately({ served }: { served: Series<Served> }) {
  const first = served.points.findIndex((point) => point !== undefined);
  if (first < served.points.length - 3 || served.step < 300) return null;
  return (
    <p class="note">
      Nothing of this window is older than {minute((served.times[first] ?? 0) * 1000)}: <a href="/?last=1h">look at the last hour</a>.
    </p>
  );
}

interface GlanceProps {
  limits: Threshold[];
  answer: Answer;
  open: Alert[];
  place: Place;
  tokens: Series<Usage["series"][number]>;
  served: Series<Served>;
}

type Link = (path: string, more?: Record<string, string>) => string;

function Glance({ answer, limits, open, place, tokens, served }: GlanceProps) {
  const link: Link = (path, more = {}) => {
    const query = kept(place.query);
    for (const [name, value] of Object.entries(more)) query.set(name, value);
    return address(path, query);
  };
  if (answer.requests.requests === 0)
    return (
      <>
        <Behind caughtUp={answer.caught_up} />
        <NoTraffic />
      </>
    );
  return (
    <>
      <Behind caughtUp={answer.caught_up} />
      <Lately served={served} />
      <Sums answer={answer} open={open} link={link} />
      <div class="cards">
        <Card title="Requests" aside={<span class="note">by outcome</span>}>
          <Chart title="Requests by outcome" {...served} stacked unit={count} axis={brief} lines={outcomeLines(served)} />
        </Card>
        <Card title="Tokens" aside={<a href={link("/tokens")}>More on tokens</a>}>
          <Chart title="Tokens" {...tokens} stacked unit={count} axis={brief} lines={tokenLines(tokens)} />
        </Card>
        <Card title="Quality" aside={<a href={link("/quality")}>More on quality</a>} note="Average scores, 1 to 5, of the judged samples, each weighing as many requests as it stands for. The bar is the 95% interval, a dashed line a monitor's threshold.">
          <Scores quality={answer.quality} limits={limits} link={link} />
        </Card>
        <Card title="Latency" aside={<a href={link("/operations")}>More on operations</a>}>
          <Chart title="Latency" {...served} unit={duration} lines={latencyLines(served)} />
        </Card>
      </div>
    </>
  );
}

function Sums({ answer, open, link }: { answer: Answer; open: Alert[]; link: Link }) {
  const { requests, tokens, latency_ms } = answer;
  const taps = Object.entries(answer.by_tap);
  const byTap = taps.length > 1 ? taps.map(([tap, n]) => `${tap} ${short(n)}`).join(", ") : "all of them, sampled or not";
  const unknown = answer.usage_unknown ? `${count(answer.usage_unknown)} requests with unknown tokens` : "known of every request";
  return (
    <Figures>
      <Figure name="Requests" value={short(requests.requests)} exact={count(requests.requests)} sub={byTap} href={link("/operations")} />
      <Figure name="Total tokens" value={short(tokens.total)} exact={count(tokens.total)} sub={unknown} href={link("/tokens")} />
      <Figure name="Prompt tokens" value={short(tokens.input)} exact={count(tokens.input)} sub={tokens.cached_input ? `${percent(tokens.cached_input / tokens.input)} from cache` : "input"} />
      <Figure name="Completion tokens" value={short(tokens.output)} exact={count(tokens.output)} sub={tokens.reasoning_output ? `${percent(tokens.reasoning_output / tokens.output)} reasoning` : "output"} />
      <Figure name="Error rate" value={percent(requests.error_rate)} sub={`${count(requests.errors)} not ok`} href={link("/operations")} {...((requests.error_rate ?? 0) > 0.05 ? { tone: "bad" } : {})} />
      <Figure name="Latency, p95" value={duration(latency_ms.p95)} sub={`median ${duration(latency_ms.p50)}`} href={link("/operations")} />
      <Figure name="Open alerts" value={count(open.length)} sub={open[0] ? told(open[0]) : "nothing to do"} href={link("/alerts")} tone={open.length ? "bad" : "good"} />
    </Figures>
  );
}

const OUTCOMES: [string, string][] = [
  ["ok", "c1"],
  ["empty", "quiet"],
  ["client_abort", "c6"],
  ["client_error", "c5"],
  ["upstream_abort", "c4"],
  ["timeout", "c2"],
  ["connect_error", "c3"],
  ["upstream_error", "bad"],
];

/** A line for each outcome that happened, each with its own colour wherever it is shown. */
export function outcomeLines(series: Series<Served>) {
  const lines = OUTCOMES.map(([outcome, colour]) => ({ name: words(outcome), colour, values: column(series, (served) => served.by_outcome[outcome], 0) }));
  return lines.filter((line) => line.values.some((value) => (value ?? 0) > 0));
}

export const tokenLines = (series: Series<Usage["series"][number]>) => [
  { name: "Prompt", values: column(series, (spent) => spent.tokens.input, 0) },
  { name: "Completion", values: column(series, (spent) => spent.tokens.output, 0) },
];

export const latencyLines = (series: Series<Served>) => [
  { name: "Median", values: column(series, (served) => served.latency_ms.p50) },
  { name: "p95", values: column(series, (served) => served.latency_ms.p95) },
  { name: "p99", values: column(series, (served) => served.latency_ms.p99) },
];

function Scores({ quality, limits, link }: { quality: Judged[]; limits: Threshold[]; link: Link }) {
  const judged = quality.filter((row) => row.average !== null);
  if (judged.length === 0)
    return (
      <Empty title="No scores in this window.">
        <p>Give flowtap a judge, and samples are scored as they come:</p>
        <pre tabIndex={0}>{"judge: {url: …, model: gpt-4, api_key_file: …}"}</pre>
      </Empty>
    );
  return (
    <Scroll name="Quality by criterion">
      <table class="scores">
      <Heads of={["Criterion", ["Average", "n"], "1 to 5", ["Scores", "n"]]} />
      <tbody>
        {judged.map((row) => (
          <tr key={row.criterion}>
            <th scope="row">
              <a href={link("/samples", { sort: "score", criterion: row.criterion })}>{words(row.criterion)}</a>
            </th>
            <td class="n" data-score={row.criterion}>
              {score(row.average)}
            </td>
            <td>
              <Interval mean={row.average ?? 0} {...ofAverage(row)} limit={limits.find((limit) => limit.criterion === row.criterion && limit.metric === "average")?.value ?? null} />
            </td>
            <td class="n">{count(row.count)}</td>
          </tr>
        ))}
      </tbody>
      </table>
    </Scroll>
  );
}
