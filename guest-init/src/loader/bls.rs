//! Entries of the Boot Loader Specification, type 1: one small file for each kernel, written by kernel-install(8) and
//! by Fedora's packages.

use std::cmp::{Ordering, Reverse};

use super::volume::Volume;
use super::{Entry, Place};

/// Directories of entries: of a boot or EFI system partition, and of a root file system that holds /boot itself.
const DIRECTORIES: [&str; 2] = ["/loader/entries", "/boot/loader/entries"];

/// A file's fields.
#[derive(Debug, Default)]
struct Fields {
    title: String,
    version: String,
    sort_key: String,
    linux: String,
    initrds: Vec<String>,
    options: Vec<String>,
}

/// The entries on one volume with their ids, newest first. `variable` gives the values of `$name` in them, which
/// Fedora's GRUB replaces.
#[must_use]
pub fn entries(
    volumes: &[Volume],
    index: usize,
    variable: &dyn Fn(&str) -> String,
) -> Vec<(String, Entry)> {
    let Some(volume) = volumes.get(index) else {
        return Vec::new();
    };
    for directory in DIRECTORIES {
        let mut found: Vec<(String, Fields)> = volume
            .list(directory)
            .into_iter()
            .filter_map(|name| {
                let id = name.strip_suffix(".conf")?.to_owned();
                let fields = parse(&volume.read(&format!("{directory}/{name}")).ok()?, variable);
                (!fields.linux.is_empty()).then_some((id, fields))
            })
            .collect();
        if found.is_empty() {
            continue;
        }
        found.sort_by(order);
        return found
            .into_iter()
            .map(|(id, fields)| {
                let place = |path: &String| Place {
                    volume: index,
                    path: path.clone(),
                };
                let title = if fields.title.is_empty() {
                    &id
                } else {
                    &fields.title
                };
                let entry = Entry {
                    title: title.clone(),
                    kernel: place(&fields.linux),
                    initrds: fields.initrds.iter().map(place).collect(),
                    cmdline: fields.options.join(" "),
                };
                (id, entry)
            })
            .collect();
    }
    Vec::new()
}

/// The entries of a volume whose loader reads nothing else, systemd-boot's default first.
#[must_use]
pub fn of_systemd_boot(volumes: &[Volume], index: usize) -> Vec<Entry> {
    let mut found = entries(volumes, index, &|_| String::new());
    let settings = volumes
        .get(index)
        .and_then(|volume| volume.read("/loader/loader.conf").ok());
    let default = settings
        .as_deref()
        .unwrap_or_default()
        .lines()
        .find_map(|line| line.trim().strip_prefix("default").map(str::trim));
    if let Some(pattern) = default
        && let Some(at) = found.iter().position(|(id, _)| matches(pattern, id))
    {
        found[..=at].rotate_right(1);
    }
    found.into_iter().map(|(_, entry)| entry).collect()
}

/// An id, with or without `.conf`, that may end in `*`.
fn matches(pattern: &str, id: &str) -> bool {
    let pattern = pattern.strip_suffix(".conf").unwrap_or(pattern);
    match pattern.strip_suffix('*') {
        Some(start) => id.starts_with(start),
        None => id == pattern,
    }
}

fn parse(text: &str, variable: &dyn Fn(&str) -> String) -> Fields {
    let mut fields = Fields::default();
    for line in text.lines().map(str::trim) {
        let Some((name, value)) = line.split_once([' ', '\t']) else {
            continue;
        };
        let value = replace(value.trim(), variable);
        match name {
            "title" => fields.title = value,
            "version" => fields.version = value,
            "sort-key" => fields.sort_key = value,
            "linux" => fields.linux = value,
            "initrd" => fields
                .initrds
                .extend(value.split_whitespace().map(str::to_owned)),
            "options" => fields.options.push(value),
            _ => {}
        }
    }
    fields
}

/// Puts values in the places of `$name`.
fn replace(text: &str, variable: &dyn Fn(&str) -> String) -> String {
    let mut pieces = text.split('$');
    let mut result = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let end = piece
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(piece.len());
        result.push_str(&variable(&piece[..end]));
        result.push_str(&piece[end..]);
    }
    result.trim().to_owned()
}

/// Those with a sort key first, by it; then the newest version, or the id that sounds newest. Entries that have used
/// up their tries (`id+0-3`) come last.
fn order((left_id, left): &(String, Fields), (right_id, right): &(String, Fields)) -> Ordering {
    let bad = |id: &str| {
        id.rsplit_once('+')
            .is_some_and(|(_, tries)| tries.split('-').next() == Some("0"))
    };
    bad(left_id)
        .cmp(&bad(right_id))
        .then_with(|| left.sort_key.is_empty().cmp(&right.sort_key.is_empty()))
        .then_with(|| left.sort_key.cmp(&right.sort_key))
        .then_with(|| versions(&right.version, &left.version))
        .then_with(|| versions(right_id, left_id))
}

