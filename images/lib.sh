# Shared by the recipes in this directory: where Debian packages come from, and a cache keyed by what a product is made
# of. Sourced, never run. A recipe prints progress on stderr and its product's path as the last line of stdout.
# shellcheck shell=bash
set -euo pipefail
export LC_ALL=C.UTF-8

IMAGES=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CRN_CACHE=${CRN_CACHE:-$HOME/.cache/crn}
SUITE=trixie
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
mkdir -p "$CRN_CACHE"
CRN_CACHE=$(cd "$CRN_CACHE" && pwd)
export CRN_CACHE

say() { printf '%s %s: %s\n' "$(date +%H:%M:%S)" "${RECIPE:-images}" "$*" >&2; }
die() { say "$*"; exit 1; }

# need PROGRAM... : fails with the missing programs' names before any work is done.
need() {
    local missing=() p
    for p; do command -v "$p" >/dev/null || missing+=("$p"); done
    [ ${#missing[@]} = 0 ] || die "not installed: ${missing[*]} (images/packages.txt lists the packages)"
}

# as_root ARGUMENT... : runs the recipe again as root when it is not: the trees it makes have files of several owners.
as_root() {
    [ "$(id -u)" = 0 ] || exec sudo --preserve-env=CRN_CACHE,CRN_REFRESH,CRN_IMAGE,DEBIAN_MIRROR,DEBIAN_SECURITY_MIRROR,APPLIANCE_PROFILES,APPLIANCE_VERSION "$0" "$@"
}

# apt_uris : this machine's Debian archives, one "suite uri" a line, from one-line and deb822 sources.
apt_uris() {
    local f
    for f in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ -f "$f" ] || continue
        sed -En 's/#.*//; s/^[[:space:]]*deb[[:space:]]+(\[[^]]*\][[:space:]]+)?([^[:space:]]+)[[:space:]]+([^[:space:]]+).*/\3 \2/p' "$f"
    done
    for f in /etc/apt/sources.list.d/*.sources; do
        [ -f "$f" ] || continue
        awk '
            function flush(   i, j, n, m, s, u) {
                if (types ~ /(^| )deb( |$)/ && tolower(enabled) != "no") {
                    n = split(suites, s, " "); m = split(uris, u, " ")
                    for (i = 1; i <= n; i++) for (j = 1; j <= m; j++) print s[i], u[j]
                }
                types = uris = suites = enabled = field = ""
            }
            /^#/ { next }
            /^[[:space:]]*$/ { flush(); next }
            /^[^[:space:]]/ { i = index($0, ":"); field = tolower(substr($0, 1, i - 1)); $0 = substr($0, i + 1) }
            { gsub(/^[[:space:]]+|[[:space:]]+$/, "")
              if (field == "types") types = types " " $0
              if (field == "uris") uris = uris " " $0
              if (field == "suites") suites = suites " " $0
              if (field == "enabled") enabled = $0 }
            END { flush() }' "$f"
    done
}

# find_mirrors : sets DEBIAN_MIRROR and DEBIAN_SECURITY_MIRROR from this machine's apt configuration, unless given.
# Only Debian's own suites count, so that a third party's archive is never taken for a mirror.
find_mirrors() {
    local uris release='(bullseye|bookworm|trixie|forky|sid|stable|testing|unstable)'
    uris=$(apt_uris | sed 's,/*$,,')
    DEBIAN_MIRROR=${DEBIAN_MIRROR:-$(awk -v r="^$release(-updates)?\$" '$1 ~ r { print $2; exit }' <<<"$uris")}
    DEBIAN_SECURITY_MIRROR=${DEBIAN_SECURITY_MIRROR:-$(awk -v r="^$release(-security|/updates)\$" '$1 ~ r { print $2; exit }' <<<"$uris")}
    [ -n "$DEBIAN_MIRROR" ] || die "no Debian mirror in this machine's apt configuration: set DEBIAN_MIRROR"
    [ -n "$DEBIAN_SECURITY_MIRROR" ] || die "no Debian security mirror in this machine's apt configuration: set DEBIAN_SECURITY_MIRROR"
    export DEBIAN_MIRROR DEBIAN_SECURITY_MIRROR
}

# debian_sources COMPONENT... : one-line apt sources of $SUITE with updates and security.
debian_sources() {
    printf 'deb [signed-by=%s] %s %s %s\n' \
        "$KEYRING" "$DEBIAN_MIRROR" "$SUITE" "$*" \
        "$KEYRING" "$DEBIAN_MIRROR" "$SUITE-updates" "$*" \
        "$KEYRING" "$DEBIAN_SECURITY_MIRROR" "$SUITE-security" "$*"
}

# bootstrap TARGET VARIANT PACKAGE,... [MMDEBSTRAP-OPTION...] : Debian packages into a directory or tar file, without
# documentation and translations. Release files older than their validity are accepted: a snapshot serves such.
bootstrap() {
    local target=$1 variant=$2 packages=$3 p
    shift 3
    local -a exclude=()
    for p in doc man locale info lintian bash-completion zsh; do exclude+=("--dpkgopt=path-exclude=/usr/share/$p/*"); done
    find_mirrors
    debian_sources main | mmdebstrap --quiet --variant="$variant" --mode=root --include="$packages" \
        --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Check-Valid-Until "false"' \
        --aptopt='Acquire::Retries "3"' --aptopt='Acquire::Languages "none"' \
        "${exclude[@]}" "$@" "$SUITE" "$target" - >&2
}

# key_of PATH... : hash of the named files (and of all files in named directories) with their modes.
key_of() {
    local p
    for p; do
        (cd "$(dirname "$p")" && find "$(basename "$p")" \( -type f -o -type l \) ! -name '*.pyc' -printf '%p %m %l\0' | sort -z |
            while IFS= read -r -d '' line; do
                printf '%s\n' "$line"
                f=${line%% *}
                [ -L "$f" ] || sha256sum <"$f"
            done)
    done | sha256sum | cut -c1-16
}

# product NAME KEY BUILD-FUNCTION : sets PRODUCT to the cache directory of NAME under KEY. When it is not there,
# BUILD-FUNCTION runs with an empty directory as its working directory, and that is published by one rename; nothing is
# published when it fails. One build of NAME at a time. CRN_REFRESH=1 builds anew (to take newer packages).
product() {
    local name=$1 key=$2 build=$3 work
    PRODUCT=$CRN_CACHE/$name/$key
    mkdir -p "$CRN_CACHE/$name"
    exec 9>"$CRN_CACHE/$name/lock"
    flock 9
    if [ -d "$PRODUCT" ] && [ -z "${CRN_REFRESH:-}" ]; then
        say "$name $key is in the cache"
    else
        rm -rf "$CRN_CACHE/$name"/tmp.*
        work=$CRN_CACHE/$name/tmp.$$
        mkdir "$work"
        say "building $name $key"
        # A subshell of its own, not part of a condition: the shell would switch `set -e` off inside it.
        set +e
        (set -e; cd "$work"; "$build")
        local status=$?
        set -e
        if [ $status != 0 ]; then
            rm -rf "$work"
            die "building $name failed ($status)"
        fi
        rm -rf "$PRODUCT"
        mv -T "$work" "$PRODUCT"
        # The newest three stay: other checkouts, or the one before, may point at them.
        find "$CRN_CACHE/$name" -mindepth 1 -maxdepth 1 -type d -printf '%T@ %p\n' | sort -rn | tail -n +4 | cut -d' ' -f2- |
            xargs -r -d '\n' rm -rf
        say "$name $key: $(du -sh "$PRODUCT" | cut -f1)"
    fi
    exec 9>&-
}

# crn_image : builds the image packer and prints its path.
crn_image() {
    say "building crn-image"
    (cd "$IMAGES/.." && cargo build --quiet -p crn-image --message-format=json-render-diagnostics) |
        sed -n 's/.*"executable":"\([^"]*crn-image\)".*/\1/p' | tail -n1
}
