#!/usr/bin/env bash
# Installs schemathesis, which asks an API everything that its description allows and more, into
# .cache/peers/schemathesis.

source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"
make_venv schemathesis
