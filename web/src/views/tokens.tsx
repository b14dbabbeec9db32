// What was spent: over time, by model and deployment, by who says so, and how it is distributed.
import { inWindow, windowOf, type Bin, type Spent as Row, type Usage } from "../api";
import { Chart } from "../chart";
import { brief, count, percent, short, words } from "../format";
import { Head } from "../frame";
import { useLoad } from "../load";
import { useNames } from "../names";
import { Card, Empty, Figure, Figures, Histogram, Shares, Show } from "../parts";
import { address, kept, type Place } from "../route";
import { spread } from "../series";
import { NoTraffic, tokenLines } from "./overview";

const SOURCES: Record<string, string> = {
  reported: "by the upstream itself",
  joined: "sums of the flow's own calls",
  traced: "from the flow's spans",
  counted: "by flowtap's tokenizer",
  estimated: "streams that were cut, or over the limit",
};

interface Loaded {
  usage: Usage;
  models: Row[];
  deployments: Row[];
  place: Place;
}

export function Tokens({ place }: { place: Place }) {
  const names = useNames();
  const loaded = useLoad(
    place.query.toString(),
    async (signal) => {
      const by = (axis?: string) => inWindow<Usage>("usage", place, { by: axis }, signal);
      const [usage, models, deployments] = await Promise.all([by(), by("model"), by("deployment")]);
      return { usage, models: models.groups, deployments: deployments.groups };
    },
    30_000,
  );
  return (
    <>
      <Head title="Tokens" place={place} filters={["tap", "deployment", "model"]} names={names} />
      <Show of={loaded} rows={8}>
        {(answer) => (answer.usage.requests === 0 ? <NoTraffic /> : <Spent {...answer} place={place} />)}
      </Show>
    </>
  );
}

function Spent({ usage, models, deployments, place }: Loaded) {
  const { tokens } = usage;
  const series = spread(usage.series, usage.step_seconds, windowOf(place));
  const link = (name: string, value: string) => {
    const query = kept(place.query);
    query.set(name, value);
    return address("/tokens", query);
  };
  const mean = (sum: number) => (tokens.requests ? short(Math.round((sum / tokens.requests) * 10) / 10) : "–");
  return (
    <>
      <Figures>
        <Figure name="Total tokens" value={short(tokens.total)} exact={count(tokens.total)} sub={`of ${count(tokens.requests)} requests`} />
        <Figure name="Prompt tokens" value={short(tokens.input)} exact={count(tokens.input)} sub={`${mean(tokens.input)} a request`} />
        <Figure name="Completion tokens" value={short(tokens.output)} exact={count(tokens.output)} sub={`${mean(tokens.output)} a request`} />
        <Figure name="From cache" value={percent(tokens.input ? tokens.cached_input / tokens.input : null)} sub="of the prompt tokens" />
        <Figure name="Reasoning" value={percent(tokens.output ? tokens.reasoning_output / tokens.output : null)} sub="of the completion tokens" />
        <Figure name="Unknown" value={short(usage.usage_unknown)} exact={count(usage.usage_unknown)} sub="requests whose tokens nobody told" {...(usage.usage_unknown > 0 ? { tone: "warn" } : {})} />
      </Figures>
      <div class="cards">
        <Card title="Tokens over time" wide>
          <Chart
            title="Tokens over time"
            {...series}
            stacked
            height={240}
            unit={count}
            axis={brief}
            lines={tokenLines(series)}
          />
        </Card>
        <Card title="Prompt tokens of a request">
          <Spread title="Prompt tokens of a request" bins={usage.input_tokens.bins} colour="c1" />
        </Card>
        <Card title="Completion tokens of a request">
          <Spread title="Completion tokens of a request" bins={usage.output_tokens.bins} colour="c2" />
        </Card>
        <Card title="By model">
          <Split title="Tokens by model" name="Model" rows={models} href={(name) => link("model", name)} />
        </Card>
        <Card title="By deployment">
          <Split title="Tokens by deployment" name="Deployment" rows={deployments} href={(name) => link("deployment", name)} />
        </Card>
        <Card title="By who says so" note="Exact where the upstream reports them. A flow's tap and the tap before its models see the same tokens: choose one tap.">
          <Shares title="Tokens by source" name="Source" rows={Object.entries(usage.by_source).map(([name, sums]) => ({ name: `${words(name)}: ${SOURCES[name] ?? ""}`, value: sums.total }))} />
        </Card>
      </div>
    </>
  );
}

function Split({ title, name, rows, href }: { title: string; name: string; rows: Row[]; href: (name: string) => string }) {
  if (rows.length === 0) return <Empty title="No tokens are known in this window." />;
  const spent = rows.filter((row) => row.group || row.tokens.total > 0);
  const sorted = spent.map((row) => ({ name: row.group || "unknown", value: row.tokens.total, ...(row.group ? { href: href(row.group) } : {}) }));
  return <Shares title={title} name={name} rows={sorted.sort((a, b) => b.value - a.value)} />;
}

function Spread({ title, bins, colour }: { title: string; bins: Bin[]; colour: string }) {
  if (bins.length === 0) return <Empty title="No tokens are known in this window." />;
  return <Histogram title={title} colour={colour} unit={(n) => short(Math.round(n))} bins={doublings(bins)} />;
}

/** Bins a doubling wide, gaps included: few enough to be read. */
export function doublings(bins: Bin[]): { low: number; high: number; count: number }[] {
  const by = new Map<number, number>();
  for (const bin of bins) {
    const index = bin.to <= 1 ? 0 : Math.ceil(Math.log2(bin.to) - 1e-9);
    by.set(index, (by.get(index) ?? 0) + bin.count);
  }
  const [first, last] = [Math.min(...by.keys()), Math.max(...by.keys())];
  return Array.from({ length: last - first + 1 }, (_, step) => first + step).map((index) => ({ low: index === 0 ? 0 : 2 ** (index - 1), high: 2 ** index, count: by.get(index) ?? 0 }));
}
