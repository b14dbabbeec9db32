// From the API's points, which are only there where something happened, to a chart's columns.
import type { Between } from "./window";

/** Every span of a window, with its point where there is one. */
export interface Series<T> {
  times: number[];
  step: number;
  points: (T | undefined)[];
}

/** Puts the points into their spans. */
export function spread<T extends { time?: string }>(points: T[], step: number, { from, to }: Between): Series<T> {
  const by = new Map(points.map((point) => [Date.parse(point.time ?? "") / 1000, point]));
  const times: number[] = [];
  for (let time = Math.floor(from.getTime() / 1000 / step) * step; time < to.getTime() / 1000; time += step) times.push(time);
  return { times, step, points: times.map((time) => by.get(time)) };
}

/** One column; where there is no point, `nothing` is known: 0 of what is counted, `null` of what is measured. */
export const column = <T>({ points }: Series<T>, pick: (point: T) => number | null | undefined, nothing: number | null = null) =>
  points.map((point) => (point === undefined ? nothing : (pick(point) ?? null)));
