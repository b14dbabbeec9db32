#!/usr/bin/env python3
"""flowtap beside nginx, haproxy and Envoy, interleaved in one run; writes a table of medians.

Every round puts the same load before each peer in turn, so that whatever else the machine does
falls on all alike; ratios are taken within a round, and their median is told. CPU is the process's
own accounting, children and background threads included, read only after what it captured had
time to pass through; so work done later for the same requests counts.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import peers
from cases import CASES, path_of
from gateways import gateways

REPO = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- make bench: begin -->", "<!-- make bench: end -->"
# A peer that spends less than this much CPU in SETTLE_SECONDS has nothing left to do for past requests.
QUIET_CPU_SECONDS = 0.004
SETTLE_SECONDS = 0.25
SETTLE_TIMES_MAX = 120
PLAN = [("plain", 1, "http1"), ("plain", 16, "http1"), ("plain", 64, "http1"), ("plain", 512, "http1"),
        ("small", 16, "http1"), ("large", 16, "http1"), ("huge", 16, "http1"), ("stream", 16, "http1"),
        ("counted", 16, "http1"), ("score", 16, "http1"),
        ("plain", 16, "tls"), ("plain", 16, "tls-up"), ("plain", 16, "http2"), ("plain", 16, "http2-tls")]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--flowtap", type=program, required=True, help="the binary")
    parser.add_argument("--baseline", type=program, help="another flowtap binary, to compare with")
    parser.add_argument("--envoy", help="the binary; without it Envoy is left out")
    parser.add_argument("--gateways", help="the folder below which LiteLLM and Portkey are installed")
    parser.add_argument("--rounds", type=some, default=7)
    parser.add_argument("--seconds", type=some, default=1, help="of each load")
    parser.add_argument("--only", nargs="*", type=chosen, default=PLAN, metavar="CASE[:CONNECTIONS[:WIRE]]",
                        help=f"cases: {', '.join(CASES)}; wires: {', '.join(peers.WIRES)}")
    parser.add_argument("--rates", nargs="*", type=float, default=[0.1, 0, 1], help="sampling rates")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/PERFORMANCE.md")
    return parser.parse_args()


def start(options, folder):
    """The upstream first, then the peers in the order of the table."""
    peers.certificate(folder)
    upstream = peers.upstream(folder)
    started = [upstream, peers.nginx_proxy(upstream, folder)]
    beside = peers.haproxy(upstream, folder)
    started += [beside] if beside else []
    if options.envoy:
        started.append(peers.envoy(options.envoy, upstream, folder))
    if options.gateways:
        started += gateways(options.gateways, upstream, folder)
    for rate in options.rates:
        started.append(peers.Flowtap(f"flowtap, {rate:.0%} kept", rate, options.flowtap, upstream, folder))
        if rate == options.rates[0]:
            name = f"flowtap run, {rate:.0%} kept"
            started.append(peers.Flowtap(name, rate, options.flowtap, upstream, folder, whole=True))
    if options.baseline:
        rate = options.rates[0]
        started.append(peers.Flowtap(f"baseline, {rate:.0%} kept", rate, options.baseline, upstream, folder))
    return started


def load(folder, peer, case, connections, wire, seconds):
    """One load on the load's core; its figures."""
    tool = by_h2load if wire.startswith("http2") else by_wrk
    scheme = "https" if wire in ("tls", "http2-tls") else "http"
    url = f"{scheme}://127.0.0.1:{peer.ports[wire]}{peer.path or path_of(case)}"
    return tool(url, Path(folder, f"{case.name}.request"), peer.headers, connections, seconds)


