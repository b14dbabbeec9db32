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

# Its own command for this (`pf config set telemetry.enabled=false`) reports home while it runs.
mkdir -p "$PEERS/home/.promptflow"
if [[ ! -f $PEERS/home/.promptflow/pf.yaml ]]; then
    printf 'telemetry:\n  enabled: false\n' >"$PEERS/home/.promptflow/pf.yaml"
fi
make_venv promptflow
