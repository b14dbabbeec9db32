"""The processes of a comparison: an upstream, the proxies before it, and what each costs.

The proxies run on the last core, one at a time under load; the upstream and the load on the first.
"""

import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from cases import CASES, path_of

CORES = sorted(os.sched_getaffinity(0))
LOAD_CORE, PROXY_CORE = str(CORES[0]), str(CORES[-1])
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# Two thousand streams are twice as many sockets on either side; what is started here inherits the limit.
FILES_WANTED = 16384
# Where servers live, which not every user's PATH names.
os.environ["PATH"] = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"


def allow_files():
    """Raises the limit of open files as far as it may be raised; says so where that is too little."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = hard == resource.RLIM_INFINITY
    if soft != resource.RLIM_INFINITY and soft < FILES_WANTED:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES_WANTED if unlimited else min(hard, FILES_WANTED), hard))
    if not unlimited and hard < FILES_WANTED:
        print(f"bench: {hard} files may be open; many connections need up to {FILES_WANTED} (ulimit -Hn)", file=sys.stderr)


allow_files()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# How requests travel: what the client speaks, and what goes up.
WIRES = {
    "http1": "HTTP/1.1",
    "tls": "HTTP/1.1 over TLS",
    "http2": "HTTP/2, 1 stream a connection",
    "http2-tls": "HTTP/2 over TLS, 1 stream a connection",
    "tls-up": "HTTP/1.1, TLS to the upstream",
}


class Process:
    """A server on one core, ended by id. `ports` are by wire; the first one is waited for."""

    # Where requests go and what they say besides; None is the case's own path.
    path, headers = None, {}
    # The cases that it can answer.
    cases = frozenset(CASES)
    # How long it may take to listen.
    start_seconds = 20

    def __init__(self, name, core, command, folder, ports, env=None):
        self.name, self.ports, self.port = name, ports, next(iter(ports.values()))
        self.log = open(Path(folder, f"{name}.log"), "wb")
        self.child = subprocess.Popen(["taskset", "-c", core, *command], stdout=self.log, stderr=self.log,
                                      env={**os.environ, **(env or {})})
        begun = time.monotonic()
        self.wait_until_it_listens()
        self.ready_ms = (time.monotonic() - begun) * 1e3

    def wait_until_it_listens(self):
        deadline = time.monotonic() + self.start_seconds
        while time.monotonic() < deadline and self.child.poll() is None:
            try:
                return socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.002)
        # Its folder goes with this process, so that its words go into the message.
        said = "\n".join(Path(self.log.name).read_text(errors="replace").splitlines()[-10:])
        self.child.kill()
        raise SystemExit(f"{self.name} does not listen on {self.port} within {self.start_seconds} s; it said:\n{said}")

    def pids(self):
        """The process and all below it."""
        found = [self.child.pid]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
        return found

    def threads(self):
        """CPU seconds spent so far, by thread name."""
        spent = {}
        for pid in self.pids():
            for task in Path(f"/proc/{pid}/task").iterdir():
                name = (task / "comm").read_text().strip()
                nanoseconds = int((task / "schedstat").read_text().split()[0])
                spent[name] = spent.get(name, 0) + nanoseconds / 1e9
        return spent

    def cpu_seconds(self):
        """User and system time of all its processes, ended threads included."""
        total = 0
        for pid in self.pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICKS_PER_SECOND

    def rss_mib(self):
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.pids())
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def lost(self):
        """What could not be observed of exchanges so far, by kind of loss."""
        return {}

    def stop(self):
        self.child.terminate()
        try:
            self.child.wait(15)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


# What is lost where flowtap drops something, by the stage that did: whole exchanges, samples whose figures
# are in the books, or exact counts of tokens, which are estimated then.
LOSSES = {"capture": "exchanges", "intake": "exchanges", "pipeline": "samples", "spool": "samples", "archive": "samples",
          "tokens": "counts"}


class Flowtap(Process):
    """flowtap as a sidecar or, with `whole`, all in one process; it also tells what it dropped."""

    def __init__(self, name, rate, binary, upstream, folder, whole=False):
        self.admin = free_port()
        ports = {wire: free_port() for wire in WIRES}
        config = Path(folder, f"{name}.yaml")
        config.write_text(json.dumps({
            "taps": [tap(wire, port, upstream, folder) for wire, port in ports.items()],
            "admin": {"listen": f"127.0.0.1:{self.admin}"},
            "sample": {"rate": rate},
            # Segments are packed while the load goes on, and not a minute after it.
            "spool": {"segment_age": "5s"},
            "traffic": {"threads": 1},
            "data_dir": str(Path(folder, name)),
        }))
        command = [binary, "run" if whole else "proxy", "--config", str(config)]
        super().__init__(name, PROXY_CORE, command, folder, ports)

    def lost(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        lost = dict.fromkeys(LOSSES.values(), 0)
        for line in lines:
            if line.startswith("flowtap_dropped_total{"):
                stage = line.partition('stage="')[2].partition('"')[0]
                lost[LOSSES[stage]] += float(line.rsplit(" ", 1)[1])
        return lost


def tap(wire, port, upstream, folder):
    """flowtap's settings for one wire."""
    settings = {"name": wire, "listen": f"127.0.0.1:{port}", "upstream": f"http://127.0.0.1:{upstream.ports['http1']}"}
    if wire.startswith("http2"):
        settings["http2"] = True
    if wire in ("tls", "http2-tls"):
        settings["tls"] = {"cert_file": f"{folder}/cert.pem", "key_file": f"{folder}/key.pem"}
    if wire == "tls-up":
        url = f"https://127.0.0.1:{upstream.ports['tls']}"
        # As the others do it.
        settings["upstream"] = {"url": url, "ca_file": f"{folder}/ca.pem", "http2": "off"}
    return settings


