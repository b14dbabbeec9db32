// What monitors told, what it was about, and where to look.
import { moments, RATED, windowOf } from "../api";
import { ago, count, many, time, words } from "../format";
import { Head } from "../frame";
import { useLoad } from "../load";
import { scrape, sums } from "../metrics";
import { figure, metricName, sentence } from "../measures";
import { alertsIn, type Alert, type Run } from "../monitors";
import { Badge, Card, Empty, Show } from "../parts";
import { address, kept, type Place } from "../route";

export function Alerts({ place }: { place: Place }) {
  const loaded = useLoad(place.query.toString(), (signal) => alertsIn(moments(windowOf(place)), signal), 30_000);
  return (
    <>
      <Head title="Alerts" place={place} />
      <Undelivered />
      <Show of={loaded} rows={6}>
        {(alerts) =>
          alerts.length === 0 ? (
            <Card title="No alert in this window" wide>
              <Empty title="No monitor told of anything, and nothing is open.">
                <p>
                  <a href={address("/monitors", kept(place.query))}>Monitors</a> say what raises an alert.
                </p>
              </Empty>
            </Card>
          ) : (
            <div class="cards">
              {alerts.map((alert) => (
                <One key={alert.key} alert={alert} />
              ))}
            </div>
          )
        }
      </Show>
    </>
  );
}

const WHY: Record<string, string> = {
  failed: "its deadline passed before the target took it",
  refused: "the target will not take it, however often it is sent",
  dropped: "too many were waiting",
};

/** Messages that reached nobody: told first, and only where there are any. */
function Undelivered() {
  const loaded = useLoad("deliveries", scrape, 30_000);
  const now = loaded.data;
  if (!now) return null;
  const lost = Object.entries(WHY).flatMap(([result, why]) =>
    sums(now, "flowtap_alerts_total", "target", { result })
      .filter((row) => row.value > 0)
      .map((row) => ({ ...row, result, why })),
  );
  if (lost.length === 0) return null;
  return (
    <div class="cards">
      <Card title="Messages that reached nobody" wide aside={<Badge word="undelivered" tone="bad" />} note="Since the start of this flowtap. Its log says what each target answered; `flowtap alert test` tries them all.">
        <ul>
          {lost.map(({ name, value, result, why }) => (
            <li key={`${name} ${result}`}>
              {many(value, "message")} to {name}: {why}
            </li>
          ))}
        </ul>
      </Card>
    </div>
  );
}

/** Where the requests are that an alert is about: the window and the scope of its run. */
export function about({ run, signal, metric }: Alert): string | null {
  if (!run) return null;
  const query = new URLSearchParams({ from: run.from, to: run.to });
  for (const [name, value] of Object.entries(run.scope)) if (value !== null) query.set(name, value);
  const criterion = /^(.+)_(average|pass_rate)$/.exec(metric)?.[1];
  if (criterion && RATED.includes(criterion)) {
    query.set("criterion", criterion);
    query.set("sort", "score");
    return address("/samples", query);
  }
  if (signal === "generation_quality") return address("/quality", query);
  return address(signal === "token_statistics" ? "/tokens" : "/operations", query);
}

/** What an alert says. */
export const told = ({ measure, metric, signal }: Alert) => (measure ? sentence(measure) : `${metricName(metric)} ${words(signal)}`);

/** What the monitor looks at, in brackets; nothing where it is everything. */
function scoped(run: Alert["run"]): string {
  const told = Object.entries(run?.scope ?? {}).filter(([, value]) => value !== null);
  return told.length ? ` (${told.map(([name, value]) => `${name} ${value}`).join(", ")})` : "";
}

/** The monitor with this run in the window. */
function monitorAt(run: Run): string {
  const to = new Date(Date.parse(run.at) + 60_000).toISOString();
  return address("/monitors", new URLSearchParams({ monitor: run.monitor, from: run.from, to }));
}

function One({ alert }: { alert: Alert }) {
  const { measure, run, resolved } = alert;
  const link = about(alert);
  const said = told(alert);
  return (
    <Card title={said.charAt(0).toUpperCase() + said.slice(1)} wide aside={resolved === null ? <Badge word="open" tone="bad" /> : <Badge word="resolved" />}>
      {measure && run && (
        <p>
          From {time(run.from)} to {time(run.to)}
          {measure.low !== null && `; the true value lies between ${figure(measure.metric, measure.low)} and ${figure(measure.metric, measure.high)} with 95% confidence, from ${count(measure.count)} observations`}.
        </p>
      )}
      <p class="note">
        Monitor {run ? <a href={monitorAt(run)}>{alert.monitor}</a> : alert.monitor}
        {scoped(run)}, since {time(alert.since)} ({ago(alert.since)}), last told {time(alert.told)}
        {resolved !== null && `, resolved ${time(resolved)}`}
      </p>
      {link && <a href={link}>{link.startsWith("/samples") ? "Read the worst answers of that window" : "Look at that window"}</a>}
    </Card>
  );
}
