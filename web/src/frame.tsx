// What stands around every view: the way to the others, the window, what is looked at, light or dark.
import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { turnZone, zoneName } from "./format";
import { address, change, kept, type Place } from "./route";
import { between, fieldOf, named, parseLocal, PRESETS, read, wholeDay, write, type Window } from "./window";

const VIEWS: [path: string, name: string][] = [
  ["/", "Overview"],
  ["/tokens", "Tokens"],
  ["/quality", "Quality"],
  ["/operations", "Operations"],
  ["/samples", "Samples"],
  ["/monitors", "Monitors"],
  ["/alerts", "Alerts"],
  ["/health", "Health"],
];

/** The view that a path belongs to. */
export const viewOf = (path: string) => VIEWS.findLast(([start]) => path === start || (start !== "/" && path.startsWith(`${start}/`)))?.[1];

export function Frame({ place, children }: { place: Place; children: ComponentChildren }) {
  const query = kept(place.query);
  const here = viewOf(place.path);
  const views = useRef<HTMLUListElement>(null);
  useEffect(() => {
    // On small screens the views scroll: the present one stays in sight.
    const current = views.current?.querySelector<HTMLElement>("[aria-current]");
    if (current && views.current) views.current.scrollLeft = current.offsetLeft - views.current.offsetLeft - 40;
  }, [here]);
  const met = useRef(place.path);
  useEffect(() => {
    // Another view begins at its beginning, also for those who hear it.
    if (met.current !== place.path) document.getElementById("content")?.focus({ preventScroll: true });
    met.current = place.path;
  }, [place.path]);
  return (
    <div class="frame">
      <a class="skip" href="#content">
        Skip to the content
      </a>
      <nav aria-label="Views">
        <a class="brand" href={address("/", query)}>
          <svg viewBox="0 0 32 32" aria-hidden="true">
            <rect width="32" height="32" rx="7" />
            <path d="M5 11h22M5 21h9c4 0 4-6 8-6h5" />
          </svg>
          flowtap
        </a>
        <ul ref={views}>
          {VIEWS.map(([path, name]) => (
            <li key={path}>
              <a href={address(path, query)} aria-current={name === here ? "page" : undefined}>
                {name}
              </a>
            </li>
          ))}
        </ul>
        <Settings />
      </nav>
      <main id="content" tabIndex={-1}>
        {children}
      </main>
    </div>
  );
}

const THEMES = ["auto", "light", "dark"] as const;

