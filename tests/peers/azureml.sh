#!/usr/bin/env bash
# Installs what turns prompt flow's server into the one of an Azure ML deployment, into
# .cache/peers/azureml: the data collector's client, and OpenTelemetry's exporters. The rest comes
# from .cache/peers/promptflow beside it.

here=$(dirname "${BASH_SOURCE[0]}")
bash "$here/promptflow.sh"
source "$here/venv.sh"
make_venv azureml
for packages in "$PEERS"/azureml/lib/python*/site-packages; do
    beside=$(basename "$(dirname "$packages")")
    echo "$PEERS/promptflow/lib/$beside/site-packages" >"$packages/promptflow.pth"
done
