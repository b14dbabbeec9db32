// The loss ledger: an account of every exchange by hour, that adds up.
import { inWindow } from "../api";
import { count, minute, words } from "../format";
import { useLoad } from "../load";
import { Badge, Card, Empty, Scroll, Show } from "../parts";
import type { Place } from "../route";

interface LedgerAnswer {
  hours: { hour: string; instance: string; seen: number; not_sampled: number; stored: number; pending: number; in_flight: number; dropped: { stage: string; reason: string; count: number }[]; closed: boolean }[];
}

export function Ledger({ place }: { place: Place }) {
  const loaded = useLoad(place.query.toString(), (signal) => inWindow<LedgerAnswer>("ledger", place, {}, signal), 30_000);
  return (
    <div class="cards">
      <Card title="Loss ledger" wide note="Seen = not sampled + stored + lost + under way, for every hour and every flowtap.">
        <Show of={loaded}>
          {({ hours }) =>
            hours.length === 0 ? (
              <Empty title="No hour in this window has an account.">
                <p>An hour's account is written to the bucket while it runs.</p>
              </Empty>
            ) : (
              <Hours hours={hours} />
            )
          }
        </Show>
      </Card>
    </div>
  );
}

function Hours({ hours }: LedgerAnswer) {
  return (
    <Scroll name="Loss ledger by hour">
      <table>
        <thead>
          <tr>
            <th scope="col">Hour</th>
            <th scope="col">flowtap</th>
            {["Seen", "Not sampled", "Stored", "Under way", "Lost"].map((name) => (
              <th scope="col" class="n" key={name}>
                {name}
              </th>
            ))}
            <th scope="col">Adds up</th>
          </tr>
        </thead>
        <tbody>
          {hours.map((row) => {
            const lost = row.dropped.reduce((sum, loss) => sum + loss.count, 0);
            const whole = row.seen === row.not_sampled + row.stored + row.pending + row.in_flight + lost;
            return (
              <tr key={`${row.hour} ${row.instance}`}>
                <th scope="row">{minute(row.hour)}</th>
                <td>{row.instance}</td>
                <td class="n">{count(row.seen)}</td>
                <td class="n">{count(row.not_sampled)}</td>
                <td class="n">{count(row.stored)}</td>
                <td class="n">{count(row.pending + row.in_flight)}</td>
                <td class="n" title={row.dropped.map((loss) => `${words(loss.stage)} ${words(loss.reason)}: ${loss.count}`).join(", ")}>
                  {count(lost)}
                </td>
                <td>
                  <Badge word={whole ? "yes" : "no"} tone={whole ? "good" : "bad"} />
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </Scroll>
  );
}