/** Makes the choice of light or dark hold. */
export function applyTheme(): void {
  const theme = localStorage.getItem("theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset["theme"] = theme;
  else delete document.documentElement.dataset["theme"];
}

function Settings() {
  const [theme, set] = useState(localStorage.getItem("theme") ?? "auto");
  const signedIn = document.cookie.split("; ").includes("flowtap_signed_in=1");
  return (
    <div class="settings">
      <label>
        <span class="theme">Theme</span>
        <select
          value={theme}
          onChange={(event) => {
            localStorage.setItem("theme", event.currentTarget.value);
            set(event.currentTarget.value);
            applyTheme();
          }}
        >
          {THEMES.map((name) => (
            <option key={name} value={name}>
              {name === "auto" ? "Auto" : name === "light" ? "Light" : "Dark"}
            </option>
          ))}
        </select>
      </label>
      {signedIn && (
        <form method="post" action="/logout">
          <button type="submit">Sign out</button>
        </form>
      )}
    </div>
  );
}

/** A view's title, with what its figures are about. */
export function Head({ title, place, filters, names, still }: { title: string; place: Place; filters?: Filter[]; names?: Names | undefined; still?: boolean }) {
  useEffect(() => {
    document.title = `${title} · flowtap`;
  }, [title]);
  return (
    <div class="head">
      <h1>{title}</h1>
      <div class="controls">
        {filters?.map((filter) => <Choice key={filter} name={filter} value={place.query.get(filter) ?? ""} names={names?.[filter] ?? []} />)}
        {!still && <WindowPicker window={read(place.query)} />}
      </div>
    </div>
  );
}

export type Filter = "tap" | "deployment" | "model" | "outcome";
export type Names = Partial<Record<Filter, string[]>>;

const ALL: Record<Filter, string> = { tap: "All taps", deployment: "All deployments", model: "All models", outcome: "All outcomes" };
const LABEL: Record<Filter, string> = { tap: "Tap", deployment: "Deployment", model: "Model", outcome: "Outcome" };

function Choice({ name, value, names }: { name: Filter; value: string; names: string[] }) {
  const all = value && !names.includes(value) ? [value, ...names] : names;
  return (
    <label class="choice">
      <span class="unseen">{LABEL[name]}</span>
      <select value={value} onChange={(event) => change({ [name]: event.currentTarget.value })}>
        <option value="">{ALL[name]}</option>
        {all.map((one) => (
          <option key={one} value={one}>
            {one}
          </option>
        ))}
      </select>
    </label>
  );
}

function WindowPicker({ window }: { window: Window }) {
  const [open, setOpen] = useState(false);
  const box = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  useLayoutEffect(() => {
    if (open) box.current?.querySelector<HTMLElement>("[aria-pressed=true], button")?.focus();
  }, [open]);
  useEffect(() => {
    if (!open) return;
    const outside = (event: Event) => {
      if (!box.current?.parentElement?.contains(event.target as Node)) setOpen(false);
    };
    addEventListener("pointerdown", outside);
    return () => removeEventListener("pointerdown", outside);
  }, [open]);
  const close = () => {
    setOpen(false);
    button.current?.focus();
  };
  const choose = (window: Window) => {
    const query = new URLSearchParams(location.search);
    write(window, query);
    change({ from: query.get("from"), to: query.get("to"), last: query.get("last") });
    close();
  };
  return (
    <div class="picker" onKeyDown={(event) => event.key === "Escape" && open && close()}>
      <button ref={button} type="button" class="window" aria-expanded={open} aria-haspopup="dialog" onClick={() => setOpen(!open)}>
        {named(window)} <small>{zoneName()}</small>
      </button>
      {open && (
        <div ref={box} class="sheet" role="dialog" aria-label="Window of time">
          <div class="presets">
            {PRESETS.map((preset) => (
              <button type="button" key={preset.key} aria-pressed={"last" in window && window.last === preset.seconds} onClick={() => choose({ last: preset.seconds })}>
                {preset.name}
              </button>
            ))}
            <button type="button" aria-pressed="false" onClick={() => choose(wholeDay(0))}>
              Today
            </button>
            <button type="button" aria-pressed="false" onClick={() => choose(wholeDay(1))}>
              Yesterday
            </button>
          </div>
          <Between window={window} choose={choose} />
        </div>
      )}
    </div>
  );
}

function Between({ window, choose }: { window: Window; choose: (window: Window) => void }) {
  const [, redraw] = useState(0);
  const [told, tell] = useState("");
  const { from, to } = between(window);
  const submit = (event: Event) => {
    event.preventDefault();
    const fields = new FormData(event.currentTarget as HTMLFormElement);
    const [from, to] = ["from", "to"].map((name) => parseLocal(String(fields.get(name)))) as [Date, Date];
    if (!(from.getTime() < to.getTime())) tell("The beginning has to be before the end.");
    else choose({ from, to });
  };
  return (
    <form class="between" onSubmit={submit}>
      <label>
        From
        <input type="datetime-local" name="from" required value={fieldOf(from)} />
      </label>
      <label>
        To
        <input type="datetime-local" name="to" required value={fieldOf(to)} />
      </label>
      {told && <p role="alert">{told}</p>}
      <p class="zone">
        Times are {zoneName()}.{" "}
        <button
          type="button"
          class="link"
          onClick={() => {
            turnZone();
            redraw((turn) => turn + 1);
            dispatchEvent(new PopStateEvent("popstate"));
          }}
        >
          {zoneName() === "UTC" ? "Use this machine's" : "Use UTC"}
        </button>
      </p>
      <button type="submit" class="main">
        Apply
      </button>
    </form>
  );
}
