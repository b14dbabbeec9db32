// How sure a figure from samples is: 95% intervals of weighted averages and shares.
import type { Judged } from "./api";

export interface Interval {
  low: number;
  high: number;
}

const Z = 1.959964;

/**
 * Of the average score. Hájek's weighted average is a ratio of two sums; its variance by linearisation is
 * the sum of the squared weights times the squared distances, by the squared sum of weights (Särndal,
 * Swensson and Wretman, Model Assisted Survey Sampling, 5.7), here with n / (n - 1) for few scores.
 */
export function ofAverage({ scores, average, count, effective }: Judged): Interval | null {
  if (average === null || count < 2) return null;
  let [weights, spread] = [0, 0];
  for (const one of scores) {
    weights += one.count / one.probability;
    spread += (one.count * (one.score - average) ** 2) / one.probability ** 2;
  }
  const error = Math.sqrt((spread * count) / (count - 1)) / weights;
  // Scores that are all alike do not prove that the next one will be: then as with a share of 4.
  if (error === 0) {
    const share = wilson((average - 1) / 4, effective);
    return { low: 1 + 4 * share.low, high: 1 + 4 * share.high };
  }
  return { low: Math.max(1, average - Z * error), high: Math.min(5, average + Z * error) };
}

/** Of the pass rate: Wilson's score interval, by Kish's effective number of scores. */
export function ofPassRate({ pass_rate, effective }: Judged): Interval | null {
  return pass_rate === null || effective < 1 ? null : wilson(pass_rate, effective);
}

/** Wilson's score interval (1927) of a share `p` of `n`. */
function wilson(p: number, n: number): Interval {
  const middle = (p + (Z * Z) / (2 * n)) / (1 + (Z * Z) / n);
  const half = (Z / (1 + (Z * Z) / n)) * Math.sqrt((p * (1 - p)) / n + (Z * Z) / (4 * n * n));
  return { low: Math.max(0, middle - half), high: Math.min(1, middle + half) };
}
