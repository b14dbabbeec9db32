// The loss ledger: an account of every exchange by hour, that adds up. And how far the index is.
import { moments, windowOf } from "../api";
import { ago, bytes, count, minute, time, words } from "../format";
import { get, useLoad } from "../load";
import { Badge, Card, Empty, Heads, Scroll, Show } from "../parts";
import type { Place } from "../route";

interface Account {
  hour?: string;
  seen: number;
  not_sampled: number;
  stored: number;
  pending: number;
  in_flight: number;
  dropped: { stage: string; reason: string; count: number }[];
  unaccounted_windows: number;
  balanced: boolean;
}

interface Answer {
  ledger: Account;
  hours: Account[];
  index: { caught_up: string | null; bucket: string; bytes: number; horizon: string | null; set_aside: { object: string; line: number | null; reason: string; at: string }[] };
}

export function Ledger({ place }: { place: Place }) {
  const loaded = useLoad(place.query.toString(), (signal) => get<Answer>("health", moments(windowOf(place)), signal), 15_000);
  return (
    <div class="cards">
      <Card title="Loss ledger" wide note="Seen = not sampled + stored + under way + lost, for every hour, over every flowtap that writes to the bucket.">
        <Show of={loaded}>
          {({ hours, ledger }) =>
            hours.length === 0 ? (
              <Empty title="No hour in this window has an account yet.">
                <p>An hour's account is written to the bucket while it runs.</p>
              </Empty>
            ) : (
              <Hours hours={hours} total={ledger} />
            )
          }
        </Show>
      </Card>
      <Card title="Index" wide note="What the page and the API read: made from the bucket, and made again from it where it is lost.">
        <Show of={loaded}>{({ index }) => <Index index={index} />}</Show>
      </Card>
    </div>
  );
}

const lost = (account: Account) => account.dropped.reduce((sum, loss) => sum + loss.count, 0);

function Hours({ hours, total }: { hours: Account[]; total: Account }) {
  return (
    <Scroll name="Loss ledger by hour">
      <table>
        <Heads of={["Hour", ["Seen", "n"], ["Not sampled", "n"], ["Stored", "n"], ["Under way", "n"], ["Lost", "n"], "Adds up"]} />
        <tbody>
          <Line name="All" account={total} strong />
          {hours.toReversed().map((hour) => (
            <Line key={hour.hour} name={minute(hour.hour ?? "")} account={hour} />
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}

function Line({ name, account, strong }: { name: string; account: Account; strong?: boolean }) {
  const told = account.dropped.map((loss) => `${words(loss.stage)} ${words(loss.reason)}: ${loss.count}`).join(", ");
  return (
    <tr class={strong ? "strong" : ""}>
      <th scope="row">{name}</th>
      <td class="n">{count(account.seen)}</td>
      <td class="n">{count(account.not_sampled)}</td>
      <td class="n">{count(account.stored)}</td>
      <td class="n">{count(account.pending + account.in_flight)}</td>
      <td class="n">
        {count(lost(account))} {told && <span class="note">{told}</span>}
      </td>
      <td>
        <Badge word={account.balanced ? "yes" : "no"} tone={account.balanced ? "good" : "bad"} /> {account.unaccounted_windows > 0 && <span class="note">a kill left a gap</span>}
      </td>
    </tr>
  );
}

function Index({ index }: { index: Answer["index"] }) {
  return (
    <>
      <dl class="facts">
        <dt>Bucket</dt>
        <dd class="mono">{index.bucket}</dd>
        <dt>Caught up</dt>
        <dd>{index.caught_up ? `${time(index.caught_up)} (${ago(index.caught_up)})` : "not yet: it still reads the bucket"}</dd>
        <dt>Size</dt>
        <dd>{bytes(index.bytes)}</dd>
        {index.horizon && [<dt key="t">Reaches back to</dt>, <dd key="d">{time(index.horizon)}</dd>]}
        <dt>Set aside</dt>
        <dd>{index.set_aside.length === 0 ? "nothing: every object could be read" : `${count(index.set_aside.length)} that could not be read`}</dd>
      </dl>
      {index.set_aside.length > 0 && (
        <Scroll name="Set aside">
          <table>
            <Heads of={["Object", "Line", "Why", "When"]} />
            <tbody>
              {index.set_aside.map((place) => (
                <tr key={`${place.object} ${place.line}`}>
                  <td class="mono">{place.object}</td>
                  <td>{place.line ?? "all"}</td>
                  <td>{words(place.reason)}</td>
                  <td>{time(place.at)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
    </>
  );
}
