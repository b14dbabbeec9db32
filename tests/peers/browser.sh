#!/usr/bin/env bash
# What the test of the console page needs: Debian's Chromium, and playwright-core and axe-core from npm
# in .cache/peers/browser. `browser.sh bin` prints the browser's path.

set -euo pipefail

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
HOME_DIR=$REPO/.cache/peers/browser

browser() { command -v chromium || command -v chromium-browser || command -v google-chrome || true; }

if [[ ${1:-} == bin ]]; then
    browser
    exit
fi

for tool in node npm; do
    if ! command -v "$tool" >/dev/null; then
        echo "The page's test needs $tool. Run this once:  sudo apt-get install -y nodejs npm" >&2
        exit 1
    fi
done

if [[ -z $(browser) ]]; then
    if ((EUID != 0)); then
        echo "The page's test needs a browser. Run this once:  sudo apt-get install -y chromium" >&2
        exit 1
    fi
    echo "    browser: installing Debian's chromium (a minute) ..."
    apt-get install -y -qq chromium >/dev/null 2>&1 ||
        { apt-get update -qq && apt-get install -y -qq chromium >/dev/null 2>&1; }
fi

mkdir -p "$HOME_DIR"
exec 9>"$HOME_DIR/.lock"
flock 9
wanted=$(cat "$REPO"/tests/e2e/package{,-lock}.json | cksum)
if [[ $(cat "$HOME_DIR/stamp" 2>/dev/null) == "$wanted" ]]; then
    echo "    browser: there already"
else
    echo "    browser: installing playwright-core and axe-core (a few seconds) ..."
    cp "$REPO"/tests/e2e/package{,-lock}.json "$REPO/tests/e2e/.npmrc" "$HOME_DIR/"
    (cd "$HOME_DIR" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
    echo "$wanted" >"$HOME_DIR/stamp"
fi
