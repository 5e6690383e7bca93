#!/bin/bash
# The flashable appliance.
# usage: build.sh STAGING_DIR ; prints the path of appliance.raw
# STAGING_DIR holds what is put on top of Debian: usr/bin/{crn-agent,crn-vmm,ccn-lite},
# usr/lib/crn/{vmlinux,initramfs}.
# APPLIANCE_PROFILES (default "cloud release"): machine (cloud or metal) and kind (release or debug).
RECIPE=appliance
HERE=$(cd "$(dirname "$0")" && pwd)
. "$HERE/../lib.sh"
. "$HERE/tools.sh"
need mmdebstrap python3 openssl

[ $# = 1 ] || die "usage: build.sh STAGING_DIR"
as_root "$@"
STAGING=$(cd "$1" && pwd)
for f in usr/bin/crn-agent usr/bin/crn-vmm usr/bin/ccn-lite usr/lib/crn/vmlinux usr/lib/crn/initramfs; do
    [ -f "$STAGING/$f" ] || die "$STAGING/$f is missing"
done
read -ra PROFILES <<<"${APPLIANCE_PROFILES:-cloud release}"
VERSION=${APPLIANCE_VERSION:-1}
find_mirrors
tools_tree

# A throwaway key of this machine, for Secure Boot; a release is signed with another, kept elsewhere.
keys() {
    [ -f "$KEYS/mkosi.crt" ] && return
    mkdir -p "$KEYS"
    openssl req -x509 -newkey rsa:2048 -nodes -keyout "$KEYS/mkosi.key" -out "$KEYS/mkosi.crt.tmp" -days 3650 \
        -subj "/CN=appliance throwaway/" 2>/dev/null
    mv "$KEYS/mkosi.crt.tmp" "$KEYS/mkosi.crt"
}

# Debian sources for mkosi. When none are given it writes its own, which name archives that not every mirror carries.
sources() {
    mkdir -p "$SANDBOX/etc/apt/sources.list.d" "$SANDBOX/etc/apt/apt.conf.d"
    cat >"$SANDBOX/etc/apt/sources.list.d/mkosi.sources.tmp" <<DEB822
Types: deb
URIs: $DEBIAN_MIRROR
Suites: $SUITE $SUITE-updates
Components: main non-free-firmware
Signed-By: $KEYRING

Types: deb
URIs: $DEBIAN_SECURITY_MIRROR
Suites: $SUITE-security
Components: main non-free-firmware
Signed-By: $KEYRING
DEB822
    mv "$SANDBOX/etc/apt/sources.list.d/mkosi.sources.tmp" "$SANDBOX/etc/apt/sources.list.d/mkosi.sources"
    printf 'Acquire::Check-Valid-Until "false";\nAcquire::Retries "3";\nAcquire::Languages "none";\n' \
        >"$SANDBOX/etc/apt/apt.conf.d/90crn"
}

# mkosi from the tools tree, run by the host's Python.
mkosi() {
    local p args=()
    for p in "${PROFILES[@]}"; do args+=("--profile=$p"); done
    (cd "$HERE" && PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$TOOLS_TREE/usr/lib/python3/dist-packages" python3 -m mkosi \
        --tools-tree="$TOOLS_TREE" --cache-dir="$STATE/cache" --package-cache-dir="$STATE/packages" \
        --workspace-dir="$STATE/workspace" --build-dir= --mirror="$DEBIAN_MIRROR" --sandbox-tree="$SANDBOX" \
        --secure-boot-key="$KEYS/mkosi.key" --secure-boot-certificate="$KEYS/mkosi.crt" \
        --extra-tree="$STAGING" --image-version="$VERSION" --output=appliance --output-dir="$OUT" \
        "${args[@]}" "$@") >&2
}

build() {
    OUT=$PWD/out
    mkdir "$OUT"
    keys
    sources
    mkdir -p "$STATE"/{cache,packages,workspace}
    mkosi -f build
    cp --sparse=always "$OUT/appliance.raw" appliance.raw
    cp "$OUT/appliance.manifest" . 2>/dev/null || true
    rm -rf "$OUT"
}

STATE=$CRN_CACHE/appliance-state
KEYS=$STATE/keys
SANDBOX=$STATE/sandbox
KEY=$( { key_of "$IMAGES/lib.sh" "$HERE" "$STAGING"; echo "${PROFILES[*]} $VERSION"; } | sha256sum | cut -c1-16)
product appliance "$KEY" build
echo "$PRODUCT/appliance.raw"
