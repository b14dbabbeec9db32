// What each monitor watches, as YAML: checked as it is typed by the same rules as the configuration
// file, saved on the server, and taken back.
import { useEffect, useRef, useState } from "preact/hooks";
import { many, time } from "../format";
import { get, post, send, useLoad, type Fault as Failure } from "../load";
import { Badge, Card, Empty, Show } from "../parts";

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

interface Entry {
  name: string;
  yaml: string;
  saved: boolean;
  configured: string | null;
  version: string;
  next: string | null;
  faults: Fault[];
}

interface Settings {
  monitors: Entry[];
  saving: { allowed: boolean; why_not: string | null; folder: string };
}

const EXAMPLE = `monitors:
  - name: daily
    schedule: "15 10 * * *"
    window: P7D
    signals:
      generation_quality: {pass_rate: {groundedness: 0.7}, average: {fluency: 4}}
      operations: {error_rate_max: 0.01, latency_p95_max: 10s}
`;

/** Of all monitors, or of the one that is called `one`. */
export function Editor({ one }: { one: string }) {
  const loaded = useLoad("monitors' settings", (signal) => get<Settings>("configuration/monitors", {}, signal));
  const [told, tell] = useState("");
  const changed = (what: string) => (tell(what), loaded.again());
  return (
    <div class="cards">
      <Card title="Settings" wide note="What each monitor looks at, when, and its limits. What is saved here counts at once, and in place of a monitor of the same name in the configuration file.">
        <Show of={loaded}>{(settings) => <Entries settings={settings} one={one} changed={changed} />}</Show>
        <p class="note" role="status">
          {told}
        </p>
      </Card>
    </div>
  );
}

/** What is being edited: a monitor, a new one, or nothing. */
type Edited = { entry: Entry | null } | null;

function Entries({ settings, one, changed }: { settings: Settings; one: string; changed: (what: string) => void }) {
  const [edited, edit] = useState<Edited>(null);
  const entries = settings.monitors.filter((entry) => one === "" || entry.name === one);
  const done = (what: string) => (edit(null), changed(what));
  return (
    <>
      {!settings.saving.allowed && <p class="note">Nothing can be saved here: {settings.saving.why_not}. Texts can be checked, copied and put into the configuration file.</p>}
      {entries.length === 0 && one === "" && (
        <Empty title="Nothing is watched yet.">
          <p>A monitor looks back at regular times, and tells when a figure crosses its limit.</p>
        </Empty>
      )}
      {entries.length === 0 && one !== "" && <p class="note">No monitor of this name is configured or saved any more: it does not run again.</p>}
      <ul class="watched">
        {entries.map((entry) => (
          <li key={entry.name}>
            <strong>{entry.name}</strong> <Origin entry={entry} />
            <span class="note">{entry.next ? `Runs next ${time(entry.next)}.` : "It is not due again."}</span>
            <button type="button" aria-expanded={edited?.entry?.name === entry.name} onClick={() => edit({ entry })}>
              Edit {entry.name}
            </button>
          </li>
        ))}
      </ul>
      {one === "" && edited === null && (
        <button type="button" onClick={() => edit({ entry: null })}>
          New monitor
        </button>
      )}
      {edited && <Text key={edited.entry?.name ?? ""} entry={edited.entry} settings={settings} done={done} cancel={() => edit(null)} />}
    </>
  );
}

/** Which text counts. */
function Origin({ entry }: { entry: Entry }) {
  if (entry.faults.length > 0) return <Badge word={entry.configured === null ? "saved, but faulty: it does not run" : "saved, but faulty: the configuration file counts"} tone="bad" />;
  if (!entry.saved) return <Badge word="from the configuration file" tone="" />;
  return <Badge word={entry.configured === null ? "saved here" : "saved here, in place of the configuration file's"} tone="good" />;
}

