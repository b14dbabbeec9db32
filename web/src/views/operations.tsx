// Rate, errors, duration: of the window from the sums of all requests, and of this minute live.
import { useRef } from "preact/hooks";
import { inWindow, scope, windowOf, type Operations as Answer, type Served } from "../api";
import { Chart } from "../chart";
import { brief, count, duration, percent, rate, short, words } from "../format";
import { Head } from "../frame";
import { useLoad } from "../load";
import { quantile, scrape, sum, sums, type Scrape } from "../metrics";
import { metricName } from "../measures";
import { limitsOn, monitorsNow } from "../monitors";
import { useNames } from "../names";
import { Card, Empty, Figure, Figures, Shares, Show } from "../parts";
import type { Place } from "../route";
import { column, spread, type Series } from "../series";
import { latencyLines, NoTraffic, outcomeLines } from "./overview";

const EVERY_MS = 2000;
const KEPT = 150;

export function Operations({ place }: { place: Place }) {
  const names = useNames();
  const loaded = useLoad(
    place.query.toString(),
    async (signal) => {
      const [answer, monitors] = await Promise.all([inWindow<Answer>("operations", place, {}, signal), monitorsNow(signal)]);
      return { answer, monitors };
    },
    15_000,
  );
  return (
    <>
      <Head title="Operations" place={place} filters={["tap", "deployment", "model"]} names={names} />
      <Live place={place} />
      <Show of={loaded} rows={8}>
        {({ answer, monitors }) => (answer.total.requests === 0 ? <NoTraffic /> : <Past totals={answer.total} series={spread(answer.series, answer.step_seconds, windowOf(place))} limits={(metric) => limitsOn(monitors, metric, scope(place))} />)}
      </Show>
    </>
  );
}

/** The last minutes, from two-second scrapes of this flowtap's own metrics. */
function Live({ place }: { place: Place }) {
  const seen = useRef<Scrape[]>([]);
  const now = useLoad("live", scrape, EVERY_MS);
  if (now.data && seen.current.at(-1)?.at !== now.data.at) seen.current = [...seen.current, now.data].slice(-KEPT);
  const { outcome: _, ...wanted } = scope(place);
  const tap = wanted["tap"] ? { tap: wanted["tap"] } : {};
  const scrapes = seen.current;
  const [last, minuteAgo] = [scrapes.at(-1), scrapes.find((one) => one.at >= Date.now() - 60_000)];
  const between = last && minuteAgo && last !== minuteAgo ? { last, minuteAgo } : null;
  const grown = (from: Scrape, to: Scrape, more: Record<string, string> = {}) => Math.max(0, (sum(to, "flowtap_requests_total", { ...wanted, ...more }) ?? 0) - (sum(from, "flowtap_requests_total", { ...wanted, ...more }) ?? 0));
  const rates = scrapes.slice(1).map((to, index) => {
    const from = scrapes[index]!;
    return { at: to.at, all: grown(from, to) / ((to.at - from.at) / 1000), ok: grown(from, to, { outcome: "ok" }) / ((to.at - from.at) / 1000) };
  });
  const all = between ? grown(between.minuteAgo, between.last) : null;
  const ok = between ? grown(between.minuteAgo, between.last, { outcome: "ok" }) : null;
  const gen = wanted["deployment"] ? { deployment: wanted["deployment"], ...tap } : tap;
  const ms = (q: number, family: string) => (between ? duration((quantile(q, between.last, family, gen, between.minuteAgo) ?? NaN) * 1000) : "–");
  // A hub serves no traffic: what it shows lies in the bucket.
  if (last && sums(last, "flowtap_requests_total", "tap").length === 0)
    return <p class="note">No request has passed this flowtap since its start: there is nothing live to show. What follows is what the bucket has.</p>;
  return (
    <section class="card live" aria-label="Live">
      <header>
        <h2>
          <i class="pulse" /> Live
        </h2>
        <span class="note">the last minute at this flowtap, every {EVERY_MS / 1000} seconds</span>
      </header>
      {now.fault && !last ? (
        <Empty title={`${now.fault.message}.`}>
          <p>{now.fault.advice}</p>
        </Empty>
      ) : (
        <>
          <Figures>
            <Figure name="Requests a second" value={rate(between && all !== null ? all / ((between.last.at - between.minuteAgo.at) / 1000) : null)} />
            <Figure name="Under way" value={count(last ? sum(last, "flowtap_in_flight_requests", tap) : null)} />
            <Figure name="Not ok" value={percent(all ? (all - (ok ?? 0)) / all : all === 0 ? 0 : null)} {...(all && (all - (ok ?? 0)) / all > 0.05 ? { tone: "bad" } : {})} />
            <Figure name="Latency, p95" value={ms(0.95, "gen_ai_server_request_duration_seconds")} />
            <Figure name="First token, p95" value={ms(0.95, "gen_ai_server_time_to_first_token_seconds")} />
            <Figure name="Since the start" value={short(last ? sum(last, "flowtap_requests_total", wanted) ?? 0 : null)} exact={count(last ? sum(last, "flowtap_requests_total", wanted) : null)} sub="requests" />
          </Figures>
          {rates.length > 1 && (
            <Chart
              title="Requests a second, live"
              times={rates.map((one) => one.at / 1000)}
              step={EVERY_MS / 1000}
              height={110}
              seconds={300}
              unit={rate}
              lines={[
                { name: "All", values: rates.map((one) => one.all) },
                { name: "Not ok", colour: "bad", values: rates.map((one) => one.all - one.ok) },
              ]}
            />
          )}
        </>
      )}
    </section>
  );
}

