"""Compares what a client gets directly with what it gets through flowtap; exits 1 with every difference.

    compare.py flow DIRECT_PORT VIA_PORT
    compare.py example DIRECT_PORT VIA_PORT
    compare.py openai DIRECT_PORT VIA_PORT MODEL
    compare.py anthropic UPSTREAM_PORT VIA_PORT     (starts its scripted upstream itself)
    compare.py proof                                (shows that differences are found)
"""
import sys

import flows
import scripted
import sdks
from wire import request

# What flowtap adds to a request, and what belongs to one hop or one address.
ADDED = {"x-ms-client-request-id", "traceparent", "tracestate"}
OWN_ADDRESS = {"host", "connection", "keep-alive"}


def base(port):
    return f"http://127.0.0.1:{port}"


def compare_openai(direct, via, model):
    ours = sdks.openai_calls(f"{base(direct)}/v1", model)
    outcome = sdks.outcome(ours["chat"])
    if not isinstance(outcome, dict):
        return [f"the model itself does not answer: {outcome!r}"]
    return sdks.compare(ours, sdks.openai_calls(f"{base(via)}/v1", model), warm=True)


def compare_anthropic(upstream, via):
    server = scripted.serve(upstream)
    direct_calls, via_calls = sdks.anthropic_calls(base(upstream)), sdks.anthropic_calls(base(via))
    faults = []
    for name in direct_calls:
        server.seen.clear()
        faults += sdks.compare({name: direct_calls[name]}, via_calls)
        faults += [f"{name}: {fault}" for fault in upstream_faults(server.seen)]
    server.shutdown()
    return faults


def upstream_faults(seen):
    """The upstream must have been asked twice, and the same both times."""
    if len(seen) != 2:
        return [f"the upstream was asked {len(seen)} times instead of twice"]
    direct, via = (as_asked(request) for request in seen)
    return [f"upstream saw {key}: direct {direct[key]!r}, through flowtap {via[key]!r}" for key in direct if direct[key] != via[key]]


def as_asked(seen):
    ignored = ADDED | OWN_ADDRESS
    headers = [(name, value) for name, value in seen["headers"] if name.lower() not in ignored]
    return {**seen, "headers": headers}


def proof():
    """Two scripted upstreams that differ a little must be told apart, two equal ones must not."""
    case = [("message", [request("POST", "/v1/messages", b'{"model": "m"}')])]
    one, two = scripted.serve(0), scripted.serve(0)
    ports = one.server_address[1], two.server_address[1]
    faults = [f"equal servers differ: {fault}" for fault in flows.compare(*ports, case)]
    original, swapped = scripted.Scripted.head, []

    def other_head(self, status, kind):
        original(self, status, kind)
        if self.server is two:
            swap(self._headers_buffer)

    for swap in (swap_last_two, change_case, change_value):
        scripted.Scripted.head = other_head
        swapped.append(flows.compare(*ports, case))
        scripted.Scripted.head = original
    return faults + [f"change {at} went unseen" for at, found in enumerate(swapped) if not found]


def swap_last_two(lines):
    lines[-1], lines[-2] = lines[-2], lines[-1]


def change_case(lines):
    lines[-1] = lines[-1].title()


def change_value(lines):
    lines[-1] = lines[-1].replace(b"49", b"50")


def main(words):
    match words:
        case ["flow", direct, via]:
            return flows.compare(int(direct), int(via))
        case ["example", direct, via]:
            return flows.compare(int(direct), int(via), flows.EXAMPLE_CASES, warm=True)
        case ["openai", direct, via, model]:
            return compare_openai(int(direct), int(via), model)
        case ["anthropic", upstream, via]:
            return compare_anthropic(int(upstream), int(via))
        case ["proof"]:
            return proof()
    return [__doc__]


if __name__ == "__main__":
    found = main(sys.argv[1:])
    print("\n".join(found) if found else "no difference")
    sys.exit(1 if found else 0)
