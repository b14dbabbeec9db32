#!/usr/bin/env bash
# Finds Prometheus' promtool, or unpacks Debian's package of it into .cache/peers/promtool: no root, and
# nothing outside the repository, unless the package lists were never fetched. `promtool.sh bin` prints
# its path.

set -euo pipefail

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
HOME_DIR=$REPO/.cache/peers/promtool
BIN=$HOME_DIR/usr/bin/promtool

if [[ ${1:-} == bin ]]; then
    command -v promtool || { [[ -x $BIN ]] && echo "$BIN"; } || true
    exit
fi
if command -v promtool >/dev/null || [[ -x $BIN ]]; then
    echo "    promtool: there already"
    exit
fi

echo "    promtool: unpacking Debian's prometheus (half a minute) ..."
mkdir -p "$HOME_DIR"
cd "$HOME_DIR"
if ! apt-get download -qq prometheus 2>/dev/null; then
    if ((EUID != 0)) || ! apt-get update -qq || ! apt-get download -qq prometheus; then
        echo "promtool is missing. Run this once:  sudo apt-get install -y prometheus" >&2
        exit 1
    fi
fi
dpkg -x prometheus_*.deb .
rm -f prometheus_*.deb
"$BIN" --version | sed -n '1s/^/    /p'
