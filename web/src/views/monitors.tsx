// What is watched: each monitor's figures against its thresholds, and its runs.
import { inWindow } from "../api";
import { ago, count, percent, time, UNKNOWN, words } from "../format";
import { Head } from "../frame";
import { useLoad } from "../load";
import { Badge, Card, Empty, Scroll, Show } from "../parts";
import type { Place } from "../route";

interface Metric {
  signal: string;
  metric: string;
  value: number | null;
  low: number | null;
  high: number | null;
  threshold: number;
  n: number | null;
  state: string;
}

interface Run {
  id: string;
  at: string;
  state: string;
  from: string;
  to: string;
  metrics: Metric[];
}

interface MonitorsAnswer {
  monitors: { name: string; schedule: string; window: string; next: string | null; yaml: string; runs: Run[] }[];
}

export function Monitors({ place }: { place: Place }) {
  const loaded = useLoad(place.query.toString(), (signal) => inWindow<MonitorsAnswer>("monitors", place, {}, signal), 30_000);
  return (
    <>
      <Head title="Monitors" place={place} />
      <Show of={loaded} rows={6}>
        {({ monitors }) => (monitors.length === 0 ? <NoMonitor /> : <div class="cards">{monitors.map((monitor) => <Monitor key={monitor.name} monitor={monitor} />)}</div>)}
      </Show>
    </>
  );
}

function NoMonitor() {
  return (
    <Card title="No monitor yet" wide>
      <Empty title="Nothing is watched.">
        <p>A monitor looks back at regular times and tells when a figure crosses its threshold. In the configuration:</p>
        <pre>{"monitors:\n  - name: daily\n    schedule: \"15 10 * * *\"\n    window: P7D\n    signals:\n      operations: {error_rate_max: 0.01, latency_p95_max: 10s}\nalerts: {email: {to: [ops@example.com], smtp: smtps://…}}"}</pre>
      </Empty>
    </Card>
  );
}

function Monitor({ monitor }: { monitor: MonitorsAnswer["monitors"][number] }) {
  const last = monitor.runs[0];
  return (
    <Card title={monitor.name} wide aside={last ? <Badge word={last.state} /> : <span class="note">has not run in this window</span>} note={`${monitor.schedule}, looks back ${monitor.window}${monitor.next ? `, next ${time(monitor.next)}` : ""}`}>
      {last && <Metrics run={last} />}
      {monitor.runs.length > 1 && (
        <details>
          <summary>{count(monitor.runs.length)} runs</summary>
          <ul>
            {monitor.runs.map((run) => (
              <li key={run.id}>
                {time(run.at)} <Badge word={run.state} />
              </li>
            ))}
          </ul>
        </details>
      )}
      {monitor.yaml && (
        <details>
          <summary>As YAML</summary>
          <pre class="raw" tabIndex={0}>
            {monitor.yaml}
          </pre>
        </details>
      )}
    </Card>
  );
}

const figure = (metric: Metric, value: number | null) => (value === null ? UNKNOWN : /rate|share/.test(metric.metric) ? percent(value) : Number.isInteger(value) ? count(value) : value.toFixed(2));

function Metrics({ run }: { run: Run }) {
  return (
    <Scroll name="Figures of the last run">
      <table>
        <caption class="note">
          {time(run.at)} ({ago(run.at)}), over {time(run.from)} to {time(run.to)}
        </caption>
        <thead>
          <tr>
            <th scope="col">Signal</th>
            <th scope="col">Metric</th>
            <th scope="col" class="n">
              Value
            </th>
            <th scope="col" class="n">
              Interval
            </th>
            <th scope="col" class="n">
              Threshold
            </th>
            <th scope="col">State</th>
          </tr>
        </thead>
        <tbody>
          {run.metrics.map((metric) => (
            <tr key={`${metric.signal} ${metric.metric}`}>
              <td>{words(metric.signal)}</td>
              <th scope="row">{words(metric.metric)}</th>
              <td class="n">{figure(metric, metric.value)}</td>
              <td class="n">{metric.low === null ? UNKNOWN : `${figure(metric, metric.low)} – ${figure(metric, metric.high)}`}</td>
              <td class="n">{figure(metric, metric.threshold)}</td>
              <td>
                <Badge word={metric.state} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}
