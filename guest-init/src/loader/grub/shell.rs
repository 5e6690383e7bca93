//! Runs GRUB scripts as far as they decide which kernel starts with which arguments.

use std::collections::HashMap;
use std::rc::Rc;

use rustix::fs::FileType;

use super::super::bls;
use super::super::volume::Volume;
use super::super::{Entry, Place};
use super::syntax::{Block, Statement, parse};
use super::words::{Part, Word};

/// Statements run for one configuration; Debian's needs a few hundred.
const MAX_STEPS: u32 = 100_000;
/// Functions, configurations and menus within one another.
const MAX_DEPTH: u32 = 32;
/// Bytes of all variables' values and expanded words together are kept below this by cutting each.
const MAX_WORD: usize = 64 * 1024;

/// A line of the menu.
#[derive(Debug, Clone)]
pub struct Item {
    /// As shown.
    pub title: String,
    /// As `--id` has it; empty for none.
    pub id: String,
    /// What it leads to.
    pub target: Target,
}

/// What a line of the menu leads to.
#[derive(Debug, Clone)]
pub enum Target {
    /// Commands that load a kernel.
    Commands {
        /// Run when it is chosen.
        body: Rc<Block>,
        /// `root` as it was where the entry stands.
        root: String,
    },
    /// An entry of the Boot Loader Specification.
    Ready(Entry),
    /// Further lines.
    Submenu(Vec<Item>),
}

/// The state of a run.
pub struct Shell<'a> {
    volumes: &'a [Volume],
    variables: HashMap<String, String>,
    functions: HashMap<String, Rc<Block>>,
    /// What has been put into the menu.
    pub menu: Vec<Item>,
    loaded: Loaded,
    steps: u32,
    depth: u32,
}

#[derive(Default)]
struct Loaded {
    kernel: Option<(Place, String)>,
    initrds: Vec<Place>,
}

impl<'a> Shell<'a> {
    /// A shell whose root is a volume and whose prefix is a directory on it.
    #[must_use]
    pub fn new(volumes: &'a [Volume], root: usize, prefix: &str) -> Self {
        let root = device(root);
        let variables = [
            ("prefix", format!("({root}){prefix}")),
            ("root", root),
            ("grub_platform", "efi".to_owned()),
            ("grub_cpu", "x86_64".to_owned()),
            ("feature_menuentry_id", "y".to_owned()),
            ("feature_all_video_module", "y".to_owned()),
            ("feature_platform_search_hint", "y".to_owned()),
            ("feature_timeout_style", "y".to_owned()),
            // Ubuntu's cloud kernels are first tried without their initrd, and with it after a panic: at once here.
            ("initrdfail", "1".to_owned()),
        ];
        Self {
            volumes,
            variables: variables
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            functions: HashMap::new(),
            menu: Vec::new(),
            loaded: Loaded::default(),
            steps: 0,
            depth: 0,
        }
    }

    /// A variable's value; empty when it is not set.
    #[must_use]
    pub fn variable(&self, name: &str) -> &str {
        self.variables.get(name).map_or("", String::as_str)
    }

    /// Runs a configuration file; `false` when it cannot be read.
    pub fn configure(&mut self, path: &str) -> bool {
        let Some(script) = self.place(path).and_then(|place| {
            self.volumes
                .get(place.volume)
                .and_then(|volume| volume.read(&place.path).ok())
        }) else {
            return false;
        };
        self.nested(|shell| shell.run(&parse(&script)));
        true
    }

    /// Runs an entry's commands; what they load, if they load a kernel.
    #[must_use]
    pub fn choose(&mut self, title: &str, body: &Block, root: &str) -> Option<Entry> {
        self.loaded = Loaded::default();
        self.set("root", root.to_owned());
        self.steps = 0;
        self.run(body);
        let Loaded { kernel, initrds } = std::mem::take(&mut self.loaded);
        let (kernel, cmdline) = kernel?;
        Some(Entry {
            title: title.to_owned(),
            kernel,
            initrds,
            cmdline,
        })
    }

