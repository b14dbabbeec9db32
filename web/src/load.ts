// Asking the API, and what a view needs while it waits or when it fails.
import { useEffect, useRef, useState } from "preact/hooks";

/** Why there is no answer, and what to do about it. */
export class Fault extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly advice: string,
  ) {
    super(message);
  }
}

const ADVICE: Record<number, string> = {
  400: "Change the filters or the window.",
  404: "It may be older than what this flowtap keeps, or not be indexed yet.",
  408: "Ask for a shorter window or fewer filters.",
  422: "Change the filters or the window.",
  503: "Ask for a shorter window, or try again in a moment.",
};

/** Gets JSON from the API. */
export async function get<T>(path: string, query: Record<string, string | number | null | undefined>, signal?: AbortSignal): Promise<T> {
  const asked = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value !== null && value !== undefined && value !== "") asked.set(name, String(value));
  const response = await ask(`/api/v1/${path}?${asked}`, signal ? { signal } : {});
  return (await response.json()) as T;
}

/** Asks about a text. */
export async function post<T>(path: string, text: string, signal?: AbortSignal): Promise<T> {
  const response = await ask(`/api/v1/${path}`, { method: "POST", body: text, headers: { "content-type": "application/yaml" }, ...(signal ? { signal } : {}) });
  return (await response.json()) as T;
}

/** Changes something, on the condition that the headers tell. */
export async function send(method: "PUT" | "DELETE", path: string, text: string | null, headers: Record<string, string>): Promise<void> {
  await ask(`/api/v1/${path}`, { method, body: text, headers: { ...headers, ...(text === null ? {} : { "content-type": "application/yaml" }) } });
}

/** Any request to our own host; turns failures into a `Fault`. */
export async function ask(address: string, options: RequestInit = {}): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(address, { credentials: "same-origin", ...options });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Fault("flowtap does not answer", 0, "Is it running? The page tries again by itself.");
  }
  if (response.status === 401) {
    location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
    throw new Fault("Signing in is needed", 401, "");
  }
  if (!response.ok) throw await problem(response);
  return response;
}

async function problem(response: Response): Promise<Fault> {
  let told = `The answer was ${response.status}`;
  try {
    const problem = (await response.json()) as { title?: string; detail?: string };
    told = [problem.title, problem.detail].filter(Boolean).join(": ") || told;
  } catch {
    // No problem document: the status has to do.
  }
  return new Fault(told, response.status, ADVICE[response.status] ?? "Look at flowtap's log.");
}

export interface Loaded<T> {
  data: T | undefined;
  fault: Fault | undefined;
  /** What is shown is not what was asked for last; a mere renewal is not busy. */
  busy: boolean;
  again: () => void;
}

/** Loads when `key` changes, and every `everyMs` while the page is looked at. What was there stays until the new is. */
export function useLoad<T>(key: string, load: (signal: AbortSignal) => Promise<T>, everyMs = 0): Loaded<T> {
  const [state, set] = useState<{ data?: T; fault?: Fault; busy: boolean; key: string }>({ busy: true, key });
  const [turn, setTurn] = useState(0);
  const latest = useRef(load);
  latest.current = load;
  useEffect(() => {
    const abort = new AbortController();
    let timer = 0;
    const run = async () => {
      set((old) => ({ ...old, busy: true }));
      try {
        const data = await latest.current(abort.signal);
        if (!abort.signal.aborted) set({ data, busy: false, key });
      } catch (error) {
        if (abort.signal.aborted) return;
        const fault = error instanceof Fault ? error : new Fault("This view has a defect", 0, String(error));
        set((old) => ({ ...(old.key === key && old.data !== undefined ? { data: old.data } : {}), fault, busy: false, key }));
      }
      if (everyMs) timer = window.setTimeout(next, everyMs);
    };
    // A page that nobody looks at asks for nothing; it does when it is looked at again.
    const next = () => (document.visibilityState === "visible" ? void run() : void (timer = window.setTimeout(next, 1000)));
    void run();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [key, turn, everyMs]);
  const busy = state.busy && (state.key !== key || state.data === undefined);
  return { data: state.data, fault: state.fault, busy, again: () => setTurn((turn) => turn + 1) };
}
