"""A scripted upstream in Anthropic's wire format (https://docs.anthropic.com/en/api/messages-streaming),
which also keeps the head and body of every request, so that both sides of a proxy can be compared."""
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ANSWER = ["The Larchwood ", "tent holds ", "3000 mm", " — naïve", " café 🏕."]


def message(stop_reason="end_turn", text="".join(ANSWER)):
    return {
        "id": "msg_01Scripted",
        "type": "message",
        "role": "assistant",
        "model": "claude-scripted-1",
        "content": [{"type": "text", "text": text}] if text else [],
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {"input_tokens": 21, "cache_creation_input_tokens": 7, "cache_read_input_tokens": 5, "output_tokens": 17},
    }


def text_events():
    start = {**message(None, ""), "usage": {**message()["usage"], "output_tokens": 1}}
    yield "message_start", {"message": start}
    yield "content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}
    yield "ping", {}
    for piece in ANSWER:
        yield "content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": piece}}
    yield "content_block_stop", {"index": 0}
    yield "message_delta", {"delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 17}}
    yield "message_stop", {}


def tool_events():
    yield "message_start", {"message": message(None, "")}
    block = {"type": "tool_use", "id": "toolu_01", "name": "price_of", "input": {}}
    yield "content_block_start", {"index": 0, "content_block": block}
    for piece in ['{"art', 'icle": "te', 'nt"}']:
        yield "content_block_delta", {"index": 0, "delta": {"type": "input_json_delta", "partial_json": piece}}
    yield "content_block_stop", {"index": 0}
    yield "message_delta", {"delta": {"stop_reason": "tool_use", "stop_sequence": None}, "usage": {"output_tokens": 9}}
    yield "message_stop", {}


def failing_events():
    yield from list(text_events())[:4]
    yield "error", {"error": {"type": "overloaded_error", "message": "Overloaded"}}


STREAMS = {"claude-tools": tool_events, "claude-failing": failing_events}
FAULTS = {
    "claude-nobody": (404, "not_found_error", "model: claude-nobody"),
    "claude-limited": (429, "rate_limit_error", "This request would exceed the rate limit"),
    "claude-overloaded": (529, "overloaded_error", "Overloaded"),
}


class Scripted(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "scripted", ""

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append({"line": self.requestline, "headers": self.headers.items(), "body": body})
        asked = json.loads(body)
        if fault := FAULTS.get(asked["model"]):
            status, kind, text = fault
            self.answer(status, {"type": "error", "error": {"type": kind, "message": text}, "request_id": "req_01"})
        elif self.path.startswith("/v1/messages/count_tokens"):
            self.answer(200, {"input_tokens": 21})
        elif asked.get("stream"):
            self.stream(STREAMS.get(asked["model"], text_events)())
        else:
            self.answer(200, message())

    def head(self, status, kind):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("request-id", "req_01Scripted")
        self.send_header("anthropic-ratelimit-requests-remaining", "49")

    def answer(self, status, body):
        data = json.dumps(body, ensure_ascii=False).encode()
        self.head(status, "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def stream(self, events):
        self.head(200, "text/event-stream; charset=utf-8")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for kind, fields in events:
            data = f"event: {kind}\ndata: {json.dumps({'type': kind, **fields}, ensure_ascii=False)}\n\n".encode()
            # In the middle of the event, so that characters of several bytes are cut now and then.
            for part in (data[: len(data) // 2], data[len(data) // 2 :]):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")


def serve(port):
    """Starts the upstream; `seen` holds what it was asked."""
    server = ThreadingHTTPServer(("127.0.0.1", port), Scripted)
    server.daemon_threads = True
    server.seen = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
