//! What GRUB would start: its configuration is a program, which is run as far as it chooses a kernel.

mod shell;
mod syntax;
mod words;

use self::shell::{Item, Shell, Target};
use super::Entry;
use super::volume::Volume;

/// Directories of the configuration, relative to a volume's root, of Debian's kind and of Fedora's.
const DIRECTORIES: [&str; 4] = ["/boot/grub", "/boot/grub2", "/grub", "/grub2"];
/// The directory of an EFI system partition in which each distribution has its own.
const EFI: &str = "/EFI";
const CONFIGURATION: &str = "grub.cfg";

/// The entries of the menu of one volume's configuration, the default first, then in the menu's order.
#[must_use]
pub fn entries(volumes: &[Volume], index: usize) -> Vec<Entry> {
    let Some(volume) = volumes.get(index) else {
        return Vec::new();
    };
    let distributions = volume
        .list(EFI)
        .into_iter()
        .map(|name| format!("{EFI}/{name}"));
    DIRECTORIES
        .iter()
        .map(|directory| (*directory).to_owned())
        .chain(distributions)
        .filter(|directory| volume.has_content(&format!("{directory}/{CONFIGURATION}")))
        .map(|directory| menu(volumes, index, &directory))
        .find(|entries| !entries.is_empty())
        .unwrap_or_default()
}

fn menu(volumes: &[Volume], index: usize, directory: &str) -> Vec<Entry> {
    let mut shell = Shell::new(volumes, index, directory);
    let path = format!("{}/{CONFIGURATION}", shell.variable("prefix"));
    shell.configure(&path);
    let menu = std::mem::take(&mut shell.menu);
    let mut items = Vec::new();
    flatten(&menu, &mut items);
    if let Some(default) = find(&menu, shell.variable("default"))
        && let Some(at) = items.iter().position(|item| std::ptr::eq(*item, default))
    {
        items[..=at].rotate_right(1);
    }
    items
        .into_iter()
        .filter_map(|item| match &item.target {
            Target::Commands { body, root } => shell.choose(&item.title, body, root),
            Target::Ready(entry) => Some(entry.clone()),
            Target::Submenu(_) => None,
        })
        .collect()
}

/// The lines that start something, those of submenus in their place.
fn flatten<'a>(menu: &'a [Item], into: &mut Vec<&'a Item>) {
    for item in menu {
        match &item.target {
            Target::Submenu(inner) => flatten(inner, into),
            _ => into.push(item),
        }
    }
}

/// What `default` names: a number from 0, an id or a title, of a submenu followed by `>` and the same again.
fn find<'a>(menu: &'a [Item], default: &str) -> Option<&'a Item> {
    let named = |name: &str| {
        let number = name
            .parse::<usize>()
            .ok()
            .and_then(|number| menu.get(number));
        number.or_else(|| {
            menu.iter()
                .find(|item| item.id == name || item.title == name)
        })
    };
    let (item, rest) = match (named(default), default.split_once('>')) {
        (Some(item), _) => (item, ""),
        (None, Some((first, rest))) => (named(first)?, rest),
        (None, None) => return None,
    };
    match &item.target {
        Target::Submenu(inner) => find(inner, rest).or_else(|| inner.first()),
        _ => Some(item),
    }
}

#[cfg(test)]
mod tests;
