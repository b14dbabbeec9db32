"""Counts what a window held, on Spark's executors: rows of `scores/` and of `usage/`, read as src/bucket,
src/monitor/reader.rs and src/rollup read them. Needs Python alone.
"""

import json
import math
import re
import zlib
from collections import Counter
from datetime import datetime

U64_MAX = 2**64 - 1
LINE_BYTES_MAX = 64 << 20


# --- Objects and lines: as src/bucket/lines.rs reads them -------------------------------------------


def unpacked(body):
    """The bytes of a gzip object in pieces; None comes last where it is damaged or cut short."""
    rest, whole = body, False
    while rest:
        member, at = zlib.decompressobj(wbits=31), 0
        while at < len(rest) and not member.eof:
            piece, before = rest[at : at + 65536], member.copy()
            try:
                yield member.decompress(piece)
            except zlib.error:
                # All that can be read of it is, up to the byte that cannot.
                for byte in piece:
                    try:
                        yield before.decompress(bytes([byte]))
                    except zlib.error:
                        break
                yield None
                return
            at += len(piece)
        whole, rest = member.eof, member.unused_data + rest[at:] if member.eof else b""
    if not whole:
        yield None


def lines_of(body):
    """Each line, without its end; False for one that is too long, None last where the rest is damaged."""
    tail, long = b"", False
    for piece in unpacked(body):
        if piece is None:
            yield None
            return
        *lines, tail = (tail + piece).split(b"\n")
        for line in lines:
            yield False if long or len(line) > LINE_BYTES_MAX else line
            long = False
        if len(tail) > LINE_BYTES_MAX:
            tail, long = b"", True
    if long or tail:
        yield False if long else tail


def rows_of(named, read, first, last):
    """What `read` makes of each line of an object within the hours; ("unreadable", 1) once where one is
    foreign or the object is damaged."""
    name, body = named
    hour = re.search(r"date=(\d{4}-\d{2}-\d{2})/hour=(\d{2})/", name)
    if not hour or not first <= f"{hour[1]}T{hour[2]}" <= last:
        return
    fine = True
    for line in lines_of(body):
        if line == b"":
            continue
        try:
            made = read(json.loads(line)) if line else None
        except (ValueError, KeyError, TypeError, AttributeError):
            made = None
        if made is None:
            fine = False
        else:
            yield from made
    if not fine:
        yield "unreadable", 1


def micros(text):
    """RFC 3339 in UTC as microseconds since 1970."""
    date, fraction, zone = re.fullmatch(r"([^.]{19})(?:\.(\d+))?(Z|[+-]\d\d:\d\d)", text).groups()
    at = datetime.fromisoformat(date + zone.replace("Z", "+00:00"))
    return int(at.timestamp()) * 1_000_000 + int((fraction or "0").ljust(6, "0")[:6])


def need(condition):
    if not condition:
        raise ValueError


def whole(value, most=U64_MAX):
    need(type(value) is int and 0 <= value <= most)
    return value


# --- The window -------------------------------------------------------------------------------------


class Window:
    def __init__(self, bounds):
        self.start, self.end, self.anchor = bounds["from"], bounds["to"], bounds["anchor"]
        self.steps = bounds["steps"]

    def holds(self, at):
        return self.start <= at < self.end

    def step(self, at):
        return max(sum(start <= at for start in self.steps) - 1, 0)


# --- Counting scores: as src/monitor/reader.rs does -------------------------------------------------


def yardstick(row, words):
    """What a score is measured by: criterion, name of a custom one, scale; None where it has none."""
    if row["error"] in words["not_applicable"]:
        return None
    criterion, name, scale = row["criterion"], row.get("name"), words["scales"].get(row["criterion"])
    if criterion != "custom":
        return criterion, None, scale
    if name is None or (name in words["criteria"] and name != "custom"):
        return None
    told = "score" if row.get("value") is None else "boolean"
    return criterion, name, row.get("scale") or told


def grade(row, scale):
    """1 to 5, or the thousandths of a value; None where nothing valid was given."""
    score, value = row.get("score"), row.get("value")
    if scale == "score":
        return score if score is not None and 1 <= score <= 5 else None
    if value is None or not 0 <= value <= 1:
        return None
    thousandths = value * 1000.0
    below = int(thousandths)
    return below + (thousandths - below >= 0.5)


