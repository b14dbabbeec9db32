// What is watched: each monitor's figures against its thresholds, and its runs.
import { moments, windowOf } from "../api";
import { ago, count, many, percent, time, UNKNOWN, words } from "../format";
import { Head } from "../frame";
import { useLoad } from "../load";
import { figure, metricName } from "../measures";
import { monitorsIn, type Measure, type Monitors as Answer, type Run } from "../monitors";
import { Badge, Card, Empty, Heads, Scroll, Show } from "../parts";
import { address, kept, type Place } from "../route";
import { Editor } from "./editor";

export function Monitors({ place }: { place: Place }) {
  // Messages link to one monitor by `?monitor=`.
  const one = place.query.get("monitor") ?? decodeURIComponent(place.path.slice("/monitors/".length));
  const loaded = useLoad(place.query.toString() + one, (signal) => monitorsIn(moments(windowOf(place)), signal, one), 30_000);
  return (
    <>
      <Head title={one ? `Monitor ${one}` : "Monitors"} place={place} />
      {one && (
        <p class="note">
          <a href={address("/monitors", kept(place.query))}>← All monitors</a>
        </p>
      )}
      <Show of={loaded} rows={6}>
        {(answer) => <Runs answer={answer} one={one} place={place} />}
      </Show>
      <Editor one={one} />
    </>
  );
}

function Runs({ answer, one, place }: { answer: Answer; one: string; place: Place }) {
  if (answer.latest.length === 0) return <NoRun />;
  return (
    <div class="cards">
      {answer.latest.map((run) => (
        <Monitor key={run.monitor} run={run} runs={answer.runs} alone={one === "" ? only(place, run.monitor) : null} />
      ))}
    </div>
  );
}

/** Where one monitor stands alone, in the same window. */
function only(place: Place, monitor: string): string {
  const query = kept(place.query);
  query.set("monitor", monitor);
  return address("/monitors", query);
}

function NoRun() {
  return (
    <Card title="No monitor ran in this window" wide>
      <Empty title="Nothing was watched in this window.">
        <p>Choose a longer window, or look below at what is watched, and when it runs next.</p>
      </Empty>
    </Card>
  );
}

function Monitor({ run, runs, alone }: { run: Run; runs: Answer["runs"]; alone: string | null }) {
  const own = runs.filter((one) => one.monitor === run.monitor);
  const scope = Object.entries(run.scope).filter(([, value]) => value !== null);
  const about = scope.length ? scope.map(([name, value]) => `${name} ${value}`).join(", ") : "everything";
  return (
    <Card title={run.monitor} wide aside={<Badge word={run.state} />} note={`Ran ${time(run.at)} (${ago(run.at)}) over ${time(run.from)} to ${time(run.to)}, looking at ${about}.`}>
      <Figures run={run} />
      {run.signals.some((signal) => signal.measures.some(isDoubtful)) && <p class="note">Not proven: past its threshold, but so few observations may be there by chance. Nobody is told before the evidence is strong, however often it is looked at.</p>}
      {(run.unscored > 0 || run.unreadable > 0) && (
        <p class="note">
          Left out: {many(run.unscored, "sample")} that no judge could score, {many(run.unreadable, "object")} that could not be read.
        </p>
      )}
      {own.length > 1 && (
        <details>
          <summary>{many(own.length, "run")} in this window</summary>
          <ul class="runs">
            {own.map((one) => (
              <li key={one.id}>
                {time(one.at)} <Badge word={one.state} />
              </li>
            ))}
          </ul>
        </details>
      )}
      {alone && (
        <p class="note">
          <a href={alone}>Only {run.monitor}</a>
        </p>
      )}
    </Card>
  );
}

function Figures({ run }: { run: Run }) {
  const all = run.signals.flatMap((signal) => signal.measures.map((measure) => ({ kind: signal.kind, measure })));
  // What is held against a threshold comes first.
  const rows = all.toSorted((a, b) => Number(b.measure.threshold !== null) - Number(a.measure.threshold !== null));
  return (
    <Scroll name={`Figures of ${run.monitor}`} whole>
      <table>
        <Heads of={["Metric", "State", ["Value", "n"], ["Threshold", "n"], ["95% interval", "n"], ["Violations", "n"], ["Observations", "n"], "Signal"]} />
        <tbody>
          {rows.map(({ kind, measure }) => (
            <Row key={`${kind} ${measure.metric}`} kind={kind} measure={measure} />
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}

/** Past its threshold, but by no more than chance may bring about: nobody is told yet. */
const isDoubtful = ({ state, value, threshold, bound }: Measure) => state === "ok" && value !== null && threshold !== null && (bound === "at_least" ? value < threshold : value > threshold);

function Row({ kind, measure }: { kind: string; measure: Measure }) {
  const { metric, low, high, threshold, bound, violations } = measure;
  return (
    <tr>
      <th scope="row">{metricName(metric)}</th>
      <td>{threshold === null ? "" : isDoubtful(measure) ? <Badge word="not proven" tone="warn" /> : <Badge word={measure.state} />}</td>
      <td class="n">{figure(metric, measure.value)}</td>
      <td class="n">{threshold === null ? UNKNOWN : `${bound === "at_least" ? "≥" : "≤"} ${figure(metric, threshold)}`}</td>
      <td class="n">{low === null || high === null ? "exact" : `${figure(metric, low)} – ${figure(metric, high)}`}</td>
      <td class="n">{violations && violations.possible > 0 ? `${count(violations.count)} of ${count(violations.possible)} (${percent(violations.count / violations.possible)})` : UNKNOWN}</td>
      <td class="n">{count(measure.count)}</td>
      <td>{words(kind)}</td>
    </tr>
  );
}
