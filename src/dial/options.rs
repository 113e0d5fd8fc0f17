//! What the user says in `options`: plain values, held to the table of the protocol that they are for.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Map;

use super::Kind;

/// A value; the element makes it of a field of its structure.
#[derive(Clone, PartialEq)]
pub enum Value {
    Text(String),
    Flag(bool),
    Integer(i64),
    Number(f64),
    Texts(Vec<String>),
    Object(Map<String, serde_json::Value>),
}

/// Any of them may be a secret, so that they show what they are and no more.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Value {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Flag(_) => "a boolean",
            Self::Integer(_) => "an integer",
            Self::Number(_) => "a number",
            Self::Texts(_) => "a list of texts",
            Self::Object(_) => "a structure",
        }
    }
}

/// What an option may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionKind {
    Text,
    Flag,
    Integer,
    /// An integer is one as well.
    Number,
    /// Also as one text, with commas.
    Texts,
    /// Also as a text of JSON.
    Object,
}

impl OptionKind {
    fn takes(self, value: &Value) -> bool {
        use Value::{Flag, Integer, Number, Object, Text, Texts};
        match self {
            Self::Text => matches!(value, Text(_)),
            Self::Flag => matches!(value, Flag(_)),
            Self::Integer => matches!(value, Integer(_)),
            Self::Number => matches!(value, Number(_) | Integer(_)),
            Self::Texts => matches!(value, Texts(_) | Text(_)),
            Self::Object => matches!(value, Object(_) | Text(_)),
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Flag => "a boolean",
            Self::Integer => "an integer",
            Self::Number => "a number",
            Self::Texts => "a list of texts, or a text with commas",
            Self::Object => "a structure, or a text of JSON",
        }
    }
}

/// A line of a protocol's table.
#[derive(Debug)]
pub struct OptionSpec {
    pub name: &'static str,
    pub kind: OptionKind,
    /// A full statement, with unit and default.
    pub blurb: &'static str,
}

/// Why a session cannot be as it was asked for. What an option says is repeated only where it cannot be secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    #[error("{protocol} has no option {key:?}; it has {known}")]
    Unknown {
        protocol: &'static str,
        key: String,
        known: String,
    },
    #[error("option {key} is {came}; {right} is right")]
    WrongKind {
        key: &'static str,
        came: &'static str,
        right: &'static str,
    },
    #[error("option {key}: {problem}")]
    Value { key: &'static str, problem: String },
    /// Each is right by itself.
    #[error("options {0} and {1} exclude each other")]
    Together(&'static str, &'static str),
    #[error("{protocol} needs {what}")]
    Missing {
        protocol: &'static str,
        what: &'static str,
    },
    /// What the elements send and receive has no place in the protocol.
    #[error("{protocol}: {problem}")]
    Party {
        protocol: &'static str,
        problem: &'static str,
    },
}

impl OptionError {
    pub fn value(key: &'static str, problem: impl Into<String>) -> Self {
        let problem = problem.into();
        Self::Value { key, problem }
    }
}

#[derive(Clone, Default, PartialEq)]
pub struct Options(BTreeMap<String, Value>);

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.0).finish()
    }
}

impl FromIterator<(String, Value)> for Options {
    fn from_iter<T: IntoIterator<Item = (String, Value)>>(values: T) -> Self {
        Self(values.into_iter().collect())
    }
}

impl Options {
    pub fn new(values: BTreeMap<String, Value>) -> Self {
        Self(values)
    }

    /// Whether each is known to the protocol, and of the right kind.
    pub fn check(&self, protocol: &'static Kind) -> Result<(), OptionError> {
        for (key, value) in &self.0 {
            let spec = protocol.all_options().find(|spec| spec.name == key);
            let Some(spec) = spec else {
                let known: Vec<_> = protocol.all_options().map(|spec| spec.name).collect();
                return Err(OptionError::Unknown {
                    protocol: protocol.name,
                    key: key.chars().take(64).collect(),
                    known: known.join(", "),
                });
            };
            if !spec.kind.takes(value) {
                return Err(OptionError::WrongKind {
                    key: spec.name,
                    came: value.as_str(),
                    right: spec.kind.as_str(),
                });
            }
        }
        Ok(())
    }

