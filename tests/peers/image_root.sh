#!/usr/bin/env bash
# Runs a flowtap binary as deploy/Dockerfile's last stage would: a root that holds the binary, the C library
# and the certificates and cannot be written to, /var/lib/flowtap of its own, user 65532, no shell. Needs
# root and namespaces; exits 77 where it may not.   image_root.sh BINARY EMPTY_FOLDER [ARGUMENT...]

set -euo pipefail

binary=$1 root=$2
shift 2

if ((EUID != 0)) || ! unshare --mount true 2>/dev/null; then
    exit 77
fi

assemble() {
    mount -t tmpfs -o size=512m image "$root"
    mkdir -p "$root"/{usr/bin,var/lib/flowtap,etc/ssl/certs,proc,dev,tmp}
    cp "$binary" "$root/usr/bin/flowtap"
    ldd "$binary" | grep -o '/[^ ]*' | while read -r library; do
        install -D "$library" "$root$library"
    done
    cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
    printf 'nonroot:x:65532:65532:nonroot:/:/sbin/nologin\n' >"$root/etc/passwd"
    mount -t proc proc "$root/proc"
    touch "$root/dev/null" && mount --bind /dev/null "$root/dev/null"
    mount -t tmpfs -o size=128m,uid=65532,gid=65532,mode=0700 spool "$root/var/lib/flowtap"
    mount -o remount,ro "$root"
}

export -f assemble
export binary root
# shellcheck disable=SC2016
exec unshare --mount bash -euc 'assemble
    exec unshare --root="$root" --wd=/var/lib/flowtap --setgid=65532 --setuid=65532 -- /usr/bin/flowtap "$@"' flowtap "$@"
