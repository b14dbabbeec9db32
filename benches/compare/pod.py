#!/usr/bin/env python3
"""What one sidecar costs in a day with its defaults, and a thousand of them: CPU, memory, objects, bytes.

flowtap runs for some minutes before the upstream of the comparison, with a tenth kept and a folder for a
bucket, and gets requests at a steady pace. What it spent and wrote is multiplied to a day, but for the first
minutes, in which nothing is sealed yet.

    python3 benches/compare/pod.py --flowtap target/release/flowtap
"""

import argparse
import collections
import json
import os
import tempfile
import time
from pathlib import Path

import peers
from beside import traffic
from cases import CASES

DAY_SECONDS = 86_400
WARM_MINUTES = 2


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--flowtap", required=True, help="the binary")
    parser.add_argument("--rate", type=int, default=16, help="requests a second; 0 is a sidecar at rest")
    parser.add_argument("--minutes", type=int, default=5)
    parser.add_argument("--segment-age", default="60s")
    parser.add_argument("--pods", type=int, default=1000)
    return parser.parse_args()


class Pod(peers.Process):
    """A sidecar with nothing set but where it listens, passes on and writes."""

    def __init__(self, options, upstream, folder):
        port, self.bucket = peers.free_port(), Path(folder, "bucket")
        config = Path(folder, "pod.yaml")
        config.write_text(json.dumps({
            "taps": [{"name": "chat", "listen": f"127.0.0.1:{port}", "upstream": f"http://127.0.0.1:{upstream.ports['http1']}"}],
            "admin": {"listen": f"127.0.0.1:{peers.free_port()}"},
            "spool": {"segment_age": options.segment_age},
            "bucket": f"file://{self.bucket}",
            "traffic": {"threads": 1},
            "data_dir": str(Path(folder, "data")),
        }))
        super().__init__("pod", peers.PROXY_CORE, [options.flowtap, "proxy", "--config", str(config)], folder, {"http1": port})

    def objects(self):
        """How many there are, and their bytes, by dataset."""
        found = collections.Counter(), collections.Counter()
        for path in self.bucket.rglob("*"):
            if path.is_file():
                dataset = path.relative_to(self.bucket).parts[0]
                found[0][dataset] += 1
                found[1][dataset] += path.stat().st_size
        return found


def run(pod, folder, options, minutes):
    """Requests that were answered."""
    options.seconds = minutes * 60
    if options.rate:
        return len(traffic(pod, folder, CASES["plain"], options))
    time.sleep(options.seconds)
    return 0


def main():
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="flowtap-bench-") as folder:
        os.chmod(folder, 0o755)
        peers.certificate(folder)
        upstream = peers.upstream(folder)
        pod = Pod(options, upstream, folder)
        try:
            run(pod, folder, options, WARM_MINUTES)
            before, (objects_before, size_before), begun = pod.cpu_seconds(), pod.objects(), time.monotonic()
            served = run(pod, folder, options, options.minutes)
            took = time.monotonic() - begun
            cpu, rss = pod.cpu_seconds() - before, pod.rss_mib()
            objects, size = pod.objects()
            objects.subtract(objects_before)
            size.subtract(size_before)
        finally:
            pod.stop()
            upstream.stop()
    days = took / DAY_SECONDS
    print(f"{served / took:.1f} requests/s for {took:.0f} s, segments of {options.segment_age}\n")
    print(f"| a day | one pod | {options.pods:,} pods |\n|---|--:|--:|")
    rows = [("CPU, cores", cpu / took, "{:.4f}", "{:.1f}"), ("memory, MiB", rss, "{:.0f}", "{:,.0f}")]
    rows += [(f"objects of `{name}`", count / days, "{:,.0f}", "{:,.0f}") for name, count in sorted(objects.items())]
    rows += [("objects, each one request", sum(objects.values()) / days, "{:,.0f}", "{:,.0f}"),
             ("written, MiB", sum(size.values()) / days / 2**20, "{:,.1f}", "{:,.0f}")]
    for name, figure, one, all_ in rows:
        print(f"| {name} | {one.format(figure)} | {all_.format(figure * options.pods)} |")


if __name__ == "__main__":
    main()
