#!/usr/bin/env bash
# Installs every real peer, one after the other: each is one script beside this one.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

for peer in promtool promptflow sdk llm storage telemetry kube queue; do
    if [[ -f $peer.sh ]]; then
        bash "$peer.sh"
    fi
done
