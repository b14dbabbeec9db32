#!/usr/bin/env python3
"""Writes link/start.ld: which functions run when flowtap starts, and which when requests pass, so that the
linker lays each of the two together.

Linux maps a file's pages sixteen at a time around each that is touched. Functions in the order of their crates
lie scattered, and a process at rest holds half of the program; laid together they hold as much as they are.

What runs is told by callgrind. A function's name has a hash at its end which differs from build to build: the
linker is given a pattern without it. Names that a build does not have are passed over, so that this need not be
run again with each change, only now and then.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).with_name("compare")))
import instructions  # noqa: E402
import peers  # noqa: E402
from cases import CASES  # noqa: E402

SCRIPT = Path(__file__).parent.parent / "link" / "start.ld"
# What one function may cost that lies elsewhere: the pages around it.
WINDOW_BYTES = 64 * 1024
REQUESTS = 40
# What runs at the start of a sidecar, while requests pass it, and what `flowtap run` has besides: whether it is
# that, and how many requests are asked.
SECTIONS = {"start": (False, 0), "busy": (False, REQUESTS), "start_whole": (True, 0), "busy_whole": (True, REQUESTS)}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--flowtap", required=True, action="append",
                        help="the program, with its symbols; once for each profile: what is inlined differs")
    return parser.parse_args()


class Watched(peers.Flowtap):
    """flowtap under callgrind."""

    start_seconds = 120


def ran(binary, upstream, folder, name, whole, requests):
    """The functions that ran."""
    out = Path(folder, f"{name}.functions")
    wrapped = Path(folder, f"{name}.sh")
    watch = ["valgrind", "--tool=callgrind", "--demangle=no", f"--callgrind-out-file={out}"]
    wrapped.write_text("#!/bin/sh\nexec " + " ".join([*watch, binary, '"$@"']) + "\n")
    wrapped.chmod(0o755)
    flowtap = Watched(name, 1, str(wrapped), upstream, folder, whole)
    for case in ("plain", "stream", "large") if requests else ():
        instructions.ask(flowtap.port, CASES[case], requests)
    # Until segments are sealed and what is done now and then was done once.
    time.sleep(10)
    flowtap.child.send_signal(signal.SIGTERM)
    flowtap.child.wait(120)
    lines = re.findall(r"^c?fn=\(\d+\) (\S+)", out.read_text(errors="replace"), re.M)
    return {re.sub(r"'\d+$", "", line) for line in lines}


def pattern(symbol):
    """A function's name without what differs from build to build."""
    legacy = re.match(r"(_ZN.*17h)[0-9a-f]{16}E", symbol)
    if legacy:
        return legacy.group(1) + "*"
    if symbol.startswith("_R"):
        return re.sub(r"Cs[0-9A-Za-z]+_", "Cs*_", re.sub(r"\.llvm\..*", "*", symbol))
    return symbol


def sizes(binary):
    """Bytes of each function of the program."""
    lines = subprocess.run(["nm", "-S", binary], check=True, capture_output=True, text=True).stdout
    found = re.findall(r"^\S+ (\S+) [tTwW] (\S+)$", lines, re.M)
    return {symbol: int(size, 16) for size, symbol in found}


def patterns(functions, size):
    """The patterns of functions that are worth it: one may mean many more than those that ran."""
    hot, all_of = defaultdict(list), defaultdict(int)
    for symbol, of in size.items():
        all_of[pattern(symbol)] += of
        if symbol in functions:
            hot[pattern(symbol)].append(of)
    kept = {one for one, ran in hot.items() if all_of[one] - sum(ran) <= len(ran) * WINDOW_BYTES}
    print(f"{len(hot)} names, {len(kept)} kept; {sum(map(sum, hot.values())) >> 10} KiB ran, "
          f"{sum(all_of[one] for one in kept) >> 10} KiB are laid together")
    return kept


def section(name, of):
    """An output section. What a compiler takes for cold, it names so; much of that runs once, at the start."""
    lines = "".join(f"    *(.text.{one} .text.unlikely.{one})\n" for one in sorted(of))
    return f"  {name} : {{\n{lines}  }}\n"


def laid_out(binary, upstream, folder):
    """What is laid together in each section, by one program."""
    size = sizes(binary)
    return [patterns(ran(binary, upstream, folder, name, whole, requests), size)
            for name, (whole, requests) in SECTIONS.items()]


def main():
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="flowtap-order-") as folder:
        os.chmod(folder, 0o755)
        peers.certificate(folder)
        upstream = peers.upstream(folder)
        try:
            of_all = [laid_out(binary, upstream, folder) for binary in options.flowtap]
        finally:
            upstream.stop()
    sections, known = [], set()
    for name, of in zip(SECTIONS, zip(*of_all, strict=True), strict=True):
        laid = set().union(*of) - known
        known |= laid
        sections.append(section(f".text.{name}", laid))
    SCRIPT.write_text(
        "/* Made by `make order` (benches/order.py): what runs when flowtap starts, and what while requests pass. */\n"
        "SECTIONS {\n" + "".join(sections) + "}\nINSERT BEFORE .text;\n")


if __name__ == "__main__":
    main()
