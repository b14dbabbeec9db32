"""A raw HTTP/1.1 client: sends bytes as they are given, reads a response byte by byte of its framing."""
import socket
from dataclasses import dataclass, field

DEADLINE_S = 90


@dataclass
class Response:
    """One response as it stood on the wire."""

    status_line: str
    headers: list = field(default_factory=list)  # (name, value) in order, in their own case
    body: bytes = b""
    framing: str = "none"  # length | chunked | close | none
    ended: str = "properly"  # or "cut"
    trailers: list = field(default_factory=list)

    def header(self, name):
        return [value for key, value in self.headers if key.lower() == name]


HOST = b"flow.test"  # stands for the server in requests, until it is known to which one they go


class Connection:
    """One connection to a server on this machine."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
        self.host = b"127.0.0.1:%d" % port
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def exchange(self, request):
        """Sends one request, with the `Host` that any client derives from its URL; reads its response."""
        self.socket.sendall(request.replace(HOST, self.host, 1))
        head_only = request.startswith(b"HEAD ")
        return self.response(head_only)

    def response(self, head_only=False):
        status_line = self.line()
        if not status_line:
            return Response("", ended="cut")
        response = Response(status_line.decode("latin-1"), self.fields())
        code = int(status_line.split()[1])
        if head_only or code in (204, 304):
            return response
        try:
            self.body(response)
        except (EOFError, ConnectionResetError):
            response.ended = "cut"
        return response

    def body(self, response):
        if "chunked" in ",".join(response.header("transfer-encoding")):
            response.framing = "chunked"
            while size := int(self.line(must=True).split(b";")[0], 16):
                response.body += self.exactly(size)
                self.exactly(2)
            response.trailers = self.fields()
        elif lengths := response.header("content-length"):
            response.framing = "length"
            response.body = self.exactly(int(lengths[0]))
        else:
            response.framing = "close"
            while self.fill():
                pass
            response.body, self.buffer = self.buffer, b""

    def fields(self):
        found = []
        while line := self.line(must=True):
            name, _, value = line.decode("latin-1").partition(":")
            found.append((name, value.strip(" \t")))
        return found

    def line(self, must=False):
        while b"\r\n" not in self.buffer:
            if not self.fill():
                if must:
                    raise EOFError
                return b""
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    def exactly(self, size):
        while len(self.buffer) < size:
            if not self.fill():
                raise EOFError
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken

    def fill(self):
        more = self.socket.recv(65536)
        self.buffer += more
        return bool(more)


def request(method, target, body=None, headers=(), chunks=None):
    """The bytes of a request; `chunks` sends the body chunked."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {HOST.decode()}", *headers]
    data = b""
    if chunks is not None:
        lines.append("Transfer-Encoding: chunked")
        data = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    elif body is not None:
        lines.append(f"Content-Length: {len(body)}")
        data = body
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + data