def read_score(plan):
    words, scope = plan["words"], plan["scope"]

    def read(row):
        need(row["schema"] == words["schemas"]["scores"])
        need(all(re.fullmatch("[0-7][0-9A-HJKMNP-TV-Z]{25}", row[key]) for key in ("id", "exchange")))
        given, began = micros(row["time"]), micros(row["exchange_time"])
        criterion, error, score = row["criterion"], row["error"], row.get("score")
        probability, value = row["probability"], row.get("value")
        need(criterion in words["criteria"] and (error is None or error in words["errors"]))
        need(row.get("scale") is None or row["scale"] in words["of_scales"])
        need(row.get("name") is None or type(row["name"]) is str)
        least = row.get("probability_least")
        least = probability if least is None else least
        need(all(type(p) in (int, float) and 0 < p <= 1 for p in (probability, least)))
        need(score is None or whole(score, 255) is not None)
        need(value is None or type(value) in (int, float))
        need(type(row["injection_suspect"]) is bool and type(row.get("judge_drift", False)) is bool)
        need(all(type(row[key]) is str for key in ("tap", "deployment", "instance")))
        by = yardstick(row, words)
        if by is None or any(scope[key] not in (None, row[key]) for key in ("tap", "deployment")):
            return ()
        # A judge that failed its own test has said nothing that could raise an alert.
        of = None if row.get("judge_drift", False) else grade(row, by[2])
        told = (of is not None, given, began, by, of, float(probability), float(least))
        return (((row["exchange"], by[1] or by[0]), told),)

    return read


def count_scores(objects, plan, first, last):
    """Scores by yardstick, step, whether the evidence counts them, grade, probability and the least that
    any sample had then; the last of each sample and criterion counts, and a valid score is not undone by
    a later failure."""
    window, read = Window(plan["bounds_us"]), read_score(plan)

    def tell(pairs):
        counted = Counter()
        for key, given in pairs:
            if key == "unreadable":
                counted[key] += given
                continue
            valid, _, began, by, of, probability, least = given
            if window.holds(began):
                at = (window.step(began), began >= window.anchor)
                counted[(by, *at, of, probability, least) if valid else "unscored"] += 1
        return counted.items()

    newest = objects.flatMap(lambda named: rows_of(named, read, first, last)).reduceByKey(
        lambda a, b: a + b if type(a) is int else max(a, b, key=lambda of: of[:2])
    )
    counted = Counter()
    for key, count in newest.mapPartitions(tell).collect():
        counted[key] += count
    unscored, unreadable = counted.pop("unscored", 0), counted.pop("unreadable", 0)
    # In the order in which src/monitor/tally.rs adds them up.
    place, scale = plan["words"]["criteria"].index, plan["words"]["of_scales"].index
    order = lambda key: (place(key[0][0]), key[0][1] or "", scale(key[0][2]), *key[1:])
    return {key: counted[key] for key in sorted(counted, key=order)}, unscored, unreadable


# --- Counting requests: as src/rollup and src/monitor/tally.rs do -----------------------------------


class Histogram:
    """OpenTelemetry's exponential histogram at scale 3: docs/RECORD.md."""

    def __init__(self, row=None):
        row = row or {"count": 0, "sum": 0.0, "min": None, "max": None, "zero": 0, "buckets": {}}
        self.count, self.zero = whole(row["count"]), whole(row["zero"])
        self.sum, self.min, self.max = row["sum"], row["min"], row["max"]
        self.buckets = {int(index): whole(n) for index, n in row["buckets"].items()}
        need(self.zero + sum(self.buckets.values()) == self.count)
        need(all(-240 <= index <= 320 for index in self.buckets))
        need((self.min is not None) == (self.max is not None) == (self.count > 0))
        need(all(n is None or (math.isfinite(n) and n >= 0) for n in (self.sum, self.min, self.max)))

    def merge(self, other):
        self.count, self.zero = self.count + other.count, self.zero + other.zero
        self.sum += other.sum
        self.min = min((n for n in (self.min, other.min) if n is not None), default=None)
        self.max = max((n for n in (self.max, other.max) if n is not None), default=None)
        for index, n in other.buckets.items():
            self.buckets[index] = self.buckets.get(index, 0) + n

    def bins(self):
        """Lower bounds, and how many values lie above each, up to the next."""
        zeros = [(0.0, self.zero)] if self.zero else []
        return zeros + [(2.0 ** (index / 8), n) for index, n in sorted(self.buckets.items())]

    def quantile(self, q):
        if self.count == 0:
            return None
        rank, below = max(math.ceil(min(max(q, 0.0), 1.0) * self.count), 1), self.zero
        if rank <= below:
            return 0.0
        for index, n in sorted(self.buckets.items()):
            below += n
            if rank <= below:
                return min(max(2.0 ** ((index + 0.5) / 8), self.min), self.max)
        return None


