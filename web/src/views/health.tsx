// What flowtap itself costs, holds and loses: from its own metrics, as they are now.
import { bytes, count, duration, percent, short, words } from "../format";
import { Head } from "../frame";
import { useLoad } from "../load";
import { quantile, scrape, sum, sums, type Scrape } from "../metrics";
import { Card, Empty, Figure, Figures, Heads, Scroll, Shares, Show } from "../parts";
import type { Place } from "../route";
import { Ledger } from "./ledger";

export function Health({ place }: { place: Place }) {
  const now = useLoad("health", scrape, 5000);
  return (
    <>
      <Head title="Health" place={place} />
      <Show of={now} rows={8}>
        {(now) => (
          <>
            <Glance now={now} />
            <div class="cards">
              <Overhead now={now} />
              <Losses now={now} />
              <Spool now={now} />
              <Queues now={now} />
            </div>
          </>
        )}
      </Show>
      <Ledger place={place} />
    </>
  );
}

function Glance({ now }: { now: Scrape }) {
  const dropped = sum(now, "flowtap_dropped_total") ?? 0;
  const oldest = sum(now, "flowtap_archive_oldest_seconds");
  const open = sum(now, "flowtap_archive_breaker_open") ?? 0;
  const unaccounted = sum(now, "flowtap_unaccounted_seconds") ?? 0;
  const started = sum(now, "process_start_time_seconds");
  const version = now.series.get("flowtap_build_info")?.[0]?.labels["version"] ?? "";
  const p99 = quantile(0.99, now, "flowtap_overhead_seconds");
  return (
    <Figures>
      <Figure name="Observations lost" value={short(dropped)} exact={count(dropped)} tone={dropped > 0 ? "warn" : "good"} sub="since the start; traffic is never touched" />
      <Figure name="Overhead, p99" value={duration(p99 === null ? null : p99 * 1000)} sub="flowtap's own time in a request" {...(p99 !== null && p99 > 0.005 ? { tone: "warn" } : {})} />
      <Figure name="Oldest waiting" value={duration(oldest === null ? null : oldest * 1000)} sub={open ? "uploads pause: the bucket keeps failing" : "record that is not in the bucket yet"} {...(open || (oldest ?? 0) > 3600 ? { tone: "bad" } : {})} />
      <Figure name="Unaccounted for" value={duration(unaccounted * 1000)} sub={unaccounted ? "before this start: it was killed" : "the last end was clean"} {...(unaccounted ? { tone: "warn" } : {})} />
      <Figure name="Resident memory" value={bytes(sum(now, "process_resident_memory_bytes"))} sub={`${count(sum(now, "process_threads"))} threads`} />
      <Figure name="Running for" value={duration(started === null ? null : wholeMinutes(now.at - started * 1000))} sub={version && `version ${version}`} />
    </Figures>
  );
}

/** Above a minute, seconds are of no interest. */
const wholeMinutes = (ms: number) => (ms < 60_000 ? ms : ms - (ms % 60_000));

function Overhead({ now }: { now: Scrape }) {
  const taps = sums(now, "flowtap_overhead_seconds_count", "tap").filter((tap) => tap.value > 0);
  return (
    <Card title="Overhead" note="What flowtap itself spends on a request's heads, since the start.">
      {taps.length === 0 ? (
        <Empty title="No request has passed yet">
          <p>Send one through a tap.</p>
        </Empty>
      ) : (
        <Scroll name="Overhead by tap">
          <table>
            <Heads of={["Tap", ["Requests", "n"], ["p50", "n"], ["p95", "n"], ["p99", "n"]]} />
            <tbody>
              {taps.map((tap) => (
                <tr key={tap.name}>
                  <th scope="row">{tap.name}</th>
                  <td class="n">{count(tap.value)}</td>
                  {[0.5, 0.95, 0.99].map((q) => (
                    <td class="n" key={q}>
                      {duration((quantile(q, now, "flowtap_overhead_seconds", { tap: tap.name }) ?? NaN) * 1000)}
                    </td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
    </Card>
  );
}

function Losses({ now }: { now: Scrape }) {
  const lost = sums(now, "flowtap_dropped_total", ["stage", "reason"]).filter((row) => row.value > 0);
  return (
    <Card title="Lost, by stage and reason" note="Since the start of this process. Requests themselves are never lost to observing.">
      {lost.length === 0 ? (
        <Empty title="Nothing was lost">
          <p>Every observation reached its place.</p>
        </Empty>
      ) : (
        <Shares title="Observations lost, by stage and reason" name="Stage · reason" rows={lost.map((row) => ({ ...row, name: words(row.name) }))} />
      )}
    </Card>
  );
}

function Spool({ now }: { now: Scrape }) {
  const failures = sums(now, "flowtap_archive_failures_total", "kind").filter((row) => row.value > 0);
  const unsynced = quantile(0.99, now, "flowtap_spool_unsynced_seconds");
  const facts: [string, string][] = [
    ["Waiting on the local disk", `${bytes(sum(now, "flowtap_spool_bytes"))} in ${count(sum(now, "flowtap_spool_segments"))} segments`],
    ["A power cut would cost", `${duration((unsynced ?? NaN) * 1000)} (p99 of the wait for fsync)`],
    ["Stored in the bucket", `${count(sum(now, "flowtap_archive_objects_total"))} objects, ${bytes(sum(now, "flowtap_archive_bytes_total"))}`],
    ["Failed uploads", failures.length ? failures.map((row) => `${row.name} ${count(row.value)}`).join(", ") : "none"],
  ];
  return (
    <Card title="Spool and bucket">
      <dl class="facts">
        {facts.map(([name, value]) => [<dt key={name}>{name}</dt>, <dd>{value}</dd>])}
      </dl>
    </Card>
  );
}

function Queues({ now }: { now: Scrape }) {
  const queues = sums(now, "flowtap_queue_depth", "queue");
  const captured = sum(now, "flowtap_capture_bytes");
  const [open, most] = [sum(now, "process_open_fds"), sum(now, "process_max_fds")];
  return (
    <Card title="Queues and limits" note="Near a limit the next thing is a drop, which is counted.">
      <dl class="facts">
        {queues.map((queue) => [<dt key={queue.name}>Queue {queue.name}</dt>, <dd>{count(queue.value)} waiting</dd>])}
        <dt>Captured bodies in memory</dt>
        <dd>{bytes(captured)}</dd>
        <dt>Under way</dt>
        <dd>{count(sum(now, "flowtap_in_flight_requests"))} requests</dd>
        <dt>Files open</dt>
        <dd>
          {count(open)} of {count(most)} ({percent(open !== null && most ? open / most : null)})
        </dd>
      </dl>
    </Card>
  );
}
