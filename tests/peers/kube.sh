#!/usr/bin/env bash
# Installs what knows Kubernetes without a cluster into .cache/peers/kube: the API's schemas of many
# versions (kubernetes-validate), Helm itself as a library (helm-python-sdk), and hadolint.

source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"
make_venv kube
