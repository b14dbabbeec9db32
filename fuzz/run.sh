#!/usr/bin/env bash
# Each target for so many seconds. The corpus that is kept stays small: what is found goes to fuzz/found/,
# and what breaks a target to fuzz/artifacts/.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

SECONDS_EACH=${1:-60}
if ! cargo +nightly fuzz --version >/dev/null 2>&1; then
    echo "make fuzz needs: rustup toolchain install nightly; cargo install cargo-fuzz --version 0.13.2 --locked" >&2
    exit 1
fi
# Our own code forbids unsafe; the address sanitizer would only slow it down.
cargo +nightly fuzz build --sanitizer none
for target in targets/*.rs; do
    name=$(basename "$target" .rs)
    mkdir -p "found/$name"
    echo "== $name"
    cargo +nightly fuzz run --sanitizer none "$name" "found/$name" "corpus/$name" -- \
        -max_total_time="$SECONDS_EACH" -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
        2>&1 | grep -E "^(stat::|Done|==|SUMMARY|.*ERROR|.*panicked|Test unit)" || true
    if compgen -G "artifacts/$name/*" >/dev/null; then
        echo "$name: an input breaks it, see fuzz/artifacts/$name" >&2
        exit 1
    fi
done
