#!/usr/bin/env python3
"""Streams through flowtap, nginx, haproxy and Envoy: what an event waits, and what an open stream holds in memory.

One thread is upstream and client both: it sends an event upstream and waits for it at the client before the
next one goes, so that nothing is measured but the way through the proxy. The streams are all open
throughout; events go round them in turn. Memory is resident memory with all of them open and some events
passed, less that before the first. What arrives is compared with what was sent, byte by byte, and each
event must come by itself.

    python3 benches/compare/streams.py --flowtap target/release/flowtap
"""

import argparse
import datetime
import os
import socket
import statistics
import sys
import tempfile
import time

import peers
from compare import machine, write_between
from cases import streamed

BEGIN, END = "<!-- streams: begin -->", "<!-- streams: end -->"
REQUEST = (b"POST /openai/deployments/stream/chat/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
           b"Content-Length: %d\r\n\r\n%s")
ASKED = b'{"model": "gpt-4o-mini", "stream": true, "messages": [{"role": "user", "content": "What do the documents say?"}]}'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENTS = streamed(50).split(b"\n\n")[:48]
WAIT_SECONDS = 20
MANY_STREAMS = 1000


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--flowtap", required=True, help="the binary")
    parser.add_argument("--envoy", help="Envoy's binary")
    parser.add_argument("--open", type=int, nargs="+", default=[2000, 16], help="streams open at once")
    parser.add_argument("--events", type=int, default=20_000, help="events timed a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.1, 0, 1], help="shares kept by flowtap")
    parser.add_argument("--write", action="store_true", help="into docs/PERFORMANCE.md")
    return parser.parse_args()


class Upstream:
    """A listening socket; each stream's other end is taken from it by hand."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.listener.settimeout(WAIT_SECONDS)
        self.ports = {"http1": self.listener.getsockname()[1], "tls": self.listener.getsockname()[1]}

    def request(self):
        """A connection on which a request has come whole; its answer begins with an event."""
        connection, _ = self.listener.accept()
        prepare(connection)
        came = b""
        while ASKED not in came:
            piece = connection.recv(65536)
            if not piece:
                raise SystemExit("streams: the peer closed before its request was whole")
            came += piece
        connection.sendall(HEAD + chunk(EVENTS[0] + b"\n\n"))
        return connection


def prepare(connection):
    connection.settimeout(WAIT_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def chunk(payload):
    return b"%x\r\n%s\r\n" % (len(payload), payload)


class Stream:
    """One stream through a peer: the upstream's end, the client's end, and what came so far."""

    def __init__(self, upstream, port):
        self.client = socket.create_connection(("127.0.0.1", port), WAIT_SECONDS)
        prepare(self.client)
        self.client.sendall(REQUEST % (len(ASKED), ASKED))
        self.up = upstream.request()
        head = b""
        while EVENTS[0] not in head:
            head += self.received()
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"streams: refused: {head[:80]!r}")
        self.sent = 0

    def received(self):
        piece = self.client.recv(65536)
        if not piece:
            raise SystemExit("streams: a stream was cut")
        return piece

    def pass_event(self):
        """Microseconds from an event's going until all of its bytes have come."""
        event = EVENTS[self.sent % len(EVENTS)] + b"\n\n"
        self.sent += 1
        data, came = chunk(event), b""
        begun = time.perf_counter_ns()
        self.up.sendall(data)
        while event not in came:
            came += self.received()
        took = (time.perf_counter_ns() - begun) / 1e3
        if len(came) > len(data) + 16:
            raise SystemExit(f"streams: {len(came)} bytes came for {len(data)}")
        return took

    def end(self):
        self.up.sendall(b"0\r\n\r\n")
        came = b""
        while not came.endswith(b"0\r\n\r\n"):
            came = came[-8:] + self.received()
        self.up.close()
        self.client.close()


def measure(port, rss_mib, upstream, streams, events):
    """One round: the time of the middle and of the 99th event, and memory a stream in KiB."""
    before = rss_mib()
    opened = [Stream(upstream, port) for _ in range(streams)]
    for stream in opened[:max(streams // 4, 1)]:
        stream.pass_event()
    times = sorted(opened[n % streams].pass_event() for n in range(events))
    grown = (rss_mib() - before) * 1024 / streams
    for stream in opened:
        stream.end()
    return {"p50_us": times[len(times) // 2], "p99_us": times[len(times) * 99 // 100], "kib": grown}


def start(options, upstream, folder):
    """Every peer, told to pass each event on as it comes, as flowtap and Envoy do anyhow; haproxy holds one
    back for 200 ms else."""
    started = [peers.nginx_proxy(upstream, folder, "proxy_buffering off;"),
               peers.haproxy(upstream, folder, "option http-no-delay")]
    started += [peers.envoy(options.envoy, upstream, folder)] if options.envoy else []
    started += [peers.Flowtap(f"flowtap, {rate:.0%} kept", rate, options.flowtap, upstream, folder) for rate in options.rates]
    return [peer for peer in started if peer]


def rounds(started, upstream, options, streams):
    found = {"(none: straight to the upstream)": []} | {peer.name: [] for peer in started}
    for number in range(options.rounds):
        turn = number % len(started)
        found["(none: straight to the upstream)"].append(measure(upstream.ports["http1"], lambda: 0, upstream, streams, options.events))
        for peer in started[turn:] + started[:turn]:
            found[peer.name].append(measure(peer.port, peer.rss_mib, upstream, streams, options.events))
            print(f"    {streams} streams, round {number + 1}: {peer.name} {found[peer.name][-1]}", file=sys.stderr)
    return found


def table(found, streams):
    direct = found["(none: straight to the upstream)"]
    added = {name: [one["p50_us"] - base["p50_us"] for one, base in zip(all_, direct)] for name, all_ in found.items()}
    lines = [f"### {streams:,} open streams", "",
             "| | an event's way, p50 µs | p99 µs | added p50, ratio to nginx | KiB a stream |", "|---|--:|--:|--:|--:|"]
    for name, figures in found.items():
        middle = lambda key: statistics.median(one[key] for one in figures)
        ratio = statistics.median(ours / theirs for ours, theirs in zip(added[name], added["nginx"]))
        cells = [name, f"{middle('p50_us'):.0f}", f"{middle('p99_us'):.0f}"]
        # What a process took once it uses again: only its first round tells, and only where streams are many.
        memory = f"{figures[0]['kib']:.0f}" if streams >= MANY_STREAMS else ""
        cells += ["", ""] if figures is direct else [f"{ratio:.2f}", memory]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    options = arguments()
    os.sched_setaffinity(0, {int(peers.LOAD_CORE)})
    report = [f"{datetime.datetime.now(datetime.timezone.utc).date()}, {machine()}; medians of {options.rounds} rounds "
              f"of {options.events:,} events."]
    with tempfile.TemporaryDirectory(prefix="flowtap-bench-") as folder:
        os.chmod(folder, 0o755)
        peers.certificate(folder)
        upstream, started = Upstream(), []
        try:
            started = start(options, upstream, folder)
            for streams in options.open:
                report.append(table(rounds(started, upstream, options, streams), streams))
                print(report[-1], end="\n\n", flush=True)
        finally:
            for process in reversed(started):
                process.stop()
    if options.write:
        write_between(BEGIN, END, report)


if __name__ == "__main__":
    main()
