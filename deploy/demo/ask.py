"""The demo's client, standard library only: `free` ports, is it `up`, `ask` questions, `show` what was seen."""
import gzip
import http.client
import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

HOST = "127.0.0.1"
PLAIN, STREAMED, PLAIN_MAX = 40, 6, 400
SAMPLE_WAIT_S = 30
SCORE_WAIT_S = 900  # a small model on one core of a busy machine takes half a minute a sample
ARTICLES = ["tent", "boot", "stove", "sleeping bag", "backpack", "lamp", "return", "kayak"]
QUESTIONS = ["What does the {} cost?", "Tell me about the {}.", "Is the {} any good in rain?", "How heavy is the {}?"]

SHOWN = [
    ("flowtap_requests_total{",),
    ("flowtap_tokens_total{", "flowtap_usage_unknown_total{"),
    ("gen_ai_server_request_duration_seconds_count{", "gen_ai_server_request_duration_seconds_sum{"),
]


class Failed(Exception):
    """A check that did not hold; its text says which."""


def port(setting):
    return int(os.environ[setting])


def free(settings):
    """All three ports at once, before anything starts."""
    taken = []
    for setting in settings:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port(setting)))
            except OSError as fault:
                taken.append(f"port {port(setting)} cannot be used ({fault.strerror}); choose another with {setting}=NUMBER")
    if len({port(setting) for setting in settings}) < len(settings):
        taken.append("the ports must differ: " + ", ".join(f"{s}={port(s)}" for s in settings))
    if taken:
        raise Failed("\n".join(taken))


