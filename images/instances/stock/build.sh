#!/bin/bash
# Debian cloud images with a kernel and a boot loader's configuration of their own, as distributions publish them, in
# three layouts:
#
#   grub-bios.raw   GPT, GRUB in the first sector and a BIOS boot partition, ext4 root with /boot/grub
#   grub-efi.raw    GPT, ext4 root with /boot/grub, an EFI system partition whose grub.cfg leads there
#   bls.raw         GPT, btrfs root, an EFI system partition with kernels and Boot Loader Specification entries
#   grub-bios.qcow2 the first, compressed, as it is published
#   kernel-update.deb  a newer kernel for them
#
# usage: build.sh ; prints the directory that holds them
RECIPE=stock-instances
HERE=$(cd "$(dirname "$0")" && pwd)
. "$HERE/../../lib.sh"
need mmdebstrap sfdisk mke2fs mkfs.btrfs mkfs.vfat mcopy uuidgen qemu-img

PACKAGES=systemd,systemd-sysv,systemd-resolved,udev,dbus,cloud-init,cloud-guest-utils,fdisk,openssh-server,sudo,curl,iproute2,ca-certificates,e2fsprogs,btrfs-progs,kmod
PACKAGES+=,initramfs-tools,zstd,grub-common,grub2-common,grub-pc-bin,grub-efi-amd64-bin
ROOT_TYPE=4f68bce3-e8cd-4db1-96e7-fbcaf984b709
ESP_TYPE=c12a7328-f81f-11d2-ba4b-00a0c93ec93b
BIOS_TYPE=21686148-6449-6e6f-744e-656564454649
ROOT_MIB=1400
ESP_MIB=200
ARGUMENTS="console=tty0 console=ttyS0,115200"

