// One sample: what was asked and answered, what was said of it, where its time went.
import type { ComponentChildren } from "preact";
import type { Brief, Call, Message, OneSample, RecordLine, ScoreLine, Trace as Steps } from "../api";
import { useState } from "preact/hooks";
import { count, duration, many, percent, ratio, time, UNKNOWN, words } from "../format";
import { Head } from "../frame";
import { Content, spelt } from "../hidden";
import { get, useLoad } from "../load";
import { Badge, Card, Empty, Heads, Scroll, Show } from "../parts";
import { address, kept, type Place } from "../route";
import { Waterfall } from "./waterfall";

export function Sample({ place }: { place: Place }) {
  const id = decodeURIComponent(place.path.slice("/samples/".length));
  const loaded = useLoad(id, (signal) => get<OneSample>(`samples/${encodeURIComponent(id)}`, {}, signal));
  return (
    <>
      <Head title="Sample" place={place} still />
      <p class="note">
        <a href={address("/samples", kept(place.query))}>← Samples</a> <span class="mono">{id}</span> <CopyLink />
      </p>
      <Show of={loaded} rows={10}>
        {(answer) => <One answer={answer} />}
      </Show>
    </>
  );
}

function CopyLink() {
  const [told, tell] = useState("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(location.origin + location.pathname);
      tell("Copied");
    } catch {
      tell("Copy the address from the address bar");
    }
  };
  return (
    <>
      <button type="button" class="link" onClick={() => void copy()}>
        Copy link
      </button>{" "}
      <span role="status">{told}</span>
    </>
  );
}

function One({ answer }: { answer: OneSample }) {
  const { record, sample, scores } = answer;
  if (!record)
    return (
      <div class="cards">
        <Gone answer={answer} />
        <Scores scores={scores} />
      </div>
    );
  return (
    <div class="cards">
      <Card title="Question and answer" aside={<Badge word={sample.outcome} />}>
        <Turns history={record.chat_history} />
        <Said name="Question" value={record.question} />
        <Said name="Answer" value={record.answer} answer />
        {record.context !== null && (
          <details>
            <summary>Context</summary>
            <Said value={record.context} />
          </details>
        )}
        {record.ground_truth !== null && <Said name="Ground truth" value={record.ground_truth} />}
      </Card>
      <Scores scores={scores} />
      <Timing sample={record} />
      <Facts sample={record} answer={answer} />
      {record.calls.length > 0 && <Calls calls={record.calls} />}
      <Trace id={sample.id} />
      <Raw name="Request" message={record.request} />
      <Raw name="Response" message={record.response} />
    </div>
  );
}

/** What is left where the bucket has the record no more. */
function Gone({ answer: { sample, missing, object } }: { answer: OneSample }) {
  return (
    <Card title="Question and answer" aside={<Badge word={sample.outcome} />} note={`The bucket does not give the whole record (${missing}): ${object}. What the index knows:`}>
      <Said name="Question, its beginning" value={sample.question} />
      <Said name="Answer, its beginning" value={sample.answer} answer />
      <BriefFacts sample={sample} />
    </Card>
  );
}

function BriefFacts({ sample }: { sample: Brief }) {
  return (
    <dl class="facts">
      <dt>Time</dt>
      <dd>{time(sample.time)}</dd>
      <dt>Deployment</dt>
      <dd>{sample.deployment}</dd>
      <dt>Model</dt>
      <dd>{sample.model || UNKNOWN}</dd>
      <dt>Latency</dt>
      <dd>{duration(sample.latency_ms)}</dd>
      <dt>Tokens</dt>
      <dd>{count(sample.usage.total)}</dd>
    </dl>
  );
}

/** A value of content as text: what is no text is shown as JSON. */
const textOf = (value: unknown) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));

function Said({ name, value, answer }: { name?: string; value: unknown; answer?: boolean }) {
  return (
    <div class="turn">
      {name && <b>{name}</b>}
      {value === null || value === undefined ? (
        <p class="note">{UNKNOWN} not known</p>
      ) : (
        <div class={answer ? "said answer" : "said"} tabIndex={0} role="group" aria-label={name ?? "Context"}>
          <Content text={textOf(value)} />
        </div>
      )}
    </div>
  );
}

