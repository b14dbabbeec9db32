#!/usr/bin/env bash
# Lists the crates of both builds, with versions, hashes and licences, as CycloneDX JSON in target/sbom. Images carry
# the same list in the binary (cargo auditable), where scanners find it.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VERSION=0.5.9
tool=.cache/tools/bin/cargo-cyclonedx
if [[ $("$tool" cyclonedx --version 2>/dev/null) != *" $VERSION" ]]; then
    echo "    sbom: installing cargo-cyclonedx (a few minutes) ..."
    cargo install cargo-cyclonedx --version "$VERSION" --locked --quiet --root .cache/tools
fi

mkdir -p target/sbom
list() {
    "$tool" cyclonedx --format json --spec-version 1.5 --target all --override-filename "$@"
    mv "$1.json" target/sbom/
    echo "target/sbom/$1.json: $(grep -c '"purl"' "target/sbom/$1.json") crates"
}
list flowtap
list flowtap-sidecar --no-default-features --features proxy
