//! EXTLINUX and SYSLINUX menus, which Alpine and many hand-made images have.

use super::volume::Volume;
use super::{Entry, Place};

/// Where the menu is looked for.
const FILES: [&str; 6] = [
    "/boot/extlinux/extlinux.conf",
    "/extlinux/extlinux.conf",
    "/boot/extlinux.conf",
    "/extlinux.conf",
    "/boot/syslinux/syslinux.cfg",
    "/syslinux/syslinux.cfg",
];

#[derive(Debug, Default)]
struct Label {
    name: String,
    title: String,
    linux: String,
    initrds: Vec<String>,
    append: String,
}

/// The entries of one volume's menu, the default first, then in the menu's order.
#[must_use]
pub fn entries(volumes: &[Volume], index: usize) -> Vec<Entry> {
    let Some(volume) = volumes.get(index) else {
        return Vec::new();
    };
    for file in FILES {
        let Ok(text) = volume.read(file) else {
            continue;
        };
        let directory = file.rsplit_once('/').map_or("", |(directory, _)| directory);
        let (labels, default) = parse(&text);
        let mut entries: Vec<(String, Entry)> = labels
            .into_iter()
            .filter(|label| !label.linux.is_empty())
            .map(|label| {
                let place = |path: &String| Place {
                    volume: index,
                    // Paths are relative to the menu's directory.
                    path: if path.starts_with('/') {
                        path.clone()
                    } else {
                        format!("{directory}/{path}")
                    },
                };
                let entry = Entry {
                    title: if label.title.is_empty() {
                        label.name.clone()
                    } else {
                        label.title
                    },
                    kernel: place(&label.linux),
                    initrds: label.initrds.iter().map(place).collect(),
                    cmdline: label.append,
                };
                (label.name, entry)
            })
            .collect();
        if let Some(at) = entries.iter().position(|(name, _)| *name == default) {
            entries[..=at].rotate_right(1);
        }
        if !entries.is_empty() {
            return entries.into_iter().map(|(_, entry)| entry).collect();
        }
    }
    Vec::new()
}

/// The labels and the default's name.
fn parse(text: &str) -> (Vec<Label>, String) {
    let mut labels: Vec<Label> = Vec::new();
    let mut default = String::new();
    let mut append = String::new();
    for line in text.lines().map(str::trim) {
        let (keyword, value) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        let value = value.trim();
        let initrds = || value.split(',').map(|path| path.trim().to_owned());
        match (keyword.to_ascii_lowercase().as_str(), labels.last_mut()) {
            ("default", _) => value.clone_into(&mut default),
            ("label", _) => labels.push(Label {
                name: value.to_owned(),
                append: append.clone(),
                ..Label::default()
            }),
            // Before the first label it holds for all of them.
            ("append", None) => value.clone_into(&mut append),
            ("append", Some(label)) => take_initrd(label, value),
            ("linux" | "kernel", Some(label)) => value.clone_into(&mut label.linux),
            ("initrd", Some(label)) => label.initrds = initrds().collect(),
            ("menu", Some(label)) => {
                if let Some((word, title)) = value.split_once([' ', '\t'])
                    && word.eq_ignore_ascii_case("label")
                {
                    label.title = title.trim().replace('^', "");
                }
            }
            _ => {}
        }
    }
    (labels, default)
}

/// `initrd=` among the arguments is meant for the loader; `-` alone stands for no arguments.
fn take_initrd(label: &mut Label, value: &str) {
    let mut words = Vec::new();
    for word in value.split_whitespace().filter(|word| *word != "-") {
        match word.strip_prefix("initrd=") {
            Some(paths) => label.initrds = paths.split(',').map(str::to_owned).collect(),
            None => words.push(word),
        }
    }
    label.append = words.join(" ");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::volume;
    use super::*;

    #[test]
    fn alpines_menu_is_read() {
        let (_tree, volume) = volume(&[(
            "boot/extlinux.conf",
            "DEFAULT menu.c32\nPROMPT 0\nMENU TITLE Alpine\nDEFAULT virt\nLABEL lts\n  MENU LABEL Linux ^lts\n  LINUX vmlinuz-lts\n\
             INITRD initramfs-lts\nAPPEND root=UUID=1 console=ttyS0\nLABEL virt\nKERNEL /boot/vmlinuz-virt\n\
             APPEND initrd=/boot/a.img,/boot/b.img root=UUID=1 -\nLABEL reboot\nCOM32 reboot.c32\n",
        )]);
        let found = entries(&[volume], 0);
        assert_eq!(found.len(), 2);
        assert_eq!(
            (
                found[0].title.as_str(),
                found[0].kernel.path.as_str(),
                found[0].cmdline.as_str()
            ),
            ("virt", "/boot/vmlinuz-virt", "root=UUID=1")
        );
        assert_eq!(found[0].initrds.len(), 2);
        assert_eq!(
            (
                found[1].title.as_str(),
                found[1].kernel.path.as_str(),
                found[1].initrds[0].path.as_str()
            ),
            ("Linux lts", "/boot/vmlinuz-lts", "/boot/initramfs-lts")
        );
    }

    proptest! {
        #[test]
        fn any_text_parses(text in "[ -~\n\t]{0,300}") {
            parse(&text);
        }
    }
}
