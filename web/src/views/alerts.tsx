// What monitors told, what it was about, and where to look.
import { inWindow } from "../api";
import { ago, time } from "../format";
import { Head } from "../frame";
import { useLoad } from "../load";
import { Badge, Card, Empty, Show } from "../parts";
import type { Place } from "../route";

interface AlertsAnswer {
  alerts: { id: string; monitor: string; state: string; opened: string; updated: string; summary: string; detail: string | null; link: string | null }[];
}

export function Alerts({ place }: { place: Place }) {
  const loaded = useLoad(place.query.toString(), (signal) => inWindow<AlertsAnswer>("alerts", place, {}, signal), 30_000);
  return (
    <>
      <Head title="Alerts" place={place} />
      <Show of={loaded} rows={6}>
        {({ alerts }) =>
          alerts.length === 0 ? (
            <Card title="No alert in this window" wide>
              <Empty title="No monitor told of anything.">
                <p>
                  <a href="/monitors">Monitors</a> say what raises an alert.
                </p>
              </Empty>
            </Card>
          ) : (
            <div class="cards">
              {alerts.map((alert) => (
                <Card key={alert.id} title={alert.summary} wide aside={<Badge word={alert.state} tone={alert.state === "resolved" ? "good" : "bad"} />}>
                  {alert.detail && <p>{alert.detail}</p>}
                  <p class="note">
                    Monitor {alert.monitor}, opened {time(alert.opened)} ({ago(alert.opened)}), last told {time(alert.updated)}
                  </p>
                  {alert.link && <a href={alert.link}>Look at what it is about</a>}
                </Card>
              ))}
            </div>
          )
        }
      </Show>
    </>
  );
}
