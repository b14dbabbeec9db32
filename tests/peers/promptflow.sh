#!/usr/bin/env bash
# Installs the real prompt flow server into .cache/peers/promptflow, its telemetry off.
# `promptflow.sh env` prints the environment that any prompt flow process must be given.

source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"

# Without these the `pf` command reports to its maker. HOME keeps its settings inside the repository.
flow_env() {
    cat <<END
HOME=$PEERS/home
APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL=true
APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED=true
PF_DISABLE_TRACING=true
PYTHONDONTWRITEBYTECODE=1
PYTHONUNBUFFERED=1
END
}

if [[ ${1:-} == env ]]; then
    flow_env
    exit
fi

make_venv promptflow
if ! grep -qs 'enabled: false' "$PEERS/home/.promptflow/pf.yaml"; then
    mkdir -p "$PEERS/home"
    say "promptflow: turning its telemetry off ..."
    mapfile -t quiet < <(flow_env)
    env "${quiet[@]}" "$PEERS/promptflow/bin/pf" config set telemetry.enabled=false >/dev/null
    grep -q 'enabled: false' "$PEERS/home/.promptflow/pf.yaml"
fi
