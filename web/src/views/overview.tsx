// At a glance: how much, how well, how fast, how good.
import { inWindow, type Judged, type Series, type Sums } from "../api";
import { Chart } from "../chart";
import { ago, brief, count, duration, percent, score, short, words } from "../format";
import { Head } from "../frame";
import { useLoad } from "../load";
import { useNames } from "../names";
import { Badge, Card, Empty, Figure, Figures, Interval, Scroll, Show } from "../parts";
import { address, kept, type Place } from "../route";
import { column, times } from "../series";

interface OverviewAnswer {
  totals: Sums;
  series: Series<Sums>;
  quality: Judged[];
  alerts_open: number;
  alerts: { id: string; monitor: string; opened: string; summary: string }[];
}

export function Overview({ place }: { place: Place }) {
  const names = useNames(place);
  const loaded = useLoad(place.query.toString(), (signal) => inWindow<OverviewAnswer>("overview", place, {}, signal), 30_000);
  return (
    <>
      <Head title="Overview" place={place} filters={["tap", "deployment", "model"]} names={names} />
      <Show of={loaded} rows={8}>
        {(answer) => <Glance answer={answer} place={place} />}
      </Show>
    </>
  );
}

/** Nothing passed: what to do first. */
export function NoTraffic() {
  return (
    <Card title="No request in this window" wide>
      <Empty title="Nothing passed through flowtap in this window.">
        <p>Choose a longer window, or send a request through a tap:</p>
        <pre>{'curl http://127.0.0.1:8080/score -d \'{"question": "Is the tent waterproof?"}\''}</pre>
      </Empty>
    </Card>
  );
}

function Glance({ answer, place }: { answer: OverviewAnswer; place: Place }) {
  const { totals, series, quality } = answer;
  const link = (path: string, more: Record<string, string> = {}) => {
    const query = kept(place.query);
    for (const [name, value] of Object.entries(more)) query.set(name, value);
    return address(path, query);
  };
  if (totals.requests === 0) return <NoTraffic />;
  const unknown = totals.usage_unknown ? `${count(totals.usage_unknown)} requests with unknown tokens` : "of all requests";
  return (
    <>
      <Figures>
        <Figure name="Requests" value={short(totals.requests)} exact={count(totals.requests)} sub="all of them, sampled or not" href={link("/operations")} />
        <Figure name="Total tokens" value={short(totals.tokens.total)} exact={count(totals.tokens.total)} sub={unknown} href={link("/tokens")} />
        <Figure name="Prompt tokens" value={short(totals.tokens.input)} exact={count(totals.tokens.input)} sub={totals.tokens.cached_input ? `${percent(totals.tokens.cached_input / totals.tokens.input)} from cache` : "input"} />
        <Figure name="Completion tokens" value={short(totals.tokens.output)} exact={count(totals.tokens.output)} sub={totals.tokens.reasoning_output ? `${percent(totals.tokens.reasoning_output / totals.tokens.output)} reasoning` : "output"} />
        <Figure name="Error rate" value={percent(totals.error_rate)} sub={`${count(totals.errors)} not ok`} href={link("/samples", { outcome: "error" })} {...((totals.error_rate ?? 0) > 0.05 ? { tone: "bad" } : {})} />
        <Figure name="Latency, p95" value={duration(totals.latency_ms.p95)} sub={`median ${duration(totals.latency_ms.p50)}`} href={link("/operations")} />
        <Figure name="Open alerts" value={count(answer.alerts_open)} sub={answer.alerts_open ? "look at them" : "nothing to do"} href={link("/alerts")} tone={answer.alerts_open ? "bad" : "good"} />
      </Figures>
      <div class="cards">
        <Card title="Requests" aside={<span class="note">by outcome</span>}>
          <Chart title="Requests by outcome" {...times(series)} stacked unit={count} axis={brief} lines={outcomeLines(series)} />
        </Card>
        <Card title="Tokens" aside={<a href={link("/tokens")}>More on tokens</a>}>
          <Chart
            title="Tokens"
            {...times(series)}
            stacked
            unit={count} axis={brief}
            lines={[
              { name: "Prompt", values: column(series, (sums) => sums.tokens.input) },
              { name: "Completion", values: column(series, (sums) => sums.tokens.output) },
            ]}
          />
        </Card>
        <Card title="Quality" aside={<a href={link("/quality")}>More on quality</a>} note="Average scores of the judged samples, 1 to 5, weighted back to all requests; the bar is the 95% interval.">
          <Scores quality={quality} link={link} />
        </Card>
        <Card title="Open alerts" aside={<a href={link("/alerts")}>All alerts</a>}>
          {answer.alerts.length === 0 ? (
            <Empty title="No alert is open.">
              <p>
                <a href={link("/monitors")}>Monitors</a> say what raises one.
              </p>
            </Empty>
          ) : (
            <ul>
              {answer.alerts.slice(0, 6).map((alert) => (
                <li key={alert.id}>
                  <Badge word="open" tone="bad" /> <a href={link("/alerts")}>{alert.summary}</a> <span class="note">{ago(alert.opened)}</span>
                </li>
              ))}
            </ul>
          )}
        </Card>
      </div>
    </>
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
export function outcomeLines(series: Series<Sums>) {
  const lines = OUTCOMES.map(([outcome, colour]) => ({ name: words(outcome), colour, values: column(series, (sums) => sums.outcomes[outcome] ?? 0) }));
  return lines.filter((line) => line.values.some((value) => (value ?? 0) > 0));
}

function Scores({ quality, link }: { quality: Judged[]; link: (path: string, more?: Record<string, string>) => string }) {
  const judged = quality.filter((row) => row.n > 0);
  if (judged.length === 0)
    return (
      <Empty title="No scores in this window.">
        <p>Give flowtap a judge, and samples are scored as they come:</p>
        <pre>{"judge: {url: …, model: gpt-4, api_key_file: …}"}</pre>
      </Empty>
    );
  return (
    <Scroll name="Quality by criterion">
      <table class="scores">
      <thead>
        <tr>
          <th scope="col">Criterion</th>
          <th scope="col" class="n">
            Average
          </th>
          <th scope="col">1 to 5</th>
          <th scope="col" class="n">
            Scores
          </th>
        </tr>
      </thead>
      <tbody>
        {judged.map((row) => (
          <tr key={row.criterion}>
            <th scope="row">
              <a href={link("/samples", { sort: "score", criterion: row.criterion, order: "asc" })}>{words(row.criterion)}</a>
            </th>
            <td class="n" data-score={row.criterion}>
              {score(row.average.value)}
            </td>
            <td>
              <Interval mean={row.average.value ?? 0} low={row.average.low} high={row.average.high} />
            </td>
            <td class="n">{count(row.n)}</td>
          </tr>
        ))}
      </tbody>
      </table>
    </Scroll>
  );
}
