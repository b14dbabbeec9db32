#!/usr/bin/env bash
# Each target for so many seconds. The corpus that is kept stays small: what is found goes to fuzz/found/,
# and what breaks a target to fuzz/artifacts/.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

SECONDS_EACH=${1:-60}
if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "make fuzz needs: cargo install cargo-fuzz --version 0.13.2 --locked" >&2
    exit 1
fi
# Coverage is an unstable option: of nightly, or of a stable compiler that is told to take it.
TOOLCHAIN=+nightly
if ! cargo +nightly --version >/dev/null 2>&1; then
    TOOLCHAIN=+stable
    cargo +stable --version >/dev/null 2>&1 || TOOLCHAIN=
    export RUSTC_BOOTSTRAP=1
    echo "no nightly compiler: $(rustc --version), with RUSTC_BOOTSTRAP=1"
fi
# Our own code forbids unsafe; the address sanitizer would only slow it down.
cargo $TOOLCHAIN fuzz build --sanitizer none
for target in targets/*.rs; do
    name=$(basename "$target" .rs)
    mkdir -p "found/$name"
    echo "== $name"
    cargo $TOOLCHAIN fuzz run --sanitizer none "$name" "found/$name" "corpus/$name" -- \
        -max_total_time="$SECONDS_EACH" -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
        2>&1 | grep -E "^(stat::|Done|==|SUMMARY|.*ERROR|.*panicked|Test unit)" || true
    if compgen -G "artifacts/$name/*" >/dev/null; then
        echo "$name: an input breaks it, see fuzz/artifacts/$name" >&2
        exit 1
    fi
done
