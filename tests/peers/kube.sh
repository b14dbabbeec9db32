#!/usr/bin/env bash
# Installs what knows Kubernetes without a cluster into .cache/peers/kube: the API's schemas of many
# versions (kubernetes-validate), Helm itself as a library (helm-python-sdk), and hadolint; Debian's strace, if it is not there.

source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"
make_venv kube

if ! command -v strace >/dev/null; then
    if ((EUID != 0)); then
        echo "The image's test needs strace. Run this once:  sudo apt-get install -y strace" >&2
        exit 1
    fi
    apt-get install -y -qq strace >/dev/null 2>&1 || { apt-get update -qq && apt-get install -y -qq strace >/dev/null 2>&1; }
fi