function Turns({ history }: { history: unknown }) {
  if (!Array.isArray(history) || history.length === 0) return null;
  return (
    <details>
      <summary>
        {many(history.length, "turn")} before<span class="unseen"> the question</span>
      </summary>
      {history.map((turn, index) => (
        <Said key={index} name={`Turn ${index + 1}`} value={turn} />
      ))}
    </details>
  );
}

/** The worst score comes first; what was computed comes after what was judged, and failures last. */
const rank = ({ score, value }: ScoreLine) => score ?? (value === null ? 20 : 10);

function Scores({ scores }: { scores: ScoreLine[] }) {
  return (
    <Card title="Scores">
      {scores.length === 0 ? (
        <Empty title="Not judged.">
          <p>With a judge in the configuration, samples are scored as they come.</p>
        </Empty>
      ) : (
        scores.toSorted((a, b) => rank(a) - rank(b)).map((score) => (
          <div class="turn" key={`${score.criterion} ${score.time}`}>
            <p>
              <strong>{words(score.criterion)}</strong> <Given score={score} />{" "}
              {score.judge_drift && <Badge word="judge failed its own test" />}
              {score.injection_suspect && <Badge word="may talk to the judge" />}
            </p>
            {score.reason && (
              <p>
                <Content text={score.reason} />
              </p>
            )}
            <p class="note">
              {score.judge ? `${score.judge.model}, ${score.judge.prompt}` : score.criterion === "user_feedback" ? "a user" : "computed"}, {time(score.time)}
            </p>
          </div>
        ))
      )}
    </Card>
  );
}

/** What was given, on its own scale. */
function Given({ score: { scale, score, value, error } }: { score: ScoreLine }) {
  if (score !== null) return <span class={score < 3 ? "chip low" : "chip"}>{score} of 5</span>;
  if (value === null) return <Badge word={error ?? "no score"} />;
  return <span class="chip">{scale === "boolean" ? (value > 0 ? "true" : "false") : ratio(value)}</span>;
}

function Timing({ sample }: { sample: RecordLine }) {
  const first = sample.first_token_ms ?? sample.first_byte_ms;
  const parts = [
    { name: sample.first_token_ms !== null ? "until the first token" : "until the first byte", ms: first, tone: "c2" },
    { name: "until the last byte", ms: first === null ? sample.latency_ms : sample.latency_ms - first, tone: "c1" },
  ].filter((part): part is { name: string; ms: number; tone: string } => part.ms !== null);
  const perToken = sample.first_token_ms !== null && (sample.usage.output ?? 0) > 1 ? (sample.latency_ms - sample.first_token_ms) / ((sample.usage.output ?? 0) - 1) : null;
  return (
    <Card title={sample.stream ? "Stream timing" : "Timing"}>
      <div class="timing" role="img" aria-label={parts.map((part) => `${part.name}: ${duration(part.ms)}`).join(", ")}>
        {parts.map((part) => (
          <i key={part.name} class={part.tone} style={{ flexGrow: String(Math.max(part.ms, 0.01)) }} />
        ))}
      </div>
      <p class="legend">
        {parts.map((part) => (
          <span key={part.name}>
            <i class={`swatch ${part.tone}`} />
            {part.name}
            <b>{duration(part.ms)}</b>
          </span>
        ))}
      </p>
      <dl class="facts">
        <dt>Latency</dt>
        <dd>{duration(sample.latency_ms)}</dd>
        <dt>First byte</dt>
        <dd>{duration(sample.first_byte_ms)}</dd>
        {sample.first_token_ms !== null && [<dt key="t">First token</dt>, <dd key="d">{duration(sample.first_token_ms)}</dd>]}
        {perToken !== null && [<dt key="t">Each token after it</dt>, <dd key="d">{duration(perToken)}</dd>]}
        <dt>Added by flowtap</dt>
        <dd>{duration(sample.overhead_us / 1000)}</dd>
      </dl>
    </Card>
  );
}

