// How good the answers are, with what is known of how sure that is.
import { inWindow, moments, RATED, windowOf, type Judged, type Quality as Answer, type Scale } from "../api";
import { Chart } from "../chart";
import { count, percent, ratio, score, short, words } from "../format";
import { Head } from "../frame";
import { useLoad } from "../load";
import { scrape, sum, sums, type Scrape } from "../metrics";
import { monitorsIn, monitorsNow, thresholds, violationRate, type Monitors, type Threshold } from "../monitors";
import { useNames } from "../names";
import { Card, Empty, Figure, Figures, Heads, Interval, Scroll, Shares, Show } from "../parts";
import { address, kept, type Place } from "../route";
import { column, spread, type Series } from "../series";
import type { Between } from "../window";
import { ofAverage, ofPassRate } from "../sure";

interface Loaded {
  answer: Answer;
  monitors: Monitors;
  latest: Monitors;
  now: Scrape;
}

const STEPS: [name: string, seconds: number][] = [
  ["1m", 60],
  ["5m", 300],
  ["15m", 900],
  ["1h", 3600],
  ["6h", 21_600],
];
/** Scores are few: spans so long that a point stands on some, and its band says something. */
function stepOf({ from, to }: Between): string {
  const seconds = (to.getTime() - from.getTime()) / 1000;
  return STEPS.find(([, step]) => seconds / step <= 36)?.[0] ?? "1d";
}

export function Quality({ place }: { place: Place }) {
  const names = useNames();
  const loaded = useLoad(
    place.query.toString(),
    async (signal) => {
      const ran = monitorsIn(moments(windowOf(place)), signal);
      const [answer, monitors, latest, now] = await Promise.all([inWindow<Answer>("quality", place, { step: stepOf(windowOf(place)) }, signal), ran, monitorsNow(signal), scrape(signal)]);
      return { answer, monitors, latest, now };
    },
    30_000,
  );
  return (
    <>
      <Head title="Quality" place={place} filters={["tap", "deployment", "model"]} names={names} />
      <Show of={loaded} rows={8}>
        {(answer) => <Scored {...answer} place={place} />}
      </Show>
    </>
  );
}

function Scored({ answer, monitors, latest, now, place }: Loaded & { place: Place }) {
  const some = answer.criteria.filter((row) => row.count + row.failed + row.drifted > 0);
  const [judged, others] = [some.filter((row) => row.scale === "score"), some.filter((row) => row.scale !== "score")];
  if (some.length === 0) return <NoScores />;
  const series = (row: Judged) => spread(answer.series.filter((point) => point.criterion === row.criterion && point.scale === row.scale), answer.step_seconds, window);
  const limits = thresholds(latest);
  const errors = sums(now, "flowtap_score_errors_total", ["criterion", "reason"]).filter((row) => row.value > 0);
  const window = windowOf(place);
  return (
    <>
      <Glance judged={judged} monitors={monitors} now={now} />
      <div class="cards">
        {judged.length > 0 && (
        <Card title="By criterion" wide note={`Each score weighs as many requests as its sample stands for. Intervals are 95%. A score of ${answer.pass_score} or more passes.`}>
          <Table judged={judged} limits={limits} place={place} passScore={answer.pass_score} />
        </Card>
        )}
        {judged.map((row) => (
          <Trend key={row.criterion} criterion={row.criterion} series={series(row)} limits={limits} />
        ))}
        {others.length > 0 && (
          <Card title="Computed, or true and false" wide note="From 0 to 1, apart from judged scores: what flowtap computes of every sample, and the share of answers of which a criterion is true. Intervals are 95%.">
            <Values rows={others} limits={limits} />
          </Card>
        )}
        {others.map((row) => (
          <ValueTrend key={`${row.criterion} ${row.scale}`} row={row} series={series(row)} limits={limits} />
        ))}
        {errors.length > 0 && (
          <Card title="Judgements that failed" note="Since the start of this flowtap.">
            <Shares title="Judgements that failed, by why" name="Criterion · why" rows={errors.map((row) => ({ ...row, name: words(row.name) }))} />
          </Card>
        )}
      </div>
    </>
  );
}

