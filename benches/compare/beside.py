#!/usr/bin/env python3
"""Traffic at a steady pace while the page is hammered, and while it is not: does its latency move?

flowtap runs as one process with its index, as `flowtap run` does; requests come at a fixed rate on
keep-alive connections, so that a slow answer delays no other. In turns, nothing else happens, or wrk asks
the API without a pause on eight connections. Both times are medians over the rounds.

    python3 benches/compare/beside.py --flowtap target/release/flowtap
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

import peers
from cases import CASES, path_of

QUESTIONS = ["overview", "usage?by=model", "operations?by=deployment", "quality", "samples?sort=latency", "samples?q=flow"]
CONNECTIONS = 16


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--flowtap", required=True, help="the binary")
    parser.add_argument("--rate", type=int, default=480, help="requests a second")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="of each turn")
    return parser.parse_args()


def traffic(flowtap, folder, case, options):
    """Milliseconds of every request of one turn, sorted."""
    url = f"http://127.0.0.1:{flowtap.port}{path_of(case)}"
    with tempfile.NamedTemporaryFile(mode="r", prefix="flowtap-h2load-") as log:
        command = ["h2load", "--h1", "-t1", f"-c{CONNECTIONS}", f"--rps={options.rate / CONNECTIONS}",
                   f"-D{options.seconds}", f"--log-file={log.name}", "-d", str(Path(folder, f"{case.name}.request")),
                   "-H", "content-type: application/json", url]
        subprocess.run(command, capture_output=True, timeout=options.seconds + 60, check=True)
        lines = [line.split() for line in log.read().splitlines()]
    failed = [line for line in lines if line[1] != "200"]
    # What is under way at the end is cut off by the clock.
    if len(failed) > CONNECTIONS:
        raise SystemExit(f"{len(failed)} of {len(lines)} requests failed: {failed[0]}")
    return sorted(int(line[2]) / 1e3 for line in lines if line[1] == "200")


def hammer(flowtap, folder, seconds):
    """Asks every question again and again; the process."""
    script = Path(folder, "questions.lua")
    paths = ", ".join(f'"/api/v1/{question}"' for question in QUESTIONS)
    script.write_text(f"local paths = {{{paths}}}\nlocal n = 0\n"
                      "request = function() n = n + 1; return wrk.format('GET', paths[n % #paths + 1]) end\n")
    command = ["wrk", "-t1", "-c8", f"-d{seconds}s", "-s", str(script), f"http://127.0.0.1:{flowtap.admin}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def indexed(flowtap):
    with urllib.request.urlopen(f"http://127.0.0.1:{flowtap.admin}/api/v1/samples?limit=1", timeout=10) as answer:
        return bool(json.load(answer)["samples"])


def turn(flowtap, folder, case, options, asked):
    busy = hammer(flowtap, folder, options.seconds + 1) if asked else None
    time.sleep(0.5)
    times = traffic(flowtap, folder, case, options)
    answers = 0
    if busy:
        line = next(line for line in busy.communicate(timeout=60)[0].splitlines() if "requests in" in line)
        answers = int(line.split()[0]) / (options.seconds + 1)
    return {"p50": times[len(times) // 2], "p99": times[len(times) * 99 // 100], "requests": len(times), "answers": answers}


def main():
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="flowtap-bench-") as folder:
        Path(folder).chmod(0o755)  # nginx reads it as another user
        peers.certificate(folder)
        upstream = peers.upstream(folder)
        flowtap = peers.Flowtap("flowtap", 1, options.flowtap, upstream, folder, whole=True)
        case = CASES["plain"]
        try:
            while not indexed(flowtap):
                traffic(flowtap, folder, case, argparse.Namespace(rate=options.rate, seconds=5))
            found = {False: [], True: []}
            for number in range(options.rounds):
                for asked in (False, True) if number % 2 else (True, False):
                    found[asked].append(turn(flowtap, folder, case, options, asked))
        finally:
            flowtap.stop()
            upstream.stop()
    print("| | p50 ms | p99 ms | answers of the API a second |\n|---|--:|--:|--:|")
    for asked, name in ((False, "nobody asks"), (True, "the page is hammered")):
        of = {key: statistics.median(one[key] for one in found[asked]) for key in ("p50", "p99", "answers")}
        print(f"| {name} | {of['p50']:.2f} | {of['p99']:.2f} | {of['answers']:.0f} |")
    for key in ("p50", "p99"):
        ratios = [hot[key] / cold[key] for hot, cold in zip(found[True], found[False])]
        print(f"{key}, ratio: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
