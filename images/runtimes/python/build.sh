#!/bin/bash
# Python runtime: Debian packages and the ASGI server's entry point as one squashfs.
# usage: build.sh ; prints the path of python.squashfs
RECIPE=python-runtime
HERE=$(cd "$(dirname "$0")" && pwd)
. "$HERE/../../lib.sh"
need mmdebstrap cargo

# ext4 volumes of a program are made inside its guest (e2fsprogs); iproute2 is for programs that look at their network.
PACKAGES=python3,python3-uvicorn,python3-starlette,python3-fastapi,python3-websockets,python3-httpx,ca-certificates,iproute2,e2fsprogs

build() {
    bootstrap "$PWD/root" essential "$PACKAGES"
    say "stripping"
    # What a running program has no use for; a runtime is never upgraded in place.
    rm -rf root/usr/share/{doc,man,info,locale,lintian,bash-completion,zsh,doc-base,debconf,perl5,common-licenses,pixmaps,applications} \
        root/var/cache root/var/lib/apt root/var/log root/var/lib/dpkg/info root/var/lib/systemd \
        root/usr/lib/python3/dist-packages/*/tests root/usr/lib/python3.*/{test,idlelib,ensurepip,turtledemo,lib2to3} \
        root/usr/lib/x86_64-linux-gnu/perl-base root/usr/bin/perl* root/etc/systemd root/boot root/media root/srv
    mkdir -p root/var/{cache,log,tmp,lib/dpkg/info} root/{dev,proc,sys,run,tmp,opt/crn,opt/code,opt/packages,mnt}
    chmod 1777 root/tmp root/var/tmp
    : >root/etc/machine-id
    rm -rf root/etc/hostname root/etc/resolv.conf root/dev root/proc; mkdir root/dev root/proc
    install -m0755 "$HERE/asgi" root/opt/crn/asgi
    install -m0644 "$HERE/crn_asgi.py" root/opt/crn/crn_asgi.py
    say "compiling Python modules"
    # Hash-based and unchecked: the interpreter neither looks at time stamps nor reads the source.
    find root/usr/lib/python3* root/opt/crn -name __pycache__ -prune -exec rm -rf {} +
    chroot root /bin/sh -c 'python3 -m compileall -q --invalidation-mode unchecked-hash \
        /usr/lib/python3 /usr/lib/python3.* /opt/crn' >&2
    say "packing"
    "$CRN_IMAGE" squashfs root python.squashfs >&2
    rm -rf root
}

CRN_IMAGE=${CRN_IMAGE:-$(crn_image)}
export CRN_IMAGE
as_root
product runtime-python "$(key_of "$IMAGES/lib.sh" "$HERE" "$IMAGES/builder")" build
echo "$PRODUCT/python.squashfs"
