// From the API's points to a chart's columns.
import type { Series } from "./api";

/** The moments of a series, and the step between them. */
export const times = (series: Series<unknown>) => ({ times: series.points.map((point) => Date.parse(point.time) / 1000), step: series.step_seconds });

/** One column of it. */
export const column = <T>(series: Series<T>, pick: (point: T) => number | null | undefined) => series.points.map((point) => pick(point) ?? null);
