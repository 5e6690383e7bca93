//! Configurations as Debian's, Ubuntu's and Fedora's tools write them, shortened.

use super::super::testing::named;
use super::*;

const ROOT_UUID: &str = "6a1f0c3e-2b4d-4e5f-9a8b-0c1d2e3f4a5b";

const DEBIAN: &str = r#"
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="0"
fi

if [ x"${feature_menuentry_id}" = xy ]; then
  menuentry_id_option="--id"
else
  menuentry_id_option=""
fi
export menuentry_id_option

function load_video {
  if [ x$feature_all_video_module = xy ]; then
    insmod all_video
  else
    insmod efi_gop
  fi
}
if loadfont unicode ; then
  set gfxmode=auto
fi
terminal_output console
set timeout_style=menu

### BEGIN /etc/grub.d/10_linux ###
function gfxmode {
	set gfxpayload="${1}"
}
set linux_gfx_mode=
menuentry 'Debian GNU/Linux' --class debian --class os $menuentry_id_option 'gnulinux-simple-6a1f' {
	load_video
	insmod gzio
	if [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
	insmod part_gpt
	insmod ext2
	set root='hd0,gpt1'
	if [ x$feature_platform_search_hint = xy ]; then
	  search --no-floppy --fs-uuid --set=root --hint-bios=hd0,gpt1 --hint-efi=hd0,gpt1  6a1f0c3e-2b4d-4e5f-9a8b-0c1d2e3f4a5b
	else
	  search --no-floppy --fs-uuid --set=root 6a1f0c3e-2b4d-4e5f-9a8b-0c1d2e3f4a5b
	fi
	echo	'Loading Linux 6.12.57+deb13-cloud-amd64 ...'
	linux	/boot/vmlinuz-6.12.57+deb13-cloud-amd64 root=PARTUUID=a1b2 ro console=tty0 console=ttyS0,115200 dyndbg="file x +p; file y +p"
	echo	'Loading initial ramdisk ...'
	initrd	/boot/initrd.img-6.12.57+deb13-cloud-amd64
}
submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option 'gnulinux-advanced-6a1f' {
	menuentry 'Debian GNU/Linux, with Linux 6.12.57' --class debian $menuentry_id_option 'gnulinux-6.12.57-advanced-6a1f' {
		search --no-floppy --fs-uuid --set=root 6a1f0c3e-2b4d-4e5f-9a8b-0c1d2e3f4a5b
		linux	/boot/vmlinuz-6.12.57+deb13-cloud-amd64 root=PARTUUID=a1b2 ro single
	}
	menuentry 'Debian GNU/Linux, with Linux 6.12.48' --class debian $menuentry_id_option 'gnulinux-6.12.48-advanced-6a1f' {
		search --no-floppy --fs-uuid --set=root 6a1f0c3e-2b4d-4e5f-9a8b-0c1d2e3f4a5b
		linux	/boot/vmlinuz-6.12.48+deb13-cloud-amd64 root=PARTUUID=a1b2 ro
		initrd	/boot/initrd.img-6.12.48+deb13-cloud-amd64
	}
}
if [ "$grub_platform" = "efi" ]; then
	fwsetup --is-supported
	menuentry 'UEFI Firmware Settings' $menuentry_id_option 'uefi-firmware' {
		fwsetup
	}
fi
"#;

fn environment(text: &str) -> String {
    format!("# GRUB Environment Block\n{text}{}", "#".repeat(200))
}

fn titles(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.title.as_str()).collect()
}

#[test]
fn debians_menu_starts_with_its_default() {
    let (_tree, volume) = named(
        "/dev/vda1",
        ROOT_UUID,
        "",
        &[("boot/grub/grub.cfg", DEBIAN)],
    );
    let found = entries(&[volume], 0);
    assert_eq!(
        titles(&found),
        [
            "Debian GNU/Linux",
            "Debian GNU/Linux, with Linux 6.12.57",
            "Debian GNU/Linux, with Linux 6.12.48"
        ]
    );
    assert_eq!(
        found[0].kernel.path,
        "/boot/vmlinuz-6.12.57+deb13-cloud-amd64"
    );
    assert_eq!(
        found[0].initrds[0].path,
        "/boot/initrd.img-6.12.57+deb13-cloud-amd64"
    );
    assert_eq!(
        found[0].cmdline,
        "root=PARTUUID=a1b2 ro console=tty0 console=ttyS0,115200 dyndbg=\"file x +p; file y +p\""
    );
    assert!(found[1].initrds.is_empty());
}

