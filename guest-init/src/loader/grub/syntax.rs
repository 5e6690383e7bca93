//! GRUB's script language, second half: from words to statements.

use std::rc::Rc;

use super::words::{Token, Word, tokens};

/// Statements within statements, at most so many deep.
const MAX_DEPTH: usize = 64;

/// Statements in their order.
pub type Block = Vec<Statement>;

/// One statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// A command and its arguments.
    Command(Vec<Word>),
    /// `if … then … elif … else … fi`
    If {
        /// Conditions with what follows from them.
        branches: Vec<(Block, Block)>,
        /// Without one that holds.
        otherwise: Block,
    },
    /// `for NAME in WORDS; do … done`
    For {
        /// The variable.
        name: String,
        /// Its values.
        words: Vec<Word>,
        /// What is done with each.
        body: Block,
    },
    /// `while … do … done`, `until … do … done`
    While {
        /// Looked at before each round.
        condition: Block,
        /// Goes on for as long as the condition says this.
        wanted: bool,
        /// A round.
        body: Block,
    },
    /// `function NAME { … }`
    Function {
        /// Its name.
        name: String,
        /// Run when it is called.
        body: Rc<Block>,
    },
    /// `menuentry … { … }`, `submenu … { … }`
    Menu {
        /// It holds further entries.
        submenu: bool,
        /// Title and options.
        words: Vec<Word>,
        /// Run when it is chosen.
        body: Rc<Block>,
    },
}

/// Reads a script. What cannot be understood is left out: the distribution's own loader has read the rest of it.
#[must_use]
pub fn parse(script: &str) -> Block {
    let tokens = tokens(script);
    let mut parser = Parser {
        tokens: &tokens,
        depth: 0,
    };
    let mut block = Vec::new();
    while !parser.tokens.is_empty() {
        block.extend(parser.block(&[]));
        // A keyword or brace that closes nothing.
        parser.next();
    }
    block
}

struct Parser<'a> {
    tokens: &'a [Token],
    depth: usize,
}

