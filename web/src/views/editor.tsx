// The monitors' configuration, to be tried: checked as it is typed, by the same rules as the file.
import { useEffect, useRef, useState } from "preact/hooks";
import { many } from "../format";
import { get, post, useLoad, type Fault as Failure } from "../load";
import { Card, Show } from "../parts";

interface Fault {
  line: number | null;
  column: number | null;
  message: string;
  allowed: string | null;
  nearest: string | null;
}

interface Checked {
  faults: Fault[];
  monitors: string[];
}

const EXAMPLE = `monitors:
  - name: daily
    schedule: "15 10 * * *"
    window: P7D
    signals:
      generation_quality: {pass_rate: {groundedness: 0.7}, average: {fluency: 4}}
      operations: {error_rate_max: 0.01, latency_p95_max: 10s}
`;

export function Editor() {
  const loaded = useLoad("monitors' YAML", (signal) => get<{ yaml: string }>("configuration/monitors", {}, signal));
  return (
    <div class="cards">
      <Card title="As YAML" wide note="What this flowtap was started with. Try changes here: they are checked as you type, and take effect where you put them into the configuration file.">
        <Show of={loaded}>{({ yaml }) => <Text begin={yaml || EXAMPLE} />}</Show>
      </Card>
    </div>
  );
}

function Text({ begin }: { begin: string }) {
  const [text, setText] = useState(begin);
  const [checked, setChecked] = useState<Checked | null>(null);
  const [failed, setFailed] = useState<Failure | null>(null);
  const area = useRef<HTMLTextAreaElement>(null);
  useEffect(() => {
    const abort = new AbortController();
    const timer = setTimeout(() => {
      post<Checked>("configuration/monitors", text, abort.signal).then(
        (checked) => (setChecked(checked), setFailed(null)),
        (error: Failure) => abort.signal.aborted || setFailed(error),
      );
    }, 350);
    return () => (abort.abort(), clearTimeout(timer));
  }, [text]);
  const jump = ({ line, column }: Fault) => {
    const before = text.split("\n").slice(0, (line ?? 1) - 1);
    const at = before.reduce((sum, one) => sum + one.length + 1, 0) + (column ?? 1) - 1;
    area.current?.focus();
    area.current?.setSelectionRange(at, at);
  };
  return (
    <>
      <textarea ref={area} class="yaml" spellcheck={false} rows={Math.min(28, text.split("\n").length + 2)} aria-label="Monitors as YAML" aria-describedby="verdict" value={text} onInput={(event) => setText(event.currentTarget.value)} />
      <div id="verdict" role="status" class="verdict">
        {failed ? <p class="bad-ink">{failed.message}</p> : checked ? <Verdict checked={checked} jump={jump} /> : <p class="note">Checking</p>}
      </div>
      {checked?.faults.length === 0 && text !== begin && <Take text={text} />}
    </>
  );
}

/** What was changed and is sound can be taken away; the page never writes a server's configuration. */
function Take({ text }: { text: string }) {
  const [copied, setCopied] = useState<boolean | null>(null);
  useEffect(() => setCopied(null), [text]);
  const copy = () => navigator.clipboard.writeText(text).then(
    () => setCopied(true),
    () => setCopied(false),
  );
  return (
    <div class="take">
      <button type="button" onClick={() => void copy()}>
        Copy
      </button>{" "}
      <a href={`data:application/yaml;charset=utf-8,${encodeURIComponent(text)}`} download="monitors.yaml">
        Download monitors.yaml
      </a>
      <p class="note" role="status">
        {copied === true && "Copied. "}
        {copied === false && "The browser did not let it be copied: select the text, or download it. "}
        Put it in place of <code>monitors:</code> in the file that <code>--config</code> names (or <code>FLOWTAP_CONFIG</code>; with Helm the value <code>hub.config</code>), try it with <code>flowtap check</code>, and start flowtap again.
      </p>
    </div>
  );
}

function Verdict({ checked, jump }: { checked: Checked; jump: (fault: Fault) => void }) {
  if (checked.faults.length === 0) return <p class="good-ink">Sound: {many(checked.monitors.length, "monitor")}.</p>;
  return (
    <ul>
      {checked.faults.map((fault, index) => (
        <li key={index}>
          <button type="button" class="link" onClick={() => jump(fault)}>
            {fault.line === null ? "All of it" : `Line ${fault.line}, column ${fault.column ?? 1}`}
          </button>{" "}
          {fault.message}
          {fault.allowed && `; allowed: ${fault.allowed}`}
          {fault.nearest && `; did you mean ${fault.nearest}?`}
        </li>
      ))}
    </ul>
  );
}