/// Compares digits as numbers and everything else as it is; `~` sorts before the end.
fn versions(left: &str, right: &str) -> Ordering {
    runs(left).cmp(runs(right))
}

fn runs(text: &str) -> impl Iterator<Item = (bool, Reverse<bool>, usize, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let digits = first.is_ascii_digit();
        let end = rest
            .find(|c: char| c.is_ascii_digit() != digits)
            .unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        rest = after;
        // A longer number without its leading zeros is the greater one.
        let run = if digits {
            run.trim_start_matches('0')
        } else {
            run
        };
        let length = if digits { run.len() } else { 0 };
        Some((digits, Reverse(first == '~'), length, run))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::volume;
    use super::*;

    #[test]
    fn fedoras_entries_come_newest_first_with_variables_replaced() {
        let (_tree, volume) = volume(&[
            (
                "loader/entries/abc-6.9.7-200.fc40.x86_64.conf",
                "title Fedora Linux (6.9.7)\nversion 6.9.7-200.fc40.x86_64\nlinux /vmlinuz-6.9.7\n\
                 initrd /initramfs-6.9.7.img $tuned_initrd\noptions root=UUID=1 ro $tuned_params\ngrub_class fedora\n",
            ),
            (
                "loader/entries/abc-6.10.3-200.fc40.x86_64.conf",
                "title Fedora Linux (6.10.3)\nversion 6.10.3-200.fc40.x86_64\nlinux /vmlinuz-6.10.3\n\
                 options $kernelopts\noptions quiet\n",
            ),
            (
                "loader/entries/abc-0-rescue.conf",
                "title Rescue\nversion 0-rescue\nlinux /vmlinuz-0\n",
            ),
            (
                "loader/entries/no-kernel.conf",
                "title Nothing\nefi /x.efi\n",
            ),
            ("loader/entries/readme", "linux /no\n"),
        ]);
        let variable = |name: &str| match name {
            "kernelopts" => "root=UUID=2 ro".to_owned(),
            _ => String::new(),
        };
        let found = entries(&[volume], 0, &variable);
        let kernels: Vec<&str> = found.iter().map(|(_, e)| e.kernel.path.as_str()).collect();
        assert_eq!(kernels, ["/vmlinuz-6.10.3", "/vmlinuz-6.9.7", "/vmlinuz-0"]);
        assert_eq!(found[0].1.cmdline, "root=UUID=2 ro quiet");
        assert_eq!(found[1].1.cmdline, "root=UUID=1 ro");
        assert_eq!(found[1].1.initrds.len(), 1);
        assert_eq!(found[1].0, "abc-6.9.7-200.fc40.x86_64");
    }

    #[test]
    fn systemd_boots_default_comes_first_and_what_failed_last() {
        let (_tree, volume) = volume(&[
            ("loader/loader.conf", "timeout 3\ndefault debian-6.1*\n"),
            (
                "loader/entries/debian-6.12+0-3.conf",
                "version 6.12\nlinux /a\n",
            ),
            (
                "loader/entries/debian-6.11.conf",
                "version 6.11\nlinux /b\n",
            ),
            ("loader/entries/debian-6.1.conf", "version 6.1\nlinux /c\n"),
        ]);
        let kernels = |pattern: &str| {
            let found = of_systemd_boot(std::slice::from_ref(&volume), 0);
            assert_eq!(found.len(), 3, "{pattern}");
            found
                .into_iter()
                .map(|entry| entry.kernel.path)
                .collect::<Vec<_>>()
        };
        assert_eq!(kernels("debian-6.1*"), ["/b", "/c", "/a"]);
    }

    #[test]
    fn versions_compare_by_number() {
        for (less, more) in [
            ("6.9.7", "6.10.3"),
            ("6.1", "6.1.1"),
            ("6.1-rc9", "6.1-rc10"),
            ("007", "8"),
        ] {
            assert_eq!(versions(less, more), Ordering::Less, "{less} {more}");
        }
        assert_eq!(versions("6.01", "6.1"), Ordering::Equal);
    }

    proptest! {
        #[test]
        fn any_text_parses(text in "[ -~\n\t]{0,300}") {
            let _ = parse(&text, &|name| name.to_owned());
        }

        #[test]
        fn versions_are_ordered(a in "[a-z0-9.~-]{0,12}", b in "[a-z0-9.~-]{0,12}", c in "[a-z0-9.~-]{0,12}") {
            prop_assert_eq!(versions(&a, &b), versions(&b, &a).reverse());
            if versions(&a, &b).is_le() && versions(&b, &c).is_le() {
                prop_assert!(versions(&a, &c).is_le());
            }
        }
    }
}
