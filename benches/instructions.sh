#!/usr/bin/env bash
# Builds what benches/instructions.py counts, and counts. Arguments go to it: --bless keeps the counts.
# --unoptimised, to be given first, counts the pipeline of a build for tests, as `make test` does.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tools=(valgrind python3)
[[ ${1:-} == --unoptimised ]] || tools+=(nginx openssl)
for tool in "${tools[@]}"; do
    if ! command -v "$tool" >/dev/null; then
        echo "instructions: $tool not found. Run this once:  sudo apt-get install -y valgrind nginx-light openssl python3" >&2
        exit 1
    fi
done
# The path of the bench `behind`, built as `cargo $*` builds it.
behind() {
    cargo "$@" --locked --bench behind --no-run --message-format json | python3 -c '
import json, sys
built = [json.loads(line) for line in sys.stdin if line.startswith("{")]
print([one["executable"] for one in built if one.get("target", {}).get("name") == "behind" and one.get("executable")][-1])'
}
if [[ ${1:-} == --unoptimised ]]; then
    shift
    exec python3 benches/instructions.py --behind "$(behind test --features failpoints)" "$@"
fi
cargo build --locked --profile bench --bin flowtap
exec python3 benches/instructions.py --behind "$(behind bench)" --flowtap target/release/flowtap "$@"
