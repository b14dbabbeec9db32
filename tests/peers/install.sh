#!/usr/bin/env bash
# Installs every real peer, one after the other: each is one script beside this one.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

PEERS=(
    promtool
    browser
    promptflow
    azureml
    sdk
    llm
    storage
    telemetry
    queue
    alerts
    kube
    spark
    schemathesis
    tables
)

for peer in "${PEERS[@]}"; do
    if [[ -f $peer.sh ]]; then
        bash "$peer.sh"
    fi
done
