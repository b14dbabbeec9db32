# Sourced by the installers of real peers: where they live, which Python they need, and one way to
# make a virtual environment from a lock file. Writes below .cache/ only.

set -euo pipefail

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PEERS=$REPO/.cache/peers
LOCKS=$REPO/tests/peers/locks
export PIP_CACHE_DIR=$REPO/.cache/pip PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONNOUSERSITE=1
mkdir -p "$PEERS"

say() { printf '    %s\n' "$*"; }

# Prints the command of a Python that the peers run on (3.11 to 3.13, with venv), or tells how to get one.
peers_python() {
    local candidate
    for candidate in ${PYTHON:-} python3.12 python3.11 python3.13 python3; do
        if "$candidate" -c 'import sys, venv, ensurepip
raise SystemExit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "The real peers need Python 3.11 to 3.13 with venv; none was found (PYTHON=... names one)." >&2
    echo "Run this once:  sudo apt-get install -y python3 python3-venv python3-dev" >&2
    return 1
}

# make_venv NAME: .cache/peers/NAME holds exactly what locks/NAME.txt pins (the whole tree, hence no-deps).
# Quick where it already does; a second caller waits for the first.
make_venv() {
    local name=$1 lock=$LOCKS/$1.txt home=$PEERS/$1 python
    python=$(peers_python)
    exec 9>"$PEERS/.$name.lock"
    flock 9
    if [[ -x $home/bin/python ]] && cmp -s "$lock" "$home/stamp"; then
        say "$name: there already"
    else
        say "$name: installing $(grep -c == "$lock") packages (takes a minute or two) ..."
        rm -rf "$home"
        "$python" -m venv "$home"
        "$home/bin/pip" install --quiet --no-deps --requirement "$lock"
        cp "$lock" "$home/stamp"
        say "$name: done after $SECONDS s"
    fi
    exec 9>&-
}
