//! Names of classes: one a line in a file, or as exporters write them into a model.

use std::sync::Arc;

/// Most classes a model may name.
const MAX_LABELS: usize = 100_000;

/// Names of classes by their number. A class without a name is called by its number.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Labels {
    names: Vec<Arc<str>>,
}

impl Labels {
    /// One name a line; lines at the end that are blank do not count.
    pub fn from_lines(text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        text.trim_end().lines().map(str::trim).collect()
    }

    /// The names 0, 1, 2 and so on.
    pub fn numbered(count: usize) -> Self {
        (0..count.min(MAX_LABELS)).map(|_| "").collect()
    }

    /// What exporters write: a dictionary of numbers and names, or a list of names, as a literal of
    /// Python (`{0: 'circle', 1: "x y"}`) or as JSON. None where it is neither.
    pub fn from_literal(text: &str) -> Option<Self> {
        let mut literal = Literal(text.trim());
        let close = if literal.skip('{') {
            '}'
        } else if literal.skip('[') {
            ']'
        } else {
            return None;
        };
        let mut names: Vec<String> = Vec::new();
        while !literal.skip(close) {
            let number = match close {
                '}' => literal.key()?,
                _ => names.len(),
            };
            if number >= MAX_LABELS {
                return None;
            }
            let name = literal.text()?;
            if names.len() <= number {
                names.resize(number + 1, String::new());
            }
            names[number] = name;
            if !literal.skip(',') && !literal.0.starts_with(close) {
                return None;
            }
        }
        let complete = literal.0.is_empty() && !names.is_empty();
        complete.then(|| names.iter().map(String::as_str).collect())
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub fn name(&self, class_id: u32) -> Arc<str> {
        match self.names.get(class_id as usize) {
            Some(name) => name.clone(),
            None => class_id.to_string().into(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }
}

impl<'a> FromIterator<&'a str> for Labels {
    fn from_iter<I: IntoIterator<Item = &'a str>>(names: I) -> Self {
        let names = names.into_iter().enumerate().map(|(number, name)| {
            if name.is_empty() {
                number.to_string().into()
            } else {
                name.into()
            }
        });
        Labels {
            names: names.collect(),
        }
    }
}

/// What is left to read of a literal, whose space at the beginning is already skipped.
struct Literal<'a>(&'a str);

impl Literal<'_> {
    fn advance(&mut self, bytes: usize) {
        self.0 = self.0[bytes..].trim_start();
    }

    fn skip(&mut self, symbol: char) -> bool {
        let found = self.0.starts_with(symbol);
        if found {
            self.advance(symbol.len_utf8());
        }
        found
    }

    /// `7:`, or `"7":` as JSON has it.
    fn key(&mut self) -> Option<usize> {
        let number = if self.0.starts_with(['"', '\'']) {
            self.text()?.parse().ok()?
        } else {
            let end = self.0.find(|c: char| !c.is_ascii_digit())?;
            let number = self.0[..end].parse().ok()?;
            self.advance(end);
            number
        };
        self.skip(':').then_some(number)
    }

    fn text(&mut self) -> Option<String> {
        let quote = self.0.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let mut text = String::new();
        let mut chars = self.0.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            if c == quote {
                self.advance(at + c.len_utf8());
                return Some(text);
            }
            if c != '\\' {
                text.push(c);
                continue;
            }
            let digits = match chars.next()?.1 {
                'x' => 2,
                'u' => 4,
                'U' => 8,
                other => {
                    text.push(match other {
                        'n' => '\n',
                        't' => '\t',
                        'r' => '\r',
                        other => other,
                    });
                    continue;
                }
            };
            let mut code = 0;
            for _ in 0..digits {
                code = code * 16 + chars.next()?.1.to_digit(16)?;
            }
            text.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn literal(text: &str) -> Option<Vec<String>> {
        Labels::from_literal(text).map(|labels| labels.iter().map(str::to_owned).collect())
    }

    #[test]
    fn names_of_a_python_dictionary_are_read() {
        let names = literal(r#"{0: 'circle', 1: "x y", 2: 'it\'s', 3: 'caf\xe9 \u2603'}"#).unwrap();
        assert_eq!(names, ["circle", "x y", "it's", "café ☃"]);
    }

    #[test]
    fn names_of_json_and_of_lists_are_read() {
        assert_eq!(literal(r#"{"1": "b", "0": "a"}"#).unwrap(), ["a", "b"]);
        assert_eq!(literal("['a', 'b, c',]").unwrap(), ["a", "b, c"]);
    }

    #[test]
    fn a_class_without_a_name_is_called_by_its_number() {
        assert_eq!(literal("{0: 'a', 2: 'c'}").unwrap(), ["a", "1", "c"]);
        let labels = Labels::from_lines("a\n\nc\n");
        assert_eq!(labels.iter().collect::<Vec<_>>(), ["a", "1", "c"]);
        assert_eq!(&*labels.name(7), "7");
        assert_eq!(&*Labels::numbered(3).name(2), "2");
    }

    #[test]
    fn what_is_no_literal_gives_no_names() {
        let broken = [
            "",
            "{}",
            "[]",
            "circle",
            "{0: circle}",
            "{0 'a'}",
            "{0: 'a'",
            "{0: 'a'} x",
            "{0: 'a' 1: 'b'}",
            "{9999999999: 'a'}",
            "{-1: 'a'}",
            "{0: 'a\\",
            "[1, 2]",
        ];
        for text in broken {
            assert_eq!(literal(text), None, "{text}");
        }
    }

    #[test]
    fn lines_may_end_as_on_windows_and_begin_with_a_mark() {
        let labels = Labels::from_lines("\u{feff}red\r\ngreen light \r\n\r\n");
        assert_eq!(labels.iter().collect::<Vec<_>>(), ["red", "green light"]);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[{\\[]?[0-9'\":,\\\\xu{}\\[\\] a☃]{0,40}") {
            let _ = literal(&text);
        }

        #[test]
        fn every_json_list_of_names_is_read(names in prop::collection::vec("[ -~é☃]{1,8}", 1..6)) {
            let text = serde_json::to_string(&names).unwrap();
            prop_assert_eq!(literal(&text), Some(names));
        }
    }
}
