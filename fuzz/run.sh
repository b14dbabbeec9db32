#!/usr/bin/env bash
# Each target for so many seconds: `run.sh 60`, or `run.sh 60 spool sse` for some of them. What is found goes
# to fuzz/found/, what breaks a target to fuzz/artifacts/. `run.sh merge` adds to the corpus that is kept the
# smallest set of what was found that reaches more of the code, as far as it is small.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# So many bytes of one input, and so many new inputs of a target, are kept.
KEPT_BYTES_MAX=2048
KEPT_MAX=40

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

targets() {
    [[ $# -gt 0 ]] && printf '%s\n' "$@" && return
    for target in targets/*.rs; do
        basename "$target" .rs
    done
}

# Our own code forbids unsafe; the address sanitizer would only slow it down.
fuzz() {
    cargo $TOOLCHAIN fuzz run --sanitizer none "$@"
}

run() {
    local seconds=$1
    shift
    cargo $TOOLCHAIN fuzz build --sanitizer none
    for name in $(targets "$@"); do
        mkdir -p "found/$name"
        echo "== $name"
        fuzz "$name" "found/$name" "corpus/$name" -- \
            -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
            2>&1 | grep -E "^(stat::|Done|==|SUMMARY|.*ERROR|.*panicked|Test unit)" || true
        if compgen -G "artifacts/$name/*" >/dev/null; then
            echo "$name: an input breaks it, see fuzz/artifacts/$name" >&2
            exit 1
        fi
    done
}

# Names begin with z: what was written by hand stays first, and tests look at that alone.
merge() {
    for name in $(targets "$@"); do
        [[ -d found/$name ]] || continue
        local small fresh kept=0
        small=$(mktemp -d) fresh=$(mktemp -d)
        find "found/$name" -type f -size -"$((KEPT_BYTES_MAX + 1))"c -exec cp -t "$small" {} +
        cp "corpus/$name"/* "$fresh"
        fuzz "$name" "$fresh" "$small" -- -set_cover_merge=1 >/dev/null 2>&1
        while read -r file; do
            [[ $kept -lt $KEPT_MAX ]] || break
            cmp --silent "$fresh/$file" "corpus/$name/$file" && continue
            cp "$fresh/$file" "corpus/$name/z_${file:0:12}"
            kept=$((kept + 1))
        done < <(cd "$fresh" && ls -Sr)
        rm -r "$small" "$fresh"
        echo "$name: $kept added, $(ls "corpus/$name" | wc -l) kept"
    done
}

case ${1:-60} in
merge) merge "${@:2}" ;;
*) run "${1:-60}" "${@:2}" ;;
esac
