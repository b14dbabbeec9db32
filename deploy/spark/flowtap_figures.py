"""Makes figures of counts, and verdicts of figures and thresholds, as src/monitor/estimate.rs, evidence.rs
and signals.rs do; docs/MONITORS.md has the formulas and their sources. A test holds both equal to 1e-9.
"""

import math

from flowtap_counts import U64_MAX, Requests

STATES = ["ok", "not_enough_data", "violated"]


# --- Estimates: as src/monitor/estimate.rs makes them -----------------------------------------------


def student(probability, freedom):
    """The quantile of Student's distribution: Newton's steps on its distribution function, which is
    told by the incomplete beta function's continued fraction (Press et al., Numerical Recipes, 6.4)."""

    def beta(a, b, x):
        if x > (a + 1) / (a + b + 2):
            return 1.0 - beta(b, a, 1.0 - x)
        log = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
        front = math.exp(log + a * math.log(x) + b * math.log1p(-x)) / a if x > 0 else 0.0
        tiny, f, c, d = 1e-300, 1.0, 1.0, 0.0
        for i in range(10_000):
            m = i // 2
            if i == 0:
                n = 1.0
            elif i % 2 == 0:
                n = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
            else:
                n = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
            d = 1.0 / ((1.0 + n * d) or tiny)
            c = (1.0 + n / c) or tiny
            f *= c * d
            if abs(1.0 - c * d) < 1e-16:
                break
        return front * (f - 1.0)

    log = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - 0.5 * math.log(freedom * math.pi)
    t = 2.0
    for _ in range(100):
        tail = 0.5 * beta(freedom / 2, 0.5, freedom / (freedom + t * t))
        density = math.exp(log - (freedom + 1) / 2 * math.log1p(t * t / freedom))
        step = ((1.0 - probability) - tail) / density
        t = max(t - step, t / 2)
        if abs(step) < 1e-14 * t:
            break
    return t


class Moments:
    """Sums over classes: (value, weight, count)."""

    def __init__(self, classes):
        self.classes, self.count = classes, sum(n for _, _, n in classes)
        add = lambda of: sum((n * of(w, y) for y, w, n in classes), 0.0)
        self.weights, self.squares = add(lambda w, _: w), add(lambda w, _: w**2)
        self.fourths = add(lambda w, _: w**4)
        self.mean = add(lambda w, y: w * y) / self.weights
        self.effective = self.weights**2 / self.squares

    def variance(self):
        def term(y, w, n):
            return n * (w * (y - self.mean)) ** 2 / (1.0 - min(w / self.weights, 0.99))

        return sum((term(*of) for of in self.classes), 0.0) / self.weights**2

    def quantile(self):
        return student(0.975, max(self.squares**2 / self.fourths - 1.0, 1.0))


def average(classes, lowest, highest):
    if not classes:
        return None
    plain = Moments(classes)
    half = plain.squares / plain.weights / 2.0
    padded = Moments(classes + [(lowest, half, 1), (highest, half, 1)])
    reach = padded.quantile() * math.sqrt(padded.variance())
    low, high = max(padded.mean - reach, lowest), min(padded.mean + reach, highest)
    return plain.mean, min(low, plain.mean), max(high, plain.mean), plain.count, plain.effective


def share(classes):
    if not classes:
        return None
    of = Moments(classes)
    p, variance = min(max(of.mean, 0.0), 1.0), of.variance()
    told = p * (1.0 - p) / variance if variance > 0.0 else of.effective
    low, high = wilson(p, max(min(told, float(of.count)), 1.0), of.quantile())
    return p, min(low, p), max(high, p), of.count, of.effective


def wilson(p, n, z):
    shrink = 1.0 + z * z / n
    middle = (p + z * z / (2.0 * n)) / shrink
    half = z / shrink * math.sqrt(max(p * (1.0 - p) / n + z * z / (4.0 * n * n), 0.0))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def evidence(bets, stakes):
    """src/monitor/evidence.rs: the capital of a bettor against the threshold; bets are (deviation, the
    worst that one observation can do, count)."""
    logs = [0.0] * len(stakes)
    for deviation, worst, count in bets:
        if count == 0 or deviation == 0.0:
            continue
        if worst <= 0.0:
            logs = [math.inf if deviation > 0.0 else log for log in logs]
            continue
        x = max(deviation / worst, -1.0)
        logs = [log + count * math.log1p(stake * x) for log, stake in zip(logs, stakes)]
    top = max(logs)
    if top == math.inf:
        return 1e300
    mean = sum((math.exp(log - top) for log in logs), 0.0) / len(stakes)
    power = math.log(mean) + top
    return min(math.exp(power) if power < 709 else 1e300, 1e300)


# --- Signals: as src/monitor/signals.rs makes them --------------------------------------------------


def beyond(value, limit, bound):
    return value < limit if bound == "at_least" else value > limit


def measure(metric, estimate, bound):
    value, low, high, count, effective = estimate or (None, None, None, 0, 0.0)
    return {
        "metric": metric, "value": value, "low": low, "high": high, "count": count,
        "effective": effective, "threshold": None, "bound": bound, "state": "ok", "evidence": None,
        "violations": None,
    }


def exact(metric, value, count, bound, limit=None):
    over = value is not None and limit is not None and beyond(value, limit, bound)
    told = {"value": value, "count": count, "effective": float(count), "threshold": limit}
    return {**measure(metric, None, bound), **told, "state": "violated" if over else "ok"}


