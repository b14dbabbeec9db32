// Where the page is: a path and a query. Links are real ones; a click on them needs no reload.
import { useEffect, useState } from "preact/hooks";

export interface Place {
  path: string;
  query: URLSearchParams;
}

const listeners = new Set<() => void>();
const here = (): Place => ({ path: location.pathname, query: new URLSearchParams(location.search) });

addEventListener("popstate", () => listeners.forEach((listener) => listener()));

/** Goes to an address of the page; `replace` leaves no step behind to go back to. */
export function go(address: string, replace = false): void {
  if (address === location.pathname + location.search) return;
  history[replace ? "replaceState" : "pushState"](null, "", address);
  if (!replace) scrollTo(0, 0);
  listeners.forEach((listener) => listener());
}

/** The present place, and again whenever it changes. */
export function usePlace(): Place {
  const [place, set] = useState(here);
  useEffect(() => {
    const listener = () => set(here());
    listeners.add(listener);
    return () => void listeners.delete(listener);
  }, []);
  return place;
}

/** This place with other parameters; `null` takes one out. */
export function change(changes: Record<string, string | null>, replace = false): void {
  const { path, query } = here();
  for (const [name, value] of Object.entries(changes)) value === null || value === "" ? query.delete(name) : query.set(name, value);
  go(address(path, query), replace);
}

export function address(path: string, query: URLSearchParams): string {
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

/** What travels from view to view: the window and what is looked at. */
export function kept(query: URLSearchParams): URLSearchParams {
  const keep = new URLSearchParams();
  for (const name of ["from", "to", "last", "tap", "deployment", "model"]) {
    const value = query.get(name);
    if (value) keep.set(name, value);
  }
  return keep;
}

/** Lets clicks on links to the page itself go without a reload. */
export function followLinks(event: MouseEvent): void {
  const link = (event.target as Element).closest?.("a");
  const plain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
  if (!link || !plain || link.target || link.hasAttribute("download") || link.dataset["load"] !== undefined) return;
  if (link.origin !== location.origin || link.hash) return;
  event.preventDefault();
  go(link.pathname + link.search);
}
