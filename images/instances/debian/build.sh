#!/bin/bash
# Debian cloud image without a kernel: GPT, one ext4 root partition, cloud-init (NoCloud), SSH.
# usage: build.sh ; prints the path of debian.raw (debian.qcow2 stands beside it)
RECIPE=debian-instance
HERE=$(cd "$(dirname "$0")" && pwd)
. "$HERE/../../lib.sh"
need mmdebstrap sfdisk mke2fs qemu-img

PACKAGES=systemd,systemd-sysv,systemd-resolved,udev,dbus,cloud-init,cloud-guest-utils,fdisk,openssh-server,sudo,curl,iproute2,iputils-ping,ca-certificates,e2fsprogs,less,kmod
ROOT_X86_64=4f68bce3-e8cd-4db1-96e7-fbcaf984b709
SIZE_MIB=800

# Timers and one-off jobs that would compete with the first boot or make no sense without a kernel of its own.
MASKED=(apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service man-db.timer
    systemd-pstore.service systemd-modules-load.service systemd-hibernate-resume.service systemd-hibernate-clear.service
    systemd-tpm2-setup.service systemd-tpm2-setup-early.service systemd-pcrphase.service systemd-random-seed.service
    modprobe@.service sys-kernel-debug.mount sys-kernel-tracing.mount systemd-binfmt.service
    cloud-init-hotplugd.socket cloud-init-hotplugd.service sshd-keygen.service)

build() {
    bootstrap "$PWD/root" apt "$PACKAGES"
    say "configuring"
    cp -a --no-preserve=ownership "$HERE/files/." root/
    local unit
    for unit in "${MASKED[@]}"; do ln -sf /dev/null "root/etc/systemd/system/$unit"; done
    chroot root systemctl --quiet disable getty@tty1.service 2>/dev/null
    chroot root systemctl --quiet enable ssh.service systemd-networkd.service systemd-resolved.service 2>/dev/null
    ln -sf ../run/systemd/resolve/stub-resolv.conf root/etc/resolv.conf
    echo debian >root/etc/hostname
    printf '127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n' >root/etc/hosts
    rm -rf root/etc/ssh/ssh_host_* root/var/log/journal root/var/lib/apt/lists/* root/var/cache/apt/*.bin root/var/lib/cloud \
        root/usr/share/doc root/usr/share/man root/etc/netplan
    # Empty, not absent: the first boot makes its own identity without counting as a factory reset.
    : >root/etc/machine-id
    rm -f root/var/lib/dbus/machine-id
    # Tells systemd that caches under /etc and /var are up to date with /usr.
    touch root/usr
    touch root/etc/.updated root/var/.updated

    say "making the disk image"
    local offset=$((1 << 20)) blocks=$(((SIZE_MIB - 2) * 256))
    truncate -s ${SIZE_MIB}M debian.raw
    # A new sparse file reads as zeros: nothing has to be zeroed now, nor by the guest's kernel later.
    mke2fs -q -t ext4 -b 4096 -L root -m 1 -d root \
        -E offset=$offset,assume_storage_prezeroed=1,lazy_itable_init=0,lazy_journal_init=0 debian.raw $blocks >&2
    sfdisk --quiet debian.raw <<GPT
label: gpt
start=1MiB, size=$((SIZE_MIB - 2))MiB, type=$ROOT_X86_64, name=root
GPT
    rm -rf root
    say "compressing"
    qemu-img convert -f raw -O qcow2 -c debian.raw debian.qcow2
}

as_root
product instance-debian "$(key_of "$IMAGES/lib.sh" "$HERE")" build
echo "$PRODUCT/debian.raw"
