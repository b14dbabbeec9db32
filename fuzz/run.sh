#!/usr/bin/env bash
# Each target for so many seconds: `run.sh 60`, or `run.sh 60 spool sse` for some of them. What is found goes
# to fuzz/found/, what breaks a target to fuzz/artifacts/. `run.sh merge` adds to the corpus that is kept the
# smallest set of what was found that reaches more of the code, as far as it is small.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# So many bytes of one input, and so many new inputs of a target, are kept.
KEPT_BYTES_MAX=2048
KEPT_MAX=40

# Our own code forbids unsafe: a sanitizer would only slow it down.
build() {
    RUSTC_WRAPPER=$PWD/covered.sh CARGO_TARGET_DIR=$PWD/target cargo build --locked --release
}

targets() {
    [[ $# -gt 0 ]] && printf '%s\n' "$@" && return
    for target in targets/*.rs; do
        basename "$target" .rs
    done
}

run() {
    local seconds=$1
    shift
    build
    for name in $(targets "$@"); do
        mkdir -p "found/$name" "artifacts/$name"
        echo "== $name"
        "target/release/$name" "found/$name" "corpus/$name" -artifact_prefix="artifacts/$name/" \
            -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
            2>&1 | grep -E "^(stat::|Done|==|SUMMARY|.*ERROR|.*panicked|Test unit)" || true
        if compgen -G "artifacts/$name/*" >/dev/null; then
            echo "$name: an input breaks it, see fuzz/artifacts/$name" >&2
            exit 1
        fi
    done
}

# Names begin with z: what was written by hand stays first, and tests look at that alone.
merge() {
    build
    for name in $(targets "$@"); do
        [[ -d found/$name ]] || continue
        local small fresh kept=0
        small=$(mktemp -d) fresh=$(mktemp -d)
        find "found/$name" -type f -size -"$((KEPT_BYTES_MAX + 1))"c -exec cp -t "$small" {} +
        cp "corpus/$name"/* "$fresh"
        "target/release/$name" "$fresh" "$small" -set_cover_merge=1 >/dev/null 2>&1
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
