"""Makes figures of counts, and verdicts of figures and thresholds, as src/monitor/estimate.rs, evidence.rs
and signals.rs do; docs/MONITORS.md has the formulas and their sources. A test holds both equal to 1e-9.
"""

import math

from flowtap_counts import U64_MAX, Requests

STATES = ["ok", "not_enough_data", "violated"]
Z95 = 1.959963984540054


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


def expanded(z, freedom):
    """The same for many degrees of freedom, from the normal quantile: Abramowitz & Stegun 1964, 26.7.5.
    Where one is as good as the other (1,000) both agree in 13 digits; from there on the
    fraction loses digits, and this gains them."""
    series = [
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (z**3 + z) / 4,
        z,
    ]
    told = 0.0
    for term in series:
        told = told / freedom + term
    return told


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
        freedom = max(self.squares**2 / self.fourths - 1.0, 1.0)
        return expanded(Z95, freedom) if freedom >= 1000 else student(0.975, freedom)


def average(classes, heaviest, lowest, highest):
    if not classes:
        return None
    plain = Moments(classes)
    half = heaviest / 2.0
    padded = Moments(classes + [(lowest, half, 1), (highest, half, 1)])
    reach = padded.quantile() * math.sqrt(padded.variance())
    low, high = max(padded.mean - reach, lowest), min(padded.mean + reach, highest)
    return plain.mean, min(low, plain.mean), max(high, plain.mean), plain.count, plain.effective


def share(classes, heaviest):
    if not classes:
        return None
    plain = Moments(classes)
    of = Moments(classes + [(0.0, heaviest, 1), (1.0, heaviest, 1)])
    p, n = min(max(plain.mean, 0.0), 1.0), of.mean * (1.0 - of.mean) / of.variance()
    low, high = wilson(p, max(n, 1.0), of.quantile())
    return p, min(low, p), max(high, p), plain.count, plain.effective


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
    """Rated criteria that have limits or were seen, then the others that have limits, then those seen."""
    limits, words, measures = plan["quality"], plan["words"], []
    seen = list(dict.fromkeys(key[0] for key in scores))
    none = {"average": None, "pass_rate": None}

    def tell(by, average_limit, pass_score, rate_limit):
        suffix = {"score": "average", "ratio": "mean", "boolean": "share"}[by[2]]
        measures.append(graded(plan, scores, by, suffix, by[2], average_limit, grade_value(by[2])))
        if by[2] == "score":
            least = None if rate_limit is None else ("at_least", rate_limit)
            passes = lambda grade: float(grade >= pass_score)
            measures.append(graded(plan, scores, by, "pass_rate", "boolean", least, passes))

    for criterion in words["rated"]:
        by, of = (criterion, None, words["scales"][criterion]), limits["average"].get(criterion)
        rate = limits["pass_rate"].get(criterion)
        if of is not None or rate is not None or by in seen:
            tell(by, None if of is None else ("at_least", of), limits["pass_score"][criterion], rate)
    others = {(of["criterion"], of["name"], of["scale"]): of for of in reversed(limits["others"])}
    named = list(reversed(others))
    for by in named + [by for by in seen if by[0] not in words["rated"] and by not in others]:
        of = others.get(by, none)
        tell(by, of["average"], limits["pass_score_usual"], of["pass_rate"])
    return signal("generation_quality", measures)


def grade_value(scale):
    return float if scale == "score" else lambda grade: grade / 1000.0


def graded(plan, scores, by, suffix, scale, limit, value):
    """A figure of what was given by one yardstick; `limit` is its good side and the threshold."""
    constants = plan["constants"]
    lowest, highest = (constants["lowest"], constants["highest"]) if scale == "score" else (0.0, 1.0)

    # The most that a sample could have weighed, seen or not.
    heaviest = max((1.0 / min(key[4:6]) for key in scores if key[0] == by), default=0.0)

    def classes(wanted):
        keys = (key for key in scores if key[0] == by and wanted(key))
        return [(value(key[3]), 1.0 / key[4], scores[key]) for key in keys]

    def estimate(wanted):
        of = classes(wanted)
        return share(of, heaviest) if scale == "boolean" else average(of, heaviest, lowest, highest)

    bound, threshold = limit or ("at_least", None)
    estimated = estimate(lambda _: True)
    told = measure(f"{by[1] or by[0]}_{suffix}", estimated, bound)
    if threshold is None:
        return told
    anchored = classes(lambda key: key[2])
    sign, reach = (1.0, highest - threshold) if bound == "at_least" else (-1.0, threshold - lowest)
    reach *= heaviest
    bets = ((w * sign * (threshold - y), reach, n) for y, w, n in anchored)
    by_step = (estimate(lambda key, s=s: key[1] == s) for s in range(len(plan["bounds_us"]["steps"])))
    by_step = [None if step is None else step[0] for step in by_step]
    return limited(plan, told, estimated, threshold, evidence(bets, constants["stakes"]), by_step)


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