function Facts({ sample, answer }: { sample: RecordLine; answer: OneSample }) {
  const { usage } = sample;
  const redacted = Object.entries(sample.redactions).map(([kind, n]) => `${words(kind)} ${n}`);
  const facts: [string, ComponentChildren][] = [
    ["Time", time(sample.time)],
    ["Deployment", sample.deployment],
    ["Tap", `${sample.tap} (${sample.instance})`],
    ["Model", sample.model.response ?? sample.model.request ?? UNKNOWN],
    ["Request", `${sample.method} ${sample.path}, ${sample.dialect}`],
    ["Status", sample.status === null ? "no answer was sent" : String(sample.status)],
    ["Tokens", usage.total === null ? "unknown" : `${count(usage.input)} in, ${count(usage.output)} out, ${count(usage.total)} in all: ${usage.source ?? ""}`],
    ["Kept because", `${sample.sample.reason}, with a probability of ${percent(sample.sample.probability)}`],
    ["Redacted", redacted.length ? redacted.join(", ") : "nothing"],
    ["Stored in", <span class="mono">{`${answer.object}, line ${answer.line}`}</span>],
    ["Trace", sample.trace_id ? <span class="mono">{sample.trace_id}</span> : UNKNOWN],
    ["Request id", sample.request_id ? <Content text={sample.request_id} /> : UNKNOWN],
  ];
  return (
    <Card title="Facts">
      <dl class="facts">
        {facts.map(([name, value]) => [<dt key={name}>{name}</dt>, <dd>{typeof value === "string" ? <Content text={value} /> : value}</dd>])}
      </dl>
    </Card>
  );
}

function Calls({ calls }: { calls: Call[] }) {
  return (
    <Card title="Calls to models" note="What the flow asked of its models for this request.">
      <Scroll name="Each call to a model">
        <table>
          <Heads of={["Model", "Deployment", ["Prompt", "n"], ["Completion", "n"], ["Latency", "n"], ["Status", "n"]]} />
          <tbody>
            {calls.map((call, index) => (
              <tr key={index}>
                <th scope="row">{call.model ?? UNKNOWN}</th>
                <td>{call.deployment ?? UNKNOWN}</td>
                <td class="n">{count(call.input)}</td>
                <td class="n">{count(call.output)}</td>
                <td class="n">{duration(call.latency_ms)}</td>
                <td class="n">{call.status ?? UNKNOWN}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </Card>
  );
}

function Trace({ id }: { id: string }) {
  const loaded = useLoad(id, (signal) => get<Steps>(`traces/${encodeURIComponent(id)}`, {}, signal));
  return (
    <Card title="Trace" wide>
      <Show of={loaded}>
        {({ spans }) =>
          spans.length === 0 ? (
            <Empty title="No spans of this request.">
              <p>Send the flow's spans to flowtap, or put a tap before its models: then each step is here.</p>
            </Empty>
          ) : (
            <Waterfall spans={spans} />
          )
        }
      </Show>
    </Card>
  );
}

function Raw({ name, message }: { name: string; message: Message }) {
  const text = message.body === null ? "" : textOf(message.body);
  return (
    <Card title={name} aside={<span class="note">{`${count(message.bytes)} bytes${message.truncated ? ", shortened" : ""}`}</span>}>
      <dl class="facts">
        {Object.entries(message.headers).map(([header, value]) => [
          <dt key={header} class="mono">
            {header}
          </dt>,
          <dd class="mono">
            <Content text={value} />
          </dd>,
        ])}
      </dl>
      {text === "" ? (
        <p class="note">No content is kept.</p>
      ) : (
        <details>
          <summary>Body, redacted</summary>
          <pre class="raw" tabIndex={0} aria-label={spelt(`${name} body`)}>
            <Content text={text} />
          </pre>
        </details>
      )}
    </Card>
  );
}
