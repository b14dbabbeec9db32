"""The processes of a comparison: an upstream, the proxies before it, and what each costs.

The proxies run on the last core, one at a time under load; the upstream and the load on the first.
"""

import json
import os
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

from cases import CASES, path_of

CORES = sorted(os.sched_getaffinity(0))
LOAD_CORE, PROXY_CORE = str(CORES[0]), str(CORES[-1])
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Process:
    """A server on one core, ended by id."""

    def __init__(self, name, core, command, folder, port, env=None):
        self.name, self.port = name, port
        self.log = open(Path(folder, f"{name}.log"), "wb")
        self.child = subprocess.Popen(["taskset", "-c", core, *command], stdout=self.log, stderr=self.log,
                                      env={**os.environ, **(env or {})})
        self.wait_until_it_listens()

    def wait_until_it_listens(self):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self.child.poll() is None:
            try:
                return socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.05)
        raise SystemExit(f"{self.name} does not listen on {self.port}; see {self.log.name}")

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

    def dropped(self):
        """Exchanges that were seen and neither stored nor passed over by the sampling."""
        return 0

    def stop(self):
        self.child.terminate()
        try:
            self.child.wait(15)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


class Flowtap(Process):
    """flowtap as a sidecar or, with `whole`, all in one process; it also tells what it dropped."""

    def __init__(self, name, rate, binary, upstream, folder, whole=False):
        self.admin = free_port()
        port = free_port()
        config = Path(folder, f"{name}.yaml")
        config.write_text(json.dumps({
            "taps": [{"name": "bench", "listen": f"127.0.0.1:{port}", "upstream": f"http://127.0.0.1:{upstream}"}],
            "admin": {"listen": f"127.0.0.1:{self.admin}"},
            "sample": {"rate": rate},
            # Segments are packed while the load goes on, and not a minute after it.
            "spool": {"segment_age": "5s"},
            "traffic": {"threads": 1},
            "data_dir": str(Path(folder, name)),
        }))
        command = [binary, "run" if whole else "proxy", "--config", str(config)]
        super().__init__(name, PROXY_CORE, command, folder, port)

    def dropped(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        drops = [line for line in lines if line.startswith("flowtap_dropped_total{")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in drops)


NGINX_HEAD = """
daemon off; worker_processes 1; pid {folder}/{name}.pid; error_log stderr crit;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 75s; client_max_body_size 0;
  client_body_temp_path {folder}/{name}-body; proxy_temp_path {folder}/{name}-proxy;
  fastcgi_temp_path {folder}/{name}-f; uwsgi_temp_path {folder}/{name}-u; scgi_temp_path {folder}/{name}-s;
"""


def nginx(name, core, folder, port, body):
    config = Path(folder, f"{name}.conf")
    config.write_text(NGINX_HEAD.format(folder=folder, name=name) + body + "}\n")
    return Process(name, core, ["nginx", "-p", folder, "-c", str(config)], folder, port)


def upstream(folder):
    """nginx that answers every case's path with the case's file."""
    port = free_port()
    places = []
    for case in CASES.values():
        Path(folder, f"{case.name}.body").write_bytes(case.answer)
        Path(folder, f"{case.name}.request").write_bytes(case.request)
        places.append(f"location = {path_of(case)} {{ error_page 405 =200 /{case.name}.body; return 405; }}\n"
                      f"location = /{case.name}.body {{ types {{}} default_type {case.media}; root {folder}; }}\n")
    listen = f"open_file_cache max=16; server {{ listen 127.0.0.1:{port} backlog=1024; {''.join(places)} }}"
    return nginx("upstream", LOAD_CORE, folder, port, listen)


def nginx_proxy(upstream_port, folder):
    port = free_port()
    body = f"""
  upstream up {{ server 127.0.0.1:{upstream_port}; keepalive 64; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{
      proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffers 16 8k;
    }}
  }}
"""
    return nginx("nginx", PROXY_CORE, folder, port, body)


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
    load_assignment:
      cluster_name: up
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}
"""


def envoy(binary, upstream_port, folder):
    port = free_port()
    config = Path(folder, "envoy.yaml")
    config.write_text(ENVOY.format(port=port, upstream=upstream_port))
    command = [binary, "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    return Process("Envoy", PROXY_CORE, command, folder, port)