NGINX_HEAD = """
daemon off; worker_processes 1; pid {folder}/{name}.pid; error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 75s; client_max_body_size 0;
  client_body_temp_path {folder}/{name}-body; proxy_temp_path {folder}/{name}-proxy;
  fastcgi_temp_path {folder}/{name}-f; uwsgi_temp_path {folder}/{name}-u; scgi_temp_path {folder}/{name}-s;
"""


def nginx(name, core, folder, ports, body):
    config = Path(folder, f"{name}.conf")
    config.write_text(NGINX_HEAD.format(folder=folder, name=name) + body + "}\n")
    return Process(name, core, ["nginx", "-p", folder, "-c", str(config)], folder, ports)


def certificate(folder):
    """An authority, `ca.pem`, and a certificate by it that everybody here shows: `cert.pem` and `key.pem`."""
    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    openssl("req", "-x509", *key, "-subj", "/CN=bench", "-keyout", "ca.key", "-out", "ca.pem")
    openssl("req", "-x509", *key, "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-addext",
            "basicConstraints=critical,CA:FALSE", "-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", "key.pem",
            "-out", "cert.pem")
    Path(folder, "both.pem").write_bytes(Path(folder, "cert.pem").read_bytes() + Path(folder, "key.pem").read_bytes())


def listen(ports):
    """nginx's lines for the ports of each wire."""
    of = {"http1": "", "tls": " ssl", "http2": " http2", "http2-tls": " ssl http2"}
    return "".join(f"listen 127.0.0.1:{port}{of[wire]} backlog=1024;\n" for wire, port in ports.items() if wire in of)


def upstream(folder):
    """nginx that answers every case's path with the case's file."""
    ports = {wire: free_port() for wire in ("http1", "tls", "http2", "http2-tls")}
    places = []
    for case in CASES.values():
        Path(folder, f"{case.name}.body").write_bytes(case.answer)
        Path(folder, f"{case.name}.request").write_bytes(case.request)
        places.append(f"location = {path_of(case)} {{ error_page 405 =200 /{case.name}.body; return 405; }}\n"
                      f"location = /{case.name}.body {{ types {{}} default_type {case.media}; root {folder}; }}\n")
    secured = f"ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;"
    server = f"open_file_cache max=16; server {{ {listen(ports)} {secured} {''.join(places)} }}"
    return nginx("upstream", LOAD_CORE, folder, {**ports, "tls-up": ports["http1"]}, server)


def nginx_proxy(upstream, folder, also=""):
    """nginx that passes on; `also` goes into its location."""
    ports = {wire: free_port() for wire in ("http1", "tls", "http2", "http2-tls")}
    sealed = free_port()
    place = """location / {{
      proxy_pass {up}; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffers 16 8k; {also}
      proxy_ssl_trusted_certificate {folder}/ca.pem; proxy_ssl_verify on; proxy_ssl_name 127.0.0.1;
    }}"""
    secured = f"ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;"
    body = f"""
  upstream up {{ server 127.0.0.1:{upstream.ports['http1']}; keepalive 64; keepalive_requests 100000000; }}
  upstream up_tls {{ server 127.0.0.1:{upstream.ports['tls']}; keepalive 64; keepalive_requests 100000000; }}
  server {{ {listen(ports)} {secured} {place.format(up='http://up', folder=folder, also=also)} }}
  server {{ {listen({'http1': sealed})} {place.format(up='https://up_tls', folder=folder, also=also)} }}
"""
    return nginx("nginx", PROXY_CORE, folder, {**ports, "tls-up": sealed}, body)


HAPROXY = """
global
  nbthread 1
  maxconn 8000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
  {also}
frontend plain
  bind 127.0.0.1:{http1}
  default_backend up
frontend sealed
  bind 127.0.0.1:{tls} ssl crt {folder}/both.pem alpn h2,http/1.1
  default_backend up
frontend plain2
  bind 127.0.0.1:{http2} proto h2
  default_backend up
frontend before_tls
  bind 127.0.0.1:{tls_up}
  default_backend up_tls
backend up
  server one 127.0.0.1:{up}
backend up_tls
  server one 127.0.0.1:{up_tls} ssl ca-file {folder}/ca.pem verify required
"""


def haproxy(upstream, folder, also=""):
    """None where it is not installed; `also` goes into its defaults."""
    binary = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if not binary:
        return None
    ports = {wire: free_port() for wire in ("http1", "tls", "http2", "tls-up")}
    config = Path(folder, "haproxy.cfg")
    config.write_text(HAPROXY.format(folder=folder, also=also, up=upstream.ports["http1"], up_tls=upstream.ports["tls"],
                                     **{wire.replace("-", "_"): port for wire, port in ports.items()}))
    return Process("haproxy", PROXY_CORE, [binary, "-db", "-f", str(config)], folder, {**ports, "http2-tls": ports["tls"]})


ENVOY = """
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          route_config:
            virtual_hosts:
            - {{name: all, domains: ["*"], routes: [{{match: {{prefix: "/"}}, route: {{cluster: up, timeout: 0s}}}}]}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: up
    type: STATIC
    circuit_breakers: {{thresholds: [{{max_connections: 8000, max_requests: 8000, max_pending_requests: 8000}}]}}
    load_assignment:
      cluster_name: up
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}
"""


def envoy(binary, upstream, folder):
    port = free_port()
    config = Path(folder, "envoy.yaml")
    config.write_text(ENVOY.format(port=port, upstream=upstream.ports["http1"]))
    command = [binary, "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    # It tells HTTP/2 from HTTP/1.1 by the first bytes.
    return Process("Envoy", PROXY_CORE, command, folder, {"http1": port, "http2": port})
