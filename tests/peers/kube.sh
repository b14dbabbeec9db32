#!/usr/bin/env bash
# Installs what knows Kubernetes without a cluster into .cache/peers/kube: the API's schemas of many
# versions (kubernetes-validate), Helm itself as a library (helm-python-sdk), and hadolint; the types of what
# operators bring into .cache/peers/kube-custom; and Debian's strace, and what builds and runs an image
# (buildah, crun), if they are not there.

source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"
make_venv kube

wanted=()
for program in strace buildah crun; do
    command -v "$program" >/dev/null || wanted+=("$program")
done
if ((${#wanted[@]})); then
    if ((EUID != 0)); then
        echo "The image's tests need programs. Run this once:  sudo apt-get install -y ${wanted[*]}" >&2
        exit 1
    fi
    say "kube: installing ${wanted[*]} ..."
    install() { apt-get install -y -qq --no-install-recommends "${wanted[@]}" >/dev/null 2>&1; }
    install || { apt-get update -qq && install; }
fi

# The types of what operators bring (KEDA, cert-manager, the Prometheus operator).
custom=$PEERS/kube-custom
if ! command -v npm >/dev/null; then
    echo "The chart's test needs node and npm. Run this once:  sudo apt-get install -y nodejs npm" >&2
    exit 1
fi
mkdir -p "$custom"
exec 9>"$custom/.lock"
flock 9
wanted=$(cat "$REPO"/tests/peers/custom/package{,-lock}.json | cksum)
if [[ $(cat "$custom/stamp" 2>/dev/null) == "$wanted" ]]; then
    say "kube-custom: there already"
else
    say "kube-custom: installing the types of operators' resources (a minute) ..."
    cp "$REPO"/tests/peers/custom/{package.json,package-lock.json,.npmrc} "$custom/"
    (cd "$custom" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
    echo "$wanted" >"$custom/stamp"
fi
exec 9>&-
