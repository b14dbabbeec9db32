#!/usr/bin/env python3
"""The page at size: how long each view waits for its data with a million samples and 90 days of figures.

Makes a bucket from a seed, has `flowtap hub` read it, and asks each question that a view asks, one after the
other: the median and the 95th percentile of several times, in milliseconds, by the client's clock; and the CPU
that the hub spent, which a busy machine changes less. Then a list is paged to its depths by cursor, and all samples are exported while the hub's memory is watched.

    python3 benches/page.py --flowtap target/release/flowtap            # a million samples, 90 days
    python3 benches/page.py --flowtap ... --samples 100000 --folder F   # F is kept, and used again
"""

import argparse
import datetime
import gzip
import http.client
import json
import random
import statistics
import subprocess
import tempfile
import time
import urllib.parse
from pathlib import Path

ADMIN = 19684
DEPLOYMENTS = ["blue", "green", "canary"]
MODELS = ["gpt-4o", "gpt-4o-mini"]
CRITERIA = ["groundedness", "fluency"]
WORDS = ("the flow reads a question finds what documents say about it and answers in few plain sentences so that "
         "whoever asked can act on them without reading everything again tent boot stove lamp kayak price").split()
LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
DAY = 86_400
VIEWS = {
    "Overview": ["overview", "usage", "operations", "quality", "monitors"],
    "Tokens": ["usage", "usage?by=model", "usage?by=deployment", "usage?model=gpt-4o"],
    "Quality": ["quality", "quality?deployment=blue", "monitors"],
    "Operations": ["operations", "operations?by=deployment", "operations?deployment=green"],
    "Samples": ["samples", "samples?order=asc", "samples?q=documents", "samples?q=seldom", "samples?q=documents+question",
                "samples?q=documents&outcome=upstream_error", "samples?q=documents&sort=latency",
                "samples?deployment=canary", "samples?model=gpt-4o", "samples?outcome=upstream_error",
                "samples?outcome=timeout", "samples?deployment=blue&outcome=upstream_error",
                "samples?sort=score", "samples?sort=score&criterion=fluency", "samples?score=1&criterion=groundedness",
                "samples?sort=score&deployment=canary", "samples?sort=latency", "samples?sort=tokens",
                "samples?sort=latency&model=gpt-4o"],
    "Health": ["health"],
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--flowtap", required=True, help="the binary")
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--times", type=int, default=7, help="how often each question is asked")
    parser.add_argument("--folder", help="where the bucket and the index are kept")
    return parser.parse_args()


def ulid(chance, seconds):
    number = (int(seconds * 1000) << 80) | chance.getrandbits(80)
    return "".join(LETTERS[(number >> 5 * place) & 31] for place in range(25, -1, -1))


def moment(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def histogram(chance, middle, count):
    buckets = {str(middle + place): 0 for place in range(6)}
    for _ in range(min(count, 60)):
        buckets[str(middle + chance.randrange(6))] += 1
    return {"count": sum(buckets.values()), "sum": 1234.5, "min": 10.0, "max": 9000.0, "zero": 0, "buckets": buckets}


def sample(chance, number, start, deployment):
    """One line of `exchanges/`, and its lines of `scores/`."""
    seconds = start + chance.random() * 3600
    name, at = ulid(chance, seconds), moment(seconds)
    failed = chance.random() < 0.02
    outcome, status = (("timeout", 504) if chance.random() < 0.1 else ("upstream_error", 500)) if failed else ("ok", 200)
    chosen = chance.choices(WORDS, k=54)
    question = " ".join(chosen[:14]) + (" seldom" if number % 10_000 == 0 else "")
    answer = "null" if failed else f'"{" ".join(chosen[14:])}"'
    model, tokens = MODELS[chance.random() < 0.7], chance.randrange(50, 900)
    weight = 1.0 if failed else 0.1
    line = (f'{{"schema":"flowtap.exchange.v1","id":"{name}","time":"{at}","tap":"chat","deployment":"{deployment}",'
            f'"instance":"pod","dialect":"openai","operation":"chat","method":"POST","path":"/v1/chat/completions",'
            f'"status":{status},"outcome":"{outcome}","fault":null,"model":{{"request":"{model}","response":"{model}"}},'
            f'"stream":true,"latency_ms":{200 + chance.random() * 9000:.2f},"first_byte_ms":90.0,'
            f'"first_token_ms":{100 + chance.random() * 900:.2f},"overhead_us":40,"usage":{{"input":{tokens},"output":40,'
            f'"total":{tokens + 40},"cached_input":null,"reasoning_output":null,"source":"reported"}},"calls":[],'
            f'"question":"{question}","answer":{answer},"context":null,"ground_truth":null,"chat_history":[],'
            f'"request":{{"headers":{{}},"body":null,"bytes":300,"truncated":false}},'
            f'"response":{{"headers":{{}},"body":null,"bytes":500,"truncated":false}},"trace_id":null,"span_id":null,'
            f'"request_id":null,"redactions":{{}},"sample":{{"reason":"rate","probability":{weight}}}}}')
    scores = [] if failed else [
        f'{{"schema":"flowtap.score.v1","id":"{ulid(chance, seconds)}","time":"{at}","exchange":"{name}",'
        f'"exchange_time":"{at}","tap":"chat","deployment":"{deployment}","instance":"pod","criterion":"{criterion}",'
        f'"name":null,"scale":"score","score":{min(5, chance.randrange(1, 9))},"value":null,"error":null,'
        f'"reason":"it says what the context says","probability":{weight},"injection_suspect":false,"judge_drift":false,'
        f'"judge":{{"model":"gpt-4","prompt":"{criterion}@1","input":900,"output":40,"latency_ms":700.0}}}}'
        for criterion in CRITERIA]
    return line, scores


def rollups(chance, start, deployment):
    """An hour of `usage/`: a line a minute for each model and two outcomes."""
    for minute in range(60):
        for model in MODELS:
            for outcome, count in (("ok", chance.randrange(20, 60)), ("upstream_error", chance.randrange(3))):
                if count:
                    sums = {"count": count, "input": 400 * count, "output": 80 * count, "total": 480 * count,
                            "cached_input": 0, "reasoning_output": 0}
                    yield json.dumps({
                        "schema": "flowtap.usage.v1", "time": moment(start + 60 * minute), "tap": "chat",
                        "deployment": deployment, "instance": "pod", "model": model, "operation": "chat",
                        "outcome": outcome, "stream": True, "count": count, "tokens": {"reported": sums},
                        "usage_unknown": 0, "latency_ms": histogram(chance, 70, count),
                        "first_token_ms": histogram(chance, 50, count), "input_tokens": histogram(chance, 60, count),
                        "output_tokens": histogram(chance, 45, count)})


def fill(bucket, options, end):
    """Makes the bucket; how many lines it has."""
    chance, made, lines = random.Random(7), 0, 0
    hours = options.days * 24
    for hour in range(hours):
        start = end - (hours - hour) * 3600
        until = options.samples * (hour + 1) // hours
        exchanges, scores = {name: [] for name in DEPLOYMENTS}, {name: [] for name in DEPLOYMENTS}
        for number in range(made, until):
            deployment = DEPLOYMENTS[number % 10 // 6 + (number % 10 == 9)] if number % 10 else "blue"
            line, judged = sample(chance, number, start, deployment)
            exchanges[deployment].append(line)
            scores[deployment] += judged
        made = until
        for deployment in DEPLOYMENTS:
            of = {"exchanges": exchanges[deployment], "scores": scores[deployment],
                  "usage": list(rollups(chance, start, deployment))}
            for dataset, rows in of.items():
                at = datetime.datetime.fromtimestamp(start, datetime.timezone.utc)
                folder = bucket / f"{dataset}/deployment={deployment}/date={at:%Y-%m-%d}/hour={at:%H}"
                folder.mkdir(parents=True, exist_ok=True)
                lines += len(rows)
                with gzip.open(folder / "pod-0000000000000000-00000001.jsonl.gz", "wt", compresslevel=1) as file:
                    file.write("\n".join(rows) + "\n")
    return lines


def get(path):
    """The answer and the milliseconds that it took."""
    started = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", ADMIN, timeout=60)
    connection.request("GET", f"/api/v1/{path}")
    answer = connection.getresponse()
    body = answer.read()
    took = (time.perf_counter() - started) * 1000
    connection.close()
    if answer.status != 200:
        raise SystemExit(f"{path}: {answer.status} {body[:300]}")
    return json.loads(body), took


def with_window(path, end, days):
    window = f"from={urllib.parse.quote(moment(end - days * DAY))}&to={urllib.parse.quote(moment(end))}"
    return f"{path}{'&' if '?' in path else '?'}{window}"


def cpu(process):
    """Milliseconds of CPU that the process has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 10


def ask(process, end, times):
    print("| View | Question | a day | 7 days | 90 days | CPU, 90 days |\n|---|---|--:|--:|--:|--:|")
    for view, questions in VIEWS.items():
        for question in questions:
            cells = []
            for days in (1, 7, 90):
                spent = cpu(process)
                took = sorted(get(with_window(question, end, days))[1] for _ in range(times))
                cells.append(f"{statistics.median(took):.0f}, {took[(len(took) * 95 - 1) // 100]:.0f}")
            spent = (cpu(process) - spent) / times
            print(f"| {view} | `{question}` | {' | '.join(cells)} | {spent:.0f} |", flush=True)


def page_deep(end, path, pages):
    """The list's pages by cursor, 500 samples each: the median of the first and of the last ten."""
    took, cursor = [], ""
    for _ in range(pages):
        answer, one = get(with_window(f"{path}{'&' if '?' in path else '?'}limit=500{cursor}", end, 90))
        took.append(one)
        if not answer["next"]:
            break
        cursor = f"&cursor={urllib.parse.quote(answer['next'])}"
    print(f"`{path}` by cursor, 500 a page: {statistics.median(took[:10]):.0f} ms a page in the beginning, "
          f"{statistics.median(took[-10:]):.0f} ms after {len(took) * 500:,} samples, {max(took):.0f} ms the slowest")


def resident(process):
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def export(process, end, seconds):
    """All samples as CSV, or as many as come in this time, while memory is watched."""
    before, most, read, started = resident(process), 0, 0, time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", ADMIN, timeout=60)
    connection.request("GET", "/api/v1/" + with_window("samples.csv", end, 90))
    answer = connection.getresponse()
    while (piece := answer.read(1 << 20)) and time.monotonic() - started < seconds:
        read, most = read + len(piece), max(most, resident(process))
    connection.close()
    spent = time.monotonic() - started
    print(f"CSV: {read / 1e6:.0f} MB in {spent:.0f} s; resident {before:.0f} MiB before, {most:.0f} MiB at most")


def hub(options, folder):
    config = Path(folder, "hub.yaml")
    config.write_text(f"bucket: file://{folder}/bucket\nadmin: {{listen: 127.0.0.1:{ADMIN}}}\n"
                      f"store: {{dir: {folder}/index, retention: {{age: 200d, bytes_max: 100GiB}}}}\n")
    log = open(Path(folder, "hub.log"), "w")
    return subprocess.Popen([options.flowtap, "hub", "--config", str(config)], stdout=log, stderr=log)


def caught_up():
    try:
        return get("overview")[0]["caught_up"] is not None
    except OSError:
        return False


def main():
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="flowtap-bench-") as temporary:
        folder = Path(options.folder or temporary).resolve()
        noted = folder / "end"
        if not noted.exists():
            end = int(time.time()) // 3600 * 3600
            lines = fill(folder / "bucket", options, end)
            noted.write_text(str(end))
            print(f"made {lines:,} lines", flush=True)
        end = int(noted.read_text())
        process = hub(options, folder)
        try:
            started = time.monotonic()
            while not caught_up():
                time.sleep(1)
            print(f"read in {time.monotonic() - started:.0f} s\n", flush=True)
            ask(process, end, options.times)
            print()
            for path in ("samples", "samples?sort=latency", "samples?sort=score", "samples?deployment=canary"):
                page_deep(end, path, 60)
            export(process, end, 60)
        finally:
            process.terminate()
            process.wait(timeout=60)


if __name__ == "__main__":
    main()
