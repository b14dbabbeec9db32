#!/usr/bin/env bash
# Builds what benches/instructions.py counts, and counts. Arguments go to it: --bless keeps the counts.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

for tool in valgrind nginx openssl python3; do
    if ! command -v "$tool" >/dev/null; then
        echo "instructions: $tool not found. Run this once:  sudo apt-get install -y valgrind nginx-light openssl python3" >&2
        exit 1
    fi
done
cargo build --locked --profile bench --bin flowtap
behind=$(cargo bench --locked --bench behind --no-run --message-format json | python3 -c '
import json, sys
built = [json.loads(line) for line in sys.stdin if line.startswith("{")]
print([one["executable"] for one in built if one.get("target", {}).get("name") == "behind" and one.get("executable")][-1])')
exec python3 benches/instructions.py --behind "$behind" --flowtap target/release/flowtap "$@"
