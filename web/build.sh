#!/usr/bin/env bash
# Builds the console page into web/dist/page, where cargo finds it. Does nothing where it is built
# already; where Node.js is missing or too old it says so, and flowtap is built without the page.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

if ! command -v npm >/dev/null || ! node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)'; then
    echo "    page: Node.js 20.19 or newer with npm was not found; flowtap is built without its page" >&2
    exit 0
fi

made_of() { cat build.sh package-lock.json package.json tsconfig.json vite.config.js index.html build/* $(find src -type f | LC_ALL=C sort) | cksum; }

if [[ $(cat node_modules/.lock-stamp 2>/dev/null) != "$(cksum <package-lock.json)" ]]; then
    echo "    page: installing what builds it (a few seconds) ..."
    npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
    cksum <package-lock.json >node_modules/.lock-stamp
fi
if [[ $(cat node_modules/.page-stamp 2>/dev/null) == "$(made_of)" && -f dist/page/index.html ]]; then
    echo "    page: built already"
else
    # What is ended in the middle is not taken for a page.
    : >node_modules/.page-stamp
    npm run --silent build 2>&1 | sed 's/^/    page: /'
    made_of >node_modules/.page-stamp
fi
