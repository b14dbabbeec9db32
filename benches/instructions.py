#!/usr/bin/env python3
"""Instructions an exchange, counted by callgrind, beside those kept in benches/baseline.

Counts repeat to a fraction of a percent where times on a shared machine do not. Each case runs with two
numbers of exchanges; the difference is divided, so that what starting costs cancels out. Ends with 1
where a case has become more than 3% dearer. `--bless` keeps the counts as the new baseline.

With the binary, optimised, the whole process is counted; without it, a build for tests, and of it only what
the pipeline does with an exchange: the test suite does that, which has no time for an optimised build.
"""

import argparse
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).with_name("compare")))
import peers  # noqa: E402
from cases import CASES, path_of  # noqa: E402

BASELINES = Path(__file__).with_name("baseline")
WORSE_THAN = 1.03
BEHIND = [(case, kept) for case in ("chat", "stream", "large") for kept in ("passed", "kept")]
FEW, MANY = 500, 2500
# What the pipeline does with an exchange, to be counted alone; other threads' counts vary with the time.
PIPELINE = ["flowtap::pipeline::Pipeline::read", "*::sampled_row"]
BEHIND_UNOPTIMISED = [(case, kept) for case in ("chat", "stream") for kept in ("passed", "kept")]
FEW_UNOPTIMISED, MANY_UNOPTIMISED = 40, 140


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--behind", required=True, help="the bench `behind`, built")
    parser.add_argument("--flowtap", help="the binary, optimised as `behind` is")
    parser.add_argument("--bless", action="store_true", help="keep the counts as the baseline")
    return parser.parse_args()


def callgrind(out, alone=()):
    collected = [f"--toggle-collect={function}" for function in alone]
    return ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--separate-threads=yes", *collected]


def counted(folder):
    """Instructions of all threads of a run, from what callgrind wrote; its own files are removed."""
    total = 0
    for path in Path(folder).glob("counts*"):
        found = re.search(r"^(?:totals|summary): (\d+)", path.read_text(errors="replace"), re.M)
        total += int(found.group(1)) if found else 0
        path.unlink()
    return total


def behind(binary, folder, case, kept, few, many, alone=()):
    """What an exchange costs behind the proxy."""
    def run(count):
        command = [*callgrind(f"{folder}/counts", alone), binary, case, kept, str(count)]
        subprocess.run(command, check=True, capture_output=True, timeout=600)
        return counted(folder)
    return (run(many) - run(few)) / (many - few)


def ask(port, case, count):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for _ in range(count):
        connection.request("POST", path_of(case), case.request, {"content-type": case.media})
        answer = connection.getresponse()
        assert answer.status == 200 and answer.read(), answer.status
    connection.close()


class Counted(peers.Flowtap):
    """flowtap under callgrind."""

    start_seconds = 60


def proxied(binary, folder, rate):
    """What a request costs in the whole process."""
    peers.certificate(folder)
    upstream = peers.upstream(folder)

    def run(count):
        wrapped = Path(folder, "counted.sh")
        wrapped.write_text("#!/bin/sh\nexec " + " ".join([*callgrind(f"{folder}/counts"), binary, '"$@"']) + "\n")
        wrapped.chmod(0o755)
        flowtap = Counted("counted", rate, str(wrapped), upstream, folder)
        ask(flowtap.port, CASES["plain"], count)
        time.sleep(1)
        flowtap.child.send_signal(signal.SIGTERM)
        flowtap.child.wait(60)
        return counted(folder)
    try:
        return (run(MANY) - run(FEW)) / (MANY - FEW)
    finally:
        upstream.stop()


def measure_optimised(options, folder):
    for case, kept in BEHIND:
        scale = 10 if case == "large" else 1
        count = behind(options.behind, folder, case, kept, FEW // scale, MANY // scale)
        yield f"behind the proxy, {case}, {kept}", count
    for name, rate in (("passed", 0), ("10% kept", 0.1)):
        yield f"whole process, 2 KiB, {name}", proxied(options.flowtap, folder, rate)


def measure_unoptimised(options, folder):
    for case, kept in BEHIND_UNOPTIMISED:
        counts = (FEW_UNOPTIMISED, MANY_UNOPTIMISED)
        yield f"the pipeline alone, {case}, {kept}", behind(options.behind, folder, case, kept, *counts, PIPELINE)


def measure(options):
    found = {}
    with tempfile.TemporaryDirectory(prefix="flowtap-instructions-") as folder:
        os.chmod(folder, 0o755)
        for name, count in (measure_optimised if options.flowtap else measure_unoptimised)(options, folder):
            found[name] = round(count)
            print(f"    {name}: {found[name]:,}", flush=True)
    return found


def compare(found, kept):
    """The cases that have become dearer."""
    worse = []
    for name, count in found.items():
        before = kept.get(name)
        if before:
            print(f"{name}: {before:,} before, {count:,} now ({count / before - 1:+.1%})")
            worse += [name] if count > before * WORSE_THAN else []
    return worse


def main():
    options = arguments()
    baseline = BASELINES / ("optimised.json" if options.flowtap else "unoptimised.json")
    compiler = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    kept = json.loads(baseline.read_text()) if baseline.exists() and not options.bless else {}
    if kept and kept["compiler"] != compiler:
        # Another compiler makes other instructions of the same source.
        return print(f"left out: the baseline was counted with {kept['compiler']}, this is {compiler}")
    found = measure(options)
    if options.bless:
        baseline.parent.mkdir(exist_ok=True)
        return baseline.write_text(json.dumps({"compiler": compiler, "instructions": found}, indent=2) + "\n")
    worse = compare(found, kept.get("instructions", {}))
    if worse:
        sys.exit("more than 3% dearer: " + "; ".join(worse) + ". If that is meant: ARGS=--bless keeps it")


if __name__ == "__main__":
    main()
