// How good the answers are, with what is known of how sure that is.
import { inWindow, type Judged, type Series } from "../api";
import { Chart } from "../chart";
import { count, percent, score, short, words } from "../format";
import { Head } from "../frame";
import { useLoad } from "../load";
import { useNames } from "../names";
import { Card, Empty, Figure, Figures, Interval, Scroll, Shares, Show } from "../parts";
import { address, kept, type Place } from "../route";
import { column, times } from "../series";

interface QualityAnswer {
  pass_score: number;
  totals: Judged[];
  series: (Series<Judged> & { criterion: string })[];
  thresholds: { criterion: string; metric: "average" | "pass_rate"; value: number; monitor: string }[];
  violation_rate: { violations: number; possible: number };
  errors: Record<string, number>;
  judge: { tokens: number; budget: number | null } | null;
}

export function Quality({ place }: { place: Place }) {
  const names = useNames(place);
  const loaded = useLoad(place.query.toString(), (signal) => inWindow<QualityAnswer>("quality", place, {}, signal), 30_000);
  return (
    <>
      <Head title="Quality" place={place} filters={["deployment", "model"]} names={names} />
      <Show of={loaded} rows={8}>
        {(answer) => <Scored answer={answer} place={place} />}
      </Show>
    </>
  );
}

function Scored({ answer, place }: { answer: QualityAnswer; place: Place }) {
  const judged = answer.totals.filter((row) => row.n + row.failed > 0);
  if (judged.length === 0)
    return (
      <Card title="No scores in this window" wide>
        <Empty title="Nothing was judged in this window.">
          <p>Choose a longer window, or give flowtap a judge: samples are then scored as they come.</p>
          <pre>{"judge: {url: https://…, api: azure_openai, model: gpt-4, api_key_file: /run/secrets/judge}\nevaluate: {criteria: [groundedness, relevance, coherence, fluency]}"}</pre>
        </Empty>
      </Card>
    );
  const scores = judged.reduce((sum, row) => sum + row.n, 0);
  const failed = judged.reduce((sum, row) => sum + row.failed, 0);
  const { violations, possible } = answer.violation_rate;
  const limit = (criterion: string, metric: string) => answer.thresholds.find((one) => one.criterion === criterion && one.metric === metric);
  return (
    <>
      <Figures>
        <Figure name="Violations" value={possible ? `${count(violations)} of ${count(possible)}` : "–"} sub={possible ? `${percent(violations / possible)} of what monitors looked at` : "no monitor ran in this window"} {...(violations ? { tone: "bad" } : {})} />
        <Figure name="Scores" value={short(scores)} exact={count(scores)} sub={`of ${judged.length} criteria`} />
        <Figure name="Not judged" value={short(failed)} exact={count(failed)} sub="attempts without a valid score" {...(failed > scores / 10 ? { tone: "warn" } : {})} />
        {answer.judge && <Figure name="Judge's tokens today" value={short(answer.judge.tokens)} exact={count(answer.judge.tokens)} sub={answer.judge.budget ? `${percent(answer.judge.tokens / answer.judge.budget)} of ${short(answer.judge.budget)} a day` : "no budget is set"} />}
      </Figures>
      <div class="cards">
        <Card title="By criterion" wide note={`Weighted back to all requests. Intervals are 95%. A score of ${answer.pass_score} or more passes.`}>
          <Table judged={judged} limit={limit} place={place} passScore={answer.pass_score} />
        </Card>
        {answer.series.map((series) => (
          <Trend key={series.criterion} series={series} average={limit(series.criterion, "average")?.value} passRate={limit(series.criterion, "pass_rate")?.value} />
        ))}
        {Object.keys(answer.errors).length > 0 && (
          <Card title="Judgements that failed">
            <Shares title="Judgements that failed, by why" name="Why" rows={Object.entries(answer.errors).map(([name, value]) => ({ name: words(name), value }))} />
          </Card>
        )}
      </div>
    </>
  );
}

type Limit = (criterion: string, metric: string) => { value: number } | undefined;

function Table({ judged, limit, place, passScore }: { judged: Judged[]; limit: Limit; place: Place; passScore: number }) {
  const worst = (criterion: string) => {
    const query = kept(place.query);
    query.set("criterion", criterion);
    query.set("sort", "score");
    query.set("order", "asc");
    return address("/samples", query);
  };
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
              Interval
            </th>
            <th scope="col" class="n">
              Passes
            </th>
            <th scope="col" class="n">
              Below {passScore}
            </th>
            <th scope="col" class="n">
              Scores
            </th>
            <th scope="col" class="n">
              Read
            </th>
          </tr>
        </thead>
        <tbody>
          {judged.map((row) => (
            <tr key={row.criterion}>
              <th scope="row">{words(row.criterion)}</th>
              <td class="n" data-score={row.criterion}>
                <strong>{score(row.average.value)}</strong>
              </td>
              <td>{row.average.value !== null && <Interval mean={row.average.value} low={row.average.low} high={row.average.high} limit={limit(row.criterion, "average")?.value ?? null} />}</td>
              <td class="n">
                {score(row.average.low)} – {score(row.average.high)}
              </td>
              <td class="n">{percent(row.pass_rate.value)}</td>
              <td class="n">{count(row.violations)}</td>
              <td class="n">{count(row.n)}</td>
              <td class="n">
                <a href={worst(row.criterion)}>
                  Worst answers<span class="unseen"> by {words(row.criterion)}</span>
                </a>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}

function Trend({ series, average, passRate }: { series: Series<Judged> & { criterion: string }; average: number | undefined; passRate: number | undefined }) {
  const name = words(series.criterion);
  return (
    <Card title={name.charAt(0).toUpperCase() + name.slice(1)} >
      <Chart
        title={`Average ${name}`}
        {...times(series)}
        height={150}
        marks={[1, 2, 3, 4, 5]}
        axis={count}
        unit={score}
        lines={[{ name: "Average, 95% band", values: column(series, (point) => point.average.value), low: column(series, (point) => point.average.low), high: column(series, (point) => point.average.high) }]}
        {...(average === undefined ? {} : { limits: [{ value: average, name: `threshold ${average}` }] })}
      />
      <Chart
        title={`Pass rate of ${name}`}
        {...times(series)}
        height={110}
        marks={[0, 0.5, 1]}
        unit={percent}
        lines={[{ name: "Pass rate", colour: "c3", values: column(series, (point) => point.pass_rate.value), low: column(series, (point) => point.pass_rate.low), high: column(series, (point) => point.pass_rate.high) }]}
        {...(passRate === undefined ? {} : { limits: [{ value: passRate, name: `threshold ${percent(passRate)}` }] })}
      />
    </Card>
  );
}
