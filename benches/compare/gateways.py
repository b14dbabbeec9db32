"""LiteLLM and Portkey before the comparison's upstream, for `make bench PEERS=all`.

Both read a request and write another one, so that they know one path of the upstream and not all: they are
measured on the plain case alone, as one process on one core. Nothing is logged or kept by either.
"""

import json
from pathlib import Path

from cases import CASES, path_of
from peers import PROXY_CORE, Process, free_port

CASE = CASES["plain"]
PATH = "/v1/chat/completions"


def gateways(home, upstream, folder):
    """Those that are installed below `home`."""
    base = f"http://127.0.0.1:{upstream.ports['http1']}{path_of(CASE).removesuffix('/chat/completions')}"
    started = [litellm(Path(home, "litellm/bin/litellm"), base, folder),
               portkey(Path(home, "portkey/node_modules/@portkey-ai/gateway/build/start-server.js"), base, folder)]
    return [gateway for gateway in started if gateway]


def litellm(binary, base, folder):
    if not binary.exists():
        return None
    port, config = free_port(), Path(folder, "litellm.yaml")
    model = {"model": "openai/gpt-4o-mini", "api_base": base, "api_key": "not-a-key"}
    config.write_text(json.dumps({"model_list": [{"model_name": "gpt-4o-mini", "litellm_params": model}]}))
    command = [str(binary), "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1",
               "--telemetry", "False"]
    # No keys are checked, and the list of prices is its own: it would fetch a newer one.
    env = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True",
           "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true"}
    return Gateway("LiteLLM", command, folder, port, env, {})


def portkey(script, base, folder):
    if not script.exists():
        return None
    port = free_port()
    asked = {"x-portkey-provider": "openai", "x-portkey-custom-host": base}
    return Gateway("Portkey", ["node", str(script), f"--port={port}", "--headless"], folder, port, {"NODE_ENV": "production"}, asked)


class Gateway(Process):
    """A peer that has a path of its own and wants `headers`."""

    # LiteLLM imports for half a minute on a busy machine.
    start_seconds = 180

    def __init__(self, name, command, folder, port, env, headers):
        super().__init__(name, PROXY_CORE, command, folder, {"http1": port}, env)
        self.path, self.headers, self.cases = PATH, headers, {CASE.name}
