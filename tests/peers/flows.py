"""What is asked of a real prompt flow server, directly and through flowtap, byte by byte."""
import json

from wire import Connection, request

JSON = "Content-Type: application/json"
SSE = "Accept: text/event-stream"
# What may differ: the clock, and what belongs to one connection only (RFC 9110, 7.6.1).
MAY_DIFFER = {"date"}
ONE_HOP = {"connection", "keep-alive"}


def score(body, *headers, **more):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return request("POST", "/score", data, [JSON, *headers], **more)


HISTORY = [{"inputs": {"question": "Hello?"}, "outputs": {"answer": "Good day!"}}]
TENT = {"question": "Is the tent waterproof?", "pause_ms": 2}
LONG = {"a": "x" * 300_000, "b": "é€🏔" * 1000}

# Name, then the requests of one connection.
CASES = [
    ("health", [request("GET", "/health")]),
    ("head", [request("HEAD", "/health")]),
    ("version", [request("GET", "/version")]),
    ("swagger", [request("GET", "/swagger.json")]),
    ("unknown path", [request("GET", "/nothing/here?x=1&y=%20z")]),
    ("wrong method", [request("GET", "/score")]),
    ("preflight", [request("OPTIONS", "/score", None, ["Origin: https://shop.test", "Access-Control-Request-Method: POST"])]),
    ("plain", [score(TENT)]),
    ("query", [request("POST", "/score?verbose=true&q=a+b%2Fc", json.dumps(TENT).encode(), [JSON])]),
    ("utf-8", [score('{"question": "¿La tente — 防水? 🏕 tent", "pause_ms": 1}'.encode())]),
    ("history", [score({**TENT, "chat_history": HISTORY})]),
    ("ids and trace", [score(TENT, "x-request-id: r-1", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]),
    ("authorization and deployment", [score(TENT, "Authorization: Bearer not-a-secret", "azureml-model-deployment: blue")]),
    ("lower, UPPER and Mixed names", [score(TENT, "x-lower: 1", "X-UPPER: 2", "X-MiXeD: 3", "X-Twice: a", "X-Twice: b")]),
    ("chunked request", [score(b"", chunks=[b'{"question": "Is the ', b'te', b'nt waterproof?", "pause_ms": 1}'])]),
    ("text/plain", [request("POST", "/score", json.dumps(TENT).encode(), ["Content-Type: text/plain"])]),
    ("missing question", [score({"q": "x"})]),
    ("long request, long answer", [score(LONG)]),
    ("not JSON", [score(b"question=tent")]),
    ("empty body", [score(b"")]),
    ("array", [score([1, 2])]),
    ("wrong type", [score({"question": "tent", "chat_history": "no list"})]),
    ("not acceptable", [score(TENT, "Accept: application/xml")]),
    ("feedback", [request("POST", "/feedback", b'{"good": true}', [JSON])]),
    ("streamed", [score(TENT, SSE)]),
    ("streamed or plain", [score(TENT, "Accept: text/event-stream, application/json")]),
    ("weighted accept", [score(TENT, "Accept: text/event-stream;q=0.9, */*;q=0.1")]),
    ("streamed, nothing to say", [score({"question": "?", "pause_ms": 1}, SSE)]),
    ("stream that breaks", [score({**TENT, "fail_after": 3}, SSE)]),
    ("joined stream that breaks", [score({**TENT, "fail_after": 3})]),
    ("two on one connection", [score(TENT), score({"question": "lamp", "pause_ms": 1}, SSE)]),
]

# What is asked of the other example flows, some of which have a model behind them.
LAMP = {"question": "How bright is the lamp?"}
EXAMPLE_CASES = [
    ("swagger", [request("GET", "/swagger.json")]),
    ("plain", [score(LAMP)]),
    ("history", [score({**LAMP, "chat_history": HISTORY})]),
    ("streamed or plain", [score(LAMP, "Accept: text/event-stream, application/json")]),
    ("streamed", [score(LAMP, SSE)]),
    ("empty question", [score({"question": " "})]),
    ("missing question", [score({})]),
]


def seen(response):
    """What must be the same with and without flowtap."""
    kept = [pair for pair in response.headers if pair[0].lower() not in ONE_HOP]
    headers = [(name, "*" if name.lower() in MAY_DIFFER else value) for name, value in kept]
    return {
        "status line": response.status_line,
        "headers": headers,
        "framing": response.framing,
        "body": response.body,
        "ended": response.ended,
        "trailers": response.trailers,
    }


def conversation(port, requests):
    """The responses to requests on one connection; a server that closes gets a new one."""
    responses, connection = [], Connection(port)
    try:
        for data in requests:
            responses.append(connection.exchange(data))
            if "close" in responses[-1].header("connection") or responses[-1].ended == "cut":
                connection.socket.close()
                connection = Connection(port)
    finally:
        connection.socket.close()
    return responses


def compare(direct_port, via_port, cases=CASES, warm=False):
    """The faults found: one line for each thing that differs. `warm` asks everything once before: a
    model with a cold cache rounds differently, and may then choose another word."""
    faults = []
    for name, requests in cases:
        if warm:
            conversation(direct_port, requests)
        pairs = zip(conversation(direct_port, requests), conversation(via_port, requests), strict=True)
        for direct, via in ((seen(a), seen(b)) for a, b in pairs):
            if not direct["status line"]:
                faults.append(f"{name}: the server itself does not answer; nothing is compared")
            faults += [f"{name}: {key}: direct {short(direct[key])}, through flowtap {short(via[key])}"
                       for key in direct if direct[key] != via[key]]
    return faults


def short(value):
    text = repr(value)
    return text if len(text) <= 600 else f"{text[:400]} ... {text[-150:]} ({len(text)} characters)"
