#!/usr/bin/env bash
# Builds deploy/Dockerfile, as it is, with an engine (buildah), and unpacks an image as a bundle that crun
# runs. Registries of images are not asked: the images that the Dockerfile starts from are made here, of this
# machine's files. Where they stand for a compiler, that hands out BINARY, so that what is held to account is
# all but the compiling: what is copied and ignored, each step, owners, the user and the entry point. The
# image then runs as the kubelet would run it: its own user, entry point and variables, no rights, a root that
# cannot be written to. Exits 77 where it may not.   image_build.sh BINARY EMPTY_FOLDER TARGET [ARGUMENT...]

set -euo pipefail

binary=$1 folder=$2 target=$3
shift 3
if [[ -z ${FLOWTAP_IMAGE_APART:-} ]] && ((EUID != 0)) || ! unshare --mount true 2>/dev/null; then
    exit 77
fi
# All of it lies in memory, and goes with the last process.
if [[ -z ${FLOWTAP_IMAGE_APART:-} ]]; then
    FLOWTAP_IMAGE_APART=1 exec unshare --mount "$0" "$binary" "$folder" "$target" "$@"
fi
mount -t tmpfs -o size=4g image "$folder"

engine() { buildah --root "$folder/storage" --runroot "$folder/run" --storage-driver overlay "$@"; }

# Programs with the libraries that they need.
install_to() {
    local root=$1 program path
    shift
    for program in "$@"; do
        path=$(realpath "$(type -P "$program")")
        install -D "$path" "$root/usr/bin/$program"
        ldd "$path" | grep -o '/[^ ]*' | while read -r library; do install -D "$library" "$root$library"; done
    done
}

# A script in the place of a program.
stand_in() {
    install -D /dev/null "$1"
    cat >"$1"
    chmod 755 "$1"
}

commit() {
    local root=$1 name=$2 container
    shift 2
    ln -s usr/bin "$root/bin"
    mkdir -p "$root/tmp"
    container=$(engine from scratch)
    engine add -q "$container" "$root" / >/dev/null
    engine config "$@" "$container"
    engine commit -q --rm "$container" "$name" >/dev/null
}

rust=$folder/rust
install_to "$rust" sh mkdir cp test chmod
mkdir -p "$rust/built"
strip -s -o "$rust/built/flowtap" "$binary"
stand_in "$rust/usr/bin/cargo" <<'SCRIPT'
#!/bin/sh
set -eu
case "$*" in
"install cargo-auditable --version "*" --locked") ;;
"auditable build --release --locked --bin flowtap"*)
    test -f Cargo.lock && test -f src/main.rs && test -f build.rs && test -d benches
    test "$CARGO_PROFILE_RELEASE_STRIP" = symbols
    case "$*" in
    *"--no-default-features --features proxy") test ! -e web ;;
    *) test -f web/dist/page/index.html ;;
    esac
    mkdir -p target/release
    cp /built/flowtap target/release/flowtap
    ;;
*) exit 64 ;;
esac
SCRIPT
commit "$rust" "docker.io/library/rust:1.95-bookworm" --env PATH=/usr/bin

node=$folder/node
install_to "$node" sh bash env cat cksum find sort sed dirname mkdir
stand_in "$node/usr/bin/node" <<<'#!/bin/sh'
stand_in "$node/usr/bin/npm" <<'SCRIPT'
#!/bin/sh
set -eu
case "$1" in
ci) test -f package-lock.json && test ! -e node_modules && mkdir node_modules ;;
run) test ! -e dist/page && mkdir -p dist/page && cat index.html >dist/page/index.html ;;
esac
SCRIPT
commit "$node" "docker.io/library/node:22-bookworm-slim" --env PATH=/usr/bin

cc=$folder/cc
mkdir -p "$cc/usr/bin" "$cc/etc/ssl/certs" "$cc/var/lib"
ldd "$binary" | grep -o '/[^ ]*' | while read -r library; do install -D "$library" "$cc$library"; done
cp /etc/ssl/certs/ca-certificates.crt "$cc/etc/ssl/certs/"
printf 'nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n' >"$cc/etc/passwd"
commit "$cc" "gcr.io/distroless/cc-debian12:nonroot" --user 65532:65532 --env PATH=/usr/bin

engine build-using-dockerfile --isolation chroot --pull-never --target "$target" -f deploy/Dockerfile -t flowtap:test . >"$folder/log" 2>&1 ||
    { cat "$folder/log" >&2; exit 1; }
engine inspect --type image flowtap:test >"$folder/image.json"
container=$(engine from --pull-never flowtap:test)
bundle=$folder/bundle
mkdir "$bundle"
cp -a "$(engine mount "$container")" "$bundle/rootfs"
engine umount "$container" >/dev/null
python3 - "$folder/image.json" "$bundle/config.json" "$@" <<'SCRIPT'
import json
import os
import sys

image = json.load(open(sys.argv[1]))["OCIv1"]["config"]
user, group = map(int, image["User"].split(":"))
own = [f"{name}={value}" for name, value in os.environ.items() if name.startswith("FLOWTAP_") and name != "FLOWTAP_IMAGE_APART"]
none = {name: [] for name in ["bounding", "effective", "inheritable", "permitted", "ambient"]}
config = {
    "ociVersion": "1.0.2",
    "process": {
        "user": {"uid": user, "gid": group}, "args": image["Entrypoint"] + (sys.argv[3:] or image["Cmd"]), "env": image["Env"] + own,
        "cwd": image["WorkingDir"], "capabilities": none, "noNewPrivileges": True,
    },
    "root": {"path": "rootfs", "readonly": True},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
        {"destination": "/var/lib/flowtap", "type": "tmpfs", "source": "spool", "options": ["nosuid", "mode=777", "size=128m"]},
    ],
    "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}]},
}
json.dump(config, open(sys.argv[2], "w"))
SCRIPT
du -sb "$bundle/rootfs" | sed 's/\t.*/ bytes in the image/'
# crun has its doubts of machines with both versions of control groups, and needs neither here.
umount -R /sys/fs/cgroup/unified 2>/dev/null || true
exec crun --root "$folder/crun" --cgroup-manager=disabled run --bundle "$bundle" flowtap-test