def limited(plan, of, estimate, limit, proof, by_step):
    """A measure with its threshold: the verdict, the evidence, and the steps beyond it."""
    values = [value for value in by_step if value is not None]
    count = sum(beyond(value, limit, of["bound"]) for value in values)
    if estimate is None:
        state = "not_enough_data"
    elif plan["method"] == "plain":
        state = "violated" if beyond(estimate[0], limit, of["bound"]) else "ok"
    elif proof >= plan["constants"]["alarm_at"]:
        state = "violated"
    else:
        state = "not_enough_data" if estimate[4] < plan["samples_min"] else "ok"
    violations = {"count": count, "possible": len(values)}
    return {**of, "threshold": limit, "state": state, "evidence": proof, "violations": violations}


def worst(states):
    return max(states, key=STATES.index, default="ok")


def signal(kind, measures, groups=(), outcomes=()):
    state = worst(of["state"] for of in measures)
    return {"kind": kind, "state": state, "measures": measures, "groups": list(groups),
            "outcomes": dict(outcomes)}


def quality(plan, scores):
    limits, constants = plan["quality"], plan["constants"]
    lowest, highest = constants["lowest"], constants["highest"]
    kinds = (
        ("average", lambda score, _: float(score), lambda of: average(of, lowest, highest), highest),
        ("pass_rate", lambda score, passing: float(score >= passing), share, 1.0),
    )
    seen, measures = {key[0] for key in scores}, []
    for criterion in plan["words"]["rated"]:
        named = any(criterion in limits[kind] for kind, *_ in kinds)
        if not named and criterion not in seen:
            continue
        for kind, value, estimate, most in kinds:

            def classes(wanted):
                keys = (key for key in scores if key[0] == criterion and wanted(key))
                passing = limits["pass_score"][criterion]
                return [(value(key[3], passing), 1.0 / key[4], scores[key]) for key in keys]

            of = estimate(classes(lambda _: True))
            told, limit = measure(f"{criterion}_{kind}", of, "at_least"), limits[kind].get(criterion)
            if limit is not None:
                anchored = classes(lambda key: key[2])
                reach = max((w for _, w, _ in anchored), default=0.0) * (most - limit)
                bets = ((w * (limit - y), reach, n) for y, w, n in anchored)
                steps = range(len(plan["bounds_us"]["steps"]))
                by_step = (estimate(classes(lambda key, s=s: key[1] == s)) for s in steps)
                by_step = [None if step is None else step[0] for step in by_step]
                told = limited(plan, told, of, limit, evidence(bets, constants["stakes"]), by_step)
            measures.append(told)
    return signal("generation_quality", measures)


def tokens(plan, usage):
    limits, groups = plan["tokens"], []
    for names, figures in sorted(usage.groups.items()):
        fields = ("requests", "prompt_tokens", "completion_tokens", "total_tokens")
        figures = (min(n, U64_MAX) for n in figures)
        groups.append({**dict(zip(("tap", "deployment", "model"), names)), **dict(zip(fields, figures))})
    add = lambda field: min(sum(group[field] for group in groups), U64_MAX)
    requests = add("requests")
    largest = max((group["total_tokens"] for group in groups), default=0)
    figures = [(field, add(field)) for field in ("prompt_tokens", "completion_tokens", "total_tokens")]
    figures = [("requests", requests), *figures, ("total_tokens_per_group", largest)]
    figures.append(("usage_unknown", min(usage.unknown, U64_MAX)))
    real = lambda n: None if n is None else float(n)
    measures = [
        exact(metric, float(value), requests, "at_most", real(limits.get(f"{metric}_max")))
        for metric, value in figures
    ]
    return signal("token_statistics", measures, groups)


def operations(plan, usage):
    limits, constants, every = plan["operations"], plan["constants"], usage.whole()
    window, none = plan["bounds_us"], Requests()
    anchored = usage.parts.get("anchored", none)
    steps = [usage.parts.get(step, none) for step in range(len(window["steps"]))]
    seconds, least = (window["to"] - window["from"]) / 1e6, limits["requests_min"]
    least = None if least is None else float(least)
    per_second = every.count / seconds if seconds > 0 else None
    measures = [
        exact("requests", float(every.count), every.count, "at_least", least),
        exact("requests_per_second", per_second, every.count, "at_least"),
    ]

    def too_many(bad, total, limit):
        return evidence([(1.0 - limit, limit, bad), (-limit, limit, total - bad)], constants["stakes"])

    def rate(of):
        return of.errors() / of.count if of.count else None

    value, n, limit = rate(every), float(every.count), limits["error_rate_max"]
    estimate = value if value is None else (value, *wilson(value, n, constants["z95"]), every.count, n)
    told = measure("error_rate", estimate, "at_most")
    if limit is not None:
        proof = too_many(anchored.errors(), anchored.count, limit)
        told = limited(plan, told, estimate, limit, proof, [rate(step) for step in steps])
    measures.append(told)
    for quantile, metric in constants["quantiles"]:
        of, n, limit = every.latency, float(every.latency.count), limits["latency_max_ms"].get(metric)
        reach = constants["z95"] * math.sqrt(quantile * (1.0 - quantile) / max(n, 1.0))
        ends = [of.quantile(quantile + sign * reach) for sign in (0, -1, 1)]
        estimate = (*ends, of.count, n) if of.count else None
        told = measure(metric, estimate, "at_most")
        if limit is not None:
            over = sum(count for low, count in anchored.latency.bins() if low >= limit)
            proof = too_many(over, anchored.latency.count, 1.0 - quantile)
            by_step = [step.latency.quantile(quantile) for step in steps]
            told = limited(plan, told, estimate, limit, proof, by_step)
        measures.append(told)
    outcomes = {name: every.outcomes[name] for name in plan["words"]["outcomes"] if name in every.outcomes}
    return signal("operations", measures, outcomes=outcomes)