function Past({ totals, series, limits }: { totals: Served; series: Series<Served>; limits: (metric: string) => { value: number; monitor: string }[] }) {
  const drawn = (metric: string, unit: (n: number) => string) => limits(metric).map(({ value, monitor }) => ({ value, name: `${monitor}: ${metricName(metric).replace(/^latency |^error rate$/, "")} ≤ ${unit(value)}` }));
  const at = { ...series, unit: duration };
  return (
    <>
      <Figures>
        <Figure name="Requests" value={short(totals.requests)} exact={count(totals.requests)} />
        <Figure name="Error rate" value={percent(totals.error_rate)} sub={`${count(totals.errors)} not ok`} {...((totals.error_rate ?? 0) > 0.05 ? { tone: "bad" } : {})} />
        <Figure name="Latency, median" value={duration(totals.latency_ms.p50)} />
        <Figure name="Latency, p95" value={duration(totals.latency_ms.p95)} />
        <Figure name="Latency, p99" value={duration(totals.latency_ms.p99)} />
        <Figure name="First token, p95" value={duration(totals.first_token_ms.p95)} sub="of streams" />
      </Figures>
      <div class="cards">
        <Card title="Requests">
          <Chart title="Requests by outcome" {...at} unit={count} axis={brief} stacked lines={outcomeLines(series)} />
        </Card>
        <Card title="Error rate">
          <Chart title="Error rate" {...at} unit={percent} lines={[{ name: "Not ok", colour: "bad", values: column(series, (served) => served.error_rate) }]} limits={drawn("error_rate", percent)} />
        </Card>
        <Card title="Latency">
          <Chart title="Latency" {...at} lines={latencyLines(series)} limits={["latency_p50_ms", "latency_p95_ms", "latency_p99_ms"].flatMap((metric) => drawn(metric, duration))} />
        </Card>
        <Card title="Time to first token" aside={<span class="note">of streams</span>}>
          {totals.first_token_ms.count > 0 ? (
            <Chart
              title="Time to first token"
              {...at}
              lines={[
                { name: "Median", values: column(series, (served) => served.first_token_ms.p50) },
                { name: "p95", values: column(series, (served) => served.first_token_ms.p95) },
              ]}
            />
          ) : (
            <Empty title="No streamed answer in this window." />
          )}
        </Card>
        <Card title="By outcome">
          <Shares title="Requests by outcome" name="Outcome" rows={Object.entries(totals.by_outcome).filter(([, n]) => n > 0).map(([name, value]) => ({ name: words(name), value }))} />
        </Card>
      </div>
    </>
  );
}