    /// A text that says something.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.text_or_empty(key).filter(|text| !text.is_empty())
    }

    /// Where an empty text differs from none.
    pub fn text_or_empty(&self, key: &str) -> Option<&str> {
        match self.0.get(key)? {
            Value::Text(text) => Some(text.trim()),
            _ => None,
        }
    }

    pub fn flag(&self, key: &str) -> Option<bool> {
        match self.0.get(key)? {
            Value::Flag(flag) => Some(*flag),
            _ => None,
        }
    }

    /// An integer of that range.
    pub fn integer(
        &self,
        key: &'static str,
        range: std::ops::RangeInclusive<u32>,
    ) -> Result<Option<u32>, OptionError> {
        let Some(Value::Integer(integer)) = self.0.get(key) else {
            return Ok(None);
        };
        let fitting = u32::try_from(*integer).ok();
        match fitting.filter(|integer| range.contains(integer)) {
            Some(integer) => Ok(Some(integer)),
            None => Err(OptionError::value(
                key,
                format!("{integer}; {} to {} is right", range.start(), range.end()),
            )),
        }
    }

    pub fn number(&self, key: &str) -> Option<f64> {
        match self.0.get(key)? {
            Value::Number(number) => Some(*number),
            Value::Integer(integer) => Some(*integer as f64),
            _ => None,
        }
    }

    /// Empty ones say nothing.
    pub fn texts(&self, key: &str) -> Option<Vec<String>> {
        let said = |texts: &mut dyn Iterator<Item = &str>| {
            let texts = texts.map(str::trim).filter(|text| !text.is_empty());
            texts.map(str::to_owned).collect()
        };
        match self.0.get(key)? {
            Value::Texts(texts) => Some(said(&mut texts.iter().map(String::as_str))),
            Value::Text(text) => Some(said(&mut text.split(','))),
            _ => None,
        }
    }

    pub fn object(
        &self,
        key: &'static str,
    ) -> Result<Option<Map<String, serde_json::Value>>, OptionError> {
        match self.0.get(key) {
            Some(Value::Object(object)) => Ok(Some(object.clone())),
            // What serde_json finds wrong it may quote, and that may be secret.
            Some(Value::Text(text)) => serde_json::from_str(text).map(Some).map_err(|error| {
                let place = format!("line {}, column {}", error.line(), error.column());
                OptionError::value(key, format!("no JSON object, as is found at {place}"))
            }),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::KINDS;
    use super::*;

    fn kind(name: &str) -> &'static Kind {
        KINDS.iter().find(|kind| kind.name == name).unwrap()
    }

    fn options<const N: usize>(values: [(&str, Value); N]) -> Options {
        let values = values.into_iter();
        values.map(|(key, value)| (key.to_owned(), value)).collect()
    }

    #[test]
    fn an_unknown_option_is_named_with_those_that_the_protocol_has() {
        let error = options([("stream-output", Value::Text("x".into()))]).check(kind("whip"));
        assert_eq!(
            error.unwrap_err().to_string(),
            "whip has no option \"stream-output\"; it has answer-timeout, ca-file, token"
        );
        for kind in &KINDS {
            let error = Options::from_iter([("nope".into(), Value::Flag(true))]).check(kind);
            let text = error.unwrap_err().to_string();
            for spec in kind.all_options() {
                assert!(text.contains(spec.name), "{text}");
            }
        }
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_named_with_what_is_right() {
        let wrong = [("token", Value::Integer(7))];
        let error = options(wrong).check(kind("whep")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "option token is an integer; a text is right"
        );
        for (key, value) in [
            ("realtime-processing", Value::Text("yes".into())),
            ("declared-fps", Value::Flag(true)),
            ("processing-timeout", Value::Number(1.0)),
            ("stream-output", Value::Integer(1)),
            ("workflow-parameters", Value::Texts(Vec::new())),
        ] {
            let error = options([(key, value)]).check(kind("roboflow")).unwrap_err();
            assert!(matches!(error, OptionError::WrongKind { .. }), "{error}");
        }
    }

    #[test]
    fn a_value_may_be_written_as_a_launch_line_writes_it() {
        let options = options([
            ("stream-output", Value::Text("a, b,,".into())),
            ("data-output", Value::Texts(vec!["*".into(), String::new()])),
            ("declared-fps", Value::Integer(25)),
            ("workflow-parameters", Value::Text("{\"n\":1}".into())),
            ("processing-timeout", Value::Integer(-1)),
        ]);
        options.check(kind("roboflow")).unwrap();
        assert_eq!(
            options.texts("stream-output"),
            Some(vec!["a".into(), "b".into()])
        );
        assert_eq!(options.texts("data-output"), Some(vec!["*".into()]));
        assert_eq!(options.number("declared-fps"), Some(25.0));
        let parameters = options.object("workflow-parameters").unwrap().unwrap();
        assert_eq!(json!(parameters), json!({ "n": 1 }));
        let error = options.integer("processing-timeout", 1..=9).unwrap_err();
        assert_eq!(
            error.to_string(),
            "option processing-timeout: -1; 1 to 9 is right"
        );
    }

    #[test]
    fn no_value_is_told() {
        let options = options([
            ("api-key", Value::Text("s3cret".into())),
            ("workflow-parameters", Value::Text("\"s3cret\"".into())),
        ]);
        let error = options.object("workflow-parameters").unwrap_err();
        for text in [format!("{options:?}"), format!("{error} {error:?}")] {
            assert!(!text.contains("s3cret"), "{text}");
        }
    }

    #[test]
    fn every_option_has_one_line_and_a_statement() {
        for kind in &KINDS {
            let names: Vec<_> = kind.all_options().map(|spec| spec.name).collect();
            let mut once = names.clone();
            once.sort_unstable();
            once.dedup();
            assert_eq!(once.len(), names.len(), "{names:?}");
            assert!(kind.all_options().all(|spec| spec.blurb.len() > 20));
        }
    }
}
