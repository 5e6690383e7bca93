#!/bin/bash
# Builds the guest kernel: a stripped ELF `vmlinux` from Debian's linux-source package and guest.config.
#
#   kernel-config/build.sh            prints the path of the vmlinux as its last line on stdout
#
# The result is cached in ${CRN_CACHE:-$HOME/.cache/crn}/kernel/<key>/, the key being a hash over guest.config, this
# script and the version of the source package. Progress goes to stderr, the compiler's output to build.log beside it.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
package=linux-source-6.12
source_archive=/usr/src/$package.tar.xz
cache=${CRN_CACHE:-$HOME/.cache/crn}/kernel
started=$SECONDS

say() { printf 'kernel: %s\n' "$*" >&2; }
fail() { say "error: $*"; exit 1; }

missing=()
[ -e "$source_archive" ] || missing+=("$package")
for need in make:make gcc:gcc ld:binutils flex:flex bison:bison bc:bc perl:perl xz:xz-utils; do
    command -v "${need%%:*}" > /dev/null || missing+=("${need##*:}")
done
[ -e /usr/include/gelf.h ] || missing+=(libelf-dev)
[ ${#missing[@]} -eq 0 ] || fail "missing Debian packages: apt-get install ${missing[*]}"

version=$(dpkg-query -W -f '${Version}' "$package")
key=$({ cat "$here/guest.config" "$here/build.sh"; echo "$version"; } | sha256sum | cut -c1-24)
result=$cache/$key/vmlinux
if [ -s "$result" ]; then
    say "$package $version is in the cache"
    echo "$result"
    exit 0
fi

mkdir -p "$cache"
# One build at a time for one cache: who comes second finds the first one's result.
exec 9> "$cache/lock"
flock 9
if [ -s "$result" ]; then
    echo "$result"
    exit 0
fi
work=$(mktemp -d "$cache/.build.XXXXXX")
log=$cache/build.log
ticker=
finish() {
    [ -z "$ticker" ] || kill "$ticker" 2> /dev/null || true
    rm -rf "$work"
}
trap finish EXIT

: > "$log"
say "$package $version, log in $log"
tree=$work/source
mkdir "$tree"
tar -xJf "$source_archive" -C "$tree" --strip-components=1
say "unpacked in $((SECONDS - started)) s"

# Nothing of the builder's machine or clock enters the kernel.
export KBUILD_BUILD_TIMESTAMP='1970-01-01 00:00:00 UTC' KBUILD_BUILD_USER=crn KBUILD_BUILD_HOST=crn
export KBUILD_BUILD_VERSION=1
make_kernel() { make -C "$tree" "$@" >> "$log" 2>&1; }

make_kernel KCONFIG_ALLCONFIG="$here/guest.config" tinyconfig || fail "configuration, see $log"
"$tree/scripts/kconfig/merge_config.sh" -m -O "$tree" "$tree/.config" "$here/guest.config" >> "$log" 2>&1
make_kernel olddefconfig || fail "configuration, see $log"

# Kconfig drops in silence what its dependencies do not allow.
wrong=()
while IFS='=' read -r name value; do
    case $name in CONFIG_*) ;; *) continue ;; esac
    if [ "$value" = n ]; then
        ! grep -q "^$name=" "$tree/.config" || wrong+=("$name (not off)")
    else
        grep -qxF "$name=$value" "$tree/.config" || wrong+=("$name (not $value)")
    fi
done < "$here/guest.config"
if grep '=m$' "$tree/.config" >> "$log"; then wrong+=("modules, see $log"); fi
[ ${#wrong[@]} -eq 0 ] || fail "options that did not hold: $(printf '\n  %s' "${wrong[@]}")"
say "configured: $(grep -c '=y$' "$tree/.config") options"

(
    while sleep 15; do
        say "$(grep -cE '^  (CC|AS|AR|LD)  ' "$log") objects after $((SECONDS - started)) s"
    done
) &
ticker=$!
make_kernel -j"$(nproc)" vmlinux || { tail -n 20 "$log" >&2; fail "compilation, see $log"; }

mkdir "$work/out"
strip --strip-all -o "$work/out/vmlinux" "$tree/vmlinux"
readelf -n "$work/out/vmlinux" 2> /dev/null | grep -q Xen || fail "the PVH note is missing from vmlinux"
cp "$tree/.config" "$work/out/config"
mkdir -p "$cache/$key"
mv "$work/out/config" "$cache/$key/config"
mv "$work/out/vmlinux" "$result"
say "$(stat -c %s "$result") bytes in $((SECONDS - started)) s"
echo "$result"
