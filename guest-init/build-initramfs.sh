#!/bin/bash
# Builds the initramfs archives of a guest, from the same sources always the same bytes:
#
#   guest-init/build-initramfs.sh OUT_DIR
#
# OUT_DIR/initramfs holds /init = crn-init, OUT_DIR/bench-initramfs holds /init = crn-bench-init, OUT_DIR/device-initramfs
# that of the device tests. All are newc cpio archives, not compressed: the kernel takes them from memory as they are.
# /dev/console comes with the kernel's own built-in archive, so no device node is needed here and nobody needs to be root.
set -euo pipefail

[ $# -eq 1 ] || { echo "usage: $0 OUT_DIR" >&2; exit 2; }
command -v cpio > /dev/null || { echo "initramfs: error: missing Debian package: apt-get install cpio" >&2; exit 1; }
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
work=$(mktemp -d "$out/.initramfs.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$here"

# $1 is the binary, $2 the archive's name.
archive() {
    local binary root=$work/$2.d
    # Only the final crate gets the flags: a static glibc binary without another target to install.
    binary=$(cargo rustc --package crn-init --profile guest --bin "$1" --message-format json-render-diagnostics -- \
        -C target-feature=+crt-static -C relocation-model=static |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
    [ -x "$binary" ] || { echo "initramfs: error: cargo named no binary for $1" >&2; exit 1; }
    # The directories that crn-init mounts on.
    mkdir -p "$root"/{dev,proc,sys,newroot,runtime,scratch}
    install -m 0755 "$binary" "$root/init"
    find "$root" -exec touch --no-dereference --date=@0 {} +
    (cd "$root" && find . -mindepth 1 | LC_ALL=C sort |
        cpio --quiet --create --format newc --reproducible --owner 0:0) > "$work/$2"
    mv "$work/$2" "$out/$2"
    echo "initramfs: $out/$2, $(stat -c %s "$out/$2") bytes" >&2
}

archive crn-init initramfs
archive crn-bench-init bench-initramfs
archive crn-device-init device-initramfs