def up(url):
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def post(body, accept):
    """One question through flowtap; returns the status and the answer's text."""
    connection = http.client.HTTPConnection(HOST, port("DEMO_PORT"), timeout=60)
    try:
        headers = {"Content-Type": "application/json", "Accept": accept}
        connection.request("POST", "/score", json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, response.getheader("Content-Type", ""), response.read().decode()
    finally:
        connection.close()


def ask_plain(count):
    question = QUESTIONS[count // len(ARTICLES) % len(QUESTIONS)].format(ARTICLES[count % len(ARTICLES)])
    status, _, text = post({"question": question, "pause_ms": 1}, "application/json")
    if status != 200 or not json.loads(text)["answer"]:
        raise Failed(f"question {count}: status {status}, body {text[:200]!r}")
    return question, json.loads(text)["answer"]


def ask_streamed(count):
    question = f"Tell me all about the {ARTICLES[count % len(ARTICLES)]}."
    status, kind, text = post({"question": question, "chat_history": []}, "text/event-stream")
    events = [json.loads(line[len("data:"):]) for line in text.splitlines() if line.startswith("data:")]
    words = [event["answer"] for event in events if "answer" in event]
    if status != 200 or "text/event-stream" not in kind or len(words) < 3:
        raise Failed(f"streamed question {count}: status {status}, {kind}, {len(words)} pieces")
    return question, "".join(words)


def ask():
    for count in range(PLAIN):
        question, answer = ask_plain(count)
    print(f"    {PLAIN} plain:    {question}  ->  {answer}")
    for count in range(STREAMED):
        question, answer = ask_streamed(count)
    print(f"    {STREAMED} streamed:  {question}  ->  {answer}")
    status, _, _ = post({"not_a_question": 1}, "application/json")
    if status != 400:
        raise Failed(f"a request without a question should get 400 from the flow, got {status}")
    print("    1 faulty:    no question in it  ->  400, as the flow says it")
    asked = PLAIN
    while not drawn() and asked < PLAIN_MAX:  # 1 in 130 runs draws nothing out of 46
        ask_plain(asked)
        asked += 1


def metrics():
    with urllib.request.urlopen(f"http://{HOST}:{port('DEMO_ADMIN_PORT')}/metrics", timeout=10) as answer:
        return answer.read().decode()


def value(text, family, **labels):
    """The sum of a family's series that bear these labels."""
    total = 0.0
    for line in text.splitlines():
        if line.startswith(family + "{") and all(f'{key}="{wanted}"' in line for key, wanted in labels.items()):
            total += float(line.rsplit(" ", 1)[1])
    return total


def drawn():
    """Samples drawn by the general rate; the pipeline may be a moment behind the answers."""
    time.sleep(0.2)
    return value(metrics(), "flowtap_samples_total", reason="rate")


def rows(dataset):
    """Every line of a dataset in the bucket, with its file."""
    folder = Path(os.environ["DEMO_DATA"]) / "bucket" / dataset
    found = []
    for path in sorted(folder.rglob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            found += [(path, json.loads(line)) for line in lines]
    return found


def one_of(samples):
    """A sample that the rate drew, a streamed one rather than a plain one."""
    by_rate = [pair for pair in samples if pair[1]["sample"]["reason"] == "rate"]
    return max(by_rate, key=lambda pair: pair[1]["stream"], default=None)


def show():
    print(f"    the page:     http://{HOST}:{port('DEMO_ADMIN_PORT')}/")
    print(f"    the metrics:  http://{HOST}:{port('DEMO_ADMIN_PORT')}/metrics")
    text = metrics()
    for families in SHOWN:
        lines = [line for line in text.splitlines() if line.startswith(families)]
        if not lines:
            raise Failed(f"/metrics has no {families[0][:-1]}")
        print("\n".join("        " + line for line in lines[:4]))
    seen, asked = value(text, "flowtap_requests_total"), PLAIN + STREAMED + 1
    if seen < asked:
        raise Failed(f"{asked} exchanges were made, flowtap_requests_total counts {seen:.0f}")
    path, sample = wait_for_sample()
    print(f"    one stored sample, from {os.path.relpath(path)}:")
    shown = json.dumps(sample, indent=2, ensure_ascii=False)
    print("\n".join("        " + line for line in shown.splitlines()))
    show_scores()


def show_scores():
    """What was computed of every sample, and, where there is a judge, what it said of one."""
    judged = "FLOWTAP_JUDGE__URL" in os.environ
    if judged:
        print("    waiting for the judge, a small model on one core: a minute or two ...", flush=True)
    scores = wait_for_scores(judged)
    if not judged:
        print("    what was computed of the samples, without any judge (one: make demo ARGS=--judge):")
    else:
        print("    what was computed of the samples, and what a very small model says of them (too small to judge: expect few scores, or none):")
    for criterion in sorted({score["criterion"] for score in scores}):
        of = [score for score in scores if score["criterion"] == criterion]
        given = [score["value"] if score["score"] is None else score["score"] for score in of if not score["error"]]
        average = f"{sum(given) / len(given):.2f} on average" if given else "no score"
        errors = sorted({score["error"] for score in of if score["error"]})
        scale = {"ratio": "0 to 1", "boolean": "share"}.get(of[0]["scale"], "1 to 5")
        failed = f", {len(of) - len(given)} without a score: {', '.join(errors)}" if errors else ""
        print(f"        {criterion:16} {len(given):3} of {len(of)} samples, {average} ({scale}){failed}")


def wait_for_scores(judged):
    """Every score in the bucket, once some were computed and, where there is a judge, it has spoken."""
    deadline = time.monotonic() + (SCORE_WAIT_S if judged else SAMPLE_WAIT_S)
    while time.monotonic() < deadline:
        scores = [line for _, line in rows("scores")]
        computed = any(score["value"] is not None for score in scores)
        if computed and (not judged or any(score["judge"] for score in scores)):
            return scores
        time.sleep(0.5)
    raise Failed(f"no scores in {os.environ['DEMO_DATA']}/bucket; look at {os.environ['DEMO_DATA']}/logs/flowtap.log")


def wait_for_sample():
    deadline = time.monotonic() + SAMPLE_WAIT_S
    while time.monotonic() < deadline:
        found = one_of(rows("exchanges"))
        if found:
            return found
        time.sleep(0.5)
    raise Failed(f"no sample of reason `rate` in {os.environ['DEMO_DATA']}/bucket within {SAMPLE_WAIT_S} s")


def main(words):
    match words:
        case ["free", *settings]:
            free(settings)
        case ["up", url]:
            return 0 if up(url) else 1
        case ["ask"]:
            ask()
        case ["show"]:
            show()
        case _:
            raise Failed(__doc__)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (Failed, OSError, http.client.HTTPException, urllib.error.URLError) as fault:
        print(f"demo: {fault}", file=sys.stderr)
        sys.exit(1)
