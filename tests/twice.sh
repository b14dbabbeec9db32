#!/usr/bin/env bash
# The program, built twice from the same sources at the same place: is it the same, byte for byte? The
# dependencies are built once, their pinned sources being others' to hold to account. PROFILE=dev is quicker.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PROFILE=${PROFILE:-release}
export CARGO_INCREMENTAL=0
folder=${CARGO_TARGET_DIR:-target}/$([[ $PROFILE == dev ]] && echo debug || echo "$PROFILE")
hashes=()
for _ in 1 2; do
    cargo clean --quiet --package flowtap --profile "$PROFILE"
    cargo build --quiet --locked --profile "$PROFILE" --bin flowtap
    hashes+=("$(sha256sum <"$folder/flowtap" | cut -d' ' -f1)")
done
printf '%s\n' "${hashes[@]}"
if [[ ${hashes[0]} != "${hashes[1]}" ]]; then
    echo "two builds of the same sources differ" >&2
    exit 1
fi
echo "two builds of the same sources are the same ($PROFILE)"
