#!/usr/bin/env bash
# Installs the openai and anthropic Python SDKs into .cache/peers/sdk.

source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"
make_venv sdk
