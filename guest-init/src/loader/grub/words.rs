//! GRUB's script language, first half: from characters to words (GRUB manual, "Writing full configuration files").

use std::iter::Peekable;
use std::str::Chars;

/// A piece of a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Itself.
    Text(String),
    /// The value of a variable.
    Variable {
        /// Its name; `?`, `@`, `*`, `#` and digits are names too.
        name: String,
        /// Inside double quotes: the value stays in one word.
        quoted: bool,
    },
}

/// A word before its variables are replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Word {
    /// In their order.
    pub parts: Vec<Part>,
    /// Part of it was quoted: even if empty it is a word, and it is no keyword.
    pub quoted: bool,
}

impl Word {
    /// The word's text if it could be a keyword.
    #[must_use]
    pub fn keyword(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [Part::Text(text)] if !self.quoted => Some(text),
            _ => None,
        }
    }

    fn push(&mut self, character: char) {
        if let Some(Part::Text(text)) = self.parts.last_mut() {
            text.push(character);
        } else {
            self.parts.push(Part::Text(character.to_string()));
        }
    }

    fn is_empty(&self) -> bool {
        self.parts.is_empty() && !self.quoted
    }
}

/// What a script is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// A word.
    Word(Word),
    /// The end of a line, or `;`.
    End,
    /// `{`
    Open,
    /// `}`
    Close,
}

/// Takes a script apart. Nothing is an error: an open quote ends with the script.
#[must_use]
pub fn tokens(script: &str) -> Vec<Token> {
    let mut lexer = Lexer {
        rest: script.chars().peekable(),
        tokens: Vec::new(),
        word: Word::default(),
    };
    lexer.run();
    lexer.tokens
}

struct Lexer<'a> {
    rest: Peekable<Chars<'a>>,
    tokens: Vec<Token>,
    word: Word,
}

impl Lexer<'_> {
    fn run(&mut self) {
        while let Some(character) = self.rest.next() {
            match character {
                '\n' | ';' => self.finish(Some(Token::End)),
                ' ' | '\t' | '\r' => self.finish(None),
                '#' if self.word.is_empty() => while self.rest.next_if(|c| *c != '\n').is_some() {},
                '{' if self.word.is_empty() => self.finish(Some(Token::Open)),
                '}' if self.word.is_empty() => self.finish(Some(Token::Close)),
                '\\' => match self.rest.next() {
                    Some('\n') | None => {}
                    Some(escaped) => {
                        self.word.quoted = true;
                        self.word.push(escaped);
                    }
                },
                '\'' => {
                    self.word.quoted = true;
                    while let Some(inner) = self.rest.next_if(|c| *c != '\'') {
                        self.word.push(inner);
                    }
                    self.rest.next();
                }
                '"' => self.double_quoted(),
                '$' => self.variable(false),
                other => self.word.push(other),
            }
        }
        self.finish(Some(Token::End));
    }

    fn finish(&mut self, token: Option<Token>) {
        if !self.word.is_empty() {
            let word = std::mem::take(&mut self.word);
            self.tokens.push(Token::Word(word));
        }
        self.tokens.extend(token);
    }

    fn double_quoted(&mut self) {
        self.word.quoted = true;
        while let Some(character) = self.rest.next() {
            match character {
                '"' => return,
                '\\' => match self.rest.next() {
                    Some('\n') | None => {}
                    Some(escaped @ ('$' | '"' | '\\')) => self.word.push(escaped),
                    Some(other) => {
                        self.word.push('\\');
                        self.word.push(other);
                    }
                },
                '$' => self.variable(true),
                other => self.word.push(other),
            }
        }
    }

    fn variable(&mut self, quoted: bool) {
        let mut name = String::new();
        match self.rest.peek() {
            Some('{') => {
                self.rest.next();
                while let Some(inner) = self.rest.next_if(|c| !matches!(c, '}' | '\n')) {
                    name.push(inner);
                }
                self.rest.next_if_eq(&'}');
            }
            Some('?' | '@' | '*' | '#' | '0'..='9') => name.extend(self.rest.next()),
            _ => {
                while let Some(inner) = self
                    .rest
                    .next_if(|c| c.is_ascii_alphanumeric() || *c == '_')
                {
                    name.push(inner);
                }
            }
        }
        if name.is_empty() {
            self.word.push('$');
        } else {
            self.word.parts.push(Part::Variable { name, quoted });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> Part {
        Part::Text(text.to_owned())
    }

    fn variable(name: &str, quoted: bool) -> Part {
        Part::Variable {
            name: name.to_owned(),
            quoted,
        }
    }

    #[test]
    fn quotes_escapes_and_variables_make_words() {
        let script = "set a='x $y' # no\nlinux \"/boot/v${z}\" $opts\\ tail;if";
        let word = |parts: Vec<Part>, quoted| Token::Word(Word { parts, quoted });
        assert_eq!(
            tokens(script),
            [
                word(vec![text("set")], false),
                word(vec![text("a=x $y")], true),
                Token::End,
                word(vec![text("linux")], false),
                word(vec![text("/boot/v"), variable("z", true)], true),
                word(vec![variable("opts", false), text(" tail")], true),
                Token::End,
                word(vec![text("if")], false),
                Token::End,
            ]
        );
    }

    #[test]
    fn braces_stand_alone_and_a_line_may_go_on() {
        assert_eq!(
            tokens("f {\n a\\\nb }"),
            [
                Token::Word(Word {
                    parts: vec![text("f")],
                    quoted: false
                }),
                Token::Open,
                Token::End,
                Token::Word(Word {
                    parts: vec![text("ab")],
                    quoted: false
                }),
                Token::Close,
                Token::End,
            ]
        );
    }

    proptest! {
        #[test]
        fn any_script_has_words(script in "[ -~\n]{0,200}") {
            let tokens = tokens(&script);
            prop_assert_eq!(tokens.last(), Some(&Token::End));
        }
    }
}
