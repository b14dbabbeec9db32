#!/usr/bin/env python3
"""How cost grows: CPU a request at five sizes of answers, memory and an event's way at five numbers of open streams.

What is linear costs the same for each further KiB, and for each further stream, however many there were before.

    python3 benches/compare/sizes.py --flowtap target/release/flowtap
"""

import argparse
import datetime
import os
import tempfile

import peers
import streams
from cases import CASES
from compare import machine, median, rounds, version, write_between

BEGIN, END = "<!-- sizes: begin -->", "<!-- sizes: end -->"
SIZES = {"kib4": 4, "kib16": 16, "large": 64, "kib256": 256, "huge": 1024}
OPEN = [125, 250, 500, 1000, 2000]
CONNECTIONS = 16


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--flowtap", required=True, help="the binary")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.1, 0], help="shares kept by flowtap")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2, help="of each load")
    parser.add_argument("--events", type=int, default=5_000, help="events a round, at each number of open streams")
    parser.add_argument("--write", action="store_true", help="into docs/PERFORMANCE.md")
    return parser.parse_args()


def flowtaps(options, upstream, folder):
    return [peers.Flowtap(f"flowtap, {rate:.0%} kept", rate, options.flowtap, upstream, folder) for rate in options.rates]


def by_size(options, folder):
    """CPU microseconds a request, by peer and size."""
    upstream = peers.upstream(folder)
    started = [upstream]
    try:
        started += [peers.nginx_proxy(upstream, folder), *flowtaps(options, upstream, folder)]
        spent = {peer.name: {} for peer in started[1:]}
        for case, kib in SIZES.items():
            found = rounds(started[1:], folder, options, CASES[case], CONNECTIONS, "http1")
            for name, figures in found.items():
                spent[name][kib] = median(figures, "cpu_us")
        return spent
    finally:
        for process in reversed(started):
            process.stop()


def by_streams(options, folder):
    """KiB a stream and the middle event's microseconds, by peer and streams; a process for each number, since
    memory that was had once is used again."""
    upstream, found = streams.Upstream(), {}
    for count in OPEN:
        started = []
        try:
            started += [peers.nginx_proxy(upstream, folder, "proxy_buffering off;"), *flowtaps(options, upstream, folder)]
            for peer in started:
                one = streams.measure(peer.port, peer.rss_mib, upstream, count, options.events)
                found.setdefault(peer.name, {})[count] = one["kib"], one["p50_us"]
        finally:
            for process in reversed(started):
                process.stop()
    return found


def size_table(spent):
    lines = ["| CPU µs a request, and in brackets for each KiB more than the size before | " + " | ".join(f"{kib} KiB" for kib in SIZES.values()) + " |",
             "|---|" + "--:|" * len(SIZES)]
    for name, at in spent.items():
        sizes = list(at)
        more = [""] + [f" ({(at[now] - at[before]) / (now - before):.2f})" for before, now in zip(sizes, sizes[1:])]
        lines.append(f"| {name} | " + " | ".join(f"{at[size]:.0f}{each}" for size, each in zip(sizes, more)) + " |")
    return "\n".join(lines)


def stream_table(found):
    lines = ["| KiB an open stream, and an event's way in µs | " + " | ".join(f"{count:,} streams" for count in OPEN) + " |",
             "|---|" + "--:|" * len(OPEN)]
    lines += [f"| {name} | " + " | ".join(f"{kib:.0f}, {p50:.0f}" for kib, p50 in at.values()) + " |" for name, at in found.items()]
    return "\n".join(lines)


def main():
    options = arguments()
    os.sched_setaffinity(0, {int(peers.LOAD_CORE)})
    today = datetime.datetime.now(datetime.timezone.utc).date()
    with tempfile.TemporaryDirectory(prefix="flowtap-bench-") as folder:
        os.chmod(folder, 0o755)
        peers.certificate(folder)
        report = [f"{today}, {machine()}; {version(['nginx', '-v'])}; {CONNECTIONS} connections, medians of {options.rounds} rounds of "
                  f"{options.seconds} s; streams once each.",
                  size_table(by_size(options, folder)), stream_table(by_streams(options, folder))]
    print("\n\n".join(report))
    if options.write:
        write_between(BEGIN, END, report)


if __name__ == "__main__":
    main()