#[test]
fn a_chosen_entry_of_a_submenu_comes_first() {
    for chosen in [
        "gnulinux-advanced-6a1f>gnulinux-6.12.48-advanced-6a1f",
        "1>1",
        "Advanced options for Debian GNU/Linux>Debian GNU/Linux, with Linux 6.12.48",
    ] {
        let (_tree, volume) = named(
            "/dev/vda1",
            ROOT_UUID,
            "",
            &[
                ("boot/grub/grub.cfg", DEBIAN),
                (
                    "boot/grub/grubenv",
                    &environment(&format!("next_entry={chosen}\n")),
                ),
            ],
        );
        let found = entries(&[volume], 0);
        assert_eq!(
            found[0].title, "Debian GNU/Linux, with Linux 6.12.48",
            "{chosen}"
        );
        assert_eq!(found.len(), 3);
    }
}

#[test]
fn the_configuration_on_an_efi_partition_leads_to_the_one_on_the_root() {
    let stub = format!(
        "search.fs_uuid {ROOT_UUID} root hd0,gpt1 \nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n"
    );
    let (_esp, esp) = named(
        "/dev/vda15",
        "cafe-0123",
        "",
        &[("EFI/debian/grub.cfg", &stub)],
    );
    let (_root, root) = named(
        "/dev/vda1",
        ROOT_UUID,
        "",
        &[("boot/grub/grub.cfg", DEBIAN)],
    );
    let volumes = [esp, root];
    let found = entries(&volumes, 0);
    assert_eq!(found.len(), 3);
    assert_eq!(found[0].kernel.volume, 1);
    assert_eq!(found, entries(&volumes, 1));
}

#[test]
fn ubuntus_kernel_is_started_with_its_initrd() {
    let script = r#"
set default="0"
function recordfail { set recordfail=1; if [ -n "${have_grubenv}" ]; then save_env recordfail; fi; }
function initrdfail {
    if [ -n "${have_grubenv}" ]; then if [ -n "${partuuid}" ]; then
      if [ -z "${initrdfail}" ]; then set initrdfail=1; save_env initrdfail; fi
    fi; fi
}
set partuuid=d-3
menuentry 'Ubuntu' --class ubuntu --id gnulinux-simple {
	recordfail
	search --no-floppy --label --set=root cloudimg-rootfs
	if [ "${initrdfail}" = 1 ]; then
	  linux	/boot/vmlinuz-6.8.0-kvm root=PARTUUID=${partuuid} ro  console=tty1 console=ttyS0
	  initrd	/boot/microcode.cpio /boot/initrd.img-6.8.0-kvm
	else
	  linux	/boot/vmlinuz-6.8.0-kvm root=PARTUUID=${partuuid} ro  console=tty1 console=ttyS0 panic=-1
	fi
	initrdfail
}
"#;
    let (_boot, boot) = named("/dev/vda13", "a", "BOOT", &[("grub/grub.cfg", script)]);
    let (_root, root) = named("/dev/vda1", "b", "cloudimg-rootfs", &[("etc/fstab", "")]);
    let found = entries(&[boot, root], 0);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].kernel.volume, 1);
    assert_eq!(found[0].initrds.len(), 2);
    assert_eq!(
        found[0].cmdline,
        "root=PARTUUID=d-3 ro console=tty1 console=ttyS0"
    );
}

#[test]
fn fedoras_entries_come_through_the_menu() {
    let script = r#"
load_env -f ${config_directory}/grubenv
set pager=1
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
else
   set default="${saved_entry}"
fi
insmod blscfg
blscfg
if [ -z "${kernelopts}" ]; then
  set kernelopts="root=UUID=1 ro "
fi
"#;
    let (_tree, volume) = named(
        "/dev/vda2",
        "b00t",
        "boot",
        &[
            (
                "grub2/grub.cfg",
                &script.replace("-f ${config_directory}/grubenv", ""),
            ),
            (
                "grub2/grubenv",
                &environment("saved_entry=m-6.9\nkernelopts=root=UUID=7 ro\n"),
            ),
            (
                "loader/entries/m-6.10.conf",
                "title F (6.10)\nversion 6.10\nlinux /vmlinuz-6.10\noptions $kernelopts\n",
            ),
            (
                "loader/entries/m-6.9.conf",
                "title F (6.9)\nversion 6.9\nlinux /vmlinuz-6.9\noptions $kernelopts\n",
            ),
        ],
    );
    let found = entries(&[volume], 0);
    assert_eq!(titles(&found), ["F (6.9)", "F (6.10)"]);
    assert_eq!(found[0].cmdline, "root=UUID=7 ro");
}

#[test]
fn loops_and_recursion_end() {
    for script in [
        "while true; do set a=1; done",
        "until false; do true; done",
        "function f { f; f; }\nf",
        "configfile /boot/grub/grub.cfg\nconfigfile /boot/grub/grub.cfg",
        "for i in 1 2 3 4 5 6 7 8 9; do for j in 1 2 3 4 5 6 7 8 9; do set a=$a$a$a$a$a$a$a$a; done; done",
    ] {
        let script = format!("{script}\nmenuentry x {{ linux /k }}\n");
        let (_tree, volume) = named("/dev/vda1", "", "", &[("boot/grub/grub.cfg", &script)]);
        let _ = entries(&[volume], 0);
    }
}