    fn nested(&mut self, inner: impl FnOnce(&mut Self) -> bool) -> bool {
        if self.depth >= MAX_DEPTH {
            return false;
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn set(&mut self, name: &str, mut value: String) {
        let mut end = value.len().min(MAX_WORD);
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        value.truncate(end);
        self.variables.insert(name.to_owned(), value);
    }

    /// The status of the last statement.
    fn run(&mut self, block: &Block) -> bool {
        let mut status = true;
        for statement in block {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return false;
            }
            status = self.statement(statement);
        }
        status
    }

    fn statement(&mut self, statement: &Statement) -> bool {
        match statement {
            Statement::Command(words) => {
                let words = self.expand_all(words);
                self.command(&words)
            }
            Statement::If {
                branches,
                otherwise,
            } => {
                for (condition, then) in branches {
                    if self.run(condition) {
                        return self.run(then);
                    }
                }
                self.run(otherwise)
            }
            Statement::For { name, words, body } => {
                for value in self.expand_all(words) {
                    self.set(name, value);
                    self.run(body);
                }
                true
            }
            Statement::While {
                condition,
                wanted,
                body,
            } => {
                while self.steps <= MAX_STEPS && self.run(condition) == *wanted {
                    self.steps += 1;
                    self.run(body);
                }
                true
            }
            Statement::Function { name, body } => {
                self.functions.insert(name.clone(), Rc::clone(body));
                true
            }
            Statement::Menu {
                submenu,
                words,
                body,
            } => {
                self.add_item(*submenu, words, body);
                true
            }
        }
    }

    fn add_item(&mut self, submenu: bool, words: &[Word], body: &Rc<Block>) {
        let words = self.expand_all(words);
        let title = words.first().cloned().unwrap_or_default();
        let id = words
            .iter()
            .enumerate()
            .find_map(|(at, word)| match word.strip_prefix("--id=") {
                Some(id) => Some(id.to_owned()),
                None if matches!(word.as_str(), "--id" | "$menuentry_id_option") => {
                    words.get(at + 1).cloned()
                }
                None => None,
            })
            .unwrap_or_default();
        let target = if submenu {
            let above = std::mem::take(&mut self.menu);
            self.nested(|shell| shell.run(body));
            Target::Submenu(std::mem::replace(&mut self.menu, above))
        } else {
            Target::Commands {
                body: Rc::clone(body),
                root: self.variable("root").to_owned(),
            }
        };
        self.menu.push(Item { title, id, target });
    }

    fn expand_all(&self, words: &[Word]) -> Vec<String> {
        words.iter().flat_map(|word| self.expand(word)).collect()
    }

    /// A word's values: a variable outside quotes may stand for several words, or none.
    fn expand(&self, word: &Word) -> Vec<String> {
        let mut words = Vec::new();
        let mut current = String::new();
        let mut started = word.quoted;
        for part in &word.parts {
            match part {
                Part::Text(text) => {
                    current.push_str(text);
                    started = true;
                }
                Part::Variable { name, quoted: true } => current.push_str(self.variable(name)),
                Part::Variable {
                    name,
                    quoted: false,
                } => {
                    let value = self.variable(name);
                    let mut pieces = value.split_whitespace();
                    if let Some(first) = pieces.next() {
                        current.push_str(first);
                        started = true;
                    }
                    for piece in pieces {
                        words.push(std::mem::replace(&mut current, piece.to_owned()));
                    }
                }
            }
            if current.len() > MAX_WORD {
                break;
            }
        }
        if started {
            words.push(current);
        }
        words
    }

    /// One command. Those that load modules, draw or wait do nothing here, and say that they worked.
    fn command(&mut self, words: &[String]) -> bool {
        let Some((name, arguments)) = words.split_first() else {
            return true;
        };
        if let Some(body) = self.functions.get(name).cloned() {
            return self.nested(|shell| shell.run(&body));
        }
        match name.as_str() {
            "set" => {
                for (name, value) in arguments.iter().filter_map(|word| word.split_once('=')) {
                    self.set(name, value.to_owned());
                }
                true
            }
            "unset" => {
                for name in arguments {
                    self.variables.remove(name);
                }
                true
            }
            "[" | "test" => {
                let end = arguments.len() - usize::from(arguments.last().is_some_and(|w| w == "]"));
                self.test(&arguments[..end])
            }
            "!" => !self.command(arguments),
            "false" | "keystatus" | "loadfont" | "sleep" | "background_image" => false,
            "search" | "search.fs_uuid" | "search.fs_label" | "search.file" => {
                self.search(name, arguments)
            }
            "load_env" => self.load_environment(arguments),
            "source" | "." | "configfile" | "normal" => {
                let own = format!("{}/grub.cfg", self.variable("prefix"));
                self.configure(&arguments.first().cloned().unwrap_or(own))
            }
            "linux" | "linuxefi" | "linux16" => {
                let Some((path, rest)) = arguments.split_first() else {
                    return false;
                };
                self.loaded = Loaded {
                    kernel: self.place(path).map(|place| (place, command_line(rest))),
                    initrds: Vec::new(),
                };
                self.loaded.kernel.is_some()
            }
            "initrd" | "initrdefi" | "initrd16" => {
                let places = arguments.iter().map(|path| self.place(path));
                let places: Option<Vec<Place>> = places.collect();
                self.loaded.initrds = places.unwrap_or_default();
                true
            }
            "blscfg" => self.specification_entries(),
            _ => {
                if let Some((name, value)) = name.split_once('=')
                    && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                {
                    self.set(name, value.to_owned());
                }
                true
            }
        }
    }

    /// test(1), as far as GRUB has it: one primary, `!`, `-a`, `-o`.
    fn test(&self, words: &[String]) -> bool {
        if let Some(at) = words.iter().position(|word| word == "-o") {
            return self.test(&words[..at]) || self.test(&words[at + 1..]);
        }
        if let Some(at) = words.iter().position(|word| word == "-a") {
            return self.test(&words[..at]) && self.test(&words[at + 1..]);
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let number = |text: &str| text.parse::<i64>().unwrap_or(0);
        match words.as_slice() {
            [] => false,
            ["!", rest @ ..] => !self.test(
                &rest
                    .iter()
                    .map(|word| (*word).to_owned())
                    .collect::<Vec<_>>(),
            ),
            [text] | ["-n", text] => !text.is_empty(),
            ["-z", text] => text.is_empty(),
            ["-e", path] => self.kind(path).is_some(),
            ["-f", path] => self.kind(path) == Some(FileType::RegularFile),
            ["-d", path] => self.kind(path) == Some(FileType::Directory),
            ["-s", path] => self.place(path).is_some_and(|place| {
                self.volumes
                    .get(place.volume)
                    .is_some_and(|volume| volume.has_content(&place.path))
            }),
            [left, "=" | "==", right] => left == right,
            [left, "!=", right] => left != right,
            [left, "-eq", right] => number(left) == number(right),
            [left, "-ne", right] => number(left) != number(right),
            [left, "-lt", right] => number(left) < number(right),
            [left, "-le", right] => number(left) <= number(right),
            [left, "-gt", right] => number(left) > number(right),
            [left, "-ge", right] => number(left) >= number(right),
            _ => false,
        }
    }

    fn kind(&self, path: &str) -> Option<FileType> {
        let place = self.place(path)?;
        self.volumes.get(place.volume)?.kind(&place.path)
    }

    fn search(&mut self, name: &str, arguments: &[String]) -> bool {
        let mut by = name.strip_prefix("search.").unwrap_or("fs_uuid");
        let mut into = "root";
        let mut plain = Vec::new();
        for argument in arguments {
            match argument.as_str() {
                "--fs-uuid" | "-u" => by = "fs_uuid",
                "--label" | "--fs-label" | "-l" => by = "fs_label",
                "--file" | "-f" => by = "file",
                "--set" | "-s" => into = "root",
                other => match other.strip_prefix("--set=") {
                    Some(name) => into = name,
                    None if !other.starts_with('-') => plain.push(other),
                    None => {}
                },
            }
        }
        let Some(wanted) = plain.first().copied() else {
            return false;
        };
        // `search.fs_uuid UUID VARIABLE`
        if let (true, Some(name)) = (name.contains('.'), plain.get(1)) {
            into = name;
        }
        let found = self.volumes.iter().position(|volume| match by {
            "fs_uuid" => volume.uuid.eq_ignore_ascii_case(wanted),
            "fs_label" => volume.label == wanted,
            _ => volume.kind(wanted).is_some(),
        });
        let Some(found) = found else {
            return false;
        };
        self.set(into, device(found));
        true
    }

    /// grub-editenv(1)'s block: `name=value` lines, filled up with `#`.
    fn load_environment(&mut self, arguments: &[String]) -> bool {
        let own = format!("{}/grubenv", self.variable("prefix"));
        let mut path = own;
        let mut names = Vec::new();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match argument.as_str() {
                "-f" | "--file" => path = rest.next().cloned().unwrap_or_default(),
                other if other.starts_with('-') => {}
                name => names.push(name.to_owned()),
            }
        }
        let text = self
            .place(&path)
            .and_then(|place| self.volumes.get(place.volume)?.read(&place.path).ok());
        for line in text.as_deref().unwrap_or_default().lines() {
            if let Some((name, value)) = line.split_once('=')
                && !line.starts_with('#')
                && (names.is_empty() || names.iter().any(|wanted| wanted == name))
            {
                self.set(name, value.to_owned());
            }
        }
        text.is_some()
    }

    fn specification_entries(&mut self) -> bool {
        let Some(root) = self.device(self.variable("root")) else {
            return false;
        };
        let entries = bls::entries(self.volumes, root, &|name| self.variable(name).to_owned());
        for (id, entry) in entries {
            self.menu.push(Item {
                title: entry.title.clone(),
                id,
                target: Target::Ready(entry),
            });
        }
        true
    }

    /// `(device)/path`, or `/path` on the root.
    fn place(&self, path: &str) -> Option<Place> {
        let (name, path) = match path.strip_prefix('(') {
            Some(rest) => rest.split_once(')')?,
            None => (self.variable("root"), path),
        };
        Some(Place {
            volume: self.device(name)?,
            path: path.to_owned(),
        })
    }

    /// The volume of a device name: one of ours, or a partition of the first disk by its number.
    fn device(&self, name: &str) -> Option<usize> {
        if let Some(index) = name.strip_prefix(OWN) {
            return index
                .parse()
                .ok()
                .filter(|index| *index < self.volumes.len());
        }
        let number = name
            .rsplit_once(',')?
            .1
            .trim_start_matches(|c: char| !c.is_ascii_digit());
        self.volumes.iter().position(|volume| {
            volume
                .name
                .rsplit_once(|c: char| !c.is_ascii_digit())
                .is_some_and(|(_, digits)| digits == number && !number.is_empty())
        })
    }
}

/// What volumes are called in scripts.
const OWN: &str = "volume";

fn device(index: usize) -> String {
    format!("{OWN}{index}")
}

/// Arguments as a kernel takes them: those with spaces in quotes.
fn command_line(words: &[String]) -> String {
    let quoted = words.iter().map(|word| match word.split_once('=') {
        _ if !word.contains([' ', '\t']) => word.clone(),
        Some((name, value)) => format!("{name}=\"{value}\""),
        None => format!("\"{word}\""),
    });
    quoted.collect::<Vec<_>>().join(" ")
}