function Text({ entry, settings, done, cancel }: { entry: Entry | null; settings: Settings; done: (what: string) => void; cancel: () => void }) {
  const [begin, setBegin] = useState(entry?.yaml || EXAMPLE);
  const [text, setText] = useState(begin);
  const [version, setVersion] = useState(entry?.version ?? null);
  const [told, setTold] = useState<{ text: string; checked: Checked } | null>(null);
  const [failed, setFailed] = useState<Failure | null>(null);
  const [busy, setBusy] = useState(false);
  const area = useRef<HTMLTextAreaElement>(null);
  useEffect(() => area.current?.focus(), []);
  useEffect(() => {
    const abort = new AbortController();
    const timer = setTimeout(() => {
      post<Checked>("configuration/monitors", text, abort.signal).then(
        (checked) => (setTold({ text, checked }), setFailed(null)),
        (error: Failure) => abort.signal.aborted || setFailed(error),
      );
    }, 350);
    return () => (abort.abort(), clearTimeout(timer));
  }, [text]);
  // What is not saved is not left without a word. Written where it changes: effects come later.
  const unsaved = useRef(false);
  const type = (now: string, begin: string) => ((unsaved.current = now !== begin), setText(now));
  useEffect(() => {
    const warn = (event: BeforeUnloadEvent) => unsaved.current && event.preventDefault();
    addEventListener("beforeunload", warn);
    return () => removeEventListener("beforeunload", warn);
  }, []);

  const checked = told?.text === text ? told.checked : null;
  const name = checked?.monitors.length === 1 ? (checked.monitors[0] ?? null) : null;
  const isNew = name !== null && name !== entry?.name;
  const path = (name: string) => `configuration/monitors/${name}`;
  const attempt = async (work: () => Promise<unknown>, what: string) => {
    setBusy(true);
    try {
      await work();
      unsaved.current = false;
      done(what);
    } catch (error) {
      setFailed(error as Failure);
      setBusy(false);
    }
  };
  const condition: Record<string, string> = isNew || version === null ? { "if-none-match": "*" } : { "if-match": `"${version}"` };
  const save = () => attempt(() => send("PUT", path(name ?? ""), text, condition), `${name} is saved. It is checked against these limits from its next run on.`);
  const revert = () => {
    const told = entry?.configured == null ? `${entry?.name} is deleted. What it found stays.` : `${entry.name} is as the configuration file has it again.`;
    void attempt(() => send("DELETE", path(entry?.name ?? ""), null, { "if-match": `"${version}"` }), told);
  };
  const theirs = async (take: boolean) => {
    try {
      const now = await get<Entry>(path(name ?? entry?.name ?? ""), {});
      setVersion(now.version);
      setFailed(null);
      if (take) (setBegin(now.yaml), type(now.yaml, now.yaml));
    } catch (error) {
      setFailed(error as Failure);
    }
  };
  const jump = ({ line, column }: Fault) => {
    const before = text.split("\n").slice(0, (line ?? 1) - 1);
    const at = before.reduce((sum, one) => sum + one.length + 1, 0) + (column ?? 1) - 1;
    area.current?.focus();
    area.current?.setSelectionRange(at, at);
  };
  return (
    <form class="editor" onSubmit={(event) => (event.preventDefault(), void save())}>
      <h3>{entry ? `Monitor ${entry.name}` : "New monitor"}</h3>
      <textarea ref={area} class="yaml" spellcheck={false} rows={Math.min(28, text.split("\n").length + 1)} aria-label="Monitor as YAML" aria-describedby="verdict" value={text} onInput={(event) => type(event.currentTarget.value, begin)} />
      <div id="verdict" role="status" class="verdict">
        {failed ? <p class="bad-ink">{failed.message}.</p> : checked ? <Verdict checked={checked} jump={jump} /> : <p class="note">Checking</p>}
        {failed?.status === 412 && !isNew && (
          <p>
            <button type="button" onClick={() => void theirs(true)}>
              Show what is saved now
            </button>{" "}
            <button type="button" onClick={() => void theirs(false)}>
              Keep my text, to save it over that
            </button>
          </p>
        )}
        {failed?.status === 412 && isNew && <p>Choose another name, or edit {name} itself.</p>}
        {isNew && entry && !failed && (
          <p class="note">
            This is saved as a new monitor, {name}; {entry.name} stays as it is.
          </p>
        )}
      </div>
      <div class="take">
        {settings.saving.allowed && (
          <button class="main" disabled={busy || name === null || (text === begin && entry !== null)}>
            {isNew && entry ? `Save as ${name}` : "Save"}
          </button>
        )}{" "}
        <button type="button" onClick={cancel}>
          Cancel
        </button>{" "}
        {settings.saving.allowed && entry?.saved && (
          <button type="button" disabled={busy} onClick={revert}>
            {entry.configured === null ? `Delete ${entry.name}` : "Go back to the configuration file"}
          </button>
        )}{" "}
        {checked?.faults.length === 0 && <Take text={text} />}
      </div>
      {entry?.saved && entry.configured !== null && (
        <details>
          <summary>What the configuration file says</summary>
          <pre class="yaml">{entry.configured}</pre>
        </details>
      )}
    </form>
  );
}

/** What is sound can be taken away: for the configuration file, or for another flowtap. */
function Take({ text }: { text: string }) {
  const [copied, setCopied] = useState<boolean | null>(null);
  useEffect(() => setCopied(null), [text]);
  const copy = () => navigator.clipboard.writeText(text).then(
    () => setCopied(true),
    () => setCopied(false),
  );
  return (
    <>
      <button type="button" onClick={() => void copy()}>
        Copy
      </button>{" "}
      <a href={`data:application/yaml;charset=utf-8,${encodeURIComponent(text)}`} download="monitors.yaml">
        Download monitors.yaml
      </a>{" "}
      <span class="note" role="status">
        {copied === true && "Copied."}
        {copied === false && "The browser did not let it be copied: select the text, or download it."}
      </span>
    </>
  );
}

function Verdict({ checked, jump }: { checked: Checked; jump: (fault: Fault) => void }) {
  if (checked.faults.length === 0) return checked.monitors.length === 1 ? <p class="good-ink">Sound: 1 monitor.</p> : <p class="note">{checked.monitors.length === 0 ? "There is no monitor in it." : `Sound: ${many(checked.monitors.length, "monitor")}. They are saved one at a time.`}</p>;
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
