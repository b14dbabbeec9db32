// The names that can be chosen: what flowtap has seen.
import { useEffect, useState } from "preact/hooks";
import type { Overview } from "./api";
import type { Names } from "./frame";
import { get } from "./load";

let known: Names | undefined;
let asked = 0;

/** Taps, deployments and models; asked for again after a while. */
export function useNames(): Names | undefined {
  const [names, set] = useState(known);
  useEffect(() => {
    if (known && Date.now() - asked < 60_000) return;
    const from = new Date(Date.now() - 60_000).toISOString();
    asked = Date.now();
    get<Overview>("overview", { from })
      .then(({ names }) => set((known = { tap: names.taps, deployment: names.deployments, model: names.models })))
      // The view itself tells what is wrong; filters without names stay usable.
      .catch(() => (asked = 0));
  }, []);
  return names;
}

/** Takes over names that came with another answer. */
export function learn(names: Overview["names"]): void {
  known = { tap: names.taps, deployment: names.deployments, model: names.models };
  asked = Date.now();
}
