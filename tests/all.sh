#!/usr/bin/env bash
# Everything that CI runs, quick faults first. The last line counts the tests of all steps.
# FLOWTAP_PEERS=none leaves out the real peers (they are neither installed nor talked to).

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

LOG=.cache/test.log
mkdir -p .cache
: >"$LOG"

STEPS=10
step=0
begin() {
    step=$((step + 1))
    printf '\n[%d/%d] %s  (%d s so far)\n' "$step" "$STEPS" "$1" "$SECONDS"
}
# Fail points are named places that the tests make panic or stall; images are built without.
tests() { cargo test --locked --quiet --features failpoints "$@" 2>&1 | tee -a "$LOG"; }

if ! command -v cargo >/dev/null; then
    echo "flowtap is built with Rust (1.95 or newer); cargo was not found." >&2
    exit 1
fi

begin "format"
cargo fmt --check

begin "the console page"
web/build.sh
if [[ -d web/node_modules ]]; then npm --prefix web --silent test; fi

begin "the rules of the house (the first build takes 5 to 10 minutes)"
tests --test tidy

begin "lints, licences and sources"
cargo clippy --locked --all-targets --features failpoints --quiet -- -D warnings
if [[ ${FLOWTAP_PEERS:-} == none ]]; then
    echo "    left out: cargo-deny (FLOWTAP_PEERS=none)"
else
    tests/peers/deny.sh
fi

begin "the sidecar alone"
cargo clippy --locked --all-targets --no-default-features --features proxy --quiet -- -D warnings

begin "unit tests and documentation examples"
tests --lib --bins
tests --doc

begin "real peers"
if [[ ${FLOWTAP_PEERS:-} == none ]]; then
    echo "    left out: FLOWTAP_PEERS=none"
else
    tests/peers/install.sh
fi

begin "integration and end-to-end tests"
tests --test it

begin "the traffic's tests once more, on hyper's way alone"
TEST_WAY=hyper tests --test it -- proxy:: streams:: drain:: faults:: tls::

begin "instructions an exchange, beside benches/baseline"
if command -v valgrind >/dev/null; then
    benches/instructions.sh --unoptimised
else
    echo "    left out: needs valgrind"
fi

awk -v seconds="$SECONDS" '
    /^test result:/ { passed += $4; failed += $6; ignored += $8 }
    END {
        printf "\nall steps done in %d s\ntotal: %d passed, %d failed, %d skipped\n", seconds, passed, failed, ignored
        exit !(passed > 0 && failed == 0)
    }' "$LOG"