class Requests:
    def __init__(self):
        self.count, self.outcomes, self.latency = 0, Counter(), Histogram()

    def add(self, count, outcomes, latency):
        self.count += count
        self.outcomes.update(outcomes)
        self.latency.merge(latency)

    def errors(self):
        return sum(n for outcome, n in self.outcomes.items() if outcome != "ok")


class Usage:
    """Requests by step and of the evidence ("anchored"), and tokens by tap, deployment and model."""

    def __init__(self):
        self.parts, self.groups, self.unknown, self.unreadable = {}, {}, 0, 0

    def part(self, which):
        return self.parts.setdefault(which, Requests())

    def whole(self):
        every = Requests()
        for which, of in self.parts.items():
            if which != "anchored":
                every.add(of.count, of.outcomes, of.latency)
        return every

    def merge(self, other):
        for which, of in other.parts.items():
            self.part(which).add(of.count, of.outcomes, of.latency)
        for names, figures in other.groups.items():
            mine = self.groups.setdefault(names, [0, 0, 0, 0])
            mine[:] = [a + b for a, b in zip(mine, figures)]
        self.unknown += other.unknown
        self.unreadable += other.unreadable
        return self


def read_usage(plan):
    words, scope = plan["words"], plan["scope"]
    window = Window(plan["bounds_us"])

    def read(row):
        need(row["schema"] == words["schemas"]["usage"])
        names = (row["tap"], row["deployment"], row["model"])
        need(all(type(name) is str for name in names) and type(row["stream"]) is bool)
        need(row["operation"] in words["operations"] and row["outcome"] in words["outcomes"])
        need(all(source in words["sources"] for source in row["tokens"]))
        began, count, unknown = micros(row["time"]), whole(row["count"]), whole(row["usage_unknown"])
        latency = Histogram(row["latency_ms"])
        for other in ("first_token_ms", "input_tokens", "output_tokens"):
            Histogram(row[other])
        wanted = (scope["tap"], scope["deployment"], scope["model"])
        if not window.holds(began) or any(of not in (None, is_) for of, is_ in zip(wanted, names)):
            return ()
        # Tokens of a flow that are the sum of its calls are those calls' own, where they are in scope.
        all_taps = scope["tap"] is None and scope["deployment"] is None
        spent = [t for source, t in row["tokens"].items() if not (all_taps and source == "joined")]
        tokens = [sum(whole(t.get(key, 0)) for t in spent) for key in ("input", "output", "total")]
        return (("usage", (began, names, row["outcome"], count, unknown, latency, tokens)),)

    return read


def count_usage(objects, plan, first, last):
    window, read = Window(plan["bounds_us"]), read_usage(plan)

    def add_up(named_objects):
        usage = Usage()
        for named in named_objects:
            for kind, row in rows_of(named, read, first, last):
                if kind == "unreadable":
                    usage.unreadable += row
                    continue
                began, names, outcome, count, unknown, latency, tokens = row
                parts = [window.step(began)] + ["anchored"] * (began >= window.anchor)
                for which in parts:
                    usage.part(which).add(count, {outcome: count}, latency)
                group = usage.groups.setdefault(names, [0, 0, 0, 0])
                group[:] = [a + b for a, b in zip(group, [count, *tokens])]
                usage.unknown += unknown
        yield usage

    usage = Usage()
    for part in objects.mapPartitions(add_up).collect():
        usage.merge(part)
    return usage
