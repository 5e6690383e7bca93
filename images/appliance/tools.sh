# Sourced by build.sh: the directory of Debian programs that mkosi runs with.
# shellcheck shell=bash

# trixie's systemd-repart, ukify, erofs-utils and mkosi itself; Debian 12 carries neither mkosi 25 nor a new enough systemd.
TOOLS=mkosi,debian-archive-keyring,ca-certificates,bubblewrap,dosfstools,mtools,erofs-utils,xfsprogs,e2fsprogs,cryptsetup-bin,sbsigntool,systemd-boot,systemd-boot-efi,systemd-ukify,systemd-repart,systemd-container,openssl,zstd,xz-utils,cpio,kmod,python3-cryptography,python3-pefile,uidmap,apt

build_tools() {
    bootstrap "$PWD/tree" apt "$TOOLS" --skip=cleanup/apt/cache
    rm -rf tree/var/cache/apt/archives tree/var/lib/apt/lists
    mkdir -p tree/var/cache/apt/archives/partial tree/var/lib/apt/lists/partial
}

# tools_tree : sets TOOLS_TREE.
tools_tree() {
    product appliance-tools "$(echo "$SUITE $TOOLS" | sha256sum | cut -c1-16)" build_tools
    TOOLS_TREE=$PRODUCT/tree
}
