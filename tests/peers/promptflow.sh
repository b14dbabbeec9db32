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

# Its own command for this (`pf config set telemetry.enabled=false`) reports home while it runs. The
# installation's name is given too: a `pf` that finds none rewrites this file, and one that starts
# beside it reads half of it and ends.
mkdir -p "$PEERS/home/.promptflow"
settings=$PEERS/home/.promptflow/pf.yaml
if ! grep -q installation_id "$settings" 2>/dev/null; then
    printf 'telemetry:\n  enabled: false\ncli:\n  installation_id: 00000000-0000-4000-8000-000000000000\n' >"$settings"
fi
make_venv promptflow