build() {
    bootstrap "$PWD/root" apt "$PACKAGES" --customize-hook="$HERE/kernels"
    mv root/kernel-update.deb .
    say "configuring"
    cp -a --no-preserve=ownership "$HERE/../debian/files/." root/
    chroot root systemctl --quiet disable getty@tty1.service 2>/dev/null
    chroot root systemctl --quiet enable ssh.service systemd-networkd.service systemd-resolved.service 2>/dev/null
    ln -sf ../run/systemd/resolve/stub-resolv.conf root/etc/resolv.conf
    echo debian >root/etc/hostname
    printf '127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n' >root/etc/hosts
    rm -rf root/etc/ssh/ssh_host_* root/var/log/journal root/var/lib/apt/lists/* root/var/cache/apt/*.bin \
        root/var/lib/cloud root/usr/share/doc root/etc/netplan
    : >root/etc/machine-id
    rm -f root/var/lib/dbus/machine-id
    printf 'GRUB_DEFAULT=0\nGRUB_TIMEOUT=0\nGRUB_DISTRIBUTOR=Debian\nGRUB_CMDLINE_LINUX="%s"\n' "$ARGUMENTS" \
        >root/etc/default/grub

    ROOT_UUID=$(uuidgen) ESP_ID=$(uuidgen | cut -c1-8 | tr a-f A-F)

    echo "UUID=$ROOT_UUID / ext4 rw,relatime,errors=remount-ro 0 1" >root/etc/fstab
    grub_configuration
    say "grub-bios.raw"
    grub_program
    ext4_image grub-bios.raw "size=1MiB, type=$BIOS_TYPE, name=bios"
    boot_sector grub-bios.raw
    qemu-img convert -f raw -O qcow2 -c grub-bios.raw grub-bios.qcow2
    rm -r root/boot/grub/i386-pc

    say "grub-efi.raw"
    mkdir -p root/boot/efi esp/EFI/debian
    echo "UUID=${ESP_ID:0:4}-${ESP_ID:4:4} /boot/efi vfat umask=0077 0 2" >>root/etc/fstab
    printf "search.fs_uuid %s root hd0,gpt1\nset prefix=(\$root)'/boot/grub'\nconfigfile \$prefix/grub.cfg\n" \
        "$ROOT_UUID" >esp/EFI/debian/grub.cfg
    ext4_image grub-efi.raw "size=${ESP_MIB}MiB, type=$ESP_TYPE, name=esp"
    put_esp grub-efi.raw

    say "bls.raw"
    rm -rf root/boot/grub esp
    echo "UUID=$ROOT_UUID / btrfs rw,relatime 0 0" >root/etc/fstab
    specification_entry
    bls_image
    rm -rf root esp
}

# /boot/grub/grub.cfg by Debian's own generator. It asks grub-probe about the devices below the directories, and there
# are none yet: for the time being another program answers what will be true in the machine.
grub_configuration() {
    mkdir -p root/boot/grub root/dev/disk/by-uuid
    touch "root/dev/disk/by-uuid/$ROOT_UUID"
    mv root/usr/sbin/grub-probe root/usr/sbin/grub-probe.kept
    cat >root/usr/sbin/grub-probe <<PROBE
#!/bin/sh
for word; do case \$word in --target=*) target=\${word#--target=} ;; -t) shift ;; esac; done
case \$target in
    device) echo /dev/vda1 ;;
    disk) echo /dev/vda ;;
    fs) echo ext2 ;;
    fs_uuid) echo $ROOT_UUID ;;
    partmap) echo gpt ;;
    *hint*) echo "--hint-bios=hd0,gpt1 --hint-efi=hd0,gpt1" ;;
esac
PROBE
    chmod +x root/usr/sbin/grub-probe
    chroot root grub-mkconfig -o /boot/grub/grub.cfg >&2
    mv root/usr/sbin/grub-probe.kept root/usr/sbin/grub-probe
    rm -rf root/dev/disk
    grep -q "^[[:space:]]*linux.*root=UUID=$ROOT_UUID" root/boot/grub/grub.cfg || die "grub-mkconfig found no kernel"
}

# GRUB for a BIOS, as grub-install(8) would make it: its modules beside its configuration, its first part as core.img.
grub_program() {
    mkdir root/boot/grub/i386-pc
    cp root/usr/lib/grub/i386-pc/*.{mod,lst} root/boot/grub/i386-pc/
    chroot root grub-mkimage -O i386-pc -o /core.img -p '(hd0,gpt1)/boot/grub' biosdisk part_gpt ext2 >&2
    mv root/core.img .
    cp root/usr/lib/grub/i386-pc/boot.img .
}

# boot_sector FILE : core.img into the second partition, and the code that loads it into the first sector. Both say in
# which sector the next piece is: the first sector at byte 0x5c, core.img's first sector at byte 0x1f4.
boot_sector() {
    local start=$(((ROOT_MIB + 1) * 2048))
    little_endian $start | dd of=boot.img bs=1 seek=$((0x5c)) conv=notrunc status=none
    little_endian $((start + 1)) | dd of=core.img bs=1 seek=$((0x1f4)) conv=notrunc status=none
    dd if=boot.img of="$1" bs=440 count=1 conv=notrunc status=none
    dd if=core.img of="$1" bs=512 seek=$start conv=notrunc status=none
    rm boot.img core.img
}

# little_endian NUMBER : as eight bytes.
little_endian() {
    local byte
    for byte in 0 8 16 24 32 40 48 56; do printf "\\x$(printf %02x $(($1 >> byte & 255)))"; done
}

# ext4_image FILE SECOND-PARTITION : the tree as an ext4 root in partition 1, a further partition behind it.
ext4_image() {
    local offset=$((1 << 20))
    truncate -s $((ROOT_MIB + ESP_MIB + 4))M "$1"
    mke2fs -q -t ext4 -b 4096 -L root -U "$ROOT_UUID" -d root \
        -E offset=$offset,assume_storage_prezeroed=1,lazy_itable_init=0,lazy_journal_init=0 "$1" $((ROOT_MIB * 256)) >&2
    partition "$1" "$2"
}

partition() {
    sfdisk --quiet "$1" <<GPT
label: gpt
1: start=1MiB, size=${ROOT_MIB}MiB, type=$ROOT_TYPE, name=root
15: $2
GPT
}

# put_esp FILE : the tree `esp` as FAT in the second partition.
put_esp() {
    truncate -s ${ESP_MIB}M esp.fat
    mkfs.vfat -F 32 -i "$ESP_ID" -n EFI esp.fat >/dev/null
    mcopy -s -i esp.fat esp/* ::/
    dd if=esp.fat of="$1" bs=1M seek=$((ROOT_MIB + 1)) conv=notrunc,sparse status=none
    rm esp.fat
}

# One entry, as kernel-install(8) names and writes it.
specification_entry() {
    local version token=debian
    version=$(basename "$(echo root/boot/vmlinuz-*)" | sed 's/^vmlinuz-//')
    mkdir -p "esp/loader/entries" "esp/$token/$version"
    mv "root/boot/vmlinuz-$version" "esp/$token/$version/linux"
    mv "root/boot/initrd.img-$version" "esp/$token/$version/initrd.img"
    cat >"esp/loader/entries/$token-$version.conf" <<ENTRY
title      Debian GNU/Linux
version    $version
sort-key   debian
options    root=UUID=$ROOT_UUID rootfstype=btrfs $ARGUMENTS
linux      /$token/$version/linux
initrd     /$token/$version/initrd.img
ENTRY
    printf 'timeout 0\ndefault %s-*\n' "$token" >esp/loader/loader.conf
}

bls_image() {
    truncate -s ${ROOT_MIB}M root.btrfs
    mkfs.btrfs --quiet --uuid "$ROOT_UUID" --label root --rootdir root root.btrfs >&2
    truncate -s $((ROOT_MIB + ESP_MIB + 4))M bls.raw
    dd if=root.btrfs of=bls.raw bs=1M seek=1 conv=notrunc,sparse status=none
    rm root.btrfs
    partition bls.raw "size=${ESP_MIB}MiB, type=$ESP_TYPE, name=esp"
    put_esp bls.raw
}

as_root
product stock-instances "$(key_of "$IMAGES/lib.sh" "$HERE" "$HERE/../debian/files")" build
echo "$PRODUCT"
