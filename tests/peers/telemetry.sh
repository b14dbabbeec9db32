#!/usr/bin/env bash
# Installs a real OpenTelemetry collector, rotel, into .cache/peers/telemetry: a binary inside a
# Python package. `telemetry.sh bin` prints the path of the binary.

set -euo pipefail

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
HOME_DIR=$REPO/.cache/peers/telemetry
ROTEL=rotel==0.0.1a15
export PIP_CACHE_DIR=$REPO/.cache/pip PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONNOUSERSITE=1

if [[ ${1:-} == bin ]]; then
    find "$HOME_DIR/lib" -path '*/rotel/rotel-agent' 2>/dev/null | head -n 1
    exit
fi

python=
for candidate in ${PYTHON:-} python3.12 python3.11 python3.13 python3; do
    if "$candidate" -c 'import venv, ensurepip' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [[ -z $python ]]; then
    echo "telemetry: Python 3 with venv is needed. Run this once:  sudo apt-get install -y python3-venv" >&2
    exit 1
fi

mkdir -p "$REPO/.cache/peers"
exec 9>"$REPO/.cache/peers/.telemetry.lock"
flock 9
if [[ $(cat "$HOME_DIR/stamp" 2>/dev/null) == "$ROTEL" ]]; then
    echo "    telemetry: there already"
else
    echo "    telemetry: installing $ROTEL (a few seconds) ..."
    rm -rf "$HOME_DIR"
    "$python" -m venv "$HOME_DIR"
    "$HOME_DIR/bin/pip" install --quiet --no-deps "$ROTEL"
    echo "$ROTEL" >"$HOME_DIR/stamp"
    echo "    telemetry: done after $SECONDS s"
fi