function NoScores() {
  return (
    <Card title="No scores in this window" wide>
      <Empty title="Nothing was judged in this window.">
        <p>Choose a longer window, or give flowtap a judge: samples are then scored as they come.</p>
        <pre tabIndex={0}>{"judge: {url: https://…, api: azure_openai, model: gpt-4, api_key_file: /run/secrets/judge}\nevaluate: {criteria: [groundedness, relevance, coherence, fluency]}"}</pre>
      </Empty>
    </Card>
  );
}

function Glance({ judged, monitors, now }: { judged: Judged[]; monitors: Monitors; now: Scrape }) {
  const scores = judged.reduce((sum, row) => sum + row.count, 0);
  const failed = judged.reduce((sum, row) => sum + row.failed, 0);
  const drifted = judged.reduce((sum, row) => sum + row.drifted, 0);
  const { violations, possible } = violationRate(monitors);
  const [spent, perDay] = [sum(now, "flowtap_judge_tokens_today"), sum(now, "flowtap_judge_tokens_per_day")];
  const exhausted = (sum(now, "flowtap_judge_budget_exhausted") ?? 0) > 0;
  const passedOver = sum(now, "flowtap_evaluate_samples_total", { result: "not_drawn" }) ?? 0;
  const budget = exhausted ? `all of ${short(perDay)} a day are spent: samples wait or are skipped` : spent === null ? "this flowtap has no judge" : perDay ? `${percent(spent / perDay)} of ${short(perDay)} a day` : "no budget is set";
  return (
    <Figures>
      <Figure name="Violations" value={possible ? `${count(violations)} of ${count(possible)}` : "–"} sub={possible ? `${percent(violations / possible)} of what monitors looked at` : "no monitor ran in this window"} {...(violations ? { tone: "bad" } : {})} />
      <Figure name="Scores" value={short(scores)} exact={count(scores)} sub={judged.length === 1 ? "of one criterion" : `of ${judged.length} criteria`} />
      <Figure name="Not judged" value={short(failed)} exact={count(failed)} sub="attempts without a valid score" {...(failed > scores / 10 ? { tone: "warn" } : {})} />
      {drifted > 0 && <Figure name="Set aside" value={short(drifted)} exact={count(drifted)} sub="scores of a judge that failed its own test" tone="warn" />}
      <Figure name="Judge's tokens today" value={short(spent)} exact={count(spent)} sub={budget} {...(exhausted ? { tone: "bad" } : spent && perDay && spent > 0.9 * perDay ? { tone: "warn" } : {})} />
      {passedOver > 0 && <Figure name="Passed over" value={short(passedOver)} exact={count(passedOver)} sub="samples not drawn, by the rate or the budget; the averages allow for them" />}
    </Figures>
  );
}

const limitOf = (limits: Threshold[], criterion: string, metric: string) => limits.find((one) => one.criterion === criterion && one.metric === metric)?.value;