def by_wrk(url, body, headers, connections, seconds):
    more = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    command = ["taskset", "-c", peers.LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout",
               "10s", *more, "-s", str(Path(__file__).with_name("load.lua")), url]
    env = {**os.environ, "BENCH_BODY": str(body)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, env=env, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def by_h2load(url, body, _headers, connections, seconds):
    with tempfile.NamedTemporaryFile(mode="r", prefix="flowtap-h2load-") as log:
        command = ["taskset", "-c", peers.LOAD_CORE, "h2load", "-t1", f"-c{connections}", "-m1", f"-D{seconds}",
                   f"--log-file={log.name}", "-d", str(body), "-H", "content-type: application/json",
                   "-H", "authorization: Bearer not-a-key", url]
        subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=True)
        answered = [line.split() for line in log.read().splitlines()]
    times = sorted(int(line[2]) / 1e3 for line in answered) or [0]
    failed = sum(line[1] != "200" for line in answered)
    return {"requests": len(answered), "seconds": seconds, "p50_ms": times[len(times) // 2],
            "p99_ms": times[len(times) * 99 // 100], "failed": failed}


def settle(peer):
    """Waits until the peer has done what it does later for requests that were answered."""
    for _ in range(SETTLE_TIMES_MAX):
        before = sum(peer.threads().values())
        time.sleep(SETTLE_SECONDS)
        if sum(peer.threads().values()) - before < QUIET_CPU_SECONDS:
            return


def measure(peer, folder, case, connections, wire, seconds):
    """The load's figures with what the peer spent on it."""
    cpu, threads, lost = peer.cpu_seconds(), peer.threads(), peer.lost()
    figures = load(folder, peer, case, connections, wire, seconds)
    settle(peer)
    requests = max(figures["requests"], 1)
    if figures["failed"]:
        print(f"{peer.name}: {figures['failed']} of {requests} requests failed", file=sys.stderr)
    after = peer.threads()
    return {
        "rate": requests / figures["seconds"],
        "cpu_us": (peer.cpu_seconds() - cpu) / requests * 1e6,
        "p50_ms": figures["p50_ms"],
        "p99_ms": figures["p99_ms"],
        "rss_mib": peer.rss_mib(),
        "lost": {kind: (count - lost[kind]) / requests for kind, count in peer.lost().items()},
        "threads": {name: (after[name] - threads.get(name, 0)) / requests * 1e6 for name in after},
    }


def system_calls(peer, folder, case, connections, wire):
    """System calls a request, counted in a load of their own, which they slow down; None where they cannot be."""
    report = Path(folder, "strace")
    report.unlink(missing_ok=True)
    attached = [part for pid in peer.pids() for part in ("-p", str(pid))]
    with subprocess.Popen(["strace", "-c", "-f", "-o", report, *attached], stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True) as tracer:
        # It says so once it is there, and why it is not.
        said = tracer.stderr.readline()
        if "attached" not in said:
            print(f"system calls of {peer.name} are not counted: {said.strip()}", file=sys.stderr)
            tracer.kill()
            return None
        figures = load(folder, peer, case, connections, wire, 1)
        tracer.send_signal(signal.SIGINT)
        tracer.communicate(timeout=30)
    # A line is: % time, seconds, usecs/call, calls, errors if any, system call.
    lines = [line.split() for line in report.read_text().splitlines()]
    calls = sum(int(line[3]) for line in lines if len(line) > 4 and line[3].isdigit() and line[-1] != "total")
    return calls / max(figures["requests"], 1)


def rounds(started, folder, options, case, connections, wire):
    """Figures of every round, by peer; each round begins with the next peer."""
    started = [peer for peer in started if wire in peer.ports and case.name in peer.cases]
    found = {peer.name: [] for peer in started}
    for peer in started:
        load(folder, peer, case, connections, wire, 1)
        settle(peer)
    for number in range(options.rounds):
        turn = number % len(started)
        for peer in started[turn:] + started[:turn]:
            found[peer.name].append(measure(peer, folder, case, connections, wire, options.seconds))
    for peer in started if shutil.which("strace") else []:
        if peer.name != "upstream":
            found[peer.name][0]["calls"] = system_calls(peer, folder, case, connections, wire)
            settle(peer)
    return found


def median(figures, key):
    return statistics.median(figure[key] for figure in figures)


def ratios(figures, base, key):
    return [one[key] / max(other[key], 1e-9) for one, other in zip(figures, base)]


def ratio(figures, base, key):
    return statistics.median(ratios(figures, base, key))


def ratio_and_range(figures, base, key):
    """A median, and between what the rounds were: what of it is the machine's doing."""
    found = ratios(figures, base, key)
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def losses(figures):
    """Shares of the exchanges, by what of them was lost."""
    shares = {kind: statistics.median(one["lost"][kind] for one in figures) for kind in figures[0]["lost"]}
    told = [f"{share:.1%} {kind}" for kind, share in shares.items() if share >= 0.0005]
    return ", ".join(told) or ("nothing" if shares else "")


COLUMNS = ["requests/s", "ratio to nginx", "CPU µs a request", "CPU, ratio to nginx (of the rounds)",
           "system calls a request", "p50 ms", "p99 ms", "p50, ratio to nginx", "RSS MiB", "lost"]


def table(found):
    lines = ["| | " + " | ".join(COLUMNS) + " |", "|---|" + "--:|" * len(COLUMNS)]
    base = found["nginx"]
    for name, figures in found.items():
        straight = name == "upstream"
        calls = figures[0].get("calls")
        cells = ["(none: straight to the upstream)" if straight else name,
                 f"{median(figures, 'rate'):,.0f}", f"{ratio(figures, base, 'rate'):.2f}",
                 "" if straight else f"{median(figures, 'cpu_us'):.1f}",
                 "" if straight else ratio_and_range(figures, base, "cpu_us"),
                 "" if calls is None else f"{calls:.1f}",
                 f"{median(figures, 'p50_ms'):.2f}", f"{median(figures, 'p99_ms'):.2f}",
                 f"{ratio(figures, base, 'p50_ms'):.2f}", "" if straight else f"{median(figures, 'rss_mib'):.0f}",
                 losses(figures)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def thread_table(found):
    """Where flowtap's own CPU went."""
    ours = {name: figures for name, figures in found.items() if "flowtap" in name or "baseline" in name}
    names = sorted({thread for figures in ours.values() for one in figures for thread in one["threads"]})
    rows = {}
    for thread in names:
        spent = [statistics.median(one["threads"].get(thread, 0) for one in figures) for figures in ours.values()]
        if max(spent) >= 0.05:
            rows[thread] = spent
    lines = ["| µs a request, by thread | " + " | ".join(ours) + " |", "|---|" + "--:|" * len(ours)]
    lines += [f"| `{thread}` | " + " | ".join(f"{us:.1f}" for us in spent) + " |" for thread, spent in rows.items()]
    return "\n".join(lines)


def at_rest(started):
    """What each costs before its first request."""
    lines = ["| before the first request | listens after, ms | RSS MiB |", "|---|--:|--:|"]
    time.sleep(SETTLE_SECONDS)
    lines += [f"| {peer.name} | {peer.ready_ms:.0f} | {peer.rss_mib():.0f} |" for peer in started if peer.name != "upstream"]
    return "\n".join(lines)


def machine():
    model = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return f"{model[0] if model else platform.machine()}, {len(peers.CORES)} cores, Linux {platform.release()}"


def version(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip().splitlines()[0]


def chosen(entry):
    """What `--only` names, checked before anything is started."""
    case, connections, wire = (entry + "::").split(":")[:3]
    wire = wire or "http1"
    if case not in CASES:
        raise argparse.ArgumentTypeError(f"{entry}: there is no case {case!r}; there are {', '.join(CASES)}")
    if wire not in peers.WIRES:
        raise argparse.ArgumentTypeError(f"{entry}: there is no wire {wire!r}; there are {', '.join(peers.WIRES)}")
    if connections and not connections.isdigit() or connections == "0":
        raise argparse.ArgumentTypeError(f"{entry}: {connections!r} is no number of connections")
    return case, int(connections or 16), wire


def some(text):
    """A number of at least one."""
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


def program(text):
    """A file that can be run."""
    if not os.access(text, os.X_OK) or Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no program; `cargo build --release` makes target/release/flowtap")
    return os.path.abspath(text)


def write_between(begin, end, parts):
    """Puts what was found into the book, in place of what stands there between two marks."""
    book = REPO / "docs" / "PERFORMANCE.md"
    before, _, rest = book.read_text().partition(begin)
    after = rest.partition(end)[2]
    book.write_text(before + begin + "\n\n" + "\n\n".join(parts) + "\n\n" + end + after)


def main():
    options = arguments()
    today = datetime.datetime.now(datetime.timezone.utc).date()
    report = [f"{today}, {machine()}; {version(['nginx', '-v'])}; wrk with one thread; every figure is the median of "
              f"{options.rounds} rounds of {options.seconds} s; load before and after: {os.getloadavg()[0]:.1f}"]
    with tempfile.TemporaryDirectory(prefix="flowtap-bench-") as folder:
        os.chmod(folder, 0o755)
        started = []
        try:
            started = start(options, folder)
            report.append(at_rest(started))
            for name, connections, wire in options.only:
                case = CASES[name]
                found = rounds(started, folder, options, case, connections, wire)
                title = f"### {case.note}, {connections} connection{'s' if connections > 1 else ''}"
                title += "" if wire == "http1" else f", {peers.WIRES[wire]}"
                report.append("\n\n".join([title, table(found), thread_table(found)]))
                print(report[-1], end="\n\n", flush=True)
        finally:
            for process in reversed(started):
                process.stop()
    report[0] += f" and {os.getloadavg()[0]:.1f}."
    if options.write:
        write_between(BEGIN, END, report)



if __name__ == "__main__":
    main()
