// The names that can be chosen: what there is in the window.
import { inWindow } from "./api";
import type { Names } from "./frame";
import { useLoad } from "./load";
import type { Place } from "./route";
import { between, read } from "./window";

/** Taps, deployments and models of the window. */
export function useNames(place: Place): Names | undefined {
  const { from, to } = between(read(place.query));
  // The same for a window however it moves on by a minute.
  const key = `${to.getTime() - from.getTime()} ${Math.floor(to.getTime() / 600_000)}`;
  const bare: Place = { path: place.path, query: new URLSearchParams([...place.query].filter(([name]) => ["from", "to", "last"].includes(name))) };
  return useLoad(key, (signal) => inWindow<Names>("names", bare, {}, signal)).data;
}