function Table({ judged, limits, place, passScore }: { judged: Judged[]; limits: Threshold[]; place: Place; passScore: number }) {
  const worst = (criterion: string) => {
    const query = kept(place.query);
    query.set("criterion", criterion);
    query.set("sort", "score");
    return address("/samples", query);
  };
  return (
    <Scroll name="Quality by criterion">
      <table class="scores">
        <Heads of={["Criterion", ["Average", "n"], "1 to 5", ["Interval", "n"], ["Passes", "n"], [`Below ${passScore}`, "n"], ["Scores", "n"], ["Read", "n"]]} />
        <tbody>
          {judged.map((row) => {
            const interval = ofAverage(row);
            const passes = ofPassRate(row);
            return (
              <tr key={row.criterion}>
                <th scope="row">{words(row.criterion)}</th>
                <td class="n" data-score={row.criterion}>
                  <strong>{score(row.average)}</strong>
                </td>
                <td>{row.average !== null && <Interval mean={row.average} {...interval} limit={limitOf(limits, row.criterion, "average") ?? null} />}</td>
                <td class="n">{interval ? `${score(interval.low)} – ${score(interval.high)}` : "too few"}</td>
                <td class="n" title={passes ? `${percent(passes.low)} – ${percent(passes.high)}` : ""}>
                  {percent(row.pass_rate)}
                </td>
                <td class="n">{count(row.violations)}</td>
                <td class="n">{count(row.count)}</td>
                <td class="n">
                  {RATED.includes(row.criterion) && (
                    <a href={worst(row.criterion)}>
                      Worst answers<span class="unseen"> by {words(row.criterion)}</span>
                    </a>
                  )}
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </Scroll>
  );
}

/** How a value of this scale is told. */
const told = (scale: Scale) => (scale === "boolean" ? percent : ratio);
const suffix = (scale: Scale) => (scale === "boolean" ? "share" : "mean");

function Values({ rows, limits }: { rows: Judged[]; limits: Threshold[] }) {
  return (
    <Scroll name="Computed criteria, and those that are true or false">
      <table class="scores">
        <Heads of={["Criterion", "What is told", ["Figure", "n"], "0 to 1", ["Interval", "n"], ["Threshold", "n"], ["Samples", "n"]]} />
        <tbody>
          {rows.map((row) => {
            const [low, high] = row.average_interval ?? [null, null];
            const limit = limitOf(limits, row.criterion, suffix(row.scale)) ?? null;
            const unit = told(row.scale);
            return (
              <tr key={`${row.criterion} ${row.scale}`}>
                <th scope="row">{words(row.criterion)}</th>
                <td>{row.scale === "boolean" ? "share that is true" : "average"}</td>
                <td class="n" data-value={row.criterion}>
                  <strong>{unit(row.average)}</strong>
                </td>
                <td>{row.average !== null && <Interval mean={row.average} low={low} high={high} limit={limit} scale={row.scale} />}</td>
                <td class="n">{low === null ? "too few" : `${unit(low)} – ${unit(high)}`}</td>
                <td class="n">{limit === null ? "–" : unit(limit)}</td>
                <td class="n">{count(row.count)}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </Scroll>
  );
}

function ValueTrend({ row: { criterion, scale }, series, limits }: { row: Judged; series: Series<Judged>; limits: Threshold[] }) {
  const name = words(criterion);
  const limit = limitOf(limits, criterion, suffix(scale));
  const unit = told(scale);
  const end = (at: 0 | 1) => column(series, (row) => row.average_interval?.[at]);
  return (
    <Card title={name.charAt(0).toUpperCase() + name.slice(1)}>
      <Chart
        title={`${scale === "boolean" ? "Share" : "Average"} of ${name}`}
        {...series}
        height={110}
        marks={[0, 0.5, 1]}
        unit={unit}
        lines={[{ name: `${scale === "boolean" ? "Share that is true" : "Average"}, 95% band`, colour: "c2", values: column(series, (row) => row.average), low: end(0), high: end(1) }]}
        {...(limit === undefined ? {} : { limits: [{ value: limit, name: `threshold ${unit(limit)}` }] })}
      />
    </Card>
  );
}

function Trend({ criterion, series, limits }: { criterion: string; series: Series<Judged>; limits: Threshold[] }) {
  const name = words(criterion);
  const [average, passRate] = [limitOf(limits, criterion, "average"), limitOf(limits, criterion, "pass_rate")];
  const ends = (of: (row: Judged) => { low: number; high: number } | null) => ({ low: column(series, (row) => of(row)?.low), high: column(series, (row) => of(row)?.high) });
  return (
    <Card title={name.charAt(0).toUpperCase() + name.slice(1)}>
      <Chart
        title={`Average ${name}`}
        {...series}
        height={150}
        marks={[1, 2, 3, 4, 5]}
        axis={count}
        unit={score}
        lines={[{ name: "Average, 95% band", values: column(series, (row) => row.average), ...ends(ofAverage) }]}
        {...(average === undefined ? {} : { limits: [{ value: average, name: `threshold ${average}` }] })}
      />
      <Chart
        title={`Pass rate of ${name}`}
        {...series}
        height={110}
        marks={[0, 0.5, 1]}
        unit={percent}
        lines={[{ name: "Pass rate, 95% band", colour: "c3", values: column(series, (row) => row.pass_rate), ...ends(ofPassRate) }]}
        {...(passRate === undefined ? {} : { limits: [{ value: passRate, name: `threshold ${percent(passRate)}` }] })}
      />
    </Card>
  );
}