impl<'a> Parser<'a> {
    fn next(&mut self) -> Option<&'a Token> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(first)
    }

    fn keyword(&self) -> Option<&'a str> {
        match self.tokens.first()? {
            Token::Word(word) => word.keyword(),
            _ => None,
        }
    }

    fn skip_ends(&mut self) {
        while matches!(self.tokens.first(), Some(Token::End)) {
            self.next();
        }
    }

    /// Statements up to, not including, one of the keywords, a closing brace or the end.
    fn block(&mut self, until: &[&str]) -> Block {
        let mut block = Vec::new();
        if self.depth == MAX_DEPTH {
            self.tokens = &[];
        }
        self.depth += 1;
        loop {
            self.skip_ends();
            match self.tokens.first() {
                None | Some(Token::Close) => break,
                Some(Token::Open) => {
                    self.next();
                    block.extend(self.block(&[]));
                    self.next();
                }
                _ if self.keyword().is_some_and(|word| until.contains(&word)) => break,
                _ => block.push(self.statement()),
            }
        }
        self.depth -= 1;
        block
    }

    /// The rest of a line as words.
    fn words(&mut self) -> Vec<Word> {
        let mut words = Vec::new();
        while let Some(Token::Word(word)) = self.tokens.first() {
            words.push(word.clone());
            self.next();
        }
        words
    }

    fn expect(&mut self, keyword: &str) {
        self.skip_ends();
        if self.keyword() == Some(keyword) {
            self.next();
        }
    }

    fn statement(&mut self) -> Statement {
        match self.keyword() {
            Some("if") => self.conditional(),
            Some("while") => self.repeat(true),
            Some("until") => self.repeat(false),
            Some("for") => self.each(),
            Some("function") => {
                let words = self.words();
                let name = words.get(1).and_then(Word::keyword).unwrap_or_default();
                Statement::Function {
                    name: name.to_owned(),
                    body: Rc::new(self.braces()),
                }
            }
            Some(keyword @ ("menuentry" | "submenu")) => {
                let submenu = keyword == "submenu";
                let words = self.words().split_off(1);
                Statement::Menu {
                    submenu,
                    words,
                    body: Rc::new(self.braces()),
                }
            }
            _ => Statement::Command(self.words()),
        }
    }

    fn braces(&mut self) -> Block {
        self.skip_ends();
        if !matches!(self.tokens.first(), Some(Token::Open)) {
            return Vec::new();
        }
        self.next();
        let body = self.block(&[]);
        self.next();
        body
    }

    fn conditional(&mut self) -> Statement {
        let mut branches = Vec::new();
        let mut otherwise = Vec::new();
        loop {
            // `if` or `elif`
            self.next();
            let condition = self.block(&["then"]);
            self.expect("then");
            branches.push((condition, self.block(&["elif", "else", "fi"])));
            match self.keyword() {
                Some("elif") => continue,
                Some("else") => {
                    self.next();
                    otherwise = self.block(&["fi"]);
                }
                _ => {}
            }
            self.expect("fi");
            return Statement::If {
                branches,
                otherwise,
            };
        }
    }

    fn repeat(&mut self, wanted: bool) -> Statement {
        self.next();
        let condition = self.block(&["do"]);
        self.expect("do");
        let body = self.block(&["done"]);
        self.expect("done");
        Statement::While {
            condition,
            wanted,
            body,
        }
    }

    fn each(&mut self) -> Statement {
        let mut words = self.words();
        let name = words
            .get(1)
            .and_then(Word::keyword)
            .unwrap_or_default()
            .to_owned();
        let words = words.split_off(words.len().min(3));
        self.expect("do");
        let body = self.block(&["done"]);
        self.expect("done");
        Statement::For { name, words, body }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(block: &Block) -> Vec<String> {
        block
            .iter()
            .map(|statement| match statement {
                Statement::Command(words) => words[0].keyword().unwrap_or("?").to_owned(),
                Statement::If {
                    branches,
                    otherwise,
                } => format!(
                    "if {:?} else {:?}",
                    branches
                        .iter()
                        .map(|(condition, then)| (names(condition), names(then)))
                        .collect::<Vec<_>>(),
                    names(otherwise)
                ),
                Statement::For { name, words, body } => {
                    format!("for {name} in {} {:?}", words.len(), names(body))
                }
                Statement::While { wanted, .. } => format!("while {wanted}"),
                Statement::Function { name, body } => format!("function {name} {:?}", names(body)),
                Statement::Menu {
                    submenu,
                    words,
                    body,
                } => {
                    format!("menu {submenu} {} {:?}", words.len(), names(body))
                }
            })
            .collect()
    }

    #[test]
    fn every_form_is_understood() {
        let script = "if a; then b; elif c\nthen\n d\nelse e; fi\nfor i in 1 2; do f; done\nwhile g; do h; done\n\
                      function k {\n l\n}\nmenuentry 'm' --id n {\n o\n}\nsubmenu p { menuentry q { r } }\ns";
        assert_eq!(
            names(&parse(script)),
            [
                "if [([\"a\"], [\"b\"]), ([\"c\"], [\"d\"])] else [\"e\"]",
                "for i in 2 [\"f\"]",
                "while true",
                "function k [\"l\"]",
                "menu false 3 [\"o\"]",
                "menu true 1 [\"menu false 1 [\\\"r\\\"]\"]",
                "s",
            ]
        );
    }

    #[test]
    fn what_closes_nothing_or_is_never_closed_is_survived() {
        assert_eq!(names(&parse("fi } a\nif b; then c")).len(), 3);
        for endless in ["if a; then ", "{ ", "submenu a { "] {
            let _ = parse(&endless.repeat(10_000));
        }
    }

    proptest! {
        #[test]
        fn any_words_parse(words in prop::collection::vec(
            prop::sample::select(vec!["if", "then", "fi", "else", "{", "}", "menuentry", "function", "for", "do", "done", "x", "\n", ";"]), 0..60)
        ) {
            let _ = parse(&words.join(" "));
        }
    }
}
